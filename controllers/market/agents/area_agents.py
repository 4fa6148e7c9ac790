"""Agents of the three-phase market by areas: one per area, with mail to neighbours and operator.

An area receives the bids of the SMOs at its terminals, and begins a clearing when it receives the
clearing's number from the operator. Then neighbours take turns
(`controllers.market.three_phase.areas`): an area with an even distance from the source sends
message n, the others reply with theirs, and so on. An area sends message n + 1 only when it has all
that goes into it, and repeats every message until then. So lost, late and repeated mail changes no
number; it takes time only.

**Stopping, by messages of neighbours only**, is that of the bus agents
(`controllers.market.agents.bus_agents`): every message has the number of turns in which the area
and all that its messages came from were within `agreed_kw` and `agreed_price` of their neighbours.
A count beyond the number of areas shows that all were. The area then reports to the operator, and
goes on with its neighbours until the operator has all reports.

A message that is not finite, or beyond ten times what planning data say is large, counts as lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from controllers.core.mail import FloatArray, IntArray, Link, Mail
from controllers.market.agents.area_rules import AREA_FIELDS, AreaMail
from controllers.market.agents.bid_receiver import NUMBER_MAX, BidReceiver
from controllers.market.agents.bus_agents import SPAN, numbered
from controllers.market.agents.clearing_agents import ClearingAgents
from controllers.market.agents.mail_tables import Latest, Sorter, messages
from controllers.market.agents.reweighing import Weights, weighted
from controllers.market.agents.schedule import PortTerms
from controllers.market.agents.smo import AWARD_FIELDS
from controllers.market.model.participants import Participants, aggregate
from controllers.market.three_phase.areas import AreaMarket, AreaState, columns_from
from controllers.market.three_phase.dispatch import ComplexArray
from controllers.market.three_phase.objective import P_GEN, P_LOAD, Q_GEN, SHED

_LARGE = 10.0


class _Agent:
    """One hosted area: its state, its SMOs and their terminals, and where it stands in the mail."""

    def __init__(self, a: int, state: AreaState, smos: IntArray, rows: IntArray) -> None:
        self.a, self.state, self.smos, self.rows = a, state, smos, rows
        self.clearing = self.turns = self.done = self.in_force = 0
        self.count = 0.0
        self.result: FloatArray = np.zeros(0)
        self.neighbours = sorted(set(state.area.neighbour.tolist()))


class AreaAgents(ClearingAgents):
    """The hosted area agents; in use like `BusAgents`.

    Parameters
    ----------
    table : Participants
    hosted : sequence of int. Positions of the areas.
    agreed : (kW, relative price). Tolerances of the stopping rule.
    silent_steps : int. Market steps after which an SMO is silent.
    """

    def __init__(
        self,
        table: Participants,
        terms: PortTerms,
        layout: AreaMail,
        hosted: Sequence[int],
        *,
        agreed: tuple[float, float],
        silent_steps: int,
    ) -> None:
        self._terms, self._layout, self._agreed = terms, layout, agreed
        self.names = tuple(layout.names[a] for a in hosted)
        # Hosted SMOs' awards and bids stand in the order of the SMOs.
        self.smos = [i for i, a in enumerate(layout.home.tolist()) if a in set(hosted)]
        place = {smo: i for i, smo in enumerate(self.smos)}
        self._agents = [
            _Agent(
                a,
                layout.market.states[a],
                np.array([place[i] for i in self.smos if layout.home[i] == a], dtype=np.int64),
                table.rows[layout.home == a],
            )
            for a in hosted
        ]
        super().__init__(BidReceiver([table.names[i] for i in self.smos], silent_steps))
        self.awards = np.full((len(self.smos), len(AWARD_FIELDS)), np.nan)
        self._large = self._bounds(table, layout.market)

    def _bounds(self, table: Participants, market: AreaMarket) -> tuple[float, float]:
        """Return the largest voltage and current that are believed, scaled."""
        bids = self._terms.problem(table.rows, aggregate(table)).bids
        power = sum(
            float(np.abs(x).sum())
            for x in (bids.p_load0, bids.q_load0, bids.p_gen_max, bids.q_gen_max)
        )
        scale = market.plan.scale(self._terms.import_price * self._terms.mw)
        reach = max(float(np.abs(s.area.z).max(initial=0.0)) for s in market.states)
        current = power + 1.0
        return (
            _LARGE * scale.voltage * (self._terms.v_max_pu + 3.0 * reach * current),
            _LARGE * scale.current * current,
        )

    # --- mail ------------------------------------------------------------------------------------

    def declare(
        self, links: Mapping[str, Sequence[Link]], links_in: Sequence[Link], at: Mapping[str, int]
    ) -> None:
        """Find the hosted areas' links: `at` is the position of each outgoing link by its key."""
        mine = set(self.names)
        self._mail = {kind: Sorter(links_in, kind) for kind in ("shared", "order")}
        heard = [(link.source, link.target) for link in self._mail["shared"].links]
        self._heard_at = {pair: i for i, pair in enumerate(heard)}
        self._shared = Latest(len(heard), self._layout.shared_width)
        orders = self._mail["order"]
        self._orders = Latest(len(orders.links), orders.width)
        self._order_at = {link.target: i for i, link in enumerate(orders.links)}
        # Half of a message are voltages: two numbers for each node shared with the sender.
        place = {name: a for a, name in enumerate(self._layout.names)}
        shared = [self._layout.areas[place[b]].neighbour == place[a] for a, b in heard]
        self._half = np.array([2 * np.count_nonzero(x) for x in shared], dtype=np.int64)
        self._out = {
            (link.source, link.target): at[link.key]
            for kind in ("shared", "result")
            for link in links[kind]
            if link.source in mine
        }
        self._award_out = [at[link.key] for link in links["award"] if link.source in mine]
        (self._operator,) = {link.target for link in links["result"]}

    def take_mail(self, mail: Mail, step: int) -> None:
        """Take in what neighbours and the operator say."""
        if not len(mail):
            return
        sender, number, rows = self._mail["shared"].rows(mail)
        if sender.size:
            column, half = np.arange(rows.shape[1] - 1), self._half[sender][:, None]
            bound = np.where(column < half, self._large[0], self._large[1])
            believed = (np.abs(rows[:, :-1]) <= bound).all(axis=1)
            believed &= np.abs(rows[:, -1]) <= NUMBER_MAX
            names = [f"{source}>{target}" for source, target in self._heard_at]
            self.note_doubts(names, sender, believed)
            self._shared.absorb(sender[believed], number[believed], rows[believed], step)
        self._orders.absorb(*self._mail["order"].rows(mail), step)

    # --- a step ----------------------------------------------------------------------------------

    def step(self, interval: int, market_step: int) -> list[Mail]:
        """Begin, go on, and say what is to be said."""
        sent = []
        for agent in self._agents:
            order = self._orders.values[self._order_at[self._layout.names[agent.a]]]
            number, is_open, in_force = np.rint(order[:3]).astype(np.int64).tolist()
            if number > agent.clearing and self._has_bids(agent, market_step):
                self._begin(agent, number, order)
            self._award(agent, in_force, interval)
            if agent.clearing:
                self._advance(agent)
            if is_open and number == agent.clearing:
                sent += self._messages(agent)
        return sent

    def _has_bids(self, agent: _Agent, market_step: int) -> bool:
        """Say whether the area need not wait for an SMO's first bid."""
        waits = market_step <= self.receiver.silent_steps
        return not waits or bool(self.receiver.book.known[agent.smos].all())

    def _begin(self, agent: _Agent, number: int, order: FloatArray) -> None:
        """Take the bids at hand; begin where the last clearing ended."""
        rows = agent.rows
        bids = self.receiver.usable_bids(self.awards)[agent.smos]
        problem = self._terms.problem(rows, bids)
        n = self._terms.network.size
        weights = Weights(np.ones(n), np.ones(n), float(10.0 ** order[3]))
        factors = self._layout.factors(agent.a, order)
        weights.alpha[rows], weights.beta[rows] = factors[:, 0], factors[:, 1]
        if agent.done != agent.clearing:
            agent.state.forget()  # it was given up, and may have gone anywhere
        agent.clearing, agent.turns, agent.count = number, 0, 0.0
        agent.state.begin(weighted(problem, weights))

    def _award(self, agent: _Agent, in_force: int, interval: int) -> None:
        """Award the result of the clearing that the operator says is in force."""
        if in_force != agent.done or in_force <= agent.in_force:
            return
        agent.in_force = in_force
        mw, own = self._terms.mw, agent.rows
        t, wide = agent.state.area.terminals.size, len(AREA_FIELDS)
        result = agent.result[: t * wide].reshape(t, wide)
        result = result[np.searchsorted(agent.state.area.terminals, own)]
        table = dict(zip(AREA_FIELDS, result.T, strict=True))
        self.awards[agent.smos] = np.stack([
            np.full(own.size, float(interval)), table["p_load"] * mw, table["p_gen"] * mw,
            table["q_gen"] * mw, table["price_p"] / mw, table["price_q"] / mw,
        ], axis=1)  # fmt: skip

    def _advance(self, agent: _Agent) -> None:
        """Take a turn if all neighbours have said what it needs."""
        state, area = agent.state, agent.state.area
        first = state.even and agent.turns == 0
        # An even area answers the answers to its last message, the others a new message.
        wanted = agent.clearing * SPAN + agent.turns - (1 if state.even else 0)
        heard: ComplexArray = np.zeros(2 * len(area.shared), dtype=np.complex128)
        count = agent.count
        for q in () if first else agent.neighbours:
            i = self._heard_at[self._layout.names[q], self._layout.names[agent.a]]
            if self._shared.round[i] != wanted:
                return
            columns = columns_from(area, q)
            parts = self._shared.values[i, : 2 * columns.size]
            heard[columns] = parts[0::2] + 1j * parts[1::2]
            count = min(count, float(np.rint(self._shared.values[i, -1])))
        state.turn(None if first else heard)
        agent.turns += 1
        kw, price = self._agreed
        content = max(state.error_kw, 1e3 * state.moved_pu) <= kw and state.error_price <= price
        agent.count = count + 1.0 if content else 0.0
        if agent.done < agent.clearing and agent.count > len(self._layout.areas):
            self._end(agent)

    def _end(self, agent: _Agent) -> None:
        """Write the result down."""
        local, at = agent.state.local, agent.state.area.terminals
        bids, x = local.devices.bids, local.x[:, at]
        served = local.x[P_LOAD] - local.x[SHED]
        price_p, price_q = local.prices
        columns = [
            np.full(at.size, float(agent.turns)), bids.p_load0[at], served[at],
            local.devices.reactive(served)[at], x[P_GEN], x[Q_GEN], price_p[at], price_q[at],
            x[SHED], np.zeros(at.size),
        ]  # fmt: skip
        source = agent.state.area.network.source_nodes.size
        worth = local.mu if source else local.mu[:-2]
        agent.result = self._layout.result(agent.a, np.stack(columns, axis=1), worth)
        agent.done = agent.clearing

    def _messages(self, agent: _Agent) -> list[Mail]:
        """Return the last message to each neighbour, and the result."""
        name, layout, state = self._layout.names[agent.a], self._layout, agent.state
        sent = []
        if agent.turns and agent.neighbours:
            table = np.zeros((len(agent.neighbours), layout.shared_width))
            for row, q in zip(table, agent.neighbours, strict=True):
                said = state.said[columns_from(state.area, q)]
                row[: 2 * said.size : 2], row[1 : 2 * said.size : 2] = said.real, said.imag
            table[:, -1] = agent.count
            links = np.array([self._out[name, layout.names[q]] for q in agent.neighbours])
            number = np.full(links.size, agent.clearing * SPAN + agent.turns - 1)
            sent.append(numbered(links, number, table))
            self.messages += links.size
        if agent.done == agent.clearing:
            link = np.array([self._out[name, self._operator]])
            sent.append(numbered(link, np.array([agent.clearing]), agent.result[None]))
        return sent

    def award_mail(self, step: int) -> Mail:
        """Return the awards in force."""
        told = np.flatnonzero(np.isfinite(self.awards[:, 0]))
        return messages([self._award_out[i] for i in told], step, self.awards[told])
