"""Agents of homes (CMAs): they plan their devices, bid, read prices and set the devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from controllers.core.mail import FloatArray, IntArray
from controllers.core.protocol import ControlSite
from controllers.market.agents.consumer.options import ConsumerMarketOptions
from controllers.market.agents.consumer.outlook import Outlook
from controllers.market.agents.mail_tables import Latest
from controllers.market.consumer.game import respond
from controllers.market.consumer.home_plan import KINDS, HomeEvent, HomePlan
from controllers.market.consumer.plan import plan_homes
from controllers.market.consumer.site_homes import PLANNED, SiteHomes
from grid_models.base import counter_rng
from grid_models.feeder.model import Der

BID_FIELDS = ("interval", "p0", "p_min", "p_max", "gamma")
PRICE_FIELDS = ("interval", "mu", "mu_flex", "plan_price")
METER_FIELDS = ("steps", "energy_kwh")
_FULL_KW = 1e-6


@dataclass
class _Slot:
    """Plan and bid of the hosted homes for one interval; device kinds are those of a plan."""

    interval: int
    bid: FloatArray
    device_kw: Mapping[str, FloatArray]
    device_flex_kw: Mapping[str, FloatArray]
    base_kw: FloatArray
    available_kw: FloatArray
    soc_kwh: Mapping[str, FloatArray]
    temp_c: FloatArray


class CmaGroup:
    """The hosted homes as arrays.

    Parameters
    ----------
    site_homes : All homes of the controller.
    hosted : Positions of the hosted ones.
    ders : All DERs of the controller.

    Attributes
    ----------
    ders : (d,). Positions of their DERs.
    names : (d,). Names of these.
    metered_kw : (hosted,). Injection of each home as last metered.
    """

    def __init__(
        self,
        site_homes: SiteHomes,
        hosted: Sequence[int],
        ders: Sequence[Der],
        options: ConsumerMarketOptions,
        site: ControlSite,
        outlook: Outlook,
    ) -> None:
        self._options, self._outlook = options, outlook
        self.hosted: IntArray = np.array(hosted, dtype=np.int64)
        self._homes = site_homes.homes.take(self.hosted)
        self._base_kw = site_homes.base_kw[self.hosted]
        row = np.full(len(site_homes.table.names), -1)
        row[self.hosted] = np.arange(len(hosted))
        owner = row[site_homes.table.home]
        self.ders: IntArray = np.flatnonzero(owner >= 0)
        own = [ders[i] for i in self.ders.tolist()]
        self.names = tuple(der.name for der in own)
        self._owner = owner[self.ders]
        self._share = site_homes.share[self.ders]
        kinds = np.array([PLANNED[der.kind] for der in own], dtype=object)
        self._of = {kind: np.flatnonzero(kinds == kind) for kind in KINDS}
        self._low = np.array([der.p_min_kw for der in own])
        self._high = np.array([der.p_max_kw for der in own])
        streams = counter_rng.stream_ids(f"gamma:{name}" for name in self._homes.names)
        low, high = options.gamma
        self._gamma = low + (high - low) * counter_rng.uniform(site.seed, streams, 0, 0)
        n = len(hosted)
        self._prices = Latest(n, len(PRICE_FIELDS))
        self._in_force = np.full((n, len(PRICE_FIELDS)), -1.0)
        self._step_h = site.period_s / 3600.0
        self._start_states(site_homes, own)
        self._p_kw = np.zeros(len(own))
        self._energy_kwh = np.zeros(n)
        self._steps = 0
        self.metered_kw: FloatArray = np.zeros(n)
        self._slot: _Slot | None = None
        self._next: _Slot | None = None
        self._known: frozenset[tuple[str, str]] = frozenset()
        self._events: list[dict[str, Any]] = []
        self.missed = 0

    def _start_states(self, site_homes: SiteHomes, own: Sequence[Der]) -> None:
        """Set what is known of states before the first measurement, and where they are read."""
        h = self._homes
        self.stores = tuple(der.name for der in own if der.kind in ("battery", "vehicle"))
        self.houses = tuple(der.name for der in own if der.kind == "house")
        store = {name: i for i, name in enumerate(self.stores)}
        self._stored_at = {
            kind: np.array([store[self.names[i]] for i in self._of[kind]], dtype=np.int64)
            for kind in ("battery", "vehicle")
        }
        self._now = {
            "battery": 0.5 * h.battery.energy_kwh,
            "vehicle": h.vehicle.energy_kwh.copy(),
            "temp": site_homes.start_c[self.hosted].copy(),
        }
        self._rate = {name: np.zeros_like(value) for name, value in self._now.items()}
        self._seen = False

    # --- measurements ----------------------------------------------------------------------------

    def measure(self, inputs: Mapping[str, FloatArray]) -> None:
        """Read the meters of this step: power, stored energy, indoor temperature."""
        n = len(self.hosted)
        p_kw = inputs["p_kw"]
        self._p_kw = np.where(np.isfinite(p_kw), p_kw, self._p_kw)
        self.metered_kw = np.bincount(self._owner, self._p_kw, n).astype(np.float64, copy=False)
        self._energy_kwh = self._energy_kwh + self.metered_kw * self._step_h
        self._steps += 1
        soc, temp = inputs.get("soc_kwh"), inputs.get("temp_c")
        found = {}
        for kind, at in self._stored_at.items():
            if soc is not None and at.size:
                found[kind] = self._per_home(kind, soc[at])
        if temp is not None and temp.size:
            found["temp"] = self._per_home("heat_pump", temp * self._share[self._of["heat_pump"]])
        for name, value in found.items():
            good = np.isfinite(value)
            new = np.where(good, value, self._now[name])
            self._rate[name] = new - self._now[name] if self._seen else np.zeros(n)
            self._now[name] = new
        self._seen = True

    def _per_home(self, kind: str, values: FloatArray) -> FloatArray:
        """Return sums per home of values of the DERs of a kind; NaN where there is none."""
        owner, n = self._owner[self._of[kind]], len(self.hosted)
        total = np.bincount(owner, values, n)
        return np.where(np.bincount(owner, minlength=n) > 0, total, np.nan)

    # --- plan and bid ----------------------------------------------------------------------------

    def plan(self, interval: int, steps_ahead: int) -> None:
        """Plan from `interval` on, which begins `steps_ahead` steps from now.

        Until then, states are extrapolated with their change in the last step.
        """
        start = {name: self._now[name] + steps_ahead * self._rate[name] for name in self._now}
        for kind in ("battery", "vehicle"):
            most = getattr(self._homes, kind).energy_kwh
            start[kind] = np.minimum(np.maximum(start[kind], 0.0), most)
        forecast = self._outlook.forecast(self._homes.names, self._base_kw, interval)
        made = plan_homes(
            self._homes, forecast, start["battery"], start["vehicle"], start["temp"],
            self._options.plan_options,
        )  # fmt: skip
        self._tell(made.events)
        available = forecast.wide("irradiance_pu")[:, 0] * self._homes.pv_kw
        self._next = _slot(interval, made, self._gamma, available)

    def _tell(self, events: Sequence[HomeEvent]) -> None:
        """Add an event for each home and kind that the plan before did not have."""
        now = frozenset((event.home, event.kind) for event in events)
        self._events += [
            {"event": f"plan_{e.kind}", "home": e.home, "reason": e.text}
            for e in events
            if (e.home, e.kind) not in self._known
        ]
        self._known = now

    @property
    def bids(self) -> FloatArray:
        """The newest bids, (hosted, len(BID_FIELDS)); NaN before the first."""
        if self._next is None:
            return np.full((len(self.hosted), len(BID_FIELDS)), np.nan)
        head = np.full((len(self.hosted), 1), float(self._next.interval))
        return np.hstack([head, self._next.bid])

    @property
    def meters(self) -> FloatArray:
        """Steps and injected energy since the start, (hosted, len(METER_FIELDS))."""
        return np.column_stack([np.full(len(self.hosted), float(self._steps)), self._energy_kwh])

    # --- prices and set-points -------------------------------------------------------------------

    def take_prices(self, sender: IntArray, rounds: IntArray, rows: FloatArray, step: int) -> None:
        """Take prices, (m, len(PRICE_FIELDS)), for the hosted homes `sender`."""
        self._prices.absorb(sender, rounds, rows, step)

    def steer(self, interval: int) -> None:
        """Activate the plan of `interval`, and its prices where they have arrived.

        A home without prices follows its plan.
        """
        now = (self._prices.round >= 0) & (np.rint(self._prices.values[:, 0]) == interval)
        self._in_force = np.where(now[:, None], self._prices.values, self._in_force)
        if (
            self._next is not None
            and self._next.interval == interval
            and self._next is not self._slot
        ):
            self._slot = self._next
            if interval > 0:
                heard = np.rint(self._in_force[:, 0]) == interval
                self.missed += int(np.count_nonzero(~heard))
                self._events += [
                    {"event": "prices_missing", "home": self._homes.names[i], "interval": interval}
                    for i in np.flatnonzero(~heard)
                ]

    def outputs(self, interval: int) -> dict[str, FloatArray]:
        """Return the ports of the hosted homes; what is not known is 0."""
        n, none = len(self.hosted), np.zeros(len(self.hosted))
        slot = self._slot
        home = dict.fromkeys(
            ("plan", "min", "max", "set", "price", "flex_price", "battery", "vehicle"), none
        )
        p_set = np.where(self._high > 0.0, np.where(self._low < 0.0, 0.0, self._high), self._low)
        device_plan, temp = np.zeros(len(self.names)), self._now["temp"]
        if slot is not None:
            p0, p_min, p_max, gamma = slot.bid.T
            heard = np.rint(self._in_force[:, 0]) == interval
            _, mu, flex, plan_price = np.where(heard[:, None], self._in_force, 0.0).T
            p = respond(p0, p_min, p_max, gamma, mu + flex - plan_price)
            p_set, device_plan = self._devices(slot, p - p0)
            home |= {"plan": p0, "min": p_min, "max": p_max, "set": p, "price": mu}
            home |= {"flex_price": flex, **slot.soc_kwh}
            temp = slot.temp_c
        stored = np.zeros(len(self.stores))
        for kind, at in self._stored_at.items():
            stored[at] = home[kind][self._owner[self._of[kind]]] * self._share[self._of[kind]]
        return {
            "p_set_kw": p_set,
            "device_plan_kw": device_plan,
            "soc_plan_kwh": stored,
            "temp_plan_c": temp[self._owner[self._of["heat_pump"]]],
            "home_plan_kw": home["plan"],
            "home_bid_min_kw": home["min"],
            "home_bid_max_kw": home["max"],
            "home_set_kw": home["set"],
            "home_metered_kw": self.metered_kw.copy() if n else none,
            "home_price_per_kwh": home["price"],
            "home_flex_price_per_kwh": home["flex_price"],
        }

    def _devices(self, slot: _Slot, moved: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return set-points and plans of the DERs for homes that move by `moved` from their plan.

        The devices share the change in proportion to their flexibility. The set-point of a house
        includes its base load. PV at full power gets no limit: a limit at the interval's mean would
        cut its peaks.
        """
        flex = slot.device_flex_kw
        total = flex["pv"] + flex["battery"] + flex["vehicle"] + flex["heat_pump"]
        part = np.divide(moved, total, out=np.zeros_like(moved), where=total > 0.0)
        p_set, plan = np.zeros(len(self.names)), np.zeros(len(self.names))
        for kind, at in self._of.items():
            home, share = self._owner[at], self._share[at]
            fixed = slot.base_kw[home] if kind == "heat_pump" else 0.0
            plan[at] = share * (slot.device_kw[kind][home] - fixed)
            p_set[at] = plan[at] + share * (part * flex[kind])[home]
        pv = self._of["pv"]
        full = p_set[pv] >= self._share[pv] * slot.available_kw[self._owner[pv]] - _FULL_KW
        p_set[pv] = np.where(full, self._high[pv], p_set[pv])
        return np.minimum(np.maximum(p_set, self._low), self._high), plan

    def take_events(self) -> list[dict[str, Any]]:
        """Return what happened since the last call."""
        told, self._events = self._events, []
        return told


def _slot(interval: int, plan: HomePlan, gamma: FloatArray, available_kw: FloatArray) -> _Slot:
    """Return the first step of a plan, and the states at its end.

    A device whose plan is no number (the solver failed, and the plan says so) does nothing.
    """
    p_kw = {kind: np.nan_to_num(p[:, 0]) for kind, p in plan.p_kw.items()}
    flex_kw = {kind: np.nan_to_num(d[:, 0]) for kind, d in plan.delta_kw.items()}
    p0 = sum(p_kw[kind] for kind in KINDS) - plan.base_kw[:, 0]
    flex = sum(flex_kw[kind] for kind in KINDS)
    return _Slot(
        interval,
        np.column_stack([p0, p0 - flex, p0 + flex, gamma]),
        p_kw,
        flex_kw,
        plan.base_kw[:, 0],
        available_kw,
        {kind: np.nan_to_num(soc[:, 1]) for kind, soc in plan.soc_kwh.items()},
        np.nan_to_num(plan.temp_c[:, 1]),
    )
