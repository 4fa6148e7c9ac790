"""The three-phase market by areas: the central optimum, found between neighbours."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from _three_phase_cases import Plant, market, meshed, plant

from controllers.market.clearing import clear
from controllers.market.model.errors import MarketError
from controllers.market.model.problem import PortProblem
from controllers.market.solvers.stopping import Rule
from controllers.market.three_phase.areas import RULE, AreaMarket, parities
from controllers.market.three_phase.exact import ThreePhaseMarket

TIGHT = Rule(500, 1e-7, 1e-4, 1e-8)


@cache
def _plant(name: str) -> Plant:
    return plant(meshed("ieee13", "632", "675") if name == "meshed" else name, taps=0.5)


def _problem(name: str = "ieee13", **changes: Any) -> PortProblem:
    totals = {"load_mw": 2.6, "flexible_mw": 0.4, "generation_mw": 1.2}
    band = {"v_min_pu": 1.003, "v_max_pu": 1.05, "import_slope": 2.0}
    return market(_plant(name), **{**totals, **band, **changes})


def _loads(problem: PortProblem) -> PortProblem:
    """Return the problem with half of the load depending on the voltage."""
    part = 0.5 * problem.network.share @ (problem.bids.p_load0 + 1j * problem.bids.q_load0)
    fixed = replace(problem.network.loads, s_pq=0.0 * part, s_i=0.4 * part, s_z=0.6 * part)
    return replace(problem, fixed=fixed)


@pytest.mark.parametrize(
    ("name", "areas", "with_loads"),
    [("ieee13", 3, False), ("ieee13", 2, True), ("ieee13", 1, True)],
)
def test_areas_agree_on_the_central_optimum(name: str, areas: int, with_loads: bool) -> None:
    problem = _problem(name)
    problem = _loads(problem) if with_loads else problem
    pays: dict[str, Any] = {"weights": {"voltage": 1.0}, "voltage_price": 20.0}
    best = ThreePhaseMarket(problem.network, **pays).clear(problem)
    found = AreaMarket(problem.network, areas=areas, **pays).clear(problem, TIGHT)
    assert found.converged
    assert best.v_low.max() > 1.0  # a voltage binds
    assert found.dispatch.cost == pytest.approx(best.dispatch.cost, rel=1e-7)
    for part in ("p_gen", "q_gen", "p_load"):
        ours, theirs = getattr(found.dispatch, part), getattr(best.dispatch, part)
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    np.testing.assert_allclose(found.prices.p.total, best.prices.p.total, atol=0.01)
    assert found.exactness.gap_pu < 1e-7
    assert abs(found.exactness.fictitious_loss_pu) < 1e-6


def test_areas_that_meet_in_a_loop_agree_too() -> None:
    problem = _problem("meshed")
    best = ThreePhaseMarket(problem.network).clear(problem)
    found = AreaMarket(problem.network, areas=2).clear(problem)
    assert set(problem.network.areas(2)[0].owns.tolist()) == {True, False}
    assert found.converged
    assert found.dispatch.cost == pytest.approx(best.dispatch.cost, rel=1e-3)
    assert found.exactness.gap_pu < 2e-4


def test_a_tenth_of_a_percent_on_ieee123_in_few_messages() -> None:
    totals = {"load_mw": 3.49, "flexible_mw": 0.35, "generation_mw": 0.6, "v_min_pu": 0.98}
    problem = market(plant("ieee123"), **totals)
    best = ThreePhaseMarket(problem.network).clear(problem)
    by_areas = AreaMarket(problem.network, areas=4)
    found = by_areas.clear(problem)
    assert found.converged
    assert abs(found.dispatch.cost / best.dispatch.cost - 1.0) < 1e-3
    assert abs(found.exactness.fictitious_loss_pu) < 1e-3
    assert found.exactness.gap_pu < 1e-4
    # Three pairs of neighbours, two messages an iteration.
    assert found.messages == 6 * found.iterations
    assert found.iterations <= 60
    again = by_areas.clear(problem)
    assert again.converged
    assert again.iterations < found.iterations / 2


def test_what_cannot_be_cleared_is_refused() -> None:
    problem = _problem()
    with pytest.raises(MarketError, match="relaxation is 2"):
        clear(problem, "three-phase-admm", relaxation=2.0)  # type: ignore[arg-type]
    found = AreaMarket(problem.network, areas=2).clear(problem, replace(RULE, max_iterations=2))
    assert not found.converged
    assert found.status == "not converged"


def test_areas_that_form_an_odd_ring_are_refused() -> None:
    areas = _plant("ieee13").network.areas(3)
    ring = [np.array([q for q in range(3) if q != a]) for a in range(3)]
    closed = tuple(replace(x, neighbour=q) for x, q in zip(areas, ring, strict=True))
    assert parities(areas) == (True, False, True)
    with pytest.raises(MarketError, match="areas 2 and 3 of 3 close an odd ring"):
        parities(closed)
