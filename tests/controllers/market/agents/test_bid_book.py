"""What the market operator does with bids that cannot be used."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from _market_cases import grown_problem

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray
from controllers.market.agents.bid_book import BidBook, bid_faults
from controllers.market.model.checks import RANGES, check_bids
from controllers.market.model.errors import BidError
from controllers.market.model.participants import BID_FIELDS
from controllers.market.model.problem import Bids

GOOD = {
    "p_load0": 0.10, "q_load0": 0.03, "p_load_min": 0.08, "p_load_max": 0.10, "p_gen_min": 0.0,
    "p_gen_max": 0.05, "q_gen_min": -0.01, "q_gen_max": 0.01, "alpha_p": 1440.0, "alpha_q": 1440.0,
    "beta": 5000.0,
}  # fmt: skip


def bid(**changed: float) -> FloatArray:
    return np.array([[{**GOOD, **changed}[name] for name in BID_FIELDS]])


def take(book: BidBook, row: FloatArray, made_for: int, now: int) -> list[tuple[str, str]]:
    return book.take(np.array([0]), np.array([made_for]), row, now)


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({}, None),
        ({"p_load0": np.nan}, "bid_not_finite"),
        ({"beta": np.inf}, "bid_not_finite"),
        ({"p_load_min": 0.2}, "bid_contradictory"),
        ({"p_gen_min": 0.06}, "bid_contradictory"),
        ({"q_gen_min": 0.02}, "bid_contradictory"),
        ({"p_load0": 0.2}, "bid_contradictory"),
        ({"alpha_p": 0.0}, "bid_without_cost"),
        ({"beta": -1.0}, "bid_without_cost"),
    ],
)
def test_faults_of_a_bid_have_names(changed: dict[str, float], fault: str | None) -> None:
    assert bid_faults(bid(**changed)) == [fault]


def test_a_bad_bid_leaves_the_last_good_one_in_the_book() -> None:
    book = BidBook(("smo_1", "smo_2"))
    assert take(book, bid(), 0, 0) == []
    assert take(book, bid(p_load_min=0.2), 1, 1) == [("bid_contradictory", "smo_1")]
    assert np.array_equal(book.bids[0], bid()[0])
    assert book.known.tolist() == [True, False]


@pytest.mark.parametrize("more", [5e-324, 5e-10, 1e-3])
@pytest.mark.parametrize(("low", "high"), RANGES)
def test_what_the_book_lets_in_can_be_cleared(low: str, high: str, more: float) -> None:
    # Book and solver once disagreed by 1e-9 on what a range is: one bid stopped the market.
    problem = grown_problem(3)
    flat = dict.fromkeys(("p_load0", "p_load_min", "p_load_max", low, high), 0.0)
    for over in (0.0, more):
        row = bid(**{**flat, low: over})
        taken = bid_faults(row)[0] is None
        numbers = dict(zip(BID_FIELDS, row[0], strict=True))
        bids = Bids(**{name: np.full(3, value) for name, value in numbers.items()})
        assert taken == (over == 0.0)
        if taken:
            check_bids(replace(problem, bids=bids))
        else:
            with pytest.raises(BidError, match=low):
                check_bids(replace(problem, bids=bids))


def test_a_fault_is_told_once_per_operator_and_interval() -> None:
    book = BidBook(("smo_1",))
    assert len(take(book, bid(beta=np.nan), 0, 0)) == 1
    assert take(book, bid(beta=np.nan), 0, 0) == []
    assert len(take(book, bid(beta=np.nan), 1, 1)) == 1


def test_a_late_bid_is_used_and_counted() -> None:
    book = BidBook(("smo_1",))
    take(book, bid(), 0, 0)
    assert take(book, bid(p_gen_max=0.04), 2, 3) == [("bid_late", "smo_1")]
    assert book.bids[0][BID_FIELDS.index("p_gen_max")] == 0.04


def test_an_overtaken_bid_is_dropped() -> None:
    book = BidBook(("smo_1",))
    take(book, bid(p_gen_max=0.04), 3, 3)
    assert take(book, bid(), 2, 3) == []
    assert book.bids[0][BID_FIELDS.index("p_gen_max")] == 0.04


def test_a_bid_for_an_interval_to_come_is_refused() -> None:
    book = BidBook(("smo_1",))
    assert take(book, bid(), 7, 3) == [("bid_misdated", "smo_1")]
    assert not book.known.any()


def test_two_operators_of_one_name_are_refused() -> None:
    with pytest.raises(ControllerError, match="two market operators are called 'smo_1'"):
        BidBook(("smo_1", "smo_2", "smo_1"))
