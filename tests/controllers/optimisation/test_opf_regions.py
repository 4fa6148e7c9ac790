"""AC optimal power flow of regions: what they share, and what an answer is worth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from controllers.core.errors import ControllerError
from controllers.optimisation.partition import areas_of, partition
from controllers.optimisation.problems.opf_regions import RegionOpf
from grid_models.transmission.matpower import load_case
from tests.controllers.optimisation.opf_cases import case_with_everything


@pytest.fixture(scope="module")
def problem() -> RegionOpf:
    case = load_case("case39")
    return RegionOpf(case, areas_of(case, allow_disconnected=True))


def test_both_ends_of_ties_are_shared_and_owned_once(problem: RegionOpf) -> None:
    case, of = problem.case, np.array(problem.region_of)
    ties = of[case.branches.from_bus] != of[case.branches.to_bus]
    at_ties = np.unique((case.branches.from_bus[ties], case.branches.to_bus[ties]))
    assert problem.n_shared == 2 * len(at_ties)
    owned = np.concatenate([b.shared[b.owned] for b in problem.borders])
    assert sorted(owned) == list(range(problem.n_shared))
    values = np.random.default_rng(0).random(2 * 39)
    for region, border in zip(problem.regions, problem.borders, strict=True):
        x = np.zeros(region.n)
        x[region.turn], x[region.v] = values[region.buses], values[39 + region.buses]
        shared = np.concatenate((values[at_ties], values[39 + at_ties]))
        assert np.array_equal(x[border.column], shared[border.shared])


def test_the_reference_is_without_gap_and_feasible(problem: RegionOpf) -> None:
    worth = problem.measure({"x": problem.reference.x})
    assert worth.gap == 0.0
    assert worth.infeasibility < 1e-9
    assert np.isnan(worth.dual)
    # MATPOWER's objective of its case39, printed with two decimals.
    assert problem.reference.objective == pytest.approx(41864.18, abs=0.005)


def test_measure_sees_copies_that_differ_and_limits_that_are_passed(problem: RegionOpf) -> None:
    x = problem.reference.x.copy()
    region, border = problem.regions[0], problem.borders[0]
    copy = border.column[~border.owned][0]
    x[copy] += 1e-3
    assert problem.mismatch(x) == pytest.approx(1e-3)
    assert problem.measure({"x": x}).infeasibility >= 1e-3
    x = problem.reference.x.copy()
    x[region.p] *= 0.9
    worth = problem.measure({"x": x})
    assert worth.gap > 1e-3
    assert worth.infeasibility > 0.1  # balance at the generators' buses


def test_copies_start_at_their_owners_value(problem: RegionOpf) -> None:
    x = np.random.default_rng(1).random(sum(r.n for r in problem.regions))
    parts = problem.consistent(x)
    assert problem.mismatch(np.concatenate(parts)) == 0.0
    for part, region in zip(parts, problem.regions, strict=True):
        assert np.isin(part[region.p], x).all()


def test_reference_with_piecewise_costs_is_in_usd_per_h() -> None:
    case = case_with_everything()
    problem = RegionOpf(case, partition(case, 3))
    p, q = np.empty((2, len(case.generators.names)))
    sizes = [r.n for r in problem.regions]
    for region, x in zip(problem.regions, problem.split(problem.reference.x, sizes), strict=True):
        p[region.generators], q[region.generators] = x[region.p], x[region.q]
    assert case.reactive_costs is not None
    cost = case.costs.usd_per_h(case.base_mva * p).sum()
    cost += case.reactive_costs.usd_per_h(case.base_mva * q).sum()
    assert problem.reference.objective == pytest.approx(cost, rel=1e-12)
    assert problem.measure({"x": problem.reference.x}).infeasibility < 1e-9


def test_what_cannot_be_solved_is_refused(problem: RegionOpf) -> None:
    with pytest.raises(ControllerError, match=r"2 buses have a region.*expected 39"):
        RegionOpf(problem.case, ("a", "b"))
    buses = problem.case.buses
    heavy = replace(problem.case, buses=replace(buses, load_mw=3.0 * buses.load_mw))
    with pytest.raises(ControllerError, match=r"ends without an optimum: .* violated by"):
        _ = RegionOpf(heavy, problem.region_of).reference
