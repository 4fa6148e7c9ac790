"""Kron reduction onto the agents' nodes: dense X, sparse Y = X^-1 and the neighbour graph.

LinDistFlow's X over all nodes of a tree is ``A^T diag(X_edge) A`` with the path incidence A, so its
inverse couples a bus with its parent and children only. Eliminating nodes without an agent is a
Schur complement: two agents stay coupled exactly when a path between them meets no other agent
(Doerfler and Bullo, "Kron reduction of graphs with applications to electrical networks", IEEE
Trans. Circuits and Systems I 60(1), 2013, theorem III.4). So ``Y = inv(X[agents, agents])`` is
sparse, and an agent-free junction becomes a clique.

In the three-phase model nodes are phases, and an edge couples all phases of its two buses. Two
patterns of Y are offered:

``'exact'`` (default)
    inv(X) has no other entries in the flat model with plain lines. It may be dense where agents
    sit on few phases.
``'phase'``
    Cross-phase terms of X are set to 0 before inverting, so neighbours share a phase; Y is exactly
    the inverse of that X. Both legs of a centre-tapped secondary count as their feeding phase.

Agents on one electrical node would make X singular. Each is connected by a service drop of its own:
its diagonal entry of X grows by `service_drop` times itself. The node then is an agent-free
junction: its agents are a clique, with the node's neighbours in common (`groups` names them).

For feeders with hundreds of agents see `grid_models.linear.kron_tree`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from grid_models.base.errors import GridModelError
from grid_models.base.options import checked_choice
from grid_models.feeder.model import Der, Feeder
from grid_models.linear.lindistflow import LinDistFlow

Real = NDArray[np.float64]
Pattern = Literal["exact", "phase"]
# Below this share of the largest diagonal entry an agent cannot move its own voltage.
_STIFF_SHARE = 1e-9


@dataclass(frozen=True)
class KronReduction:
    """What a distributed controller needs to know of the feeder; k agents.

    Attributes
    ----------
    agents : Node labels, or DER names.
    x : (k, k). d(v^2)/dq in pu per kvar; not symmetric across phases or regulators.
    y : (k, k). inv(x) on the pattern of `neighbours` plus the diagonal, in kvar per pu.
    neighbours : Sorted positions of each agent's Kron neighbours, itself left out; symmetric.
    groups : Agents that share an electrical node, for groups of two and more.
    error : Spectral radius of ``I - Y x``: 0 means Y is the inverse; at and above 1 a fixed-point
        iteration with Y as its preconditioner may diverge.
    """

    agents: tuple[str, ...]
    x: Real
    y: sparse.csr_array
    neighbours: tuple[tuple[int, ...], ...]
    groups: tuple[tuple[int, ...], ...]
    pattern: Pattern
    error: float


def kron_reduce(
    feeder: Feeder | LinDistFlow,
    agents: Sequence[str | Der],
    *,
    pattern: Pattern = "exact",
    service_drop: float = 0.05,
) -> KronReduction:
    """Reduce a feeder to its agents.

    Parameters
    ----------
    feeder : A feeder stands for its flat three-phase model.
    agents : Node labels of the model, or DERs. A DER on several phases occupies all of them and is
        measured by their mean; 'exact' then leaves small entries out, see `error`.
    pattern : Which entries of Y are kept; see the module's description.
    service_drop : Share added to the own reactance of agents that share an electrical node.

    Raises
    ------
    GridModelError
        If there are no agents, a name occurs twice, or an agent sits on the stiff source.
    FeederError: If a label is no node of the model.
    """
    model = LinDistFlow.from_feeder(feeder) if isinstance(feeder, Feeder) else feeder
    names = _agent_names(agents)
    checked_choice("pattern", pattern, get_args(Pattern))
    joined = _stiffly_joined(model)
    nodes = [tuple(joined[list(model.electrical_nodes(agent))].tolist()) for agent in agents]
    groups = _groups(nodes)
    _, x = model.sensitivity(agents, agents)
    diagonal = np.diag(x).copy()
    stiff = diagonal <= _STIFF_SHARE * max(float(diagonal.max()), 0.0)
    if stiff.any():
        raise GridModelError(
            f"agent '{names[int(np.argmax(stiff))]}' sits where the voltage is fixed",
            where=model.feeder.name,
            expected="agents below the source and its merged switches",
        )
    shared = sorted({i for group in groups for i in group})
    x[shared, shared] += service_drop * diagonal[shared]
    return _reduce(model, names, nodes, x, groups, pattern)


def _reduce(
    model: LinDistFlow,
    names: tuple[str, ...],
    nodes: list[tuple[int, ...]],
    x: Real,
    groups: tuple[tuple[int, ...], ...],
    pattern: Pattern,
) -> KronReduction:
    if pattern == "phase":
        x = np.where(_shares_phase(model, nodes), x, 0.0)
    meets, shared = _meeting_places(model, nodes, pattern)
    mask = np.asarray((meets @ meets.T + shared @ shared.T).toarray() > 0)
    inverse = np.linalg.inv(x)
    rows, cols = np.nonzero(mask | np.eye(len(names), dtype=bool))
    y = sparse.csr_array((inverse[rows, cols], (rows, cols)), shape=x.shape)
    np.fill_diagonal(mask, False)
    defect = np.linalg.eigvals(np.eye(len(names)) - y @ x)
    return KronReduction(
        agents=names,
        x=x,
        y=y,
        neighbours=tuple(tuple(np.flatnonzero(row).tolist()) for row in mask),
        groups=groups,
        pattern=pattern,
        error=float(np.abs(defect).max()),
    )


def _agent_names(agents: Sequence[str | Der]) -> tuple[str, ...]:
    names = tuple(a.name if isinstance(a, Der) else a for a in agents)
    if not names:
        raise GridModelError("no agents", where="kron_reduce", expected="at least one")
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise GridModelError(
            f"agent '{name}' occurs {times} times",
            where="kron_reduce",
            expected="each agent once; two DERs at one node have two names",
        )
    return names


def _groups(nodes: list[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """Return the sets of agents that share electrical nodes, directly or through others."""
    touch = _incidence(nodes, 1 + max(max(own) for own in nodes))
    count, member = csgraph.connected_components(touch @ touch.T, directed=False)
    sets = [tuple(np.flatnonzero(member == g).tolist()) for g in range(count)]
    return tuple(group for group in sets if len(group) > 1)


def _meeting_places(
    model: LinDistFlow, nodes: list[tuple[int, ...]], pattern: Pattern
) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Return who meets where: agents x cliques, agents x vertices.

    A clique is an agent-free component of the graph with the agents that touch it, or the agents of
    two adjacent vertices.
    """
    to_vertex = _vertices(model)
    graph = sparse.csr_array(
        to_vertex.T @ _graph(model, within_phase=pattern == "phase") @ to_vertex
    )
    attached = sparse.csr_array(_incidence(nodes, model.network.size) @ to_vertex)
    attached.data[:] = 1
    crowd = np.asarray(attached.sum(axis=0)).ravel()
    # A node with several agents is a junction with a service drop for each.
    separates = crowd == 1
    free = np.flatnonzero(~separates)
    _, member = csgraph.connected_components(graph[free][:, free], directed=False)
    component = sparse.csr_array(
        (np.ones(len(free), dtype=np.int64), (free, member)),
        shape=(graph.shape[0], int(member.max(initial=0)) + 1),
    )
    through = attached @ (graph @ component + component)
    u, v = sparse.triu(graph, k=1).tocoo().coords
    both = separates[u] & separates[v]
    direct = attached[:, u[both]] + attached[:, v[both]]
    meets = sparse.csr_array(sparse.hstack([through, direct]).astype(np.int64))
    return meets, attached


