"""The actions on signals that need no file and no attacker of their own."""

from __future__ import annotations

from collections import deque
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, PrivateAttr

from controllers.core.mail import FloatArray
from federates.attacks.adaptive import AttackSite
from federates.attacks.signal.action import Sample, SignalAction, StepDraws
from federates.scenario.attack_schedule import LATE_S
from federates.scenario.attack_wording import in_unit
from grid_models.base.sections import Amount, Deviation, Period


class Bias(SignalAction):
    """Adds a constant."""

    words = "adds {value:g}{unit}"
    kind: Literal["bias"]
    value: Amount = Field(description="What is added.")

    def apply(self, sample: Sample, true: FloatArray) -> FloatArray:
        return true + self.value if self.value else true  # a bias of 0 keeps the bits of -0.0


class Scale(SignalAction):
    """Multiplies."""

    words = "multiplies by {factor:g}"
    kind: Literal["scale"]
    factor: Amount = Field(description="What is multiplied by.")

    def apply(self, sample: Sample, true: FloatArray) -> FloatArray:
        return true * self.factor


class SetValue(SignalAction):
    """Replaces by a constant."""

    words = "sets to {value:g}{unit}"
    kind: Literal["set"]
    value: Amount = Field(description="The value in place of the true one.")

    def apply(self, sample: Sample, true: FloatArray) -> FloatArray:
        return np.full(true.size, self.value)


class Ramp(SignalAction):
    """Adds what grows with the time since the step began."""

    kind: Literal["ramp"]
    rate_per_s: Amount = Field(description="What is added per second.")
    limit: Annotated[float, Field(gt=0, le=1e9)] | None = Field(
        None, description="Largest size of what is added."
    )

    def describe(self, unit: str = "") -> str:
        u = in_unit(unit)
        most = "" if self.limit is None else f", at most {self.limit:g}{u}"
        return f"adds {self.rate_per_s:g}{u} per second{most}"

    def apply(self, sample: Sample, true: FloatArray) -> FloatArray:
        added = self.rate_per_s * (sample.elapsed_s or 0.0)
        if self.limit is not None:
            added = float(np.clip(added, -self.limit, self.limit))
        return true + added if added else true


class Noise(SignalAction):
    """Adds normal noise."""

    words = "adds normal noise of {sigma:g}{unit}"
    kind: Literal["noise"]
    sigma: Deviation = Field(description="Standard deviation.")
    _draws: StepDraws = PrivateAttr()

    def prepare(self, site: AttackSite, draws: StepDraws) -> None:
        self._draws = draws

    def apply(self, sample: Sample, true: FloatArray) -> FloatArray:
        return true + self.sigma * self._draws.normal(sample.time_ns) if self.sigma else true


class Freeze(SignalAction):
    """Holds the last value before the step."""

    words = "holds the last value before"
    kind: Literal["freeze"]
    _held: FloatArray | None = PrivateAttr(None)

    def observe(self, sample: Sample, true: FloatArray) -> None:
        if sample.elapsed_s is None or self._held is None:
            self._held = true.copy()

    def apply(self, sample: Sample, true: FloatArray) -> FloatArray:
        return true if self._held is None else self._held


class DropValues(SignalAction):
    """The reader keeps what it last got."""

    words = "drops; nothing new arrives"
    kind: Literal["drop"]

    def apply(self, sample: Sample, true: FloatArray) -> FloatArray:
        return sample.last_seen


class DelayValues(SignalAction):
    """Delivers late; until there is a value of that age, the first ever seen."""

    words = "delivers {delay} late"
    kind: Literal["delay"]
    delay_s: Period = Field(description="By how much.")
    _kept: deque[tuple[float, FloatArray]] = PrivateAttr()

    def prepare(self, site: AttackSite, draws: StepDraws) -> None:
        self._kept = deque()

    def observe(self, sample: Sample, true: FloatArray) -> None:
        kept = self._kept
        kept.append((sample.time_s, true.copy()))
        while len(kept) > 1 and kept[1][0] <= sample.time_s - self.delay_s + LATE_S:
            kept.popleft()

    def apply(self, sample: Sample, true: FloatArray) -> FloatArray:
        return self._kept[0][1]


class Swap(SignalAction):
    """Exchanges values in pairs: the first target with the last, and so on; sums stay."""

    needs_all_targets = True
    words = "exchanges values in pairs"
    kind: Literal["swap"]

    def apply(self, sample: Sample, true: FloatArray) -> FloatArray:
        return true[::-1]
