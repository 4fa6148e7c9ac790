"""The semidefinite certificate: below the optimum, near it, and silent about nothing."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from _three_phase_cases import Plant, market, plant

from controllers.market.model.errors import NoDispatchError
from controllers.market.model.problem import PortProblem
from controllers.market.three_phase.certificate import Certificate, certify
from controllers.market.three_phase.exact import ThreePhaseMarket
from grid_models.current_injection.tree import BranchTree
from grid_models.opendss.branches import branch_tree

_TOTALS = {"load_mw": 2.6, "flexible_mw": 0.4, "generation_mw": 1.2}


@cache
def _plant() -> Plant:
    return plant("ieee13", taps=0.5)


@cache
def _tree() -> BranchTree:
    return branch_tree(_plant().circuit, _plant().network)


def _problem(**changes: float) -> PortProblem:
    return market(_plant(), **{**_TOTALS, "v_min_pu": 0.9, "v_max_pu": 1.1, **changes})


def _gap(problem: PortProblem, **options: object) -> tuple[float, Certificate]:
    found = ThreePhaseMarket(problem.network, **options).clear(problem)  # type: ignore[arg-type]
    certificate = certify(_tree(), problem, **options)  # type: ignore[arg-type]
    return certificate.gap(found.dispatch.cost), certificate


def test_the_optimum_of_an_unbalanced_feeder_with_delta_loads_is_certified() -> None:
    assert any("-" in port for port in _plant().network.ports)
    gap, found = _gap(_problem(v_min_pu=0.985))
    assert -1e-6 < gap < 3e-5
    assert found.rank_ratio < 2e-4
    assert any("source's impedance" in note for note in found.notes)


def test_loads_that_depend_on_the_voltage_and_set_points_are_bounded_from_below() -> None:
    problem = _problem()
    fixed = _plant().network.loads
    problem = replace(
        problem,
        fixed=replace(fixed, s_i=0.1 * fixed.s_pq, s_z=0.2 * fixed.s_pq, s_pq=0 * fixed.s_pq),
    )
    gap, found = _gap(problem, weights={"voltage": 1.0}, voltage_price=20.0)
    assert 0.0 < gap < 0.05
    assert any("constant current" in note for note in found.notes)
    assert any("magnitudes" in note for note in found.notes)


def test_a_limit_that_nothing_keeps_is_certified_as_such() -> None:
    with pytest.raises(NoDispatchError, match="not even relaxed"):
        certify(_tree(), _problem(import_max=0.5))


def test_ratings_and_the_import_bind_in_the_relaxation_as_in_the_market() -> None:
    problem = _problem()
    free = ThreePhaseMarket(problem.network).clear(problem).dispatch
    net = problem.network
    size = np.abs(net.line_w + net.line_z @ free.current)
    tight = replace(net, line_limit=0.97 * size)
    problem = replace(problem, network=tight, import_max=free.p_import - 0.1)
    gap, found = _gap(problem)
    assert -1e-6 < gap < 1e-4
    assert found.p_import == pytest.approx(free.p_import - 0.1, abs=1e-4)
    assert found.lower_bound > free.cost * (1.0 + 1e-3)
