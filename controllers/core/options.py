"""Options of a controller as a frozen dataclass, checked with messages a user can act on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from controllers.core.errors import ControllerError
from grid_models.base.errors import nearest_name

T = TypeVar("T")


def parse_options(options_type: type[T], options: Mapping[str, Any], where: str) -> T:
    """Return ``options_type(**options)``; an unknown name is refused with its nearest valid one.

    Parameters
    ----------
    options_type : A dataclass whose ``__post_init__`` checks the values.
    options : What the user wrote.
    where : The controller's name, for messages.

    Raises
    ------
    ControllerError: An option is unknown or its value is not accepted.
    """
    known = [f.name for f in fields(options_type)]  # type: ignore[arg-type]
    for name in options:
        if name not in known:
            raise ControllerError(
                f"unknown option '{name}'",
                where=where,
                expected="one of " + ", ".join(known),
                nearest=nearest_name(name, known),
            )
    try:
        return options_type(**options)
    except ControllerError as error:
        raise ControllerError(
            error.what,
            where=f"{where}: {error.where}" if error.where else where,
            expected=error.expected,
            nearest=error.nearest,
        ) from None


def checked_number(
    option: str,
    value: Any,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    open_low: bool = False,
) -> float:
    """Return `value` as float when it is a finite number in ``[low, high]`` (``(low, high]``)."""
    ok = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not ok or not low <= value <= high or (open_low and value == low):
        bracket = "(" if open_low else "["
        raise ControllerError(
            f"{value!r} is not accepted",
            where=f"option '{option}'",
            expected=f"a number in {bracket}{low:g}, {high:g}]",
        )
    return float(value)


def checked_whole(option: str, value: Any, *, low: int = 0) -> int:
    """Return `value` when it is a whole number of at least `low`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ControllerError(
            f"{value!r} is not accepted",
            where=f"option '{option}'",
            expected=f"a whole number of at least {low}",
        )
    return value


def checked_globs(option: str, value: Any) -> tuple[str, ...]:
    """Return `value` when it is a list of texts that is not empty."""
    if isinstance(value, str) or not value or not all(isinstance(x, str) for x in value):
        raise ControllerError(
            f"{value!r} is not accepted",
            where=f"option '{option}'",
            expected="a list of names or globs, such as ['pv_*']",
        )
    return tuple(dict.fromkeys(value))


def checked_choice(option: str, value: Any, choices: tuple[str, ...]) -> str:
    """Return `value` when it is one of `choices`."""
    if value not in choices:
        raise ControllerError(
            f"{value!r} is not accepted",
            where=f"option '{option}'",
            expected="one of " + ", ".join(choices),
            nearest=nearest_name(str(value), choices),
        )
    return str(value)
