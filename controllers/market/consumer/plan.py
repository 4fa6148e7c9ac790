"""Stage I of the consumer market: each home plans its devices over the horizon.

Paper 003, "Stage I: Multiperiod optimization to coordinate DERs". docs/home-plans.md has the
equations as read, the weights with their units and the accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from controllers.market.consumer.batch_qp import Array, BatchQp, Index, Term
from controllers.market.consumer.device_cases import heat_case, storage_cases, stored_kwh
from controllers.market.consumer.home_plan import KINDS, OVERLAP_KW, HomeEvent, HomePlan
from controllers.market.consumer.homes import HomeForecast, Homes
from controllers.market.consumer.plan_events import cleaned, plan_events
from controllers.market.consumer.plan_model import (
    LEAST_PV_KW,
    Device,
    HeatCase,
    PlanOptions,
    StorageCase,
    add_heat_pump,
    add_pv,
    add_storage,
)
from controllers.market.model.errors import MarketError

__all__ = ["KINDS", "OVERLAP_KW", "HomeEvent", "HomePlan", "PlanOptions", "plan_homes"]

Starts = dict[str, Array]


def plan_homes(
    homes: Homes,
    forecast: HomeForecast,
    battery_kwh: ArrayLike,
    vehicle_kwh: ArrayLike,
    temp_start_c: ArrayLike,
    options: PlanOptions | None = None,
) -> HomePlan:
    """Plan all homes; a home's plan does not depend, to the bit, on which others are there.

    What one home cannot do as asked, or a number that is missing, is an event of the plan.

    Parameters
    ----------
    homes : Of h homes.
    forecast : For them.
    battery_kwh, vehicle_kwh : (h,). Stored energy at the start.
    temp_start_c : (h,). Indoor temperature at the start.

    Raises MarketError: A shape does not fit.
    """
    options = options or PlanOptions()
    given = {"battery": battery_kwh, "vehicle": vehicle_kwh, "temp": temp_start_c}
    starts = {name: np.asarray(value, dtype=np.float64) for name, value in given.items()}
    for name, value in [*starts.items(), ("forecast", forecast.base_kw[:, 0])]:
        if value.shape != (len(homes.names),):
            raise MarketError(
                f"shape {value.shape}",
                where=f"plan_homes, {name}",
                expected=f"one entry for each of {len(homes.names)} homes",
            )
    forecast, starts, events = cleaned(homes, forecast, starts)
    draft = _Draft(homes, forecast, starts, options)
    ratings = homes.pv_kw, homes.battery.energy_kwh, homes.vehicle.energy_kwh, homes.houses.hvac_kw
    has = np.stack([rating > 0.0 for rating in ratings], axis=1)
    for present in np.unique(has, axis=0):
        some = np.flatnonzero((has == present).all(axis=1))
        draft.plan_alike(some, [k for k, there in zip(KINDS, present, strict=True) if there])
    plan = draft.finished()
    events += plan_events(homes, plan, draft.cases)
    return replace(plan, events=tuple(events))


class _Draft:
    """Plans in the making; series are (H, h) here."""

    def __init__(
        self, homes: Homes, forecast: HomeForecast, starts: Starts, options: PlanOptions
    ) -> None:
        h, steps = forecast.shape
        self.homes, self.forecast, self.starts, self.options = homes, forecast, starts, options
        self.hours = forecast.step_s / 3600.0
        self.price = forecast.wide("price_per_kwh").T
        self.p_kw = {kind: np.zeros((steps, h)) for kind in KINDS}
        self.delta_kw = {kind: np.zeros((steps, h)) for kind in KINDS}
        self.overlap_kw, self.objective = np.zeros(h), np.zeros(h)
        self.converged = np.ones(h, dtype=bool)
        self.cases = storage_cases(homes, forecast, starts, options)
        self.heat = heat_case(homes.houses, forecast, starts["temp"])
        self.available_kw = forecast.wide("irradiance_pu").T.clip(0.0) * homes.pv_kw

    def plan_alike(self, some: Index, kinds: Sequence[str]) -> None:
        """Plan homes that have the same `kinds` of devices."""
        if not kinds:
            return
        qp, options = BatchQp(len(some)), self.options
        devices = {kind: self._add(qp, kind, some) for kind in kinds}
        injection: list[Term] = [term for device in devices.values() for term in device.power]
        if "pv" in kinds and ("battery" in kinds or "vehicle" in kinds):
            weight = options.own_pv_per_kwh * self.hours / self.homes.pv_kw[some]
            sun = self.available_kw[:, some] >= LEAST_PV_KW
            own: list[Term] = [t for k in kinds if k != "heat_pump" for t in devices[k].power]
            qp.square(weight * sun, 0.0, *own)
        if options.price_rise_per_kw > 0.0:
            rise = 0.5 * options.price_rise_per_kw * self.hours
            qp.square(rise, self.forecast.base_kw.T[:, some], *injection)
        solution = qp.solve()
        self.objective[some], self.converged[some] = solution.objective, solution.converged
        for kind, device in devices.items():
            power, delta = _value(device.power, solution.x), _value(device.delta, solution.x)
            self._keep(kind, some, power, delta)
            if device.charge is not None:
                charge = solution.x[device.charge]
                overlap = np.minimum(charge, power + charge).max(axis=0)
                self.overlap_kw[some] = np.maximum(self.overlap_kw[some], overlap)

    def _add(self, qp: BatchQp, kind: str, some: Index) -> Device:
        """Add one kind of device of some homes to their problems."""
        rest = self.price[:, some], self.hours, self.options
        if kind == "pv":
            return add_pv(qp, self.available_kw[:, some], *rest)
        if kind == "heat_pump":
            return add_heat_pump(qp, HeatCase._make(x[..., some] for x in self.heat), *rest)
        case = StorageCase._make(x[..., some] for x in self.cases[kind])
        return add_storage(qp, getattr(self.homes.take(some), kind), case, *rest)

    def _keep(self, kind: str, some: Index, power: Array, delta: Array) -> None:
        """Keep a device's plan, with the solver's rounding beyond limits cut off."""
        homes, zero = self.homes, np.zeros(len(some))
        if kind == "pv":
            low, high = zero, self.available_kw[:, some]
        elif kind == "heat_pump":
            low, high = -homes.houses.hvac_kw[some], zero
        else:
            units, away = getattr(homes, kind), self.cases[kind].away[:, some]
            low = np.where(away, 0.0, units.p_min_kw[some])
            high = np.where(away, 0.0, units.p_max_kw[some])
        power = np.clip(power, low, high)
        self.p_kw[kind][:, some] = power
        room = np.minimum(power - low, high - power)
        self.delta_kw[kind][:, some] = np.maximum(np.minimum(delta, room), 0.0)

    def finished(self) -> HomePlan:
        """Return the plans; energies and temperatures follow from the powers."""
        heat = self.heat
        temp = [self.starts["temp"]]
        for k, gain in enumerate(heat.gain_k_per_kw):
            drift = (1.0 - heat.theta) * heat.outdoor_c[k]
            temp.append(heat.theta * temp[-1] + drift - gain * self.p_kw["heat_pump"][k])
        soc = {
            kind: stored_kwh(
                getattr(self.homes, kind), self.starts[kind], case.trip_kwh, self.p_kw[kind],
                self.hours,
            ).T
            for kind, case in self.cases.items()
        }  # fmt: skip
        return HomePlan(
            p_kw={kind: p.T for kind, p in self.p_kw.items()},
            delta_kw={kind: d.T for kind, d in self.delta_kw.items()},
            soc_kwh=soc,
            temp_c=np.array(temp).T,
            base_kw=self.forecast.base_kw,
            overlap_kw=self.overlap_kw,
            exact=self.overlap_kw <= OVERLAP_KW,
            converged=self.converged,
            objective=self.objective,
            events=(),
        )


def _value(terms: Sequence[tuple[Index, float]], x: Array) -> Array:
    return np.asarray(sum(gain * x[columns] for columns, gain in terms))
