"""The operator of a consumer market: which bids count, whole books, what bad mail does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from controllers.core.protocol import ControlSite
from controllers.core.sample_site import sample_site
from controllers.market.agents.consumer.operator import ConsumerOperator
from controllers.market.agents.consumer.options import ConsumerMarketOptions
from controllers.market.agents.consumer.outlook import Outlook

HOMES = ("cma_1", "cma_2", "cma_3")
BID = (-2.0, -3.0, -1.0, 0.1)
STEP_H, PER_INTERVAL = 1.0 / 12.0, 6


def operator(site: ControlSite | None = None, **options: Any) -> ConsumerOperator:
    asked = ConsumerMarketOptions(**({"request": [0.5] * 24} | options))
    outlook = Outlook(site or sample_site(), asked)
    return ConsumerOperator(HOMES, asked, outlook, PER_INTERVAL, STEP_H, np.full(3, 5.0))


def bid(one: ConsumerOperator, home: int, interval: float, row: Any = BID, number: int = 0) -> None:
    rows = np.array([[interval, *row]], dtype=np.float64)
    one.take_bids(np.array([home]), np.array([number]), rows, number)


def meter(one: ConsumerOperator, steps: int, energy_kwh: list[float]) -> None:
    rows = np.column_stack([np.full(3, float(steps)), energy_kwh])
    one.take_meters(np.arange(3), np.full(3, steps), rows, steps)


def events(one: ConsumerOperator) -> list[str]:
    return [f"{e['event']} {e.get('home', '')}".strip() for e in one.take_events()]


def test_a_home_that_does_not_bid_is_left_out_and_the_market_goes_on() -> None:
    one = operator()
    bid(one, 0, 1)
    bid(one, 2, 1)
    one.clear(1)
    assert events(one) == ["bid_missing cma_2"]
    out = one.outputs(1)
    assert out["baseline_kw"][0] == -4.0
    assert out["request_kw"][0] == pytest.approx(-3.0)
    assert np.isfinite(one.prices).all()


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ((np.nan, -3.0, -1.0, 0.1), "bid_missing cma_2"),
        ((-2.0, -1.0, -3.0, 0.1), "bid_refused cma_2"),
        ((-2.0, -3.0, -1.0, 0.0), "bid_refused cma_2"),
        ((-2.0, -3.0, 1e9, 0.1), "bid_refused cma_2"),
    ],
)
def test_a_bid_that_is_none_is_an_event(row: tuple[float, ...], said: str) -> None:
    one = operator()
    bid(one, 0, 1)
    bid(one, 1, 1, row)
    bid(one, 2, 1)
    one.clear(1)
    assert events(one) == [said]
    assert one.outputs(1)["baseline_kw"][0] == -4.0


def test_late_and_repeated_bids() -> None:
    one = operator()
    for home in range(3):
        bid(one, home, 1, number=3)
    bid(one, 0, 1, (-1.0, -3.0, -1.0, 0.1), number=4)  # newer: it counts
    bid(one, 1, 1, (-1.0, -3.0, -1.0, 0.1), number=2)  # overtaken by the newer one
    bid(one, 2, 0, number=9)  # of an interval that is over
    one.clear(1)
    assert events(one) == ["bid_missing cma_3"]
    assert one.outputs(1)["baseline_kw"][0] == -3.0


def test_books_balance_to_the_last_unit_whatever_was_metered() -> None:
    rng = np.random.default_rng(3)
    one = operator(policy="floor")
    energy = np.zeros(3)
    for interval in range(1, 40):
        for home in range(3):
            p0 = rng.uniform(-3.0, 2.0)
            row = (p0, p0 - rng.uniform(0, 2), p0 + rng.uniform(0, 2), 0.1)
            bid(one, home, interval, row, number=interval)
        one.clear(interval)
        energy = energy + rng.uniform(-2.0, 2.0, 3) * 0.5
        meter(one, (interval + 1) * PER_INTERVAL, energy.tolist())
        one.settle(interval)
        out = one.outputs(interval + 1)
        units = [round(float(x) * 1e6) for x in out["home_pays_money"]]
        total = round(float(out["cmo_pays_money"][0]) * 1e6)
        assert sum(units) + round(float(out["uplift_money"][0]) * 1e6) == total
    price = 0.15  # of a site without a grid
    assert float(one.outputs(40)["cmo_pays_money"][0]) == pytest.approx(
        -price * energy.sum(), abs=40e-6
    )


def test_a_home_whose_meter_was_not_heard_pays_later() -> None:
    one = operator()
    for home in range(3):
        bid(one, home, 1)
    one.clear(1)
    one.settle(1)
    assert not one.outputs(2)["home_pays_money"].any()
    meter(one, 3 * PER_INTERVAL, [-1.0, -1.0, -1.0])
    one.settle(2)
    assert one.outputs(3)["home_pays_money"] == pytest.approx([0.15, 0.15, 0.15])


def test_forged_meters_and_bids_do_not_stop_the_books() -> None:
    one = operator(plans_know_price=False)
    for home in (0, 2):  # a plan of nearly nothing: the price of energy is beyond all reason
        bid(one, home, 1, (-1e-5, -3.0, 3.0, 1e6))
    one.clear(1)
    meter(one, 2 * PER_INTERVAL, [1e30, -1.0, np.nan])
    one.settle(1)
    out = one.outputs(2)
    assert out["home_pays_money"].sum() == pytest.approx(out["cmo_pays_money"][0], abs=1e-9)
    assert out["home_pays_money"][1] == pytest.approx(0.15)
    assert "billed_at_grid_price" in events(one)


def test_a_negative_price_and_a_request_out_of_reach_are_events() -> None:
    one = operator(plans_know_price=False, request=[0.01] * 24)
    for home in range(3):
        bid(one, home, 1)
    one.clear(1)
    assert events(one) == ["negative_price"]
    assert one.counts["negative_prices"] == 1
    floor = operator(plans_know_price=False, request=[0.01] * 24, policy="floor")
    for home in range(3):
        bid(floor, home, 1)
    floor.clear(1)
    assert events(floor) == []


def test_an_operator_without_any_bid_clears_nothing() -> None:
    one = operator()
    one.clear(1)
    assert events(one) == [f"bid_missing {home}" for home in HOMES]
    assert one.outputs(1)["request_kw"][0] == 0.0
