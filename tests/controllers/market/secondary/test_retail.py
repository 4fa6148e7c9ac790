"""The retail tariff: bills are paid to the last unit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.market.model.errors import MarketError
from controllers.market.secondary.retail import retail_tariffs, retail_units

kw = st.one_of(st.just(0.0), st.floats(-50, 50))


@st.composite
def bills(draw: st.DrawFn) -> dict[str, np.ndarray]:
    counts = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    n, m = len(counts), sum(counts)
    whole = st.integers(-(10**9), 10**9)
    return {
        "bill_units": np.array(draw(st.lists(whole, min_size=n, max_size=n)), np.int64),
        "p_kw": np.array(draw(st.lists(kw, min_size=m, max_size=m))),
        "owner": np.repeat(np.arange(n), counts),
        "price_per_kwh": np.array(draw(st.lists(st.floats(-1, 1), min_size=n, max_size=n))),
    }


@given(bills())
def test_agents_pay_the_bill_exactly(case: dict[str, np.ndarray]) -> None:
    pays = retail_units(**case, hours=1 / 60)
    paid = np.zeros(len(case["bill_units"]), np.int64)
    np.add.at(paid, case["owner"], pays)
    assert (paid == case["bill_units"]).all()
    moved = np.bincount(case["owner"], weights=np.abs(case["p_kw"]))
    idle = (case["p_kw"] == 0) & (moved[case["owner"]] > 0)
    assert (pays[idle] == 0).all()


@given(bills())
def test_equal_agents_differ_by_a_unit_at_most(case: dict[str, np.ndarray]) -> None:
    case["p_kw"] = np.full_like(case["p_kw"], -3.0)
    pays = retail_units(**case, hours=0.1)
    for i in range(len(case["bill_units"])):
        assert np.ptp(pays[case["owner"] == i]) <= 1


def test_load_and_generation_have_the_price_and_the_same_surcharge() -> None:
    """Energy at 0.1 costs 0.6 net; the other 0.3 of the bill falls on 10 kWh moved."""
    p_kw, owner = np.array([-8.0, 2.0]), np.zeros(2, np.int64)
    pays = retail_units(np.array([900_000]), p_kw, owner, price_per_kwh=np.array([0.1]), hours=1.0)
    assert pays.tolist() == [1_040_000, -140_000]
    load, generation = retail_tariffs(pays, p_kw, owner, 1, hours=1.0)
    assert load[0] == pytest.approx(0.13)
    assert generation[0] == pytest.approx(0.07)


def test_generation_that_nearly_balances_the_load_has_no_wild_price() -> None:
    p_kw, owner = np.array([-5.0, 4.999]), np.zeros(2, np.int64)
    pays = retail_units(np.array([1000]), p_kw, owner, price_per_kwh=np.array([0.1]), hours=1.0)
    load, generation = retail_tariffs(pays, p_kw, owner, 1, hours=1.0)
    np.testing.assert_allclose([load[0], generation[0]], 0.1, atol=2e-4)


def test_no_tariff_where_there_is_no_energy() -> None:
    load, generation = retail_tariffs(
        np.array([5, 0]), np.array([-1.0, 0.0]), np.array([0, 1]), 2, hours=1.0
    )
    assert np.isfinite(load[0])
    assert np.isnan([generation[0], load[1], generation[1]]).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"p_kw": np.array([np.nan])}, r"p_kw\[0\] is nan; expected a finite number"),
        ({"hours": 0.0}, "hours is 0.0; expected above 0"),
        ({"bill_units": np.array([1.5])}, "expected whole units of money"),
        ({"price_per_kwh": np.array([1e14])}, "expected a larger unit of money"),
        (
            {"bill_units": np.array([0, 7]), "price_per_kwh": np.zeros(2)},
            "operator 1 has a bill of 7 units and no agents",
        ),
    ],
)
def test_bills_that_are_none(change: dict, words: str) -> None:
    case = {
        "bill_units": np.array([7]),
        "p_kw": np.array([-1.0]),
        "owner": np.array([0]),
        "price_per_kwh": np.array([0.1]),
        "hours": 1.0,
    }
    with pytest.raises(MarketError, match=words):
        retail_units(**case | change)
