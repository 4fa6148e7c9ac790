"""Distributed MPC of a circuit: against the central problem, cvxpy, and itself in one process."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from _dmpc_planners import (
    CentralMpc,
    EdgeWiseMpc,
    TrackingMpc,
    check_mixing,
    complete_mixing,
    inputs_of,
    metropolis_mixing,
    offsets,
)
from _load_step import load_step, load_step_trial

from controllers.core.circuit_options import circuit_of
from controllers.core.compliance import check_controller
from controllers.core.errors import ControllerError
from controllers.core.mail import Mail
from controllers.core.sample_site import sample_site
from controllers.dmpc.circuit import CircuitDmpc
from controllers.dmpc.condensed import CircuitProblem, CircuitWeights, circuit_problem, condense
from grid_models.circuits.dynamics import TrapezoidalModel, steady_state
from grid_models.circuits.feeder24 import feeder24

SAMPLE_S = 2e-3


@pytest.fixture(scope="module")
def problem() -> CircuitProblem:
    return circuit_problem(*feeder24(), SAMPLE_S)


def after_step(problem: CircuitProblem) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return state, last input and load one sample after the load step of 0.6 pu."""
    circuit = problem.circuit
    w, u = load_step(circuit), np.zeros(circuit.n_inverters)
    return TrapezoidalModel(circuit, SAMPLE_S).step(steady_state(circuit), u, w), u, w


def gaps(problem: CircuitProblem, planner: Any, iterations: int) -> np.ndarray:
    """Return the gap of the realised cost to the central optimum after each iteration."""
    x, u, w = after_step(problem)
    central = CentralMpc(problem)
    theta = central.theta(x, u, w)
    best = central.condensed.cost(central.plan(x, u, w).ravel(), theta)
    planner.iterations = 1
    plan, out = planner.plan(x, u, w), []
    g0 = offsets(planner.splitting, problem.thetas(x, u, w))
    for _ in range(iterations):
        out.append(abs(central.condensed.cost(plan.ravel(), theta) / best - 1.0))
        plan = inputs_of(
            problem, list(planner.solver.solve(g0, -planner.high, planner.high, 1).bounded)
        )
    return np.array(out)


# --- the problem -----------------------------------------------------------------------------


def test_the_coupling_has_the_published_size(problem: CircuitProblem) -> None:
    # Published: 90 coupling rows; three boundary lines, both ends' voltage, fifteen steps.
    assert sum(len(part.s) for part in problem.parts) == 2 * 90
    assert [part.size for part in problem.parts] == [60, 75, 75, 60]


def test_condensed_prediction_is_the_recursion(problem: CircuitProblem) -> None:
    rng = np.random.default_rng(0)
    model, part = problem.models[1], problem.parts[1]
    z, theta = rng.normal(size=part.size), rng.normal(size=part.phi.shape[1])
    theta[-1] = 1.0
    predicted = (part.gamma @ z + part.phi @ theta).reshape(part.horizon, -1)
    x, copy = theta[: model.states], theta[model.states : model.states + part.copies]
    load = theta[model.states + part.copies + part.inputs : -1]
    u = z[: part.horizon * part.inputs].reshape(part.horizon, -1)
    copies = z[part.horizon * part.inputs :].reshape(part.horizon, -1)
    for k in range(part.horizon):
        x = model.step(x, u[k], load, copy, copies[k])
        copy = copies[k]
        assert predicted[k] == pytest.approx(x, abs=1e-10)


def test_central_equals_cvxpy(problem: CircuitProblem) -> None:
    # The problem written out in states and inputs, nothing condensed; tolerance 1e-6 as asked.
    cp = pytest.importorskip("cvxpy")
    circuit, n = problem.circuit, problem.horizon
    x0, u_last, w = after_step(problem)
    a, b, d, s = TrapezoidalModel(circuit, SAMPLE_S).matrices()
    m, weights = circuit.n_lines, CircuitWeights()
    x = cp.Variable((n + 1, circuit.n_states))
    u = cp.Variable((n, circuit.n_inverters))
    rules = [x[0] == x0, cp.abs(u) <= circuit.inverter_limit_pu]
    cost = 0.0
    for k in range(n):
        rules.append(x[k + 1] == a @ x[k] + b @ u[k] + d @ w + s)
        change = u[k] - (u_last if k == 0 else u[k - 1])
        cost += weights.voltage * cp.sum_squares(x[k + 1, m:] - 1.0)
        cost += weights.losses * cp.sum_squares(cp.multiply(np.sqrt(circuit.r_pu), x[k + 1, :m]))
        cost += weights.effort * cp.sum_squares(u[k]) + weights.change * cp.sum_squares(change)
    reference = cp.Problem(cp.Minimize(cost), rules)
    accuracy = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-9)
    reference.solve(solver="CLARABEL", canon_backend="SCIPY", **accuracy)
    central = CentralMpc(problem)
    plan = central.plan(x0, u_last, w)
    assert np.abs(plan - u.value).max() < 1e-6
    ours = central.condensed.cost(plan.ravel(), central.theta(x0, u_last, w))
    assert ours == pytest.approx(reference.value, rel=1e-6)


