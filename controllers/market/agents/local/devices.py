"""The devices of the hosted homes: meters, plan, baseline and range, set-points; arrays by device.

Powers are injections in kW. A home's baseline is, by level of the market:

| levels | heat pump | battery | vehicle |
| --- | --- | --- | --- |
| hierarchy | the plan, led to its temperature | the plan, led to its energy | as battery |
| primary | what holds the set-point on average | the home's own net load | as metered last |
| none | as metered last | the home's own net load | as metered last |

Without plans a vehicle charges when it is home. The baseline of PV is the available power. A house
behind a thermostat has the baseline of 'primary': a thermostat holds a set-point and follows no
plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from controllers.core.mail import FloatArray, IntArray
from controllers.core.ports import Port
from controllers.core.protocol import ControlSite
from controllers.market.agents.local.day import HomeDay
from controllers.market.agents.local.offers import P0, P_MAX, P_MIN
from controllers.market.agents.local.options import LocalMarketOptions
from controllers.market.agents.local.table import LOAD, PV, STORAGE, LocalTable, over_kinds
from controllers.market.agents.local.thermostats import HomeThermostats
from controllers.market.model.participants import LOAD_POWER_FACTOR

HEATER_KW, HEATER_MEMORY = 0.35, 30
"""Mean draw of a water heater before it is metered; intervals over which it is averaged."""
Q_LIMIT_PU = 0.44
"""Reactive power over rating of an inverter, IEEE 1547-2018 Category B."""
_TAN_PHI = float(np.sqrt(1.0 - LOAD_POWER_FACTOR**2) / LOAD_POWER_FACTOR)


@dataclass
class Baseline:
    """Baseline and flexibility of each home's parts, kW, all (n,).

    `house` (base load), `heater` (water heaters) and `heat` (heat pump) are consumption, the others
    injections.
    """

    house: FloatArray
    heater: FloatArray
    heat: FloatArray
    heat_down: FloatArray
    heat_up: FloatArray
    pv: FloatArray
    pv_down: FloatArray
    battery: FloatArray
    battery_down: FloatArray
    battery_up: FloatArray
    vehicle: FloatArray
    vehicle_down: FloatArray
    vehicle_up: FloatArray

    @staticmethod
    def empty(n: int) -> Baseline:
        """Return the baseline of homes of which nothing is known yet."""
        return Baseline(*np.zeros((13, n)))


class HomeDevices:
    """The devices of some homes.

    Parameters
    ----------
    hosted : (n,). Positions of the homes in `LocalTable.home_names`, ascending.
    """

    def __init__(
        self, table: LocalTable, hosted: IntArray, options: LocalMarketOptions, site: ControlSite
    ) -> None:
        self._levels = options.levels
        self.n = hosted.size
        at = np.flatnonzero(np.isin(table.der_home, hosted))
        self._ders = ders = tuple(table.ders[i] for i in at)
        self._owner: IntArray = np.searchsorted(hosted, table.der_home[at])
        self._kind = table.der_kind[at]
        self._at = {
            kind: np.flatnonzero([d.kind == kind for d in ders])
            for kind in ("house", "pv", "battery", "vehicle", "flexible_load")
        }
        rating = np.array([max(d.p_max_kw, -d.p_min_kw) for d in ders], dtype=np.float64)
        self._share: FloatArray = np.zeros(len(ders))
        for where in self._at.values():  # of the home's devices of the same kind
            total = np.bincount(self._owner[where], rating[where], self.n)
            self._share[where] = rating[where] / np.maximum(total[self._owner[where]], 1e-9)
        self._rating = rating
        kva = np.array([d.kva for d in ders], dtype=np.float64)
        self._inverter_kva = np.where(np.isin(self._kind, (PV, STORAGE)), kva, 0.0)
        self.day = HomeDay(table, hosted, ders, self._owner, options, site)
        counts = np.array([d.count for d in ders], dtype=np.float64)
        self._heater = HEATER_KW * self._sum("flexible_load", counts)
        self._heater_off: FloatArray = np.zeros(self.n)
        self._metered = np.full(len(ders), np.nan)
        self._offered = self._now = Baseline.empty(self.n)
        names = tuple(d.name for d in ders)
        self._names = names
        self.inputs = (
            Port("p_kw", "kW", names),
            Port("temp_c", "degC", self._of("house"), initial=22.0),
            Port("soc_kwh", "kWh", self._of("battery", "vehicle")),
        )
        known = [d.name for d in table.ders if d.kind == "house"]
        mine = self._owner[self._at["house"]]
        self._thermostats = HomeThermostats(
            options.thermostats or (), self.day.homes.houses, self._of("house"), mine, known
        )
        self._dt_s = options.mail_rounds * site.period_s
        self._base_kw, self._temp_out_c = np.zeros(self.n), 0.0
        # Without a market thermostats run free; without plans vehicles charge when they are home.
        free = {"none": ("house", "vehicle"), "primary": ("vehicle",)}.get(self._levels, ())
        kinds = {"battery", "vehicle", "pv", "house"}.difference(free)
        self._set_at = self._all(*kinds)
        self._q_at = self._all("battery", "pv")
        self.outputs: tuple[Port, ...] = (
            Port("p_set_kw", "kW", tuple(names[i] for i in self._set_at)),
            Port("q_set_kvar", "kvar", tuple(names[i] for i in self._q_at)),
            *self._thermostats.outputs,
        )
        self._p_set, self._q_set = np.zeros(len(ders)), np.zeros(len(ders))

    def _of(self, *kinds: str) -> tuple[str, ...]:
        return tuple(d.name for d in self._ders if d.kind in kinds)

    def _all(self, *kinds: str) -> IntArray:
        """Return the positions of the devices of some kinds, ascending."""
        return np.flatnonzero([d.kind in kinds for d in self._ders])

    def _sum(self, kind: str, values: FloatArray) -> FloatArray:
        """Return the sums over each home of what devices of a kind have, (n,)."""
        at = self._at[kind]
        return np.bincount(self._owner[at], values[at], self.n).astype(np.float64, copy=False)

    # --- meters ----------------------------------------------------------------------------------

    def read(self, inputs: Mapping[str, FloatArray]) -> FloatArray:
        """Read the meters; return each home's power by kind, (n, 3), NaN where one shows nothing.

        What was offered last becomes the baseline.
        """
        expected, self._now = self._now.heater, self._offered
        p = inputs["p_kw"] if self._ders else np.zeros(0)
        self._metered = np.where(np.isfinite(p), p, np.nan)
        self.day.read(inputs)
        heater = -self._sum("flexible_load", self._metered)
        seen = np.isfinite(heater)
        self._heater = np.where(
            seen, self._heater + (heater - self._heater) / HEATER_MEMORY, self._heater
        )
        out = np.zeros((self.n, 3))
        for kind in (LOAD, PV, STORAGE):
            mine = self._kind == kind
            out[:, kind] = np.bincount(self._owner[mine], self._metered[mine], self.n)
        self._heater_off = np.where(seen, heater - expected, 0.0)
        return out

    def kept(self, metered: FloatArray) -> FloatArray:
        """Return what was metered (n, 3) with water heaters as expected, which nobody offers."""
        out = metered.copy()
        out[:, LOAD] += self._heater_off
        return out

    def plan(self, time_s: float) -> list[dict[str, Any]]:
        """Plan the day if that is due; return what cannot be met, as events."""
        return self.day.plan(time_s) if self._levels == "hierarchy" else []

    # --- baseline and range ----------------------------------------------------------------------

    def offer(self, time_s: float, dt_s: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return baseline, least and largest power by kind for an interval, each (n, 3)."""
        b = self._baseline(time_s, dt_s)
        self._offered = b
        p0 = np.stack([-b.house - b.heater - b.heat, b.pv, b.battery + b.vehicle], axis=1)
        down = np.stack([b.heat_down, b.pv_down, b.battery_down + b.vehicle_down], axis=1)
        up = np.stack([b.heat_up, np.zeros(self.n), b.battery_up + b.vehicle_up], axis=1)
        return p0, p0 - down, p0 + up

    def _baseline(self, time_s: float, dt_s: float) -> Baseline:
        day, n = self.day, self.n
        none = np.zeros(n)
        now = day.at(time_s, dt_s)
        heat = day.holding_kw(time_s)
        self._base_kw, self._temp_out_c = now.base_kw, day.temp_out_c(time_s)
        if self._levels == "hierarchy":
            down, up = now.heat_flex, np.minimum(now.heat_flex, now.heat)
            here = self._thermostats.here
            return Baseline(now.base_kw, self._heater, np.where(here, heat, now.heat),
                            np.where(here, 0.0, down), np.where(here, day.flexibility * heat, up),
                            now.pv, now.pv_flex, now.battery, now.battery_down, now.battery_up,
                            now.vehicle, now.vehicle_down, now.vehicle_up)  # fmt: skip
        metered_house = np.nan_to_num(-self._sum("house", self._metered))
        if self._levels == "none":
            heat = np.maximum(metered_house - now.base_kw, 0.0)
        low, high = day.battery_limits(dt_s)
        battery = np.clip(metered_house + self._heater - now.pv, low, high)
        vehicle = np.nan_to_num(self._sum("vehicle", self._metered))
        share = day.flexibility if self._levels == "primary" else none
        return Baseline(now.base_kw, self._heater, heat, none, share * heat, now.pv, share * now.pv,
                        battery, none, none, vehicle, none, none)  # fmt: skip

    @property
    def planned_kw(self) -> FloatArray:
        """The plan's net power in the interval offered last, NaN without a plan, (n,)."""
        return self.day.planned_kw

    def reactive(self, p0: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return reactive baseline and room of each home, kvar, for its power by kind (n, 3)."""
        kva = np.bincount(self._owner, self._inverter_kva, self.n)
        p = np.abs(p0[:, PV] + p0[:, STORAGE])
        room = np.minimum(np.sqrt(np.maximum(kva**2 - p**2, 0.0)), Q_LIMIT_PU * kva)
        return _TAN_PHI * p0[:, LOAD], room if self._levels != "none" else np.zeros(self.n)

    # --- set-points ------------------------------------------------------------------------------

    def follow(self, base: FloatArray, change: FloatArray, q_kvar: FloatArray) -> None:
        """Set the devices for a change of the baseline (n,) and reactive power (n,).

        `base`: the offers for this interval, (n, len(OFFER_FIELDS)).
        """
        b, rises = self._now, change >= 0.0
        p0, low, high = base[:, P0], base[:, P_MIN], base[:, P_MAX]
        room = np.where(rises[:, None], high - p0, p0 - low)
        total = over_kinds(room)
        part = np.divide(np.abs(change), total, out=np.zeros(self.n), where=total > 1e-9)
        part = np.where(rises, part, -part)

        def moved(kw: FloatArray, down: FloatArray, up: FloatArray) -> FloatArray:
            return np.asarray(kw + part * np.where(rises, up, down))

        heat = moved(-b.heat, b.heat_down, b.heat_up)
        cap = heat - b.house
        pv = moved(b.pv, b.pv_down, np.zeros(self.n))
        targets = {
            "house": cap,
            "battery": moved(b.battery, b.battery_down, b.battery_up),
            "vehicle": moved(b.vehicle, b.vehicle_down, b.vehicle_up),
            "pv": np.where(pv < b.pv - 1e-9, pv, np.inf),
        }
        for kind, target in targets.items():
            at = self._at[kind]
            self._p_set[at] = self._share[at] * target[self._owner[at]]
        cooling_kw = -self._sum("house", self._metered) - self._base_kw
        self._thermostats.follow(
            self._dt_s, self.day.temp_c, self._temp_out_c, cooling_kw, b.heat + heat
        )
        pv_at = self._at["pv"]
        self._p_set[pv_at] = np.minimum(self._p_set[pv_at], self._rating[pv_at])
        kva = np.maximum(np.bincount(self._owner, self._inverter_kva, self.n), 1e-9)
        q = (q_kvar - _TAN_PHI * p0[:, LOAD])[self._owner]
        self._q_set = q * self._inverter_kva / kva[self._owner]

    def values(self) -> dict[str, FloatArray]:
        """Return the set-points."""
        told = {port.name: self._thermostats.cool_set_c for port in self._thermostats.outputs}
        return told | {"p_set_kw": self._p_set[self._set_at], "q_set_kvar": self._q_set[self._q_at]}
