"""The volt/var quadratic programme on the linear model, through cvxpy and clarabel.

    min  sum_k w_k q_k^2 / 2
    s.t. v_min^2 <= v0 + X q <= v_max^2,   q_min <= q <= q_max                            (QP)

with v0 and X q in squared voltage. When (QP) has no solution, the smallest violation t of the
voltage limits is found first, then the cheapest q that reaches it:

    min t  s.t.  v_min^2 - t <= v0 + X q <= v_max^2 + t,  q_min <= q <= q_max,  t >= 0     (LP)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray

if TYPE_CHECKING:
    from collections.abc import Mapping

# Clarabel meets constraints to 1e-8; a relaxed problem must not be infeasible by rounding.
_SLACK = 1e-7
_SOLVER_OPTIONS: Mapping[str, float] = {
    "tol_gap_abs": 1e-11,
    "tol_gap_rel": 1e-10,
    "tol_feas": 1e-10,
}


@dataclass(frozen=True, slots=True)
class VoltageQpResult:
    """Solution of the programme.

    Attributes
    ----------
    q : (n,). Reactive power, in the unit of the limits.
    v_pu : (m,). Voltage magnitudes that the linear model expects.
    cost : ``sum(w q^2) / 2``.
    violation_pu : Largest distance of `v_pu` from the band; 0 when feasible.
    feasible : Whether the limits can be met.
    """

    q: FloatArray
    v_pu: FloatArray
    cost: float
    violation_pu: float
    feasible: bool


class VoltageQp:
    """The programme for one X, built once and solved for many v0 and limits.

    Parameters
    ----------
    x : (m, n). Sensitivity of m squared voltages (pu^2) to n reactive powers, per unit of q.
    weights : (n,). Cost weights w > 0; 1 by default.
    """

    def __init__(self, x: FloatArray, weights: FloatArray | None = None) -> None:
        import cvxpy as cp

        self._x = np.array(x, dtype=np.float64)
        if self._x.ndim != 2 or not self._x.size or not np.isfinite(self._x).all():
            raise ControllerError(
                "X is not usable", where="optimum", expected="a finite (m, n) matrix"
            )
        m, n = self._x.shape
        self._w = np.ones(n) if weights is None else np.array(weights, dtype=np.float64)
        if self._w.shape != (n,) or not (self._w > 0).all():
            raise ControllerError(
                "weights are not usable", where="optimum", expected=f"{n} positive numbers"
            )
        # q is scaled by X's size so that the solver sees numbers near one in any unit.
        self._scale = 1.0 / max(float(np.abs(self._x).max()), np.finfo(float).tiny)
        q = cp.Variable(n)
        t = cp.Variable(nonneg=True)
        self._q, self._t = q, t
        self._v0, self._v_lo, self._v_hi = (cp.Parameter(m) for _ in range(3))
        self._q_lo, self._q_hi = cp.Parameter(n), cp.Parameter(n)
        v = self._v0 + (self._x * self._scale) @ q
        box = [q >= self._q_lo, q <= self._q_hi]
        cost = cp.sum_squares(cp.multiply(np.sqrt(self._w / self._w.max()), q)) / 2
        self._qp = cp.Problem(cp.Minimize(cost), [*box, v >= self._v_lo, v <= self._v_hi])
        self._lp = cp.Problem(cp.Minimize(t), [*box, v >= self._v_lo - t, v <= self._v_hi + t])

    def solve(
        self,
        v0_sq: FloatArray,
        q_min: FloatArray,
        q_max: FloatArray,
        v_min: FloatArray | float,
        v_max: FloatArray | float,
    ) -> VoltageQpResult:
        """Solve for one state.

        Parameters
        ----------
        v0_sq : (m,). Squared voltages (pu^2) at q = 0.
        q_min, q_max : (n,). Reactive power limits, in the unit of q.
        v_min, v_max : (m,). Voltage band in pu (magnitude, not squared).

        Raises ControllerError: The limits are crossed or not finite, or the solver fails.
        """
        v_lo, v_hi = (
            np.square(np.broadcast_to(v_min, v0_sq.shape)),
            np.square(np.broadcast_to(v_max, v0_sq.shape)),
        )
        q_lo, q_hi = (np.broadcast_to(b, self._w.shape) for b in (q_min, q_max))
        for name, low, high in (("q", q_lo, q_hi), ("v", v_lo, v_hi)):
            if not (np.isfinite(low) & np.isfinite(high) & (low <= high)).all():
                raise ControllerError(
                    f"the limits of {name} are crossed or not finite",
                    where="optimum",
                    expected=f"{name}_min <= {name}_max",
                )
        self._v0.value = np.array(v0_sq, dtype=np.float64)
        self._q_lo.value, self._q_hi.value = q_lo / self._scale, q_hi / self._scale
        self._set_band(v_lo, v_hi, 0.0)
        q = self._run(self._qp)
        if q is not None:
            return self._result(q, v0_sq, q_lo, q_hi, v_lo, v_hi, feasible=True)
        if self._run(self._lp) is None:  # bounded and never infeasible: only numbers can fail
            raise ControllerError("the solver failed", where="optimum", expected="finite data")
        self._set_band(v_lo, v_hi, float(self._t.value) * (1 + _SLACK) + _SLACK)
        relaxed = self._run(self._qp)
        q = np.array(self._q.value if relaxed is None else relaxed)
        return self._result(q, v0_sq, q_lo, q_hi, v_lo, v_hi, feasible=False)

    def _set_band(self, v_lo: FloatArray, v_hi: FloatArray, slack: float) -> None:
        self._v_lo.value, self._v_hi.value = v_lo - slack, v_hi + slack

    def _run(self, problem: Any) -> FloatArray | None:
        """Return the scaled q, or None when the problem has no solution."""
        import warnings

        import cvxpy as cp

        with warnings.catch_warnings():
            # "Solution may be inaccurate" is judged by the status below.
            warnings.simplefilter("ignore", UserWarning)
            try:
                problem.solve(solver=cp.CLARABEL, **_SOLVER_OPTIONS)
            except cp.SolverError:
                return None
        if problem.status not in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE):
            return None
        return np.array(self._q.value, dtype=np.float64)

    def _result(
        self,
        q_scaled: FloatArray,
        v0_sq: FloatArray,
        q_lo: FloatArray,
        q_hi: FloatArray,
        v_lo: FloatArray,
        v_hi: FloatArray,
        *,
        feasible: bool,
    ) -> VoltageQpResult:
        q = np.clip(q_scaled * self._scale, q_lo, q_hi)
        v_pu = np.sqrt(np.maximum(v0_sq + self._x @ q, 0.0))
        beyond = np.maximum(v_pu - np.sqrt(v_hi), np.sqrt(v_lo) - v_pu)
        violation_pu = 0.0 if feasible else max(float(beyond.max(initial=0.0)), 0.0)
        return VoltageQpResult(q, v_pu, float(self._w @ (q * q)) / 2, violation_pu, feasible)
