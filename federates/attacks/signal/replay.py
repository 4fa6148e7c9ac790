"""Values of the past, or of a file, in place of the true ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, PrivateAttr, model_validator

from controllers.core.mail import FloatArray
from federates.attacks.adaptive import AttackSite
from federates.attacks.signal.action import Sample, SignalAction, StepDraws
from federates.attacks.signal.trace_file import Trace
from federates.scenario.attack_actions import PastWindow
from federates.scenario.attack_schedule import LATE_S


class ReplayValues(SignalAction):
    """Plays a window of the past, or of a file, again and again.

    A file is a long table (CSV or Parquet) with the columns time_s (or time), port, label, value.
    """

    kind: Literal["replay"]
    window: PastWindow | None = Field(
        None, description="A window of the past of the same values, `{from_s, to_s}`."
    )
    file: str | None = Field(None, description="Path; relative means beside the attack file.")
    offset_s: float = Field(0.0, description="File: added to its times; 0 is the step's begin.")
    speed: Annotated[float, Field(gt=0)] = Field(1.0, description="File: its seconds per ours.")
    _times: list[float] = PrivateAttr()
    _rows: list[FloatArray] = PrivateAttr()
    _trace: Trace | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _one_source(self) -> ReplayValues:
        if (self.window is None) == (self.file is None):
            raise ValueError("exactly one of window, file")
        return self

    def describe(self, unit: str = "") -> str:
        if self.window is not None:
            source = f"the values of {self.window.from_s:g} to {self.window.to_s:g} s"
        else:
            rate = f" at {self.speed:g} times its speed" if self.speed != 1.0 else ""
            source = f"the trace {self.file}{rate}"
        return f"plays {source} in its place"

    def past_window(self) -> PastWindow | None:
        return self.window

    def locate(self, folder: Path) -> None:
        if self.file is not None:
            self.file = str(folder / self.file)

    @property
    def trace(self) -> Trace | None:
        """The file that it plays, once it is prepared."""
        return self._trace

    def prepare(self, site: AttackSite, draws: StepDraws) -> None:
        self._times, self._rows = [], []
        if self.file is not None:
            file = Path(self.file)
            self._trace = Trace(file, site.targets, self.offset_s, self.speed, site.aim)

    def observe(self, sample: Sample, true: FloatArray) -> None:
        window = self.window
        if window and window.from_s - LATE_S <= sample.time_s < window.to_s - LATE_S:
            self._times.append(sample.time_s)
            self._rows.append(true.copy())

    def apply(self, sample: Sample, true: FloatArray) -> FloatArray:
        elapsed_s = sample.elapsed_s or 0.0
        if self._trace is not None:
            return self._trace.play(elapsed_s, true)
        if self.window is None or not self._rows:
            return true
        at = self.window.from_s + elapsed_s % (self.window.to_s - self.window.from_s)
        k = int(np.searchsorted(self._times, at + LATE_S, side="right")) - 1
        return self._rows[max(k, 0)]
