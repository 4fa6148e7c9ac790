"""One operator's secondary market written for reading, in cvxpy, and solved by clarabel.

Slow and plain. `clearing` takes it for what its batch did not solve; tests and the benchmark
compare the batch with it.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from controllers.core.mail import FloatArray
from controllers.market.model.errors import NoDispatchError
from controllers.market.secondary.first_level import FLOOR_SHARE, SLACK, Prepared
from controllers.market.secondary.problem import SecondaryProblem

TOLERANCE = 1e-10


def clear_by_cone(
    problem: SecondaryProblem, ready: Prepared, operator: int
) -> tuple[FloatArray, FloatArray]:
    """Return powers of an operator's k agents, active then reactive (2k,), and F1 to F4, (4,).

    Raises NoDispatchError: The solver found no solution of a level.
    """
    import cvxpy as cp

    bids, eps = problem.bids, problem.epsilon
    mine = np.flatnonzero(bids.owner == operator)
    if not mine.size:
        return np.zeros(0), np.zeros(4)
    both = np.concatenate((mine, mine + len(bids.owner)))
    k, agents, cap = len(mine), ready.agents, problem.price_cap[operator]
    inverse_score, middle = agents.inverse_score[both], agents.middle[both]
    reach = agents.reach[both]
    beta = np.concatenate((bids.beta_p[mine], bids.beta_q[mine]))
    # The solver sees numbers near 1: powers over `size`, levels over their `units`.
    size = max(float(np.abs(np.concatenate((agents.low[both], agents.high[both]))).max()), 1e-9)
    moved = [
        ready.total[2 * i, operator] - agents.x0[both[i * k : i * k + k]].sum() for i in (0, 1)
    ]
    square = max(float(np.abs(moved).max()) / k, 1e-3 * size) ** 2
    units = (
        inverse_score.mean() * square,
        max(cap, 1e-9) * size,
        size,
        max(beta.mean(), 1e-9) * square,
    )
    z, t, pay = cp.Variable(2 * k), cp.Variable(2 * k), cp.Variable(k)
    away = cp.square(z - agents.x0[both] / size)
    f = (
        cp.sum(cp.multiply(inverse_score * size**2 / units[0], away)),
        cp.sum(pay),
        -cp.sum(t),
        cp.sum(cp.multiply(beta * size**2 / units[3], away)),
    )
    share = np.where(ready.generates[mine], FLOOR_SHARE, 1.0) * cap * size / units[1]
    other = np.where(ready.generates[mine], 1.0, FLOOR_SHARE) * cap * size / units[1]
    limits = [
        cp.sum(z[:k]) == ready.total[0, operator] / size,
        cp.sum(z[k:]) == ready.total[2, operator] / size,
        z >= agents.low[both] / size,
        z <= agents.high[both] / size,
    ]
    prices = [cp.multiply(share, z[:k]) <= pay, pay <= cp.multiply(other, z[:k])]
    kept = [t <= z - (middle - reach) / size, t <= (middle + reach) / size - z]
    best = np.zeros(4)
    for level, of_level in enumerate(([], prices, kept, [])):
        limits += of_level
        found = _solve(cp.Problem(cp.Minimize(f[level]), limits), operator) * units[level]
        best[level] = found
        limits.append(f[level] <= (found + eps * abs(found) + SLACK) / units[level])
        if level == 1 and found <= ready.revenue[operator] + SLACK:
            budget = max(ready.revenue[operator], found) + SLACK
            limits.append(cp.sum(pay) <= budget / units[1])
    return size * z.value, best


def _solve(level: Any, operator: int) -> float:
    names = ("tol_gap_abs", "tol_gap_rel", "tol_feas")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a solution that is nearly optimal
            level.solve(solver="CLARABEL", **dict.fromkeys(names, TOLERANCE), max_iter=200)
        status = level.status
    except Exception as error:  # cvxpy raises its own and the solver's
        status = str(error)
    if status not in ("optimal", "optimal_inaccurate"):
        raise NoDispatchError(
            "the secondary market of an operator has no solution",
            status=status,
            where=f"operator {operator}",
            expected="targets and ranges that the solver can clear",
        )
    return float(level.value)
