"""Bids that are none: the error names the bus and the field."""

from dataclasses import replace

import numpy as np
import pytest
from _market_cases import grown_problem

from controllers.market.model.checks import check_bids
from controllers.market.model.errors import BidError, MarketError
from controllers.market.solvers.central import CentralMarket

PROBLEM = grown_problem(12)


def bid(field: str, value: float, bus: int = 3) -> object:
    array = np.array(getattr(PROBLEM.bids, field))
    array[bus] = value
    return replace(PROBLEM, bids=replace(PROBLEM.bids, **{field: array}))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("p_load0", np.nan, "is nan"),
        ("q_gen_max", np.inf, "is inf"),
        ("p_gen_min", 9.0, "above p_gen_max"),
        ("p_load_min", 9.0, "above p_load_max"),
        ("q_gen_min", 9.0, "above q_gen_max"),
        ("alpha_p", -1.0, "negative cost"),
        ("beta", -1.0, "negative cost"),
    ],
)
def test_a_bad_bid_names_bus_and_field(field: str, value: float, said: str) -> None:
    with pytest.raises(BidError, match=said) as caught:
        check_bids(bid(field, value))  # type: ignore[arg-type]
    assert (caught.value.bus, caught.value.field) == ("b3", field)
    assert "bid of bus 'b3'" in str(caught.value)


def test_a_bid_of_the_wrong_shape_names_the_field() -> None:
    short = replace(PROBLEM, bids=replace(PROBLEM.bids, beta=np.zeros(3)))
    with pytest.raises(BidError, match=r"beta.*expected an array of 12 numbers"):
        check_bids(short)
    listed = replace(PROBLEM, bids=replace(PROBLEM.bids, beta=[0.0] * 12))  # type: ignore[arg-type]
    with pytest.raises(BidError, match=r"beta: list of shape"):
        check_bids(listed)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"xi": -1.0}, "xi"),
        ({"import_price": np.nan}, "import_price"),
        ({"v_min_pu": 1.1}, "v_min_pu"),
    ],
)
def test_a_bad_price_or_band_is_named(change: dict[str, float], said: str) -> None:
    with pytest.raises(MarketError, match=said):
        check_bids(replace(PROBLEM, **change))


def test_the_market_checks_before_it_solves() -> None:
    market = CentralMarket(PROBLEM.network)
    with pytest.raises(BidError):
        market.clear(bid("p_load0", np.nan))  # type: ignore[arg-type]
    assert market.clear(PROBLEM).status == "solved"
