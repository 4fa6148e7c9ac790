"""A signal by the clock: an order at a given minute, a price, a recorded set-point."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, field_validator

from federates.core.context import FederateContext
from federates.core.federate import Federate, FloatArray, Mail, Port, Step
from federates.scenario.kinds import GridUserSection
from grid_models.base.sections import Section

Row = Annotated[list[float], Field(min_length=2, max_length=2)]


class SignalOptions(Section):
    """The port of a signal federate and its values."""

    port: str = Field(description="Name of the output port.")
    unit: str = Field(description="Its unit.")
    values: Annotated[list[Row], Field(min_length=1)] = Field(
        description="[[time_s, value], ...]: simulation time from which each value holds, rising; "
        "before the first time the first value holds."
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
        return values


class SignalSection(GridUserSection):
    """Values by the clock, the same for all labels of one port."""

    kind: Literal["signal"]
    options: SignalOptions


class SignalFederate(Federate):
    """Gives one value to all its labels, changing at given times."""

    Section = SignalSection

    def __init__(self, context: FederateContext) -> None:
        super().__init__(context)
        assert isinstance(context.section, SignalSection)
        options = context.section.options
        labels = options.labels or context.ders(options.ders, "options", "ders")
        self._times_s, self._values = np.array(options.values, dtype=np.float64).T.copy()
        self.outputs = (Port(options.port, options.unit, tuple(labels)),)

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> Step:
        """Return the value that holds."""
        port = self.outputs[0]
        at = max(0, int(np.searchsorted(self._times_s, time_s, side="right")) - 1)
        return Step({port.name: np.full(len(port.labels), self._values[at])})