# --- cold start ------------------------------------------------------------------------------


def test_edge_wise_reaches_a_tenth_of_a_per_cent_in_100(problem: CircuitProblem) -> None:
    gap = gaps(problem, EdgeWiseMpc(problem), 100)
    assert (gap[50:] < 1e-3).all()  # published prototype: 95 iterations; here 31
    assert gap[-1] < 1e-6


def test_tracking_on_the_complete_graph(problem: CircuitProblem) -> None:
    gap = gaps(problem, TrackingMpc(problem, c=500.0), 120)
    assert (gap[100:] < 1e-3).all()  # asked for: 0.1 % in 120; here 68


def test_tracking_with_neighbour_mixing(problem: CircuitProblem) -> None:
    gap = gaps(problem, TrackingMpc(problem, mixing="neighbours", c=100.0), 1500)
    assert gap[-1] < 1e-6
    assert gap[364] > gap[600]


def test_tracking_with_several_rounds(problem: CircuitProblem) -> None:
    gap = gaps(problem, TrackingMpc(problem, mixing="multi-round", c=300.0), 200)
    assert gap[-1] < 1e-3  # published: 200


def test_mixing_matrices() -> None:
    w = metropolis_mixing([(0, 1), (1, 2), (2, 3)], 4)
    check_mixing(w, 4)
    check_mixing(complete_mixing(5), 5)
    with pytest.raises(ControllerError, match="disconnected"):
        check_mixing(metropolis_mixing([(0, 1), (2, 3)], 4), 4)
    with pytest.raises(ControllerError, match="doubly stochastic"):
        check_mixing(np.array([[0.5, 0.5], [0.1, 0.9]]), 2)


# --- closed loop -----------------------------------------------------------------------------


def test_load_step_in_closed_loop(problem: CircuitProblem) -> None:
    # Asked for: J within 1 % of central, settling <= 27 ms, in band <= 8 ms with 20 iterations.
    w = load_step(problem.circuit)
    central, edge = CentralMpc(problem), EdgeWiseMpc(problem, 20)
    best = load_step_trial(problem.circuit, lambda *now: central.plan(*now)[0], w)
    trial = load_step_trial(problem.circuit, lambda *now: edge.plan(*now)[0], w)
    assert trial.cost == pytest.approx(best.cost, rel=0.01)
    assert trial.settle_ms <= 27.0
    assert trial.band_ms <= 8.0


@pytest.mark.parametrize("iterations", [1, 2, 7])
def test_any_number_of_iterations_gives_a_feasible_input(
    problem: CircuitProblem, iterations: int
) -> None:
    edge = EdgeWiseMpc(problem, iterations)
    w = 5.0 * load_step(problem.circuit)  # more than all inverters together can carry
    trial = load_step_trial(problem.circuit, lambda *now: edge.plan(*now)[0], w)
    plan = edge.plan(*after_step(problem))
    assert (np.abs(plan) <= problem.circuit.inverter_limit_pu).all()
    assert np.isfinite(trial.v).all()


def test_stops_by_residual_and_by_budget(problem: CircuitProblem) -> None:
    loose = EdgeWiseMpc(problem, 500, tolerance=1e-2)
    tight = EdgeWiseMpc(problem, 500, tolerance=1e-6)
    ticks = iter(range(1000))
    budget = EdgeWiseMpc(problem, 500, budget_s=7.0, clock=lambda: float(next(ticks)))
    done = []
    for planner in (loose, tight, budget):
        planner.plan(*after_step(problem))
        assert planner.last is not None
        done.append(planner.last.iterations)
    assert done[0] < done[1] < 500
    assert done[2] == 7


# --- over mail -------------------------------------------------------------------------------


