"""The operator of a consumer market (CMO): it reads bids, sets prices, and bills."""

from __future__ import annotations

from typing import Any

import numpy as np

from controllers.core.mail import FloatArray, IntArray
from controllers.market.agents.consumer.aggregators import BID_FIELDS, METER_FIELDS, PRICE_FIELDS
from controllers.market.agents.consumer.options import ConsumerMarketOptions
from controllers.market.agents.consumer.outlook import Outlook
from controllers.market.agents.mail_tables import Latest
from controllers.market.consumer.game import clear_consumer, consumer_units
from controllers.market.model.errors import MarketError
from controllers.market.model.whole_units import UNIT

_MARGIN = 2.0  # of ratings: consumption that is not planned may pass its nominal value
_GAMMA = (1e-6, 1e6)


class ConsumerOperator:
    """One operator of h homes.

    Parameters
    ----------
    names : (h,). Of the homes.
    per_interval : Steps of the controller in a market interval.
    step_h : Length of one.
    rating_kw : (h,). Of all devices of a home; a bid or meter far beyond it is refused.

    Attributes
    ----------
    prices : (h, len(PRICE_FIELDS)). To each home, of the newest clearing; NaN before the first.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        options: ConsumerMarketOptions,
        outlook: Outlook,
        per_interval: int,
        step_h: float,
        rating_kw: FloatArray,
    ) -> None:
        self._names, self._options, self._outlook = names, options, outlook
        self._per_interval, self._step_h = per_interval, step_h
        self._most_kw = _MARGIN * rating_kw
        h = len(names)
        self._bids, self._meters = Latest(h, len(BID_FIELDS)), Latest(h, len(METER_FIELDS))
        self.prices: FloatArray = np.full((h, len(PRICE_FIELDS)), np.nan)
        self._cleared: dict[int, dict[str, Any]] = {}
        self._billed_kwh = np.zeros(h)
        self._home_pays: IntArray = np.zeros(h, dtype=np.int64)
        self._pays = self._uplift = 0
        self._events: list[dict[str, Any]] = []
        names_of_counts = (
            "clearings", "bids_missing", "bids_refused", "requests_short", "negative_prices",
        )  # fmt: skip
        self.counts = dict.fromkeys(names_of_counts, 0)

    def take_bids(self, sender: IntArray, rounds: IntArray, rows: FloatArray, step: int) -> None:
        """Store bids; the newest of each home counts, and NaN is ignored."""
        self._bids.absorb(sender, rounds, rows, step)

    def take_meters(self, sender: IntArray, rounds: IntArray, rows: FloatArray, step: int) -> None:
        """Store meter readings; energy beyond the ratings of a home's devices is ignored."""
        steps, energy = rows.T
        most_kwh = self._most_kw[sender] * self._step_h * steps
        good = (np.abs(energy) <= most_kwh) & (steps <= step + 1)
        self._meters.absorb(sender[good], rounds[good], rows[good], step)

    def clear(self, interval: int) -> None:
        """Clear an interval for the homes with a valid bid, and set its prices."""
        bids, here = self._usable(interval)
        p0, p_min, p_max, gamma = bids[here].T
        planned, least, most = p0.sum(), p_min.sum(), p_max.sum()
        asked = self._outlook.request(interval)
        target = planned + asked * (most - planned if asked > 0.0 else planned - least)
        price = self._outlook.price(interval)
        plan_price = price if self._options.plans_know_price else 0.0
        found = clear_consumer(
            np.zeros(len(p0), dtype=np.int64), p0, p_min, p_max, gamma,
            np.array([target]), np.array([price]), self._options.policy,  # type: ignore[arg-type]
            plan_price=plan_price,
        )  # fmt: skip
        self.counts["clearings"] += 1
        if found.short[0] != 0.0:
            self.counts["requests_short"] += 1
            self._say("request_short", interval, short_kw=float(found.short[0]))
        mu, flex = float(found.mu[0]), float(found.mu_flex[0])
        if mu < 0.0 or flex * (target - planned) < 0.0:
            self.counts["negative_prices"] += 1
            self._say("negative_price", interval, mu_per_kwh=mu, mu_flex_per_kwh=flex)
        self.prices[:] = interval, mu, flex, plan_price
        p0_of = np.full(len(self._names), np.nan)
        p0_of[here] = p0
        self._cleared[interval] = {
            "p0": p0_of,
            "uplift": float(found.uplift[0]),
            "baseline_kw": planned,
            "request_kw": target,
            "offered_min_kw": least,
            "offered_max_kw": most,
            "short_kw": float(found.short[0]),
            "mu_per_kwh": mu,
            "mu_flex_per_kwh": flex,
        }

    def _usable(self, interval: int) -> tuple[FloatArray, np.ndarray[Any, Any]]:
        """Return all bids, (h, 4), and the positions of those that are valid for the interval."""
        rows = self._bids.values
        came = (self._bids.round >= 0) & (np.rint(rows[:, 0]) == interval)
        p0, p_min, p_max, gamma = rows[:, 1:].T
        fit = (-self._most_kw <= p_min) & (p_min <= p0) & (p0 <= p_max) & (p_max <= self._most_kw)
        fit &= (gamma >= _GAMMA[0]) & (gamma <= _GAMMA[1])
        for i in np.flatnonzero(~came):
            self._say("bid_missing", interval, home=self._names[i])
        for i in np.flatnonzero(came & ~fit):
            self._say("bid_refused", interval, home=self._names[i], reason="limits or gamma")
        self.counts["bids_missing"] += int(np.count_nonzero(~came))
        self.counts["bids_refused"] += int(np.count_nonzero(came & ~fit))
        return rows[:, 1:], np.flatnonzero(came & fit)

    def settle(self, interval: int) -> None:
        """Bill what was metered since the last settlement at the prices of an interval.

        The operator pays the grid, and the homes pay the operator. A home without a bid, or without
        a meter reading of the end of the interval, is not paid for flexibility.
        """
        hours = self._per_interval * self._step_h
        steps, energy = self._meters.values.T
        p = (energy - self._billed_kwh) / hours
        self._billed_kwh = energy.copy()
        price = self._outlook.price(interval)
        done = self._cleared.pop(interval, None)
        mu, flex, uplift, p0 = price, 0.0, 0.0, p
        if done is not None:
            mu, flex, uplift = done["mu_per_kwh"], done["mu_flex_per_kwh"], done["uplift"]
            heard = np.isfinite(done["p0"]) & (steps >= (interval + 1) * self._per_interval)
            p0 = np.where(heard, done["p0"], p)
        bill = round(-price * float(p.sum()) * hours / UNIT)
        added = round(uplift * hours / UNIT)
        owner = np.zeros(len(p), dtype=np.int64)
        try:
            pays = consumer_units(
                np.array([bill - added]), owner, p, p0, np.array([mu]), np.array([flex]),
                hours=hours,
            )  # fmt: skip
        except MarketError as error:  # prices of forged bids: amounts beyond exact numbers
            self._say("billed_at_grid_price", interval, reason=str(error))
            added = 0
            pays = consumer_units(
                np.array([bill]), owner, p, p, np.array([price]), np.zeros(1), hours=hours
            )
        self._home_pays = self._home_pays + pays
        self._pays += bill
        self._uplift += added

    def outputs(self, interval: int) -> dict[str, FloatArray]:
        """Return the operator's ports while `interval` is in force; money since the start."""
        names = (
            "baseline_kw", "request_kw", "offered_min_kw", "offered_max_kw", "short_kw",
            "mu_per_kwh", "mu_flex_per_kwh",
        )  # fmt: skip
        done = self._cleared.get(interval, {})
        return {
            **{name: np.array([float(done.get(name, 0.0))]) for name in names},
            "grid_price_per_kwh": np.array([self._outlook.price(interval)]),
            "uplift_money": np.array([self._uplift * UNIT]),
            "cmo_pays_money": np.array([self._pays * UNIT]),
            "home_pays_money": (self._home_pays * UNIT).astype(np.float64),
        }

    def _say(self, event: str, interval: int, **details: object) -> None:
        self._events.append({"event": event, "interval": interval, **details})

    def take_events(self) -> list[dict[str, Any]]:
        """Return what happened since the last call."""
        told, self._events = self._events, []
        return told
