"""Who are peers among agents that stand in an electrical network."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra

from controllers.core.graph import Graph
from controllers.core.mail import IntArray


def network_peers(n_nodes: int, edges: IntArray, at: IntArray) -> Graph:
    """Return the graph of agents at nodes of a connected network.

    Every node belongs to the agent that is the fewest edges away; agents are peers where an edge
    joins nodes of both. Agents at one node are a chain, of which the first has the node.

    edges : (m, 2). at : (n,). Node of each agent.
    """
    places, first, which = np.unique(at, return_index=True, return_inverse=True)
    i, j = np.asarray(edges, dtype=np.int64).T
    network = coo_array((np.ones(len(i)), (i, j)), shape=(n_nodes, n_nodes)).tocsr()
    _, _, nearest = dijkstra(
        network, directed=False, indices=places, unweighted=True, min_only=True,
        return_predecessors=True,
    )  # fmt: skip
    owner = np.empty(n_nodes, dtype=np.int64)
    owner[places] = first
    ends = owner[nearest[np.stack([i, j], axis=1)]]
    order = np.argsort(which, kind="stable")
    chain = np.stack([order[:-1], order[1:]], axis=1)[np.diff(which[order]) == 0]
    return Graph(len(at), np.concatenate([ends[ends[:, 0] != ends[:, 1]], chain]))
