"""Algorithms with a coordinator on a dispatch: optimum, certificate, and mail that changes nothing.

Expected optima are those of Clarabel (`Dispatch.reference`, tolerance 1e-12).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from controllers.core.agent_rows import RowController
from controllers.core.errors import ControllerError
from controllers.core.mail_loop import MailLoop, Post, plain_rows
from controllers.core.waiting import Asynchronous
from controllers.optimisation.algorithms.catalog import build
from controllers.optimisation.problems.dispatch import Dispatch, random_dispatch

FloatArray = NDArray[np.float64]
FAST = (
    "dual-preconditioned", "dual-nesterov", "admm", "admm-preconditioned", "admm-over-relaxed",
    "admm-nesterov", "admm-anderson", "admm-adaptive", "admm-proximal-jacobian", "admm-async",
    "admm-least-squares",
)  # fmt: skip
SLOW = ("dual", "dual-conservative", "dual-diminishing")
FREE_OF_BARRIER = ("admm-async",)


def make(name: str, problem: Dispatch, **options: Any) -> RowController:
    """Return an algorithm as the row controller that it is."""
    made = build(name, problem, **options)
    assert isinstance(made, RowController)
    return made


def run(
    name: str, problem: Dispatch, steps: int = 4000, post: Post | None = None, **options: Any
) -> RowController:
    """Run an algorithm until its agents stop."""
    made = make(name, problem, **options)
    loop = MailLoop([made], post)
    while not made.stopped and loop.steps < steps:
        loop.step()
    return made


def small(coupling: int = 2, n: int = 6, seed: int = 1) -> Dispatch:
    return random_dispatch(n, condition=30.0, coupling=coupling, seed=seed)


@pytest.mark.parametrize("coupling", [0, 2])
@pytest.mark.parametrize("name", FAST)
def test_stops_at_the_optimum_with_a_certificate(name: str, coupling: int) -> None:
    problem = small(coupling, n=12)
    done = run(name, problem, tolerance=1e-7)
    measure = problem.measure(done.answer())
    assert done.stopped
    assert measure.infeasibility <= 2e-7
    assert measure.gap <= 5e-7
    best = problem.reference.objective
    assert measure.bound is not None
    assert measure.bound <= best + 1e-9 * abs(best)  # Clarabel's own accuracy
    assert best - measure.bound <= 5e-7 * abs(best)


@pytest.mark.parametrize("name", SLOW)
def test_dual_steps_reach_the_optimum(name: str) -> None:
    problem = random_dispatch(8, condition=3.0, seed=4)
    done = run(name, problem, tolerance=1e-5)
    measure = problem.measure(done.answer())
    assert done.stopped
    assert max(measure.gap, measure.infeasibility) <= 3e-5


@st.composite
def dispatches(draw: st.DrawFn) -> tuple[Dispatch, FloatArray]:
    """A dispatch made from its own optimum, and that; prices of both signs, slack and tight rows.

    The first agents are within their limits and determine the prices well: an imbalance that the
    limits keep small moves a price slowly in every first-order algorithm.
    """
    n, m = draw(st.integers(3, 6)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    quadratic, linear = 3.0 ** rng.uniform(-1.0, 1.0, n), rng.uniform(-5.0, 5.0, n)
    rows = np.stack([np.ones(n), (-1.0) ** np.arange(n), rng.standard_normal(n)])[:m]
    equal, slack = np.arange(m) == 0, np.where(np.arange(m) == 2, 0.3, 0.0)
    price = np.where(equal, rng.uniform(-3.0, 3.0), rng.uniform(0.5, 3.0, m)) * (slack == 0.0)
    best = -(linear + rows.T @ price) / quadratic
    width = rng.uniform(0.1, 1.0, (2, n)) / quadratic
    held = np.where(np.arange(n) < m, 0.0, rng.choice([-1.0, 0.0, 1.0], n)) * width[0] / 2.0
    x = best + held
    low = np.where(held > 0.0, x, x - width[0])
    high = np.where(held < 0.0, x, x + width[1])
    names = tuple(f"unit_{i}" for i in range(n))
    right = rows @ x + slack
    return Dispatch(
        quadratic, linear, low, high, rows, right, equal, names, random_dispatch(n).graph
    ), x


@settings(max_examples=30)
@given(dispatches(), st.sampled_from(FAST))
def test_the_optimum_by_the_kkt_conditions_is_found(
    made: tuple[Dispatch, FloatArray], name: str
) -> None:
    problem, x = made
    done = run(name, problem, 20000, tolerance=1e-9)
    measure = problem.measure(done.answer())
    assert done.stopped
    assert measure.infeasibility <= 1e-8
    assert measure.dual <= 1e-6
    np.testing.assert_allclose(done.answer()["x"], x, atol=1e-6 * (1.0 + np.abs(x).max()))


@pytest.mark.parametrize("name", FAST + SLOW)
def test_mail_gives_the_bits_of_the_plain_loop(name: str) -> None:
    """Perfect links in one host, two hosts, and under loss and delay with a barrier."""
    problem = small()
    rounds = 25
    team = make(name, problem, tolerance=0.0).team
    expected, names = plain_rows(team, rounds), team.names
    parts: list[tuple[tuple[str, ...], ...]] = [(names,), (names[::2], names[1::2])]
    posts = [Post()] + [Post(loss=0.3, max_delay_steps=3, seed=5)] * (name not in FREE_OF_BARRIER)
    for hosting in parts:
        for post in posts:
            hosts = [make(name, problem, tolerance=0.0, hosted=part) for part in hosting]
            loop = MailLoop(hosts, post)
            coordinator = next(host for host in hosts if "coordinator" in host.hosted).desks[-1]
            while min(desk.rounds.min() for host in hosts for desk in host.desks) < rounds:
                loop.step()
            x = {
                unit: value
                for host in hosts
                for unit, value in zip(host.hosted, host.answer()["x"], strict=False)
            }
            assert [x[unit] for unit in problem.names] == expected[0].answer()["x"].tolist()
            price = coordinator.rows.answer().get("price", np.empty(0))
            assert price.tolist() == expected[1].answer().get("price", np.empty(0)).tolist()


def test_dual_follows_its_equations() -> None:
    """x = clip(-(c + A' lambda) / q), lambda += alpha (A x - b), in a loop without agents."""
    p = small()
    alpha = 1.0 / np.linalg.eigvalsh((p.rows / p.quadratic) @ p.rows.T)[-1]
    price = np.zeros(3)
    for _ in range(20):
        x = np.clip(-(p.linear + p.rows.T @ price) / p.quadratic, p.low, p.high)
        price = price + alpha * (p.rows @ x - p.right)
        price = np.where(p.equal, price, np.maximum(price, 0.0))
    members, coordinator = plain_rows(make("dual", p).team, 20)
    np.testing.assert_allclose(members.answer()["x"], x, rtol=1e-12)
    np.testing.assert_allclose(coordinator.answer()["price"][0], price, rtol=1e-12)


def test_admm_follows_equation_2_of_the_survey() -> None:
    """x with d and lambda, as the survey writes it; one equation, penalty n / (2 sum(1 / q))."""
    p = small(coupling=0)
    n = p.size
    rho = 0.5 * n / (1.0 / p.quadratic).sum()
    x, price = np.clip(np.zeros(n), p.low, p.high), 0.0
    d = 0.0  # the first copies are the shares themselves
    for _ in range(20):
        x = np.clip((rho * (x - d) - p.linear - price) / (p.quadratic + rho), p.low, p.high)
        d = (x.sum() - p.right[0]) / n
        price = price + rho * d
    members, coordinator = plain_rows(make("admm", p).team, 20)
    np.testing.assert_allclose(members.answer()["x"], x, rtol=1e-12)
    np.testing.assert_allclose(coordinator.answer()["price"][0, 0], price, rtol=1e-12)


@pytest.mark.parametrize(("loss", "delay"), [(0.3, 0), (0.0, 10), (0.5, 10)])
def test_asynchronous_admm_bears_loss_and_delay(loss: float, delay: int) -> None:
    problem = random_dispatch(20, seed=2)
    post = Post(loss=loss, max_delay_steps=delay, seed=3)
    done = run("admm-async", problem, 3000, post, penalty="scaled")
    measure = problem.measure(done.answer())
    assert done.stopped
    assert max(measure.gap, measure.infeasibility) <= 5e-6


def test_a_coordinator_that_does_not_wait_is_bearable_too() -> None:
    """Free-running agents meet prices that they have answered, and answers they have counted."""
    problem = random_dispatch(20, seed=2)
    waiting = Asynchronous(fraction=0.0, max_age=None)
    done = run("admm", problem, 3000, Post(0.3, 5, seed=1), waiting=waiting)
    measure = problem.measure(done.answer())
    assert done.stopped
    assert max(measure.gap, measure.infeasibility) <= 5e-6


@pytest.mark.parametrize("name", ["dual", "dual-preconditioned", "dual-nesterov"])
def test_dual_refuses_costs_without_curvature(name: str) -> None:
    flat = Dispatch.balance(np.zeros(2), np.ones(2), np.zeros(2), np.ones(2), 1.0)
    with pytest.raises(ControllerError, match="quadratic cost of 'unit_0' is 0"):
        build(name, flat)


@pytest.mark.parametrize("linear", [0.0, 1.0])
@pytest.mark.parametrize("name", [name for name in FAST if name.startswith("admm")])
def test_admm_solves_costs_without_curvature(name: str, linear: float) -> None:
    """Linear costs and no cost at all: the cheap units fill first."""
    cost = linear * np.array([1.0, 2.0, 3.0])
    flat = Dispatch.balance(np.zeros(3), cost, np.zeros(3), np.ones(3), 1.5)
    done = run(name, flat)
    x = done.answer()["x"]
    assert done.stopped
    assert x.sum() == pytest.approx(1.5, abs=2e-6)
    assert cost @ x == pytest.approx(2.0 * linear, abs=1e-5)


@pytest.mark.parametrize("name", [name for name in FAST if name.startswith("admm")])
def test_agents_outside_rows_do_what_is_cheapest_for_them(name: str) -> None:
    """Two rows that share no agent, and two agents in neither, one of them without any cost."""
    rows = np.array([[1.0, 1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 2.0, 0.0, 0.0]])
    problem = Dispatch(
        np.array([1.0, 2.0, 1.0, 0.0, 0.0]), np.array([0.0, 0.0, 0.0, -3.0, 0.0]),
        np.full(5, -1.0), np.ones(5), rows, np.array([1.2, 1.0]), np.array([True, True]),
        ("a", "b", "c", "d", "e"), random_dispatch(5).graph,
    )  # fmt: skip
    done = run(name, problem)
    assert done.stopped
    np.testing.assert_allclose(done.answer()["x"], [0.8, 0.4, 0.5, 1.0, 0.0], atol=1e-5)


def test_rows_that_no_point_satisfies_never_stop() -> None:
    """x1 + x2 = 1 and x1 + x2 <= 0.5: each row alone can be met."""
    problem = Dispatch(
        np.ones(2), np.ones(2), np.zeros(2), np.ones(2), np.ones((2, 2)), np.array([1.0, 0.5]),
        np.array([True, False]), ("a", "b"), random_dispatch(2).graph,
    )  # fmt: skip
    for name in FAST:
        assert not run(name, problem, 100).stopped
    with pytest.raises(ControllerError, match="there is no optimum: PrimalInfeasible"):
        _ = problem.reference


@pytest.mark.parametrize("name", ["admm-nesterov", "admm-anderson", "admm-adaptive"])
def test_algorithms_that_count_rounds_refuse_to_go_on_without_all(name: str) -> None:
    with pytest.raises(ControllerError, match=f"algorithm '{name}': .*count the same rounds"):
        build(name, small(), waiting=Asynchronous())


def test_a_unit_without_cost_that_sets_the_price_lets_the_agents_stop() -> None:
    """Half of a free unit's power serves the demand: price 0, and the dear unit is off."""
    problem = Dispatch.balance(
        np.array([0.0, 1.0]), np.array([0.0, 20.0]), np.zeros(2), np.array([10.0, 5.0]), 5.0
    )
    for name in (name for name in FAST if name.startswith("admm")):
        done = run(name, problem)
        assert done.stopped
        np.testing.assert_allclose(done.answer()["x"], [5.0, 0.0], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("admm", "penalty_factor", 0.0),
        ("admm-adaptive", "penalty_factor", np.inf),
        ("admm", "relaxation", 2.0),
        ("admm-anderson", "memory", 0),
    ],
)
def test_options_out_of_range_are_refused(name: str, option: str, value: float) -> None:
    with pytest.raises(ControllerError, match=f"{option} is {value}"):
        build(name, small(), **{option: value})


@pytest.mark.parametrize(
    ("name", "most"), [("admm-nesterov", 0.5), ("admm-anderson", 0.25), ("admm-adaptive", 0.5)]
)
def test_accelerations_repair_a_penalty_ten_times_too_small(name: str, most: float) -> None:
    """Rounds relative to plain ADMM; measured 0.38, 0.16 and 0.29."""
    problem = random_dispatch(50)
    plain = run("admm", problem, penalty_factor=0.1).rounds
    assert run(name, problem, penalty_factor=0.1).rounds <= most * plain


def test_a_dispatch_without_rows_is_refused() -> None:
    with pytest.raises(ControllerError, match="it has no row"):
        Dispatch(
            np.ones(2), np.ones(2), np.zeros(2), np.ones(2), np.ones((0, 2)), np.ones(0),
            np.ones(0, dtype=np.bool_), ("a", "b"), random_dispatch(2).graph,
        )  # fmt: skip
