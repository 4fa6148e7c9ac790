"""Dense quadratic programs with ranges and few rows, started from a guess of what binds.

    min 1/2 d'H d + g'd    s.t.  low <= d <= high,  A d <= b

A primal-dual active set method: solve for what is assumed to bind, then assume what the solution
says, until nothing changes. From the last solution that takes one or two dense factorisations.
Where it does not end, clarabel solves the program; where no point satisfies the rows, they are
given way to at a penalty (elastic mode).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controllers.core.mail import FloatArray

_MOST_CHANGES = 50
_BOTH_AT_ONCE = 12
_ROUND_OFF = 1e-11


@dataclass(frozen=True)
class Qp:
    """The program; H (n, n) positive definite, the rest (n,), (k, n) and (k,)."""

    hessian: FloatArray
    gradient: FloatArray
    low: FloatArray
    high: FloatArray
    rows: FloatArray
    limits: FloatArray


@dataclass(frozen=True)
class QpSolution:
    """Its solution.

    Attributes
    ----------
    d : ndarray (n,)
    mu : ndarray (k,). Multipliers of the rows, 0 or more.
    side : ndarray of int (n,). -1 at the lower, 1 at the upper end, 0 between.
    elastic : Whether the rows were given way to.
    """

    d: FloatArray
    mu: FloatArray
    side: NDArray[np.int_]
    elastic: bool = False


def solve_qp(
    qp: Qp, side: NDArray[np.int_], binding: NDArray[np.bool_], penalty: float
) -> QpSolution:
    """Return the solution of `qp`.

    Parameters
    ----------
    side, binding : Guess: at which end each variable is, (n,), and which rows bind, (k,).
    penalty : Of a row's excess, where no point satisfies all of them.

    Raises ArithmeticError: No method ended.
    """
    for k in range(_MOST_CHANGES):
        try:
            d, mu = _with_binding(qp, side, binding)
        except np.linalg.LinAlgError:
            break
        free = side == 0
        worth = qp.gradient + qp.hessian @ d + mu @ qp.rows
        scale = _ROUND_OFF * (1.0 + float(np.abs(worth).max(initial=0.0)))
        next_side = np.where(
            free,
            (d > qp.high + _ROUND_OFF).astype(int) - (d < qp.low - _ROUND_OFF),
            np.where(side * worth > scale, 0, side),
        )
        next_binding = np.where(binding, mu > 0.0, qp.rows @ d > qp.limits + _ROUND_OFF)
        if k >= _BOTH_AT_ONCE and (next_side != side).any():
            next_binding = binding  # rows wait for the ranges, or the two may chase each other
        if (next_side == side).all() and (next_binding == binding).all():
            return QpSolution(d, mu, side)
        side, binding = next_side, next_binding
    return _by_interior_point(qp, penalty)


def _with_binding(
    qp: Qp, side: NDArray[np.int_], binding: NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray]:
    """Return d and mu that satisfy the binding ranges and rows as equations."""
    from scipy.linalg import cho_factor, cho_solve

    free = np.flatnonzero(side == 0)
    d = np.where(side > 0, qp.high, np.where(side < 0, qp.low, 0.0))
    mu = np.zeros(len(qp.limits))
    if binding.sum() > free.size:
        raise np.linalg.LinAlgError
    rows = qp.rows[np.ix_(binding, free)]
    pull = -(qp.gradient + qp.hessian @ d)[free]
    if free.size:
        factor = cho_factor(qp.hessian[np.ix_(free, free)], check_finite=False)
        both = cho_solve(factor, np.column_stack([pull, rows.T]), check_finite=False)
        d[free] = both[:, 0]
        if binding.any():
            left = qp.limits[binding] - qp.rows[binding] @ d
            through = rows @ both[:, 1:]
            if np.linalg.cond(through) > 1e13:
                raise np.linalg.LinAlgError
            mu[binding] = np.linalg.solve(through, -left)
            d[free] -= both[:, 1:] @ mu[binding]
    return d, mu


def _by_interior_point(qp: Qp, penalty: float) -> QpSolution:
    for elastic in (False, True):
        found = _clarabel(qp, penalty if elastic else None)
        if found is not None:
            d, mu = found
            room = np.maximum(qp.high - qp.low, 1e-12)
            side = (qp.high - d < 1e-6 * room).astype(int) - (d - qp.low < 1e-6 * room)
            d = np.clip(d, qp.low, qp.high)
            return QpSolution(d, mu, side, elastic)
        if not len(qp.limits):
            break
    raise ArithmeticError("the quadratic program has no solution")


def _clarabel(qp: Qp, penalty: float | None) -> tuple[FloatArray, FloatArray] | None:
    """Return d and mu; with a penalty each row has an excess at that price."""
    import clarabel
    from scipy import sparse

    n, k = len(qp.gradient), len(qp.limits)
    extra = 0 if penalty is None else k
    settings: Any = clarabel.DefaultSettings()
    settings.verbose = False
    settings.max_threads = 1
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-11
    eye, slack = sparse.eye_array(n + extra), sparse.eye_array(k, extra)
    rows = sparse.vstack(
        [
            sparse.hstack([sparse.csc_array(qp.rows), -slack]),
            eye,
            -eye,
        ]
    )
    top = np.concatenate([qp.high, np.full(extra, 1e6)])
    bottom = np.concatenate([qp.low, np.zeros(extra)])
    cost = np.concatenate([qp.gradient, np.full(extra, penalty or 0.0)])
    half = sparse.block_diag(
        [sparse.csc_array(np.triu(qp.hessian)), sparse.csc_array((extra, extra))]
    )
    right = np.concatenate([qp.limits, top, -bottom])
    cones = [clarabel.NonnegativeConeT(len(right))]
    solver = clarabel.DefaultSolver(
        sparse.csc_matrix(half), cost, sparse.csc_matrix(rows), right, cones, settings
    )
    solution = solver.solve()
    if str(solution.status) not in {"Solved", "AlmostSolved"}:
        return None
    return np.asarray(solution.x)[:n], np.asarray(solution.z)[:k]
