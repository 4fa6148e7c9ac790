"""What a distributed clearing promises when it stops, and the bounds behind the promise."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from _market_cases import grown_problem
from hypothesis import example, given, settings
from hypothesis import strategies as st

from controllers.market.clearing import clear
from controllers.market.model.problem import ClearingProblem
from controllers.market.solvers.atoms import Atoms, L, P, Q, W
from controllers.market.solvers.certificate import Certifier, at_limit, dual_value
from controllers.market.solvers.stopping import DistributedClearing
from controllers.market.solvers.tree_prices import priced_start
from controllers.market.solvers.warm_start import Start, begin, flat_start, settled, warm_start

# The central solver is right to about 1e-7 of the terms that its cost is the sum of.
SOLVER = 3e-7
LIMITS_PU = 1e-4
clear_pac = partial(clear, clearing="pac-anchored")
clear_admm = partial(clear, clearing="admm")
clear_nst_pac = partial(clear, clearing="nst-pac")
METHODS = (clear_pac, clear_admm, clear_nst_pac)
STARTS = (warm_start, priced_start, flat_start)


def solver_error(problem: ClearingProblem, best: float) -> float:
    """Return how wrong the central cost may be; where import and export balance it is near 0."""
    bids = problem.bids
    turnover = problem.import_price * float(bids.p_load_max.sum() + bids.p_gen_max.sum())
    return SOLVER * (abs(best) + turnover)


def excess_pu(problem: ClearingProblem, done: DistributedClearing) -> float:
    """Return by how much the dispatch leaves its limits once its power flow is solved."""
    d, net = done.dispatch, problem.network
    real = settled(problem, np.array([d.p_gen, d.q_gen, d.p_load]), d.lmp_p, d.lmp_q)
    v = np.sqrt(real.v_sq[1:])
    over = np.sqrt(real.l_line[1:] / net.l_max_pu[1:]) - 1.0
    return float(max(0.0, *(problem.v_min_pu - v), *(v - problem.v_max_pu), *over))


def held_up(n: int, seed: int, share: float = 0.05) -> ClearingProblem:
    """Return a made feeder whose lowest voltage must rise by `share` of its drop."""
    problem = grown_problem(n, seed=seed)
    low = float(np.sqrt(clear(problem).dispatch.v_sq.min()))
    return replace(problem, v_min_pu=low + share * (1.0 - low))


def rated(problem: ClearingProblem, share: float) -> ClearingProblem:
    """Return `problem` with the busiest line below the first rated at `share` of its l."""
    best = clear(problem).dispatch
    l_max = problem.network.l_max_pu.copy()
    line = int(np.argmax(np.where(problem.network.parent == 0, 0.0, best.l_line)))
    l_max[line] = share * best.l_line[line]
    return replace(problem, network=replace(problem.network, l_max_pu=l_max))


def exporting(n: int, seed: int, share: float) -> ClearingProblem:
    """Return a made feeder with ten times the PV, its highest voltage held down to `share`."""
    problem = grown_problem(n, seed=seed)
    b = problem.bids
    bids = replace(
        b, p_gen_max=10 * b.p_gen_max, q_gen_min=10 * b.q_gen_min, q_gen_max=10 * b.q_gen_max,
        alpha_p=0.05 * b.alpha_p,
    )  # fmt: skip
    problem = replace(problem, bids=bids, v_max_pu=1.2)
    high = float(np.sqrt(clear(problem).dispatch.v_sq.max()))
    return replace(problem, v_max_pu=max(1.0 + share * (high - 1.0), 1.001))


@st.composite
def problems(draw: st.DrawFn) -> ClearingProblem:
    """Return a made feeder with a limit that binds, more or less: voltages, a rating, both."""
    n, seed = draw(st.integers(4, 25)), draw(st.integers(0, 10_000))
    kind = draw(st.sampled_from(("low", "rating", "both", "high")))
    if kind == "high":
        return exporting(n, seed, draw(st.floats(0.7, 1.01)))
    problem = grown_problem(n, seed=seed)
    if kind != "rating":
        problem = held_up(n, seed, draw(st.floats(-0.02, 0.12)))
    return problem if kind == "low" else rated(problem, draw(st.floats(0.9, 1.2)))


@settings(max_examples=25, deadline=None)
@given(problems(), st.sampled_from(METHODS), st.sampled_from(STARTS), st.integers(1, 400))
def test_the_stated_gap_is_a_bound_wherever_the_iteration_stands(
    problem, method, start, iterations
) -> None:
    best = clear(problem).dispatch.cost
    iterations = iterations // 10 + 1 if method is clear_nst_pac else iterations
    done = method(problem, start=start(problem), max_iterations=iterations, tolerance=0.0)
    cost, error = done.dispatch.cost, solver_error(problem, best)
    assert abs(cost - best) <= done.gap * abs(cost) + error
    assert done.excess_pu == pytest.approx(excess_pu(problem, done), abs=1e-9)
    atoms = Atoms.of(problem)
    start = begin(problem, atoms, Start(done.dispatch, done.dual))
    bounds = Certifier(problem, atoms).certify(*start)
    assert bounds.lower <= best + error
    assert bounds.upper >= best - error


@settings(max_examples=12, deadline=None)
@given(problems(), st.sampled_from(METHODS[:2]), st.sampled_from(STARTS), st.floats(1e-4, 1e-2))
# Where the rule that looked at balances and duality gap only stopped at -2.0 and -0.7 %.
@example(held_up(17, 12, 0.1), clear_pac, priced_start, 1e-3)
@example(held_up(24, 15, 0.1), clear_pac, priced_start, 1e-3)
def test_what_converged_promises_holds(problem, method, start, tolerance) -> None:
    best = clear(problem).dispatch.cost
    done = method(problem, start=start(problem), max_iterations=1500, tolerance=tolerance)
    if done.converged:
        cost = done.dispatch.cost
        assert abs(cost - best) <= tolerance * abs(cost) + solver_error(problem, best)
        assert done.gap <= tolerance
        assert excess_pu(problem, done) <= LIMITS_PU * (1.0 + 1e-6)
        assert done.infeasibility_kw <= 1.0


@pytest.mark.parametrize("seed", [0, 3, 4, 8, 9, 11])
def test_where_a_voltage_is_dear_it_does_not_stop_early_and_does_stop(seed: int) -> None:
    # With voltages right to a thousandth these six stopped 0.12 to 0.36 % below the optimum, with a
    # gap of less than 0.1 % stated.
    problem = held_up(8 + seed, seed)
    best = clear(problem).dispatch
    for method in (clear_pac, clear_admm):
        done = method(problem, start=priced_start(problem), max_iterations=1500)
        assert abs(done.dispatch.cost / best.cost - 1.0) <= done.gap * (1.0 + 1e-6) + SOLVER
        assert done.converged or method is clear_pac
        if done.converged:
            assert done.dispatch.cost == pytest.approx(best.cost, rel=1e-3)
            assert excess_pu(problem, done) <= LIMITS_PU * (1.0 + 1e-6)


@pytest.mark.parametrize("method", METHODS[:2])
@pytest.mark.parametrize("seed", range(4))
def test_it_stops_where_a_rating_binds(method, seed: int) -> None:
    # The whole remainder of the cone, counted at a line with its rating, once made these state
    # 1.8 to 89 % at the optimum.
    problem = rated(grown_problem(12, seed=seed), 0.9)
    best = clear(problem).dispatch.cost
    done = method(problem, max_iterations=3000)
    assert done.converged
    assert done.dispatch.cost == pytest.approx(best, rel=1e-3)
    assert done.history[-1].gap <= 1e-3
    assert done.gap <= 1e-3


def test_the_dual_value_of_a_rated_line_is_the_least_over_its_points() -> None:
    # Against points of the cone cut by l <= l_max, the best of a fine grid in each.
    problem = rated(grown_problem(6, seed=2), 0.9)
    atoms = Atoms.of(problem)
    line = int(np.flatnonzero(np.isfinite(problem.network.l_max_pu))[0])
    x, y = begin(problem, atoms, priced_start(problem))
    y[:, line] += np.array([300.0, -200.0, 5.0, 40.0])
    limited = np.arange(6) == line
    reduced = (atoms.limits.slope + atoms.all_pull(y))[:, line]
    with_price = dual_value(atoms, x, y, limited)
    assert reduced[W] > 0.0
    assert with_price.rating[line] > 0.0
    l_max = atoms.limits.l_max[line]
    angle = np.arctan2(-reduced[Q], -reduced[P])
    l_sq = np.linspace(1e-6, 1.0, 201)[:, None] * l_max
    flow = np.linspace(0.0, 20.0, 4001)[None, :] * l_max
    w = flow**2 / (2.0 * l_sq)
    worth = (
        flow * (reduced[P] * np.cos(angle) + reduced[Q] * np.sin(angle))
        + reduced[L] * l_sq
        + reduced[W] * w
    )
    assert -with_price.rating[line] * l_max == pytest.approx(float(worth.min()), rel=1e-4)


def test_a_loose_rating_changes_nothing() -> None:
    problem = grown_problem(12, seed=0)
    loose = rated(problem, 1e6)
    atoms = Atoms.of(loose)
    assert not at_limit(atoms, begin(loose, atoms, None)[0]).any()
    assert clear_pac(loose).iterations == clear_pac(problem).iterations


def test_set_points_without_a_power_flow_prove_nothing() -> None:
    problem = grown_problem(12, seed=0)
    b = problem.bids
    p = 1000.0 * b.p_load0
    problem = replace(problem, bids=replace(b, p_load0=p, p_load_min=p, p_load_max=p))
    done = clear_pac(problem, start=flat_start(problem), max_iterations=10)
    assert not done.converged
    assert done.gap == np.inf
    assert done.excess_pu == np.inf
