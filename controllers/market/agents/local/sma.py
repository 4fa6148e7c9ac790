"""Secondary agents (SMAs): each bids the sum of its homes' offers and clears the consumer market.

Upwards, once per interval: a bid, the sum of the homes' offers. Downwards, when a schedule of its
SMO arrives: prices and set-points for its homes (`controllers.market.consumer.game`). The agent is
the leader (CMO) and its homes are the followers (CMAs).

Without a schedule for an interval an agent asks its homes for the same change of their baseline as
before, for `silent_after` intervals; then for none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controllers.core.mail import FloatArray, IntArray
from controllers.market.agents.local.bills import Bills, Units
from controllers.market.agents.local.offers import (
    GAMMA,
    P0,
    P_MAX,
    P_MIN,
    Q0,
    Q_ROOM,
    OfferBook,
    summed,
)
from controllers.market.agents.local.options import LocalMarketOptions
from controllers.market.agents.local.orders import PRICE_MAX_PER_KWH, Orders
from controllers.market.agents.local.table import LocalTable, over_kinds
from controllers.market.consumer.game import clear_consumer, consumer_units
from controllers.market.secondary.retail import retail_units

SCHEDULE_FIELDS = ("interval", "p", "q", "price", "billed")
"""From operator to agent: kW, kvar, price of active power per kWh, units of money."""
AWARD_FIELDS = ("interval", "p", "q", "price", "flex_price", "billed")
"""From agent to home: kW, kvar, mu and mu_flex per kWh, units of money."""

_LEAST_PLAN = 0.1
"""Homes that feed in and homes that draw may cancel out. Prices over what is left would have no
limit, so below this part of their powers the rest of a bill is divided by energy."""


class SmaGroup:
    """The hosted secondary agents as arrays.

    Parameters
    ----------
    hosted : sequence of int. Their positions in `LocalTable.agent_names`, ascending.

    Attributes
    ----------
    homes : ndarray of int. Positions of their homes in `LocalTable.home_names`.
    awards : (homes, len(AWARD_FIELDS)). What each home was told last; NaN before.
    """

    def __init__(
        self, table: LocalTable, hosted: Sequence[int], options: LocalMarketOptions
    ) -> None:
        self.hosted: IntArray = np.array(hosted, dtype=np.int64)
        self.n = self.hosted.size
        self.homes: IntArray = np.flatnonzero(np.isin(table.home_agent, self.hosted))
        self.owner: IntArray = np.searchsorted(self.hosted, table.home_agent[self.homes])
        self.book = OfferBook([table.home_names[i] for i in self.homes], options.silent_after,
                              table.largest_kw[self.homes])  # fmt: skip
        self._policy, self._without_game = options.negative_prices, options.levels != "hierarchy"
        self._silent_after = options.silent_after
        names = [table.agent_names[i] for i in self.hosted]
        self._inbox = Orders(names, SCHEDULE_FIELDS, table.agents_largest_kw[self.hosted],
                             PRICE_MAX_PER_KWH, "schedule_refused")  # fmt: skip
        self._offers = self.book.rows
        self._change: FloatArray = np.zeros((self.n, 2))
        self._price: FloatArray = np.zeros(self.n)
        self._prices: FloatArray = np.zeros((2, self.n))
        self._hours = options.interval_s / 3600.0
        self._asked: IntArray = np.full(self.n, -1, dtype=np.int64)
        self._cleared: IntArray = np.full(self.n, -1, dtype=np.int64)
        self.awards: FloatArray = np.full((self.homes.size, len(AWARD_FIELDS)), np.nan)
        self.bills = Bills(self.owner, self.n)

    def bid(self, interval: int) -> FloatArray:
        """Return each agent's bid for `interval`, (n, len(OFFER_FIELDS))."""
        self._offers = self.book.usable(interval)
        return summed(self.owner, self._offers, self.n, interval)

    def take_schedules(
        self, sender: IntArray, rounds: IntArray, rows: FloatArray, step: int
    ) -> NDArray[np.bool_]:
        """Take schedules (k, len(SCHEDULE_FIELDS)); return which agents have a new one, (n,)."""
        before = self._inbox.round.copy()
        self._inbox.absorb(sender, rounds, rows, step)
        new: NDArray[np.bool_] = self._inbox.round > before
        if new.any():
            who = np.flatnonzero(new)
            self.bills.take(who, self._inbox.values[who, 4], self._divided)
        return new

    def clear(self, new: NDArray[np.bool_], interval: int, *, late: bool) -> NDArray[np.bool_]:
        """Award homes for `interval`; return the agents that sent awards, (n,).

        These are the agents with a `new` (n,) schedule, and, when it is `late` in the interval,
        those that got none for it.
        """
        told = self._inbox.values
        who = new | (late & (self._cleared < interval) & (self._asked >= 0))
        base_p, base_q = self._base()
        # A schedule is for the coming interval, or for the present one if the manager changed it.
        when = np.clip(np.rint(told[:, 0]), interval - 1, interval).astype(np.int64)
        when = np.where(new, when, interval)
        self._asked = np.where(new, when, self._asked)
        self._change[new] = (told[:, 1:3] - np.stack([base_p, base_q], axis=1))[new]
        self._price = np.where(new, told[:, 3], self._price)
        self._change[self._asked + self._silent_after < when] = 0.0
        self._cleared = np.where(who, np.maximum(when, self._cleared), self._cleared)
        p, price, flex_price = self._divided_power(base_p + self._change[:, 0])
        room = self._offers[:, Q_ROOM]
        share = room / np.maximum(np.bincount(self.owner, room, self.n), 1e-9)[self.owner]
        q = self._offers[:, Q0] + np.clip(share * self._change[self.owner, 1], -room, room)
        told_now = (when[self.owner], p, q, price, flex_price, self.bills.divided)
        self.awards = np.where(who[self.owner, None], np.stack(told_now, axis=1), self.awards)
        return who

    def _base(self) -> tuple[FloatArray, FloatArray]:
        p0 = over_kinds(self._offers[:, P0])
        return (
            np.bincount(self.owner, p0, self.n).astype(np.float64),
            np.bincount(self.owner, self._offers[:, Q0], self.n).astype(np.float64),
        )

    def _divided_power(self, target: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return power, price and flexibility price of every home for the agents' targets (n,)."""
        o = self._offers
        p0, low, high = (over_kinds(o[:, part]) for part in (P0, P_MIN, P_MAX))
        if self._without_game:
            price = self._price[self.owner]
            return shared(self.owner, p0, low, high, target), price, np.zeros_like(price)
        # Homes plan with the price that they expect, so a change is paid against that price.
        made = clear_consumer(
            self.owner, p0, low, high, o[:, GAMMA], target, self._price, self._policy,
            plan_price=self._price, least_plan=_LEAST_PLAN,
        )  # fmt: skip
        self._prices = np.stack([made.mu, made.mu_flex])
        return made.p, made.mu[self.owner], made.mu_flex[self.owner]

    def _divided(self, new: Units) -> Units:
        """Divide new bills of the agents among their homes, by the last awards."""
        p = np.nan_to_num(self.awards[:, 1])
        if self._without_game:
            return retail_units(new, p, self.owner, price_per_kwh=self._price, hours=self._hours)
        p0 = over_kinds(self._offers[:, P0])
        # A bill is divided whole whatever the prices; beyond the limit amounts are not exact.
        prices = np.clip(self._prices, -PRICE_MAX_PER_KWH, PRICE_MAX_PER_KWH)
        return consumer_units(new, self.owner, p, p0, *prices, hours=self._hours)

    def take_events(self) -> list[dict[str, Any]]:
        """Return what happened since the last call."""
        return self.book.take_events() + self._inbox.take_events()


def shared(
    owner: IntArray, p0: FloatArray, low: FloatArray, high: FloatArray, target: FloatArray
) -> FloatArray:
    """Divide each owner's change of the baseline by the room in its direction; return p (m,).

    A change beyond the room uses all of it.

    Parameters
    ----------
    owner : (m,)
    p0, low, high : (m,). Baseline and limits.
    target : (n,). Sum wanted per owner.
    """
    n = target.size
    change = target - np.bincount(owner, p0, n)
    room = np.where(change[owner] >= 0.0, high - p0, p0 - low)
    total = np.bincount(owner, room, n)
    part = np.divide(np.abs(change), total, out=np.zeros(n), where=total > 1e-12)
    used = np.minimum(part, 1.0)
    return np.asarray(p0 + np.sign(change)[owner] * used[owner] * room)
