"""The methods of a hosting study by name, with the options that the scenario gives them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from federates.errors import ScenarioError
from federates.hosting.case import HostingCase
from federates.scenario.hosting_section import HostingSection
from grid_models.base.errors import nearest_name
from grid_models.base.options import parse_options
from grid_models.current_injection.model import ComplexArray, FloatArray
from grid_models.ders.rules import load_kw_by_node
from grid_models.hosting.result import HostingResult

if TYPE_CHECKING:
    from grid_models.hosting.devices import DeviceOptions
    from grid_models.hosting.ray import RayOptions

KEYS_ELSEWHERE = {
    "seed": "--seed, or the scenario's seed",
    "placements": "--placements",
    "scenarios": "--placements",
    "unit_min_kw": "hosting.unit_kw",
    "unit_max_kw": "hosting.unit_kw",
    "power_factor": "hosting.power_factor",
}
"""Options of methods that have a key or a word of the command of their own, for all methods."""
PENETRATIONS = {"battery": 5.0, "vehicle": 13.5, "heat_pump": 5.7}
"""Slides of paper 003: 147 kW of batteries, 396 kW of chargers, 168 kW of heat pumps; 2930 kVA. The
stochastic method has twice as much, as there."""
DYNAMIC_PLACEMENTS = 12
T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """What a method found, and what a replay of it needs.

    Attributes
    ----------
    load_kva : complex (K, T, n_loads). Demand of each design, in place of the case's.
    tolerance : Excess over a limit up to which the method accepts a plan.
    fresh : Injections and demand of design k on a day that it was not made for; None: the days are
        certain.
    assumptions : Noise, devices and options of the method.
    """

    result: HostingResult
    assumptions: Mapping[str, Any]
    load_kva: ComplexArray | None = None
    tolerance: float = 1e-6
    fresh: Callable[[int], tuple[ComplexArray, ComplexArray]] | None = None


Solve = Callable[[HostingCase, int | None], Answer]


def check_method(method: str, placements: int | None) -> None:
    """Refuse a method that there is not, and a number of placements that is none.

    Raises ScenarioError
    """
    if not isinstance(method, str) or method not in METHODS:
        raise ScenarioError(
            f"there is no method '{method}'",
            where="method",
            expected=f"one of {', '.join(METHODS)}",
            nearest=nearest_name(str(method), METHODS),
        )
    if placements is not None and (not isinstance(placements, int | np.integer) or placements < 1):
        raise ScenarioError(
            f"found {placements!r}", where="placements", expected="a whole number of 1 or more"
        )


def solve(method: str, case: HostingCase, placements: int | None) -> Answer:
    """Search with a method.

    Raises FeederateError: An option of the method cannot be used.
    """
    for name, kind in hosting_options().items():  # also those of other methods, to find errors
        parse_options(kind, getattr(case.section, name) or {}, case.scenario.where("hosting", name))
    answer = METHODS[method](case, placements)
    notes = *_unused(method, case.section, placements), *answer.result.notes
    return replace(answer, result=replace(answer.result, notes=notes))


def _unused(method: str, section: HostingSection, placements: int | None) -> tuple[str, ...]:
    """Return notes on what is given and not used by a method."""
    notes = [
        f"hosting.{key} is not used by the method {method}, only by {user}"
        for key, user in (("noise", "static"), ("sensitivity", "dynamic"))
        if getattr(section, key) is not None and method != user
    ]
    if placements is not None and method == "alone":
        notes.append("placements are not used by the method alone, which tries every site")
    return tuple(notes)


def hosting_options() -> dict[str, type]:
    """Return the options of each section of ``hosting`` that is a table of them."""
    from grid_models.hosting.alone import AloneOptions
    from grid_models.hosting.devices import DeviceOptions
    from grid_models.hosting.monte_carlo import NoiseOptions
    from grid_models.hosting.ray import RayOptions
    from grid_models.hosting.scenarios import DayNoise
    from grid_models.hosting.static import StaticOptions
    from grid_models.hosting.stochastic import StochasticOptions

    return {
        "static": StaticOptions,
        "noise": NoiseOptions,
        "alone": AloneOptions,
        "dynamic": RayOptions,
        "stochastic": StochasticOptions,
        "days": DayNoise,
        "devices": DeviceOptions,
    }


def _options(case: HostingCase, kind: type[T], name: str, others: Mapping[str, Any]) -> T:
    """Return options of a method: those of its section, and those that have keys of their own."""
    given = getattr(case.section, name)
    where = case.scenario.where("hosting", name)
    for key in others:
        if key in given:
            raise ScenarioError(
                f"'{key}' is no key of it", where=where, expected=KEYS_ELSEWHERE[key]
            )
    return parse_options(kind, {**given, **others}, where)


def _said(options: Any) -> dict[str, Any]:
    """Return the options that have no key of their own."""
    return {k: v for k, v in asdict(options).items() if k not in KEYS_ELSEWHERE}


def _units(case: HostingCase) -> dict[str, Any]:
    """Return the options of placements that have keys of their own."""
    section, (low, high) = case.section, case.section.unit_kw
    options = {"unit_min_kw": low, "unit_max_kw": high, "power_factor": section.power_factor}
    return options | {"seed": case.scenario.seed}


def _static(case: HostingCase, placements: int | None) -> Answer:
    from grid_models.hosting.monte_carlo import NoiseOptions, monte_carlo_capacity, sampled_days
    from grid_models.hosting.search import power_per_kw
    from grid_models.hosting.static import StaticOptions, static_capacity

    count = {} if placements is None else {"placements": placements}
    options = _options(case, StaticOptions, "static", {**_units(case), **count})
    if case.section.noise is None:
        return Answer(static_capacity(case.model, options), {"noise": None, **_said(options)})
    noise = _options(case, NoiseOptions, "noise", {})
    _, load_kva = sampled_days(case.model, options, noise)
    found = monte_carlo_capacity(case.model, options, noise)
    pv_pu, other_kva = sampled_days(case.model, replace(options, seed=options.seed + 1), noise)
    per_kw = power_per_kw(options.power_factor)

    def fresh(k: int) -> tuple[ComplexArray, ComplexArray]:
        return np.asarray(per_kw * found.site_kw[k] * pv_pu[k]), other_kva[k]

    return Answer(found, {"noise": asdict(noise), **_said(options)}, load_kva, fresh=fresh)


def _alone(case: HostingCase, placements: int | None) -> Answer:
    from grid_models.hosting.alone import AloneOptions, alone_capacity

    others = {"power_factor": case.section.power_factor}
    options = _options(case, AloneOptions, "alone", others)
    return Answer(alone_capacity(case.model, options), {"noise": None, **_said(options)})


def _dynamic(case: HostingCase, placements: int | None) -> Answer:
    """Coordinate devices for random patterns of PV, and show each lever for the first of them."""
    from grid_models.hosting.devices import DeviceOptions
    from grid_models.hosting.dynamic import decomposed, dynamic
    from grid_models.hosting.placements import Placements
    from grid_models.hosting.ray import RayOptions

    _refuse_gaps(case, "dynamic")
    model, section, seed = case.model, case.section, case.scenario.seed
    devices = _options(case, DeviceOptions, "devices", {"power_factor": section.power_factor})
    options = _options(case, RayOptions, "dynamic", {})
    low, high = section.unit_kw
    n, units = placements or DYNAMIC_PLACEMENTS, math.ceil(model.base_kva / low)
    drawn = Placements.random(n, len(model.sites), units, (low, high), seed)
    patterns = drawn.site_kw(drawn.units_within(model.base_kva))
    sizes = {
        kind: _load_share(case) * model.base_kva * percent / 100.0
        for kind, percent in penetrations(section).items()
    }
    found = dynamic(model, patterns, sizes, devices, options, seed=seed)
    levers = decomposed(model, patterns[:1], sizes, devices, options, seed=seed)
    kw = [float(lever.hc_kw[0]) for lever in levers.values()]
    pct = [100.0 * value / model.base_kva for value in kw]
    tables = {**found.tables, "levers": {"levers": list(levers), "hc_kw": kw, "hc_pct": pct}}
    notes = found.notes
    if section.sensitivity is not None:
        tables["sensitivity"], note = _sensitivity(case, patterns[0], sizes, devices, options)
        notes += (note,)
    found = replace(found, tables=tables, notes=notes)
    said = {"noise": None, "penetration_pct": penetrations(section), "devices": _said(devices)}
    return Answer(found, said | _said(options), tolerance=1.1 * options.excess)


def _sensitivity(
    case: HostingCase,
    pattern: FloatArray,
    sizes: Mapping[str, FloatArray],
    devices: DeviceOptions,
    options: RayOptions,
) -> tuple[dict[str, Any], str]:
    """Return the first pattern's capacity over two penetrations as a table, and it in words."""
    from grid_models.hosting.sensitivity import sensitivity

    model, grid = case.model, case.section.sensitivity or {}
    per_pct = model.base_kva / 100.0
    size_kw: dict[str, FloatArray] = {k: per_pct * np.sort(pct) for k, pct in grid.items()}
    others = {kind: kw for kind, kw in sizes.items() if kind not in grid}
    share, seed = _load_share(case), case.scenario.seed
    found = sensitivity(model, pattern, size_kw, share, devices, options, others, seed)
    a, b = found.kinds
    x, y = (kw.ravel() for kw in np.meshgrid(*found.size_kw, indexing="ij"))
    hc_kw, (by_a, by_b) = found.hc_kw.ravel(), found.by_dual
    table = {
        f"{a}_pct": x / per_pct,
        f"{b}_pct": y / per_pct,
        "hc_kw": hc_kw,
        "hc_pct": hc_kw / per_pct,
        f"kw_per_kw_{a}": by_a.ravel(),
        f"kw_per_kw_{b}": by_b.ravel(),
    }
    i, j = found.middle
    checks = ", ".join(
        f"{of[i, j]:.3f} kW of PV per kW of {kind} ({check:.3f} by full solutions)"
        for kind, of, check in zip((a, b), found.by_dual, found.by_solution, strict=True)
    )
    middle = f"{found.size_kw[0][i] / per_pct:g} % {a} and {found.size_kw[1][j] / per_pct:g} % {b}"
    what = "complements" if found.cross_kw > 0.0 else "substitutes"
    note = (
        f"sensitivity at {middle}: {checks}; cross difference of {a} and {b} "
        f"{found.cross_kw / per_pct:+.2f} points of the peak in kVA, {what}"
    )
    return table, note


