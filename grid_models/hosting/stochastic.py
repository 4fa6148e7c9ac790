"""Siting and sizing under uncertainty: the largest PV that days to come leave feasible.

Paper 003, "Optimization-based approach": capacities of PV, batteries, vehicles and heat pumps at
groups of sites are chosen once, and the devices of each day are dispatched when it is known
(`stochastic_program`). A few medoids of the days give the first point of the search. The design is
then dispatched on days that it was not made for, each with perfect foresight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from grid_models.base.errors import FeederateError, FeederError
from grid_models.base.options import Options, option
from grid_models.current_injection.model import ComplexArray, FloatArray
from grid_models.hosting.devices import KINDS, DeviceOptions, device_model
from grid_models.hosting.interior_point import Program
from grid_models.hosting.model import HostingModel
from grid_models.hosting.result import Binding, HostingResult
from grid_models.hosting.scenarios import (
    DayNoise,
    Days,
    drawn_days,
    own_day,
    reduced_days,
)
from grid_models.hosting.site_groups import site_groups
from grid_models.hosting.stochastic_program import (
    FirstStage,
    Risk,
    StackedDays,
    Tangents,
    design_program,
    dispatch_program,
)
from grid_models.hosting.stochastic_search import EXCESS, DayNetwork, Plan, Search

_FEW_DAYS = 3
"""Medoids that give the first point."""
_PENALTY = 10.0
"""Curtailed MWh that a day's excess of 0.001 is worth, in a dispatch."""


@dataclass(frozen=True, slots=True)
class StochasticOptions(Options):
    """What is designed, and for which days.

    Raises FeederError: A value is out of range.
    """

    error: ClassVar[type[FeederateError]] = FeederError

    scenarios: int = option(25, "Days that are drawn.", low=1)
    medoids: int | None = option(None, "Days that they are reduced to; all unless given.", low=1)
    risk: Risk = option(
        "expected",
        "What the share of curtailed PV energy is limited in: its expected value, its conditional "
        "value at risk (the mean of the worst days), or every day.",
        choices=("expected", "cvar", "every"),
        shown="`expected`, `cvar` or `every`",
    )
    curtailment: float = option(0.01, "Largest share of PV energy curtailed.", low=0.0, high=1.0)
    level: float = option(
        0.9, "Of the value at risk: 0.9 is the mean of the worst tenth.", low=0.0, high=0.99
    )
    groups: int = option(12, "Groups of sites with capacities of their own.", low=1)
    most_pu: float = option(
        1.5, "Largest capacity of a kind at a group over its nominal load.", above=0.0
    )
    fresh: int = option(25, "Days that the design is tried on besides the model's own.", low=0)
    energy_weight: float = option(
        1e-3, "PV in kW that a currency unit of a day's expected energy cost is worth.", low=0.0
    )
    seed: int = option(
        0, "Of the days, the groups and the hours at which vehicles are away.", low=0
    )


def stochastic_capacity(
    model: HostingModel,
    nominal_kw: FloatArray,
    total_kw: Mapping[str, float],
    price: FloatArray,
    devices: DeviceOptions | None = None,
    options: StochasticOptions | None = None,
    noise: DayNoise | None = None,
) -> tuple[HostingResult, ComplexArray]:
    """Return the design, dispatched on days that it was not made for, and the demand on those.

    The first row of the result is the model's own day, the others are fresh ones; all have the same
    design. The demand is complex (K, T, n_loads).

    Parameters
    ----------
    nominal_kw : (S,). Load at the sites.
    total_kw : Power of all devices by kind of `KINDS` except PV. Batteries are what a design may
        have, the others what it has to have.
    price : (T,). Of energy on the model's day, currency per kWh.

    Raises FeederError: No site has a load, or there are more medoids than days.
    """
    options, noise = options or StochasticOptions(), noise or DayNoise()
    study = StochasticStudy(model, nominal_kw, total_kw, devices or DeviceOptions(), options)
    days = drawn_days(model, price, noise, options.scenarios, options.seed)
    if options.medoids is not None:
        days, _ = reduced_days(days, options.medoids)
    fresh = drawn_days(model, price, noise, options.fresh, options.seed, "fresh day")
    tried = own_day(model, price).joined(fresh)
    load_kva = model.load_kva * tried.load_pu[:, :, None]
    design = study.design(days)
    plan = None if design is None else study.dispatch(tried, days, design)
    if design is None or plan is None:
        return _no_design(model), load_kva[:1]
    return _result(study, noise, days, design, plan), load_kva


