"""What voltages are worth: against the slopes of the optimal cost, and the tariff made of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from _three_phase_cases import market, plant

from controllers.market.model.problem import PortProblem
from controllers.market.three_phase.exact import ThreePhaseMarket
from controllers.market.three_phase.support import bundled_tariff, voltage_support

OPTIONS = {"weights": {"voltage": 1.0}, "voltage_price": 20.0, "tolerance": 1e-11}


@pytest.fixture(scope="module")
def problem() -> PortProblem:
    return market(
        plant("ieee13", taps=0.5),
        load_mw=2.6,
        flexible_mw=0.4,
        generation_mw=1.2,
        v_min_pu=1.003,
    )


def _with_added(problem: PortProblem, node: int, dv: complex) -> PortProblem:
    """Return the problem with a voltage added at one node, and across its ports."""
    net = problem.network
    w, w_port = net.w.copy(), net.w_port.copy()
    w[node] += dv
    bus, _, phase = net.nodes[node].rpartition(".")
    for j, port in enumerate(net.ports):
        port_bus, _, phases = port.rpartition(".")
        if port_bus == bus and phase in phases.split("-"):
            w_port[j] += dv if phases.split("-")[0] == phase else -dv
    return replace(problem, network=replace(net, w=w, w_port=w_port))


@pytest.mark.parametrize("node", ["671.1", "675.1", "611.3", "692.2"])
def test_voltage_support_is_the_slope_of_the_optimal_cost(problem: PortProblem, node: str) -> None:
    market = ThreePhaseMarket(problem.network, **OPTIONS)
    found = market.clear(problem)
    support = voltage_support(market.objective, problem, found)
    k, step = problem.network.nodes.index(node), 1e-5
    # Set-points stay where they are: they are the objective's, not the node's.
    v_set = market.objective.v_set

    def cost(dv: complex) -> float:
        moved = _with_added(problem, k, dv)
        other = ThreePhaseMarket(moved.network, **OPTIONS)
        other.objective.v_set = v_set
        return other.clear(moved).dispatch.cost

    slopes = [(cost(step * unit) - cost(-step * unit)) / (2.0 * step) for unit in (1.0, 1j)]
    scale = np.abs(support.slope).max()
    assert support.slope[k] == pytest.approx(complex(*slopes), abs=1e-5 * scale)


def test_slopes_of_voltages_and_currents_belong_together(problem: PortProblem) -> None:
    """On the ports' own admittance matrix, which has no source, lambda_V = Y^H lambda_I."""
    market = ThreePhaseMarket(problem.network, **OPTIONS)
    found = market.clear(problem)
    support = voltage_support(market.objective, problem, found)
    net = problem.network
    wye = [j for j, port in enumerate(net.ports) if "-" not in port]
    nodes = [net.nodes.index(net.ports[j]) for j in wye]
    # What is worth something besides at the ports' nodes: limits and set-points of other nodes.
    rest = support.slope.copy()
    rest[nodes] = 0.0
    of_ports = (support.current_slope - net.z.conj().T @ rest)[wye]
    y = np.linalg.inv(net.z[np.ix_(nodes, wye)])
    assert np.abs(y.conj().T @ of_ports - support.slope[nodes]).max() < 1e-6
    assert np.abs(y.T @ of_ports - support.slope[nodes]).max() > 1e-2
    assert not support.slope[net.source_nodes].any()
    low = found.v_low > 0
    assert (support.worth[low] > 0.0).all()


def test_the_bundled_tariff_measures_voltages_in_their_own_frame(problem: PortProblem) -> None:
    market = ThreePhaseMarket(problem.network, **OPTIONS)
    found = market.clear(problem)
    net, d = problem.network, found.dispatch
    tariff = bundled_tariff(market.objective, problem, found)
    assert (np.isnan(tariff) == (d.p_load <= 0.0)).all()
    worth = voltage_support(market.objective, problem, found).worth
    k, node = net.terminals.index("675.3"), net.nodes.index("675.3")
    turned = d.voltage[node] * np.exp(-1j * np.angle(net.w[node]))
    away = abs(turned.real - 1.0) + abs(turned.imag)
    bill = d.lmp_p[k] * d.p_load[k] + d.lmp_q[k] * d.q_load[k] + worth[node] * away
    assert tariff[k] == pytest.approx(bill / d.p_load[k])
    # From 1 + j0 a voltage of phase c would be more than 1 pu away, whatever it is.
    assert away < 0.1
