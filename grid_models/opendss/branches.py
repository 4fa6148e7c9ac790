"""The tree of a compiled circuit, from the primitive admittance matrices of its elements."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from grid_models.base.errors import FeederError, TopologyError, listed
from grid_models.current_injection.model import BASE_KVA, ComplexArray, PortNetwork
from grid_models.current_injection.tree import (
    Branch,
    BranchTree,
    IntArray,
    RatedCurrent,
    reduced,
    two_port,
)
from grid_models.opendss.circuit import Circuit
from grid_models.opendss.elements import each, primitive
from grid_models.opendss.ports import base_voltages, norton_source

_BASE_VA = 1e3 * BASE_KVA
# Beyond this a branch leaves a voltage of its child to what little leaks to ground.
_FLOATS = 1e8


def branch_tree(circuit: Circuit, network: PortNetwork) -> BranchTree:
    """Return the tree of a solved circuit.

    Parameters
    ----------
    circuit : As it stood when `network` was made from it: same taps and switches.
    network : Its ports; buses that lead to none are dead ends.

    Raises
    ------
    TopologyError: The feeder is meshed; the message names buses of the loop.
    FeederError
        An element has no place in a tree of two-ports: it joins three buses, or leaves voltages to
        ground open (a delta winding that feeds a bus with loads).
    """
    return _Builder(circuit, network).tree()


class _Builder:
    def __init__(self, circuit: Circuit, network: PortNetwork) -> None:
        self._network = network
        self._name = circuit.name
        self._labels = circuit.engine_nodes()
        self._bus = [label.rpartition(".")[0] for label in self._labels]
        self._base_v = base_voltages(circuit, self._labels)
        y_source, norton = norton_source(circuit, len(self._labels))
        self._source = np.flatnonzero(norton)
        at = np.ix_(self._source, self._source)
        v = self._base_v[self._source]
        y = y_source.toarray()[at] * np.outer(v, v) / _BASE_VA
        self.source_z: ComplexArray = np.asarray(np.linalg.inv(y), dtype=np.complex128)
        self.source_v = self.source_z @ (norton[self._source] * v / _BASE_VA)
        # Admittance of each bus, and of each pair of buses, as (nodes, nodes, matrix) to be added.
        self._own: dict[str, list[tuple[IntArray, ComplexArray]]] = defaultdict(list)
        self._pairs: dict[frozenset[str], list[tuple[IntArray, ComplexArray]]] = defaultdict(list)
        # Rated currents: place in `lines`, pair of buses, (N,) by node voltages.
        self.rated_phases: list[tuple[int, frozenset[str], ComplexArray]] = []
        self._read(circuit)

    def _read(self, circuit: Circuit) -> None:
        """Read the primitive matrices of all elements in service, per unit."""
        dss = circuit.engine.dss
        rated = {label: k for k, label in enumerate(self._network.lines)}
        for _ in each(dss.PDElements):
            nodes = np.asarray(dss.CktElement.NodeRef(), dtype=int)
            name, phases = str(dss.CktElement.Name()), int(dss.CktElement.NumPhases())
            full, used = primitive(dss), np.flatnonzero(nodes)
            at = nodes[used] - 1
            v = self._base_v[at]
            y = full[np.ix_(used, used)] * np.outer(v, v) / _BASE_VA
            carries = np.abs(y).sum(axis=1) > 0.0
            joined = frozenset(self._bus[k] for k in at[carries])
            if len(joined) > 2:
                raise FeederError(
                    f"joins the buses {listed(sorted(joined))}",
                    where=f"'{name}' of circuit '{circuit.name}'",
                    expected="elements between two buses, for a tree of two-ports",
                )
            if not joined:
                continue
            if len(joined) == 1:
                self._own[next(iter(joined))].append((at[carries], y[np.ix_(carries, carries)]))
                continue
            self._pairs[joined].append((at[carries], y[np.ix_(carries, carries)]))
            for k in range(phases):
                phase = self._labels[nodes[k] - 1].rpartition(".")[2] if nodes[k] else ""
                line = rated.get(f"{name.lower()}.{phase}")
                if line is not None:
                    row = np.zeros(len(self._labels), dtype=np.complex128)
                    np.add.at(row, at, y[int(np.flatnonzero(used == k)[0])])
                    self.rated_phases.append((line, joined, row))

    def tree(self) -> BranchTree:
        """Return the tree."""
        order, parent = self._order()
        nodes = {bus: self._live_nodes(bus) for bus in order}
        self._y = {bus: self._sum(self._own[bus], nodes[bus]) for bus in order}
        # Voltages of nodes by those of a bus: their own, or the bus that their dead end is at.
        rows: dict[int, tuple[str, ComplexArray]] = {
            int(k): (bus, row.astype(np.complex128))
            for bus in order
            for k, row in zip(nodes[bus], np.eye(len(nodes[bus])), strict=True)
        }
        needed = {port.rpartition(".")[0] for port in self._network.ports} | {order[0]}
        for bus in reversed(order):
            if bus in needed:
                needed |= {parent[bus]} - {""}
        for bus in reversed(order):
            if bus not in needed:
                self._fold(bus, parent[bus], nodes, rows)
        kept = [bus for bus in order if bus in needed]
        place = {bus: i for i, bus in enumerate(kept)}
        branches = tuple(self._branch(bus, parent[bus], nodes, place) for bus in kept[1:])
        rated, unrated = self._currents(branches, kept, nodes)
        index = {label: k for k, label in enumerate(self._labels)}
        found = [rows.get(index.get(label, -1)) for label in self._network.nodes]
        return BranchTree(
            buses=tuple(kept),
            sizes=tuple(len(nodes[bus]) for bus in kept),
            branches=branches,
            shunts=tuple(self._y[bus] for bus in kept),
            source_v=self.source_v,
            source_z=self.source_z,
            node_bus=np.array([-1 if row is None else place[row[0]] for row in found]),
            node_row=tuple(np.zeros(0, complex) if row is None else row[1] for row in found),
            rated=rated,
            unrated=unrated,
        )

    def _order(self) -> tuple[list[str], dict[str, str]]:
        """Return the supplied buses, parents first, and the parent of each ('' of the source's)."""
        names = list(dict.fromkeys(self._bus))
        number = {bus: i for i, bus in enumerate(names)}
        ends = [
            sorted(number[bus] for bus in pair)
            for pair, parts in self._pairs.items()
            if any(self._couples(at, y) for at, y in parts)
        ]
        pairs = np.array(ends, dtype=np.intp).reshape(-1, 2)
        shape = (len(names), len(names))
        graph = sparse.csr_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=shape)
        root = number[self._bus[self._source[0]]]
        order, above = csgraph.breadth_first_order(graph, root, directed=False)
        supplied = set(order.tolist())
        for a, b in pairs.tolist():
            if a in supplied and a != above[b] and b != above[a]:
                raise TopologyError(
                    f"the feeder is meshed: a loop closes between buses '{names[a]}' and "
                    f"'{names[b]}'",
                    where=f"circuit '{self._name}'",
                    expected="a radial feeder; the relaxation of a mesh bounds too little",
                )
        return [names[k] for k in order], {
            names[k]: names[above[k]] if above[k] >= 0 else "" for k in order
        }

    def _couples(self, at: IntArray, y: ComplexArray) -> bool:
        here = np.array([self._bus[k] == self._bus[at[0]] for k in at])
        return bool(np.abs(y[np.ix_(here, ~here)]).any())

    def _live_nodes(self, bus: str) -> IntArray:
        """Return the nodes of a bus that an element is connected to."""
        own = self._own[bus] + [x for pair, parts in self._pairs.items() if bus in pair
                                for x in parts]  # fmt: skip
        used = {int(k) for at, _ in own for k in at if self._bus[k] == bus}
        used |= {int(k) for k in self._source if self._bus[k] == bus}
        return np.array(sorted(used), dtype=np.intp)

    def _sum(self, parts: Sequence[tuple[IntArray, ComplexArray]], nodes: IntArray) -> ComplexArray:
        """Return the sum of admittance matrices on some nodes."""
        place = {int(k): i for i, k in enumerate(nodes)}
        total = np.zeros((len(nodes), len(nodes)), dtype=np.complex128)
        for at, y in parts:
            i = [place[int(k)] for k in at]
            np.add.at(total, np.ix_(i, i), y)
        return total

    def _fold(
        self, bus: str, parent: str, nodes: dict[str, IntArray],
        rows: dict[int, tuple[str, ComplexArray]],
    ) -> None:  # fmt: skip
        """Make a shunt of its parent of a bus that leads to no port."""
        k = len(nodes[parent])
        both = np.concatenate([nodes[parent], nodes[bus]])
        y = self._sum(self._pairs[frozenset((bus, parent))], both)
        y[k:, k:] += self._y.pop(bus)
        shunt, voltages = reduced(y, k)
        self._y[parent] = self._y[parent] + shunt
        for node, (at, row) in rows.items():
            if at == bus:
                rows[node] = parent, row @ voltages

    def _branch(
        self, bus: str, parent: str, nodes: dict[str, IntArray], place: dict[str, int]
    ) -> Branch:
        own, k = nodes[bus], len(nodes[parent])
        y = self._sum(self._pairs[frozenset((bus, parent))], np.concatenate([nodes[parent], own]))
        fed = np.abs(y[k:, k:]).any(axis=1)
        where = f"bus '{bus}' of circuit '{self._name}'"
        if not fed.all():
            floating = [self._labels[j] for j in own[~fed]]
            raise FeederError(
                f"nothing from bus '{parent}' leads to its nodes {listed(floating)}",
                where=where,
                expected="branches that feed every node of a bus, for a tree of two-ports",
            )
        if np.linalg.cond(y[k:, k:]) > _FLOATS:
            raise FeederError(
                "its voltages to ground are open: a delta winding feeds it",
                where=where,
                expected="grounded windings, for a tree of two-ports",
            )
        above = np.flatnonzero(np.abs(y[:k]).any(axis=1))
        used = np.concatenate([above, k + np.arange(len(own))])
        ratio, back, z, shunt = two_port(y[np.ix_(used, used)], len(above))
        return Branch(place[parent], place[bus], above, np.arange(len(own)), ratio, back, z, shunt)

    def _currents(
        self, branches: Sequence[Branch], kept: Sequence[str], nodes: dict[str, IntArray]
    ) -> tuple[tuple[RatedCurrent, ...], tuple[str, ...]]:
        """Return rated currents by voltage above and current below, and those in dead ends."""
        of = {frozenset((kept[b.parent], kept[b.child])): i for i, b in enumerate(branches)}
        rated, unrated = [], []
        for line, pair, row in self.rated_phases:
            i = of.get(pair)
            if i is None:
                unrated.append(self._network.lines[line])
                continue
            b = branches[i]
            up = row[nodes[kept[b.parent]][b.above]]
            down = row[nodes[kept[b.child]]]
            rated.append(RatedCurrent(line, i, np.concatenate([up + down @ b.ratio, -down @ b.z])))
        return tuple(rated), tuple(unrated)
