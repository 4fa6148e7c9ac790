"""Regions of a case: given by the user, by the case's areas, or by a partition of its graph.

All return the name of each bus's region, (n_buses,), as `RegionOpf` takes it. A region must be
connected by branches within it: otherwise its parts only agree by way of its neighbours.

The partition is recursive spectral bisection (M. Fiedler, "A property of eigenvectors of
nonnegative symmetric matrices", Czechoslovak Math. J. 25, 1975), then single buses change region,
each once per pass and also where that is worse for a while (C. Fiduccia and R. Mattheyses, "A
linear-time heuristic for improving network partitions", DAC 1982). Messages of second-order
algorithms grow with the square of what a region shares.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import eigsh

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, IntArray
from grid_models.base.errors import listed, nearest_name
from grid_models.transmission.opf_case import OpfCase

BoolArray = NDArray[np.bool_]

_DENSE = 500  # buses up to which all eigenvectors are computed
_SPARE = 0.2  # how much larger or smaller than the mean a region may be to share less
_PATIENCE = 30  # moves in a row that do not help, before the best partition seen is taken


def given_regions(case: OpfCase, region_of: Mapping[str, str]) -> tuple[str, ...]:
    """Return the regions of a mapping from each bus's name to its region's.

    Raises ControllerError: A bus is unknown or has no region, or a region is not connected.
    """
    where = f"regions of case '{case.name}'"
    for bus in region_of:
        if bus not in case.buses.names:
            raise ControllerError(
                f"there is no bus '{bus}'",
                where=where,
                expected="a bus of the case",
                nearest=nearest_name(bus, case.buses.names),
            )
    missing = [bus for bus in case.buses.names if not region_of.get(bus)]
    if missing:
        raise ControllerError(
            f"without a region are the buses {listed(missing)}", where=where, expected="all buses"
        )
    regions = tuple(str(region_of[bus]) for bus in case.buses.names)
    _check_connected(case, regions)
    return regions


def areas_of(case: OpfCase, *, allow_disconnected: bool = False) -> tuple[str, ...]:
    """Return the areas of a case as its regions.

    Raises ControllerError: The case has one area only, or an area is not connected and that is not
    allowed.
    """
    if len(set(case.buses.areas)) < 2:
        raise ControllerError(
            f"all buses are in area {case.buses.areas[0]}",
            where=f"regions of case '{case.name}'",
            expected="several areas, a mapping from buses to regions, or a number of regions",
        )
    if not allow_disconnected:
        _check_connected(case, case.buses.areas)
    return case.buses.areas


def partition(case: OpfCase, n_regions: int) -> tuple[str, ...]:
    """Return connected regions of about the same number of buses that share few voltages.

    They are called ``1``, ``2``, ... in the order of their first bus. The result depends on nothing
    but the arguments.

    Raises ControllerError: There are fewer buses than regions.
    """
    n = len(case.buses.names)
    if not 1 <= n_regions <= n:
        raise ControllerError(
            f"{n_regions} regions of {n} buses",
            where=f"regions of case '{case.name}'",
            expected=f"1 to {n}, so that no region is empty",
        )
    graph = _graph(case)
    part = np.zeros(n, np.int64)
    _bisect(graph, np.arange(n), n_regions, 0, part)
    _refine(graph, part, n_regions)
    _, first = np.unique(part, return_index=True)
    number = np.empty(n_regions, np.int64)
    number[np.argsort(first)] = np.arange(1, n_regions + 1)
    return tuple(str(k) for k in number[part])


def _graph(case: OpfCase) -> csr_array:
    """Return the number of branches between two buses, (n_buses, n_buses)."""
    n, i, j = len(case.buses.names), case.branches.from_bus, case.branches.to_bus
    ends = np.concatenate((i, j)), np.concatenate((j, i))
    return csr_array((np.ones(2 * len(i)), ends), shape=(n, n))


def _check_connected(case: OpfCase, regions: tuple[str, ...]) -> None:
    graph, of = _graph(case), np.array(regions)
    for region in dict.fromkeys(regions):
        buses = np.flatnonzero(of == region)
        cut_off = ~_largest_part(graph, buses)
        if cut_off.any():
            names = [case.buses.names[bus] for bus in buses[cut_off]]
            raise ControllerError(
                f"region '{region}' is not connected: no branch in it leads to {listed(names)}",
                where=f"regions of case '{case.name}'",
                expected=f"another region for {'them' if len(names) > 1 else 'it'}",
            )


def _largest_part(graph: csr_array, buses: IntArray) -> BoolArray:
    """Return which of some buses are in their largest connected part, (n,)."""
    parts = connected_components(graph[buses][:, buses], directed=False)[1]
    return np.asarray(parts == np.argmax(np.bincount(parts)))


def _bisect(graph: csr_array, buses: IntArray, k: int, first: int, part: IntArray) -> None:
    """Number `k` connected regions of connected `buses` from `first` on, in `part`."""
    if k == 1:
        part[buses] = first
        return
    order = np.argsort(_fiedler(graph[buses][:, buses]), kind="stable")
    left, right = np.split(buses[order], [max(1, len(buses) * (k // 2) // k)])
    # What is cut off from its side borders on the other one.
    kept = _largest_part(graph, left)
    left, right = left[kept], np.concatenate((right, left[~kept]))
    kept = _largest_part(graph, right)
    left, right = np.sort(np.concatenate((left, right[~kept]))), np.sort(right[kept])
    of_left = min(max(k // 2, k - len(right)), len(left))
    _bisect(graph, left, of_left, first, part)
    _bisect(graph, right, k - of_left, first + of_left, part)


def _fiedler(graph: csr_array) -> FloatArray:
    """Return the eigenvector of the Laplacian's second eigenvalue, (n,)."""
    n = graph.shape[0]
    laplacian = diags_array(graph.sum(axis=0)) - graph
    if n <= _DENSE:
        vector = np.linalg.eigh(laplacian.toarray())[1][:, 1]
    else:
        start = np.cos(np.arange(n))  # neither random nor orthogonal to it
        values, vectors = eigsh(laplacian.tocsc(), k=2, sigma=-1e-6, v0=start)
        vector = vectors[:, np.argmax(values)]
    largest = np.argmax(np.abs(vector))
    return np.asarray(vector * np.sign(vector[largest]))


