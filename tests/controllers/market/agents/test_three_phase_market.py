"""The market controller with a three-phase clearing: terminals as operators, prices, books."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from controllers.core.compliance import check_controller
from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray
from controllers.core.mail_loop import MailLoop, Post
from controllers.core.ports import Port
from controllers.core.protocol import ControlSite
from controllers.market.agents.interval_accounts import PORT_ACCOUNT, SERVICES
from controllers.market.agents.manager import ResilienceManager
from controllers.market.agents.primary import PrimaryMarket
from grid_models.catalog import open_circuit
from grid_models.feeder.model import Der
from grid_models.opendss.ports import port_network

OPTIONS: dict[str, Any] = {
    "interval_s": 6.0,
    "generator_cost": {"*": 72.0},
    "load_cost": [150.0, 400.0],
    "silent_after_s": 4.0,
    "fixed_load_pu": 0.8,  # at nominal the rating of the feeder's transformer binds
    "clearing": "three-phase",
    "clearing_options": {"weights": {"voltage": 1.0}, "voltage_price": 20.0},
}
DERS = (
    Der("gen", "inverter", "675", (1, 2, 3), 300.0, 250.0),
    Der("load_a", "flexible_load", "680", (1,), 60.0, -20.0, -50.0),
    Der("load_d", "flexible_load", "684", (3,), 30.0, -5.0, -20.0),
)


@cache
def site() -> ControlSite:
    """Return IEEE 13 with a three-phase generator and two flexible loads."""
    circuit = open_circuit("ieee13", DERS)
    network = port_network(circuit)
    return ControlSite(
        circuit.feeder, DERS, 1.0, seed=3, v_min_pu=0.9, v_max_pu=1.2, ports=lambda closed: network
    )


def _run(**options: Any) -> tuple[PrimaryMarket, dict[str, FloatArray]]:
    """Return a market after two intervals, and its outputs."""
    options = OPTIONS | options
    market = PrimaryMarket(site(), PrimaryMarket.agents(site(), **options), **options)

    def measure(port: Port, step: int) -> FloatArray:
        return market._smos.p_set_kw if port.name == "p_kw" else np.ones(len(port.labels))

    loop = MailLoop([market], Post(), measure, 1.0)
    for _ in range(12):
        outputs = dict(loop.step()[0].outputs)
    return market, outputs


@cache
def _cleared() -> tuple[PrimaryMarket, dict[str, FloatArray]]:
    return _run()


def test_it_follows_the_controller_protocol() -> None:
    check_controller(PrimaryMarket, site(), **OPTIONS)


def test_every_service_is_paid_and_they_add_up_to_the_bill() -> None:
    _, outputs = _cleared()
    paid = {name: outputs[f"pays_{name}_money"] for name in SERVICES}
    assert sum(paid.values()) == pytest.approx(outputs["net_pays_money"], abs=1e-12)
    assert all(np.any(paid[name]) for name in ("energy", "losses", "voltage_objective"))
    account = dict(zip(PORT_ACCOUNT, outputs["account_money"], strict=True))
    assert outputs["net_pays_money"].sum() == pytest.approx(
        account["import_cost"] + account["surplus"], abs=1e-9
    )
    assert account["voltage_objective_rent"] == pytest.approx(
        paid["voltage_objective"].sum(), abs=1e-4
    )


def test_prices_differ_by_phase_and_are_those_of_the_operators_ports() -> None:
    market, outputs = _cleared()
    ports = {port.name: port.labels for port in market.outputs}
    dlmp = dict(zip(ports["dlmp_per_mwh"], outputs["dlmp_per_mwh"], strict=True))
    price = dict(zip(ports["price_per_mwh"], outputs["price_per_mwh"], strict=True))
    phases = [dlmp[f"675.{phase}"] for phase in (1, 2, 3)]
    assert np.ptp(phases) > 0.1
    assert price["smo_675.1"] == pytest.approx(phases[0])
    assert price["smo_675.1.2.3"] == pytest.approx(np.mean(phases))
    support = dict(zip(ports["v_support_per_pu"], outputs["v_support_per_pu"], strict=True))
    assert not any(support[f"650.{phase}"] for phase in (1, 2, 3))
    assert any(support.values())


def test_the_schedule_is_what_the_power_flow_gives() -> None:
    _, outputs = _cleared()
    circuit = open_circuit("ieee13", DERS, tolerance_pu=1e-10)
    p_kw, q_kvar = outputs["p_set_kw"], np.zeros(len(DERS))
    q_kvar[0] = outputs["q_set_kvar"][0]
    flexible = [d.kind == "flexible_load" for d in DERS]
    q_kvar[flexible] = p_kw[flexible] * np.tan(np.arccos(0.95))
    circuit.set_loads(0.8 * circuit.load_kw, 0.8 * circuit.load_kvar)
    circuit.set_ders(p_kw, q_kvar)
    circuit.solve()
    # The feeder has loads of constant current and impedance; all of them are in the clearing.
    scheduled = outputs["scheduled_import_kw"][0]
    assert circuit.source_kw_kvar()[0] == pytest.approx(scheduled, abs=1e-3)


def test_the_manager_knows_the_operators_by_their_terminals() -> None:
    market, _ = _cleared()
    manager = ResilienceManager(
        site(), ("resilience",), interval_s=6.0, sample_s=1.0, clearing="three-phase"
    )
    watched = {link.source for link in manager.links_in if link.kind == "report"}
    assert watched == set(market._table.names)
    assert "smo_675.1.2.3" in watched


def test_critical_load_is_shed_at_its_price_only_where_the_unit_is_too_small() -> None:
    options = {"critical_load_pu": 0.6, "shed_price": 5000.0, "fixed_load_pu": 0.0}
    _, outputs = _run(import_max_kw=100.0, **options)
    assert not outputs["shed_kw"].any()
    # 70 kW of load, 42 of them critical; the generator costs more than load that is lost.
    _, outputs = _run(import_max_kw=25.0, generator_cost={"*": 1e6}, **options)
    assert outputs["scheduled_import_kw"][0] == pytest.approx(25.0, abs=1e-3)
    assert 14.0 < outputs["shed_kw"].sum() < 17.5


def test_without_a_grid_there_is_no_three_phase_market() -> None:
    with pytest.raises(ControllerError, match="needs a grid"):
        PrimaryMarket.agents(replace(site(), ports=None), **OPTIONS)


def test_a_relaxed_clearing_says_its_replay_gap() -> None:
    market, outputs = _run(clearing="three-phase-mccormick")
    told = [e for e in market.take_events() if e["event"] == "relaxation_not_exact"]
    assert len(told) == 1  # in both intervals it was not exact
    assert told[0]["replay_gap_kw"] > 0.01
    assert told[0]["cone_gap_pu"] == pytest.approx(outputs["cone_gap_pu"][0], rel=0.5)
    exact = _cleared()[0]
    assert not [e for e in exact.take_events() if e["event"] == "relaxation_not_exact"]
