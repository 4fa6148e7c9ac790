"""Detectors by name, and a user's own class by ``module:Class``."""

from __future__ import annotations

import importlib
import inspect
from typing import cast

from controllers.detection.protocol import Detector
from controllers.errors import ControllerError
from grid_models.errors import nearest_name

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
    target = _SHIPPED[name][0] if name in _SHIPPED else name
    where = f"detector '{name}'"
    module_name, colon, class_name = target.partition(":")
    if not colon or not module_name or not class_name:
        raise ControllerError(
            "no such detector",
            where=where,
            expected="one of " + ", ".join(_SHIPPED) + ", or 'module:Class'",
            nearest=nearest_name(name, _SHIPPED),
        )
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a user's module may fail in any way while it is imported
        raise ControllerError(
            f"module '{module_name}' cannot be imported ({type(error).__name__}: {error})",
            where=where,
            expected="an importable module, beside the scenario or on PYTHONPATH",
        ) from error
    found = getattr(module, class_name, None)
    if not inspect.isclass(found):
        classes = [n for n, obj in vars(module).items() if inspect.isclass(obj)]
        raise ControllerError(
            f"module '{module_name}' has no class '{class_name}'",
            where=where,
            expected="the name of a class of the module",
            nearest=nearest_name(class_name, classes),
        )
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
