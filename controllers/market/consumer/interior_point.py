"""Mehrotra's predictor-corrector method on many quadratic programs at once.

Nocedal and Wright, Numerical Optimization, 2nd edition, algorithm 16.4, with one step length per
problem. The linear system is condensed to variables and multipliers of the equations.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from controllers.market.consumer.batch_ldl import Array, Index, LdlPattern, Sums, rows_of
from controllers.market.consumer.batch_rows import SparseRows

REGULAR = 1e-8  # Proximal term of the multipliers: it keeps pivots of steps without power from 0.


class _Products(NamedTuple):
    """Pairs of nonzeros of a row (as positions), their row, and sums by the entry they add to."""

    left: Index
    right: Index
    row: Index
    sums: Sums


class KktPattern(NamedTuple):
    """Where the terms of the condensed system are."""

    ldl: LdlPattern
    squares: _Products
    below: _Products
    equal: Index  # the entry of each nonzero of the equations


def kkt_pattern(
    size: int,
    order: tuple[int, ...],
    squares: SparseRows,
    equal: SparseRows,
    below: SparseRows,
    dual: Index,
) -> KktPattern:
    """Return the pattern of a problem; that of the same problem is computed once."""
    parts = (squares.row, squares.column, equal.row, equal.column, below.row, below.column, dual)
    return _pattern(size, order, *(part.tobytes() for part in parts))


@lru_cache(maxsize=32)
def _pattern(size: int, order: tuple[int, ...], *parts: bytes) -> KktPattern:
    rows = [np.frombuffer(part, dtype=np.intp) for part in parts]
    square, below = _row_pairs(rows[0]), _row_pairs(rows[4])
    pairs = list(zip(rows[6][rows[2]].tolist(), rows[3].tolist(), strict=True))
    for (left, right), column in ((square, rows[1]), (below, rows[5])):
        pairs += zip(column[left].tolist(), column[right].tolist(), strict=True)
    ldl = LdlPattern(size, pairs, order, rows[6].tolist())
    place = np.array([ldl.position(i, j) for i, j in pairs], dtype=np.intp)
    ends = np.cumsum([len(rows[2]), len(square[0])])
    return KktPattern(
        ldl,
        _products(square, rows[0], place[ends[0] : ends[1]]),
        _products(below, rows[4], place[ends[1] :]),
        place[: ends[0]],
    )


def _products(pairs: tuple[Index, Index], row: Index, entries: Index) -> _Products:
    sums = Sums(entries)
    left, right = pairs[0][sums.order], pairs[1][sums.order]
    return _Products(left, right, row[left], sums)


def _row_pairs(row: Index) -> tuple[Index, Index]:
    """Return all pairs (a, b), a <= b, of nonzeros of one row, as positions."""
    left: list[int] = []
    right: list[int] = []
    order = np.argsort(row, kind="stable").tolist()
    ends = [0, *np.cumsum(np.bincount(row)).tolist()]
    for start, end in pairwise(ends):
        for a in range(start, end):
            left += [order[a]] * (end - a)
            right += order[a:end]
    return np.array(left, dtype=np.intp), np.array(right, dtype=np.intp)


def total(values: Array) -> Array:
    """Return the sum over rows, (n,), in an order that does not depend on n."""
    if not len(values):
        return np.zeros(values.shape[1])
    while len(values) > 1:
        half = len(values) // 2
        folded = values[:half] + values[half : 2 * half]
        values = folded if len(values) == 2 * half else np.concatenate([folded, values[-1:]])
    first: Array = values[0]
    return first


def _longest(x: Array, dx: Array) -> Array:
    """Return the longest step in (0, 1] that keeps x + step dx >= 0, (n,)."""
    ratio = np.divide(-x, dx, out=np.ones_like(x), where=dx < 0.0)
    step: Array = np.minimum(ratio.min(axis=0), 1.0)
    return step


class InteriorPoint:
    """The points of n problems: x with multipliers, slacks s > 0 and their multipliers z > 0."""

    def __init__(
        self,
        pattern: KktPattern,
        squares: SparseRows,
        equal: SparseRows,
        below: SparseRows,
        dual: Index,
        linear: Array,
        free: Array,
        tolerance: float,
    ) -> None:
        self._pattern, self._dual = pattern, dual
        self._tolerance = tolerance * np.maximum(np.abs(linear).max(axis=0, initial=0.0), 1.0)
        self._squares, self._equal, self._below = squares, equal, below
        self._linear, self._free = linear * free, free
        below.relax_empty()
        self._fixed_part = self._constant()
        p = pattern.below
        self._product = below.value[p.left] * below.value[p.right]
        self._start()

    def _constant(self) -> Array:
        """Return what the iterations do not change of the condensed matrix."""
        out = np.zeros((self._pattern.ldl.entries, self._free.shape[1]))
        out[: len(self._free)] = 1.0 - self._free
        out[self._dual] = -REGULAR
        out[self._pattern.equal] = self._equal.value
        p, squares = self._pattern.squares, self._squares
        value = squares.value[p.left] * squares.value[p.right]
        out[p.sums.targets] += p.sums.of(2.0 * squares.weight[p.row] * value)
        return out

    def _factor(self, weight: Array) -> None:
        matrix = self._fixed_part.copy()
        p = self._pattern.below
        matrix[p.sums.targets] += p.sums.of(self._product * rows_of(weight, p.row))
        self._pattern.ldl.factor(matrix)
        self._factors = matrix

    def _start(self) -> None:
        """Start at the minimum with squared slacks (the start of CVXOPT, coneqp)."""
        below = self._below
        self._factor(np.ones_like(below.right))
        x = -self._linear
        self._squares.add_transposed(2.0 * self._squares.weight * self._squares.right, x)
        below.add_transposed(below.right, x)
        x[self._dual] += self._equal.right
        self._pattern.ldl.solve(self._factors, x)
        self.x = x
        slack = below.right - below.times(x)
        low, high = slack.min(axis=0), slack.max(axis=0)
        self.s = np.where(low > 0.0, slack, slack + (1.0 - low))
        self.z = np.where(high < 0.0, -slack, (1.0 + high) - slack)
        self._residuals()

    def _residuals(self) -> None:
        x, squares = self.x, self._squares
        out = self._linear.copy()
        squares.add_transposed(2.0 * squares.weight * (squares.times(x) - squares.right), out)
        self._equal.add_transposed(x[self._dual], out)
        self._below.add_transposed(self.z, out)
        out[self._dual] += self._equal.times(x) - self._equal.right
        self._r_x = out
        self._r_s = self._below.times(x) + self.s - self._below.right
        self._mu = total(self.s * self.z) / len(self.s)

    def done(self) -> NDArray[np.bool_]:
        """Return which problems are solved, (n,)."""
        worst = np.maximum(np.abs(self._r_x).max(axis=0), np.abs(self._r_s).max(axis=0))
        out: NDArray[np.bool_] = np.maximum(worst, 1000.0 * self._mu) <= self._tolerance
        return out

    def keep(self, some: Index) -> None:
        """Go on with some of the problems."""
        for name in ("_squares", "_equal", "_below"):
            setattr(self, name, getattr(self, name).take(some))
        for name in ("_linear", "_free", "_fixed_part", "_product", "x", "s", "z", "_r_x", "_r_s"):
            setattr(self, name, getattr(self, name)[:, some])
        self._mu, self._tolerance = self._mu[some], self._tolerance[some]

    def _direction(self, r_c: Array) -> tuple[Array, Array, Array]:
        """Return the Newton step for the complementarity residual r_c."""
        change = self._r_s * self.z - r_c
        dx = -self._r_x
        self._below.add_transposed(-change / self.s, dx)
        self._pattern.ldl.solve(self._factors, dx)
        ds = -self._r_s - self._below.times(dx)
        return dx, ds, -(r_c + self.z * ds) / self.s

    def advance(self) -> None:
        """Do one iteration."""
        s, z = self.s, self.z
        self._factor(z / s)
        product = s * z
        _, ds, dz = self._direction(product)
        step = np.minimum(_longest(s, ds), _longest(z, dz))
        ahead = total((s + step * ds) * (z + step * dz)) / len(s)
        share = ahead / self._mu
        centre = share * share * share * self._mu
        dx, ds, dz = self._direction(product + ds * dz - centre)
        step = 0.995 * np.minimum(_longest(s, ds), _longest(z, dz))
        # A problem that rounding has spoilt stays where it is, and does not converge.
        sound = np.isfinite(total(dx)) & np.isfinite(step)
        self.x = np.where(sound, self.x + step * dx, self.x)
        self.s, self.z = np.where(sound, s + step * ds, s), np.where(sound, z + step * dz, z)
        self._residuals()
