"""Timing, weights and summary of both distributed MPC controllers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from controllers.core.errors import ControllerError
from controllers.core.options import parse_options
from controllers.dmpc.boundary_mail import BoundaryMail
from controllers.dmpc.exchange import Measured

W = TypeVar("W")


def controller_steps(sample_s: float, iterations: int | None, period_s: float, where: str) -> int:
    """Return the number of controller steps in a sample.

    Raises ControllerError: The sample is no whole number of periods, or too short for the
    iterations.
    """
    steps = round(sample_s / period_s)
    if steps < 1 or abs(steps * period_s - sample_s) > 1e-6 * sample_s:
        raise ControllerError(
            f"sample_s = {sample_s:g} is no whole number of the controller's periods",
            where=f"{where}: option 'sample_s'",
            expected=f"a multiple of period_s = {period_s:g}",
        )
    if iterations is not None and iterations > steps:
        raise ControllerError(
            f"{iterations} rounds of mail do not fit in a sample of {steps} controller steps",
            where=f"{where}: option 'iterations'",
            expected=f"at most {steps}, or a shorter period_s",
        )
    return steps


def parse_weights(cls: type[W], given: Mapping[str, Any] | None, where: str) -> W:
    """Return the cost's weights from the option ``weights``; the defaults where it is not given."""
    where = f"{where}: option 'weights'"
    if given is not None and not isinstance(given, Mapping):
        raise ControllerError(f"{given!r} is not accepted", where=where, expected="numbers by name")
    return parse_options(cls, given or {}, where)


def mail_summary(mail: BoundaryMail, known: Measured) -> dict[str, float]:
    """Return refused messages, samples of boundaries in local mode, and held measurements."""
    return {
        "mail_refused_count": float(mail.refused),
        "local_mode_samples": float(mail.local_samples),
        "held_values_count": float(known.held),
    }
