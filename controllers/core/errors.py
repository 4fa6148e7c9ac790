"""Errors of the controllers.

ControllerError                 a controller cannot be built or used as asked
|-- InfeasibleError             no set-points satisfy the limits; carries the smallest violation
"""

from __future__ import annotations

from grid_models.base.errors import FeederateError


class ControllerError(FeederateError):
    """A controller cannot be built or used as asked."""


class InfeasibleError(ControllerError):
    """No set-points satisfy the limits; `violation_pu` is the smallest that can be reached."""

    def __init__(self, what: str, *, violation_pu: float, where: str | None = None) -> None:
        super().__init__(what, where=where, expected="a feasible set of voltage limits")
        self.violation_pu = violation_pu
