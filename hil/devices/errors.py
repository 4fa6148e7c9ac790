"""Errors of the hardware side; all are `grid_models.base.errors.FeederateError`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grid_models.base.errors import FeederateError, described, reason_of

EXCEPTION_NAMES = {
    1: "illegal function",
    2: "illegal data address",
    3: "illegal data value",
    4: "server device failure",
    5: "acknowledge",
    6: "server device busy",
    8: "memory parity error",
    10: "gateway path unavailable",
    11: "gateway target did not respond",
}


@dataclass(frozen=True)
class Problem:
    """One thing to mend in a device file.

    Parameters
    ----------
    file, line, key : Where; line 0 where the whole file is meant, key as ``points.setpoint.min``.
    what, expected, nearest : str
        What is wrong, what would have been accepted, the nearest valid name ('' for none).
    """

    file: str
    line: int
    key: str
    what: str
    expected: str = ""
    nearest: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        text = described(self.what, self.expected, self.nearest)
        return f"{place}: {self.key}: {text}" if self.key else f"{place}: {text}"


class ServerError(FeederateError):
    """A Modbus server or an emulator cannot be set up as asked."""


class DeviceError(FeederateError):
    """A device cannot be used as asked."""


class DeviceFileError(DeviceError):
    """The device file cannot be read or breaks the schema; `problems` in the order of the lines."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(str(p) for p in self.problems))


class ArmingError(DeviceError):
    """A device that must be armed by name was not, or the name is unknown."""


class GuardError(DeviceError):
    """The guard refused a write."""


class NotSafeError(DeviceError):
    """A device was not brought to its safe state."""


class ScanError(DeviceError):
    """No SunSpec map was found, or a model that the file asks for is not in it."""


class ExchangeError(DeviceError):
    """One request did not end in a checked reply."""


class NoReplyError(ExchangeError):
    """The deadline passed without a whole reply."""


class LinkError(ExchangeError):
    """There is no connection, or it broke while a reply was awaited."""


class WrongReplyError(ExchangeError):
    """The reply does not belong to the request; nothing of it was used."""


class RefusedError(ExchangeError):
    """The device answered with the Modbus exception `code`."""

    def __init__(self, code: int, *, where: str | None = None) -> None:
        self.code = code
        name = EXCEPTION_NAMES.get(code, "unknown code")
        super().__init__(f"the device refused with exception {code} ({name})", where=where)


class NotNowError(DeviceError):
    """What is needed for a read or a write is not available at the moment (a scale factor)."""


NOT_NOW_CODES = (5, 6, 10, 11)
"""Modbus exceptions that ask for another try: acknowledge, busy, gateway without the device (2)."""


def is_transient(error: Exception) -> bool:
    """Return True for an answer that means "not now": it says nothing against the device."""
    if isinstance(error, RefusedError):
        return error.code in NOT_NOW_CODES
    return isinstance(error, NotNowError)


def cannot_listen(kind: type[FeederateError], error: Exception, where: str) -> FeederateError:
    """Return the error of a server whose address cannot be used."""
    expected = "a free port of this machine"
    return kind(f"cannot listen: {reason_of(error)}", where=where, expected=expected)
