"""Offers and bills: what is refused, late, repeated or lost, and what becomes of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.core.mail import FloatArray
from controllers.market.agents.local.bills import Bills
from controllers.market.agents.local.offers import (
    GAMMA,
    KNOWN,
    METERED,
    OFFER_FIELDS,
    P0,
    P_MAX,
    P_MIN,
    Q_ROOM,
    OfferBook,
    metered,
    summed,
)

NAMES = ("home_a", "home_b", "home_c")


def offer(interval: float, p0: float = -1.0, room: float = 0.5) -> FloatArray:
    row = np.zeros(len(OFFER_FIELDS))
    row[0], row[P0], row[GAMMA], row[KNOWN], row[METERED] = interval, p0, 0.1, 1.0, p0
    row[P_MIN], row[P_MAX] = p0 - room, p0 + room
    return row


def take(book: OfferBook, sender: int, row: FloatArray, now: int) -> list[str]:
    book.take(np.array([sender]), row[None], now)
    return [f"{e['event']} {','.join(e['agents'])}" for e in book.take_events()]


@pytest.mark.parametrize(
    ("field", "value", "event"),
    [
        (1, np.nan, "offer_not_finite home_b"),
        (METERED.start, np.inf, "offer_not_finite home_b"),
        (P_MIN.start, 5.0, "offer_contradictory home_b"),
        (GAMMA, 0.0, "offer_contradictory home_b"),
        (P_MIN.start, -100.1, "offer_implausible home_b"),
        (Q_ROOM, 200.0, "offer_implausible home_b"),
        (0, 9.0, "offer_misdated home_b"),
        (0, -1.0, "offer_misdated home_b"),
        (0, 1e300, "offer_not_finite home_b"),
    ],
)
def test_an_offer_that_is_none_is_refused_and_the_last_good_one_stays(
    field: int, value: float, event: str
) -> None:
    book = OfferBook(NAMES, 3, np.full(len(NAMES), 100.0))
    assert take(book, 1, offer(4), 3) == []
    bad = offer(5)
    bad[field] = value
    assert take(book, 1, bad, 4) == [event]
    assert take(book, 1, bad, 4) == []  # told once per interval
    np.testing.assert_array_equal(book.rows[1], offer(4))
    received, odd = book.count()
    assert (received[1], odd[1]) == (3.0, 2.0)


def test_a_range_that_noise_turned_round_holds_its_baseline() -> None:
    book = OfferBook(NAMES, 3, np.full(len(NAMES), 100.0))
    noisy = offer(4, room=0.0)
    noisy[P_MIN], noisy[P_MAX], noisy[Q_ROOM] = -0.95, -1.04, -0.02
    assert take(book, 0, noisy, 3) == []
    kept = book.rows[0]
    assert (kept[P_MIN] == -1.0).all()
    assert (kept[P_MAX] == -1.0).all()
    assert kept[Q_ROOM] == 0.0


def test_a_late_offer_is_used_and_told_a_repeated_or_overtaken_one_is_not_used() -> None:
    book = OfferBook(NAMES, 3, np.full(len(NAMES), 100.0))
    take(book, 0, offer(5), 4)
    assert take(book, 0, offer(5, p0=-9.0), 4) == []
    assert take(book, 0, offer(4, p0=-9.0), 4) == []
    assert book.rows[0, P0.start] == -1.0
    assert take(book, 0, offer(6, p0=-2.0), 6) == ["offer_late home_a"]
    assert book.rows[0, P0.start] == -2.0


def test_who_is_silent_keeps_its_baseline_without_a_range_and_its_meter_does_not_count() -> None:
    book = OfferBook(NAMES, 2, np.full(len(NAMES), 100.0))
    take(book, 0, offer(1), 0)
    fresh = book.usable(1)
    assert fresh[0, P_MAX.start] == -0.5
    assert np.isfinite(metered(fresh)[0]).all()
    assert np.isnan(metered(book.usable(2))[0]).all()
    silent = book.usable(4)
    np.testing.assert_array_equal(silent[0, P_MIN], silent[0, P0])
    assert book.take_events() == [{"event": "agent_silent", "agents": ["home_a"]}]
    take(book, 0, offer(5), 4)
    book.usable(5)
    assert book.take_events() == [{"event": "agent_back", "agents": ["home_a"]}]


def test_offers_add_up_and_disutilities_like_parallel_resistances() -> None:
    rows = np.array([offer(2, -1.0), offer(2, -2.0), offer(2, 3.0)])
    rows[1, KNOWN] = 0.0
    total = summed(np.array([0, 0, 1]), rows, 2, 2)
    np.testing.assert_allclose(total[:, P0.start], [-3.0, 3.0])
    np.testing.assert_allclose(total[:, GAMMA], [0.05, 0.1])
    np.testing.assert_array_equal(total[:, KNOWN], [0.0, 1.0])


@settings(max_examples=50)
@given(data=st.data())
def test_lost_and_repeated_bills_cost_nobody_anything(data: st.DataObject) -> None:
    owner = np.array([0, 0, 1, 1, 1])
    bills = Bills(owner, 2)
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    billed = np.zeros(2, dtype=np.int64)
    for _ in range(12):
        billed += rng.integers(-1000, 5000, 2)
        heard = np.flatnonzero(rng.random(2) < 0.6)

        def shares(new: np.ndarray) -> np.ndarray:
            out = np.zeros(5, dtype=np.int64)
            out[0], out[2] = new[0] - 7, new[1] + 5
            out[1], out[4] = 7, -5
            return out

        for _ in range(int(rng.integers(1, 3))):  # the second time it is a repetition
            bills.take(heard, billed[heard].astype(float), shares)
        assert np.bincount(owner, bills.divided).tolist() == bills.received.tolist()
    bills.take(np.array([0, 1]), np.array([np.nan, 1e300]), shares)
    bills.take(np.array([0, 1]), billed.astype(float), shares)
    assert np.bincount(owner, bills.divided).tolist() == billed.tolist()
