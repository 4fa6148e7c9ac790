"""The projection against an interior-point solver, for one case and for many."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

from controllers.core.mail import FloatArray
from controllers.safety.projection import Limits, Projection

PENALTY = 30.0


def reference(a: FloatArray, x0: FloatArray, limits: Limits) -> FloatArray:
    """Return the solution of one case by clarabel."""
    x, slack = cp.Variable(a.shape[1]), cp.Variable(a.shape[0], nonneg=True)
    cost = cp.sum_squares(x - x0) / 2 + PENALTY * cp.sum(slack)
    y = a @ x
    rows = [y <= limits.y_high + slack, y >= limits.y_low - slack]
    box = [x >= limits.low, x <= limits.high]
    cp.Problem(cp.Minimize(cost), [*rows, *box]).solve(solver=cp.CLARABEL)
    return np.asarray(x.value, dtype=np.float64)


def cases(count: int, m: int = 12, n: int = 5) -> tuple[FloatArray, FloatArray, Limits]:
    rng = np.random.default_rng(4)
    a = 0.1 * rng.normal(size=(m, n))
    x0 = rng.normal(size=(count, n))
    y_low = -rng.uniform(0.0, 0.1, (count, m))
    y_high = rng.uniform(0.0, 0.1, (count, m))
    y_low[:, 0], y_high[:, 1] = -np.inf, np.inf  # rows without one of their limits
    low, high = -np.ones((count, n)), rng.uniform(-0.5, 1.0, (count, n))
    return a, x0, Limits(low, high, y_low, y_high)


def test_solutions_are_those_of_an_interior_point_solver() -> None:
    a, x0, limits = cases(8)
    limits.low[2, 3] = limits.high[2, 3] = 0.4  # one that does not move
    limits.y_high[5, 4] = limits.y_low[5, 4] = 0.5  # one that cannot be met
    found = Projection(a, PENALTY).solve(x0, limits, iterations=5000, tolerance=1e-10)
    for k in range(8):
        one = Limits(*(part[k] for part in vars(limits).values()))
        assert found.x[k] == pytest.approx(reference(a, x0[k], one), abs=2e-6)
    assert np.abs(found.slack[5]).max() > 0.01
    # The prices explain the solution: x is x0 moved by them, within its limits.
    priced = np.clip(x0 - found.price @ a, limits.low, limits.high)
    assert found.x == pytest.approx(priced, abs=1e-6)


def test_one_case_alone_is_as_among_many() -> None:
    a, x0, limits = cases(6)
    solver = Projection(a, PENALTY)
    together = solver.solve(x0, limits, iterations=50, tolerance=0.0).x
    for k in range(6):
        one = Limits(*(part[k] for part in vars(limits).values()))
        alone = solver.solve(x0[k], one, iterations=50, tolerance=0.0).x
        assert together[k] == pytest.approx(alone, abs=1e-12)


def test_what_is_safe_is_not_changed_and_costs_no_iteration() -> None:
    a, x0, limits = cases(3)
    small = np.clip(1e-3 * x0, limits.low, limits.high)
    found = Projection(a, PENALTY).solve(
        small, Limits(limits.low, limits.high, limits.y_low - 0.1, limits.y_high + 0.1)
    )
    assert found.iterations == 0
    assert np.array_equal(found.x, small)


def test_a_warm_start_needs_fewer_iterations() -> None:
    a, x0, limits = cases(4)
    solver = Projection(a, PENALTY)
    cold = solver.solve(x0, limits, iterations=1000, tolerance=1e-6)
    warm = solver.solve(x0 + 1e-3, limits, cold, iterations=1000, tolerance=1e-6)
    assert warm.iterations < cold.iterations / 2
