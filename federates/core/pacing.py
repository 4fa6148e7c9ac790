"""Real-time pacing: one federate waits for the wall clock, and the others follow it through HELICS.

Deadlines are absolute: step k belongs to ``origin + (t_k - t_0) / factor`` on the monotonic clock,
so that waiting errors do not add up. The real-time flag of HELICS is not used: it paces every
federate separately, and they drift apart.

A step that comes after its deadline is an overrun. What then happens is the scenario's choice:

| overrun | the step | the schedule |
| --- | --- | --- |
| skip | begins at once | whole periods that were missed are given up; the run ends later |
| catch_up | begins at once | stays; steps follow each other without a wait until it is met again |
| abort | does not begin | the run fails |
"""

from __future__ import annotations

import threading
import time
from typing import Literal

import numpy as np

from federates.clock import NS_PER_S, Timing
from federates.errors import ScenarioError

Overrun = Literal["skip", "catch_up", "abort"]


class Pacer:
    """Delays one federate's steps until their wall-clock deadlines.

    Parameters
    ----------
    timing : Timing
        Of the federate that is paced.
    factor : Simulated seconds per second of the wall clock.
    """

    def __init__(self, timing: Timing, factor: float, overrun: Overrun) -> None:
        self.factor = factor
        self.overrun = overrun
        self.overruns = 0
        self.skipped = 0
        self._period_ns = timing.period_ns / factor
        self._first_ns: int | None = None
        self._origin_ns = 0.0
        self._held_ns = 0
        self._lateness_ns: list[int] = []

    def wait(self, now_ns: int, stop: threading.Event, held_ns: int = 0) -> int:
        """Return at the deadline of the step at `now_ns`, or at once when `stop` is set.

        `held_ns` is how long the run has been paused so far: the schedule moves by it. Returned is
        how late the step is, in ns.

        Raises ScenarioError: The deadline has passed and the policy is ``abort``.
        """
        self._origin_ns += held_ns - self._held_ns
        self._held_ns = held_ns
        if self._first_ns is None:
            self._first_ns = now_ns
            self._origin_ns = float(time.monotonic_ns())
            self._lateness_ns.append(0)  # the schedule begins with it
            return 0
        deadline_ns = self._origin_ns + (now_ns - self._first_ns) / self.factor
        left_ns = deadline_ns - time.monotonic_ns()
        if left_ns < 0.0:
            self._late(now_ns, -left_ns)
        while left_ns > 0.0 and not stop.wait(left_ns / NS_PER_S):
            left_ns = deadline_ns - time.monotonic_ns()
        if not stop.is_set():
            self._lateness_ns.append(round(time.monotonic_ns() - deadline_ns))
        return self._lateness_ns[-1]

    def _late(self, now_ns: int, late_ns: float) -> None:
        self.overruns += 1
        if self.overrun == "abort":
            raise ScenarioError(
                f"the step at {now_ns / NS_PER_S:g} s came {late_ns / NS_PER_S:.3g} s after its "
                f"deadline, and time.real_time.overrun is 'abort'",
                expected="a smaller time.real_time.factor, a longer time.step_s, or another policy",
            )
        if self.overrun == "skip":
            missed = int(late_ns // self._period_ns)
            self.skipped += missed
            self._origin_ns += missed * self._period_ns

    def summary(self) -> dict[str, float | str]:
        """Return the lateness of all steps for ``summary.json``."""
        late_ms = np.asarray(self._lateness_ns, dtype=np.float64) / 1e6
        if not late_ms.size:
            late_ms = np.zeros(1)
        p50, p99 = np.percentile(late_ms, (50, 99))
        return {
            "factor": self.factor,
            "overrun": self.overrun,
            "steps": len(self._lateness_ns),
            "overruns": self.overruns,
            "skipped_periods": self.skipped,
            "lateness_p50_ms": round(float(p50), 3),
            "lateness_p99_ms": round(float(p99), 3),
            "lateness_max_ms": round(float(late_ms.max()), 3),
        }
