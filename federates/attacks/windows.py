"""When steps can act at all: values come when producers step, and a window may miss them all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from federates.attacks.targets import Chosen
from federates.attacks.view import FederationView, every
from federates.clock import Timing, to_ns, to_s
from federates.scenario.attack_schedule import Schedule, elapsed_in
from federates.scenario.attack_schema import AttackSpec, Replay, SignalStep, Window

Samples = Mapping[int, tuple[Timing, ...]]
"""By step: when the values come that it acts on."""


def samples_of(
    federation: FederationView,
    chosen: Chosen,
    links: Mapping[str, Any],
    physical: Mapping[str, Any],
    modbus: Mapping[str, Any],
) -> Samples:
    """Return when the values come that each step acts on.

    Parameters
    ----------
    federation : FederationView
    chosen : Chosen
        Signals: elements of inputs by step.
    links : mapping of federate to LinkAttackPlan or None
        Mail comes when its sender steps.
    physical : mapping of federate to PhysicalPlan
        The grid is acted on when it steps.
    modbus : mapping of federate to ModbusPlan
        Frames are acted on in the steps of the device federate.
    """
    found: dict[int, dict[Timing, None]] = {}
    for (i, conceal), keys in chosen.items():
        if conceal is None:
            found.setdefault(i, {}).update(dict.fromkeys(map(federation.timing_of, keys)))
    sender = {link.key: f.timing for f in federation.by_name.values() for link in f.links_out}
    for link_plan in links.values():
        for step in link_plan.steps if link_plan is not None else ():
            timings = (sender[key] for key in step.links if key in sender)
            found.setdefault(step.step, {}).update(dict.fromkeys(timings))
    for name, plan in (*physical.items(), *modbus.items()):
        for i in plan.touched():
            found.setdefault(i, {})[federation.by_name[name].timing] = None
    return {i: tuple(timings) for i, timings in found.items()}


def acts(timings: Iterable[Timing], begin_s: float, length_s: float, horizon_ns: int) -> bool:
    """Return whether a value comes in a window, by the run's own clock, before the run ends."""
    if begin_s >= to_s(horizon_ns):
        return False
    for timing in timings:
        k = max(0, (to_ns(begin_s) - timing.offset_ns) // timing.period_ns)
        # A nanosecond early is in time, so it may be this one or the next.
        for time_ns in (timing.offset_ns + n * timing.period_ns for n in (k, k + 1)):
            if time_ns < horizon_ns and not math.isnan(
                elapsed_in(to_s(time_ns) - begin_s, length_s)
            ):
                return True
    return False


def window_problems(
    spec: AttackSpec,
    schedule: Schedule,
    federation: FederationView,
    chosen: Chosen,
    samples: Samples,
) -> list[str]:
    """Say which steps can never act, and which windows of the past hold nothing.

    Parameters
    ----------
    spec : AttackSpec
    schedule : Schedule
    federation : FederationView
    chosen : Chosen
    samples : Samples

    Returns
    -------
    list of str
        Each with file, line and key.
    """
    problems = []
    horizon_ns = federation.horizon_ns
    earliest = earliest_begins(spec, schedule)
    for i, begin_s in enumerate(earliest):
        where = spec.where("steps", i, "trigger")
        directed = i in schedule.directed
        timings, span_s = samples.get(i, ()), schedule.span_s(i)
        if begin_s >= to_s(horizon_ns):
            soonest = " at the earliest" if directed else ""
            problems.append(
                f"{where}: begins at {begin_s:g} s{soonest}, the run ends at {to_s(horizon_ns):g} s"
                "; expected an earlier time"
            )
        elif timings and not directed and not acts(timings, begin_s, span_s, horizon_ns):
            problems.append(
                f"{where}: there is nothing to act on from {begin_s:.10g} to "
                f"{begin_s + span_s:.10g} s: values come {' or '.join(map(every, timings))}; "
                "expected a window that holds such a time"
            )
    for (i, conceal), keys in chosen.items():
        window, key = _window(spec, i, conceal)
        if window is None:
            continue
        where = spec.where("steps", i, *key)
        if window.to_s > to_s(horizon_ns):
            problems.append(
                f"{where}: the window ends at {window.to_s:g} s, the run at "
                f"{to_s(horizon_ns):g} s; expected a window of the past"
            )
        for timing in dict.fromkeys(map(federation.timing_of, keys)):
            if not acts([timing], window.from_s, window.to_s - window.from_s, horizon_ns):
                problems.append(
                    f"{where}: nothing is recorded from {window.from_s:.10g} to "
                    f"{window.to_s:.10g} s: values come {every(timing)}; expected a window that "
                    "holds such a time"
                )
                break
    return problems


def _window(
    spec: AttackSpec, i: int, conceal: int | None
) -> tuple[Window | None, tuple[str | int, ...]]:
    """Return the window of the past that a step, or its concealment, plays; and its key."""
    step = spec.steps[i]
    if conceal is not None:
        return step.conceal[conceal].show.window, ("conceal", conceal, "show", "window")
    if isinstance(step, SignalStep) and isinstance(step.action, Replay):
        return step.action.window, ("action", "window")
    return None, ()


def earliest_begins(spec: AttackSpec, schedule: Schedule) -> tuple[float, ...]:
    """Return when each step begins, or at the earliest where that is decided during the run."""
    position = {step.id: i for i, step in enumerate(spec.steps)}

    def begin_s(i: int) -> float:
        trigger = spec.steps[i].trigger
        if not math.isnan(schedule.begin_s[i]):
            return schedule.begin_s[i]
        if trigger.after is not None:
            earlier = position[trigger.after]
            return begin_s(earlier) + schedule.length_s[earlier] + trigger.delay_s
        return (trigger.when.for_s if trigger.when is not None else 0.0) + trigger.delay_s

    return tuple(begin_s(i) for i in range(len(spec.steps)))


def unrecorded(spec: AttackSpec, i: int, begin_s: float) -> Window | None:
    """Return a window that a step plays and that is not over when the step begins."""
    conceals = [None, *range(len(spec.steps[i].conceal))]
    windows = [window for n in conceals if (window := _window(spec, i, n)[0]) is not None]
    return next((w for w in windows if w.to_s > begin_s), None)