class StochasticStudy:
    """A feeder, groups of its sites, and what is asked; parameters as in `stochastic_capacity`."""

    def __init__(
        self,
        model: HostingModel,
        nominal_kw: FloatArray,
        total_kw: Mapping[str, float],
        devices: DeviceOptions,
        options: StochasticOptions,
    ) -> None:
        self.model, self.options, self._devices = model, options, devices
        self.groups = site_groups(model, nominal_kw, options.groups, options.seed)
        kinds = [kind for kind in KINDS[1:] if total_kw.get(kind, 0.0) > 0.0]
        self.first = FirstStage(
            kinds=("pv", *kinds),
            most=np.tile(1e-3 * options.most_pu * self.groups.nominal_kw, 1 + len(kinds)),
            total=1e-3 * np.array([total_kw[kind] for kind in kinds]),
            exact=np.array([kind != "battery" for kind in kinds], dtype=bool),
            risk=options.risk,
            curtailment=options.curtailment,
            level=options.level,
        )

    def design(self, days: Days) -> Plan | None:
        """Return the design for some days and its plan; None where no design keeps the limits."""
        stacked = self._stacked(days)
        shape = len(days), len(self.model.hours), len(self.groups)
        start = np.zeros(shape, dtype=np.complex128)
        cost = np.zeros((len(days), len(stacked.discharged) // len(days)))
        if len(days) > 2 * _FEW_DAYS:
            few, member = reduced_days(days, _FEW_DAYS)
            coarse = self.design(few)
            if coarse is None:
                return None
            start = coarse.group_kva[member]
            cost = coarse.discharge_cost[member] * (days.weight / few.weight[member])[:, None]

        def program(tangents: Tangents, cost_z: FloatArray, pv_most: float) -> Program:
            return design_program(
                stacked, days.weight, self.first, tangents, cost_kva, cost_z, pv_most
            )

        cost_kva = self._energy_cost(days)
        network = DayNetwork(self.model, self.groups, days)
        return Search(network, self.model, stacked, program).run(start, cost)

    def dispatch(self, days: Days, designed: Days, design: Plan) -> Plan | None:
        """Return the plan of a design on other days, with the least curtailment.

        `designed`: The days of the design.
        """
        stacked, x = self._stacked(days), design.capacity_mw
        start = design.group_kva[days.distance(designed).argmin(axis=1)]

        def program(tangents: Tangents, cost_z: FloatArray, _: float) -> Program:
            return dispatch_program(stacked, x, tangents, cost_kva, cost_z, _PENALTY)

        cost_kva = self._energy_cost(days)
        network = DayNetwork(self.model, self.groups, days)
        return Search(network, self.model, stacked, program, x).run(
            start, np.zeros((len(days), len(stacked.discharged) // len(days)))
        )

    def _stacked(self, days: Days) -> StackedDays:
        model = self.model
        return StackedDays.of(
            [
                device_model(
                    self._devices, self.first.kinds, self.groups.names, model.hours, model.step_h,
                    pv_pu, temp_c, self.options.seed,
                )
                for pv_pu, temp_c in zip(days.pv_pu, days.temp_c, strict=True)
            ],
            model.step_h,
        )  # fmt: skip

    def _energy_cost(self, days: Days) -> FloatArray:
        """Return the cost per MW injected, in MW of PV, (N T G,)."""
        expected = days.weight[:, None] * days.price * self.model.step_h
        return -self.options.energy_weight * np.repeat(expected.ravel(), len(self.groups))


def _result(
    study: StochasticStudy, noise: DayNoise, days: Days, design: Plan, plan: Plan
) -> HostingResult:
    """Return the design on the days of a plan."""
    groups, kinds = study.groups, study.first.kinds
    k = len(plan.curtailed)
    by_kind = dict(zip(kinds, 1e3 * design.capacity_mw.reshape(len(kinds), -1), strict=True))
    hc_kw = float(by_kind["pv"].sum())
    binding = [Binding(*key) for key in design.weight][:1] or [Binding("", "", np.nan)]
    names = ("own day", *(f"fresh day {n}" for n in range(1, k)))
    limits = list(design.weight)
    return HostingResult(
        names=names,
        hc_kw=np.full(k, hc_kw),
        binding=tuple(binding * k),
        site_kw=np.tile(groups.share @ by_kind["pv"], (k, 1)),
        site_kva=plan.group_kva @ groups.share.T,
        notes=_notes(study, noise, days, design, plan),
        tables={
            "stochastic_groups": {
                "group": groups.names,
                "sites": (groups.share > 0.0).sum(axis=0),
                "nominal_kw": groups.nominal_kw,
                **{f"{kind}_kw": kw for kind, kw in by_kind.items()},
            },
            "stochastic_days": {"day": names, "curtailed": plan.curtailed, "excess": plan.excess},
            "limits": {
                "limit": [kind for kind, _, _ in limits],
                "element": [element for _, element, _ in limits],
                "hour": [hour for _, _, hour in limits],
                "weight": list(design.weight.values()),
            },
        },
    )


def _notes(
    study: StochasticStudy, noise: DayNoise, days: Days, design: Plan, plan: Plan
) -> tuple[str, ...]:
    options, model = study.options, study.model
    pct = 1e5 / model.base_kva
    pv_mw = design.capacity_mw[: len(study.groups)].sum()
    risks = {
        "expected": "in the mean",
        "cvar": f"in the mean of the worst {1.0 - options.level:.0%} of the days",
        "every": "on every day",
    }
    notes = [
        f"one design for {options.scenarios} days"
        + (f", reduced to {len(days)} medoids" if options.medoids else "")
        + f", {len(study.groups)} groups of sites; at most {options.curtailment:.2%} of PV energy "
        f"curtailed {risks[options.risk]}",
        f"noise on demand, sun and price: {noise.day_noise:.1%} a day and {noise.step_noise:.1%} a "
        f"step; on the temperature {noise.day_noise_k:g} K a day and {noise.step_noise_k:g} K a "
        "step",
        f"on {len(plan.curtailed)} other days, the model's own and fresh ones, dispatched with "
        f"foresight: {plan.curtailed.mean():.2%} curtailed, at most {plan.curtailed.max():.2%}; "
        f"excess over a limit at most {max(plan.excess.max(), 0.0):.1e}, "
        f"on {int((plan.excess > EXCESS).sum())} days above {EXCESS:g}",
    ]
    full = design.capacity_mw[: len(study.groups)] >= study.first.most[: len(study.groups)] * 0.999
    if full.any():
        notes.append(
            f"{full.sum()} of {len(full)} groups have the most PV that was allowed, "
            f"{options.most_pu:g} times their nominal load; without this bound PV moves to where "
            "the feeder begins"
        )
    if design.relaxed_mw > pv_mw * (1.0 + 1e-4):
        notes.append(
            "storages that charge and discharge at once would host "
            f"{pct * design.relaxed_mw:.1f} % in place of {pct * pv_mw:.1f} %, by destroying energy"
        )
    if design.excess.max() > EXCESS:
        notes.append(
            f"the search ended after {design.rounds} rounds with an excess of "
            f"{design.excess.max():.1e}"
        )
    if design.solvers != ("PIQP",):
        notes.append(f"solved by {' and '.join(design.solvers)}: PIQP did not end in all rounds")
    return tuple(notes)


def _no_design(model: HostingModel) -> HostingResult:
    shape = 1, len(model.hours), len(model.sites)
    return HostingResult(
        names=("own day",),
        hc_kw=np.array([np.nan]),
        binding=(Binding("no design", "", np.nan),),
        site_kw=np.zeros((1, len(model.sites))),
        site_kva=np.zeros(shape, dtype=np.complex128),
        notes=("no design keeps the limits on all days, not even without PV; or none was found",),
    )