def _stochastic(case: HostingCase, placements: int | None) -> Answer:
    """Site and size for many days at once; a design is tried on days that it was not made for."""
    from grid_models.hosting.devices import DeviceOptions
    from grid_models.hosting.ray import EXCESS
    from grid_models.hosting.scenarios import DayNoise
    from grid_models.hosting.stochastic import StochasticOptions, stochastic_capacity

    _refuse_gaps(case, "stochastic")
    section, model = case.section, case.model
    devices = _options(case, DeviceOptions, "devices", {"power_factor": section.power_factor})
    count = {} if placements is None else {"scenarios": placements}
    own = {"seed": case.scenario.seed, **count}
    options = _options(case, StochasticOptions, "stochastic", own)
    noise = _options(case, DayNoise, "days", {})
    pct = penetrations(section, factor=2.0)
    total_kw = {kind: model.base_kva * percent / 100.0 for kind, percent in pct.items()}
    price = np.asarray(case.day.columns["price_per_kwh"])
    nominal_kw = case.day.site.grid.load_scale * _load_kw(case)
    result, load_kva = stochastic_capacity(
        model, nominal_kw, total_kw, price, devices, options, noise
    )
    said = {"noise": asdict(noise), "penetration_pct": pct, "devices": _said(devices)}
    return Answer(result, said | _said(options), load_kva, tolerance=1.1 * EXCESS)


