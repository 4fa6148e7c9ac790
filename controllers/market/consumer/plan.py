"""Stage I of the consumer market: each home plans its devices over the horizon.

Paper 003, "Stage I: Multiperiod optimization to coordinate DERs". docs/home-plans.md has the
equations as read, the weights with their units and the accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
from numpy.typing import ArrayLike

from controllers.market.consumer.batch_ldl import Array, Index
from controllers.market.consumer.batch_qp import BatchQp, QpSolution
from controllers.market.consumer.device_cases import heat_case, storage_cases, stored_kwh
from controllers.market.consumer.home_plan import KINDS, OVERLAP_KW, HomeEvent, HomePlan
from controllers.market.consumer.homes import HomeForecast, Homes
from controllers.market.consumer.plan_events import cleaned, plan_events
from controllers.market.consumer.plan_model import (
    HeatCase,
    PlanOptions,
    Pv,
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
    # First what draws most: the other devices then see the net load that it leaves.
    draft.plan_heat(np.flatnonzero(homes.houses.hvac_kw > 0.0))
    has = [homes.pv_kw > 0.0, homes.battery.energy_kwh > 0.0, homes.vehicle.energy_kwh > 0.0]
    for kinds in product((False, True), repeat=3):
        some = np.logical_and.reduce([h == k for h, k in zip(has, kinds, strict=True)])
        if any(kinds) and some.any():
            present = [k for k, there in zip(KINDS[:3], kinds, strict=True) if there]
            draft.plan_electric(np.flatnonzero(some), present)
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

    def plan_electric(self, some: Index, kinds: Sequence[str]) -> None:
        """Plan PV, batteries and vehicles of homes that have the same `kinds` of them."""
        qp, price = BatchQp(len(some)), self.price[:, some]
        homes, storages = self.homes.take(some), {}
        local: list[int] = []
        sweep: list[Index] = []
        pv: Pv | None = None
        for kind in kinds:
            if kind == "pv":
                available = self.available_kw[:, some]
                pv = add_pv(qp, available, price, self.hours, self.options)
                local += [*pv.delta, *pv.power]
                continue
            case = StorageCase._make(x[..., some] for x in self.cases[kind])
            unit = add_storage(qp, getattr(homes, kind), case, price, self.hours, self.options)
            storages[kind] = unit
            local += unit.local()
            sweep += [unit.power, unit.balance, unit.energy]
        if pv is not None and storages:
            weight = self.options.own_pv_per_kwh * self.hours / homes.pv_kw
            powers = [(unit.power, 1.0) for unit in storages.values()]
            qp.square(weight * (available >= 1e-3), 0.0, (pv.power, 1.0), *powers)
        if self.options.price_rise_per_kw > 0.0:
            own = [(unit.power, 1.0) for unit in storages.values()]
            own += [] if pv is None else [(pv.power, 1.0)]
            load = (self.forecast.base_kw.T - self.p_kw["heat_pump"])[:, some]
            qp.square(0.5 * self.options.price_rise_per_kw * self.hours, load, *own)
        solution = qp.solve([*local, *_by_time(sweep)])
        self._note(some, solution)
        if pv is not None:
            self._keep("pv", some, solution.x[pv.power], solution.x[pv.delta])
        for kind, unit in storages.items():
            power, charge = solution.x[unit.power], solution.x[unit.charge]
            self._keep(kind, some, power, solution.x[unit.delta])
            overlap = np.minimum(charge, power + charge).max(axis=0)
            self.overlap_kw[some] = np.maximum(self.overlap_kw[some], overlap)

    def plan_heat(self, some: Index) -> None:
        """Plan heat pumps, before a home's other devices."""
        if not len(some):
            return
        case = HeatCase._make(x[..., some] for x in self.heat)
        qp = BatchQp(len(some))
        heat = add_heat_pump(qp, case, self.price[:, some], self.hours, self.options)
        if self.options.price_rise_per_kw > 0.0:
            one = 1.0 / (self.options.delta_high - self.options.delta_low)
            base = self.forecast.base_kw.T[:, some]
            weight = 0.5 * self.options.price_rise_per_kw * self.hours
            qp.square(weight, -base, (heat.u, one), (heat.v, one))
        local = [*heat.slack, *heat.u, *heat.v]
        solution = qp.solve([*local, *_by_time([heat.balance, heat.temp])])
        self._note(some, solution)
        u, v = solution.x[heat.u], solution.x[heat.v]
        use = (u + v) / (self.options.delta_high - self.options.delta_low)
        self._keep("heat_pump", some, -use, self.options.delta_low * use + u)

    def _note(self, some: Index, solution: QpSolution) -> None:
        self.objective[some] += solution.objective
        self.converged[some] &= solution.converged

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


def _by_time(sweep: Sequence[Index]) -> list[int]:
    """Return an order of steps: every second one, of the rest every second one, until 12 are left.

    Steps that are no neighbours are eliminated in one operation; the last 12 come one by one.
    """
    order: list[int] = []
    left = range(len(sweep[0]) if sweep else 0)
    while len(left) > 12:
        order += [int(columns[step]) for columns in sweep for step in left[::2]]
        left = left[1::2]
    return order + [int(columns[step]) for step in left for columns in sweep]
