"""Options as frozen dataclasses, checked field by field with messages a user can act on.

`option` states a default, its meaning and its limits in one place; `Options` checks them, and
docs/scenario.md is generated from them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, field, fields
from typing import Any, ClassVar, TypeVar

from grid_models.base.errors import FeederateError, GridModelError, nearest_name

T = TypeVar("T")
_PLAIN = {"bool": (bool, "true or false"), "str": (str, "text")}


def option(
    default: Any,
    meaning: str,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    above: float | None = None,
    choices: tuple[str, ...] = (),
    shown: str = "",
) -> Any:
    """Return a dataclass field for one option.

    Parameters
    ----------
    default : ``...`` where the option is required.
    low, high : Limits of a number, both allowed.
    above : Lower limit of a number that is not allowed itself.
    choices : Allowed texts.
    shown : The type in words, where the annotation does not say it.
    """
    checks = {"low": low if above is None else above, "high": high, "open_low": above is not None}
    metadata = {"meaning": meaning, "choices": choices, "shown": shown, **checks}
    return field(default=MISSING if default is ... else default, metadata=metadata)


class Options:
    """Base of options dataclasses; numbers and choices are checked as `option` says."""

    __slots__ = ()
    error: ClassVar[type[FeederateError]] = GridModelError

    def __post_init__(self) -> None:
        for f in fields(self):  # type: ignore[arg-type]  # a subclass is a dataclass
            value, said = getattr(self, f.name), f.metadata
            kind, _, optional = str(f.type).partition(" | ")
            if not said or (value is None and optional == "None"):
                continue
            if said["choices"]:
                checked_choice(f.name, value, said["choices"], error=self.error)
            elif kind == "int":
                low = None if math.isinf(said["low"]) else int(said["low"])
                checked_whole(f.name, value, low=low, error=self.error)
            elif kind == "float":
                limits = {k: said[k] for k in ("low", "high", "open_low")}
                checked_number(f.name, value, **limits, error=self.error)
            elif kind in _PLAIN and not isinstance(value, _PLAIN[kind][0]):
                raise _refusal(self.error, f.name, value, _PLAIN[kind][1])
            elif kind == "Sequence[str]":
                object.__setattr__(self, f.name, checked_globs(f.name, value, error=self.error))
        self.check()

    def check(self) -> None:
        """Check what concerns several options, or one of a type of its own."""


def parse_options(
    options_type: type[T],
    options: Mapping[str, Any],
    where: str,
    error: type[FeederateError] = GridModelError,
) -> T:
    """Return ``options_type(**options)``; an unknown name is refused with its nearest valid one.

    Parameters
    ----------
    options_type : A dataclass whose ``__post_init__`` checks the values.
    options : What the user wrote.
    where : The place of the options, for messages.
    error : Class of the errors of an `options_type` that names none.

    Raises FeederateError: Of the class that `options_type` names: an option is unknown or missing,
    or its value is not accepted.
    """
    kind = getattr(options_type, "error", error)
    known = [f.name for f in fields(options_type)]  # type: ignore[arg-type]
    for name in options:
        if name not in known:
            raise kind(
                f"unknown option '{name}'",
                where=where,
                expected="one of " + ", ".join(known) if known else "no options",
                nearest=nearest_name(name, known),
            )
    for f in fields(options_type):  # type: ignore[arg-type]
        if f.default is f.default_factory is MISSING and f.name not in options:
            choices = f.metadata.get("choices", ()) if f.metadata else ()
            expected = "one of " + ", ".join(choices) if choices else None
            raise kind(f"option '{f.name}' is missing", where=where, expected=expected)
    try:
        return options_type(**options)
    except kind as found:
        place = f"{where}: {found.where}" if found.where else where
        raise kind(
            found.what, where=place, expected=found.expected, nearest=found.nearest
        ) from None


def _refusal(
    error: type[FeederateError], option: str, value: Any, expected: str, nearest: str | None = None
) -> FeederateError:
    where = f"option '{option}'"
    return error(f"{value!r} is not accepted", where=where, expected=expected, nearest=nearest)


def checked_number(
    option: str,
    value: Any,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    open_low: bool = False,
    error: type[FeederateError] = GridModelError,
) -> float:
    """Return `value` as float when it is a finite number in ``[low, high]`` (``(low, high]``)."""
    ok = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not ok or not low <= value <= high or (open_low and value == low):
        bracket = "(" if open_low else "["
        limits = f"in {bracket}{low:g}, {high:g}]"
        if math.isinf(high):
            limits = f"{'above' if open_low else 'of at least'} {low:g}"
        raise _refusal(error, option, value, f"a number {limits}")
    return float(value)


def checked_whole(
    option: str, value: Any, *, low: int | None = 0, error: type[FeederateError] = GridModelError
) -> int:
    """Return `value` when it is a whole number of at least `low` (None: of any size)."""
    if isinstance(value, bool) or not isinstance(value, int) or (low is not None and value < low):
        expected = "a whole number" + ("" if low is None else f" of at least {low}")
        raise _refusal(error, option, value, expected)
    return value


def checked_globs(
    option: str, value: Any, *, error: type[FeederateError] = GridModelError
) -> tuple[str, ...]:
    """Return `value` when it is a list of texts that is not empty."""
    if isinstance(value, str) or not value or not all(isinstance(x, str) for x in value):
        raise _refusal(error, option, value, "a list of names or globs, such as ['pv_*']")
    return tuple(dict.fromkeys(value))


def checked_choice(
    option: str,
    value: Any,
    choices: tuple[str, ...],
    *,
    error: type[FeederateError] = GridModelError,
) -> str:
    """Return `value` when it is one of `choices`."""
    if value not in choices:
        nearest = nearest_name(str(value), choices)
        raise _refusal(error, option, value, "one of " + ", ".join(choices), nearest)
    return str(value)
