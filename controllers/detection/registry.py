"""Detectors by name, and a user's own class by ``module:Class``."""

from __future__ import annotations

import inspect
from typing import cast

from controllers.core.errors import ControllerError
from controllers.core.named_classes import load_class
from controllers.detection.protocol import Detector

_SHIPPED: dict[str, tuple[str, str]] = {
    "power-flow-residual": (
        "controllers.detection.residual:PowerFlowResidual",
        "linear state estimation with chi-square and normalised-residual tests",
    ),
    "cusum": (
        "controllers.detection.cusum:Cusum",
        "two-sided CUSUM per signal on the error of a prediction from its past",
    ),
}


def descriptions() -> dict[str, str]:
    """Return the name of every shipped detector with a one-line description."""
    return {name: text for name, (_, text) in _SHIPPED.items()}


def resolve(name: str) -> type[Detector]:
    """Return a detector class by its shipped name or as ``module:Class``; imports only that one.

    Raises
    ------
    ControllerError
        The name is unknown, the module cannot be imported, it has no such class, or the class
        does not follow `controllers.detection.protocol.Detector`; the message says what is missing.
    """
    where = f"detector '{name}'"
    shipped = {known: target for known, (target, _) in _SHIPPED.items()}
    found = load_class(name, shipped, "detector")
    for method, arguments, count in (
        ("__init__", "(self, site, **options)", 2),
        ("step", "(self, time_s, inputs)", 3),
    ):
        _check_method(found, method, arguments, count, where)
    return cast(type[Detector], found)


def _check_method(candidate: type, method: str, arguments: str, count: int, where: str) -> None:
    """Check that `method` exists and takes `count` positional arguments (self included)."""
    try:
        signature = inspect.signature(getattr(candidate, method))
        # A required keyword is an option, which a scenario may give.
        (signature.bind_partial if method == "__init__" else signature.bind)(*[None] * count)
    except (AttributeError, TypeError) as error:
        raise ControllerError(
            f"'{candidate.__name__}' is no detector ({error})",
            where=where,
            expected=f"{method}{arguments}",
        ) from None
