"""Market operators (SMOs): each clears the secondary market for its agents.

Once per interval an operator reads its agents' bids, updates their scores, clears the secondary
market (`controllers.market.secondary`) for the power that the primary market awarded it, and sends
its agents their schedules. An award that the resilience manager changes within an interval is
cleared and passed down at once.

Its bid to the primary market is the sum of its agents' bids. The slides ("Connecting secondary
market to primary") bid the sum of the schedules with the flexibility that is left. The primary
market then moves the baseline from which it measures the cost of flexibility, and within a few
intervals every operator is at its limit without flexibility (docs/market-day.md).

With the option `make_up` an operator stands by its bid where generation of an agent is missing by
the agent's meter: the other agents make up for it, as far as their ranges go.

Without a new award an operator keeps the last one. Before the first its agents get no schedule.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controllers.core.mail import FloatArray, IntArray
from controllers.market.agents.local.bills import Bills, Units, money
from controllers.market.agents.local.offers import (
    GAMMA,
    P0,
    P_MAX,
    P_MIN,
    Q0,
    Q_ROOM,
    OfferBook,
    metered,
)
from controllers.market.agents.local.options import LocalMarketOptions
from controllers.market.agents.local.orders import PRICE_MAX_PER_KWH, Orders
from controllers.market.agents.local.scores import AgentScores
from controllers.market.agents.local.sma import SCHEDULE_FIELDS, shared
from controllers.market.agents.local.table import KINDS, PV, STORAGE, LocalTable, over_kinds
from controllers.market.model.participants import IDLE_COST, LOAD_POWER_FACTOR
from controllers.market.secondary.clearing import clear_secondary
from controllers.market.secondary.problem import SecondaryBids, SecondaryProblem
from controllers.market.secondary.retail import retail_tariffs, retail_units

SMO_AWARD_FIELDS = ("interval", "p_load", "p_gen", "q_gen", "price_p", "price_q", "billed")
"""From the primary operator: MW, Mvar, money per MWh, units of money."""
TAN_PHI = float(np.sqrt(1.0 - LOAD_POWER_FACTOR**2) / LOAD_POWER_FACTOR)
Q_COST_PER_MVARH = 5.0
"""Cost of reactive power at the end of its range; without a cost its optimum is not unique."""


class OperatorGroup:
    """The hosted operators as arrays.

    Parameters
    ----------
    hosted : sequence of int. Their positions in `LocalTable.names`, ascending.

    Attributes
    ----------
    agents : ndarray of int. Positions of their agents in `LocalTable.agent_names`.
    scheduled : (agents, 2). What each agent was told last, kW and kvar; NaN before.
    bid_kw : (n, 3). Least, scheduled and largest power of the bid to the primary market.
    award_kw, price_per_kwh : (n,). Of the primary market; NaN and 0 before the first award.
    fixed_bill : int64 (n,). Billed to the feeder's own loads at the bus, since the start.
    uplift : (n,). Payments within the price cap less revenue, money since the start.
    """

    def __init__(
        self, table: LocalTable, hosted: Sequence[int], options: LocalMarketOptions, seed: int
    ) -> None:
        self._options = options
        self.hosted: IntArray = np.array(hosted, dtype=np.int64)
        self.n = self.hosted.size
        self.agents: IntArray = np.flatnonzero(np.isin(table.agent_smo, self.hosted))
        self.owner: IntArray = np.searchsorted(self.hosted, table.agent_smo[self.agents])
        names = [table.agent_names[i] for i in self.agents]
        most = table.agents_largest_kw[self.agents]
        self.book = OfferBook(names, options.silent_after, most)
        prior = table.draw(seed, "prior score", names, options.score_prior)
        self.scores = AgentScores(prior, options.memory)
        self._fixed = np.stack([table.fixed_kw, table.fixed_kvar], axis=1)[self.hosted]
        largest = np.bincount(self.owner, most, self.n) + 10.0 * self._fixed.sum(axis=1)
        self._inbox = Orders([table.names[i] for i in self.hosted], SMO_AWARD_FIELDS,
                             largest / 1000.0, PRICE_MAX_PER_KWH * 1000.0,
                             "award_refused")  # fmt: skip
        self._offers = self.book.rows
        m = self.agents.size
        self._missing: FloatArray = np.zeros(m)
        self.scheduled: FloatArray = np.full((m, 2), np.nan)
        self._interval: IntArray = np.full(self.n, -1, dtype=np.int64)
        self.bills = Bills(self.owner, self.n)
        self.fixed_bill: Units = np.zeros(self.n, dtype=np.int64)
        self.uplift: FloatArray = np.zeros(self.n)
        self._shown: FloatArray = np.zeros(m)
        self._tariff: FloatArray = np.zeros(self.n)
        self.counts = {"secondary_clearings": 0, "secondary_fallbacks": 0}

    # --- from below ------------------------------------------------------------------------------

    def take_offers(self, interval: int) -> None:
        """Take the offers for `interval` as they are known now; score what was metered."""
        self._offers = self.book.usable(interval)
        received, refused = self.book.count()
        self.scores.add(self._offers, received, refused, interval)
        if self._options.make_up:
            self._note_missing()

    def _note_missing(self) -> None:
        """Note by how much the generation of each agent is below the least it offers, kW.

        An agent whose meter is not known keeps what was missing before.
        """
        least, seen = self._offers[:, P_MIN], metered(self._offers)
        made = np.zeros(len(KINDS), dtype=bool)
        made[[PV, STORAGE]] = True
        gone = made & (least > 0.0) & (seen < 0.5 * least)
        missing = over_kinds(np.where(gone, least - seen, 0.0))
        known = np.isfinite(over_kinds(seen))
        self._missing = np.where(known, missing, self._missing)

    # --- from above ------------------------------------------------------------------------------

    def take_awards(
        self, sender: IntArray, rounds: IntArray, rows: FloatArray, step: int
    ) -> NDArray[np.bool_]:
        """Take awards (k, len(SMO_AWARD_FIELDS)); return whose power or price changed, (n,)."""
        before = self._inbox.values.copy()
        self._inbox.absorb(sender, rounds, rows, step)
        now = self._inbox.values
        self.bills.take(np.arange(self.n), np.where(self.told, now[:, 6], 0.0), self._divided)
        return np.asarray((now[:, 1:6] != before[:, 1:6]).any(axis=1))

    @property
    def told(self) -> NDArray[np.bool_]:
        """Which operators have an award, (n,)."""
        return self._inbox.round >= 0

    @property
    def award_kw(self) -> FloatArray:
        """Net injection awarded by the primary market, NaN before the first award, (n,)."""
        award = self._inbox.values
        return np.where(self.told, (award[:, 2] - award[:, 1]) * 1000.0, np.nan)

    @property
    def price_per_kwh(self) -> FloatArray:
        """Marginal price of active power at the bus, 0 before the first award, (n,)."""
        return self._inbox.values[:, 4] / 1000.0

    # --- the secondary market --------------------------------------------------------------------

    def clear(self, who: NDArray[np.bool_], interval: int) -> NDArray[np.bool_]:
        """Schedule the agents of the operators `who` (n,) for `interval`; return which did."""
        who = who & self.told
        if not who.any():
            return who
        p, q, uplift = self._cleared(who)
        new = who & (interval > self._interval)
        self.uplift += np.where(new, uplift * self._options.interval_s / 3600.0, 0.0)
        chosen = who[self.owner]
        self.scheduled = np.where(chosen[:, None], np.stack([p, q], axis=1), self.scheduled)
        self._interval = np.where(who, interval, self._interval)
        self.scores.note_schedule(chosen, self._offers, p, interval)
        return who

    def _cleared(self, who: NDArray[np.bool_]) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the set-points of the agents of `who`, kW and kvar, and uplifts, money/h."""
        o, award, owner = self._offers, self._inbox.values, self.owner
        missing = self._missing
        p0, low, high = (over_kinds(o[:, part]) - missing for part in (P0, P_MIN, P_MAX))
        target = self.award_kw + self._fixed[:, 0]
        # What is beyond the other agents' ranges cannot be made up for.
        short = np.bincount(owner, missing, self.n) > 0.0
        target = np.where(short, np.minimum(target, np.bincount(owner, high, self.n)), target)
        q_target = (award[:, 3] - TAN_PHI * award[:, 1]) * 1000.0 + self._fixed[:, 1]
        if self._options.levels != "hierarchy":
            p = shared(owner, p0, low, high, np.nan_to_num(target))
            room = o[:, Q_ROOM]
            q = shared(owner, o[:, Q0], o[:, Q0] - room, o[:, Q0] + room,
                       np.nan_to_num(q_target))  # fmt: skip
            return p + missing, q, np.zeros(self.n)
        at = np.flatnonzero(who[owner])
        some = np.flatnonzero(who)
        room = o[at, Q_ROOM]
        bids = SecondaryBids(
            owner=np.searchsorted(some, owner[at]),
            p0=p0[at], p_min=low[at], p_max=high[at],
            q0=o[at, Q0], q_min=o[at, Q0] - room, q_max=o[at, Q0] + room,
            beta_p=o[at, GAMMA],
            beta_q=Q_COST_PER_MVARH / 1000.0 / np.maximum(2.0 * room, 1e-3),
            score=self.scores.resilience[at],
        )  # fmt: skip
        problem = SecondaryProblem(
            bids,
            p_target=target[some], q_target=q_target[some],
            price_p=award[some, 4] / 1000.0, price_q=award[some, 5] / 1000.0,
            price_cap=np.full(some.size, self._options.price_cap_per_kwh),
            epsilon=self._options.epsilon,
        )  # fmt: skip
        made = clear_secondary(problem)
        self.counts["secondary_clearings"] += some.size
        self.counts["secondary_fallbacks"] += int(made.fallback.sum())
        (p, q), uplift = self.scheduled.T.copy(), np.zeros(self.n)
        # An agent is told what is asked of it in terms of its own offer.
        p[at], q[at], uplift[some] = made.p + missing[at], made.q, made.uplift
        return p, q, uplift

    def schedules(self, who: NDArray[np.bool_], interval: int) -> FloatArray:
        """Return the messages to the agents of `who` (n,), (their number, SCHEDULE_FIELDS)."""
        at = np.flatnonzero(who[self.owner])
        price = self.price_per_kwh[self.owner[at]]
        told = (np.full(at.size, float(interval)), *self.scheduled[at].T, price,
                self.bills.divided[at])  # fmt: skip
        rows: FloatArray = np.stack(told, axis=1)
        assert rows.shape[1] == len(SCHEDULE_FIELDS)
        return rows

    # --- the bid to the primary market -----------------------------------------------------------

    @property
    def bid_kw(self) -> FloatArray:
        """Least, scheduled and largest net injection that is bid, (n, 3); fixed loads included."""
        o = self._offers
        p0, low, high = (over_kinds(o[:, part]) for part in (P0, P_MIN, P_MAX))
        sums = np.stack([np.bincount(self.owner, x, self.n) for x in (low, p0, high)], axis=1)
        # What makes up for missing generation is not to be had twice.
        left = sums[:, 2] - np.bincount(self.owner, self._missing, self.n)
        sums[:, 2] = np.maximum(left, sums[:, 1])
        return np.asarray(sums - self._fixed[:, :1])

    def bids(self) -> FloatArray:
        """Return the bids to the primary market, (n, len(BID_FIELDS)), MW and money per hour.

        The net injection is bid as a load that moves round what the secondary market scheduled.
        Its reactive power follows at the loads' tangent; what differs from that, and the room of
        the inverters, is bid as reactive generation.
        """
        o, n = self._offers, self.n
        low, mid, high = self.bid_kw.T / 1000.0
        softness = np.bincount(self.owner, 1.0 / o[:, GAMMA], n)
        beta = np.where(softness > 0.0, 1e6 / np.maximum(softness, 1e-9), IDLE_COST)
        room = np.bincount(self.owner, o[:, Q_ROOM], n) / 1000.0
        q0 = (np.bincount(self.owner, o[:, Q0], n) - self._fixed[:, 1]) / 1000.0
        offset = q0 - TAN_PHI * mid
        idle, none = np.full(n, IDLE_COST), np.zeros(n)
        alpha_q = Q_COST_PER_MVARH / np.maximum(room + np.abs(offset), 1e-3)
        columns = (-mid, -TAN_PHI * mid, -high, -low, none, none, offset - room, offset + room,
                   idle, alpha_q, beta)  # fmt: skip
        return np.stack(columns, axis=1)

    # --- money -----------------------------------------------------------------------------------

    def _divided(self, new: Units) -> Units:
        """Divide new bills of the operators among their agents, by the power scheduled last.

        The feeder's own loads at an operator's bus pay as an agent of that power would.
        """
        p = np.where(np.isfinite(self.scheduled[:, 0]), self.scheduled[:, 0],
                     over_kinds(self._offers[:, P0]))  # fmt: skip
        has = (self._fixed[:, 0] > 0.0) | (np.bincount(self.owner, minlength=self.n) == 0)
        loads = np.flatnonzero(has)
        owner = np.concatenate([self.owner, loads])
        power = np.concatenate([p, -self._fixed[loads, 0]])
        order = np.argsort(owner, kind="stable")
        hours = self._options.interval_s / 3600.0
        units = np.zeros(owner.size, dtype=np.int64)
        units[order] = retail_units(
            new, power[order], owner[order], price_per_kwh=self.price_per_kwh, hours=hours
        )
        price, _ = retail_tariffs(units[order], power[order], owner[order], self.n, hours=hours)
        # Where everything generates there is no load to name a tariff: one would pay the bus price.
        price = np.where(np.isfinite(price), price, self.price_per_kwh)
        self._tariff = np.where(new != 0, price, self._tariff)
        self.fixed_bill[loads] += np.where(new[loads] != 0, units[p.size :], 0)
        return units[: p.size]

    # --- what is known ---------------------------------------------------------------------------

    @property
    def metered_kw(self) -> FloatArray:
        """Power of the agents by the meter readings in the last bids, (m,); NaN: unknown."""
        return np.asarray(over_kinds(metered(self._offers)))

    @property
    def metered_net_mw(self) -> FloatArray:
        """Net injection of each operator by its agents' meters, (n,); NaN where one is unknown."""
        net = np.bincount(self.owner, self.metered_kw, self.n) - self._fixed[:, 0]
        return np.asarray(net / 1000.0)

    def values(self) -> dict[str, FloatArray]:
        """Return the outputs of the operators and of their agents."""
        o, scores = self._offers, self.scores
        low, mid, high = self.bid_kw.T
        bid, seen = over_kinds(o[:, P0]), self.metered_kw
        self._shown = np.where(np.isfinite(seen), seen, self._shown)
        told = {
            "sma_bid_kw": bid,
            "sma_bid_min_kw": over_kinds(o[:, P_MIN]),
            "sma_bid_max_kw": over_kinds(o[:, P_MAX]),
            "sma_set_kw": np.where(np.isfinite(self.scheduled[:, 0]), self.scheduled[:, 0], bid),
            "sma_metered_kw": self._shown,
            "trustability": scores.trustability,
            "resilience": scores.resilience,
            "sma_pays_money": money(self.bills.divided),
            "smo_bid_kw": mid,
            "smo_bid_min_kw": low,
            "smo_bid_max_kw": high,
            "smo_award_kw": np.where(self.told, self.award_kw, mid),
            "tariff_per_kwh": self._tariff,
            "uplift_money": self.uplift,
            "fixed_pays_money": money(self.fixed_bill),
        }
        by_kind = {f"commitment_{k}": x for k, x in zip(KINDS, scores.by_kind.T, strict=True)}
        return told | by_kind

    def take_events(self) -> list[dict[str, Any]]:
        """Return what happened since the last call."""
        return self.book.take_events() + self._inbox.take_events()
