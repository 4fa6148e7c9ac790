"""Errors of servers and emulators that a user can act on."""

from __future__ import annotations

from grid_models.base.errors import FeederateError


class ServerError(FeederateError):
    """A Modbus server or an emulator cannot be set up as asked."""
