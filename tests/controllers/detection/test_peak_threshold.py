"""Thresholds from the peaks of clean data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.detection.peak_threshold import BLOCKS, LARGEST, block_maxima, level, usual_peak


@given(st.integers(BLOCKS, 400), st.integers(0, 2**32 - 1))
def test_blocks_are_equally_long_and_hold_everything(steps: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(steps, 3))
    maxima = block_maxima(values)
    assert maxima.shape == (BLOCKS, 3)
    np.testing.assert_array_equal(maxima.max(axis=0), values.max(axis=0))
    lengths = np.array([np.count_nonzero(block_maxima(np.eye(steps)), axis=1)])
    assert lengths.sum() == steps
    assert lengths.max() - lengths.min() <= 1


@pytest.mark.parametrize("expected", [0.3, 0.04, 0.004])
@pytest.mark.parametrize("scale", [1.0, 50.0])
def test_the_level_is_exceeded_as_often_as_asked(expected: float, scale: float) -> None:
    # The law is exact for exponential maxima: over histories and what comes after them.
    rng = np.random.default_rng(11)
    n = 40_000
    histories, after = rng.exponential(scale, (n, BLOCKS)), rng.exponential(scale, n)
    exceeded = float((after > [level(history, expected) for history in histories]).mean())
    assert abs(exceeded - expected) < 4.0 * np.sqrt(expected / n)


def test_with_a_normal_tail_it_is_exceeded_less_often() -> None:
    rng = np.random.default_rng(12)
    n, expected = 20_000, 0.01
    values = np.abs(rng.normal(size=(n, BLOCKS + 1, 50))).max(axis=2)
    exceeded = np.mean([row[-1] > level(row[:-1], expected) for row in values])
    assert exceeded < expected


@given(st.integers(0, 2**32 - 1), st.floats(1e-9, 0.3), st.floats(0.1, 100.0))
def test_rarer_is_higher_and_the_unit_does_not_matter(
    seed: int, expected: float, unit: float
) -> None:
    maxima = np.random.default_rng(seed).exponential(1.0, BLOCKS)
    at = level(maxima, expected)
    assert at >= usual_peak(maxima)
    assert np.count_nonzero(maxima > usual_peak(maxima)) == LARGEST
    assert level(maxima, 0.5 * expected) > at
    assert level(unit * maxima, expected) == pytest.approx(unit * at, rel=1e-9)


def test_where_alarms_may_be_frequent_the_tail_says_nothing() -> None:
    maxima = np.arange(1.0, BLOCKS + 1.0)
    assert level(maxima, 0.5) == -np.inf
    assert level(np.zeros(BLOCKS), 1e-6) == 0.0
