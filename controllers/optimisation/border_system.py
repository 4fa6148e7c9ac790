"""The equations by which a coordinator joins Newton steps of regions at their borders.

Region k has copies x_k of the shared variables at its border and prices y_k of them, which add to 0
over the holders of a variable. It adds ``rho |x - x_k|^2 / 2`` at the border to its objective, so
that its Newton matrix is regular also where no angle of the region is fixed, and sends S_k, the
border's rows and columns of the matrix' inverse, and b_k, the border after a step at unchanged
prices. The coordinator takes the added term out again: with E z the shared variables at all
borders, N how many regions hold each, and w_k = (change of y_k) - rho (E z - x)_k,

    [ S   E     ] [ w ]   [ b       ]
    [ E'  rho N ] [ z ] = [ rho E'x ]

so that all regions step to the same z and the prices still add to 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from controllers.core.mail import FloatArray
from controllers.optimisation.problems.opf_regions import RegionOpf


class BorderSystem:
    """The equations of a problem; `penalty`: rho."""

    def __init__(self, problem: RegionOpf, penalty: float) -> None:
        self.widths = [len(border.column) for border in problem.borders]
        self._size, self._penalty = sum(self.widths), penalty
        self._shared = np.concatenate([border.shared for border in problem.borders])
        n, at = problem.n_shared, self._size + self._shared
        self._holders = np.bincount(self._shared, minlength=n)
        self._matrix = np.zeros((self._size + n,) * 2)
        every = np.arange(self._size)
        self._matrix[every, at] = self._matrix[at, every] = 1.0
        np.fill_diagonal(self._matrix[self._size :, self._size :], penalty * self._holders)

    def solve(
        self, inverses: Sequence[FloatArray], borders: FloatArray, now: FloatArray
    ) -> tuple[list[FloatArray], list[FloatArray]] | None:
        """Return w and E z of each region, None where the equations are singular.

        Parameters
        ----------
        inverses : Upper triangles of S_k, row by row.
        borders, now : (n_borders,). b and x of all regions, one after the other.
        """
        begin = 0
        for row, k in zip(inverses, self.widths, strict=True):
            inverse = np.zeros((k, k))
            inverse[np.triu_indices(k)] = row
            part = slice(begin, begin + k)
            self._matrix[part, part] = inverse + np.triu(inverse, 1).T
            begin += k
        # Of the difference of z to the mean of the copies: that leaves less rounding.
        mean = np.bincount(self._shared, now, minlength=len(self._holders)) / self._holders
        right = np.zeros(len(self._matrix))
        right[: self._size] = borders - mean[self._shared]
        try:
            found = np.asarray(np.linalg.solve(self._matrix, right), np.float64)
        except np.linalg.LinAlgError:
            return None
        if not np.isfinite(found).all():
            return None
        shared = (mean + found[self._size :])[self._shared]
        return (
            RegionOpf.split(found[: self._size], self.widths),
            RegionOpf.split(shared, self.widths),
        )
