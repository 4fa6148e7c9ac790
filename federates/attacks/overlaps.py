"""Two steps must not act on one thing at one time: the result would depend on their order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from federates.scenario.attack_schedule import LATE_S, AttackSchedule
from federates.scenario.attack_schema import AttackSpec


def overlap_problems(
    spec: AttackSpec, schedule: AttackSchedule, layers: Sequence[Mapping[int, set[str]]]
) -> list[str]:
    """Say which steps may be active at one time on one target.

    Parameters
    ----------
    layers : By layer, the names of what each step acts on; steps that share one are in conflict.
    """
    problems = []
    order = sorted({i for acts_on in layers for i in acts_on})
    for n, i in enumerate(order):
        for j in order[n + 1 :]:
            shared = [
                name
                for acts_on in layers
                for name in sorted(acts_on.get(i, set()) & acts_on.get(j, set()))
            ]
            if shared and _may_overlap(spec, schedule, i, j):
                more = f" and {len(shared) - 1} more" if len(shared) > 1 else ""
                problems.append(
                    f"{spec.where('steps', j)}: '{spec.steps[j].id}' and '{spec.steps[i].id}' both "
                    f"act on {shared[0]}{more} {_when(schedule, i, j)}; expected windows that do "
                    "not overlap, or different targets"
                )
    return problems


def _may_overlap(spec: AttackSpec, schedule: AttackSchedule, i: int, j: int) -> bool:
    begin_s = schedule.begin_s
    if math.isnan(begin_s[i]) or math.isnan(begin_s[j]):
        return not (_follows(spec, i, j) or _follows(spec, j, i))
    end_i, end_j = (begin_s[k] + schedule.span_s(k) for k in (i, j))
    return begin_s[i] < end_j - LATE_S and begin_s[j] < end_i - LATE_S


def _follows(spec: AttackSpec, later: int, earlier: int) -> bool:
    """Return whether a step waits, directly or not, for the end of another that does not stay."""
    position = {step.id: n for n, step in enumerate(spec.steps)}
    at = later
    while spec.steps[at].trigger.after is not None:
        at = position[spec.steps[at].trigger.after or ""]
        if at == earlier:
            return spec.steps[earlier].on_end == "restore"
    return False


def _when(schedule: AttackSchedule, i: int, j: int) -> str:
    begin = max(schedule.begin_s[i], schedule.begin_s[j])
    return "at times that may overlap" if math.isnan(begin) else f"at {begin:g} s"
