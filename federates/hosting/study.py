"""A hosting study: a method's answer with its base case, assumptions, replay and tables."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from federates.core.federate import FloatArray
from federates.hosting.assumptions import assumptions, base_case, case_notes, limits_of
from federates.hosting.case import HostingCase, hosting_case
from federates.hosting.methods import Answer, check_method, solve
from federates.hosting.replay import Replay, replays
from federates.hosting.tables import Columns, study_tables
from federates.scenario.schema import Scenario
from grid_models.hosting.result import HostingResult

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class HostingStudy:
    """What `feederate hosting` found.

    Attributes
    ----------
    method : static, alone, dynamic or stochastic.
    answer : Of the method.
    replays : Designs solved again by OpenDSS: as searched, and in other ways.
    seconds : Wall time of each part: build, search, replay.
    """

    case: HostingCase
    method: str
    answer: Answer
    replays: tuple[Replay, ...]
    seconds: Mapping[str, float]

    @property
    def result(self) -> HostingResult:
        """Hosting capacity of each design."""
        return self.answer.result

    @property
    def notes(self) -> tuple[str, ...]:
        """What the reader of the figures must know."""
        return (*case_notes(self.case), *self.result.notes)

    @property
    def hc_pct(self) -> FloatArray:
        """Hosting capacity in percent of the coincident peak of the loads in kVA, (K,)."""
        return np.asarray(100.0 * self.result.hc_kw / self.case.whole.base_kva)

    @cached_property
    def columns(self) -> dict[str, Columns]:
        """The tables by name, as columns."""
        return study_tables(self.case, self.method, self.answer, self.replays)

    @cached_property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables by name; docs/hosting-capacity.md says what they hold."""
        import pandas as pd

        return {name: pd.DataFrame(columns) for name, columns in self.columns.items()}

    def summary(self) -> dict[str, Any]:
        """Return figures, limits and assumptions as plain data; None where there is no number."""
        result, case = self.result, self.case
        per_node = self.method == "alone"
        names = self.columns["nodes"]["node"] if per_node else None
        return {
            "scenario": case.scenario.name,
            "method": self.method,
            "designs": len(result.hc_kw),
            "infeasible": int(np.isnan(result.hc_kw).sum()),
            "seed": case.scenario.seed,
            "hc_kw": _statistics(result.hc_kw, names),
            "hc_pct": _statistics(self.hc_pct, names),
            "limiting": _records(self.columns["limiting"]),
            "limits": limits_of(case),
            "assumptions": {**assumptions(case), **self.answer.assumptions},
            "base_case": base_case(case),
            "replay": self.replays[0].summary(),
            "other_replays": [r.summary() for r in self.replays[1:]],
            "notes": list(self.notes),
            "seconds": round(sum(self.seconds.values()), 4),
            "seconds_by_part": dict(self.seconds),
        }


def hosting_study(
    scenario: Scenario, method: str = "static", *, placements: int | None = None
) -> HostingStudy:
    """Ask how much a scenario's feeder can host.

    Parameters
    ----------
    method : See `federates.hosting.methods.METHODS`.
    placements : Random designs of the static and the dynamic method. Default: the method's.

    Raises FeederateError: The method, a key of the section or the feeder cannot be used, or the
        base case passes a limit.
    """
    clock = [time.perf_counter()]
    check_method(method, placements)
    case = hosting_case(scenario)
    clock.append(time.perf_counter())
    answer = solve(method, case, placements)
    clock.append(time.perf_counter())
    found = replays(case, answer)
    clock.append(time.perf_counter())
    parts = dict(zip(("build", "search", "replay"), np.diff(clock).round(4).tolist(), strict=True))
    return HostingStudy(case, method, answer, found, parts)


def _statistics(values: FloatArray, names: Sequence[str] | None) -> dict[str, Any]:
    """Return mean, deviation and range of the designs that have a value, and each by node."""
    known = values[np.isfinite(values)]
    found: dict[str, Any] = {"n": len(known)}
    for name, of in (("mean", np.mean), ("min", np.min), ("median", np.median), ("max", np.max)):
        found[name] = float(of(known)) if len(known) else None
    found["sd"] = float(np.std(known, ddof=1)) if len(known) > 1 else None
    if names is not None:
        found["nodes"] = dict(zip(names, map(_plain, values.tolist()), strict=True))
    return found


def _records(columns: Columns) -> list[dict[str, Any]]:
    rows = zip(*columns.values(), strict=True)
    return [dict(zip(columns, map(_plain, row), strict=True)) for row in rows]


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
