"""A signal by the clock: an order at a given minute, a price, a recorded set-point."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, field_validator

from federates.core.context import FederateContext
from federates.core.federate import Federate, FloatArray, Mail, Port, Step
from federates.scenario.kinds import GridUserSection
from grid_models.base.sections import Section

Row = Annotated[list[float], Field(min_length=2)]


class Sine(Section):
    """A sinusoid about the values."""

    relative_amplitude: float = Field(description="Its amplitude over the value.")
    period_s: float = Field(gt=0.0, description="Length of one cycle.")
    begin_s: float = Field(0.0, description="Where it begins, with phase 0.")
    end_s: float | None = Field(None, description="Where it ends; default: with the run.")

    def factor(self, time_s: float) -> float:
        """Return what the values are multiplied by."""
        if time_s < self.begin_s or (self.end_s is not None and time_s >= self.end_s):
            return 1.0
        cycles = (time_s - self.begin_s) / self.period_s
        return 1.0 + self.relative_amplitude * math.sin(math.tau * cycles)


class SignalOptions(Section):
    """The port of a signal federate and its values."""

    port: str = Field(description="Name of the output port.")
    unit: str = Field(description="Its unit.")
    values: Annotated[list[Row], Field(min_length=1)] = Field(
        description="[[time_s, value], ...]: simulation time from which each value holds, rising; "
        "before the first time the first value holds. [time_s, value, value, ...]: one for each "
        "label."
    )
    sine: Sine | None = Field(
        None,
        description="A sinusoid about the values: {relative_amplitude, period_s, begin_s, end_s}.",
    )
    ders: list[str] = Field(
        ["*"], description="Names or globs of the DERs that are the port's labels."
    )
    labels: list[str] | None = Field(None, description="Labels of the port, in place of DERs.")

    @field_validator("values")
    @classmethod
    def _rising(cls, values: list[Row]) -> list[Row]:
        if any(b[0] <= a[0] for a, b in pairwise(values)):
            raise ValueError("rising times")
        if len({len(row) for row in values}) > 1:
            raise ValueError("rows of equal length")
        return values


class SignalSection(GridUserSection):
    """Values by the clock, for the labels of one port."""

    kind: Literal["signal"]
    options: SignalOptions


class SignalFederate(Federate):
    """Gives values to its labels, one for all or one each, changing at given times."""

    Section = SignalSection

    def __init__(self, context: FederateContext) -> None:
        super().__init__(context)
        assert isinstance(context.section, SignalSection)
        options = context.section.options
        labels = options.labels or context.ders(options.ders, "options", "ders")
        rows = np.array(options.values, dtype=np.float64)
        self._times_s, self._values, self._sine = rows[:, 0].copy(), rows[:, 1:], options.sine
        if self._values.shape[1] not in (1, len(labels)):
            raise context.error(
                f"a row has {self._values.shape[1]} values, the port {len(labels)} labels",
                "options",
                "values",
                expected="one value for all labels, or one for each",
            )
        self.outputs = (Port(options.port, options.unit, tuple(labels)),)

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> Step:
        """Return the values that hold."""
        port = self.outputs[0]
        at = max(0, int(np.searchsorted(self._times_s, time_s, side="right")) - 1)
        values = self._values[at] * (1.0 if self._sine is None else self._sine.factor(time_s))
        return Step({port.name: np.broadcast_to(values, len(port.labels)).copy()})
