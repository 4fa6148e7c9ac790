"""A three-phase clearing by area agents over mail: the central answer, on any links and hosts."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from controllers.core.compliance import check_controller
from controllers.core.mail import Mail
from controllers.core.mail_loop import MailLoop, Post
from controllers.core.protocol import ControlSite
from controllers.market.agents.area_agents import AreaAgents
from controllers.market.agents.operator import COMMIT, SOLVED, TRIAL, weights_message
from controllers.market.agents.primary import PrimaryMarket
from controllers.market.agents.reweighing import Weights
from grid_models.catalog import open_circuit
from grid_models.feeder.model import Der
from grid_models.opendss.port_areas import with_areas
from grid_models.opendss.ports import port_network

ROUNDS = 20
OPTIONS: dict[str, Any] = {
    "interval_s": 6.0,
    "generator_cost": {"*": 72.0},
    "load_cost": [150.0, 400.0],
    "silent_after_s": 4.0,
    "fixed_load_pu": 0.8,
    "mail_rounds": ROUNDS,
    "agreed_kw": 0.02,
    "clearing": "three-phase-admm",
    "clearing_options": {
        "areas": 3,
        "reach_pu": 0.04,
        "weights": {"voltage": 1.0},
        "voltage_price": 20.0,
    },
}
DERS = (
    Der("gen", "inverter", "675", (1, 2, 3), 300.0, 250.0),
    Der("load_a", "flexible_load", "680", (1,), 60.0, -20.0, -50.0),
    Der("load_d", "flexible_load", "684", (3,), 30.0, -5.0, -20.0),
)
BAD = Post(loss=0.2, max_delay_steps=2, duplication=0.1, seed=2)


@cache
def site(period_s: float = 1.0 / ROUNDS) -> ControlSite:
    """Return IEEE 13 with a three-phase generator and two flexible loads."""
    circuit = open_circuit("ieee13", DERS)
    network = with_areas(port_network(circuit), circuit)
    return ControlSite(
        circuit.feeder, DERS, period_s, seed=3, v_min_pu=1.0024, v_max_pu=1.2,
        ports=lambda closed: network,
    )  # fmt: skip


def markets(parts: int = 1, **options: Any) -> list[PrimaryMarket]:
    """Return the agents of a market in some instances."""
    given = {**OPTIONS, **options}
    names = PrimaryMarket.agents(site(), **given)
    shares = np.array_split(np.array(names, dtype=object), parts)
    return [PrimaryMarket(site(), tuple(map(str, share)), **given) for share in shares]


def run(hosts: list[PrimaryMarket], market_steps: int, post: Post | None = None) -> MailLoop:
    """Step the instances, with meters that show nothing."""
    loop = MailLoop(hosts, post, period_s=1.0 / ROUNDS)
    for _ in range(market_steps * ROUNDS):
        loop.step()
    return loop


def operator_of(hosts: list[PrimaryMarket]) -> Any:
    """Return the operator, whoever hosts it."""
    return next(h._operator for h in hosts if h._operator is not None)


def results(hosts: list[PrimaryMarket]) -> dict[int, bytes]:
    """Return the result of each area's first clearing, where it has ended."""
    return {
        agent.a: agent.result.tobytes()
        for h in hosts if isinstance(h._buses, AreaAgents)
        for agent in h._buses._agents if agent.done == 1
    }  # fmt: skip


@cache
def _cleared() -> PrimaryMarket:
    (host,) = markets()
    run([host], 8)
    return host


@cache
def _central() -> Any:
    """Return what a central operator clears."""
    given = OPTIONS | {"mail_rounds": 1, "clearing": "three-phase"}
    given["clearing_options"] = {
        k: v for k, v in OPTIONS["clearing_options"].items() if k not in ("areas", "reach_pu")
    }
    names = PrimaryMarket.agents(site(1.0), **given)
    central = PrimaryMarket(site(1.0), names, **given)
    loop = MailLoop([central])
    for _ in range(6):
        loop.step()
    return operator_of([central]).schedule


