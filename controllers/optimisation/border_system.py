"""The equations by which a coordinator joins Newton steps of regions at their borders.

Region k has copies of the shared variables at its border and prices y_k of them, whose sum over the
holders of a variable is 0. A step changes the prices by dy_k and leads to shared variables that
differ by dz from the mean of the copies. The region adds ``rho |x[border] - now|^2 / 2`` to its
objective, which makes its Newton matrix regular also where no angle of the region is fixed, and
sends S_k, the rows and columns of its border in that matrix' inverse, and b_k, its border after a
step at unchanged prices, relative to the means. The coordinator takes the added term out again:
with w_k = dy_k - rho (border after the step - now), E dz the changes at all borders, and N how many
regions hold each variable,

    [ S   E     ] [ w  ]   [ b ]
    [ E'  rho N ] [ dz ] = [ 0 ]
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
        self._size = sum(self.widths)
        self._shared = np.concatenate([border.shared for border in problem.borders])
        n, at = problem.n_shared, self._size + self._shared
        self._holders = np.bincount(self._shared, minlength=n)
        self._matrix = np.zeros((self._size + n,) * 2)
        every = np.arange(self._size)
        self._matrix[every, at] = self._matrix[at, every] = 1.0
        np.fill_diagonal(self._matrix[self._size :, self._size :], penalty * self._holders)

    def mean(self, copies: FloatArray) -> FloatArray:
        """Return the mean of all copies of each variable, (n_borders,), as `copies`."""
        total = np.bincount(self._shared, copies, minlength=len(self._holders))
        return np.asarray((total / self._holders)[self._shared])

    def solve(
        self, inverses: Sequence[FloatArray], right: FloatArray
    ) -> tuple[list[FloatArray], list[FloatArray]] | None:
        """Return w and the changes of the border of each region, None where there is no solution.

        Parameters
        ----------
        inverses : Upper triangles of S_k, row by row.
        right : (n_borders,). b of all regions, one after the other.
        """
        begin, size = 0, self._size
        for row, k in zip(inverses, self.widths, strict=True):
            inverse = np.zeros((k, k))
            inverse[np.triu_indices(k)] = row
            part = slice(begin, begin + k)
            self._matrix[part, part] = inverse + np.triu(inverse, 1).T
            begin += k
        try:
            found = np.linalg.solve(self._matrix, np.append(right, np.zeros(len(self._holders))))
        except np.linalg.LinAlgError:
            return None
        if not np.isfinite(found).all():
            return None
        pull, change = np.asarray(found[:size]), np.asarray(found[size:][self._shared])
        return RegionOpf.split(pull, self.widths), RegionOpf.split(change, self.widths)
