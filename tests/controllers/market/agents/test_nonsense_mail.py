"""Mail full of nonsense, finite and not: neither the market nor its manager stops."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from controllers.core.mail import Mail
from controllers.core.protocol import ControlSite
from controllers.core.sample_site import sample_feeder
from controllers.market.agents.manager import AGENT, ResilienceManager
from controllers.market.agents.mitigation import STATES
from controllers.market.agents.operator import read_weights
from controllers.market.agents.primary import PrimaryMarket
from grid_models.feeder.model import Der

OPTIONS: dict[str, Any] = {
    "interval_s": 6.0, "generator_cost": {"*": 72.0}, "load_cost": [150.0, 400.0],
    "silent_after_s": 4.0,
}  # fmt: skip
MANAGER: dict[str, Any] = {
    "interval_s": 12.0, "sample_s": 1.0, "sigma_kw": 2.0, "learn_s": 24.0, "settle_s": 6.0,
    "silent_after_s": 4.0,
}  # fmt: skip


def market_site() -> ControlSite:
    ders = (
        Der("gen_b1", "inverter", "b1", (1, 2, 3), 110.0, 100.0),
        Der("gen_b3", "inverter", "b3", (1, 2, 3), 220.0, 200.0),
        Der("load_b3", "flexible_load", "b3", (1, 2, 3), 70.0, -40.0, -60.0),
        Der("load_b4", "flexible_load", "b4", (2,), 110.0, -50.0, -100.0),
    )
    feeder = replace(sample_feeder(), ders=ders)
    return ControlSite(feeder, ders, 1.0, seed=3)


@pytest.mark.parametrize(
    "numbers",
    [
        # Wide messages with one of the first are dropped whole; the others are read.
        [np.nan, np.inf, -1e9, 0.0, 1.0, 1e9],
        [-1e9, 0.0, 1.0, 1e9],
        [-1e300, 1e300, 0.0, 1.0, 1e18, 3e19, -1e308, 1e308],
        [0.0, 0.1, 0.5, 1.0, 2.0],
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_nonsense_in_the_mail_stops_no_market(numbers: list[float], seed: int) -> None:
    site = market_site()
    options = {**OPTIONS, "manager": AGENT, "follow_demand": True}
    market = PrimaryMarket(site, PrimaryMarket.agents(site, **options), **options)
    rng = np.random.default_rng(seed)
    inputs = {"p_kw": np.full(4, np.nan), "demand_pu": np.array([np.nan, -1.0])}
    for k in range(24):
        links = np.arange(len(market.links_in))
        widths = [market.links_in[i].width for i in links]
        values = rng.choice(numbers, size=sum(widths))
        mail = Mail(links, np.full(links.size, k), values)
        step = market.step(float(k), inputs, mail)
        assert all(np.isfinite(v).all() for v in step.outputs.values())
        rating = np.array([market._table.ders[i].kva for i in market._smos.ders])
        assert (np.abs(market._smos.p_set_kw) <= rating).all()
        assert (np.abs(market._smos.q_set_kvar) <= rating[market._smos.generators]).all()
    assert market.take_events()


@pytest.mark.parametrize(
    ("numbers", "read"),
    [
        # A third is not finite: of messages as wide as the answer hardly one is read at all.
        ([np.nan, np.inf, -1e9, 0.0, 1.0, 1e9], False),
        ([-1e9, 0.0, 1.0, 1e9], True),
        ([-1.0, 0.0, 0.4, 1.0, 2.0], True),
        ([-1e300, 1e300, 0.0, 1.0, -1e308, 1e308], False),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_nonsense_in_the_mail_stops_no_manager(numbers: list[float], read: bool, seed: int) -> None:
    manager = ResilienceManager(market_site(), (AGENT,), **MANAGER)
    widths = [link.width for link in manager.links_in]
    rng = np.random.default_rng(seed)
    heard = 0
    for k in range(160):
        values = rng.choice(numbers, size=sum(widths))
        mail = Mail(np.arange(len(widths)), np.full(len(widths), k), values)
        kw = 900.0 + 200.0 * (k > 60)
        inputs = {"import_kw": np.array([kw]), "alarm": np.full(len(manager._names), np.nan)}
        before = manager._answer
        step = manager.step(float(k), inputs, mail)
        heard += manager._answer is not before
        assert all(np.isfinite(v).all() for v in step.outputs.values())
        assert np.isfinite(step.mail.values).all()
    assert (heard > 10) is read


@pytest.mark.parametrize(
    "numbers", [[-1e9, 0.0, 1.0, 1e9], [-1.0, 0.0, 0.4, 1.0, 2.0], [-1e308, 0.0, 1.0, 1e308]]
)
@pytest.mark.parametrize("seed", range(3))
def test_nonsense_beside_a_plausible_schedule_drives_the_manager_and_stops_it_not(
    numbers: list[float], seed: int
) -> None:
    """The operator's schedule and numbers are right, all other numbers are drawn."""
    manager = ResilienceManager(market_site(), (AGENT,), **MANAGER)
    widths = [link.width for link in manager.links_in]
    rng = np.random.default_rng(seed)
    states, number = set(), 0
    for k in range(160):
        values = rng.choice(numbers, size=sum(widths))
        values[-14:-8] = [number, rng.choice([-1.0, 1.0]), values[-12], values[-11], 0.9, 0.0]
        values[-8:] = rng.choice([-1.0, 0.0, 0.5, 1e9], size=8)
        mail = Mail(np.arange(len(widths)), np.full(len(widths), k), values)
        inputs = {"import_kw": np.array([900.0 + 200.0 * (k > 60)]), "alarm": np.zeros(4)}
        step = manager.step(float(k), inputs, mail)
        states.add(STATES[int(step.outputs["state"][0])])
        assert all(np.isfinite(v).all() for v in step.outputs.values())
        if len(step.mail):
            sent = read_weights(step.mail.values)
            assert not isinstance(sent, str)
            number = sent[0]
    assert {"watching", "searching", "settling"} <= states
