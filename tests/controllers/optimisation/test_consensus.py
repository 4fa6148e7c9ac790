"""Average consensus: rates of theory, laws, and a weight that never converges."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from controllers.core.agent_rows import Heard, RowController
from controllers.core.errors import ControllerError
from controllers.core.graph import Graph
from controllers.core.mail_loop import MailLoop
from controllers.optimisation.algorithms.catalog import build
from controllers.optimisation.algorithms.consensus import Mixers
from controllers.optimisation.problems.consensus import Consensus

FloatArray = NDArray[np.float64]


def averages(graph: Graph, seed: int = 0) -> Consensus:
    return Consensus(np.random.default_rng(seed).random(graph.n), graph)


def errors(problem: Consensus, rounds: int, *, momentum: bool = False) -> FloatArray:
    """Return the distance from the mean after 0 to `rounds` rounds, relative to the start."""
    rows = Mixers(problem, np.arange(problem.size), "optimal", momentum=momentum)
    source, target = problem.graph.arcs
    at, fresh = np.arange(len(source)), np.ones(len(source), dtype=np.bool_)
    mean = problem.own.mean()
    found = [np.linalg.norm(rows.x - mean)]
    for _ in range(rounds):
        heard = Heard(target, at, source, rows.x[source, None], fresh, problem.size)
        rows.compute(np.arange(problem.size), heard)
        found.append(np.linalg.norm(rows.x - mean))
    return np.array(found) / found[0]


# Path of m agents: 2 - 2 cos(pi k / m); ring of n: 2 - 2 cos(2 pi k / n); a grid has their sums.
@pytest.mark.parametrize(
    ("graph", "second", "largest", "rounds"),
    [
        (Graph.ring(100), 2.0 - 2.0 * np.cos(np.pi / 50), 4.0, 3000),
        (Graph.grid(12, 12), 2 - 2 * np.cos(np.pi / 12), 4 + 4 * np.cos(np.pi / 12), 800),
    ],
    ids=["ring of 100", "grid of 12 x 12"],
)
def test_rate_is_that_of_theory(graph: Graph, second: float, largest: float, rounds: int) -> None:
    """(lambda_n - lambda_2) / (lambda_n + lambda_2) within 1e-6; ring of 100: .998029."""
    theory = (largest - second) / (largest + second)
    error = errors(averages(graph), rounds)
    measured = (error[-1] / error[-101]) ** 0.01
    assert measured == pytest.approx(theory, abs=1e-6)
    assert graph.rate() == pytest.approx(theory, abs=1e-12)


@settings(max_examples=20)
@given(st.integers(2, 12), st.integers(0, 2**16))
def test_momentum_is_as_fast_as_chebyshev_polynomials(n: int, seed: int) -> None:
    """Golub and Varga: the error is at most 1 / cosh(k arcosh(1 / rho)) of the first."""
    graph = Graph.geometric(n, seed)
    error = errors(averages(graph, seed), 25, momentum=True)
    log = np.arccosh(1.0 / max(graph.rate(), 1e-9))
    bound = 1.0 / np.cosh(np.arange(26) * log)
    np.testing.assert_array_less(error, bound * (1.0 + 1e-9) + 1e-13)


def test_ring_of_100_needs_231_rounds_with_momentum() -> None:
    """arcosh(1e6) / arcosh(1 / .9980287) = 231 at most; without momentum thousands."""
    assert errors(averages(Graph.ring(100)), 231, momentum=True)[-1] <= 1e-6


@pytest.mark.parametrize("n", [10, 11])
def test_weight_of_1_over_the_degree_never_converges_on_an_even_ring(n: int) -> None:
    """Eigenvalue -1: neighbours change places for ever. An odd ring has none."""
    problem = averages(Graph.ring(n))
    made = build("consensus", problem, weights=0.5)
    loop = MailLoop([made])  # type: ignore[list-item]
    while not made.stopped and loop.steps < 900:
        loop.step()
    x = made.answer()["x"]
    assert made.stopped == (n == 11)
    assert x.mean() == pytest.approx(problem.own.mean(), abs=1e-12)
    alternating = problem.own @ (-1.0) ** np.arange(n) / n
    expected = abs(alternating) if n == 10 else 0.0
    np.testing.assert_allclose(np.abs(x - x.mean()), expected, atol=1e-6)


@settings(max_examples=20)
@given(
    st.integers(1, 9),
    st.integers(0, 2**16),
    st.sampled_from(["consensus", "consensus-metropolis", "consensus-momentum"]),
)
def test_the_mean_is_kept_and_the_tolerance_holds(n: int, seed: int, name: str) -> None:
    problem = averages(Graph.geometric(n, seed), seed)
    made: Any = build(name, problem, tolerance=1e-6)
    assert isinstance(made, RowController)
    loop = MailLoop([made])  # type: ignore[list-item]
    while not made.stopped and loop.steps < 2000:
        loop.step()
        assert made.answer()["x"].mean() == pytest.approx(problem.own.mean(), abs=1e-13)
    assert made.stopped
    assert problem.measure(made.answer()).gap <= 2e-6


def test_numbers_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ControllerError, match="own numbers of shape"):
        Consensus(np.array([1.0, np.nan, 2.0]), Graph.ring(3))
