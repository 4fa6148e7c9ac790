"""A compiled circuit cut into areas: each area's own admittance matrix, reduced to its ports."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph
from scipy.sparse.linalg import splu

from grid_models.base.errors import FeederError
from grid_models.current_injection.areas import PortArea
from grid_models.current_injection.model import (
    BASE_KVA,
    ComplexArray,
    FloatArray,
    PortNetwork,
)
from grid_models.feeder.topology import cut_into
from grid_models.opendss.circuit import Circuit
from grid_models.opendss.elements import each, primitive
from grid_models.opendss.ports import _Places, _rated, _source

_BASE_VA = 1e3 * BASE_KVA
_OPEN_S = 1e-11


def port_areas(circuit: Circuit, network: PortNetwork, k: int) -> tuple[PortArea, ...]:
    """Return `k` connected areas with about equally many buses; the first holds the source.

    The areas are subtrees of the breadth-first tree of the buses, so the circuit may be meshed. An
    element between two areas goes to the one farther from the source; its other end is a boundary.

    Parameters
    ----------
    circuit : In the state that `network` was made from.
    network : Its current-injection model.

    Raises FeederError: `k` is out of range.
    """
    labels = circuit.engine_nodes()
    bus_of_node, area_of_bus, depth = _cut(circuit, network, k)
    y, touched, elements = _admittances(circuit, k, bus_of_node, area_of_bus, depth)
    y_source, i_norton = _source(circuit, len(labels))
    home = area_of_bus[bus_of_node]
    first = int(home[np.flatnonzero(i_norton)[0]])
    y[first] = y[first] + y_source
    shared = touched.sum(axis=0) > 1
    incidence = _Places(circuit).incidence()
    made = []
    for a in range(k):
        source = (y_source, i_norton) if a == first else None
        cut = _Cut(np.flatnonzero(touched[a] & shared), touched[a], home == a, elements[a])
        made.append(_area(circuit, network, y[a], cut, incidence, source))
    return tuple(made)


@dataclass(frozen=True)
class _Cut:
    """Which of the engine's nodes are an area's boundary, touched by its elements, and its own; its elements."""

    boundary: NDArray[np.intp]
    touched: NDArray[np.bool_]
    own: NDArray[np.bool_]
    elements: frozenset[str]


def _cut(
    circuit: Circuit, network: PortNetwork, k: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Return the bus of each of the engine's nodes, and area and tree position of each bus."""
    labels = circuit.engine_nodes()
    buses = list(dict.fromkeys(label.rpartition(".")[0] for label in labels))
    number = {bus: i for i, bus in enumerate(buses)}
    bus_of_node = np.array([number[label.rpartition(".")[0]] for label in labels])
    graph = sparse.lil_array((len(buses), len(buses)))
    for _, nodes, _ in _elements(circuit):
        met = np.unique(bus_of_node[nodes[nodes > 0] - 1])
        for other in met[1:].tolist():
            graph[int(met[0]), other] = 1.0
    root = number[network.nodes[int(network.source_nodes[0])].rpartition(".")[0]]
    order, above = csgraph.breadth_first_order(graph.tocsr(), root, directed=False)
    rank = np.full(len(buses), len(order), dtype=np.intp)
    rank[order] = np.arange(len(order))
    parent = np.where(above[order] >= 0, rank[np.maximum(above[order], 0)], -1)
    if not 1 <= k <= len(order):
        raise FeederError(
            f"cannot cut into {k} areas",
            where=f"circuit '{circuit.name}'",
            expected=f"1 to {len(order)}",
        )
    area = np.full(len(buses), -1, dtype=np.intp)
    area[order] = cut_into(parent, k)
    return bus_of_node, area, rank


def _elements(circuit: Circuit) -> Iterator[tuple[str, NDArray[np.intp], ComplexArray]]:
    """Go through name, nodes (0 for ground) and primitive matrix of what conducts in service."""
    dss = circuit.engine.dss
    for _ in each(dss.PDElements):
        own = primitive(dss)
        # Open conductors have a remnant of 1e-12 S in the engine.
        used = np.abs(own).max(axis=0) > _OPEN_S
        nodes = np.asarray(dss.CktElement.NodeRef(), dtype=np.intp)[used]
        if nodes.any():
            yield str(dss.CktElement.Name()).lower(), nodes, own[np.ix_(used, used)]


def _admittances(
    circuit: Circuit,
    k: int,
    bus_of_node: NDArray[np.intp],
    area_of_bus: NDArray[np.intp],
    rank: NDArray[np.intp],
) -> tuple[list[sparse.csc_array], NDArray[np.bool_], list[frozenset[str]]]:
    """Return each area's admittance matrix (N, N), the nodes it touches (k, N), its elements."""
    n = bus_of_node.size
    touched = np.zeros((k, n + 1), dtype=bool)
    parts: list[list[tuple[NDArray[np.intp], ComplexArray]]] = [[] for _ in range(k)]
    names: list[set[str]] = [set() for _ in range(k)]
    for name, nodes, own in _elements(circuit):
        met = bus_of_node[nodes[nodes > 0] - 1]
        area = int(area_of_bus[met[np.argmax(rank[met])]]) if met.size else -1
        if area < 0:
            continue
        touched[area, nodes] = True
        parts[area].append((nodes, own))
        names[area].add(name)
    matrices = []
    for elements in parts:
        row = np.concatenate([np.repeat(x, x.size) for x, _ in elements])
        column = np.concatenate([np.tile(x, x.size) for x, _ in elements])
        value = np.concatenate([own.ravel() for _, own in elements])
        full = sparse.coo_array((value, (row, column)), shape=(n + 1, n + 1)).tocsc()
        matrices.append(full[1:, 1:])
    return matrices, touched[:, 1:], [frozenset(own) for own in names]


