"""The methods of a hosting study by name, with the options that the scenario gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from federates.errors import ScenarioError
from federates.hosting.case import HostingCase
from grid_models.base.errors import nearest_name
from grid_models.base.options import parse_options
from grid_models.hosting.result import HostingResult

KEYS_ELSEWHERE = {
    "seed": "--seed, or the scenario's seed",
    "placements": "--placements",
    "unit_min_kw": "hosting.unit_kw",
    "unit_max_kw": "hosting.unit_kw",
    "power_factor": "hosting.power_factor",
}
"""Options of methods that have a key or a word of the command of their own, for all methods."""
T = TypeVar("T")
Solve = Callable[[HostingCase, int | None], HostingResult]


def check_method(method: str, placements: int | None) -> None:
    """Refuse a method that there is not, and a number of placements that is none.

    Raises ScenarioError
    """
    if method not in METHODS:
        raise ScenarioError(
            f"there is no method '{method}'",
            where="method",
            expected=f"one of {', '.join(METHODS)}",
            nearest=nearest_name(method, METHODS),
        )
    if placements is not None and placements < 1:
        raise ScenarioError(f"found {placements}", where="placements", expected="1 or more")
    if placements is not None and method == "alone":
        raise ScenarioError(
            "are not used by the method alone, which tries every site", where="placements"
        )


def solve(method: str, case: HostingCase, placements: int | None) -> HostingResult:
    """Search with a method.

    Raises FeederateError: An option of the method cannot be used.
    """
    return METHODS[method](case, placements)


def hosting_options() -> dict[str, type]:
    """Return the options of each section of ``hosting`` that is a table of them."""
    from grid_models.hosting.alone import AloneOptions
    from grid_models.hosting.static import StaticOptions

    return {"static": StaticOptions, "alone": AloneOptions}


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


def _units(case: HostingCase) -> dict[str, Any]:
    """Return the options of placements that have keys of their own."""
    section, (low, high) = case.section, case.section.unit_kw
    options = {"unit_min_kw": low, "unit_max_kw": high, "power_factor": section.power_factor}
    return options | {"seed": case.scenario.seed}


def _static(case: HostingCase, placements: int | None) -> HostingResult:
    from grid_models.hosting.static import StaticOptions, static_capacity

    count = {} if placements is None else {"placements": placements}
    options = _options(case, StaticOptions, "static", {**_units(case), **count})
    return static_capacity(case.model, options)


def _alone(case: HostingCase, placements: int | None) -> HostingResult:
    from grid_models.hosting.alone import AloneOptions, alone_capacity

    others = {"power_factor": case.section.power_factor}
    return alone_capacity(case.model, _options(case, AloneOptions, "alone", others))


METHODS: Mapping[str, Solve] = {"static": _static, "alone": _alone}
