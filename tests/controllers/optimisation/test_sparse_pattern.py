"""Sparse matrices with fixed places, beside dense ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from controllers.optimisation.sparse_pattern import Pattern, SquarePattern


@st.composite
def entries(draw: st.DrawFn) -> tuple[Pattern, NDArray[np.float64]]:
    """Return places, some of them several times, and values."""
    m, n = draw(st.integers(0, 6)), draw(st.integers(1, 6))
    places = st.lists(st.tuples(st.integers(0, m - 1), st.integers(0, n - 1)), max_size=20)
    chosen = np.array(draw(places) if m else [], np.int64).reshape(-1, 2)
    values = np.random.default_rng(draw(st.integers(0, 99))).standard_normal(len(chosen))
    return Pattern(chosen[:, 0], chosen[:, 1], (m, n)), values


def dense(pattern: Pattern, values: NDArray[np.float64]) -> NDArray[np.float64]:
    matrix = np.zeros(pattern.shape)
    np.add.at(matrix, (pattern.rows, pattern.columns), values)
    return matrix


@given(entries())
@settings(max_examples=60)
def test_products_are_those_of_the_dense_matrix(
    example: tuple[Pattern, NDArray[np.float64]],
) -> None:
    pattern, values = example
    matrix, (m, n) = dense(pattern, values), pattern.shape
    x, y = np.arange(1.0, n + 1), np.arange(1.0, m + 1)
    np.testing.assert_allclose(pattern.matrix(values).toarray(), matrix, atol=1e-12)
    np.testing.assert_allclose(pattern.times(values, x), matrix @ x, atol=1e-12)
    np.testing.assert_allclose(pattern.transposed_times(values, y), matrix.T @ y, atol=1e-12)


@given(st.integers(1, 12), st.integers(0, 99))
@settings(max_examples=40)
def test_factors_in_a_fixed_order_solve(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    more = rng.integers(0, n, (2, 2 * n))
    every = np.tile(np.arange(n), (2, 1))
    rows, columns = np.concatenate((every, more, more[::-1]), axis=1)
    pattern = SquarePattern(rows, columns, n)
    values = rng.standard_normal(5 * n) + np.where(rows == columns, 9.0, 0.0)
    matrix = np.zeros((n, n))
    np.add.at(matrix, (rows, columns), values)
    right = rng.standard_normal((n, 2))
    solve = pattern.factor(values)
    np.testing.assert_allclose(solve(right), np.linalg.solve(matrix, right), rtol=1e-6)
    np.testing.assert_allclose(solve(right[:, 0]), solve(right)[:, 0], rtol=1e-12)


def test_a_singular_matrix_is_an_error() -> None:
    pattern = SquarePattern(np.array([0, 1]), np.array([0, 1]), 2)
    with pytest.raises(RuntimeError, match="singular"):
        pattern.factor(np.array([1.0, 0.0]))
