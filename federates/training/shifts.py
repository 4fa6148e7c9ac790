"""The shift table: controllers on a held-out day that is unlike those of the training.

No control, the droop of IEEE 1547-2018 (category B), the tuned droop and the learned policy; 05:00
to 19:00 where the run covers it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from controllers.core.protocol import ControlSite
from federates.scenario.schema import Scenario
from federates.training.closed_loop import Row, simulate
from federates.training.days import Day, altered, day_of, grid_day, with_own_clouds
from grid_models.batched.power_flow import BatchedFeeder

DIVERSITY, LIGHT = 0.3, 0.5
HOURS = 5.0, 19.0


@dataclass(frozen=True)
class ShiftRow:
    """Metrics of a run under a shift, by controller."""

    shift: str
    metrics: Mapping[str, Mapping[str, float]]

    def record(self) -> dict[str, Any]:
        """Return the row as JSON."""
        return {"shift": self.shift, **{name: dict(m) for name, m in self.metrics.items()}}


def shift_rows(
    scenario: Scenario,
    seed: int,
    site: ControlSite,
    other_days: list[Day],
    more: Mapping[str, tuple[str, dict[str, Any]]],
    report: Callable[[int, int], None] | None = None,
) -> list[ShiftRow]:
    """Simulate the shifts of the day `seed`.

    Parameters
    ----------
    other_days : Whose sun the DERs have under clouds of their own.
    more : Further controllers and their options, by the name of their column.
    """
    laws: dict[str, tuple[str, dict[str, Any]]] = {
        "none": ("none", {}),
        "droop 1547 B": ("volt-var-1547", {"category": "B"}),
        **more,
    }
    grid = grid_day(altered(scenario, seed))
    base = day_of(scenario, grid)
    diverse = day_of(altered(scenario, seed, load_diversity=DIVERSITY))
    names = grid.feeder.der_names
    commanded = tuple(names.index(der.name) for der in site.ders)
    same_taps = {
        "base": base,
        f"load diversity {DIVERSITY:g}": diverse,
        f"load x{LIGHT:g}": replace(base, load_kva=LIGHT * base.load_kva),
        "independent clouds": with_own_clouds(base, other_days, commanded, seed),
    }
    shift, taps = _raised(scenario)
    raised = altered(scenario, seed, taps=taps)
    by_feeder: list[tuple[BatchedFeeder, dict[str, Day]]] = [(grid.feeder, same_taps)]
    if taps is None:
        same_taps[shift] = replace(base, source_pu=1.00625)
    else:
        by_feeder.append((grid_day(raised).feeder, {shift: base}))
    steps = steps_between(scenario, *HOURS)
    found = []
    for feeder, days in by_feeder:
        rows = [Row(day, *law) for day in days.values() for law in laws.values()]
        metrics = iter(simulate(feeder, site, rows, steps, report))
        found += [ShiftRow(name, {law: next(metrics) for law in laws}) for name in days]
    return found


def _raised(scenario: Scenario) -> tuple[str, dict[str, int] | None]:
    """Return the shift of a regulator one step up and the grid's taps with it."""
    grid = grid_day(scenario).site
    units = grid.feeder.regulators
    given = dict(grid.grid.taps)
    name = next(iter(given), units[0].name if units else None)
    if name is None:
        return "source +0.6 %", None
    tap = next(unit.tap_step for unit in units if unit.name == name) + 1
    return f"{name} tap {tap}", {**given, name: tap}


def steps_between(scenario: Scenario, from_h: float, to_h: float) -> range:
    """Return the first day's steps between two times of day; all where the run has none there."""
    hours = (scenario.time.start_s + np.arange(scenario.n_steps) * scenario.time.step_s) / 3600.0
    inside = np.flatnonzero((hours >= from_h) & (hours < to_h))
    return range(inside[0], inside[-1] + 1) if inside.size else range(len(hours))
