"""A compiled circuit cut into areas: each area's own admittance matrix, reduced to its ports."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph
from scipy.sparse.linalg import splu

from grid_models.base.errors import FeederError
from grid_models.current_injection.model import BASE_KVA, ComplexArray, PortArea, PortNetwork
from grid_models.feeder.topology import cut_into
from grid_models.opendss.circuit import Circuit
from grid_models.opendss.elements import each, primitive
from grid_models.opendss.ports import Places, base_voltages, norton_source, rated_phases

IndexArray = NDArray[np.intp]

_BASE_VA = 1e3 * BASE_KVA
_OPEN_S = 1e-11
"""The engine leaves 1e-12 S where it opens a conductor."""


def port_areas(circuit: Circuit, network: PortNetwork, k: int) -> tuple[PortArea, ...]:
    """Return `k` connected areas with about equally many buses; the first holds the source.

    The areas are subtrees of the breadth-first tree of the buses, so the circuit may be meshed. An
    element between two areas goes to the one farther from the source.

    Parameters
    ----------
    circuit : In the state that `network` was made from.
    network : Its current-injection model.

    Raises FeederError: `k` is out of range.
    """
    return _Cut(circuit, network, k).areas()


def with_areas(network: PortNetwork, circuit: Circuit) -> PortNetwork:
    """Return the network of a circuit, which stays as it is, so that it can be cut into areas."""
    return replace(network, cut=_Cutter(circuit))


class _Cutter:
    """Cuts a circuit; the last areas of each number are kept."""

    def __init__(self, circuit: Circuit) -> None:
        self._circuit, self._lock = circuit, threading.Lock()
        self._made: dict[int, tuple[PortNetwork, tuple[PortArea, ...]]] = {}

    def __call__(self, network: PortNetwork, k: int) -> tuple[PortArea, ...]:
        # Controllers of one process may ask at the same time; the engine takes one at a time.
        with self._lock:
            if k not in self._made or self._made[k][0] is not network:
                self._made[k] = network, port_areas(self._circuit, network, k)
            return self._made[k][1]


@dataclass(frozen=True)
class _Element:
    """What conducts in service: nodes (numbered from 1; 0 is ground) and primitive matrix."""

    name: str
    nodes: IndexArray
    primitive: ComplexArray


class _Cut:
    """A circuit being cut. N nodes of the engine, in volt, ampere and siemens where not said."""

    def __init__(self, circuit: Circuit, network: PortNetwork, k: int) -> None:
        self._circuit, self._network = circuit, network
        self._labels = labels = circuit.engine_nodes()
        self._at = {label: i for i, label in enumerate(labels)}
        bus_of = [label.rpartition(".")[0] for label in labels]
        self._base = base_voltages(circuit, labels)
        self._amps = _BASE_VA / self._base
        number = {bus: i for i, bus in enumerate(dict.fromkeys(bus_of))}
        self._bus = np.array([number[bus] for bus in bus_of], dtype=np.intp)
        self._elements = list(_elements(circuit))
        root = number[network.nodes[int(network.source_nodes[0])].rpartition(".")[0]]
        order, parent = self._tree(len(number), root)
        if not 1 <= k <= len(order):
            raise FeederError(
                f"cannot cut into {k} areas",
                where=f"circuit '{circuit.name}'",
                expected=f"1 to {len(order)}",
            )
        rank = np.full(len(number), -1, dtype=np.intp)
        rank[order] = np.arange(len(order))
        area_of_bus = np.full(len(number), -1, dtype=np.intp)
        area_of_bus[order] = cut_into(parent, k)
        self._home = area_of_bus[self._bus]
        self._deal_out(k, rank[self._bus])

    def _tree(self, n: int, root: int) -> tuple[IndexArray, IndexArray]:
        """Return the buses breadth first from the source, and the position of each one's parent."""
        ends = [np.unique(self._bus[e.nodes[e.nodes > 0] - 1]) for e in self._elements]
        first = np.concatenate([np.repeat(met[0], met.size - 1) for met in ends])
        other = np.concatenate([met[1:] for met in ends])
        graph = sparse.coo_array((np.ones(first.size), (first, other)), shape=(n, n)).tocsr()
        order, above = csgraph.breadth_first_order(graph, root, directed=False)
        place = np.zeros(n, dtype=np.intp)
        place[order] = np.arange(len(order))
        parent = np.where(above[order] >= 0, place[np.maximum(above[order], 0)], -1)
        return np.asarray(order, dtype=np.intp), parent

    def _deal_out(self, k: int, rank: IndexArray) -> None:
        """Give every element to an area; note the matrices, and which nodes each area touches."""
        n = len(self._labels)
        self._touched = np.zeros((k, n), dtype=bool)
        self._names: list[set[str]] = [set() for _ in range(k)]
        parts: list[list[_Element]] = [[] for _ in range(k)]
        for element in self._elements:
            met = element.nodes[element.nodes > 0] - 1
            area = int(self._home[met[np.argmax(rank[met])]])
            if area >= 0:
                self._touched[area, met] = True
                parts[area].append(element)
                self._names[area].add(element.name)
        self._y = [_total(own, n) for own in parts]
        y_source, self._norton = norton_source(self._circuit, n)
        self._y_source = y_source
        self._holder = holder = int(self._home[np.flatnonzero(self._norton)[0]])
        self._y[holder] = self._y[holder] + y_source
        self._idle = self._solved(self._norton[:, None])[:, 0]
        self._incidence = Places(self._circuit).incidence()

    def _solved(self, injected: ComplexArray, without: int = -1) -> ComplexArray:
        """Return the voltages of currents, (N, k) each, of the feeder without an area's elements.

        0 where nothing joins a node to the source.
        """
        n = len(self._labels)
        y = sparse.csc_array((n, n), dtype=np.complex128)
        for a, more in enumerate(self._y):
            y = y if a == without else y + more
        live = np.flatnonzero(_joined(y, self._norton != 0.0))
        volts = np.zeros_like(injected)
        volts[live] = splu(sparse.csc_array(y[live][:, live])).solve(injected[live])
        return volts

    def areas(self) -> tuple[PortArea, ...]:
        """Return all areas."""
        return tuple(self._area(a) for a in range(len(self._y)))

    def _shared(self, a: int) -> tuple[IndexArray, IndexArray]:
        """Return the neighbour and the node of everything shared, by neighbour and node."""
        touched, home = self._touched, self._home
        given = np.flatnonzero(touched[a] & (home != a))
        pairs = [(int(home[node]), int(node)) for node in given]
        for other in range(len(self._y)):
            if other != a:
                pairs += [(other, int(x)) for x in np.flatnonzero(touched[other] & (home == a))]
        both = np.array(sorted(pairs), dtype=np.intp).reshape(-1, 2)
        return both[:, 0], both[:, 1]

    def _area(self, a: int) -> PortArea:
        """Solve an area's nodes for its ports' currents and what it is given, in per unit."""
        net, base, amps, y = self._network, self._base, self._amps, self._y[a]
        mine = self._home == a
        ports = np.flatnonzero(np.asarray(abs(self._incidence) @ mine.astype(float)) > 0.0)
        nodes = np.array(
            [j for j, x in enumerate(net.nodes) if x in self._at and mine[self._at[x]]],
            dtype=np.intp,
        )
        place = np.array([self._at[net.nodes[j]] for j in nodes], dtype=np.intp)
        other, at = self._shared(a)
        owns = mine[at]
        m, b = ports.size, at.size
        ends = self._incidence[ports].T.toarray()
        port_node = np.array([np.flatnonzero(column > 0.0)[0] for column in ends.T], dtype=np.intp)
        injected = np.zeros((len(self._labels), m + b), dtype=np.complex128)
        injected[:, :m] = ends * amps[port_node]
        column = m + np.arange(b)
        injected[at[owns], column[owns]] = -amps[at[owns]]
        volts = np.zeros_like(injected)
        volts[at[~owns], column[~owns]] = base[at[~owns]]
        outer = at[~owns]
        seeds = self._norton != 0.0
        seeds[outer] = True
        inner = _joined(y, seeds) & (self._touched[a] | (mine & (self._norton != 0.0)))
        inner[outer] = False
        rows = np.flatnonzero(inner)
        right = injected[rows] - np.asarray(y[rows][:, outer] @ volts[outer])
        volts[rows] = splu(sparse.csc_array(y[rows][:, rows])).solve(right)
        v, v0 = volts[at] / base[at, None], self._idle[at] / base[at]
        taken = np.asarray(y[outer] @ volts) / amps[outer, None]
        j, j0 = np.zeros_like(v), np.zeros_like(v0)
        j[~owns] = taken
        j[owns, column[owns]] = 1.0
        user = np.where(owns, other, a)
        for i, (q, node) in enumerate(zip(user.tolist(), at.tolist(), strict=True)):
            j0[i] = (self._y[q][[node]] @ self._idle)[0] / amps[node]
        source_nodes = np.flatnonzero(np.isin(nodes, net.source_nodes))
        into: ComplexArray = -np.asarray(self._y_source[place[source_nodes]] @ volts)
        lines, line_rows, _ = rated_phases(self._circuit, volts)
        kept = np.flatnonzero([x.rpartition(".")[0].lower() in self._names[a] for x in lines])
        across = (ends.T @ volts) / base[port_node, None]
        across[net.w_port[ports] == 0.0] = 0.0
        own = replace(
            net,
            nodes=tuple(net.nodes[j] for j in nodes), ports=tuple(net.ports[j] for j in ports),
            share=net.share[ports], loads=net.loads.at(ports),
            w=net.w[nodes], z=volts[place] / base[place, None],
            w_port=net.w_port[ports], z_port=across,
            source_nodes=source_nodes,
            i_source0=net.i_source0 if source_nodes.size else net.i_source0[:0],
            i_source=into / amps[place[source_nodes], None],
            lines=tuple(lines[j] for j in kept), line_w=net.line_w[kept], line_z=line_rows[kept],
            line_limit=net.line_limit[kept], cut=None,
        )  # fmt: skip
        return PortArea(
            network=own, terminals=np.flatnonzero(own.share.any(axis=0)), nodes=nodes, ports=ports,
            shared=tuple(self._labels[j] for j in at), neighbour=other, owns=owns,
            v0=v0, v=v, j0=j0, j=j, z=self._impedance(user, at),
        )  # fmt: skip

    def _impedance(self, user: IndexArray, at: IndexArray) -> ComplexArray:
        """Return what currents at shared nodes do to them, (b, b), without the user's elements."""
        z = np.zeros((at.size, at.size), dtype=np.complex128)
        for q in set(user.tolist()):
            own = np.flatnonzero(user == q)
            injected = np.zeros((len(self._labels), own.size), dtype=np.complex128)
            injected[at[own], np.arange(own.size)] = self._amps[at[own]]
            # Without the source's area there is no impedance, only islands.
            volts = self._solved(injected, without=-1 if q == self._holder else q)
            z[np.ix_(own, own)] = volts[at[own]] / self._base[at[own], None]
        return z


