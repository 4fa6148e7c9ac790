"""Which operators the clusters of a feeder get, and what they cost before they are built."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray
from controllers.dmpc.dense_plan import dense_part, dense_tail
from controllers.dmpc.feeder_network import FeederNetwork
from controllers.dmpc.feeder_problem import FeederProblem
from controllers.dmpc.splitting import ClusterSplitting, RowSplitting
from controllers.dmpc.tree_plan import TreeSplitting

DENSE_VALUES = 4_000_000
"""Up to this many values of all clusters' matrices they are dense; above it, sparse factors."""
# Per node, and per cluster, and step of the plan; and the row vectors that each cluster keeps.
_BYTES_PER_NODE, _BYTES_PER_CLUSTER, _ROW_VECTORS = 12_000, 150_000, 16
# Batteries join the steps of a plan: factors per step double when this many are added.
_DOUBLING_STEPS = 48
_DERS_PER_GB = 1500


def feeder_splitting(
    problem: FeederProblem, own: Sequence[int]
) -> tuple[RowSplitting, list[FloatArray]]:
    """Return the operators of the clusters `own`, and of each the (6, units) matrix from its
    inputs to the P (3) and Q (3) that it injects above.

    The choice depends on all clusters, so that it is equal in every instance.

    Raises ControllerError: The clusters need more memory than is allowed; nothing is built yet.
    """
    count = len(problem.layouts)
    bounded = max(lay.e_rows.stop for lay in problem.layouts)
    rows = bounded + max(problem.coupled(c) for c in range(count))
    if count * rows**2 <= DENSE_VALUES and _dense_form_holds(problem.network):
        parts = [dense_part(problem, c) for c in range(count)]
        tails = [dense_tail(parts[c], problem, c) for c in own]
        return ClusterSplitting(parts).of(own), tails
    _check_memory(problem, len(own), rows)
    split = TreeSplitting(problem, own)
    return split, [plan.tail for plan in split.plans]


def _dense_form_holds(network: FeederNetwork) -> bool:
    """Say whether each watched node follows one node above its cluster, on its own phase.

    Behind transformers that mix phases, such as delta-wye, it follows several.
    """
    grid, index = network.model.network, network.model.index
    start, parent = grid.transfer.indptr, grid.transfer.indices
    mixed = np.zeros(grid.size, dtype=np.int64)  # how many of them, from the source to a node
    for i in np.flatnonzero(np.diff(start)):
        mixed[i] = mixed[parent[start[i]]] + (start[i + 1] - start[i] > 1)
    for cluster in network.clusters:
        tops = () if cluster.up < 0 else network.boundaries[cluster.up].labels
        above = [mixed[grid.node[index[x]]] for x in tops if x is not None]
        at = grid.node[[index[x] for x in cluster.labels]].astype(np.int64)
        if above and (mixed[at] != above[0]).any():
            return False
    return True


def estimated_gb(problem: FeederProblem, hosted: int, rows: int) -> float:
    """Return an estimate of the memory that `hosted` clusters with sparse factors take."""
    per_node = _BYTES_PER_NODE * (1.0 + problem.horizon / _DOUBLING_STEPS)
    a_step = per_node * len(problem.network.model.nodes) + _BYTES_PER_CLUSTER * hosted
    return (problem.horizon * a_step + 8 * _ROW_VECTORS * hosted * rows) / 1e9


def _check_memory(problem: FeederProblem, hosted: int, rows: int) -> None:
    ders = len(problem.site.ders)
    needed, most = estimated_gb(problem, hosted, rows), max(1.0, ders / _DERS_PER_GB)
    if needed > most:
        raise ControllerError(
            f"{hosted} clusters of up to {rows} rows with {ders} DERs and a horizon of "
            f"{problem.horizon} steps need about {needed:.1f} GB",
            where="dmpc: option 'clusters'",
            expected=f"at most {most:.1f} GB: fewer clusters, clusters of more even size, or a "
            "shorter 'horizon'",
        )
