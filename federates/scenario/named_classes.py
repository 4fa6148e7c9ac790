"""Classes that a scenario or attack names: shipped ones, and a user's own ``module:Class``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from controllers.core.errors import ControllerError
from controllers.core.named_classes import load_class
from federates.errors import ScenarioError


def make_importable(folders: Iterable[Path]) -> None:
    """Let ``module:Class`` be found in `folders`."""
    for folder in map(str, folders):
        if folder not in sys.path:
            sys.path.append(folder)


def named_class(name: str, shipped: Mapping[str, str], what: str) -> type:
    """Return a class by its shipped name or as ``module:Class``; imports only that one.

    Raises
    ------
    ScenarioError
        There is none; `what` says what it is the class of.
    """
    try:
        return load_class(name, shipped, what)
    except ControllerError as error:
        raise ScenarioError(error.what, expected=error.expected, nearest=error.nearest) from error
