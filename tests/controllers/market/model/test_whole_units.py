"""Amounts as whole units: sums are exact, rounding goes by largest remainder."""

import numpy as np
import pytest

from controllers.market.model.errors import MarketError
from controllers.market.model.whole_units import divided


def test_the_largest_remainders_get_the_units_that_are_left() -> None:
    owner = np.array([0, 0, 0, 2, 2])
    amounts = np.array([1.2, 1.7, 1.1, -0.5, -0.5])
    assert divided(amounts, owner, np.array([4, 0, -1])).tolist() == [1, 2, 1, 0, -1]


def test_who_takes_nothing_gets_nothing_of_the_rounding() -> None:
    owner, takes = np.zeros(3, np.int64), np.array([False, True, True])
    assert divided(np.array([0.0, 1.4, 1.4]), owner, np.array([3]), takes).tolist() == [0, 2, 1]


def test_a_total_far_from_the_sum_is_divided_all_the_same() -> None:
    units = divided(np.array([1.0, 2.0]), np.zeros(2, np.int64), np.array([-10]))
    assert units.sum() == -10
    assert abs(int(units[1] - units[0]) - 1) <= 1


def test_amounts_that_are_not_exact_are_refused() -> None:
    owner = np.zeros(1, np.int64)
    for amount in (np.inf, np.nan, 1e17):
        with pytest.raises(MarketError, match="too many units"):
            divided(np.array([amount]), owner, np.array([0]))
