"""Curves of SunSpec 705, 706 and 712: the first is in force and read-only, others are adopted.

A client writes curve 2 or 3, then its number to AdptCrvReq, then reads AdptCrvRslt: completed (1)
or failed (2). A curve fails when it has fewer than 2 or more than NPt points, when x does not
ascend, or when y is out of range; what is in force then stays.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field

from hil.emulators.sunspec_image import SunSpecImage

COMPLETED, FAILED = 1, 2


@dataclass
class CurveModel:
    """One curve model of one device.

    Attributes
    ----------
    x, y : Names of a point's coordinates.
    extra : What a curve has besides its points.
    low, high : Range of y, %.
    end_s : Device time at which the curve reverts; inf while no timer runs.
    """

    model: int
    x: str
    y: str
    extra: tuple[str, ...]
    low: float = -100.0
    high: float = 100.0
    end_s: float = field(default=math.inf, init=False)

    def points(self, image: SunSpecImage, curve: int) -> tuple[list[float], list[float]]:
        """Return x and y of the active points of a curve; nan where not implemented."""
        m = self.model
        count = image.get(m, f"Crv[{curve}].ActPt")
        if not 0 <= count <= image.get(m, "NPt"):
            return [], []
        names = [f"Crv[{curve}].Pt[{i}]." for i in range(1, int(count) + 1)]
        return [image.get(m, n + self.x) for n in names], [image.get(m, n + self.y) for n in names]

    def put(
        self, image: SunSpecImage, curve: int, x: list[float], y: list[float], **extra: float
    ) -> None:
        """Set a curve, as the maker of the device does."""
        m, name = self.model, f"Crv[{curve}]."
        total = int(image.get(m, "NPt"))
        image.put(m, name + "ActPt", len(x))
        for i in range(total):
            # Unused points repeat the last one, so that they are implemented and can be written.
            image.put(m, f"{name}Pt[{i + 1}].{self.x}", x[min(i, len(x) - 1)])
            image.put(m, f"{name}Pt[{i + 1}].{self.y}", y[min(i, len(y) - 1)])
        for key, value in extra.items():
            image.put(m, name + key, value)
        image.put(m, name + "ReadOnly", 1 if curve == 1 else 0)

    def usable(self, image: SunSpecImage, curve: int) -> bool:
        """Tell whether a curve can be adopted."""
        if not 1 <= curve <= image.get(self.model, "NCrv"):
            return False
        x, y = self.points(image, curve)
        ascends = all(a < b for a, b in itertools.pairwise(x))
        return len(x) >= 2 and ascends and all(self.low <= v <= self.high for v in y)

    def adopt(self, image: SunSpecImage, curve: int, time_s: float) -> bool:
        """Put a curve in force, if it is usable, and say so in AdptCrvRslt."""
        fine = self.usable(image, curve)
        if fine and curve != 1:
            x, y = self.points(image, curve)
            kept = {k: image.get(self.model, f"Crv[{curve}].{k}") for k in self.extra}
            self.put(image, 1, x, y, **kept)
        image.put(self.model, "AdptCrvRslt", COMPLETED if fine else FAILED)
        if fine:
            self.start(image, time_s)
        return fine

    def start(self, image: SunSpecImage, time_s: float) -> None:
        """Start the reversion timer, where there is one."""
        seconds = image.get(self.model, "RvrtTms")
        self.end_s = time_s + seconds if seconds > 0 else math.inf
        self.show(image, time_s)

    def revert(self, image: SunSpecImage, time_s: float) -> None:
        """Adopt the curve of reversion; number 0 switches the function off instead."""
        curve = int(image.get(self.model, "RvrtCrv"))
        image.put(self.model, "RvrtTms", 0)
        self.end_s = math.inf
        if curve == 0 or not self.adopt(image, curve, time_s):
            image.put(self.model, "Ena", 0)
        self.show(image, time_s)

    def show(self, image: SunSpecImage, time_s: float) -> None:
        """Put the time left into its register."""
        left = self.end_s - time_s
        image.put(self.model, "RvrtRem", math.ceil(left - 1e-9) if math.isfinite(left) else 0)


def curve_models() -> list[CurveModel]:
    """Return the curve models of the emulator."""
    return [
        CurveModel(705, "V", "Var", ("DeptRef", "Pri", "VRef", "VRefAutoEna", "VRefAutoTms",
                                     "RspTms")),
        CurveModel(706, "V", "W", ("DeptRef", "RspTms")),
        CurveModel(712, "W", "Var", ("DeptRef", "Pri")),
    ]  # fmt: skip