def settled(controller: CircuitDmpc, values: dict[str, np.ndarray], calls: int) -> np.ndarray:
    """Step an instance that hosts all clusters, its mail delivered at the next step."""
    mail = Mail.empty()
    for k in range(calls):
        done = controller.step(k * 1e-4, values, mail)
        if not len(done.mail):
            mail = done.mail
            continue
        at = [controller.links_in.index(link) for link in controller.links_out]
        order = np.argsort(np.array(at)[done.mail.link])
        width = controller.links_in[0].width
        rows = done.mail.values.reshape(len(done.mail), -1)[order]
        mail = Mail(
            np.array(at)[done.mail.link][order],
            done.mail.round[order],
            rows.reshape(-1),
        )
        assert width == 30
    return done.outputs["i_set_pu"]


def measured(problem: CircuitProblem, x: np.ndarray, w: np.ndarray) -> dict[str, np.ndarray]:
    m = problem.circuit.n_lines
    return {"v_pu": x[m:], "i_pu": x[:m], "load_pu": w}


def in_port_order(controller: CircuitDmpc, problem: CircuitProblem, x: Any, w: Any) -> Any:
    circuit = problem.circuit
    names = {
        "v_pu": dict(zip(circuit.buses, x[circuit.n_lines :], strict=True)),
        "i_pu": dict(zip(circuit.line_names, x[: circuit.n_lines], strict=True)),
        "load_pu": dict(zip(circuit.buses, w, strict=True)),
    }
    return {p.name: np.array([names[p.name][x] for x in p.labels]) for p in controller.inputs}


@pytest.mark.parametrize("iterations", [1, 5, 20])
def test_mail_gives_what_one_process_gives(problem: CircuitProblem, iterations: int) -> None:
    site = sample_site(period_s=1e-4)
    names = CircuitDmpc.agents(site)
    controller = CircuitDmpc(site, names, sample_s=2e-3, iterations=iterations)
    x, _, w = after_step(problem)
    u = settled(controller, in_port_order(controller, problem, x, w), 20)
    reference = EdgeWiseMpc(problem, iterations).plan(x, np.zeros(12), w)[0]
    order = [controller.outputs[0].labels.index(i) for i in problem.circuit.inverters]
    # Rounding alone: sums run in another order.
    assert u[order] == pytest.approx(reference, abs=1e-9)


def test_measurements_that_are_not_numbers_are_held(problem: CircuitProblem) -> None:
    site = sample_site(period_s=1e-4)
    controller = CircuitDmpc(site, CircuitDmpc.agents(site), sample_s=2e-3)
    x, _, w = after_step(problem)
    good = in_port_order(controller, problem, x, w)
    settled(controller, good, 20)
    bad = {name: np.full_like(values, np.nan) for name, values in good.items()}
    assert np.isfinite(settled(controller, bad, 20)).all()
    assert controller.summary()["held_values_count"] == 24 + 24 + 24


@pytest.mark.parametrize("name", ["dmpc-circuit", "averaging-pi", "dmpc"])
def test_protocol(name: str) -> None:
    check_controller(name)


@pytest.mark.parametrize("apply", ["now", "next"])
def test_protocol_with_options(apply: str) -> None:
    check_controller("dmpc-circuit", clusters=3, horizon=5, iterations=4, apply=apply)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"horizon": 0}, "horizon"),
        ({"iterations": 40}, "do not fit"),
        ({"sample_s": 0.00015}, "whole number"),
        ({"apply": "nwo"}, "did you mean 'now'"),
        ({"circuit": "feeder25"}, "did you mean 'feeder24'"),
        ({"weights": {"voltag": 1.0}}, "did you mean 'voltage'"),
        ({"weights": {"effort": -1.0}}, "effort"),
        ({"clusters": True}, "clusters"),
    ],
)
def test_wrong_options(options: dict[str, Any], words: str) -> None:
    site = sample_site(period_s=1e-4)
    with pytest.raises(ControllerError, match=words):
        CircuitDmpc(site, ("c0",), **({"sample_s": 2e-3} | options))


def test_wrong_host_and_horizon(problem: CircuitProblem) -> None:
    with pytest.raises(ControllerError, match="no cluster is called 'c9'"):
        CircuitDmpc(sample_site(), ("c9",))
    with pytest.raises(ControllerError, match="horizon"):
        condense(problem.models[0], problem.circuit, 0, CircuitWeights())


def test_circuits_by_name() -> None:
    circuit, clusters = circuit_of("chain:6")
    assert (circuit.n_buses, len(clusters.names)) == (36, 6)
    assert len(circuit_of("chain:6", 3)[1].names) == 3
