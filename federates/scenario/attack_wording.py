"""Words that the descriptions of several actions share."""

from __future__ import annotations


def span(time_s: float) -> str:
    """Write a length of time: ``90 s``, ``15 min``, ``1.5 h``."""
    if time_s >= 3600.0 and not time_s % 360.0:
        return f"{time_s / 3600.0:g} h"
    if time_s >= 120.0 and not time_s % 60.0:
        return f"{time_s / 60.0:g} min"
    return f"{time_s:g} s"


def in_unit(unit: str) -> str:
    """Write a unit behind a number; nothing for a number without one."""
    return f" {unit}" if unit and unit != "1" else ""


def formula(factor: float, bias: float, value: float | None, sigma: float = 0.0) -> str:
    """Write ``factor * x + bias``, or `value` in its place, with its noise."""
    if value is not None:
        text = f"{value:g}"
    else:
        text = "x" if factor == 1.0 else f"{factor:g} x"
        text += f" {'+' if bias >= 0 else '-'} {abs(bias):g}" if bias else ""
    return text + (f" with noise of {sigma:g}" if sigma else "")
