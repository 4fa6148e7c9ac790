"""Agents of a distributed clearing: one per bus, with mail to parent, children, SMO and operator.

A clearing begins at a bus when it hears its number from the operator: the bus takes the bid that
its SMO made last (an SMO that is silent is taken to go on as it was told last). Then it goes from
round to round; a round uses message n of every neighbour and ends with the bus's message n + 1:

1. `start_rounds` rounds of `controllers.market.solvers.sweeps`, from where the last clearing ended;
2. the halves of an iteration, in turn, until the stopping rule holds;
3. the result goes to the operator, again and again while the operator asks.

A bus waits for message n of all its neighbours, and every message bears the one before it, too: so
lost and late mail changes no number, it only takes time. A neighbour is at most one
round ahead.

**Stopping rule, by messages of neighbours only.** Every message carries a count: 0 where the bus's
own errors are not within the tolerance (`agreed_kw`, `agreed_price`), else one more than the least
of its own and its neighbours' counts of the round before. A count above the diameter of the tree
says that there was a round in which all buses were within the tolerance: anything else would have
come to this bus as a 0 meanwhile. The bus then reports its result. It goes on answering its
neighbours until the operator has all results.

**Not heard from a neighbour.** The step sizes need the largest singular value of all rows, and the
rule needs the tree's diameter. Both come from planning data: the network and nominal bids.

What a neighbour cannot mean is not believed (`Bounds`): the message counts as lost, and is told as
the event ``mail_refused`` when that begins on a link.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controllers.core.mail import FloatArray, IntArray, Link, Mail
from controllers.market.agents.bid_receiver import BidReceiver
from controllers.market.agents.bus_rules import SAID, Bounds, bus_names, diameter, worth_of_limits
from controllers.market.agents.clearing_agents import ClearingAgents
from controllers.market.agents.distributed_operator import ORDER_FIELDS
from controllers.market.agents.mail_tables import Latest, Sorter, messages
from controllers.market.agents.schedule import RESULT_FIELDS, MarketTerms, per_unit
from controllers.market.agents.smo import AWARD_FIELDS
from controllers.market.model.participants import BID_FIELDS, Participants, aggregate
from controllers.market.solvers.atoms import P_GEN, P_LOAD, Q_GEN, Atoms
from controllers.market.solvers.iteration import WIDTH, Iteration, Plan
from controllers.market.solvers.sweeps import Sweeps

SPAN = 1 << 20
"""Rounds of a clearing at most: message n of clearing c has the number ``c * SPAN + n``."""
_MOST_COPIES = 4
"""Copies of a message that a bus sends in one step; it sends more the longer it has waited."""


@dataclass(frozen=True)
class Agreement:
    """When the buses stop, and where they start.

    Attributes
    ----------
    kw : float. Largest error of a bus's balances, kW and kvar; of its voltages, per mille.
    price : float. Largest reduced cost left, relative to the import price.
    diameter : int. Lines between the two buses farthest apart.
    """

    kw: float
    price: float
    diameter: int
    start_rounds: int


class BusAgents(ClearingAgents):
    """The hosted bus agents as arrays.

    Parameters
    ----------
    table : Participants
    hosted : sequence of int. Rows of the network, ascending.
    options : mapping. Of the algorithm.
    agreed : (kW, relative price). Tolerances of the stopping rule.
    start_rounds : Of the sweeps; default: two and a half times the depth of the tree, and two.
    silent_steps : int. Market steps after which an SMO is silent.
    """

    def __init__(
        self,
        table: Participants,
        terms: MarketTerms,
        hosted: Sequence[int],
        algorithm: type[Iteration],
        options: Mapping[str, Any],
        *,
        agreed: tuple[float, float],
        start_rounds: int | None,
        silent_steps: int,
        seed: int,
    ) -> None:
        net = terms.network
        nominal = terms.problem(table.rows, aggregate(table))
        depth = int(net.depth.max(initial=0))
        rounds = 5 * depth // 2 + 2 if start_rounds is None else start_rounds
        self._agreement = Agreement(*agreed, diameter(net), rounds)
        self._bounds = Bounds.of(nominal, algorithm)
        plan = Plan(Atoms.of(nominal, algorithm.scales).norm(), nominal.import_price, seed)
        self._atoms = atoms = Atoms(
            net, np.array(hosted, dtype=np.int64), import_price=nominal.import_price,
            v_sq_min=nominal.v_sq_min, v_sq_max=nominal.v_sq_max, scales=algorithm.scales,
        )  # fmt: skip
        self._sweeps, self._state = Sweeps(atoms), algorithm(atoms, plan, **options)
        self._mw, self._xi = terms.mw, nominal.xi
        self.names = tuple(bus_names(net.buses)[i] for i in hosted)
        # The SMOs whose bus is hosted, and the position of their atom.
        position = {row: i for i, row in enumerate(hosted)}
        self.smos = [i for i, row in enumerate(table.rows.tolist()) if row in position]
        self._at = np.array([position[int(table.rows[i])] for i in self.smos], dtype=np.int64)
        super().__init__(BidReceiver([table.names[i] for i in self.smos], silent_steps))
        self.awards = np.full((len(self.smos), len(AWARD_FIELDS)), np.nan)
        self._reset()

    def _reset(self) -> None:
        m, edges = self._atoms.m, self._atoms.owner.size
        self._clearing, self._rounds, self._done, self._in_force = np.zeros((4, m), dtype=np.int64)
        self._count = np.zeros(m)
        self._waited = np.zeros(m, dtype=np.int64)
        self._up_now, self._up_before = np.zeros((2, SAID, m))
        self._down_now, self._down_before = np.zeros((2, SAID, edges))
        self._results = np.zeros((m, len(RESULT_FIELDS)))
        self._heard_up, self._heard_down = Latest(edges, 2 * SAID), Latest(m, 2 * SAID)
        self._orders = Latest(m, len(ORDER_FIELDS))

    @property
    def _first(self) -> IntArray:
        """Round of each bus's first iteration; the first clearing of all begins with nothing."""
        rounds = self._agreement.start_rounds
        return np.where(self._clearing == 1, 2 * rounds, rounds)

    # --- mail ------------------------------------------------------------------------------------

    def declare(
        self, links: Mapping[str, Sequence[Link]], links_in: Sequence[Link], at: Mapping[str, int]
    ) -> None:
        """Find the hosted buses' links: `at` is the position of each outgoing link by its key."""
        self._mail = {kind: Sorter(links_in, kind) for kind in ("up", "down", "order")}
        mine = set(self.names)
        inner = np.flatnonzero(self._atoms.inner > 0.0)
        self._inner: IntArray = inner
        self._out = {
            kind: [at[link.key] for link in links[kind] if link.source in mine]
            for kind in ("up", "down", "result", "award")
        }
        self._kind_of = {
            kind: [f"{link.source}>{link.target}" for link in self._mail[kind].links]
            for kind in ("up", "down")
        }

    def take_mail(self, mail: Mail, step: int) -> None:
        """Take in what neighbours and the operator say."""
        if not len(mail):
            return
        for kind, into, bound in (
            ("up", self._heard_up, self._bounds.up),
            ("down", self._heard_down, self._bounds.down),
        ):
            sender, number, rows = self._mail[kind].rows(mail)
            if not sender.size:
                continue
            believed = np.asarray((np.abs(rows) <= np.tile(bound, 2)).all(axis=1))
            self.note_doubts(self._kind_of[kind], sender, believed)
            sender, number, rows = sender[believed], number[believed], rows[believed]
            into.absorb(self._inner[sender] if kind == "down" else sender, number, rows, step)
        self._orders.absorb(*self._mail["order"].rows(mail), step)

    # --- a step ----------------------------------------------------------------------------------

    def step(self, interval: int, market_step: int) -> list[Mail]:
        """Begin, go on, and say what is to be said."""
        orders = np.rint(self._orders.values[:, :3]).astype(np.int64)
        self._begin((orders[:, 0] > self._clearing) & self._has_bid(market_step))
        self._award(orders[:, 2], interval)
        self._advance()
        asked = (orders[:, 1] > 0) & (orders[:, 0] == self._clearing)
        if not asked.any():
            return []
        return self._messages(asked)

    def _has_bid(self, market_step: int) -> NDArray[np.bool_]:
        """Return which buses need not wait for their SMO's first bid, (m,)."""
        ready = np.ones(self._atoms.m, dtype=bool)
        if market_step <= self.receiver.silent_steps:
            ready[self._at[~self.receiver.book.known]] = False
        return ready

    def _begin(self, where: NDArray[np.bool_]) -> None:
        """Take the bids at hand and start the sweeps of a new clearing."""
        if not where.any():
            return
        table = np.zeros((self._atoms.m, len(BID_FIELDS)))
        factors = 10.0 ** self._orders.values[:, 3:]
        if self.smos:
            table[self._at] = self.receiver.usable_bids(self.awards)
        table[:, BID_FIELDS.index("alpha_p")] *= factors[:, 1]
        table[:, BID_FIELDS.index("beta")] *= factors[:, 2]
        self._atoms.load_some(where, per_unit(table, self._mw), self._xi * factors[:, 0])
        self._sweeps.begin(where)
        self._clearing = np.where(where, np.rint(self._orders.values[:, 0]), self._clearing)
        self._clearing = self._clearing.astype(np.int64)
        self._rounds[where] = 0
        self._count[where] = 0.0
        self._state.error_kw[where] = np.inf
        self._write(where, opening=True)

    def _award(self, in_force: IntArray, interval: int) -> None:
        """Award the result of the clearing that the operator says is in force."""
        new = (in_force == self._done) & (in_force > self._in_force)
        if not new.any():
            return
        self._in_force[new] = in_force[new]
        table = dict(zip(RESULT_FIELDS, self._results.T, strict=True))
        parts = (
            table["p_load"] * self._mw, table["p_gen"] * self._mw, table["q_gen"] * self._mw,
            table["price_p"] / self._mw, table["price_q"] / self._mw,
        )  # fmt: skip
        row = np.stack([np.full(self._atoms.m, float(interval)), *parts], axis=1)
        told = new[self._at]
        self.awards[told] = row[self._at[told]]

    def _advance(self) -> None:
        """Do one round at every bus that has heard all its neighbours."""
        atoms, n = self._atoms, self._rounds
        wanted = self._clearing * SPAN + n
        ahead_up = self._heard_up.round - wanted[atoms.owner]
        ahead_down = self._heard_down.round - wanted
        self._waited = self._waited + 1
        missing = np.bincount(atoms.owner, (ahead_up != 0) & (ahead_up != 1), atoms.m)
        there = (atoms.inner == 0.0) | (ahead_down == 0) | (ahead_down == 1)
        ready = (self._clearing > 0) & there & (missing == 0)
        if not ready.any():
            return
        below = _said(self._heard_up.values, ahead_up)
        above = _said(self._heard_down.values, ahead_down)
        above[:WIDTH] *= atoms.inner
        self._compute(ready, n, below[:WIDTH], above[:WIDTH])
        self._rounds = n + ready
        self._waited = np.where(ready, 0, self._waited)
        self._agree(ready, np.rint(below[WIDTH]), np.rint(above[WIDTH]))
        self._write(ready)
        ended = ready & (self._done < self._clearing) & (self._count > self._agreement.diameter)
        if ended.any():
            self._end(ended, below[:WIDTH], above[:WIDTH])

    def _compute(
        self, ready: NDArray[np.bool_], n: IntArray, below: FloatArray, above: FloatArray
    ) -> None:
        first = self._first
        sweeping = ready & (n < first)
        if sweeping.any():
            self._sweeps.advance(sweeping, below, above)
            opening = sweeping & (n == first - 1)
            if opening.any():
                self._state.begin(opening, *self._sweeps.start(), below)
        for stage in (0, 1):
            now = ready & (n >= first) & ((n - first) % 2 == stage)
            if now.any():
                self._state.half(stage, now, below, above)

    def _agree(self, ready: NDArray[np.bool_], below: FloatArray, above: FloatArray) -> None:
        """Count the rounds in which this bus and all that it heard of were within the tolerance."""
        agreement, atoms, state = self._agreement, self._atoms, self._state
        least = np.where(atoms.inner > 0.0, np.minimum(self._count, above), self._count)
        np.minimum.at(least, atoms.owner, below)
        fine = (state.error_kw <= agreement.kw) & (state.error_price <= agreement.price)
        self._count = np.where(ready, np.where(fine, 1.0 + least, 0.0), self._count)

    def _write(self, where: NDArray[np.bool_], *, opening: bool = False) -> None:
        """Write message n of the atoms `where` is true for; the one before it goes along."""
        atoms, edges = self._atoms, where[self._atoms.owner]
        sweeping = self._rounds < self._first
        up = np.where(sweeping, self._sweeps.up(), self._state.up())
        down = np.where(sweeping[atoms.owner], self._sweeps.down(), self._state.down())
        up, down = np.vstack([up, self._count]), np.vstack([down, self._count[atoms.owner]])
        if opening:
            self._up_before = np.where(where, up, self._up_before)
            self._down_before = np.where(edges, down, self._down_before)
        else:
            self._up_before = np.where(where, self._up_now, self._up_before)
            self._down_before = np.where(edges, self._down_now, self._down_before)
        self._up_now = np.where(where, up, self._up_now)
        self._down_now = np.where(edges, down, self._down_now)

    def _end(self, where: NDArray[np.bool_], below: FloatArray, above: FloatArray) -> None:
        """Write the results down, and what limits were worth."""
        atoms, state = self._atoms, self._state
        x = state.found_x
        reduced = state.reduced_costs(below, above)
        v_worth, l_worth = worth_of_limits(atoms, x, reduced)
        self._sweeps.keep(where, v_worth, l_worth)
        phys, price = x * atoms.scale, -(state.found_y * atoms.row_scale)[:2]
        p_load = phys[P_LOAD]
        rows = np.stack([
            state.count.astype(np.float64), atoms.bids.p_load0, p_load,
            p_load * atoms.tangent + atoms.q_fixed, phys[P_GEN], phys[Q_GEN], *price, v_worth,
            l_worth,
        ], axis=1)  # fmt: skip
        self._results[where] = rows[where]
        self._done = np.where(where, self._clearing, self._done)

    def _messages(self, asked: NDArray[np.bool_]) -> list[Mail]:
        """Return the mail of buses whose clearing the operator still waits for."""
        number = self._clearing * SPAN + self._rounds
        copies = np.clip(self._waited, 1, _MOST_COPIES) * asked
        per_line = copies[self._inner]
        at = np.repeat(self._inner, per_line)
        up_link = np.repeat(np.array(self._out["up"], dtype=np.int64), per_line)
        up = np.vstack([self._up_now, self._up_before]).T[at]
        per_line = copies[self._atoms.owner]
        edge = np.repeat(np.arange(per_line.size), per_line)
        down_link = np.array(self._out["down"], dtype=np.int64)[edge]
        down = np.vstack([self._down_now, self._down_before]).T[edge]
        sent = [
            numbered(up_link, number[at], up),
            numbered(down_link, number[self._atoms.owner[edge]], down),
        ]
        self.messages += up_link.size + down_link.size
        ended = np.flatnonzero(asked & (self._done == self._clearing))
        if ended.size:
            link = np.array(self._out["result"], dtype=np.int64)[ended]
            sent.append(numbered(link, self._clearing[ended], self._results[ended]))
        return sent

    def award_mail(self, step: int) -> Mail:
        """Return the awards in force."""
        told = np.flatnonzero(np.isfinite(self.awards[:, 0]))
        return messages([self._out["award"][i] for i in told], step, self.awards[told])


def _said(heard: FloatArray, ahead: IntArray) -> FloatArray:
    """Return the message of the wanted round from (links, 2 * SAID), shape (SAID, links)."""
    now, before = heard[:, :SAID], heard[:, SAID:]
    return np.where((ahead == 1)[:, None], before, now).T


def numbered(links: IntArray, number: IntArray, rows: FloatArray) -> Mail:
    """Return one message over each link, with its number."""
    return Mail(links, number, np.ascontiguousarray(rows, dtype=np.float64).ravel())
