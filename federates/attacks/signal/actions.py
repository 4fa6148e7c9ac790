"""The actions on signals that need no file and no attacker of their own."""

from __future__ import annotations

from collections import deque
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, PrivateAttr

from controllers.core.mail import FloatArray
from federates.attacks.adaptive import AttackSite
from federates.attacks.signal.action import Sample, SignalAction, StepDraws
from federates.attacks.wording import in_unit, span
from federates.scenario.attack_schedule import LATE_S
from grid_models.base.sections import Deviation, Period


class Bias(SignalAction):
    """Adds a constant."""

    kind: Literal["bias"]
    value: float = Field(description="What is added.")

    def describe(self, unit: str = "") -> str:
        return f"adds {self.value:g}{in_unit(unit)}"

    def apply(self, sample: Sample, true: FloatArray) -> FloatArray:
        return true + self.value if self.value else true  # a bias of 0 keeps the bits of -0.0


class Scale(SignalAction):
    """Multiplies."""

    kind: Literal["scale"]
    factor: float = Field(description="What is multiplied by.")

    def describe(self, unit: str = "") -> str:
        return f"multiplies by {self.factor:g}"

    def apply(self, sample: Sample, true: FloatArray) -> FloatArray:
        return true * self.factor


class SetValue(SignalAction):
    """Replaces by a constant."""

    kind: Literal["set"]
    value: float = Field(description="The value in place of the true one.")

    def describe(self, unit: str = "") -> str:
        return f"sets to {self.value:g}{in_unit(unit)}"

    def apply(self, sample: Sample, true: FloatArray) -> FloatArray:
        return np.full(true.size, self.value)


class Ramp(SignalAction):
    """Adds what grows with the time since the step began."""

    kind: Literal["ramp"]
    rate_per_s: float = Field(description="What is added per second.")
    limit: Annotated[float, Field(gt=0)] | None = Field(
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

    kind: Literal["noise"]
    sigma: Deviation = Field(description="Standard deviation.")
    _draws: StepDraws = PrivateAttr()

    def describe(self, unit: str = "") -> str:
        return f"adds normal noise of {self.sigma:g}{in_unit(unit)}"

    def prepare(self, site: AttackSite, draws: StepDraws) -> None:
        self._draws = draws

    def apply(self, sample: Sample, true: FloatArray) -> FloatArray:
        return true + self.sigma * self._draws.normal(sample.time_ns) if self.sigma else true


class Freeze(SignalAction):
    """Holds the last value before the step."""

    kind: Literal["freeze"]
    _held: FloatArray | None = PrivateAttr(None)

    def describe(self, unit: str = "") -> str:
        return "holds the last value before"

    def observe(self, sample: Sample, true: FloatArray) -> None:
        if sample.elapsed_s is None or self._held is None:
            self._held = true.copy()

    def apply(self, sample: Sample, true: FloatArray) -> FloatArray:
        return true if self._held is None else self._held


class DropValues(SignalAction):
    """The reader keeps what it last got."""

    kind: Literal["drop"]

    def describe(self, unit: str = "") -> str:
        return "drops; nothing new arrives"

    def apply(self, sample: Sample, true: FloatArray) -> FloatArray:
        return sample.last_seen


class DelayValues(SignalAction):
    """Delivers late; until there is a value of that age, the first ever seen."""

    kind: Literal["delay"]
    delay_s: Period = Field(description="By how much.")
    _kept: deque[tuple[float, FloatArray]] = PrivateAttr()

    def describe(self, unit: str = "") -> str:
        return f"delivers {span(self.delay_s)} late"

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
    kind: Literal["swap"]

    def describe(self, unit: str = "") -> str:
        return "exchanges values in pairs"

    def apply(self, sample: Sample, true: FloatArray) -> FloatArray:
        return true[::-1]
