"""Two steps must not act on one thing at one time: what came of it would depend on their order."""

from __future__ import annotations

import math
from collections.abc import Mapping

from federates.scenario.attack_schedule import LATE_S, Schedule
from federates.scenario.attack_schema import AttackSpec


def overlap_problems(
    spec: AttackSpec, schedule: Schedule, touched: Mapping[int, Mapping[str, frozenset[str]]]
) -> list[str]:
    """Say which steps may be active together on one target.

    Parameters
    ----------
    spec : AttackSpec
    schedule : Schedule
    touched : mapping of step to (kind of thing to names)
        What each step acts on; names of one kind of thing that two steps share are a conflict.
    """
    problems = []
    order = sorted(touched)
    for n, i in enumerate(order):
        for j in order[n + 1 :]:
            shared = [
                name
                for kind, names in touched[i].items()
                for name in sorted(names & touched[j].get(kind, frozenset()))
            ]
            if shared and _together(spec, schedule, i, j):
                more = f" and {len(shared) - 1} more" if len(shared) > 1 else ""
                problems.append(
                    f"{spec.where('steps', j)}: '{spec.steps[j].id}' and '{spec.steps[i].id}' both "
                    f"act on {shared[0]}{more} {_when(schedule, i, j)}; expected windows that do "
                    "not overlap, or different targets"
                )
    return problems


def _together(spec: AttackSpec, schedule: Schedule, i: int, j: int) -> bool:
    begin, length = schedule.begin_s, _lasting(schedule)
    if not (math.isnan(begin[i]) or math.isnan(begin[j])):
        return begin[i] < begin[j] + length[j] - LATE_S and begin[j] < begin[i] + length[i] - LATE_S
    return not (_follows(spec, i, j) or _follows(spec, j, i))


def _lasting(schedule: Schedule) -> list[float]:
    return [math.inf if s else n for s, n in zip(schedule.stays, schedule.length_s, strict=True)]


def _follows(spec: AttackSpec, later: int, earlier: int) -> bool:
    """Return whether a step waits, directly or not, for the end of another that does not stay."""
    position = {step.id: n for n, step in enumerate(spec.steps)}
    at = later
    while spec.steps[at].trigger.after is not None:
        at = position[spec.steps[at].trigger.after or ""]
        if at == earlier:
            return spec.steps[earlier].on_end == "restore"
    return False


def _when(schedule: Schedule, i: int, j: int) -> str:
    begin = max(schedule.begin_s[i], schedule.begin_s[j])
    return "at times that may overlap" if math.isnan(begin) else f"at {begin:g} s"
