"""Clusters of buses: wrong lists are refused with words, found ones are connected and even."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from controllers.core.sample_site import sample_site
from controllers.dmpc.circuit import CircuitDmpc
from controllers.dmpc.feeder import FeederDmpc
from grid_models.base.errors import FeederateError, GridModelError
from grid_models.circuits.feeder24 import feeder24
from grid_models.feeder.clusters import found_clusters, given_clusters

BUSES = ("a", "b", "c", "d")
FIRST, SECOND = np.array([-1, 0, 1, 2]), np.array([0, 1, 2, 3])


@pytest.mark.parametrize(
    ("lists", "words"),
    [
        ({"x": ["a", "b"], "y": ["b", "c", "d"]}, "bus 'b' is in 'x' and in 'y'"),
        ({"x": ["a", "b", "b"], "y": ["c", "d"]}, "bus 'b' is twice in 'x'"),
        ({"x": ["a", "b"], "y": ["c"]}, "in no cluster: bus.es. d"),
        ({"x": ["a", "b"], "y": ["c", "d", "dd"]}, "unknown bus 'dd'.*did you mean 'd'"),
        ({"x": ["a", "b", "c", "d"], "y": []}, "cluster 'y' has no bus"),
        ({"x": ["a", "c"], "y": ["b", "d"]}, "cluster 'x' falls in 2 pieces"),
    ],
)
def test_wrong_lists(lists: dict[str, list[str]], words: str) -> None:
    with pytest.raises(GridModelError, match=words):
        given_clusters(BUSES, lists, FIRST, SECOND)


def test_a_disconnected_cluster_graph_is_refused() -> None:
    # Two branches that only the slack joins: no boundary line, nothing to agree over.
    first, second = np.array([-1, 0, -1, 2]), np.array([0, 1, 2, 3])
    with pytest.raises(GridModelError, match=r"cluster graph is disconnected.*y"):
        given_clusters(BUSES, {"x": ["a", "b"], "y": ["c", "d"]}, first, second)
    with pytest.raises(GridModelError, match="in 2 pieces"):
        found_clusters(4, first, second, np.ones(4), 2)


def test_too_many_buses_are_refused_with_an_estimate() -> None:
    n = 30_000
    with pytest.raises(GridModelError, match=r"30000 buses needs about 7\.2 GB.*lists of buses"):
        found_clusters(n, np.arange(n - 1), np.arange(1, n), np.ones(n - 1), 4)


@pytest.mark.parametrize("cls", [CircuitDmpc, FeederDmpc])
def test_controllers_say_so_before_they_start(cls: type) -> None:
    with pytest.raises(FeederateError, match="in no cluster"):
        cls.agents(sample_site(), clusters={"x": ["b1" if cls is FeederDmpc else "c2_0"]})
    with pytest.raises(FeederateError, match="clusters"):
        cls.agents(sample_site(), clusters=0)


@settings(max_examples=40)
@given(n=st.integers(1, 40), k=st.integers(1, 8), seed=st.integers(0, 999))
def test_found_clusters_of_a_tree_are_connected(n: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    k = min(k, n)
    child = np.arange(1, n)
    parent = (rng.random(n - 1) * child).astype(np.int64)
    cut = found_clusters(n, parent, child, rng.uniform(0.1, 2.0, n - 1), k)
    assert sorted(set(cut.member.tolist())) == list(range(k))
    own = cut.member[parent] == cut.member[child]
    graph = sparse.csr_array((np.ones(int(own.sum())), (parent[own], child[own])), shape=(n, n))
    assert connected_components(graph, directed=False)[0] == k


def test_the_test_feeder_is_found_as_it_was_made() -> None:
    # A chain of four equal groups: even clusters are the best cut.
    circuit, given_ = feeder24()
    found = found_clusters(24, circuit.line_from, circuit.line_to, circuit.r_pu, 4)
    assert np.bincount(found.member).max() <= 8
    assert np.bincount(given_.member).tolist() == [6, 6, 6, 6]
