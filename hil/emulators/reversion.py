"""Timers and curves of an emulated inverter: reversion of SunSpec 704, adoption of 705 to 712.

The first curve is in force and read-only. A client writes curve 2 or 3, then its number to
AdptCrvReq (711: AdptCtlReq), then reads the result: completed (1) or failed (2). A curve fails when
it has fewer than 2 or more than NPt points, when x does not ascend, or when y is out of range; what
is in force then stays.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from hil.emulators.sunspec_image import SunSpecImage

COMPLETED, FAILED = 1, 2


def _whole_s(left_s: float) -> int:
    """Return the time left in whole seconds, rounded up; 0 while no timer runs."""
    return math.ceil(left_s - 1e-9) if math.isfinite(left_s) else 0


@dataclass
class CurveModel:
    """One curve model of one device.

    Attributes
    ----------
    x, y : Names of a point's coordinates.
    extra : What a curve has besides its points.
    inner : Group of a curve that holds the points; '' where the curve itself does.
    stored, head, request, result : Names of the count, of one curve, and of adoption.
    y_range : Lowest and highest y that is adopted.
    reverts : Whether the model has a reversion timer.
    end_s : Device time at which the curve reverts; inf while no timer runs.
    """

    model: int
    x: str
    y: str
    extra: tuple[str, ...] = ()
    inner: str = ""
    stored: str = "NCrv"
    head: str = "Crv"
    request: str = "AdptCrvReq"
    result: str = "AdptCrvRslt"
    y_range: tuple[float, float] = (-100.0, 100.0)
    reverts: bool = True
    end_s: float = field(default=math.inf, init=False)

    def points(self, image: SunSpecImage, curve: int) -> tuple[list[float], list[float]]:
        """Return x and y of the active points of a curve; nan where not implemented."""
        m, name = self.model, f"{self.head}[{curve}].{self.inner}"
        count = image.get(m, name + "ActPt")
        if not 0 <= count <= image.get(m, "NPt"):
            return [], []
        names = [f"{name}Pt[{i}]." for i in range(1, int(count) + 1)]
        return [image.get(m, n + self.x) for n in names], [image.get(m, n + self.y) for n in names]

    def put(
        self, image: SunSpecImage, curve: int, x: list[float], y: list[float], **extra: float
    ) -> None:
        """Set a curve, as the maker of the device does."""
        m, name = self.model, f"{self.head}[{curve}]."
        if self.x:
            self._put_points(image, name + self.inner, x, y)
        for key, value in extra.items():
            image.put(m, name + key, value)
        image.put(m, name + "ReadOnly", 1 if curve == 1 else 0)

    def _put_points(self, image: SunSpecImage, name: str, x: list[float], y: list[float]) -> None:
        m = self.model
        image.put(m, name + "ActPt", len(x))
        for i in range(int(image.get(m, "NPt"))):
            # Unused points repeat the last one, so that they are implemented and can be written.
            image.put(m, f"{name}Pt[{i + 1}].{self.x}", x[min(i, len(x) - 1)])
            image.put(m, f"{name}Pt[{i + 1}].{self.y}", y[min(i, len(y) - 1)])

    def usable(self, image: SunSpecImage, curve: int) -> bool:
        """Tell whether a curve can be adopted."""
        if not 1 <= curve <= image.get(self.model, self.stored):
            return False
        if not self.x:
            return True
        x, y = self.points(image, curve)
        low, high = self.y_range
        ascends = all(a < b for a, b in itertools.pairwise(x))
        return len(x) >= 2 and ascends and all(low <= v <= high for v in y)

    def adopt(self, image: SunSpecImage, curve: int, time_s: float) -> bool:
        """Put a curve in force, if it is usable, and say so in AdptCrvRslt."""
        fine = self.usable(image, curve)
        if fine and curve != 1:
            x, y = self.points(image, curve) if self.x else ([], [])
            kept = {k: image.get(self.model, f"{self.head}[{curve}].{k}") for k in self.extra}
            self.put(image, 1, x, y, **kept)
        image.put(self.model, self.result, COMPLETED if fine else FAILED)
        if fine:
            self.start(image, time_s)
        return fine

    def start(self, image: SunSpecImage, time_s: float) -> None:
        """Start the reversion timer, where there is one."""
        if not self.reverts:
            return
        seconds = image.get(self.model, "RvrtTms")
        self.end_s = time_s + seconds if seconds > 0 else math.inf
        self.show(image, time_s)

    def revert(self, image: SunSpecImage, time_s: float) -> None:
        """Adopt the curve of reversion; number 0 switches the function off instead."""
        curve = int(image.get(self.model, f"Rvrt{self.head}"))
        image.put(self.model, "RvrtTms", 0)
        self.end_s = math.inf
        if curve == 0 or not self.adopt(image, curve, time_s):
            image.put(self.model, "Ena", 0)
        self.show(image, time_s)

    def show(self, image: SunSpecImage, time_s: float) -> None:
        """Put the time left into its register."""
        if self.reverts:
            image.put(self.model, "RvrtRem", _whole_s(self.end_s - time_s))


#: Longest clearing time that is adopted, s (table 18).
_LONGEST_TRIP_S = 1000.0


def curve_models() -> list[CurveModel]:
    """Return the curve models of the emulator: 705, 706, 712, then 707 to 710, then 711."""
    trips = [
        CurveModel(model, x, "Tms", inner="MustTrip.", stored="NCrvSet", reverts=False,
                   y_range=(0.0, _LONGEST_TRIP_S))
        for model, x in ((707, "V"), (708, "V"), (709, "Hz"), (710, "Hz"))
    ]  # fmt: skip
    return [
        CurveModel(705, "V", "Var", ("DeptRef", "Pri", "VRef", "VRefAutoEna", "VRefAutoTms",
                                     "RspTms")),
        CurveModel(706, "V", "W", ("DeptRef", "RspTms")),
        CurveModel(712, "W", "Var", ("DeptRef", "Pri")),
        *trips,
        CurveModel(711, "", "", ("DbOf", "DbUf", "KOf", "KUf", "RspTms"), stored="NCtl",
                   head="Ctl", request="AdptCtlReq", result="AdptCtlRslt"),
    ]  # fmt: skip


@dataclass
class ReversionTimer:
    """One function of model 704 with its timer.

    Writing the enable point, a value or the time starts the timer anew while the function is
    enabled; at its end the function's enable point and values become those of reversion.

    Attributes
    ----------
    name : Stem of the points that enable the function, set its timer and show the time left.
    values : Points of the set-point.
    end_s : Device time at which it ends; inf while it does not run.
    """

    name: str
    values: Sequence[str]
    end_s: float = field(default=math.inf, init=False)

    @property
    def triggers(self) -> set[tuple[int, str]]:
        """Points whose writing starts the timer."""
        return {(704, n) for n in (self.name + "Ena", self.name + "RvrtTms", *self.values)}

    def start(self, image: SunSpecImage, time_s: float) -> None:
        """Start anew, or stop where the function is off or has no time."""
        seconds = image.get(704, self.name + "RvrtTms")
        runs = image.get(704, self.name + "Ena") == 1 and seconds > 0
        self.end_s = time_s + seconds if runs else math.inf
        self.show(image, time_s)

    def revert(self, image: SunSpecImage, time_s: float) -> None:
        """Fall back now."""
        for name in self.values:
            group, dot, rest = name.partition(".")  # PFWInj.PF falls back to PFWInjRvrt.PF
            image.put(704, name, image.get(704, f"{group}Rvrt{dot}{rest}"))
        image.put(704, self.name + "Ena", image.get(704, self.name + "EnaRvrt"))
        self.end_s = math.inf
        self.show(image, time_s)

    def show(self, image: SunSpecImage, time_s: float) -> None:
        """Put the time left into its register."""
        image.put(704, self.name + "RvrtRem", _whole_s(self.end_s - time_s))


def controls_704() -> list[ReversionTimer]:
    """Return the functions of model 704 that the emulator has."""
    return [
        ReversionTimer("WMaxLimPct", ("WMaxLimPct",)),
        ReversionTimer("WSet", ("WSet", "WSetPct")),
        ReversionTimer("VarSet", ("VarSet", "VarSetPct")),
        ReversionTimer("PFWInj", ("PFWInj.PF", "PFWInj.Ext")),
    ]
