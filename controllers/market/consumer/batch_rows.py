"""Sparse rows of many problems with one pattern: values lie side by side, (nonzero, problem)."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import numpy as np
from numpy.typing import ArrayLike

from controllers.market.consumer.batch_ldl import Array, Index, Sums, rows_of

Term = tuple[Index, ArrayLike]


class Rows:
    """Sparse rows under construction: terms with one coefficient per row and problem."""

    def __init__(self, n: int) -> None:
        self.n, self.count = n, 0
        self.row: list[Index] = []
        self.column: list[Index] = []
        self.value: list[Array] = []
        self.right: list[Array] = []
        self.weight: list[Array] = []

    def add(self, right: ArrayLike, terms: Sequence[Term], weight: ArrayLike = 0.0) -> None:
        """Add rows, with the terms of `BatchQp`."""
        many = len(terms[0][0])
        at = np.arange(self.count, self.count + many)
        for columns, coefficient in terms:
            self.row.append(at)
            self.column.append(columns)
            self.value.append(self._wide(coefficient, many))
        self.right.append(self._wide(right, many))
        self.weight.append(self._wide(weight, many))
        self.count += many

    def _wide(self, values: ArrayLike, many: int) -> Array:
        return np.broadcast_to(np.asarray(values, dtype=np.float64), (many, self.n))


class SparseRows:
    """Rows of one pattern with values (nonzeros, n), and products with them."""

    def __init__(self, rows: Rows, free: Array) -> None:
        empty, wide = np.zeros(0, dtype=np.intp), np.zeros((0, rows.n))
        self.row = np.concatenate([*rows.row, empty])
        self.column = np.concatenate([*rows.column, empty])
        self.value = np.concatenate([*rows.value, wide]) * free[self.column]
        self.right = np.concatenate([*rows.right, wide])
        self.weight = np.concatenate([*rows.weight, wide])
        self.count = rows.count
        self._by_row, self._by_column = Sums(self.row), Sums(self.column)
        self._columns = self.column[self._by_row.order]
        self._rows = self.row[self._by_column.order]
        self._arrange()

    def _arrange(self) -> None:
        self._row_values = self.value[self._by_row.order]
        self._column_values = self.value[self._by_column.order]

    def take(self, some: Index) -> SparseRows:
        """Return the rows of some of the problems."""
        part = copy(self)
        part.value, part.right, part.weight = (
            x[:, some] for x in (self.value, self.right, self.weight)
        )
        part._arrange()
        return part

    def times(self, x: Array) -> Array:
        """Return the rows times x, (count, n)."""
        out = np.zeros((self.count, x.shape[1]))
        out[self._by_row.targets] = self._by_row.of(self._row_values * rows_of(x, self._columns))
        return out

    def add_transposed(self, y: Array, out: Array) -> None:
        """Add the transposed rows times y to `out`, (size, n)."""
        sums = self._by_column
        out[sums.targets] += sums.of(self._column_values * rows_of(y, self._rows))

    def relax_empty(self) -> None:
        """Give rows whose every variable is fixed at 0 a right-hand side with room."""
        size = np.zeros_like(self.right)
        size[self._by_row.targets] = self._by_row.of(np.abs(self._row_values))
        self.right = np.where(size > 0.0, self.right, 1.0)
