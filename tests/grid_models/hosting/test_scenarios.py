from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grid_models.base.errors import FeederError
from grid_models.hosting.scenarios import (
    DayNoise,
    drawn_days,
    k_medoids,
    own_day,
    reduced_days,
)
from tests.grid_models.hosting._studies import HOURS, PV_PU, TEMP_C, study

PRICE = np.linspace(0.1, 0.2, len(HOURS))


def test_a_day_is_the_same_however_many_there_are() -> None:
    model = study(True)
    few, many = (drawn_days(model, PRICE, DayNoise(), n, seed=3) for n in (2, 5))
    for name in ("load_pu", "pv_pu", "temp_c", "price"):
        np.testing.assert_array_equal(getattr(few, name), getattr(many, name)[:2])
    other = drawn_days(model, PRICE, DayNoise(), 5, seed=3, name="fresh day")
    assert not np.isclose(other.load_pu, many.load_pu).any()


def test_noise_by_day_is_one_factor_and_by_step_has_its_deviation() -> None:
    model = study(True)
    by_day = drawn_days(model, PRICE, DayNoise(0.1, 0.0, 2.0, 0.0), 400, seed=1)
    assert np.ptp(by_day.load_pu, axis=1).max() == 0.0
    np.testing.assert_allclose(np.ptp(by_day.temp_c - TEMP_C, axis=1), 0.0, atol=1e-12)
    np.testing.assert_allclose(by_day.pv_pu, by_day.pv_pu[:, 3:4] * PV_PU)
    # Deviation of an estimated deviation: 1 / sqrt(2 n), here 3.5 %.
    assert by_day.load_pu[:, 0].std() == pytest.approx(0.1, rel=0.15)
    assert (by_day.temp_c - TEMP_C)[:, 0].std() == pytest.approx(2.0, rel=0.15)
    by_step = drawn_days(model, PRICE, DayNoise(0.0, 0.1, 0.0, 2.0), 400, seed=1)
    assert by_step.load_pu.std() == pytest.approx(0.1, rel=0.15)
    assert abs(np.corrcoef(by_step.load_pu.T)[0, 1]) < 0.2
    none = drawn_days(model, PRICE, DayNoise(0.0, 0.0, 0.0, 0.0), 2, seed=1)
    two = own_day(model, PRICE).joined(own_day(model, PRICE))
    for name in ("load_pu", "pv_pu", "temp_c", "price", "weight"):
        np.testing.assert_array_equal(getattr(none, name), getattr(two, name))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4))
def test_medoids_are_no_worse_than_any_exchange(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    points, weight = rng.normal(size=(9, 2)), rng.uniform(0.5, 1.5, size=9)
    distance = np.linalg.norm(points[:, None] - points, axis=2)

    def total(medoids: tuple[int, ...]) -> float:
        return float((distance[list(medoids)].min(axis=0) * weight).sum())

    medoids, member = k_medoids(distance, k, weight)
    found = total(tuple(medoids))
    assert found == pytest.approx((distance[medoids[member], np.arange(9)] * weight).sum())
    others = [c for c in combinations(range(9), k) if len(set(c) & set(medoids.tolist())) >= k - 1]
    assert found <= min(map(total, others)) * (1.0 + 1e-9)


def test_reduced_days_are_days_with_the_probability_of_those_they_stand_for() -> None:
    model = study(True)
    days = drawn_days(model, PRICE, DayNoise(), 20, seed=2)
    few, member = reduced_days(days, 4)
    assert few.weight.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(few.weight, np.bincount(member, minlength=4) / 20)
    assert all((row == days.load_pu).all(axis=1).any() for row in few.load_pu)
    same, member = reduced_days(days, 20)
    np.testing.assert_array_equal(same.load_pu, days.load_pu)
    np.testing.assert_array_equal(member, np.arange(20))
    with pytest.raises(FeederError, match="cannot find 21 medoids"):
        reduced_days(days, 21)
