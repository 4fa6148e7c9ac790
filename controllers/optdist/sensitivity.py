"""X between the agents' points: a dense matrix on small feeders, tree sweeps on large ones."""

from __future__ import annotations

import numpy as np

from controllers.core.mail import FloatArray, IntArray
from grid_models.linear.kron_tree import TreeSensitivity


class DenseSensitivity:
    """X as a matrix, with the methods of `TreeSensitivity`."""

    def __init__(self, x: FloatArray) -> None:
        self._x = np.asarray(x, dtype=np.float64)

    @property
    def diagonal(self) -> FloatArray:
        """The diagonal of X, (m,)."""
        return np.asarray(np.diag(self._x))

    def dense(self) -> FloatArray:
        """Return X, (m, m)."""
        return self._x

    def rows(self, which: IntArray) -> FloatArray:
        """Return rows of X, (len(which), m)."""
        return np.asarray(self._x[which])

    def times(self, q: FloatArray) -> FloatArray:
        """Return X q for q of shape (m,) or (m, c)."""
        return np.asarray(self._x @ q)

    def times_abs(self, q: FloatArray) -> FloatArray:
        """Return |X| q for q >= 0."""
        return np.asarray(np.abs(self._x) @ q)


Sensitivity = DenseSensitivity | TreeSensitivity
"""d v^2 [pu^2] / d q [per unit] between m points."""
