"""Prices of a local market as curves and maps, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from federates.reports.local_market import (
    Recorded,
    curve,
    distinct,
    price_map,
    single,
    smo_of,
    without_outliers,
)
from grid_models.catalog import load_feeder


def recorded(values: np.ndarray, labels: tuple[str, ...] = ("smo_1", "smo_7")) -> Recorded:
    return Recorded(np.arange(len(values), dtype=float), labels, values)


def test_reductions_leave_gaps_where_nothing_is_known() -> None:
    found = recorded(np.array([[np.nan, np.nan], [1.0, np.nan], [1.0, 3.0]]))
    spread = found.mean_and_range()
    np.testing.assert_array_equal(spread.low, [np.nan, 1.0, 1.0])
    np.testing.assert_array_equal(spread.mid, [np.nan, 1.0, 2.0])
    np.testing.assert_array_equal(spread.high, [np.nan, 1.0, 3.0])
    np.testing.assert_array_equal(found.total().mid, [np.nan, 1.0, 4.0])
    np.testing.assert_allclose(found.middle_80_percent().high, [np.nan, 1.0, 2.8])


def test_a_sample_far_beyond_the_others_is_a_gap_and_is_counted() -> None:
    values = np.full(100, 0.1) + 0.01 * np.sin(np.arange(100.0))
    spiky = values.copy()
    spiky[[7, 50]] = 900.0, -3.0
    same = curve("price", single(np.arange(100.0), values), "s1")
    assert without_outliers(same) is same
    cut = without_outliers(curve("price", single(np.arange(100.0), spiky), "s1"))
    assert cut.name == "price (2 of 100 samples lie beyond the axis)"
    assert np.flatnonzero(np.isnan(cut.spread.mid)).tolist() == [7, 50]
    gap = curve("price", single(np.arange(3.0), np.full(3, np.nan)), "s1")
    assert without_outliers(gap) is gap


def test_a_tariff_that_equals_the_locational_price_is_shown_once() -> None:
    lmp = recorded(np.array([[np.nan, np.nan], [0.1, 0.2]]))
    other = recorded(lmp.values + 0.01)
    assert list(distinct({"lmp_per_kwh": lmp, "tariff_per_kwh": other})) == [
        "lmp_per_kwh", "tariff_per_kwh"
    ]  # fmt: skip
    (words, _), *rest = distinct({"lmp_per_kwh": lmp, "tariff_per_kwh": lmp}).values()
    assert rest == []
    assert words == "locational price, which is the tariff"


@pytest.mark.parametrize("price", [0.25, 0.0, -0.1])
def test_equal_prices_are_one_class_of_the_map(price: float) -> None:
    figure = price_map("Price", load_feeder("ieee123"), recorded(np.full((2, 2), price)), "per kWh")
    assert figure is not None
    assert [key.name for key in figure.legend if "q" in key.style.split()[-1]] == [
        f"{price:.4f} to {price:.4f}: 2"
    ]


def test_names_of_agents_hold_their_operator() -> None:
    assert smo_of("sma_65_12") == "smo_65"
    assert smo_of("sma_a_b_3") == "smo_a_b"
