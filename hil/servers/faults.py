"""Faults on request, for tests of what stands in front of a device.

``MODE[:VALUE][@START[+LENGTH]]``, for instance ``late:0.8@60+30``: answers 0.8 s late from second
60 on, for half a minute. Times count from the start of the server.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from grid_models.base.errors import nearest_name
from hil.devices.errors import ServerError
from hil.modbus.pdu import READ_TABLES, READ_WRITE, Table, is_bits, read_reply
from hil.servers.pdu import Bank


class FaultMode(StrEnum):
    """What goes wrong. VALUE means: late, seconds; drift, share of the reading per second."""

    none = "none"
    silent = "silent"
    late = "late"
    wrong_count = "wrong_count"
    wrong_echo = "wrong_echo"
    reset = "reset"
    drift = "drift"
    stuck = "stuck"


DEFAULT_VALUE = {FaultMode.late: 1.0, FaultMode.drift: 0.01}


@dataclass
class Faults:
    """The fault of one server, and when it is there.

    Attributes
    ----------
    value : Seconds of lateness, or share of a measurement per second of drift.
    start_s, length_s : Window, s since the object was made.
    now : Clock of the window and of drift, s; the plant's own where a simulation rules its time.
    """

    mode: FaultMode = FaultMode.none
    value: float = 0.0
    start_s: float = 0.0
    length_s: float = float("inf")
    now: Callable[[], float] = time.monotonic
    _zero_s: float = field(init=False)

    def __post_init__(self) -> None:
        self._zero_s = self.now()

    @classmethod
    def parse(cls, text: str, now: Callable[[], float] = time.monotonic) -> Faults:
        """Return the fault that `text` describes.

        Raises ServerError: The text is not ``MODE[:VALUE][@START[+LENGTH]]``.
        """
        faults = cls(now=now)
        faults.set(text)
        return faults

    def set(self, text: str) -> None:
        """Change to the fault that `text` describes; its window counts from now."""
        head, _, window = text.partition("@")
        name, _, value = head.partition(":")
        name = name.strip().replace("-", "_")
        start, _, length = window.partition("+")
        if name not in FaultMode.__members__:
            raise ServerError(
                f"'{name}' is not a fault mode",
                where="fault",
                expected=", ".join(FaultMode),
                nearest=nearest_name(name, FaultMode.__members__),
            )
        mode = FaultMode(name)
        numbers = [_seconds(t, text) for t in (value, start, length)]
        self.mode = mode
        self.value = DEFAULT_VALUE.get(mode, 0.0) if numbers[0] is None else numbers[0]
        self.start_s = numbers[1] or 0.0
        self.length_s = float("inf") if numbers[2] is None else numbers[2]
        self._zero_s = self.now()

    @property
    def active(self) -> FaultMode:
        """The mode that holds now, or `FaultMode.none`."""
        return self.mode if 0.0 <= self.elapsed_s < self.length_s else FaultMode.none

    @property
    def elapsed_s(self) -> float:
        """Seconds since the window opened; negative before."""
        return self.now() - self._zero_s - self.start_s

    @property
    def reading_factor(self) -> float:
        """What a drifting sensor multiplies its reading by, now."""
        return 1.0 + self.value * self.elapsed_s if self.active is FaultMode.drift else 1.0


def _seconds(text: str, whole: str) -> float | None:
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not 0.0 <= number < float("inf"):
        raise ServerError(
            f"'{whole}' is not a fault",
            where="fault",
            expected="MODE[:VALUE][@START[+LENGTH]] with numbers >= 0, like late:0.8@60+30",
        )
    return number


def distort(mode: FaultMode, response: bytes) -> bytes:
    """Return a response with the wrong count or the wrong echo, where it is of that kind."""
    function = response[0]
    if mode is FaultMode.wrong_count and (function in READ_TABLES or function == READ_WRITE):
        cut = 1 if is_bits(READ_TABLES.get(function, Table.holding)) else 2
        return read_reply(function, response[2:-cut] or response[2:] + bytes(cut))
    if mode is FaultMode.wrong_echo and function in (5, 6, 15, 16, 22):
        return response[:-1] + bytes((response[-1] ^ 1,))
    return response


class FaultyBank:
    """A bank that is stuck while the fault says so: old readings, and writes without effect."""

    def __init__(self, bank: Bank, faults: Faults) -> None:
        self.bank, self.faults = bank, faults
        self._frozen: dict[tuple[Table, int], int] = {}

    def read(self, table: Table, start: int, count: int) -> Sequence[int]:
        """Return what `Bank.read` returns, or returned when the fault began."""
        values = self.bank.read(table, start, count)
        if self.faults.active is not FaultMode.stuck:
            self._frozen.clear()
            return values
        return [self._frozen.setdefault((table, start + i), v) for i, v in enumerate(values)]

    def write(self, table: Table, start: int, values: Sequence[int]) -> None:
        """Write, or lose what was written."""
        if self.faults.active is not FaultMode.stuck:
            self.bank.write(table, start, values)
