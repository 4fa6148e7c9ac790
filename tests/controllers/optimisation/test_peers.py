"""Algorithms without a coordinator: their equations, optimum, stopping, and mail.

Expected optima are those of Clarabel (`Dispatch.reference`, tolerance 1e-12) and the mean.
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
from controllers.core.graph import Graph
from controllers.core.mail_loop import MailLoop, Post, plain_rows
from controllers.core.waiting import Asynchronous
from controllers.optimisation.algorithms.catalog import build
from controllers.optimisation.algorithms.gradient_tracking import TrackingRows
from controllers.optimisation.algorithms.peers import Peers
from controllers.optimisation.algorithms.ratio_consensus import RatioRows
from controllers.optimisation.problems.common_variable import common_variable
from controllers.optimisation.problems.consensus import Consensus
from controllers.optimisation.problems.dispatch import Dispatch, random_dispatch

FloatArray = NDArray[np.float64]
Problem = Consensus | Dispatch
EXACT = (
    "extra", "gradient-tracking", "gradient-tracking-plain", "ratio-consensus",
    "ratio-consensus-momentum", "admm-consensus", "admm-consensus-over-relaxed",
)  # fmt: skip
PEERS = (*EXACT, "dgd", "dgd-diminishing")


def make(name: str, problem: Problem, **options: Any) -> RowController:
    """Return an algorithm as the row controller that it is."""
    made = build(name, problem, **options)
    assert isinstance(made, RowController)
    return made


def run(
    name: str, problem: Problem, steps: int = 4000, post: Post | None = None, **options: Any
) -> RowController:
    """Run an algorithm until its agents stop."""
    made = make(name, problem, **options)
    loop = MailLoop([made], post)
    while not made.stopped and loop.steps < steps:
        loop.step()
    return made


def dispatch(n: int = 8, seed: int = 1, condition: float = 10.0) -> Dispatch:
    return random_dispatch(n, condition=condition, seed=seed)


def averages(n: int = 8, seed: int = 0) -> Consensus:
    own = np.random.default_rng(seed).normal(size=n)
    return Consensus(own, Graph.geometric(n, seed))


def two_rows(n: int = 8) -> Dispatch:
    """A dispatch with two equations, of which a point inside the limits satisfies both."""
    p = dispatch(n)
    rows = np.vstack([p.rows, np.cos(np.arange(n))])
    right = rows @ p.reference.x + np.array([0.0, 0.01])
    return Dispatch(
        p.quadratic, p.linear, p.low, p.high, rows, right, np.ones(2, dtype=np.bool_), p.names,
        p.graph,
    )  # fmt: skip


PROBLEMS: dict[str, Problem] = {
    "consensus": averages(), "dispatch": dispatch(), "two rows": two_rows()
}  # fmt: skip


@pytest.mark.parametrize("kind", PROBLEMS)
@pytest.mark.parametrize("name", EXACT)
def test_stops_at_the_optimum(name: str, kind: str) -> None:
    problem = PROBLEMS[kind]
    done = run(name, problem, tolerance=1e-7)
    measure = problem.measure(done.answer())
    assert done.stopped
    assert measure.infeasibility <= 5e-7
    assert measure.gap <= 5e-7
    if isinstance(problem, Dispatch):
        best = problem.reference.objective
        assert measure.bound is not None
        assert abs(best - measure.bound) <= 5e-7 * abs(best)


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Averages and dispatches with limits, on connected graphs of several kinds."""
    n, seed = draw(st.integers(2, 7)), draw(st.integers(0, 2**16))
    rng = np.random.default_rng(seed)
    graph = draw(st.sampled_from([Graph.ring(n), Graph.star(n), Graph.geometric(n, seed)]))
    if draw(st.booleans()):
        return Consensus(rng.normal(size=n) * 10.0 ** rng.uniform(-3, 3), graph)
    low = rng.uniform(-2.0, 1.0, n)
    high = low + rng.uniform(0.5, 3.0, n)
    demand = float(rng.uniform(0.8 * low + 0.2 * high, 0.2 * low + 0.8 * high).sum())
    quadratic, linear = 10.0 ** rng.uniform(-0.5, 0.5, n), rng.uniform(-5.0, 5.0, n)
    return Dispatch.balance(quadratic, linear, low, high, demand, graph)


@settings(max_examples=20)
@given(problems(), st.sampled_from(EXACT))
def test_the_agents_stop_where_the_tolerance_holds(problem: Problem, name: str) -> None:
    done = run(name, problem, tolerance=1e-6)
    measure = problem.measure(done.answer())
    assert done.stopped
    assert measure.infeasibility <= 5e-6
    if isinstance(problem, Consensus):
        assert measure.gap <= 5e-6
    else:
        size = float(np.abs(problem.linear * problem.reference.x).sum()) + 1.0
        assert abs(measure.objective - problem.reference.objective) <= 1e-5 * size