def _refine(graph: csr_array, part: IntArray, k: int) -> None:
    """Move buses to neighbouring regions in `part`, as long as that is better; keep connectivity.

    Better is: less excess over the largest or lack to the smallest size, then a smaller sum of
    squares of the voltages that regions share (`_shared`), then more even sizes.
    """
    best = _cost(graph, part, k)
    while True:
        trial, free, found = part.copy(), np.ones(len(part), np.bool_), False
        worse = 0
        while worse < _PATIENCE and _move(graph, trial, free, k):
            cost = _cost(graph, trial, k)
            worse += 1
            if cost < best:
                best, found, worse = cost, True, 0
                part[:] = trial
        if not found:
            return


def _move(graph: csr_array, part: IntArray, free: BoolArray, k: int) -> bool:
    """Move the free bus that saves most ties, and bind it; say whether there is one."""
    bus, (least, most) = np.arange(len(part)), _sizes(len(part), k)
    size = np.bincount(part, minlength=k)
    branches = graph @ np.eye(k)[part]
    gain = branches - branches[bus, part][:, None]
    from_size = size[part][:, None]
    evens = ((from_size > most) | (size < least)) & (from_size - size >= 2)
    allowed = evens | ((size < most) & (from_size > least))
    allowed &= free[:, None] & (branches > 0) & (part[:, None] != np.arange(k))
    which, to = np.nonzero(allowed)
    room = size[part[which]] - size[to]
    for at in np.lexsort((which, -room, -gain[which, to])):
        rest = np.flatnonzero(part == part[which[at]])
        if _largest_part(graph, rest[rest != which[at]]).all():
            part[which[at]], free[which[at]] = to[at], False
            return True
    return False


def _sizes(n: int, k: int) -> tuple[int, int]:
    """Return the smallest and the largest number of buses of a region."""
    return max(1, int((1.0 - _SPARE) * n / k)), int(np.ceil((1.0 + _SPARE) * n / k))


def _cost(graph: csr_array, part: IntArray, k: int) -> tuple[int, int, int]:
    """Return the buses too many or too few, the squares of `_shared`, and those of the sizes."""
    least, most = _sizes(len(part), k)
    size = np.bincount(part, minlength=k)
    wrong = np.maximum(size - most, 0) + np.maximum(least - size, 0)
    return int(wrong.sum()), int((_shared(graph, part, k) ** 2).sum()), int((size**2).sum())


def _shared(graph: csr_array, part: IntArray, k: int) -> IntArray:
    """Return how many buses each region holds that another one holds too: the ends of its ties."""
    member = np.eye(k)[part]
    holds = (graph @ member + member) > 0
    return np.asarray((holds & (holds.sum(axis=1) > 1)[:, None]).sum(axis=0))
