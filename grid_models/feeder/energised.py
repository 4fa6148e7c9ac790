"""Which nodes a feeder's source reaches, given which of its lines and switches are open."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from grid_models.feeder.model import Feeder, Line, Switch, node_label, phases_at


class EnergisedNodes:
    """Finds de-energised islands.

    Phases are followed one by one through lines, switches and regulators; a transformer ties all
    nodes of its windings together.

    `feeder`: Elements that it has as open are open until said otherwise.
    """

    def __init__(self, feeder: Feeder) -> None:
        self.labels = feeder.node_labels
        self._at = {label: i for i, label in enumerate(self.labels)}
        self._source = [self._at[x] for x in feeder.buses[feeder.source.bus].labels]
        self._closed: dict[str, bool] = {}
        ends: list[tuple[int, int]] = []
        owner: list[str] = []

        def tie(a: str, b: str, name: str = "") -> None:
            # A node that never had a voltage has no label, and ties nothing.
            if a in self._at and b in self._at:
                ends.append((self._at[a], self._at[b]))
                owner.append(name)

        branches: tuple[Line | Switch, ...] = (*feeder.lines, *feeder.switches)
        for element in branches:
            self._closed[element.name] = element.closed
            for a, b in zip(element.phases, phases_at(element, element.to_bus), strict=True):
                tie(node_label(element.from_bus, a), node_label(element.to_bus, b), element.name)
        for unit in feeder.regulators:
            for phase in unit.phases:
                tie(node_label(unit.from_bus, phase), node_label(unit.to_bus, phase))
        for transformer in feeder.transformers:
            nodes = [node_label(w.bus, n) for w in transformer.windings for n in w.nodes if n]
            for other in nodes[1:]:
                tie(nodes[0], other)
        self._ends = np.array(ends, dtype=np.intp).reshape(-1, 2)
        self._owner = owner

    def reach(self, closed: Mapping[str, bool]) -> NDArray[np.bool_]:
        """Return which nodes have a way to the source, shape (n_nodes,).

        `closed`: States of lines and switches that differ from the feeder's.
        """
        states = self._closed | dict(closed)
        open_ = {name for name, state in states.items() if not state}
        keep = np.array([name not in open_ for name in self._owner], dtype=bool)
        a, b = self._ends[keep].T
        n = len(self.labels)
        # The source's phases are one node of the graph.
        first = np.full(len(self._source), self._source[0], dtype=np.intp)
        rows, columns = np.concatenate([a, first]), np.concatenate([b, self._source])
        graph = sparse.coo_matrix((np.ones(len(rows)), (rows, columns)), (n, n))
        _, part = csgraph.connected_components(graph, directed=False)
        reached: NDArray[np.bool_] = part == part[self._source[0]]
        return reached
