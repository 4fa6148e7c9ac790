"""Communication graphs: laws of mixing weights and spectra, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.core.errors import ControllerError
from controllers.core.graph import Graph


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """A random spanning tree and some more edges."""
    n = draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    tree = [(i, int(rng.integers(i))) for i in range(1, n)]
    more = rng.integers(n, size=(draw(st.integers(0, 2 * n)), 2))
    edges = np.array(tree + [tuple(e) for e in more if e[0] != e[1]], dtype=np.int64)
    return Graph(n, edges.reshape(-1, 2))


def matrix_of(graph: Graph, weights: str | float) -> np.ndarray:
    arc, own = graph.mixing(weights)  # type: ignore[arg-type]
    matrix = np.diag(own)
    matrix[graph.arcs[1], graph.arcs[0]] = arc
    return matrix


def laplacian(graph: Graph) -> np.ndarray:
    matrix = np.zeros((graph.n, graph.n))
    for i, j in graph.edges:
        matrix[[i, j], [j, i]] -= 1.0
        matrix[[i, j], [i, j]] += 1.0
    return matrix


@settings(max_examples=40)
@given(graphs(), st.sampled_from(["optimal", "metropolis", 0.05]))
def test_mixing_is_symmetric_keeps_sums_and_agrees(graph: Graph, weights: str | float) -> None:
    w = matrix_of(graph, weights)
    values = np.linalg.eigvalsh(w)
    np.testing.assert_array_equal(w, w.T)
    np.testing.assert_allclose(w.sum(axis=1), 1.0, atol=1e-14)
    np.testing.assert_allclose(graph.mixing_values(weights), values, atol=1e-13)  # type: ignore[arg-type]
    assert graph.rate(weights) < 1.0  # type: ignore[arg-type]


@settings(max_examples=40)
@given(graphs())
def test_spectrum_is_that_of_the_laplacian(graph: Graph) -> None:
    values = np.linalg.eigvalsh(laplacian(graph))
    np.testing.assert_allclose(graph.spectrum, values, atol=1e-12)
    np.testing.assert_array_equal(graph.degree, np.diag(laplacian(graph)))
    if graph.n > 1:
        assert graph.spectrum[1] > 1e-6  # connected
        ends = graph.spectrum[-1] + graph.spectrum[1]
        expected = (graph.spectrum[-1] - graph.spectrum[1]) / ends
        assert graph.rate("optimal") == pytest.approx(expected, abs=1e-12)


@settings(max_examples=40)
@given(graphs())
def test_diameter_is_the_power_at_which_all_reach_all(graph: Graph) -> None:
    step = (laplacian(graph) != 0.0) | np.eye(graph.n, dtype=np.bool_)
    reach, hops = np.eye(graph.n, dtype=np.bool_), 0
    while not reach.all():
        reach, hops = (reach.astype(float) @ step) > 0.0, hops + 1
    assert graph.diameter == hops


@settings(max_examples=20)
@given(graphs())
def test_arcs_are_ordered_and_go_both_ways(graph: Graph) -> None:
    source, target = graph.arcs
    pairs = list(zip(target.tolist(), source.tolist(), strict=True))
    assert pairs == sorted(set(pairs))
    assert set(pairs) == {(j, i) for i, j in pairs}


@pytest.mark.parametrize("n", [3, 8, 9])
def test_ring_has_the_spectrum_of_a_cycle(n: int) -> None:
    """2 - 2 cos(2 pi k / n)."""
    expected = np.sort(2.0 - 2.0 * np.cos(2.0 * np.pi * np.arange(n) / n))
    np.testing.assert_allclose(Graph.ring(n).spectrum, expected, atol=1e-13)
    assert Graph.ring(n).diameter == n // 2


def test_grid_has_the_spectrum_of_two_paths() -> None:
    """Sums of 2 - 2 cos(pi k / n)."""
    path = [2.0 - 2.0 * np.cos(np.pi * np.arange(n) / n) for n in (3, 4)]
    expected = np.sort((path[0][:, None] + path[1]).ravel())
    np.testing.assert_allclose(Graph.grid(3, 4).spectrum, expected, atol=1e-13)
    assert Graph.grid(3, 4).diameter == 5


def test_geometric_graphs_repeat_by_seed() -> None:
    first, again, other = Graph.geometric(30, 1), Graph.geometric(30, 1), Graph.geometric(30, 2)
    np.testing.assert_array_equal(first.edges, again.edges)
    assert first.edges.shape != other.edges.shape or (first.edges != other.edges).any()


def test_a_disconnected_graph_is_refused_with_the_agent() -> None:
    with pytest.raises(ControllerError, match=r"2 of 5 agents have no path .* the first is 3"):
        Graph(5, np.array([[0, 1], [1, 2], [3, 4]]))


@pytest.mark.parametrize("edge", [(1, 1), (0, 3), (-1, 0)])
def test_edges_that_join_no_two_agents_are_refused(edge: tuple[int, int]) -> None:
    with pytest.raises(ControllerError, match=f"edge {min(edge)}-{max(edge)}|edge {edge[0]}-"):
        Graph(3, np.array([(0, 1), (1, 2), edge]))


@pytest.mark.parametrize("weights", ["best", 0.0, -0.1, np.nan])
def test_unknown_weights_are_refused(weights: Any) -> None:
    with pytest.raises(ControllerError, match=r"mixing weights .* are not known"):
        Graph.ring(4).mixing(weights)