def _vertices(model: LinDistFlow) -> sparse.csr_array:
    """Return the membership of electrical nodes in graph vertices.

    What an element without impedance joins (an ideal regulator) is one vertex.
    """
    m = model.network.size
    ones = np.ones(m, dtype=np.int64)
    return sparse.csr_array((ones, (np.arange(m), _stiffly_joined(model))), shape=(m, m))


def _stiffly_joined(model: LinDistFlow) -> NDArray[np.intp]:
    """Return for each electrical node the topmost node that it is joined to without impedance."""
    network = model.network
    top = np.arange(network.size)
    transfer = network.transfer
    single = np.diff(transfer.indptr) == 1
    no_drop = np.asarray(abs(network.impedance).sum(axis=1)) == 0
    for i in np.flatnonzero(single & no_drop):
        top[i] = top[transfer.indices[transfer.indptr[i]]]
    return top


def _graph(model: LinDistFlow, *, within_phase: bool) -> sparse.csr_array:
    """Return the graph of electrical nodes on which the inverse of the whole X has entries.

    The nodes of a bus are coupled with each other and with the parent nodes that their voltages
    depend on. A stiff source has no edges.
    """
    network = model.network
    transfer = (abs(network.transfer) > 0).astype(np.int64)
    if within_phase:
        down = transfer.tocoo()
        phase = model.feeding_phase
        same = phase[down.row] == phase[down.col]
        down = sparse.coo_array(
            (down.data[same], (down.row[same], down.col[same])), shape=down.shape
        )
        graph = down + down.T
    else:
        to_bus = _bus_membership(model)
        same_bus = to_bus @ to_bus.T
        down = same_bus @ transfer
        graph = down + down.T + same_bus
    live = sparse.diags_array((~network.stiff).astype(np.int64), dtype=np.int64)
    return sparse.csr_array(live @ graph @ live)


def _bus_membership(model: LinDistFlow) -> sparse.csr_array:
    bus = model.network.bus
    m = len(bus)
    ones = np.ones(m, dtype=np.int64)
    return sparse.csr_array((ones, (np.arange(m), bus)), shape=(m, int(bus[-1]) + 1))


def _incidence(nodes: list[tuple[int, ...]], size: int) -> sparse.csr_array:
    counts = [len(own) for own in nodes]
    rows = np.repeat(np.arange(len(nodes)), counts)
    cols = np.array([i for own in nodes for i in own], dtype=np.intp)
    ones = np.ones(len(cols), dtype=np.int64)
    return sparse.csr_array((ones, (rows, cols)), shape=(len(nodes), size))


def _shares_phase(model: LinDistFlow, nodes: list[tuple[int, ...]]) -> NDArray[np.bool_]:
    """Say for each pair of agents whether they have a phase in common."""
    if model.phases == "single":
        return np.ones((len(nodes), len(nodes)), dtype=bool)
    phase = model.feeding_phase
    on = np.zeros((len(nodes), int(phase.max()) + 1), dtype=np.int64)
    for row, own in zip(on, nodes, strict=True):
        row[phase[list(own)]] = 1
    return np.asarray(on @ on.T > 0)