def _load_kw(case: HostingCase) -> FloatArray:
    """Return the nominal load at each site, (S,)."""
    by_node = load_kw_by_node(case.day.circuit.feeder)
    sites = case.whole.sites
    return np.array([sum(by_node.get(x.bus, {}).get(p, 0.0) for p in x.phases) for x in sites])


def _load_share(case: HostingCase) -> FloatArray:
    """Return the part of the nominal load that is at each site, (S,); equal parts where none is."""
    kw = _load_kw(case)
    kw = kw if kw.any() else np.ones(len(kw))
    return np.asarray(kw / kw.sum())


def penetrations(section: HostingSection, factor: float = 1.0) -> dict[str, float]:
    """Return the power of devices by kind, in percent of the peak of the loads in kVA.

    `factor`: On what is not given.
    """
    given = {kind: getattr(section, f"{kind}_pct") for kind in PENETRATIONS}
    return {k: factor * PENETRATIONS[k] if pct is None else pct for k, pct in given.items()}


def _refuse_gaps(case: HostingCase, method: str) -> None:
    """Refuse hours that are left out, where a plan goes through all of them.

    Raises ScenarioError
    """
    if not case.kept.all():
        left = ", ".join(f"{h:g}" for h in case.whole.hours[~case.kept])
        raise ScenarioError(
            f"the base case passes a limit at {left} h at the taps of the search",
            where=case.scenario.where("grid", "regulators"),
            expected=f"for the method {method}, regulators: fixed and taps that suit all hours",
        )


METHODS: Mapping[str, Solve] = {
    "static": _static,
    "alone": _alone,
    "dynamic": _dynamic,
    "stochastic": _stochastic,
}
