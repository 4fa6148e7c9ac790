"""The consumer market as a controller: the protocol, requests met, mail that is lost, options."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from controllers.core.compliance import check_controller
from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray
from controllers.core.mail_loop import MailLoop, Post
from controllers.core.ports import Port
from controllers.core.protocol import ControlSite
from controllers.core.sample_site import sample_feeder, sample_site
from controllers.market.agents.consumer.controller import CMO, ConsumerMarket
from grid_models.feeder.model import Der, VehicleUse

PERIOD_S, N = 300.0, 6
DERS = (
    Der("house_1", "house", "b1", (1,), 8.0, 0.0, -8.0),
    Der("battery_1", "battery", "b1", (1,), 3.0, 3.0, -3.0, 10.0),
    Der("house_2", "house", "b2", (1,), 6.0, 0.0, -6.0),
    Der("vehicle_2", "vehicle", "b2", (1,), 4.0, 0.0, -4.0, 40.0,
        vehicle=VehicleUse(leave_h=9.0, return_h=17.0, trip_kwh=8.0)),
    Der("pv_3", "pv", "b3", (1,), 4.0, 4.0),
)  # fmt: skip
OPTIONS: dict[str, Any] = {"interval_s": 1800.0, "horizon": 4, "request": [0.6] * 24}
KNOWN = {"battery_1": 5.0, "vehicle_2": 20.0, "house_1": 24.5, "house_2": 23.0}


def site() -> ControlSite:
    return ControlSite(sample_feeder(), DERS, PERIOD_S, seed=4)


def loop(post: Post | None = None, parts: int = 1, **options: Any) -> MailLoop:
    """Return a market whose devices stay where they are, and do what they are told."""
    place, told = site(), {der.name: 0.0 for der in DERS}
    names = ConsumerMarket.agents(place, **OPTIONS | options)
    shares = np.array_split(np.array(names, dtype=object), parts)
    hosts = [ConsumerMarket(place, tuple(map(str, s)), **OPTIONS | options) for s in shares]

    def measure(port: Port, _: int) -> FloatArray:
        known = told if port.name == "p_kw" else KNOWN
        return np.array([known[label] for label in port.labels])

    out = MailLoop(hosts, post, measure, PERIOD_S)
    step = out.step

    def stepped() -> Any:
        done = step()
        told.update({k[1]: v for k, v in out.outputs(done).items() if k[0] == "p_set_kw"})
        told["pv_3"] = 0.0  # a site without a grid has no sun
        return done

    out.step = stepped  # type: ignore[method-assign]
    return out


def run(market: MailLoop, steps: int) -> list[dict[tuple[str, str], float]]:
    return [market.outputs(market.step()) for _ in range(steps)]


def total(out: dict[tuple[str, str], float], port: str) -> float:
    return sum(value for (name, _), value in out.items() if name == port)


def test_it_follows_the_protocol() -> None:
    near = sample_site(period_s=10.0)
    check_controller(ConsumerMarket, near, interval_s=60.0, horizon=2, gate=1)


def test_homes_set_what_was_requested_and_books_balance() -> None:
    outs = run(loop(), 4 * N + 1)
    for k, out in enumerate(outs):
        if k + 1 < N:
            assert out["request_kw", CMO] == 0.0, "no market in the first interval"
            continue
        assert total(out, "home_set_kw") == pytest.approx(out["request_kw", CMO], abs=1e-9)
        room = out["offered_max_kw", CMO] - out["baseline_kw", CMO]
        assert room > 0.0
        asked = out["request_kw", CMO] - out["baseline_kw", CMO]
        assert asked == pytest.approx(0.6 * room)
        # What the homes are set to is what their devices are told, PV aside: it is not limited.
        sets = {name: v for (port, name), v in out.items() if port == "p_set_kw"}
        assert sets["house_1"] + sets["battery_1"] == pytest.approx(out["home_set_kw", "cma_1"])
        assert sets["house_2"] + sets["vehicle_2"] == pytest.approx(out["home_set_kw", "cma_2"])
    last = outs[-1]
    assert last["cmo_pays_money", CMO] > 0.0
    paid = total(last, "home_pays_money") + last["uplift_money", CMO]
    assert paid == pytest.approx(last["cmo_pays_money", CMO], abs=1e-9)


def test_bad_mail_gives_the_same_in_any_partition_and_stops_nobody() -> None:
    post = Post(loss=0.2, max_delay_steps=1, duplication=0.2, seed=5)
    whole, parts = loop(post), loop(post, parts=4)
    for _ in range(4 * N):
        outs = [run(market, 1)[0] for market in (whole, parts)]
        assert outs[0] == outs[1]
    host: Any = whole.hosts[0]
    assert host.summary()["consumer_clearings_count"] == 4.0
    assert host.summary()["consumer_bids_missing_count"] <= 2.0


def test_a_home_without_prices_follows_its_plan() -> None:
    out = run(loop(Post(loss=1.0)), 2 * N)[-1]
    for home in ("cma_1", "cma_2", "cma_3"):
        assert out["home_set_kw", home] == out["home_plan_kw", home] != 0.0 or home == "cma_3"
        assert out["home_price_per_kwh", home] == 0.0


def test_what_happens_is_told_once() -> None:
    market = loop(Post(loss=1.0))
    run(market, 2 * N)
    host: Any = market.hosts[0]
    said = [event["event"] for event in host.take_events()]
    assert said.count("bid_missing") == 6
    assert said.count("prices_missing") == 6
    assert host.take_events() == []
    assert host.summary()["consumer_bids_missing_count"] == 6.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"interval_s": 90.0}, "whole minutes"),
        ({"interval_s": 1200.0, "gate": 2}, "at least 5 times"),
        ({"gamma": [0.0, 1.0]}, "gamma"),
        ({"gamma": 3}, r"\[low, high\]"),
        ({"request": [1.0] * 23}, "24 numbers"),
        ({"request": [2.0] * 24}, "request"),
        ({"request_range": [0.5, 0.1]}, "low <= high"),
        ({"policy": "flor"}, "floor"),
        ({"plan": {"delta_hi": 0.3}}, "delta_high"),
        ({"forecast_errors": {"base_std": -1.0}}, "base_std"),
        ({"forecast_errors": 0.1}, "a mapping"),
        ({"horizn": 3}, "horizon"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ControllerError, match=words):
        ConsumerMarket(site(), (CMO,), **OPTIONS | options)


def test_a_site_without_homes_is_refused() -> None:
    with pytest.raises(ControllerError, match="there is no home"):
        ConsumerMarket.agents(ControlSite(sample_feeder(), (), PERIOD_S))