def _area(
    circuit: Circuit,
    network: PortNetwork,
    y: sparse.csc_array,
    cut: _Cut,
    incidence: sparse.csr_array,
    source: tuple[sparse.csc_array, ComplexArray] | None,
) -> PortArea:
    """Solve an area's nodes for its ports' currents and its boundary's voltages, in per unit."""
    labels = circuit.engine_nodes()
    at = {label: i for i, label in enumerate(labels)}
    base, node_base = _bases(circuit, labels)
    amps = _BASE_VA / base
    norton = np.zeros(len(labels), dtype=np.complex128) if source is None else source[1]
    ports = np.flatnonzero(np.asarray(abs(incidence) @ cut.own.astype(float)) > 0.0)
    nodes = np.array(
        [j for j, label in enumerate(network.nodes) if label in at and cut.own[at[label]]],
        dtype=np.intp,
    )
    place = np.array([at[network.nodes[j]] for j in nodes], dtype=np.intp)
    outer, m = cut.boundary, ports.size
    known = dict(zip(network.nodes, network.w.tolist(), strict=True))
    v_b0 = np.array([known.get(labels[j], 0.0) for j in outer], dtype=np.complex128)
    # Columns: the source, with the boundary at v_b0; one pu of each port's current; of each v_b.
    ends = incidence[ports].T.toarray()
    port_node = np.array([np.flatnonzero(column > 0.0)[0] for column in ends.T], dtype=np.intp)
    injected = np.zeros((len(labels), 1 + m + outer.size), dtype=np.complex128)
    injected[:, 0], injected[:, 1 : 1 + m] = norton, ends * amps[port_node]
    volts = np.zeros_like(injected)
    volts[outer, 0] = v_b0 * base[outer]
    volts[outer, 1 + m + np.arange(outer.size)] = base[outer]
    inner = _fed(y, cut, norton)
    right = injected[inner] - np.asarray(y[inner][:, outer] @ volts[outer])
    volts[inner] = splu(sparse.csc_array(y[inner][:, inner])).solve(right)
    fed = (injected[outer] - np.asarray(y[outer] @ volts)) / amps[outer, None]
    rows = volts[place] / base[place, None]
    across = (ends.T @ volts) / base[port_node, None]
    source_nodes = np.flatnonzero(np.isin(nodes, network.source_nodes))
    into = np.zeros((source_nodes.size, volts.shape[1]), dtype=np.complex128)
    if source is not None:
        at_source = place[source_nodes]
        into = -np.asarray(source[0][at_source] @ volts)
        into[:, 0] += norton[at_source]
        into /= amps[at_source, None]
    lines, line_rows, limits = _rated(circuit, volts, node_base)
    mine = np.flatnonzero([label.rpartition(".")[0].lower() in cut.elements for label in lines])
    own = replace(
        network,
        nodes=tuple(network.nodes[j] for j in nodes), ports=tuple(network.ports[j] for j in ports),
        share=network.share[ports], w=rows[:, 0], z=rows[:, 1:],
        w_port=across[:, 0], z_port=across[:, 1:],
        source_nodes=source_nodes, i_source0=into[:, 0], i_source=into[:, 1:],
        lines=tuple(lines[j] for j in mine), line_w=line_rows[mine, 0], line_z=line_rows[mine, 1:],
        line_limit=limits[mine],
        loads=network.loads.at(ports),
    )  # fmt: skip
    return PortArea(
        network=own, terminals=np.flatnonzero(own.share.any(axis=0)), nodes=nodes, ports=ports,
        boundary=tuple(labels[j] for j in outer), v_b0=v_b0, i_b0=fed[:, 0], i_b=fed[:, 1:],
    )  # fmt: skip


def _bases(circuit: Circuit, labels: tuple[str, ...]) -> tuple[FloatArray, dict[str, float]]:
    """Return the line-to-neutral base of the engine's nodes in volt, (N,), also by label."""
    buses = circuit.feeder.buses
    base = np.array([buses[label.rpartition(".")[0]].base_kv_ln * 1e3 for label in labels])
    return base, dict(zip(labels, base.tolist(), strict=True))


def _fed(y: sparse.csc_array, cut: _Cut, norton: ComplexArray) -> NDArray[np.intp]:
    """Return the inner nodes that a conducting path joins to the boundary or to the source."""
    _, part = csgraph.connected_components(abs(y) > 0.0, directed=False)
    fed = np.isin(part, np.concatenate([part[cut.boundary], part[norton != 0.0]]))
    fed &= cut.touched | (norton != 0.0)
    fed[cut.boundary] = False
    return np.flatnonzero(fed)
