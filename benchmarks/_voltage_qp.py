"""The volt/var programme in one call, for benchmarks and tests; see `VoltageQp`."""

from __future__ import annotations

from typing import Literal

from controllers.baselines.optimum_qp import VoltageQp, VoltageQpResult
from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray


class InfeasibleError(ControllerError):
    """No set-points satisfy the limits; `violation_pu` is the smallest that can be reached."""

    def __init__(self, what: str, *, violation_pu: float, where: str | None = None) -> None:
        super().__init__(what, where=where, expected="a feasible set of voltage limits")
        self.violation_pu = violation_pu


def solve_voltage_qp(
    x: FloatArray,
    v0_sq: FloatArray,
    q_min: FloatArray,
    q_max: FloatArray,
    v_min: FloatArray | float,
    v_max: FloatArray | float,
    *,
    weights: FloatArray | None = None,
    if_infeasible: Literal["raise", "least_violation"] = "raise",
) -> VoltageQpResult:
    """Return the cheapest reactive powers that hold the voltage band on the linear model.

    Parameters
    ----------
    x : (m, n). Sensitivity of the squared voltages (pu^2) to q, per unit of q.
    v0_sq : (m,). Squared voltages (pu^2) at q = 0.
    q_min, q_max : (n,). Reactive power limits, in the same unit of q.
    v_min, v_max : (m,). Voltage band in pu (magnitude, not squared).
    weights : (n,). Cost weights.
    if_infeasible : What to do when the band cannot be held.

    Raises
    ------
    InfeasibleError: The band cannot be held; `violation_pu` is the smallest reachable violation.
    ControllerError: The data are not usable.
    """
    result = VoltageQp(x, weights).solve(v0_sq, q_min, q_max, v_min, v_max)
    if not result.feasible and if_infeasible == "raise":
        raise InfeasibleError(
            f"no reactive power within the limits holds the band; at best the voltage is "
            f"{result.violation_pu:.4f} pu outside",
            violation_pu=result.violation_pu,
            where="optimum",
        )
    return result
