"""When the steps of an attack are active.

Steps that begin at a time, or after one that does, are known before the run. Steps that wait for a
signal are decided during the run by one federate, the director, whose decisions all others read.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from controllers.core.mail import FloatArray
from federates.scenario.attack_schema import AttackSpec, Step, When

LATE_S = 1e-9
"""Times are whole nanoseconds; half of one decides what is equal."""


@dataclass(frozen=True)
class AttackSchedule:
    """Begin and length of every step; plain data.

    Attributes
    ----------
    begin_s : NaN where the begin is decided during the run.
    length_s : inf where a step lasts to the end of the run.
    stays : Whether what the step did stays after its window (``on_end: leave``).
    directed : The steps whose begin the director decides, in its port's order.
    """

    ids: tuple[str, ...]
    begin_s: tuple[float, ...]
    length_s: tuple[float, ...]
    stays: tuple[bool, ...]
    directed: tuple[int, ...]

    @classmethod
    def of(cls, spec: AttackSpec) -> AttackSchedule:
        """Work out what is known before the run."""
        begins = begins_s(spec, lambda when: math.nan)
        return cls(
            tuple(step.id for step in spec.steps),
            begins,
            tuple(math.inf if s.duration_s is None else s.duration_s for s in spec.steps),
            tuple(step.on_end == "leave" for step in spec.steps),
            tuple(i for i, at in enumerate(begins) if math.isnan(at)),
        )

    def span_s(self, i: int) -> float:
        """Return for how long a step has an effect, what it leaves behind included."""
        return math.inf if self.stays[i] else self.length_s[i]

    def clock(self) -> StepClock:
        """Return a clock that says how long each step has been active."""
        return StepClock(self)


def begins_s(spec: AttackSpec, met_s: Callable[[When], float]) -> tuple[float, ...]:
    """Return the begin of every step; `met_s` gives the time at which a condition is met."""
    steps = {step.id: step for step in spec.steps}

    def begin_s(step: Step) -> float:
        trigger, at_s = step.trigger, step.trigger.at_s
        if trigger.after is not None:
            earlier = steps[trigger.after]
            length_s = math.inf if earlier.duration_s is None else earlier.duration_s
            at_s = begin_s(earlier) + length_s
        elif trigger.when is not None:
            at_s = met_s(trigger.when)
        return (at_s or 0.0) + trigger.delay_s

    return tuple(map(begin_s, spec.steps))


class StepClock:
    """Tells the time since the begin of each active step."""

    def __init__(self, schedule: AttackSchedule) -> None:
        self.schedule = schedule
        self._begin = list(schedule.begin_s)

    def set_begins(self, begins_s: FloatArray) -> None:
        """Set the begin of each directed step as the director decided, NaN: not begun yet."""
        for i, begin_s in zip(self.schedule.directed, begins_s.tolist(), strict=True):
            self._begin[i] = begin_s

    def elapsed(self, time_s: float) -> FloatArray:
        """Return the seconds since each step's begin, NaN outside its window; shape (n_steps,).

        A step that leaves its work behind stays active, with the time that it had at its end.
        """
        # A handful of steps: plain numbers take a tenth of the time of array operations.
        return np.array(
            [
                elapsed_in(time_s - begin, length, stays)
                for begin, length, stays in zip(
                    self._begin, self.schedule.length_s, self.schedule.stays, strict=True
                )
            ]
        )


def elapsed_in(since_s: float, length_s: float, stays: bool = False) -> float:
    """Return the time since a step's begin, NaN outside its window; see `StepClock.elapsed`."""
    if not since_s >= -LATE_S:  # before it, or never
        return math.nan
    if since_s < length_s - LATE_S:
        return max(since_s, 0.0)
    return length_s if stays else math.nan
