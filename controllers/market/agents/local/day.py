"""The day of the hosted homes: forecast, plan, and the baseline and range of each interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from controllers.core.mail import FloatArray, IntArray
from controllers.core.protocol import ControlSite
from controllers.market.agents.local.options import LocalMarketOptions
from controllers.market.agents.local.table import LocalTable
from controllers.market.consumer.forecast_errors import ForecastErrors, with_errors
from controllers.market.consumer.homes import HomeForecast, Storages
from controllers.market.consumer.plan import HomePlan, plan_homes
from controllers.market.consumer.plan_model import PlanOptions
from controllers.market.consumer.site_homes import homes_with
from grid_models.ders.batteries import BatteryParameters
from grid_models.ders.vehicles import VehicleParameters
from grid_models.feeder.model import Der

SLOT_S = 1800.0
SLOTS = 48
RETURN_H = 2.0
"""Time, h, in which a home returns to the energy and temperature of its plan."""
GUARD_H = 0.25
"""Time, h, for which a storage must be able to hold the power that it offers."""
LEAST_PLANNED = 0.01
"""Least flexible share in a plan, whose equations need one; the offer is scaled to the option's."""


@dataclass(frozen=True)
class Interval:
    """Power and flexibility of each home's devices in an interval, kW, (n,).

    `base_kw` and `heat` are consumption, the others injections; `_down` and `_up` are ranges.
    """

    base_kw: FloatArray
    pv: FloatArray
    pv_flex: FloatArray
    heat: FloatArray
    heat_flex: FloatArray
    battery: FloatArray
    battery_down: FloatArray
    battery_up: FloatArray
    vehicle: FloatArray
    vehicle_down: FloatArray
    vehicle_up: FloatArray


