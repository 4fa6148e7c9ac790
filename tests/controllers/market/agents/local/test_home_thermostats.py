"""Homes behind a thermostat, and homes that the market may not move, in a small local market."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray
from controllers.core.mail_loop import MailLoop
from controllers.core.ports import Port
from controllers.core.protocol import ControlSite
from controllers.core.sample_site import sample_feeder
from controllers.market.agents.local.controller import LocalMarket
from controllers.market.agents.manager import AGENT, ResilienceManager
from grid_models.feeder.model import Der

ROUNDS = 6
OPTIONS: dict[str, Any] = {
    "levels": "primary", "interval_s": 60.0, "primary_interval_s": 60.0, "price_scale": 4.0,
    "flexibility": [0.5, 0.5],
}  # fmt: skip


def site() -> ControlSite:
    """Return a site with eight houses at two buses."""
    ders = tuple(
        Der(f"house_{bus}_2_{k}", "house", bus, (2,), 7.0, 0.0, -7.0)
        for bus in ("b3", "b4")
        for k in range(4)
    )
    return ControlSite(replace(sample_feeder(), loads=(), ders=ders), ders, 10.0, seed=3)


def last(intervals: int = 4, temp_c: float = 24.0, **options: Any) -> dict[str, dict[str, float]]:
    """Return the outputs after some intervals in which every house draws 6 kW at 34 degrees."""
    hot = replace(site(), outlook=_hot_day)
    given = OPTIONS | options
    market = LocalMarket(hot, LocalMarket.agents(hot, **given), **given)

    def measure(port: Port, k: int) -> FloatArray:
        return np.full(len(port.labels), {"p_kw": -6.0, "temp_c": temp_c}.get(port.name, np.nan))

    loop = MailLoop([market], None, measure, 10.0)
    outputs: Any = {}
    for _ in range(ROUNDS * intervals):
        (done,) = loop.step()
        outputs = done.outputs
    return {
        port.name: dict(zip(port.labels, outputs[port.name].tolist(), strict=True))
        for port in market.outputs
    }


def _hot_day() -> Any:
    from grid_models.profiles.table import Profiles

    return Profiles({"time_s": [0.0, 86400.0], "temp_c": [34.0, 34.0], "price_per_kwh": [1.0, 1.0]})


def test_a_thermostat_gets_a_set_point_for_what_its_home_is_awarded() -> None:
    told = last(thermostats=["house_b3_*"])
    assert sorted(told["cool_set_c"]) == [f"house_b3_2_{k}" for k in range(4)]
    free = last(thermostats=["house_b3_*"], flexible_homes=["home_b4_*"])
    for house, cool_c in told["cool_set_c"].items():
        home = house.replace("house", "home")
        assert told["home_set_kw"][home] > told["home_bid_kw"][home] + 0.05
        assert 20.0 < cool_c < 28.0
        # Its own set-point is that of the thermostat that nothing was asked of.
        assert free["home_set_kw"][home] == free["home_bid_kw"][home]
        assert np.isnan(free["cool_set_c"][house])
    other = [h for h in told["home_bid_kw"] if h.startswith("home_b4")]
    assert any(free["home_set_kw"][h] > free["home_bid_kw"][h] + 0.05 for h in other)


def test_without_thermostats_there_is_no_such_port() -> None:
    assert "cool_set_c" not in last(intervals=1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"thermostats": ["hause_*"]}, ["no house is called 'hause_*'", "thermostats"]),
        ({"flexible_homes": ["home_b9_*"]}, ["no home is called", "flexible_homes", "home_b"]),
        ({"thermostats": "house_*"}, ["thermostats", "a list of names or globs"]),
    ],
)
def test_names_that_match_nothing_are_refused(options: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ControllerError) as caught:
        LocalMarket(site(), LocalMarket.agents(site()), **(OPTIONS | options))
    for word in words:
        assert word in str(caught.value)


def test_the_manager_watches_the_operators_of_the_local_market() -> None:
    manager = ResilienceManager(
        site(), (AGENT,), market="local-market", interval_s=60.0, sample_s=10.0, settle_s=60.0
    )
    options = OPTIONS | {"manager": AGENT}
    market = LocalMarket(site(), LocalMarket.agents(site(), **options), **options)
    mine, its = manager, market
    assert {x.key for x in mine.links_in} == {x.key for x in its.links_out if x.target == AGENT}
    assert {x.key for x in mine.links_out} == {x.key for x in its.links_in if x.source == AGENT}
