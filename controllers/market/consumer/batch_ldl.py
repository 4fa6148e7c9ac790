"""L D L' of many symmetric matrices with one sparsity pattern, in numpy.

The entries of all matrices lie side by side (entry, matrix), and every operation is element by
element over the matrices. So the result of one matrix does not depend, to the bit, on which others
are in the batch. There is no pivoting: this is for quasi-definite matrices, for which every
symmetric order of elimination exists (Vanderbei, Symmetric quasidefinite matrices, SIAM J.
Optimization 5(1), 1995).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.intp]
Layers = list[tuple[Index, Index]]
LEAST_PIVOT = 1e-9  # where cancellation leaves less than that, or the wrong sign


def layers(targets: Sequence[int] | Index) -> Layers:
    """Split positions into groups whose targets differ, so that ``out[target] += x`` is exact.

    Returns (positions, their targets) per group; the positions of a target keep their order.
    """
    target = np.asarray(targets, dtype=np.intp)
    order = np.argsort(target, kind="stable")
    ordered = target[order]
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]][: len(ordered)])
    rank = np.arange(len(target)) - np.repeat(first, np.diff(np.r_[first, len(target)]))
    groups = (order[rank == k] for k in range(int(rank.max(initial=-1)) + 1))
    return [(group, target[group]) for group in groups]


class _Stage(NamedTuple):
    """Columns that are eliminated together: none of them has an entry in another's row."""

    pivots: Index
    signs: Array  # of the pivots, (pivots, 1)
    lower: Index  # positions of their entries below the diagonal, and the column and row of each
    column: Index
    row: Index
    left: Index  # pairs of entries of one column, as indices of `lower`
    right: Index
    updates: Layers  # of the pairs, by the position that they change
    by_row: Layers  # of `lower`, for the two solves
    by_column: Layers


class LdlPattern:
    """The symbolic part, computed once for all matrices of a pattern.

    Parameters
    ----------
    size : Of the matrices.
    pairs : (i, j) of the entries off the diagonal, in either triangle; repeats do no harm.
    negative : Which pivots are negative; the others are positive.
    order : Order of elimination, a permutation of ``range(size)``. Neighbours in the order that do
        not depend on each other are eliminated in one numpy operation.

    Attributes
    ----------
    entries : Number of entries of a matrix in the factor's layout; the diagonal comes first.
    """

    def __init__(
        self,
        size: int,
        pairs: Sequence[tuple[int, int]],
        order: Sequence[int],
        negative: Sequence[int] = (),
    ) -> None:
        rank = np.empty(size, dtype=np.intp)
        rank[list(order)] = np.arange(size)
        ranks: list[int] = rank.tolist()
        below: list[set[int]] = [set() for _ in range(size)]
        for i, j in pairs:
            if ranks[i] < ranks[j]:
                below[i].add(j)
            elif i != j:
                below[j].add(i)
        self._size = size
        self._signs = np.ones(size)
        self._signs[list(negative)] = -1.0
        self._position: dict[int, int] = {j * size + j: j for j in range(size)}
        rows: list[list[int]] = [[] for _ in range(size)]
        for j in order:  # fill: eliminating a column joins all of its rows
            rows[j] = sorted(below[j], key=ranks.__getitem__)
            for i in rows[j]:
                position = len(self._position)
                self._position[j * size + i] = position
            if rows[j]:
                below[rows[j][0]].update(rows[j][1:])
        self.entries = len(self._position)
        self._ranks = ranks
        self._stages = [self._stage(group, rows) for group in _independent(order, rows)]

    def position(self, i: int, j: int) -> int:
        """Return the position of the entry (i, j) = (j, i) in the layout."""
        first, second = (i, j) if self._ranks[i] <= self._ranks[j] else (j, i)
        return self._position[first * self._size + second]

    def _stage(self, group: list[int], rows: list[list[int]]) -> _Stage:
        lists: list[list[int]] = [[] for _ in range(6)]
        lower, column, row, left, right, target = lists
        for j in group:
            start = len(lower)
            for k, i in enumerate(rows[j]):
                lower.append(self.position(j, i))
                column.append(j)
                row.append(i)
                for m in range(k + 1):
                    left.append(start + k)
                    right.append(start + m)
                    target.append(self.position(rows[j][m], i))
        index = [np.array(x, dtype=np.intp) for x in lists[:5]]
        changes = layers(target), layers(row), layers(column)
        signs = self._signs[group, None]
        return _Stage(
            np.array(group), signs, index[0], index[1], index[2], index[3], index[4], *changes
        )

    def factor(self, values: Array) -> None:
        """Turn matrices of shape (entries, n) into their factors, in place."""
        for stage in self._stages:
            pivots = stage.signs * values[stage.pivots]
            values[stage.pivots] = stage.signs * np.maximum(pivots, LEAST_PIVOT)
            unscaled = values[stage.lower]
            scaled = unscaled / values[stage.column]
            for pairs, target in stage.updates:
                values[target] -= unscaled[stage.left[pairs]] * scaled[stage.right[pairs]]
            values[stage.lower] = scaled

    def solve(self, factors: Array, x: Array) -> None:
        """Replace right-hand sides of shape (size, n) by the solutions, in place."""
        for stage in self._stages:
            change = factors[stage.lower] * x[stage.column]
            for some, target in stage.by_row:
                x[target] -= change[some]
        x /= factors[: self._size]
        for stage in reversed(self._stages):
            change = factors[stage.lower] * x[stage.row]
            for some, target in stage.by_column:
                x[target] -= change[some]


def _independent(order: Sequence[int], rows: list[list[int]]) -> Iterator[list[int]]:
    """Yield runs of the order in which no column has an entry in the row of a later one."""
    group: list[int] = []
    touched: set[int] = set()
    for j in order:
        if j in touched:
            yield group
            group, touched = [], set()
        group.append(j)
        touched.update(rows[j])
    yield group