@settings(max_examples=25)
@given(
    problems(),
    st.sampled_from(("dgd", "extra", "gradient-tracking", "admm-consensus")),
    st.integers(0, 30),
)
def test_the_residual_bounds_disagreement_and_the_sum_of_the_gradients(
    problem: Problem, name: str, rounds: int
) -> None:
    """That of a round is about the copies before it."""
    before, after = (
        plain_rows(make(name, problem, tolerance=0.0).team, k)[0] for k in (rounds, rounds + 1)
    )
    assert isinstance(before, Peers)
    common = common_variable(problem, "test")
    everyone = np.arange(len(before.z))
    apart = np.ptp(before.z) / before.costs.size(before.z).max()
    missed = before.costs.gradient(before.z, everyone).sum(axis=0)
    worst = max(apart, float(np.max(np.abs(missed) / common.gradient_size)))
    assert worst <= after.residual.max() * (1.0 + 1e-9) + 1e-11


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, kind) for name in PEERS for kind in PROBLEMS]
    + [(name, "consensus") for name in ("consensus", "consensus-metropolis", "consensus-momentum")],
)
def test_mail_gives_the_bits_of_the_plain_loop(name: str, kind: str) -> None:
    """Perfect links in one host, two hosts, and under loss and delay with a barrier."""
    problem = PROBLEMS[kind]
    rounds = 20
    expected = plain_rows(make(name, problem, tolerance=0.0).team, rounds)[0].answer()["x"]
    names = problem.names
    for hosting in [(names,), (names[::2], names[1::2])]:
        for post in (Post(), Post(loss=0.3, max_delay_steps=3, seed=5)):
            x = after(name, problem, hosting, post, rounds)
            assert x == expected.tolist()


def after(
    name: str, problem: Problem, hosting: tuple[tuple[str, ...], ...], post: Post, rounds: int
) -> list[float]:
    """Return the x of all agents, each after its own round number `rounds`."""
    hosts = [make(name, problem, tolerance=0.0, hosted=part) for part in hosting]
    loop = MailLoop(hosts, post)
    x: dict[str, float] = {}
    while len(x) < len(problem.names):
        loop.step()
        for host in hosts:
            done = np.flatnonzero(host.desks[0].rounds == rounds)
            answer = host.answer()["x"]
            x |= {host.hosted[i]: float(answer[i]) for i in done if host.hosted[i] not in x}
    return [x[name] for name in problem.names]


def matrix_of(graph: Graph) -> FloatArray:
    """Return W of the Metropolis weights."""
    arc, own = graph.mixing("metropolis")
    matrix = np.diag(own)
    matrix[graph.arcs[1], graph.arcs[0]] = arc
    return matrix


def answers(name: str, problem: Problem, rounds: int, **options: Any) -> dict[str, FloatArray]:
    """Return what the agents know after some rounds."""
    return dict(plain_rows(make(name, problem, tolerance=0.0, **options).team, rounds)[0].answer())


def gradient(problem: Dispatch, z: FloatArray) -> FloatArray:
    """Return b / n - x(z) of each agent of a dispatch with one balance row."""
    x = np.clip(-(problem.linear + z) / problem.quadratic, problem.low, problem.high)
    return problem.right[0] / problem.size - x


def test_dgd_follows_its_equation() -> None:
    p, alpha = dispatch(), 0.2
    w, z = matrix_of(p.graph), np.zeros(8)
    for k in range(15):
        z = w @ z - alpha / np.sqrt(k + 1.0) * gradient(p, z)
    price = answers("dgd-diminishing", p, 15, step=alpha)["price"][:, 0]
    np.testing.assert_allclose(price, z, rtol=1e-12)


def test_extra_follows_its_equations() -> None:
    p, alpha = dispatch(), 0.2
    w = matrix_of(p.graph)
    half = 0.5 * (np.eye(8) + w)
    before = np.zeros(8)
    z = w @ before - alpha * gradient(p, before)
    for _ in range(14):
        step = alpha * (gradient(p, z) - gradient(p, before))
        before, z = z, z + w @ z - half @ before - step
    np.testing.assert_allclose(answers("extra", p, 15, step=alpha)["price"][:, 0], z, rtol=1e-11)


