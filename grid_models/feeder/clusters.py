"""Clusters of buses: given by the user and checked, or found by electrical distance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from grid_models.base.errors import GridModelError, nearest_name

Array = NDArray[np.float64]
Index = NDArray[np.intp]
_WHERE = "clusters"
_MOST_BUSES = 11_000


@dataclass(frozen=True, eq=False)
class Clusters:
    """A partition of buses.

    `member`: (buses,). Cluster of each bus.
    """

    names: tuple[str, ...]
    member: Index

    def neighbours(self, first: Index, second: Index) -> frozenset[tuple[int, int]]:
        """Return the pairs (a < b) of clusters that a line joins; ends of -1 are the slack."""
        inside = (first >= 0) & (second >= 0)
        a, b = self.member[first[inside]], self.member[second[inside]]
        return frozenset(
            (int(min(x, y)), int(max(x, y))) for x, y in zip(a, b, strict=True) if x != y
        )


def given_clusters(
    buses: Sequence[str],
    lists: Mapping[str, Sequence[str]],
    first: Index | None = None,
    second: Index | None = None,
) -> Clusters:
    """Check a user's list of clusters.

    `first`, `second`: (lines,). Ends of the lines; with them the clusters must also be
    connected.

    Raises GridModelError: A bus is unknown, in two clusters or in none; a cluster is empty; or a
    cluster falls in pieces, or the clusters do.
    """
    at = {bus: i for i, bus in enumerate(buses)}
    member = np.full(len(buses), -1, dtype=np.intp)
    names = tuple(lists)
    for c, name in enumerate(names):
        if not lists[name]:
            raise _bad(f"cluster '{name}' has no bus", "at least one bus in each cluster")
        for bus in lists[name]:
            if bus not in at:
                raise GridModelError(
                    f"cluster '{name}' names the unknown bus '{bus}'",
                    where=_WHERE,
                    expected="buses of the network",
                    nearest=nearest_name(bus, at),
                )
            if member[at[bus]] >= 0:
                other = names[member[at[bus]]]
                text = f"twice in '{name}'" if other == name else f"in '{other}' and in '{name}'"
                raise _bad(f"bus '{bus}' is {text}", "every bus in exactly one cluster")
            member[at[bus]] = c
    missing = [bus for bus, c in zip(buses, member, strict=True) if c < 0]
    if missing:
        shown = ", ".join(missing[:8]) + (" ..." if len(missing) > 8 else "")
        raise _bad(f"in no cluster: bus(es) {shown}", "every bus in exactly one cluster")
    clusters = Clusters(names, member)
    if first is not None and second is not None:
        check_connected(clusters, buses, first, second)
    return clusters


def check_connected(clusters: Clusters, buses: Sequence[str], first: Index, second: Index) -> None:
    """Refuse clusters that fall in pieces, or a cluster graph that does; see `given_clusters`."""
    inside = (first >= 0) & (second >= 0)
    a, b = first[inside], second[inside]
    own = clusters.member[a] == clusters.member[b]
    _, piece = _components(len(buses), a[own], b[own])
    for c, name in enumerate(clusters.names):
        pieces = np.unique(piece[clusters.member == c])
        if pieces.size > 1:
            apart = [
                buses[int(np.flatnonzero((piece == p) & (clusters.member == c))[0])]
                for p in pieces[:2]
            ]
            raise _bad(
                f"cluster '{name}' falls in {pieces.size} pieces: no own line leads from "
                f"'{apart[0]}' to '{apart[1]}'",
                "clusters of buses that lines join",
            )
    k, group = _components(len(clusters.names), clusters.member[a], clusters.member[b])
    if k > 1:
        lone = [n for n, g in zip(clusters.names, group, strict=True) if g != group[0]]
        raise _bad(
            f"the cluster graph is disconnected: no line joins {', '.join(lone)} to the others",
            "clusters that lines join; agreement cannot cross the slack",
        )


def _components(n: int, a: Index, b: Index) -> tuple[int, Index]:
    graph = sparse.csr_array((np.ones(len(a)), (a, b)), shape=(n, n))
    count, label = csgraph.connected_components(graph, directed=False)
    return int(count), np.asarray(label, dtype=np.intp)


def found_clusters(
    n_buses: int, first: Index, second: Index, distance: Array, k: int, prefix: str = "c"
) -> Clusters:
    """Cut a network into `k` connected clusters by electrical distance; deterministic.

    Seeds are spread by farthest-point sampling of the distance along the lines; buses join the
    cluster of the nearest seed (a Voronoi partition along lines is connected), and seeds move to
    the buses with the least sum of distances, as in k-medoids, until none moves. Clusters that are
    too large then pass boundary buses on while all stay connected. Memory and time grow with the
    square of the buses: 1 GB at 11,000.

    Parameters
    ----------
    first, second : (lines,). Ends; lines that touch the slack (-1) do not count.
    distance : (lines,). Electrical length, for example the magnitude of the impedance; positive.
    k : Number of clusters, 1 to `n_buses`.
    prefix : Names are prefix + number, in order of the clusters' first buses.

    Raises GridModelError: `k` is out of range, there are too many buses, a length is not positive,
    or the network is in pieces without the slack.
    """
    if not 1 <= k <= n_buses:
        raise _bad(f"cannot find {k} clusters", f"1 to {n_buses}")
    if n_buses > _MOST_BUSES:
        raise _bad(
            f"finding clusters among {n_buses} buses needs about {8e-9 * n_buses**2:.1f} GB",
            f"at most {_MOST_BUSES} buses, or clusters given as lists of buses",
        )
    inside = (first >= 0) & (second >= 0)
    a, b, length = first[inside], second[inside], np.asarray(distance)[inside]
    if not (np.isfinite(length).all() and (length > 0.0).all()):
        raise _bad("a distance is not a positive number", "positive lengths")
    count, _ = _components(n_buses, a, b)
    if count > 1:
        raise _bad(f"without the slack the network is in {count} pieces", "one piece")
    graph = sparse.csr_array((length, (a, b)), shape=(n_buses, n_buses))
    along = csgraph.shortest_path(graph, directed=False)
    member = _medoids(along, k)
    member = _balanced(member, along, a, b, k)
    order = {int(c): i for i, c in enumerate(dict.fromkeys(member.tolist()))}
    renamed = np.array([order[int(c)] for c in member], dtype=np.intp)
    return Clusters(tuple(f"{prefix}{i}" for i in range(k)), renamed)


def _medoids(along: Array, k: int) -> Index:
    seeds = [int(np.argmax(along.max(axis=1)))]
    nearest = along[seeds[0]].copy()
    while len(seeds) < k:
        seeds.append(int(np.argmax(nearest)))
        np.minimum(nearest, along[seeds[-1]], out=nearest)
    for _ in range(50):
        member = np.argmin(along[seeds], axis=0)
        moved = []
        for c in range(k):
            own = np.flatnonzero(member == c)
            moved.append(int(own[np.argmin(along[np.ix_(own, own)].sum(axis=0))]))
        if moved == seeds:
            break
        seeds = moved
    return np.asarray(np.argmin(along[seeds], axis=0), dtype=np.intp)


def _balanced(member: Index, along: Array, a: Index, b: Index, k: int) -> Index:
    """Move buses from larger to smaller neighbouring clusters while this balances the sizes.

    A boundary bus takes along what only it connects to the rest of its cluster. Of the moves that
    leave the two sizes nearer to each other, the one that balances most is made first; among
    equal ones that of the nearest bus.
    """
    member = member.copy()
    for _ in range(len(member)):
        size = np.bincount(member, minlength=k)
        moves = []
        for x, y in (*zip(a, b, strict=True), *zip(b, a, strict=True)):
            gap = int(size[member[x]] - size[member[y]])
            if member[x] != member[y] and gap > 1:
                group = _taken_along(member, a, b, int(x))
                left = abs(gap - 2 * len(group))
                if left < gap and len(group) < size[member[x]]:
                    near = float(along[np.ix_(group, member == member[y])].mean())
                    moves.append((left - gap, near, int(x), int(member[y]), group))
        if not moves:
            break
        _, _, _, target, group = min(moves, key=lambda move: move[:4])
        member[group] = target
    return member


def _taken_along(member: Index, a: Index, b: Index, bus: int) -> Index:
    """Return `bus` and what, without it, loses touch with the largest piece of its cluster."""
    own = np.flatnonzero(member == member[bus])
    inside = (member[a] == member[bus]) & (member[b] == member[bus]) & (a != bus) & (b != bus)
    _, piece = _components(len(member), a[inside], b[inside])
    rest = own[own != bus]
    if not rest.size:
        return own
    labels, counts = np.unique(piece[rest], return_counts=True)
    main = labels[np.argmax(counts)]
    return np.concatenate([[bus], rest[piece[rest] != main]]).astype(np.intp)


def _bad(what: str, expected: str) -> GridModelError:
    return GridModelError(what, where=_WHERE, expected=expected)