def _elements(circuit: Circuit) -> Iterator[_Element]:
    """Go through what conducts in service."""
    dss = circuit.engine.dss
    for _ in each(dss.PDElements):
        own = primitive(dss)
        used = np.abs(own).max(axis=0) > _OPEN_S
        nodes = np.asarray(dss.CktElement.NodeRef(), dtype=np.intp)[used]
        if nodes.any():
            yield _Element(str(dss.CktElement.Name()).lower(), nodes, own[np.ix_(used, used)])


def _total(elements: list[_Element], n: int) -> sparse.csc_array:
    """Return the sum of primitive matrices, (n, n)."""
    if not elements:
        return sparse.csc_array((n, n), dtype=np.complex128)
    row = np.concatenate([np.repeat(e.nodes, e.nodes.size) for e in elements])
    column = np.concatenate([np.tile(e.nodes, e.nodes.size) for e in elements])
    value = np.concatenate([e.primitive.ravel() for e in elements])
    whole = sparse.coo_array((value, (row, column)), shape=(n + 1, n + 1)).tocsc()
    return whole[1:, 1:]


def _joined(y: sparse.csc_array, seeds: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the nodes that a conducting path joins to one of `seeds`, (N,)."""
    _, part = csgraph.connected_components(abs(y) > 0.0, directed=False)
    return np.isin(part, part[seeds])