@pytest.mark.parametrize("momentum", [False, True])
def test_gradient_tracking_follows_its_equations(momentum: bool) -> None:
    p, alpha = dispatch(), 0.1
    w, z = matrix_of(p.graph), np.zeros(8)
    y = gradient(p, z)
    rho = p.graph.rate("metropolis")
    beta = ((1.0 - np.sqrt(1.0 - rho**2)) / rho) ** 2 if momentum else 0.0
    z_before, y_before, change_before = z, y, np.zeros(8)
    for _ in range(15):
        new = (1.0 + beta) * w @ z - beta * z_before - alpha * y
        change = gradient(p, new) - gradient(p, z)
        tracked = (1.0 + beta) * w @ y - beta * y_before + change - beta * change_before
        z_before, y_before, change_before, z, y = z, y, change, new, tracked
    found = answers("gradient-tracking", p, 15, step=alpha, momentum=momentum)
    np.testing.assert_allclose(found["price"][:, 0], z, rtol=1e-11)


@pytest.mark.parametrize("momentum", [False, True])
def test_ratio_consensus_follows_its_equations(momentum: bool) -> None:
    """Running sums give the masses of the push-sum matrix with columns that sum to 1."""
    p = averages()
    graph = p.graph
    push = np.eye(8)
    push[graph.arcs[1], graph.arcs[0]] = 1.0
    push /= 1.0 + graph.degree
    rho = np.sort(np.abs(np.linalg.eigvals(push)))[-2]
    beta = ((1.0 - np.sqrt(1.0 - rho**2)) / rho) ** 2 if momentum else 0.0
    mass = before = np.stack([p.own, np.ones(8)], axis=1)
    for _ in range(15):
        mass, before = (1.0 + beta) * push @ mass - beta * before, mass
    found = answers("ratio-consensus", p, 15, momentum=momentum)["x"]
    np.testing.assert_allclose(found, mass[:, 0] / mass[:, 1], rtol=1e-11)


def test_admm_follows_equation_3_of_the_survey() -> None:
    """Dual consensus ADMM with prices lambda and w, as in Chang, Hong and Wang (2015).

    lambda_k minimises its function plus ``w_k lambda + rho sum_j |lambda - (lambda_j +
    lambda_k) / 2|^2``, w_k rises by ``rho sum_j (lambda_k - lambda_j)``; this rho is half of ours.
    """
    p, rho = dispatch(), 0.15
    n, d = p.size, p.graph.degree
    adjacent = np.zeros((n, n))
    adjacent[p.graph.arcs[1], p.graph.arcs[0]] = 1.0
    price, w = np.zeros(n), np.zeros(n)
    for k in range(16):
        if k:
            w = w + rho * (d * price - adjacent @ price)
        pull = rho * (d * price + adjacent @ price) - w - p.right[0] / n
        # x minimises cost + |x - b/n - w + rho sum_j (lambda_j + lambda_k)|^2 / (4 rho d)
        x = np.clip(
            (-pull / (2 * rho * d) - p.linear) / (p.quadratic + 1 / (2 * rho * d)), p.low, p.high
        )
        price = (x + pull) / (2 * rho * d)
    found = answers("admm-consensus", p, 15, penalty=2.0 * rho)
    np.testing.assert_allclose(found["price"][:, 0], price, rtol=1e-11)
    np.testing.assert_allclose(found["x"], x, rtol=1e-11)


def test_dgd_keeps_a_bias_that_shrinks_with_its_step() -> None:
    """At rest (I - W) x + step (x - a) = 0: it never reaches 1e-6, and its agents never stop."""
    p = averages()
    gaps = []
    for step in (0.2, 0.1, 0.05):
        rest = np.linalg.solve(np.eye(8) * (1.0 + step) - matrix_of(p.graph), step * p.own)
        found = plain_rows(make("dgd", p, step=step).team, 450)[0]
        np.testing.assert_allclose(found.answer()["x"], rest, rtol=0.0, atol=1e-9)
        gaps.append(p.measure(found.answer()).gap)
        assert float(found.residual.max()) > 1e-2
    assert gaps[0] > gaps[1] > gaps[2] > 1e-2


def test_dgd_with_a_falling_step_has_less_bias() -> None:
    p = averages()
    fixed, falling = (p.measure(answers(name, p, 2000)).gap for name in ("dgd", "dgd-diminishing"))
    assert 1e-6 < falling < 0.1 * fixed


@settings(max_examples=15)
@given(problems(), st.integers(0, 12), st.booleans())
def test_gradient_tracking_keeps_the_sum_of_the_gradients(
    problem: Problem, rounds: int, momentum: bool
) -> None:
    rows = plain_rows(make("gradient-tracking", problem, momentum=momentum).team, rounds)[0]
    assert isinstance(rows, TrackingRows)
    everyone = np.arange(len(rows.y))
    exact = rows.costs.gradient(rows.z, everyone)
    size = np.abs(rows.y).sum() + np.abs(exact).sum()
    assert abs(rows.y.sum() - exact.sum()) <= 1e-12 * size * (rounds + 1)


