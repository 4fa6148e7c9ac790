"""What every emulated plant offers to the process that serves it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from grid_models.base.errors import nearest_name
from hil.devices.errors import ServerError
from hil.servers.habits import Habits
from hil.servers.pdu import Bank

Array = NDArray[np.float64]


class Plant(Protocol):
    """n devices of one kind, physics and registers; `time_s` is seconds since their start.

    `habits` are those of their connections.
    """

    kind: str
    time_s: float
    habits: Habits

    @property
    def banks(self) -> Sequence[Bank]:
        """Registers, one bank per device."""
        ...

    def set_inputs(self, inputs: Mapping[str, object]) -> None:
        """Take inputs that hold from now on; raise `ServerError` and change nothing if wrong."""
        ...

    def advance(self, dt_s: float) -> None:
        """Let time pass."""
        ...

    def outputs(self) -> dict[str, Array]:
        """Return what happens physically, whatever the registers say; shape (n,) each."""
        ...

    def set_reading_factors(self, factors: Sequence[float]) -> None:
        """Make sensors read too much, by one factor per device; physics is not touched."""
        ...


def checked_inputs(
    inputs: Mapping[str, object], ranges: Mapping[str, tuple[float, float]], n: int
) -> dict[str, Array]:
    """Return inputs as arrays of shape (n,).

    Parameters
    ----------
    inputs : Number, or list of n numbers, by name.
    ranges : Lowest and highest value by name.

    Raises ServerError: A name is unknown, a value is not finite or out of range, or their number is
    wrong.
    """
    arrays: dict[str, Array] = {}
    for name, given in inputs.items():
        if name not in ranges:
            raise ServerError(
                f"unknown input '{name}'",
                where="grid side channel",
                expected=", ".join(ranges),
                nearest=nearest_name(name, ranges),
            )
        low, high = ranges[name]
        values = given if isinstance(given, list) else [given]
        right = len(values) == n or not isinstance(given, list)
        if not right or not all(_inside(v, low, high) for v in values):
            raise ServerError(
                f"{name} is not usable",
                where="grid side channel",
                expected=f"one number or {n}, each from {low:g} to {high:g}",
            )
        arrays[name] = np.broadcast_to(np.array(values, dtype=np.float64), (n,)).copy()
    return arrays


def _inside(value: object, low: float, high: float) -> bool:
    """Tell whether a value is a number (nan is not) in the range."""
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
