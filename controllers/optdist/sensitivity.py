"""X between the agents' points: a dense matrix on small feeders, tree sweeps on large ones."""

from __future__ import annotations

from functools import cached_property
from typing import Protocol

import numpy as np

from controllers.core.mail import FloatArray, IntArray
from grid_models.linear import kron_tree


class Sensitivity(Protocol):
    """d v^2 [pu^2] / d q [per unit] between m points."""

    @property
    def diagonal(self) -> FloatArray:
        """The diagonal of X, (m,)."""
        ...

    def dense(self) -> FloatArray:
        """Return X, (m, m)."""
        ...

    def rows(self, which: IntArray) -> FloatArray:
        """Return rows of X, (len(which), m)."""
        ...

    def times(self, q: FloatArray) -> FloatArray:
        """Return X q for q of shape (m,) or (m, c)."""
        ...

    def times_abs(self, q: FloatArray) -> FloatArray:
        """Return |X| q, or an upper bound of it, for q >= 0."""
        ...


class DenseSensitivity:
    """X as a matrix."""

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


class TreeSensitivity:
    """X of `grid_models.linear.kron_tree`, per `base_kvar`."""

    def __init__(self, x: kron_tree.TreeSensitivity, base_kvar: float) -> None:
        self._x = x
        self._base_kvar = base_kvar

    @cached_property
    def diagonal(self) -> FloatArray:
        """The diagonal of X, (m,)."""
        return self._x.diagonal * self._base_kvar

    def dense(self) -> FloatArray:
        """Return X, (m, m): a large matrix, for checks only."""
        return self._x.dense() * self._base_kvar

    def rows(self, which: IntArray) -> FloatArray:
        """Return rows of X, (len(which), m)."""
        return self._x.rows(which) * self._base_kvar

    def times(self, q: FloatArray) -> FloatArray:
        """Return X q for q of shape (m,) or (m, c)."""
        return self._x.times(q * self._base_kvar)

    def times_abs(self, q: FloatArray) -> FloatArray:
        """Return an upper bound of |X| q, for q >= 0."""
        return self._x.times_abs(q * self._base_kvar)
