"""Temperature from a DS18B20 on the 1-wire bus, as the Linux kernel shows it in files.

``/sys/bus/w1/devices/28-*/w1_slave`` holds two lines: the raw bytes with ``crc=.. YES`` or ``NO``,
and the same with ``t=`` and thousandths of a degree. Reading takes up to 0.75 s.
"""

from __future__ import annotations

import glob
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

#: What the sensor can measure, and what it says before its first conversion (data sheet, table 1).
RANGE_C = (-55.0, 125.0)
POWER_ON_C = 85.0
DEFAULT_PATTERN = "/sys/bus/w1/devices/28-*/w1_slave"
NO_READING_YET = "no reading yet"
_TEMPERATURE = re.compile(r"\bt=(-?\d+)\s*$")


def parse_w1_slave(text: str) -> float | None:
    """Return the temperature, deg C, in the text of a w1_slave file; None if it is not to be used.

    A bad checksum, a missing value, one that the sensor cannot measure, and the value it has before
    its first conversion are not used. That 85.0 degrees is refused too costs nothing in a room.
    A bus that is held low reads nine zeros: their checksum is right, and they say 0.0 degrees.
    """
    lines = text.strip().splitlines()
    if len(lines) != 2 or not lines[0].rstrip().endswith("YES"):
        return None
    if not lines[0].partition(":")[0].replace("0", "").strip():
        return None
    match = _TEMPERATURE.search(lines[1])
    if match is None:
        return None
    temp_c = int(match[1]) / 1000.0
    usable = RANGE_C[0] <= temp_c <= RANGE_C[1] and temp_c != POWER_ON_C
    return temp_c if usable else None


class W1Sensor:
    """The first sensor whose file matches `pattern`, which may hold ``*``."""

    def __init__(self, pattern: str = DEFAULT_PATTERN) -> None:
        self.pattern = pattern

    def read_c(self) -> float | None:
        """Return the temperature, or None where there is no usable one."""
        try:
            path = Path(sorted(glob.glob(self.pattern))[0])
            return parse_w1_slave(path.read_text(encoding="ascii", errors="replace"))
        except (OSError, IndexError):
            return None


@dataclass(frozen=True)
class SensorLimits:
    """What is believed of a room sensor.

    Parameters
    ----------
    low_c, high_c : A room outside this range is not believed.
    jump_k, rate_k_s : float
        Largest change between two readings, and how much it grows per second between them.
    settle_s : How long readings must follow each other without a jump until one is believed again.
    stuck_s : float
        How long a value may stay the same while the unit runs. A live DS18B20 (0.0625 K) moves.
    stale_s : Age of the last reading beyond which nothing is known.
    """

    low_c: float = -10.0
    high_c: float = 50.0
    jump_k: float = 2.0
    rate_k_s: float = 0.05
    settle_s: float = 600.0
    stuck_s: float = 3600.0
    stale_s: float = 30.0


class RoomTemperature:
    """The temperature that control may rely on: fresh and believable, or None and why not.

    One thread takes the readings, another one asks.

    Parameters
    ----------
    now : Monotonic clock, s.

    Attributes
    ----------
    running : Whether the unit heats or cools, so that the temperature should move.
    """

    def __init__(self, now: Callable[[], float], limits: SensorLimits | None = None) -> None:
        self._now, self.limits = now, limits or SensorLimits()
        self.running = False
        # One tuple, because another thread reads it: reading, when it came, why it is bad.
        self._last: tuple[float, float, str] = (math.nan, now(), NO_READING_YET)
        self._doubted_until_s = -math.inf
        self._unchanged_s = 0.0  # while the unit ran

    def take(self, temp_c: float | None) -> None:
        """Take a reading; None is no reading."""
        if temp_c is not None:
            now_s = self._now()
            self._last = temp_c, now_s, self._fault(temp_c, now_s)

    def _fault(self, temp_c: float, now_s: float) -> str:
        """Return why a reading is not believed; '' where it is."""
        limits, (before_c, before_s, _) = self.limits, self._last
        if not limits.low_c <= temp_c <= limits.high_c:
            self._doubted_until_s = now_s + limits.settle_s
            return f"{temp_c:g} degC is no room ({limits.low_c:g} to {limits.high_c:g})"
        if temp_c != before_c:
            self._unchanged_s = 0.0
        elif self.running:
            self._unchanged_s += now_s - before_s
        if abs(temp_c - before_c) > limits.jump_k + limits.rate_k_s * (now_s - before_s):
            self._doubted_until_s = now_s + limits.settle_s
        if now_s < self._doubted_until_s:
            return f"it jumped; believed again after {limits.settle_s:g} s without a jump"
        if self._unchanged_s > limits.stuck_s:
            return f"stuck at {temp_c:g} degC for {limits.stuck_s:g} s while the unit ran"
        return ""

    @property
    def fault(self) -> str:
        """Why there is no temperature; '' where there is one."""
        _, at_s, fault = self._last
        if self._now() - at_s > self.limits.stale_s:
            return f"no usable reading for {self.limits.stale_s:g} s"
        return fault

    @property
    def temp_c(self) -> float | None:
        """The temperature, or None."""
        return None if self.fault else self._last[0]
