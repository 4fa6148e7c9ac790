"""Sparse matrices of which only the values change: places are sorted once, values are summed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

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


class SquarePattern(Pattern):
    """Places of square matrices that are factored again and again: their order is found once.

    The places must be symmetric and include the diagonal.
    """

    # Pivots on the diagonal where they are not too small: the factors stay sparser. Columns one by
    # one: faster by a quarter for regions of 10 to 100 buses, where there are few dense blocks.
    _OPTIONS: ClassVar[dict[str, Any]] = {
        "diag_pivot_thresh": 0.01,
        "relax": 1,
        "panel_size": 1,
        "options": {"SymmetricMode": True},
    }

    def __init__(self, rows: IntArray, columns: IntArray, n: int) -> None:
        super().__init__(rows, columns, (n, n))
        # Any regular matrix will do: the order depends on the places alone.
        dominant = np.where(self.rows == self.columns, float(len(self)), 1.0)
        self._place = splu(self.matrix(dominant), **self._OPTIONS).perm_c.astype(np.int64)
        self._order = np.argsort(self._place)
        super().__init__(self._place[self.rows], self._place[self.columns], (n, n))

    def factor(self, values: FloatArray) -> Callable[[FloatArray], FloatArray]:
        """Return the function that solves for a right-hand side (n,) or several (n, k).

        Raises RuntimeError: The matrix is singular.
        """
        lu = splu(self.matrix(values), permc_spec="NATURAL", **self._OPTIONS)
        return lambda right: lu.solve(right[self._order])[self._place]
