"""When to stop writing and let the device's own timer make it safe.

A device that takes a write and then reads back something else is broken, or somebody on the wire
changes what we write. Writing again does not help, and it starts the device's reversion timer anew,
so that what nobody asked for stays for ever. Left alone, the timer ends it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from hil.devices.points import PointSpec

_WRONG_LIMIT = 3
_MARGIN_S = 1.0


@dataclass
class SelfReversion:
    """Which points of a device are left to its own timers, and for how long."""

    points: Mapping[str, PointSpec]
    _wrong: dict[str, int] = field(default_factory=dict)
    _until_s: dict[str, float] = field(default_factory=dict)

    def leaves_alone(self, point: str, now_s: float) -> bool:
        """Return True while a point should only be looked at."""
        return now_s < self._until_s.get(point, -math.inf)

    def note(self, point: str, *, wrong: bool, now_s: float) -> None:
        """Note whether the device read back something else than it was sent."""
        reversion = self.points[point].reversion
        if reversion is None:
            return
        self._wrong[point] = self._wrong.get(point, 0) + 1 if wrong else 0
        if self._wrong[point] >= _WRONG_LIMIT:
            self._until_s[point] = now_s + reversion.seconds + _MARGIN_S

    def clear(self) -> None:
        """Forget everything: the device is safe."""
        self._wrong.clear()
        self._until_s.clear()
