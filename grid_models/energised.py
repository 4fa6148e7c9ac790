"""Which nodes a feeder's source reaches, given which of its lines and switches are open."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from grid_models.feeder import Feeder, Line, Switch, node_label


class EnergisedNodes:
    """Finds de-energised islands.

    Phases are followed one by one through lines, switches and regulators; a transformer ties all
    nodes of its windings together.

    Parameters
    ----------
    feeder : Feeder
        Elements that it has as open are open until said otherwise.
    """

    def __init__(self, feeder: Feeder) -> None:
        self.labels = feeder.node_labels
        self._at = {label: i for i, label in enumerate(self.labels)}
        self._source = [self._at[x] for x in feeder.buses[feeder.source.bus].labels]
        self._closed: dict[str, bool] = {}
        ends: list[tuple[int, int]] = []
        owner: list[str] = []
        branches: tuple[Line | Switch, ...] = (*feeder.lines, *feeder.switches)
        for element in branches:
            self._closed[element.name] = element.closed
            for phase in element.phases:
                ends.append(
                    (
                        self._at[node_label(element.from_bus, phase)],
                        self._at[node_label(element.to_bus, phase)],
                    )
                )
                owner.append(element.name)
        for unit in feeder.regulators:
            for phase in unit.phases:
                a, b = node_label(unit.from_bus, phase), node_label(unit.to_bus, phase)
                ends.append((self._at[a], self._at[b]))
                owner.append("")
        for transformer in feeder.transformers:
            nodes = [
                self._at[label]
                for w in transformer.windings
                for phase in w.nodes
                if (label := node_label(w.bus, phase)) in self._at
            ]
            ends += [(nodes[0], other) for other in nodes[1:]]
            owner += [""] * (len(nodes) - 1)
        self._ends = np.array(ends, dtype=np.intp).reshape(-1, 2)
        self._owner = owner

    def reach(self, closed: Mapping[str, bool]) -> NDArray[np.bool_]:
        """Return which nodes have a way to the source, shape (n_nodes,).

        Parameters
        ----------
        closed : mapping of str to bool
            States of lines and switches that differ from the feeder's.
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
