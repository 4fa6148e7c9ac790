"""The radial tree of a feeder: order from the source, parents, loops, islands and areas.

A tree *edge* joins two buses and carries every closed element between them (three single-phase
regulators, say, are one edge), so banks of single-phase units count as radial.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from grid_models.base.errors import TopologyError, listed, nearest_name
from grid_models.feeder.model import Feeder, Line, Regulator, Switch, Transformer

BranchElement = Line | Switch | Transformer | Regulator


@dataclass(frozen=True)
class RadialTree:
    """A feeder's buses ordered from the source, each with its parent.

    Attributes
    ----------
    buses : Served buses; the source first, every parent before its children (breadth first).
    parent : (n,). Position of the parent in `buses`; -1 for the source.
    edges : Elements between bus i and its parent; empty for the source.
    unserved : Buses behind open switches that carry no load, capacitor or DER (dead stubs).
    """

    buses: tuple[str, ...]
    parent: NDArray[np.intp]
    edges: tuple[tuple[BranchElement, ...], ...]
    unserved: tuple[str, ...] = ()
    index: dict[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", {bus: i for i, bus in enumerate(self.buses)})

    def position(self, bus: str) -> int:
        """Return the position of `bus` in the tree order.

        Raises TopologyError: If the feeder serves no such bus.
        """
        try:
            return self.index[bus]
        except KeyError:
            raise TopologyError(
                f"bus '{bus}' is not served", nearest=nearest_name(bus, self.buses)
            ) from None

    @cached_property
    def depth(self) -> NDArray[np.intp]:
        """Number of edges between each bus and the source, (n,)."""
        depth = np.zeros(len(self.buses), dtype=np.intp)
        for i, parent in enumerate(self.parent.tolist()):
            if parent >= 0:
                depth[i] = depth[parent] + 1
        return depth

    @cached_property
    def length_ft(self) -> NDArray[np.float64]:
        """Line length in ft between each bus and the source, (n,)."""
        length = np.zeros(len(self.buses))
        for i, parent in enumerate(self.parent.tolist()):
            if parent >= 0:
                own = max((e.length_ft for e in self.edges[i] if isinstance(e, Line)), default=0.0)
                length[i] = length[parent] + own
        return length


def radial_tree(feeder: Feeder) -> RadialTree:
    """Return the radial tree of the closed elements of `feeder`.

    Dead stubs (buses behind open switches with nothing connected) are left out and listed in
    `RadialTree.unserved`.

    Raises TopologyError: If closed elements form a loop, or a load, capacitor or DER is cut off
    from the source; the message names the loop's or the island's elements.
    """
    position = {bus: i for i, bus in enumerate(feeder.buses)}
    names = tuple(feeder.buses)
    if feeder.source.bus not in position:
        raise TopologyError(
            f"the source bus '{feeder.source.bus}' is no bus of the feeder",
            where=feeder.name,
            nearest=nearest_name(feeder.source.bus, names),
        )
    pairs = _elements_by_pair(feeder, position)
    n = len(names)
    ends = np.array(list(pairs), dtype=np.intp).reshape(-1, 2)
    graph = sparse.csr_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(n, n))
    order, parent = csgraph.breadth_first_order(graph, position[feeder.source.bus], directed=False)
    served = np.zeros(n, dtype=bool)
    served[order] = True
    _check_no_loop(feeder, names, pairs, ends, served, parent)
    unserved = tuple(name for name, ok in zip(names, served, strict=True) if not ok)
    _check_no_island(feeder, unserved)
    rank = np.full(n, -1, dtype=np.intp)
    rank[order] = np.arange(len(order))
    above = parent[order]
    tree_parent = np.where(above >= 0, rank[np.maximum(above, 0)], -1)
    edges = tuple(
        tuple(pairs[min(at, up), max(at, up)]) if up >= 0 else ()
        for at, up in zip(order.tolist(), above.tolist(), strict=True)
    )
    return RadialTree(tuple(names[i] for i in order), tree_parent, edges, unserved)


def areas(feeder: Feeder, k: int) -> dict[str, int]:
    """Return the area of each served bus: `k` connected areas with about equally many buses.

    From the whole tree, the subtree whose size is nearest to the fair share of what is left is
    cut off, k - 1 times; the last area holds the source and gets index 0. Deterministic.

    Parameters
    ----------
    feeder : A radial feeder.
    k : Number of areas, 1 to the number of served buses.

    Raises TopologyError: If the feeder is not radial or `k` is out of range.
    """
    tree = radial_tree(feeder)
    n = len(tree.buses)
    if not 1 <= k <= n:
        raise TopologyError(f"cannot cut into {k} areas", where=feeder.name, expected=f"1 to {n}")
    area = cut_into(tree.parent, k)
    return dict(zip(tree.buses, area.tolist(), strict=True))


def cut_into(parent: NDArray[np.intp], k: int) -> NDArray[np.intp]:
    """Return the area of each node of a tree, (n,), as `areas` cuts it.

    `parent`: (n,). Of each node, before its children; -1 for the first.
    """
    area = np.zeros(parent.size, dtype=np.intp)
    for index in range(k - 1, 0, -1):
        left = area == 0
        size = _subtree_sizes(parent, left.astype(np.intp))
        # The source stays, and only buses not yet cut off can head an area.
        candidates = np.flatnonzero(left)[1:]
        fair = left.sum() / (index + 1)
        head = candidates[np.argmin(np.abs(size[candidates] - fair))]
        below = _below(parent, int(head))
        area[below & left] = index
    return area


def element_buses(element: BranchElement) -> tuple[str, ...]:
    """Return the buses an element joins, the first one being its sending end."""
    if isinstance(element, Transformer):
        return tuple(dict.fromkeys(w.bus for w in element.windings))
    return (element.from_bus, element.to_bus)


def _closed_elements(feeder: Feeder) -> Iterator[BranchElement]:
    yield from (line for line in feeder.lines if line.closed)
    yield from (switch for switch in feeder.switches if switch.closed)
    yield from feeder.transformers
    yield from feeder.regulators


def _elements_by_pair(
    feeder: Feeder, position: dict[str, int]
) -> dict[tuple[int, int], list[BranchElement]]:
    pairs: dict[tuple[int, int], list[BranchElement]] = {}
    for element in _closed_elements(feeder):
        buses = element_buses(element)
        for bus in buses:
            if bus not in position:
                raise TopologyError(
                    f"element '{element.name}' ends at unknown bus '{bus}'",
                    where=feeder.name,
                    nearest=nearest_name(bus, position),
                )
        first = position[buses[0]]
        for other in (position[bus] for bus in buses[1:]):
            if other != first:
                pairs.setdefault((min(first, other), max(first, other)), []).append(element)
    return pairs


def _check_no_loop(
    feeder: Feeder,
    names: tuple[str, ...],
    pairs: dict[tuple[int, int], list[BranchElement]],
    ends: NDArray[np.intp],
    served: NDArray[np.bool_],
    parent: NDArray[np.int32],
) -> None:
    if not len(ends):
        return
    inside = served[ends[:, 0]]
    in_tree = (parent[ends[:, 1]] == ends[:, 0]) | (parent[ends[:, 0]] == ends[:, 1])
    closing = ends[inside & ~in_tree]
    if not len(closing):
        return
    u, v = (int(i) for i in closing[0])
    loop = [*_up_to_common(parent, u, v), *reversed(_up_to_common(parent, v, u))]
    hops = [*itertools.pairwise(loop), (u, v)]
    found = [e.name for a, b in hops if a != b for e in pairs.get((min(a, b), max(a, b)), [])]
    raise TopologyError(
        f"the feeder is meshed: {len(closing)} loop(s), one through {listed(found)} "
        f"(buses {listed([names[i] for i in dict.fromkeys(loop)])})",
        where=feeder.name,
        expected="a radial feeder; open one element of each loop",
    )


def _up_to_common(parent: NDArray[np.int32], start: int, other: int) -> list[int]:
    """Return the nodes from `start` up to the first common ancestor with `other`."""
    ancestors = set()
    at = other
    while at >= 0:
        ancestors.add(at)
        at = int(parent[at])
    path = [start]
    while path[-1] not in ancestors:
        path.append(int(parent[path[-1]]))
    return path


def _check_no_island(feeder: Feeder, unserved: tuple[str, ...]) -> None:
    dead = set(unserved)
    attached = [
        item.name
        for group in (feeder.loads, feeder.capacitors, feeder.ders)
        for item in group
        if item.bus in dead
    ]
    if not attached:
        return
    branches = [e.name for e in _closed_elements(feeder) if dead.intersection(element_buses(e))]
    through = f", joined by {listed(branches)}" if branches else ""
    raise TopologyError(
        f"{listed(attached)} at bus(es) {listed(list(unserved))}{through} "
        f"are cut off from the source '{feeder.source.bus}'",
        where=feeder.name,
        expected="every load, capacitor and DER on a path of closed elements to the source",
    )


def _subtree_sizes(parent: NDArray[np.intp], own: NDArray[np.intp]) -> NDArray[np.intp]:
    size = own.tolist()
    for i in range(len(size) - 1, 0, -1):
        size[int(parent[i])] += size[i]
    return np.array(size, dtype=np.intp)


def _below(parent: NDArray[np.intp], head: int) -> NDArray[np.bool_]:
    inside = np.zeros(len(parent), dtype=bool)
    inside[head] = True
    for i in range(head + 1, len(parent)):
        inside[i] = inside[parent[i]]
    return inside
