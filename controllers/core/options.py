"""Options of a controller or detector: `grid_models.base.options` with `ControllerError`."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from controllers.core.errors import ControllerError
from grid_models.base import options as base
from grid_models.base.errors import FeederateError
from grid_models.base.options import option

__all__ = [
    "ControllerOptions",
    "checked_choice",
    "checked_globs",
    "checked_number",
    "checked_whole",
    "option",
    "parse_options",
]


class ControllerOptions(base.Options):
    """Base of options dataclasses; see `grid_models.base.options.Options`."""

    __slots__ = ()
    error: ClassVar[type[FeederateError]] = ControllerError


parse_options = partial(base.parse_options, error=ControllerError)
checked_choice = partial(base.checked_choice, error=ControllerError)
checked_globs = partial(base.checked_globs, error=ControllerError)
checked_number = partial(base.checked_number, error=ControllerError)
checked_whole = partial(base.checked_whole, error=ControllerError)
