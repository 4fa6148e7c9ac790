"""The error of the controllers, a `FeederateError`."""

from __future__ import annotations

from grid_models.base.errors import FeederateError


class ControllerError(FeederateError):
    """A controller cannot be built or used as asked."""
