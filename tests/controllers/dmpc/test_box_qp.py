"""Box-constrained programmes against cvxpy and against the optimality conditions."""

from __future__ import annotations

import numpy as np
import pytest
from _box_qp import BoxQp
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.core.errors import ControllerError


def random_problem(n: int, seed: int, condition: float) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(n, n)))
    h = q @ np.diag(np.geomspace(1.0, condition, n)) @ q.T
    low = -rng.uniform(0.0, 1.0, n)
    high = rng.uniform(0.0, 1.0, n)
    low[rng.random(n) < 0.3] = -np.inf
    high[rng.random(n) < 0.3] = np.inf
    return 0.5 * (h + h.T), rng.normal(0.0, condition**0.5, n), low, high


@settings(max_examples=60)
@given(n=st.integers(1, 30), seed=st.integers(0, 9999), power=st.floats(0.0, 4.0))
def test_optimality_conditions_hold(n: int, seed: int, power: float) -> None:
    h, linear, low, high = random_problem(n, seed, 10.0**power)
    result = BoxQp(h).solve(linear, low, high)
    z, gradient = result.z, h @ result.z + linear
    assert ((z >= low) & (z <= high)).all()
    # First-order conditions: no descent direction stays inside the box.
    scale = 1.0 + np.abs(linear).max()
    assert np.abs(z - np.clip(z - gradient / 10.0**power, low, high)).max() < 1e-7 * scale


def test_equals_cvxpy() -> None:
    cp = pytest.importorskip("cvxpy")
    h, linear, low, high = random_problem(25, 5, 100.0)
    low, high = np.maximum(low, -5.0), np.minimum(high, 5.0)
    z = cp.Variable(25)
    problem = cp.Problem(
        cp.Minimize(0.5 * cp.quad_form(z, cp.psd_wrap(h)) + linear @ z), [z >= low, z <= high]
    )
    problem.solve(solver="CLARABEL")
    assert BoxQp(h).solve(linear, low, high).z == pytest.approx(z.value, abs=1e-6)


def test_a_warm_start_does_not_change_the_answer() -> None:
    h, linear, low, high = random_problem(20, 8, 50.0)
    qp = BoxQp(h)
    cold = qp.solve(linear, low, high)
    warm = qp.solve(linear, low, high, warm=cold.z)
    assert warm.z == pytest.approx(cold.z, abs=1e-10)
    assert warm.guesses <= cold.guesses


@pytest.mark.parametrize(
    ("h", "words"),
    [
        (np.array([[1.0, 0.0], [0.0, -1.0]]), "not positive definite"),
        (np.array([[1.0, 1.0], [0.0, 1.0]]), "not symmetric"),
        (np.ones((2, 3)), "shape"),
        (np.full((2, 2), np.nan), "finite"),
    ],
)
def test_bad_hessians(h: np.ndarray, words: str) -> None:
    with pytest.raises(ControllerError, match=words):
        BoxQp(h)


def test_bad_bounds() -> None:
    qp = BoxQp(np.eye(2))
    with pytest.raises(ControllerError, match="above"):
        qp.solve(np.zeros(2), np.array([1.0, 0.0]), np.array([0.0, 1.0]))
    with pytest.raises(ControllerError, match="not a number"):
        qp.solve(np.array([np.nan, 0.0]), -np.ones(2), np.ones(2))
