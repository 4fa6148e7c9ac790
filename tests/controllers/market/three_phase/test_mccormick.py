"""The McCormick relaxation: it contains every power flow, and says how far it is from one."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from _three_phase_cases import Plant, market, plant
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.core.mail import FloatArray
from controllers.market.model.errors import MarketError, NoDispatchError
from controllers.market.model.problem import PortProblem
from controllers.market.three_phase.exact import ThreePhaseMarket
from controllers.market.three_phase.mccormick import McCormickMarket
from controllers.market.three_phase.mccormick_form import McCormickForm, parts
from controllers.market.three_phase.replay import relaxed_flow
from grid_models.current_injection.power_flow import PortFlow, power_flow

_TOTALS = {"load_mw": 2.6, "flexible_mw": 0.4, "generation_mw": 1.2}


@cache
def _plant() -> Plant:
    return plant("ieee13", taps=0.5)


def _problem(**changes: float) -> PortProblem:
    return market(_plant(), **{**_TOTALS, "v_min_pu": 0.9, "v_max_pu": 1.1, **changes})


@cache
def _market(rounds: int) -> McCormickMarket:
    return McCormickMarket(_plant().network, rounds=rounds)


def _state(problem: PortProblem, seed: int) -> tuple[FloatArray, FloatArray, PortFlow]:
    """Return devices anywhere in their ranges, as parts of these and as powers, and the state."""
    devices = _market(0).objective.devices(problem)
    part = np.random.default_rng(seed).uniform(size=devices.low.shape)
    part = np.where(part < 0.2, 0.0, np.where(part > 0.8, 1.0, part))
    x = devices.low + part * (devices.high - devices.low)
    return part, x, power_flow(problem.network, problem.network.share @ devices.injection(x))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), rounds=st.sampled_from([0, 1, 4]))
def test_every_power_flow_is_a_point_of_the_program(seed: int, rounds: int) -> None:
    """Neither the envelopes nor tighter boxes cut off what the devices can do."""
    problem = _problem()
    net = problem.network
    at, _ = _market(rounds)._boxed(problem)
    part, _, flow = _state(problem, seed)
    u, i = (np.conj(at.turn) * x for x in (flow.u, flow.i))
    assert at.u.contains(u)
    assert at.i.contains(i)
    eta, xi = (parts(x - box.mid) / parts(box.half) for x, box in ((i, at.i), (u, at.u)))
    m = len(net.ports)
    omega = np.concatenate([xi * eta, xi[:m] * eta[m:], xi[m:] * eta[:m]])
    x = np.concatenate([part.ravel(), eta, xi, omega, [flow.s_import.real]])
    nodes, lines = np.arange(len(net.nodes)), np.arange(len(net.lines))
    nodes = nodes[~np.isin(nodes, net.source_nodes)]
    form = McCormickForm(net, nodes, lines)
    program = form.program(at)
    left = program.b - program.a @ x
    equal = form.n_equal
    # The import of the program is a bound of it, from below.
    assert np.abs(left[: equal - 1]).max() < 1e-9
    assert -1e-6 < left[equal - 1] < 1e-9
    assert left[equal : equal + form.n_inequal].min() > -1e-9
    cones = left[equal + form.n_inequal :].reshape(-1, 3)
    current = np.abs(net.line_w + net.line_z @ flow.i)
    assert np.hypot(cones[:, 1], cones[:, 2]) == pytest.approx(current, abs=1e-9)
    assert cones[:, 0] == pytest.approx(net.line_limit, abs=1e-12)


def test_the_relaxed_cost_is_a_lower_bound_that_tightening_raises() -> None:
    problem = _problem()
    optimum = ThreePhaseMarket(problem.network).clear(problem).dispatch.cost
    found = [_market(rounds).clear(problem) for rounds in (0, 1, 4)]
    relaxed = [c.replay.relaxed_cost for c in found]
    assert relaxed[0] < relaxed[1] < relaxed[2] < optimum
    assert optimum - relaxed[2] < 0.2 * (optimum - relaxed[0])
    # What it dispatches costs at least the optimum, once the power flow has its say.
    assert all(c.dispatch.cost > optimum for c in found)
    assert [c.rounds for c in found] == [0, 1, 4]


def test_the_replay_gap_is_that_of_the_power_flow() -> None:
    problem = _problem()
    found = _market(4).clear(problem)
    d, gap = found.dispatch, found.replay
    flow = power_flow(
        problem.network,
        problem.network.share @ (d.p_gen - d.p_load + 1j * (d.q_gen - d.q_load)),
    )
    assert np.abs(flow.v - d.voltage).max() < 1e-12
    assert d.p_import == pytest.approx(flow.s_import.real, abs=1e-12)
    assert gap.import_kw > 1.0
    assert found.replay_gap_kw == pytest.approx(gap.import_kw)
    assert gap.cost == pytest.approx(d.cost - gap.relaxed_cost)
    assert not found.exactness.exact
    assert found.cone_gap_pu == gap.voltage_pu > 0.0


def test_a_band_that_the_relaxation_only_seems_to_keep_is_said() -> None:
    problem = _problem(v_min_pu=1.003, v_max_pu=1.05)
    found = _market(4).clear(problem)
    assert found.v_low.max() > 0.0
    assert found.replay.beyond_band_pu > 1e-5
    least = np.delete(np.abs(found.dispatch.voltage), problem.network.source_nodes).min()
    assert found.replay.beyond_band_pu == pytest.approx(1.003 - least)


def test_prices_are_the_slopes_of_the_relaxed_cost_and_their_parts_add_up() -> None:
    # Boxes follow from bids: they stay where they are for a fixed load on a terminal of its own.
    problem = _problem(v_min_pu=1.003)
    solver = McCormickMarket(problem.network, rounds=0)
    found = solver.clear(problem)
    at, _ = solver._boxed(problem)
    step, k = 1e-4, int(np.argmax(problem.bids.p_load0))
    costs = []
    for sign in (1.0, -1.0):
        held = at.held.copy()
        held -= sign * step * problem.network.share[:, k]
        moved = replace(at, held=held)
        form = solver._prepared(moved)
        x = np.asarray(solver._solver.solve().x)
        relaxed = relaxed_flow(problem.network, form.currents(moved, x))
        device = form.devices_at(moved, x)
        costs.append(solver._relaxed_cost(problem, moved, device, relaxed, x[form.p]))
    assert found.dispatch.lmp_p[k] == pytest.approx((costs[0] - costs[1]) / (2 * step), rel=1e-4)
    p = found.prices.p
    assert np.abs(p.voltage).max() > 0.0
    assert p.total == pytest.approx(found.dispatch.lmp_p, abs=1e-12)


def test_the_solver_is_kept_between_clearings() -> None:
    problem, other = _problem(), _problem(import_price=75.0, xi=6.0)
    solver = McCormickMarket(problem.network)
    solver.clear(problem)
    kept = solver._solver
    again = solver.clear(other)
    assert solver._solver is kept
    anew = McCormickMarket(problem.network).clear(other)
    assert again.dispatch.cost == pytest.approx(anew.dispatch.cost, rel=1e-7)


def test_limits_of_import_and_lines_hold_in_the_relaxation() -> None:
    problem = _problem()
    free = _market(4).clear(problem)
    bound = free.dispatch.p_import - free.replay.import_kw / 1e3 - 0.05
    held = _market(4).clear(replace(problem, import_max=bound))
    relaxed = held.dispatch.p_import - held.replay.import_kw / 1e3
    assert relaxed == pytest.approx(bound, abs=1e-6)
    assert held.import_limit > 1.0
    lines = np.abs(problem.network.line_w + problem.network.line_z @ free.dispatch.current)
    tight = replace(problem.network, line_limit=0.97 * lines)
    found = McCormickMarket(tight).clear(replace(problem, network=tight))
    assert found.line_limit.max() > 0.0


def test_what_cannot_be_cleared_is_said() -> None:
    with pytest.raises(NoDispatchError, match="no dispatch"):
        _market(4).clear(_problem(v_min_pu=1.06, v_max_pu=1.07))
    with pytest.raises(MarketError, match="rounds"):
        McCormickMarket(_plant().network, rounds=-1)
