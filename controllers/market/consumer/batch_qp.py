"""Many convex quadratic programs of one sparsity pattern, built together and solved by clarabel.

    min sum_r w_r (F_r x - g_r)^2 + q'x    s.t.  A x = b,  G x <= h

Matrices are built for all problems at once, with their numbers side by side. Each is then solved
by itself, from nothing: its solution does not depend, to the bit, on which others are there.
(Clarabel's `update` would keep the scaling of the problem before.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Index = NDArray[np.intp]
Term = tuple[Index, ArrayLike]


class QpSolution(NamedTuple):
    """Of n problems.

    Attributes
    ----------
    x : (size, n).
    objective : (n,).
    converged : (n,). Whether the solver reached its tolerance.
    """

    x: Array
    objective: Array
    converged: NDArray[np.bool_]


class BatchQp:
    """The problems, term by term, and their solution.

    Terms are (columns, coefficients): the k-th column of each term belongs to the k-th row that is
    added. Coefficients, right-hand sides and weights are scalars or broadcast to (rows, n).

    Parameters
    ----------
    n : Number of problems.
    """

    def __init__(self, n: int) -> None:
        self.n, self.size = n, 0
        self._equal, self._below = _Rows(n), _Rows(n)
        self._squares: list[tuple[Index, ArrayLike]] = []
        self._linear: list[tuple[Index, ArrayLike]] = []
        self._fixed: list[tuple[Index, NDArray[np.bool_]]] = []

    def variables(self, count: int) -> Index:
        """Return the columns of new variables."""
        self.size += count
        return np.arange(self.size - count, self.size)

    def equal(self, right: ArrayLike, *terms: Term) -> None:
        """Add rows sum of terms = `right`."""
        self._equal.add(right, terms)

    def at_most(self, right: ArrayLike, *terms: Term) -> None:
        """Add rows sum of terms <= `right`."""
        self._below.add(right, terms)

    def cost(self, columns: Index, price: ArrayLike) -> None:
        """Add price times variable to the objective."""
        self._linear.append((columns, price))

    def square(self, weight: ArrayLike, target: ArrayLike, *terms: Term) -> None:
        """Add weight (sum of terms - target)^2 to the objective."""
        off = self.variables(len(terms[0][0]))
        self.equal(target, *terms, (off, -1.0))
        self._squares.append((off, weight))

    def fix(self, columns: Index, where: NDArray[np.bool_]) -> None:
        """Hold variables at 0 where `where`, shape (columns, n), says so."""
        self._fixed.append((columns, where))

    def _dense(self, terms: Sequence[tuple[Index, ArrayLike]]) -> Array:
        out = np.zeros((self.size, self.n))
        for columns, values in terms:
            out[columns] += np.asarray(values, dtype=np.float64)
        return out

    def solve(self, tolerance: float = 1e-10) -> QpSolution:
        """Solve all problems to `tolerance` (gap and feasibility, absolute and relative)."""
        import clarabel
        from scipy.sparse import csc_array

        free = np.ones((self.size, self.n))
        for columns, where in self._fixed:
            free[columns] *= ~where
        linear, weight = self._dense(self._linear) * free, self._dense(self._squares)
        row, column, value, right = self._stacked(free)
        order = np.lexsort((row, column))
        starts = np.searchsorted(column[order], np.arange(self.size + 1))
        shape = (len(right), self.size)
        rows = csc_array((value[order, 0], row[order], starts), shape)
        value = value[order]
        every = np.arange(self.size)
        hessian = csc_array((weight[:, 0], every, np.arange(self.size + 1)), (self.size,) * 2)
        cones = [
            clarabel.ZeroConeT(self._equal.count),
            clarabel.NonnegativeConeT(self._below.count),
        ]
        settings = clarabel.DefaultSettings()
        settings.verbose = settings.presolve_enable = False
        settings.iterative_refinement_enable = False  # a quarter of the time, nothing gained
        settings.direct_solve_method = "qdldl"  # one thread, the same on every machine
        for name in ("tol_gap_abs", "tol_gap_rel", "tol_feas"):
            setattr(settings, name, tolerance)
        x, converged = np.empty((self.size, self.n)), np.empty(self.n, dtype=bool)
        for i in range(self.n):
            rows.data, hessian.data = value[:, i].copy(), 2.0 * weight[:, i]
            solver = clarabel.DefaultSolver(
                hessian, linear[:, i].copy(), rows, right[:, i].copy(), cones, settings
            )
            found = solver.solve()
            x[:, i] = found.x
            converged[i] = found.status == clarabel.SolverStatus.Solved
        x = np.nan_to_num(x * free)  # a solver that gave up may leave anything
        objective = _total(linear * x) + _total(weight * x * x)
        return QpSolution(x, objective, converged)

    def _stacked(self, free: Array) -> tuple[Index, Index, Array, Array]:
        """Return row, column and values of all entries, and the right-hand sides."""
        below = self._below
        row = np.concatenate([*self._equal.row, *(self._equal.count + r for r in below.row)])
        column = np.concatenate([*self._equal.column, *below.column])
        value = np.concatenate([*self._equal.value, *below.value]) * free[column]
        right = np.concatenate([*self._equal.right, *below.right])
        # A limit of nothing but variables fixed at 0 gets room: 0 <= 0 has no interior.
        size = np.zeros_like(right)
        np.add.at(size, row, np.abs(value))
        limits = np.arange(len(right)) >= self._equal.count
        return row, column, value, np.where(limits[:, None] & (size == 0.0), 1.0, right)


class _Rows:
    """Sparse rows under construction: terms with one coefficient per row and problem."""

    def __init__(self, n: int) -> None:
        self.n, self.count = n, 0
        self.row: list[Index] = []
        self.column: list[Index] = []
        self.value: list[Array] = []
        self.right: list[Array] = []

    def add(self, right: ArrayLike, terms: Sequence[Term]) -> None:
        many = len(terms[0][0])
        at = np.arange(self.count, self.count + many)
        for columns, coefficient in terms:
            self.row.append(at)
            self.column.append(columns)
            self.value.append(self._wide(coefficient, many))
        self.right.append(self._wide(right, many))
        self.count += many

    def _wide(self, values: ArrayLike, many: int) -> Array:
        return np.broadcast_to(np.asarray(values, dtype=np.float64), (many, self.n))


def _total(values: Array) -> Array:
    """Return the sum over rows, (n,), each in the same order of additions whatever n is."""
    return np.array([column.sum() for column in np.ascontiguousarray(values.T)])