@settings(max_examples=15)
@given(problems(), st.integers(0, 2**16), st.booleans())
def test_ratio_consensus_loses_no_mass_on_bad_links(
    problem: Problem, seed: int, free: bool
) -> None:
    """What agents hold and what is under way sum to s and h, under loss, delay and repetition."""
    waiting = Asynchronous(fraction=0.0, max_age=None) if free else None
    made = make("ratio-consensus", problem, waiting=waiting, tolerance=0.0)
    rows = made.desks[0].rows
    assert isinstance(rows, RatioRows)
    loop = MailLoop([made], Post(loss=0.4, max_delay_steps=4, duplication=0.2, seed=seed))
    for _ in range(25):
        loop.step()
    share = 1.0 / (1.0 + problem.graph.degree[:, None])
    source = problem.graph.arcs[0]
    # An agent's own part of a mass that it has sent is not in `sent`.
    under_way = (rows.sent[source] - rows.heard).sum(axis=0)
    kept = (share * rows.mass).sum(axis=0)
    common = common_variable(problem, "test")
    everyone = np.arange(len(rows.z))
    s = common.curvature[:, None] * rows.z - rows.costs.gradient(rows.z, everyone)
    exact = np.append(s.sum(axis=0), common.curvature.sum())
    scale = np.append(np.abs(s).sum(axis=0), common.curvature.sum())
    np.testing.assert_array_less(np.abs(kept + under_way - exact), 1e-11 * scale + 1e-300)


@pytest.mark.parametrize("name", ["admm-consensus-async", "ratio-consensus"])
@pytest.mark.parametrize(("loss", "delay"), [(0.3, 0), (0.0, 10), (0.5, 10)])
def test_peers_that_do_not_wait_bear_loss_and_delay(name: str, loss: float, delay: int) -> None:
    waiting = Asynchronous(fraction=0.0, max_age=None)
    for problem in (averages(10), dispatch(10)):
        post = Post(loss=loss, max_delay_steps=delay, seed=3)
        done = run(name, problem, 2500, post, waiting=waiting)
        measure = problem.measure(done.answer())
        assert done.stopped
        assert max(measure.gap, measure.infeasibility) <= 1e-5


@pytest.mark.parametrize(
    "name", ["consensus", "extra", "gradient-tracking", "ratio-consensus-momentum"]
)
def test_algorithms_that_need_every_message_refuse_not_to_wait(name: str) -> None:
    with pytest.raises(ControllerError, match="need every message once"):
        build(name, averages(), waiting=Asynchronous())


def test_names_of_the_catalog_reach_the_peers() -> None:
    """`admm` and `admm-async` of a consensus problem are those of peers."""
    p = averages()
    for name, twin in (("admm", "admm-consensus"), ("admm-async", "admm-consensus-async")):
        first, second = run(name, p), run(twin, p)
        assert first.stopped
        assert first.answer()["x"].tolist() == second.answer()["x"].tolist()


def test_inequality_rows_are_refused() -> None:
    with pytest.raises(ControllerError, match="row 1 is an inequality"):
        common_variable(random_dispatch(6, coupling=1), "extra")
    with pytest.raises(ControllerError, match="'extra' does not solve inequality dispatch"):
        build("extra", random_dispatch(6, coupling=1))


@pytest.mark.parametrize(
    "name", ["dgd", "extra", "gradient-tracking", "gradient-tracking-plain", "ratio-consensus"]
)
def test_costs_without_curvature_are_refused(name: str) -> None:
    flat = Dispatch.balance(np.zeros(2), np.ones(2), np.zeros(2), np.ones(2), 1.0)
    with pytest.raises(ControllerError, match="quadratic cost of 'unit_0' is 0"):
        build(name, flat)


def test_admm_of_peers_solves_costs_without_curvature() -> None:
    """The cheap units fill first."""
    cost = np.array([1.0, 2.0, 3.0])
    flat = Dispatch.balance(np.zeros(3), cost, np.zeros(3), np.ones(3), 1.5, Graph.ring(3))
    done = run("admm-consensus", flat)
    np.testing.assert_allclose(done.answer()["x"], [1.0, 0.5, 0.0], atol=1e-5)
    assert done.stopped


def test_one_agent_has_no_peers() -> None:
    with pytest.raises(ControllerError, match="there is one agent"):
        build("extra", Consensus(np.ones(1), Graph(1, np.empty((0, 2), dtype=np.int64))))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dgd", {"step": 0.0}), ("dgd", {"decay": -1.0}), ("extra", {"step": -1.0}),
        ("gradient-tracking", {"step": np.inf}),
        ("admm-consensus", {"penalty": np.nan}), ("admm-consensus", {"relaxation": 1.5}),
        ("ratio-consensus", {"damping": 2.0}),
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused(name: str, options: dict[str, float]) -> None:
    with pytest.raises(ControllerError, match=f"option '{next(iter(options))}'"):
        build(name, averages(), **options)
