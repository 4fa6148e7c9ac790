"""Bad-data tests in closed form: against the estimation written out, and against their laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.detection.bad_data import BadDataTest, chi_square_threshold, normal_threshold

SEEDS = st.integers(0, 2**32 - 1)


def _case(seed: int, m: int = 7, n: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(m, n)), rng.uniform(0.1, 2.0, n), rng.uniform(0.05, 1.0, m)


@given(SEEDS)
def test_the_closed_form_is_weighted_least_squares_with_pseudo_measurements(seed: int) -> None:
    h, p, r = _case(seed)
    nu = np.random.default_rng(seed + 1).normal(size=7)
    # The estimation as it is written down: rows of measurements over rows of pseudo-measurements.
    rows = np.concatenate([h, np.eye(4)])
    z = np.concatenate([nu, np.zeros(4)])
    weight = np.diag(1.0 / np.concatenate([r, p]))
    gain = rows.T @ weight @ rows
    residual = z - rows @ np.linalg.solve(gain, rows.T @ weight @ z)
    omega = np.linalg.inv(weight) - rows @ np.linalg.solve(gain, rows.T)
    j, measured, states = BadDataTest(h, p, r).statistics(nu[None])
    assert j[0] == pytest.approx(residual @ weight @ residual, rel=1e-8)
    expected = residual / np.sqrt(np.diag(omega))
    np.testing.assert_allclose(measured[0], expected[:7], rtol=1e-6, atol=1e-9)
    # A pseudo-measurement's residual is 0 - x, the closed form's sign is that of x.
    np.testing.assert_allclose(np.abs(states[0]), np.abs(expected[7:]), rtol=1e-6, atol=1e-9)


@given(SEEDS, st.floats(0.0, 30.0))
def test_variances_that_change_from_step_to_step_need_no_other_factorisation(
    seed: int, factor: float
) -> None:
    h, p, r = _case(seed)
    nu = np.random.default_rng(seed + 1).normal(size=(2, 7))
    varying = np.array([True, False, True, False])
    one = BadDataTest(h, p, r, varying, np.array([3, 1]))
    now = BadDataTest(h, np.where(varying, factor * p, p), r)
    factors = np.array([1.0, factor])
    for found, as_stated, as_now in zip(
        one.statistics(nu, factors),
        BadDataTest(h, p, r).statistics(nu),
        now.statistics(nu),
        strict=True,
    ):
        columns = [3, 1] if as_now.shape[1:] == (4,) else slice(None)
        expected = np.stack([as_stated[0], as_now[1]])
        expected = expected[:, columns] if expected.ndim > 1 else expected
        np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-10)


@given(SEEDS, st.permutations(range(7)), st.permutations(range(4)))
def test_another_order_of_the_labels_changes_nothing_but_the_order(
    seed: int, rows: list[int], columns: list[int]
) -> None:
    h, p, r = _case(seed)
    nu = np.random.default_rng(seed + 1).normal(size=(3, 7))
    j, measured, states = BadDataTest(h, p, r).statistics(nu)
    shuffled = BadDataTest(h[np.ix_(rows, columns)], p[columns], r[rows])
    j_2, measured_2, states_2 = shuffled.statistics(nu[:, rows])
    np.testing.assert_allclose(j_2, j, rtol=1e-9)
    np.testing.assert_allclose(measured_2, measured[:, rows], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(states_2, states[:, columns], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("probability", [0.2, 0.05, 0.01])
def test_false_alarms_on_normal_data_come_at_the_stated_rate(probability: float) -> None:
    h, p, r = _case(3, m=20, n=12)
    rng = np.random.default_rng(17)
    n = 40_000
    x = rng.normal(size=(n, 12)) * np.sqrt(p)
    nu = x @ h.T + rng.normal(size=(n, 20)) * np.sqrt(r)
    test = BadDataTest(h, p, r)
    j, measured, states = test.statistics(nu)
    # A binomial share lies within four of its deviations but once in 15,000 draws.
    slack = 4.0 * np.sqrt(probability * (1.0 - probability) / n)
    limit = chi_square_threshold(probability, test.degrees_of_freedom)
    assert abs(float((j > limit).mean()) - probability) < slack
    residuals = np.concatenate([measured, states], axis=1)
    np.testing.assert_allclose(residuals.std(axis=0), 1.0, atol=0.02)
    largest = np.abs(residuals).max(axis=1)
    # Bonferroni bounds it from above.
    assert float((largest > normal_threshold(probability, 32)).mean()) < probability + slack


@given(SEEDS, st.integers(0, 6), st.floats(0.5, 50.0))
def test_the_largest_normalised_residual_is_that_of_the_only_gross_error(
    seed: int, bad: int, size: float
) -> None:
    # Abur and Gomez Exposito, section 5.7: holds for a single error and no noise.
    h, p, r = _case(seed)
    nu = np.zeros((1, 7))
    nu[0, bad] = size
    _, measured, states = BadDataTest(h, p, r).statistics(nu)
    assert np.abs(measured[0, bad]) >= max(np.abs(measured).max(), np.abs(states).max()) - 1e-9


def test_a_state_that_nothing_measures_has_no_residual() -> None:
    h = np.array([[1.0, 0.0], [2.0, 0.0]])
    _, _, states = BadDataTest(h, np.ones(2), np.ones(2)).statistics(np.array([[3.0, -1.0]]))
    assert states[0, 1] == 0.0
    assert states[0, 0] != 0.0


def test_thresholds_are_those_of_the_tables() -> None:
    # Upper percentage points of the chi-square distribution, as in any table.
    assert chi_square_threshold(0.05, 10) == pytest.approx(18.307, abs=5e-4)
    assert chi_square_threshold(0.01, 100) == pytest.approx(135.807, abs=5e-4)
    assert normal_threshold(0.05, 1) == pytest.approx(1.95996, abs=1e-5)
    assert normal_threshold(0.05, 10) == pytest.approx(2.80703, abs=1e-5)  # Bonferroni: 0.0025
