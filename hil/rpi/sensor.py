"""Temperature from a DS18B20 on the 1-wire bus, as the Linux kernel shows it in files.

``/sys/bus/w1/devices/28-*/w1_slave`` holds two lines: the raw bytes with ``crc=.. YES`` or ``NO``,
and the same with ``t=`` and thousandths of a degree. Reading takes up to 0.75 s.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Callable
from pathlib import Path

#: What the sensor can measure, and what it says before its first conversion (data sheet, table 1).
RANGE_C = (-55.0, 125.0)
POWER_ON_C = 85.0
DEFAULT_PATTERN = "/sys/bus/w1/devices/28-*/w1_slave"
_TEMPERATURE = re.compile(r"\bt=(-?\d+)\s*$")


def parse_w1_slave(text: str) -> float | None:
    """Return the temperature, deg C, in the text of a w1_slave file; None if it is not to be used.

    A bad checksum, a missing value, one that the sensor cannot measure, and the value it has before
    its first conversion are not used. That 85.0 degrees is refused too costs nothing in a room.
    """
    lines = text.strip().splitlines()
    if len(lines) != 2 or not lines[0].rstrip().endswith("YES"):
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


class FreshTemperature:
    """The last usable temperature, until it is `stale_s` old; `now` is a monotonic clock, s."""

    def __init__(self, now: Callable[[], float], stale_s: float) -> None:
        self._now, self.stale_s = now, stale_s
        # One tuple, because another thread takes readings.
        self._last: tuple[float | None, float] = (None, float("-inf"))

    def take(self, temp_c: float | None) -> None:
        """Take a reading; None is no reading."""
        if temp_c is not None:
            self._last = (temp_c, self._now())

    @property
    def temp_c(self) -> float | None:
        """The temperature, or None."""
        temp_c, at_s = self._last
        return temp_c if self._now() - at_s <= self.stale_s else None
