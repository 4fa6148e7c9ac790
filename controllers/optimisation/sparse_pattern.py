"""Sparse matrices of which only the values change: places are sorted once, values are summed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.sparse import csc_array
from scipy.sparse.linalg import splu

from controllers.core.mail import FloatArray, IntArray


def summed(places: IntArray, values: FloatArray, size: int) -> FloatArray:
    """Return the sum of the values (n,) at each place (n,), in their order; (size,)."""
    # Without values `bincount` counts in integers.
    return np.bincount(places, values, minlength=size).astype(np.float64, copy=False)


class Pattern:
    """Places of a sparse matrix. Entries at the same place are added, in the order of the list.

    Parameters
    ----------
    rows, columns : (n_entries,). Place of each entry.
    shape : Rows and columns of the matrix.
    """

    def __init__(
        self,
        rows: Sequence[int] | IntArray,
        columns: Sequence[int] | IntArray,
        shape: tuple[int, int],
    ) -> None:
        self.rows: IntArray = np.asarray(rows, dtype=np.int64)
        self.columns: IntArray = np.asarray(columns, dtype=np.int64)
        self.shape = shape
        places, self._slot = np.unique(self.columns * shape[0] + self.rows, return_inverse=True)
        self._indices = (places % max(shape[0], 1)).astype(np.int32)
        starts = np.arange(shape[1] + 1) * shape[0]
        self._starts = np.searchsorted(places, starts).astype(np.int32)

    def __len__(self) -> int:
        return int(self.rows.size)

    def matrix(self, values: FloatArray) -> csc_array:
        """Return the matrix of values (n_entries,)."""
        data = summed(self._slot, values, self._indices.size)
        return csc_array((data, self._indices, self._starts), shape=self.shape)

    def times(self, values: FloatArray, x: FloatArray) -> FloatArray:
        """Return the matrix times x (columns,), without forming it."""
        return summed(self.rows, values * x[self.columns], self.shape[0])

    def transposed_times(self, values: FloatArray, y: FloatArray) -> FloatArray:
        """Return the transposed matrix times y (rows,), without forming it."""
        return summed(self.columns, values * y[self.rows], self.shape[1])

    def row_pairs(self) -> tuple[IntArray, IntArray]:
        """Return all pairs of entries that share a row, each (n_pairs,), both orders included.

        With them ``J' diag(d) J`` has entries ``J[first] * d[rows[first]] * J[second]`` at
        (columns[first], columns[second]).
        """
        order = np.argsort(self.rows, kind="stable")
        count = np.bincount(self.rows, minlength=self.shape[0])
        width = count[self.rows[order]]
        first = np.repeat(order, width)
        start = np.cumsum(count) - count
        within = np.arange(first.size) - np.repeat(np.cumsum(width) - width, width)
        second = order[np.repeat(start[self.rows[order]], width) + within]
        return first, second


class SquarePattern(Pattern):
    """Places of square matrices that are factored again and again: their order is found once.

    The diagonal must be among the places.
    """

    def __init__(self, rows: IntArray, columns: IntArray, n: int) -> None:
        super().__init__(rows, columns, (n, n))
        # Any regular matrix will do: the order depends on the places alone.
        dominant = np.where(self.rows == self.columns, float(len(self)), 1.0)
        self._place = splu(self.matrix(dominant)).perm_c.astype(np.int64)
        super().__init__(rows, self._place[self.columns], (n, n))

    def factor(self, values: FloatArray) -> Callable[[FloatArray], FloatArray]:
        """Return the function that solves for a right-hand side (n,) or several (n, k).

        Raises RuntimeError: The matrix is singular.
        """
        lu = splu(self.matrix(values), permc_spec="NATURAL")
        return lambda right: lu.solve(right)[self._place]
