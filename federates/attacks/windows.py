"""When steps can act: values come when their producers step, and a window may contain none."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from federates.attacks.layer import AttackCase
from federates.attacks.signal.layer import Chosen
from federates.attacks.view import every
from federates.clock import Timing, to_ns, to_s
from federates.scenario.attack_actions import PastWindow
from federates.scenario.attack_files import past_windows
from federates.scenario.attack_schedule import begins_s, elapsed_in
from federates.scenario.attack_schema import AttackSpec

Samples = Mapping[int, tuple[Timing, ...]]
"""By step: when the values come that it acts on."""


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


def window_problems(case: AttackCase, chosen: Chosen, samples: Samples) -> list[str]:
    """Say which steps can never act, and which windows of the past hold nothing.

    Parameters
    ----------
    chosen : Elements of inputs by step and concealment.

    Returns
    -------
    list of str
        Each with file, line and key.
    """
    spec, schedule = case.spec, case.schedule
    problems = []
    horizon_ns = case.federation.horizon_ns
    # A step that waits for a signal can begin once its condition has held long enough.
    for i, begin_s in enumerate(begins_s(spec, lambda when: when.for_s)):
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
        for conceal, key, window in past_windows(spec.steps[i]):
            where, keys = spec.where("steps", i, *key), chosen.get((i, conceal), [])
            if window.to_s > to_s(horizon_ns):
                problems.append(
                    f"{where}: the window ends at {window.to_s:g} s, the run at "
                    f"{to_s(horizon_ns):g} s; expected a window of the past"
                )
            for timing in dict.fromkeys(map(case.federation.timing_of, keys)):
                if not acts([timing], window.from_s, window.to_s - window.from_s, horizon_ns):
                    problems.append(
                        f"{where}: nothing is recorded from {window.from_s:.10g} to "
                        f"{window.to_s:.10g} s: values come {every(timing)}; expected a window "
                        "that holds such a time"
                    )
                    break
    return problems


def unrecorded(spec: AttackSpec, i: int, begin_s: float) -> PastWindow | None:
    """Return a window that a step plays and that is not over when the step begins."""
    windows = (window for _, _, window in past_windows(spec.steps[i]))
    return next((w for w in windows if w.to_s > begin_s), None)
