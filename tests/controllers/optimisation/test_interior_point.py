"""The interior point on optimal power flows: published optima, warm starts, ends without one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from controllers.optimisation.interior_point import InteriorPoint, Terms
from controllers.optimisation.problems.opf_region_nlp import RegionNlp
from grid_models.transmission.matpower import load_case
from grid_models.transmission.opf_case import OpfCase
from tests.controllers.optimisation.opf_cases import case_with_everything


def _whole(case: OpfCase) -> RegionNlp:
    return RegionNlp(case, np.arange(len(case.buses.names)))


@pytest.mark.parametrize(
    ("name", "usd_per_h", "most"),
    [("case39", 41864.18, 16), ("case57", 41737.79, 12), ("case118", 129660.69, 15)],
)
def test_optimum_is_the_published_one(name: str, usd_per_h: float, most: int) -> None:
    """Objectives: AC OPF of MATPOWER 7.1 (`runopf`) on its own cases, printed with two decimals.

    Iterations: seen with a gap of 1e-8, a guard against slower rules.
    """
    found = InteriorPoint(_whole(load_case(name))).solve()
    assert found.converged
    assert 1e3 * found.objective == pytest.approx(usd_per_h, abs=0.005)
    assert found.iterations <= most


def test_solution_satisfies_the_optimality_conditions() -> None:
    whole = _whole(case_with_everything())
    found = InteriorPoint(whole, tolerance=1e-9).solve()
    at = whole.at(found.x)
    assert found.converged
    slope = (
        at.gradient
        + whole.equality_pattern.transposed_times(at.equality_slopes, found.equality)
        + whole.inequality_pattern.transposed_times(at.inequality_slopes, found.inequality)
        + found.bound
    )
    assert np.abs(slope).max() < 1e-6  # multipliers are up to about 100
    assert np.abs(at.equalities).max() < 1e-9
    assert at.inequalities.max() < 1e-9
    assert found.inequality.min() >= 0.0
    assert np.abs(found.inequality * at.inequalities).max() < 1e-6


def test_warm_start_finds_the_same_point_in_fewer_steps() -> None:
    whole = _whole(load_case("case39"))
    solver = InteriorPoint(whole)
    n, rng = whole.n, np.random.default_rng(0)
    first = solver.solve(Terms(np.zeros(n), np.full(n, 0.1), whole.start))
    moved = Terms(rng.uniform(-1e-3, 1e-3, n), np.full(n, 0.1), whole.start)
    cold, warm = solver.solve(moved), solver.solve(moved, warm=first)
    assert cold.converged
    assert warm.converged
    np.testing.assert_allclose(warm.x, cold.x, atol=1e-5)
    assert warm.iterations <= cold.iterations - 4


def test_terms_move_the_solution_to_their_target() -> None:
    whole = _whole(load_case("case57"))
    plain = InteriorPoint(whole).solve()
    weight = np.zeros(whole.n)
    weight[whole.p] = 1e6
    target = plain.x.copy()
    target[whole.p] += [0.1, -0.1, 0.05, -0.05, 0.1, -0.1, 0.0]
    target = np.clip(target, whole.lower, whole.upper)
    near = InteriorPoint(whole).solve(Terms(np.zeros(whole.n), weight, target))
    assert near.converged
    assert np.abs(near.x[whole.p] - target[whole.p]).max() < 0.02
    assert near.objective > plain.objective


@pytest.mark.parametrize("wrong", ["load", "start"])
def test_ends_without_an_optimum_have_a_status(wrong: str) -> None:
    case = load_case("case39")
    if wrong == "load":
        case = replace(case, buses=replace(case.buses, load_mw=3.0 * case.buses.load_mw))
    whole = _whole(case)
    start = whole.start.copy()
    if wrong == "start":
        start[whole.turn] = np.random.default_rng(0).uniform(-30.0, 30.0, 39)
    found = InteriorPoint(whole).solve(start=start)
    assert found.status in ("stalled", "diverged", "iteration limit")
    assert found.primal > 1e-3
