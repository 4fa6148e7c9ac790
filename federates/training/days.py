"""Days of a scenario as arrays, under other seeds and changes of the grid."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from controllers.core.mail import FloatArray
from controllers.learned_droop.gradient import Cases
from federates.core.sites import GridSite
from federates.errors import ScenarioError
from federates.kinds.feeder.day import GridDay
from federates.scenario.schema import Scenario
from grid_models.current_injection.model import ComplexArray

LOAD_FACTOR, DIVERSITY, SOURCE_PU = (0.5, 1.35), 0.25, (0.987, 1.0065)
"""Of randomised cases: range of a factor on all loads, log-normal spread of each load, and range of
a factor on the source's voltage."""


@dataclass(frozen=True)
class Day:
    """The steps of a run: demand (T, n_loads), injections (T, n_ders), factor of the source."""

    load_kva: ComplexArray
    der_kva: ComplexArray
    source_pu: float = 1.0

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self.load_kva)


def altered(scenario: Scenario, seed: int, **grid: Any) -> Scenario:
    """Return the scenario with another seed and changed keys of its plant's grid."""
    copy = scenario.model_copy(deep=True, update={"seed": seed})
    for name, value in grid.items():
        setattr(GridSite(copy).grid, name, value)
    return copy


def grid_day(scenario: Scenario) -> GridDay:
    """Return the circuit and day of the scenario's plant.

    Raises ScenarioError: There are several plants, or the regulators act.
    """
    if len(scenario.plants) != 1:
        raise ScenarioError(
            f"the scenario has {len(scenario.plants)} plants",
            where=scenario.where("federates"),
            expected="one federate of kind feeder, to train a policy for it",
        )
    found = GridDay(scenario)
    if found.site.regulators != "fixed":
        raise ScenarioError(
            "the regulators act, and a policy is trained at fixed taps",
            where=found.site.where("regulators"),
            expected="regulators: fixed",
        )
    return found


def day_of(scenario: Scenario, day: GridDay | None = None) -> Day:
    """Return a scenario's day; `day`: where it has been built."""
    found = grid_day(scenario) if day is None else day
    return Day(found.load_kva, found.der_kva(scenario.time.step_s))


def with_own_clouds(day: Day, others: list[Day], ders: tuple[int, ...], seed: int) -> Day:
    """Return the day with each of the DERs under the sun of one of several days, drawn by seed."""
    rng = np.random.default_rng(seed)
    der_kva = day.der_kva.copy()
    of = rng.integers(len(others), size=len(ders))
    for column, which in zip(ders, of.tolist(), strict=True):
        der_kva[:, column] = others[which].der_kva[:, column]
    return replace(day, der_kva=der_kva)


def training_cases(days: list[Day], count: int, seed: int, *, randomised: bool) -> Cases:
    """Return instants of the days drawn at random; see `LOAD_FACTOR` for what is randomised."""
    rng = np.random.default_rng(seed)
    per_day = -(-count // len(days))
    rows = [(day, rng.choice(len(day), min(per_day, len(day)), replace=False)) for day in days]
    load_kva = np.concatenate([day.load_kva[at] for day, at in rows])
    der_kva = np.concatenate([day.der_kva[at] for day, at in rows])
    n = len(load_kva)
    source: FloatArray = np.array([day.source_pu for day, at in rows for _ in at])
    if randomised:
        factor = rng.uniform(*LOAD_FACTOR, (n, 1))
        spread = np.exp(DIVERSITY * rng.standard_normal(load_kva.shape) - 0.5 * DIVERSITY**2)
        load_kva = load_kva * factor * spread
        source = source * rng.uniform(*SOURCE_PU, n)
    return Cases(load_kva, der_kva, source)