def test_it_follows_the_controller_protocol() -> None:
    check_controller(PrimaryMarket, site(), **OPTIONS)


def test_areas_agree_on_the_central_schedule_and_its_prices() -> None:
    found, best = operator_of([_cleared()]).schedule, _central()
    assert found.p_import == pytest.approx(best.p_import, abs=2e-4)
    for name in ("p_gen", "p_load", "q_gen", "q_load"):
        assert getattr(found, name) == pytest.approx(getattr(best, name), abs=2e-4)
    assert found.price_p == pytest.approx(best.price_p, rel=2e-3)
    assert found.price_q == pytest.approx(best.price_q, abs=0.1)
    assert np.abs(best.prices.p.voltage).max() > 1.0  # a voltage binds
    for name in ("voltage", "congestion", "voltage_objective", "losses"):
        ours, theirs = getattr(found.prices.p, name), getattr(best.prices.p, name)
        assert ours == pytest.approx(theirs, abs=0.1)
    counts = _cleared().summary()
    assert counts["market_clearings_failed_count"] == 0
    assert counts["market_messages_count"] > 0
    # The SMOs read what the schedule in force says.
    assert _cleared()._smos.price_per_mwh == pytest.approx(found.price_p, rel=1e-12)


def test_every_bit_is_the_same_on_bad_links_and_in_any_number_of_hosts() -> None:
    one, parts = markets(), markets(4)
    loop, hard = MailLoop(one, period_s=0.05), MailLoop(parts, BAD, period_s=0.05)
    for steps, mail, hosts in ((400, loop, one), (2000, hard, parts)):
        while len(results(hosts)) < 3:
            mail.step()
            assert mail.steps < steps
    assert results(parts) == results(one)
    assert hard.steps > 1.3 * loop.steps


def test_a_manager_bends_the_prices_of_one_operator() -> None:
    (host,) = markets()
    loop = run([host], 8)
    operator = host._operator
    assert operator is not None
    assert operator.schedule is not None
    before = operator.schedule
    n = len(host._table.names)
    weights = Weights(np.ones(n), np.full(n, 0.3), 1.0)
    for number, order in ((1, TRIAL), (2, COMMIT)):
        operator.take_weights(weights_message(number, order, weights))
        for _ in range(60):
            loop.step()
        answer = operator.answer()
        assert answer[:2].tolist() == [number, SOLVED]
    assert operator.schedule.p_load.sum() < before.p_load.sum() - 1e-3


def test_a_clearing_that_was_given_up_leaves_nothing_behind() -> None:
    (host,) = markets()
    loop = run([host], 2)
    for _ in range(10):
        loop.step()
    areas, operator = host._buses, host._operator
    assert isinstance(areas, AreaAgents)
    assert operator is not None
    assert operator.is_open  # type: ignore[attr-defined]
    for agent in areas._agents:
        if agent.state.even:
            agent.state._w = 1e6 * agent.state._w
    operator._open = None  # type: ignore[attr-defined]
    for _ in range(12 * ROUNDS):
        loop.step()
    assert operator.schedule is not None
    assert operator.schedule.p_load == pytest.approx(_central().p_load, abs=2e-4)


def test_what_a_neighbour_cannot_mean_is_not_believed() -> None:
    (host,) = markets()
    run([host], 3)
    areas = host._buses
    assert isinstance(areas, AreaAgents)
    link = next(i for i, x in enumerate(host.links_in) if x.kind == "shared")
    width = host.links_in[link].width
    before = areas._shared.values.copy()
    for bad in (np.full(width, 1e9), np.full(width, np.nan)):
        number = np.array([1 << 40])
        areas.take_mail(Mail(np.array([link]), number, bad), 60)
    assert areas.refused == 2
    assert (areas._shared.values == before).all()
    assert [e["event"] for e in areas.take_events()] == ["mail_refused"]
