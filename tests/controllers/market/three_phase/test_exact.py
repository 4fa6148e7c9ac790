"""The exact three-phase market: optimality, prices, and what OpenDSS makes of its dispatch."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from _three_phase_cases import Plant, market, meshed, plant, replay_pu

from controllers.market.model.problem import PortProblem
from controllers.market.three_phase.dispatch import PortClearing
from controllers.market.three_phase.exact import ThreePhaseMarket

_TRANSFORMER_LOADING = 0.496
"""Of transformer XFM-1's first phase, where nothing limits it, per unit of its rating."""
BAND = {"v_min_pu": 0.95, "v_max_pu": 1.05}


@cache
def _plant(name: str) -> Plant:
    return plant(meshed("ieee13", "632", "675") if name == "meshed" else name, taps=0.5)


def _problem(name: str = "ieee13", **changes: float) -> PortProblem:
    totals = {"load_mw": 2.6, "flexible_mw": 0.4, "generation_mw": 1.2}
    return market(_plant(name), **{**totals, **BAND, **changes})


def _binding() -> PortProblem:
    """Return a problem in which a voltage and a line's limit bind, and the import has a slope."""
    problem = _problem(v_min_pu=1.003, import_slope=2.0)
    limits = 0.85 * problem.network.line_limit * _TRANSFORMER_LOADING
    return replace(problem, network=replace(problem.network, line_limit=limits))


@pytest.mark.parametrize("name", ["ieee13", "meshed"])
def test_opendss_replays_the_dispatch(name: str) -> None:
    problem = _problem(name)
    found = ThreePhaseMarket(problem.network).clear(problem)
    assert found.status == "solved"
    assert found.exactness.exact
    d, at = found.dispatch, _plant(name)
    assert replay_pu(at, d) < 1e-8
    p, q = at.circuit.source_kw_kvar()
    assert 1e3 * d.p_import == pytest.approx(p, abs=1e-4)
    assert 1e3 * d.q_import == pytest.approx(q, abs=1e-4)
    assert 1e3 * d.losses == pytest.approx(at.circuit.losses_kw(), abs=1e-4)


def test_parts_of_the_prices_add_up_and_free_devices_earn_them() -> None:
    problem = _binding()
    found = ThreePhaseMarket(
        problem.network, weights={"voltage": 1.0}, voltage_price=20.0, tolerance=1e-10
    ).clear(problem)
    d, bids = found.dispatch, problem.bids
    parts = found.prices.p
    named = parts.energy + parts.losses + parts.voltage + parts.congestion + parts.voltage_objective
    assert np.abs(named - d.lmp_p).max() < 1e-10
    assert (parts.energy == problem.marginal_import_price(d.p_import)).all()
    inside = (d.p_gen > 1e-6) & (d.p_gen < bids.p_gen_max - 1e-6)
    assert inside.any()
    assert np.abs(bids.alpha_p * d.p_gen - d.lmp_p)[inside].max() < 1e-6
    assert np.abs(parts.voltage).max() > 0.1
    assert np.abs(parts.voltage_objective).max() > 0.1


def _inflexible(problem: PortProblem, terminal: int) -> PortProblem:
    low = problem.bids.p_load_min.copy()
    low[terminal] = problem.bids.p_load0[terminal]
    return replace(problem, bids=replace(problem.bids, p_load_min=low))


def _with_more(problem: PortProblem, terminal: int, extra: complex) -> PortProblem:
    """Return the problem with more load at a terminal whose load is not flexible."""
    more = np.zeros(problem.network.size, dtype=np.complex128)
    more[terminal] = extra
    b, p, q = problem.bids, more.real, more.imag
    bids = replace(
        b,
        p_load0=b.p_load0 + p,
        q_load0=b.q_load0 + q,
        p_load_min=b.p_load_min + p,
        p_load_max=b.p_load_max + p,
    )
    return replace(problem, bids=bids)


@pytest.mark.parametrize("terminal", ["671.1-2", "634.2", "675.3"])
def test_prices_are_slopes_of_the_optimal_cost(terminal: str) -> None:
    """With the voltage objective, a voltage limit, a line's limit and a sloped import price."""
    problem = _binding()
    k = problem.network.terminals.index(terminal)
    problem = _inflexible(problem, k)

    def solved(at: PortProblem) -> PortClearing:
        market = ThreePhaseMarket(
            at.network, weights={"voltage": 1.0}, voltage_price=20.0, tolerance=1e-11
        )
        return market.clear(at)

    found, step = solved(problem), 1e-4
    assert found.v_low.any()
    assert found.line_limit.any()
    for unit, price in ((1.0, found.dispatch.lmp_p[k]), (1j, found.dispatch.lmp_q[k])):
        up, down = (solved(_with_more(problem, k, s * step * unit)) for s in (1, -1))
        slope = (up.dispatch.cost - down.dispatch.cost) / (2.0 * step)
        assert slope == pytest.approx(price, abs=1e-5 * np.abs(found.dispatch.lmp_p).max())
