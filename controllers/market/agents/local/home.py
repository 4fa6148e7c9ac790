"""Homes (CMAs): each plans its day, offers what it will do and could do, and follows its award.

At the first interval a home plans its devices for a day (`controllers.market.consumer.plan`). For
each interval it offers the planned power as its baseline, with a correction that brings stored
energy and indoor temperature back to the plan, and the planned flexibility as its range. Sun and
demand are those of the home's own forecast and meters. An award changes the baseline; the devices
share the change in proportion to the range that each offered.

With `levels` 'primary' homes do not plan: heat pumps hold their set-points, the battery serves the
home's own net load, and heat pump and PV are offered. With 'none' nothing is offered and
thermostats run free.

A home without an award keeps the change that it was asked for last, for `silent_after` intervals;
then it follows its plan.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, IntArray
from controllers.core.ports import Port
from controllers.core.protocol import ControlSite
from controllers.market.agents.bid_receiver import NUMBER_MAX
from controllers.market.agents.local.devices import HomeDevices
from controllers.market.agents.local.offers import (
    GAMMA,
    GAMMA_MAX,
    KNOWN,
    METERED,
    OFFER_FIELDS,
    P0,
    P_MAX,
    P_MIN,
    Q0,
    Q_ROOM,
)
from controllers.market.agents.local.options import LocalMarketOptions
from controllers.market.agents.local.orders import Orders
from controllers.market.agents.local.sma import AWARD_FIELDS
from controllers.market.agents.local.table import KINDS, LocalTable, over_kinds
from grid_models.base import counter_rng
from grid_models.base.errors import nearest_name

_LEAST_ROOM_KW = 1e-6


class HomeGroup:
    """The hosted homes as arrays.

    Parameters
    ----------
    hosted : sequence of int. Their positions in `LocalTable.home_names`, ascending.
    rounds : int. Rounds of mail in an interval.
    """

    def __init__(
        self,
        table: LocalTable,
        hosted: Sequence[int],
        options: LocalMarketOptions,
        site: ControlSite,
        rounds: int,
    ) -> None:
        self._options = o = options
        self.hosted: IntArray = np.array(hosted, dtype=np.int64)
        self.names = [table.home_names[i] for i in self.hosted]
        n = self.n = self.hosted.size
        self._interval_s = rounds * site.period_s
        self.devices = HomeDevices(table, self.hosted, options, site)
        self.cost = table.draw(site.seed, "home cost", self.names, o.home_cost)
        every = table.home_names
        self._followed_share = _by_glob(self.names, every, o.unfaithful, "unfaithful", 1.0)
        movable = dict.fromkeys(o.flexible_homes or ("*",), 1.0)
        self._movable = _by_glob(self.names, every, movable, "flexible_homes", 0.0)[:, None] > 0.0
        self._error, self._seed = o.response_error, site.seed
        self._streams = counter_rng.stream_ids(f"response:{name}" for name in self.names)
        step_s = o.mail_rounds * site.period_s
        self._step_response = 1.0 - math.exp(-step_s / o.response_s) if o.response_s > 0.0 else 1.0
        largest = table.largest_kw[self.hosted]
        # An agent's prices for its homes rise without limit as the sum of their plans nears 0.
        self._inbox = Orders(self.names, AWARD_FIELDS, largest, NUMBER_MAX, "award_refused")
        self._offered: FloatArray = np.zeros((n, len(OFFER_FIELDS)))
        self._offered[:, GAMMA] = GAMMA_MAX
        self._base = self._offered
        # Change of the baseline that was asked for (kW, kvar), and in which interval.
        self._asked: FloatArray = np.zeros((n, 2))
        self._asked_at: IntArray = np.full(n, -1, dtype=np.int64)
        self._done: FloatArray = np.zeros((n, 2))
        self._metered: FloatArray = np.full((n, len(KINDS)), np.nan)
        self._shown: FloatArray = np.zeros(n)
        self._plan_kw: FloatArray = np.full(n, np.nan)
        self._events: list[dict[str, Any]] = []
        self.inputs = self.devices.inputs
        self.outputs: tuple[Port, ...] = self.devices.outputs

    def take_awards(self, sender: IntArray, rounds: IntArray, rows: FloatArray, step: int) -> None:
        """Take awards (k, len(AWARD_FIELDS)) of the homes `sender`; the newest counts."""
        self._inbox.absorb(sender, rounds, rows, step)

    def begin(self, interval: int, time_s: float, inputs: Mapping[str, FloatArray]) -> None:
        """Begin an interval: read the meters; the offers made for it are its baseline."""
        self._base = self._offered
        self._metered = self.devices.read(inputs)
        self._events += self.devices.plan(time_s)

    def offers(self, interval: int) -> FloatArray:
        """Return the offers for `interval`, (n, len(OFFER_FIELDS))."""
        rows = np.zeros((self.n, len(OFFER_FIELDS)))
        rows[:, 0] = interval
        p0, low, high = self.devices.offer(interval * self._interval_s, self._interval_s)
        # A range of rounding errors is none: its price would be GAMMA_MAX times the range.
        has_room = self._movable & (0.5 * over_kinds(high - low) > _LEAST_ROOM_KW)[:, None]
        low, high = np.where(has_room, low, p0), np.where(has_room, high, p0)
        rows[:, P0], rows[:, P_MIN], rows[:, P_MAX] = p0, low, high
        width = over_kinds(high - low)
        rows[:, GAMMA] = np.where(width > 0.0, self.cost / np.maximum(width, 1e-9), GAMMA_MAX)
        rows[:, Q0], rows[:, Q_ROOM] = self.devices.reactive(p0)
        known = np.asarray(np.isfinite(self._metered).all(axis=1))
        rows[:, KNOWN] = known
        reported = self.devices.kept(self._metered)
        rows[:, METERED] = np.where(known[:, None], reported, 0.0)
        self._offered = rows
        self._plan_kw = self.devices.planned_kw
        return rows

    def steer(self, interval: int) -> None:
        """Move the devices towards what was awarded for the interval that has begun."""
        told, base = self._inbox.values, self._base
        p0, q0 = over_kinds(base[:, P0]), base[:, Q0]
        when = np.rint(told[:, 0]).astype(np.int64)
        now = (self._inbox.round >= 0) & (when == interval)
        self._asked[now] = (told[:, 1:3] - np.stack([p0, q0], axis=1))[now]
        self._asked_at = np.where(now, interval, self._asked_at)
        self._asked[self._asked_at + self._options.silent_after < interval] = 0.0
        low, high = (over_kinds(base[:, part]) - p0 for part in (P_MIN, P_MAX))
        uniform = counter_rng.uniform(self._seed, self._streams, max(interval, 0), 0)
        wrong = self._error * math.sqrt(3.0) * (2.0 * uniform - 1.0)
        asked = self._asked * (self._followed_share * (1.0 + wrong))[:, None]
        # What is beyond the range is not remembered, or devices would stay at its end for long.
        asked[:, 0] = np.clip(asked[:, 0], low, high)
        self._done += self._step_response * (asked - self._done)
        change = np.clip(self._done[:, 0], low, high)
        q = q0 + np.clip(self._done[:, 1], -base[:, Q_ROOM], base[:, Q_ROOM])
        self.devices.follow(base, change, q)

    def values(self) -> dict[str, FloatArray]:
        """Return the outputs of the homes and of their devices."""
        told, base = self._inbox.values, self._base
        bid, metered = over_kinds(base[:, P0]), over_kinds(self._metered)
        self._shown = np.where(np.isfinite(metered), metered, self._shown)
        return self.devices.values() | {
            "home_plan_kw": np.where(np.isfinite(self._plan_kw), self._plan_kw, bid),
            "home_bid_kw": bid,
            "home_set_kw": bid + self._asked[:, 0],
            "home_metered_kw": self._shown,
            "home_price_per_kwh": told[:, 3],
            "home_flex_price_per_kwh": told[:, 4],
        }

    def take_events(self) -> list[dict[str, Any]]:
        """Return what happened since the last call."""
        told, self._events = self._events + self._inbox.take_events(), []
        return told


def _by_glob(
    names: Sequence[str],
    every: Sequence[str],
    table: Mapping[str, float],
    option: str,
    default: float,
) -> FloatArray:
    """Return a value per home: that of the last glob that matches its name, else `default`.

    Raises ControllerError: A glob names no home.
    """
    values = np.full(len(names), default)
    for glob, factor in table.items():
        if not any(fnmatchcase(name, glob) for name in every):
            raise ControllerError(
                f"no home is called '{glob}'",
                where=f"option '{option}'",
                expected="names or globs of homes",
                nearest=nearest_name(glob, every),
            )
        values[[fnmatchcase(name, glob) for name in names]] = factor
    return values
