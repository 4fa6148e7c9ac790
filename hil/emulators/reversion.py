"""ReversionTimer timers of SunSpec 704: what a command falls back to when nobody renews it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from hil.emulators.sunspec_image import SunSpecImage


@dataclass
class ReversionTimer:
    """One function of a model with its timer.

    Writing the enable point, a value or the time starts the timer anew while the function is
    enabled; at its end the function's enable point and values become those of reversion.

    Attributes
    ----------
    enable, enable_back : Points that switch the function, now and after reversion.
    seconds, left : Points of the timer: its length and what is left.
    values : (str, str); Points of the set-point and of its value after reversion.
    end_s : Device time at which it ends; inf while it does not run.
    """

    model: int
    enable: str
    enable_back: str
    seconds: str
    left: str
    values: Sequence[tuple[str, str]]
    end_s: float = field(default=math.inf, init=False)

    @property
    def triggers(self) -> set[tuple[int, str]]:
        """Points whose writing starts the timer."""
        names = {self.enable, self.seconds, *(now for now, _ in self.values)}
        return {(self.model, name) for name in names}

    def start(self, image: SunSpecImage, time_s: float) -> None:
        """Start anew, or stop where the function is off or has no time."""
        seconds = image.get(self.model, self.seconds)
        runs = image.get(self.model, self.enable) == 1 and seconds > 0
        self.end_s = time_s + seconds if runs else math.inf
        self.show(image, time_s)

    def revert(self, image: SunSpecImage, time_s: float) -> None:
        """Fall back now."""
        for now, back in self.values:
            image.put(self.model, now, image.get(self.model, back))
        image.put(self.model, self.enable, image.get(self.model, self.enable_back))
        self.end_s = math.inf
        self.show(image, time_s)

    def show(self, image: SunSpecImage, time_s: float) -> None:
        """Put the time left into its register."""
        left = self.end_s - time_s
        image.put(self.model, self.left, math.ceil(left - 1e-9) if math.isfinite(left) else 0)


def controls_704() -> list[ReversionTimer]:
    """Return the functions of model 704 that the emulator has."""
    return [
        ReversionTimer(
            704, "WMaxLimPctEna", "WMaxLimPctEnaRvrt", "WMaxLimPctRvrtTms", "WMaxLimPctRvrtRem",
            [("WMaxLimPct", "WMaxLimPctRvrt")],
        ),
        ReversionTimer(
            704, "WSetEna", "WSetEnaRvrt", "WSetRvrtTms", "WSetRvrtRem",
            [("WSet", "WSetRvrt"), ("WSetPct", "WSetPctRvrt")],
        ),
        ReversionTimer(
            704, "VarSetEna", "VarSetEnaRvrt", "VarSetRvrtTms", "VarSetRvrtRem",
            [("VarSet", "VarSetRvrt"), ("VarSetPct", "VarSetPctRvrt")],
        ),
        ReversionTimer(
            704, "PFWInjEna", "PFWInjEnaRvrt", "PFWInjRvrtTms", "PFWInjRvrtRem",
            [("PFWInj.PF", "PFWInjRvrt.PF"), ("PFWInj.Ext", "PFWInjRvrt.Ext")],
        ),
    ]  # fmt: skip