class HomeDay:
    """The day of some homes.

    Parameters
    ----------
    hosted : (n,). Positions of the homes in `LocalTable.home_names`.
    ders, owner : Their devices, and the home of each among the hosted.
    """

    def __init__(
        self,
        table: LocalTable,
        hosted: IntArray,
        ders: Sequence[Der],
        owner: IntArray,
        options: LocalMarketOptions,
        site: ControlSite,
    ) -> None:
        self._site, self._options = site, options
        self._all_homes = len(table.home_names)
        self.n = n = hosted.size
        names = tuple(table.home_names[i] for i in hosted)
        self.flexibility = table.draw(site.seed, "flexibility", names, options.flexibility)
        self._delta_high = max(options.flexibility[1], LEAST_PLANNED)
        self._scale = self.flexibility / self._delta_high
        self.homes = homes_with(names, ders, owner, site.seed)
        self._base_rating = self.homes.houses.base_kw
        kinds = np.array([d.kind for d in ders])
        stores = np.isin(kinds, ("battery", "vehicle"))
        self._house_owner = owner[kinds == "house"]
        # Place among the labels of `soc_kwh`, and home, of each store.
        self._stores = {
            k: (np.flatnonzero(kinds[stores] == k), owner[kinds == k])
            for k in ("battery", "vehicle")
        }
        vehicles = [d for d in ders if d.kind == "vehicle"]
        start = VehicleParameters.of_ders(vehicles, site.seed).start_kwh
        defaults = BatteryParameters()
        self._soc = {
            "battery": defaults.soc_start * self.homes.battery.energy_kwh,
            "vehicle": np.bincount(self._stores["vehicle"][1], start, n).astype(np.float64),
        }
        self.temp_c = self.homes.houses.start_c.copy()
        self._plan: HomePlan | None = None
        self._plan_start_s = 0.0
        self.planned_kw: FloatArray = np.full(n, np.nan)

    def read(self, inputs: Mapping[str, FloatArray]) -> None:
        """Take the temperatures and stored energies that are numbers."""
        if "temp_c" in inputs:
            total = np.bincount(self._house_owner, inputs["temp_c"], self.n)
            count = np.bincount(self._house_owner, minlength=self.n)
            mean = np.divide(total, count, out=np.full(self.n, np.nan), where=count > 0)
            self.temp_c = np.where(np.isfinite(mean), mean, self.temp_c)
        if "soc_kwh" in inputs:
            for kind, (at, who) in self._stores.items():
                stored = np.bincount(who, inputs["soc_kwh"][at], self.n)
                has = np.bincount(who, minlength=self.n) > 0
                self._soc[kind] = np.where(has & np.isfinite(stored), stored, self._soc[kind])

    def plan(self, time_s: float) -> list[dict[str, Any]]:
        """Plan the day from `time_s` on, once a day; return what cannot be met, as events."""
        if self._plan is not None and time_s < self._plan_start_s + SLOTS * SLOT_S - SLOT_S:
            return []
        self._plan_start_s = time_s
        o = self._options
        options = PlanOptions(
            delta_low=min(PlanOptions.delta_low, 0.5 * self._delta_high),
            delta_high=self._delta_high,
            # A home assumes that all homes shift their load as it does.
            price_rise_per_kw=o.price_slope / 1000.0 * self._all_homes,
        )
        self._plan = made = plan_homes(
            self.homes, self._forecast(time_s), self._soc["battery"], self._soc["vehicle"],
            self.temp_c, options,
        )  # fmt: skip
        merged: dict[str, list[str]] = {}
        for event in made.events:
            merged.setdefault(event.kind, []).append(f"{event.home}: {event.text}")
        return [{"event": f"home_plan_{k}", "homes": texts} for k, texts in merged.items()]

    def _forecast(self, time_s: float) -> HomeForecast:
        times = time_s + SLOT_S * np.arange(SLOTS)
        # Means over each slot, as the plan's steps have them.
        fine = times[:, None] + SLOT_S / 30.0 * np.arange(30)
        mean = {k: v.mean(axis=1) for k, v in self._site.forecast(fine).items()}
        found = HomeForecast(
            step_s=SLOT_S,
            start_s=(self._site.start_s + time_s) % 86400.0,
            irradiance_pu=np.clip(mean["irradiance_pu"], 0.0, 1.0),
            temp_c=mean["temp_c"],
            base_kw=self._base_rating[:, None] * mean["load_pu"],
            price_per_kwh=self._options.price_scale * mean["price_per_kwh"],
        )
        if self._options.forecast_error > 0.0:
            std = self._options.forecast_error
            errors = ForecastErrors(irradiance_std=std, base_std=std, price_std=std)
            day = int((self._site.start_s + time_s) // 86400.0)
            found = with_errors(found, self.homes.names, self._site.seed, day, errors)
        return found

    def at(self, time_s: float, dt_s: float) -> Interval:
        """Return powers and flexibilities of the interval of `dt_s` that begins at `time_s`."""
        day = {k: float(v[0]) for k, v in self._site.forecast(np.array([time_s])).items()}
        base = self._base_rating * day["load_pu"]
        sun = self.homes.pv_kw * min(max(day["irradiance_pu"], 0.0), 1.0)
        none = np.zeros(self.n)
        if self._plan is None:
            return Interval(base, sun, none, none, none, none, none, none, none, none, none)
        plan = self._plan
        since = (time_s - self._plan_start_s) / SLOT_S
        slot = int(np.clip(since, 0, SLOTS - 1))
        part = float(np.clip(since - slot, 0.0, 1.0))
        p = {k: v[:, slot] for k, v in plan.p_kw.items()}
        flex = {k: v[:, slot] * self._scale for k, v in plan.delta_kw.items()}
        self.planned_kw = plan.net_kw[:, slot]
        stored = {}
        for kind in ("battery", "vehicle"):
            planned = _between(plan.soc_kwh[kind], slot, part)
            stored[kind] = self._storage(kind, p[kind], flex[kind], planned, dt_s)
        heat, heat_flex = self._heat(-p["heat_pump"], flex["heat_pump"], slot, part, day["temp_c"])
        return Interval(base, sun, np.minimum(flex["pv"], sun), heat, heat_flex,
                        *stored["battery"], *stored["vehicle"])  # fmt: skip

    def _storage(
        self, kind: str, p: FloatArray, flex: FloatArray, planned_kwh: FloatArray, dt_s: float
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return baseline, flexibility down and up of a storage, corrected towards its plan."""
        low, high = self._limits(kind, dt_s)
        usable = np.abs(p) + flex > 0.0  # a vehicle that is away has neither
        back = np.where(usable, (self._soc[kind] - planned_kwh) / RETURN_H, 0.0)
        base = np.clip(p + back, low, high)
        return base, np.minimum(flex, base - low), np.minimum(flex, high - base)

    def _limits(self, kind: str, dt_s: float) -> tuple[FloatArray, FloatArray]:
        """Return the least and largest injection that the stored energy allows for a while."""
        unit: Storages = getattr(self.homes, kind)
        hours = max(GUARD_H, dt_s / 3600.0)
        soc = self._soc[kind]
        room = np.maximum(unit.soc_max * unit.energy_kwh - soc, 0.0) / unit.charge_efficiency
        left = np.maximum(soc - unit.soc_min * unit.energy_kwh, 0.0) * unit.discharge_efficiency
        return np.maximum(unit.p_min_kw, -room / hours), np.minimum(unit.p_max_kw, left / hours)

    def battery_limits(self, dt_s: float) -> tuple[FloatArray, FloatArray]:
        """Return the least and largest injection of the batteries, kW, each (n,)."""
        return self._limits("battery", dt_s)

    def _heat(
        self, heat: FloatArray, flex: FloatArray, slot: int, part: float, temp_out_c: float
    ) -> tuple[FloatArray, FloatArray]:
        """Return the heat pump's baseline and flexibility, corrected to the planned temperature."""
        assert self._plan is not None
        houses = self.homes.houses
        planned = _between(self._plan.temp_c, slot, part)
        cooling = temp_out_c > 0.5 * (houses.heat_set_c + houses.cool_set_c)
        off = (self.temp_c - planned) * np.where(cooling, 1.0, -1.0)
        back = off * houses.c_kwh_per_k / np.maximum(houses.cop, 1e-9) / RETURN_H
        base = np.clip(heat + back, 0.0, houses.hvac_kw)
        return base, np.minimum(flex, houses.hvac_kw - base)

    def temp_out_c(self, time_s: float) -> float:
        """Return the outdoor temperature that is forecast."""
        return float(self._site.forecast(np.array([time_s]))["temp_c"][0])

    def holding_kw(self, time_s: float) -> FloatArray:
        """Return what the heat pump draws to come to its set-point and hold it, kW, (n,)."""
        out = self.temp_out_c(time_s)
        h, temp = self.homes.houses, self.temp_c

        def needed(above: FloatArray, drift: FloatArray) -> FloatArray:
            return np.maximum(drift / h.r_k_per_kw + above * h.c_kwh_per_k / RETURN_H, 0.0) / h.cop

        cooling = needed(temp - h.cool_set_c, out - temp)
        heating = needed(h.heat_set_c - temp, temp - out)
        return np.minimum(np.maximum(cooling, heating), h.hvac_kw)


def _between(values: FloatArray, slot: int, part: float) -> FloatArray:
    """Return values (n, SLOTS + 1) at `part` of a slot, (n,)."""
    return np.asarray(values[:, slot] * (1.0 - part) + values[:, slot + 1] * part)
