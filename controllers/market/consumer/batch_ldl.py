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
LEAST_PIVOT = 1e-9  # where cancellation leaves less than that, or the wrong sign


def rows_of(x: Array, index: Index) -> Array:
    """Return ``x[index]``; this form costs a tenth of it for few columns."""
    return x.take(index, axis=0, mode="clip")


class Sums:
    """Sums of rows by target, in an order of additions that depends on the targets only.

    Parameters
    ----------
    targets : Of each row.

    Attributes
    ----------
    order : The order in which `of` takes the rows: the first of each target, the second, ...
    targets : Those of the sums: each once, those with the most rows first.
    """

    def __init__(self, targets: Sequence[int] | Index) -> None:
        target = np.asarray(targets, dtype=np.intp)
        unique, which, count = np.unique(target, return_inverse=True, return_counts=True)
        place = np.empty(len(unique), dtype=np.intp)
        by_count = np.argsort(-count, kind="stable")
        place[by_count] = np.arange(len(unique))
        by_target = np.argsort(which, kind="stable")
        rank = np.empty(len(target), dtype=np.intp)
        rank[by_target] = np.arange(len(target)) - np.repeat(np.cumsum(count) - count, count)
        self.order: Index = np.lexsort((place[which], rank))
        self.targets: Index = unique[by_count]
        sizes = np.bincount(rank).tolist()
        starts = np.cumsum([0, *sizes]).tolist()
        self._parts = list(zip(starts[1:-1], starts[2:], sizes[1:], strict=True))

    def of(self, ordered: Array) -> Array:
        """Return the sums of rows that are in `order`, which are overwritten."""
        out = ordered[: len(self.targets)]
        for start, end, size in self._parts:
            out[:size] += ordered[start:end]
        return out


class _Stage(NamedTuple):
    """Columns that are eliminated together: none of them has an entry in another's row."""

    pivots: Index
    signs: Array  # of the pivots, (pivots, 1)
    lower: Index  # positions of their entries below the diagonal
    column: Index  # and the column of each
    left: Index  # pairs of entries of one column, as indices of `lower`
    right: Index
    updates: Sums  # of the pairs, by the position that they change
    forward: tuple[Index, Index, Sums]  # position and column of `lower`, summed by row
    backward: tuple[Index, Index, Sums]  # position and row, summed by column


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
        at, columns, rows_, a, b = (np.array(x, dtype=np.intp) for x in lists[:5])
        updates, by_row, by_column = Sums(target), Sums(row), Sums(column)
        return _Stage(
            pivots=np.array(group, dtype=np.intp),
            signs=self._signs[group, None],
            lower=at,
            column=columns,
            left=a[updates.order],
            right=b[updates.order],
            updates=updates,
            forward=(at[by_row.order], columns[by_row.order], by_row),
            backward=(at[by_column.order], rows_[by_column.order], by_column),
        )

    def factor(self, values: Array) -> None:
        """Turn matrices of shape (entries, n) into their factors, in place."""
        for stage in self._stages:
            pivots = stage.signs * rows_of(values, stage.pivots)
            values[stage.pivots] = stage.signs * np.maximum(pivots, LEAST_PIVOT)
            unscaled = rows_of(values, stage.lower)
            scaled = unscaled / rows_of(values, stage.column)
            change = rows_of(unscaled, stage.left) * rows_of(scaled, stage.right)
            values[stage.updates.targets] -= stage.updates.of(change)
            values[stage.lower] = scaled

    def solve(self, factors: Array, x: Array) -> None:
        """Replace right-hand sides of shape (size, n) by the solutions, in place."""
        for stage in self._stages:
            at, column, sums = stage.forward
            x[sums.targets] -= sums.of(rows_of(factors, at) * rows_of(x, column))
        x /= factors[: self._size]
        for stage in reversed(self._stages):
            at, row, sums = stage.backward
            x[sums.targets] -= sums.of(rows_of(factors, at) * rows_of(x, row))


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
