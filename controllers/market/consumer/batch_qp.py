"""Many convex quadratic programs of one sparsity pattern, solved together in numpy.

    min sum_r w_r (F_r x - g_r)^2 + q'x    s.t.  A x = b,  G x <= h

Every operation is element by element over the problems (`batch_ldl`, `interior_point`): the
solution of one does not depend, to the bit, on which others are in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from controllers.market.consumer.batch_ldl import Array, Index
from controllers.market.consumer.batch_rows import Rows, SparseRows, Term
from controllers.market.consumer.interior_point import InteriorPoint, kkt_pattern, total


class QpSolution(NamedTuple):
    """Of n problems.

    Attributes
    ----------
    x : (size, n). Variables and multipliers, at the places that the builder gave them.
    converged : (n,).
    objective : (n,).
    iterations : (n,).
    """

    x: Array
    objective: Array
    converged: NDArray[np.bool_]
    iterations: NDArray[np.intp]


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
        self._squares, self._equal, self._below = Rows(n), Rows(n), Rows(n)
        self._dual: list[Index] = [np.zeros(0, dtype=np.intp)]
        self._linear: list[tuple[Index, ArrayLike]] = []
        self._fixed: list[tuple[Index, NDArray[np.bool_]]] = []

    def variables(self, count: int) -> Index:
        """Return the columns of new variables."""
        self.size += count
        return np.arange(self.size - count, self.size)

    def equal(self, right: ArrayLike, *terms: Term) -> Index:
        """Add rows sum of terms = `right`; return the places of their multipliers."""
        self._equal.add(right, terms)
        self._dual.append(self.variables(len(terms[0][0])))
        return self._dual[-1]

    def at_most(self, right: ArrayLike, *terms: Term) -> None:
        """Add rows sum of terms <= `right`."""
        self._below.add(right, terms)

    def cost(self, columns: Index, price: ArrayLike) -> None:
        """Add price times variable to the objective."""
        self._linear.append((columns, price))

    def square(self, weight: ArrayLike, target: ArrayLike, *terms: Term) -> None:
        """Add weight (sum of terms - target)^2 to the objective."""
        self._squares.add(target, terms, weight)

    def fix(self, columns: Index, where: NDArray[np.bool_]) -> None:
        """Hold variables at 0 where `where`, shape (columns, n), says so."""
        self._fixed.append((columns, where))

    def solve(
        self, order: Sequence[int], most: int = 80, chunk: int = 512, tolerance: float = 1e-9
    ) -> QpSolution:
        """Solve all problems.

        Parameters
        ----------
        order : Of elimination: all variables and multipliers.
        most : Iterations.
        chunk : Problems at a time; it changes speed only.
        tolerance : Of the residuals, relative to the largest price (at least 1); the mean
            complementarity is held to 1/1000 of it.
        """
        free = np.ones((self.size, self.n))
        for columns, where in self._fixed:
            free[columns] *= ~where
        linear = np.zeros((self.size, self.n))
        for columns, price in self._linear:
            linear[columns] += np.asarray(price, dtype=np.float64)
        squares, equal, below = (
            SparseRows(rows, free) for rows in (self._squares, self._equal, self._below)
        )
        dual = np.concatenate(self._dual)
        pattern = kkt_pattern(self.size, tuple(order), squares, equal, below, dual)
        x = np.empty((self.size, self.n))
        converged = np.zeros(self.n, dtype=bool)
        iterations = np.zeros(self.n, dtype=np.intp)
        for start in range(0, self.n, chunk):
            left = np.arange(start, min(start + chunk, self.n))
            rows = squares.take(left), equal.take(left), below.take(left)
            with np.errstate(all="ignore"):  # a problem without a solution, until `most`
                point = InteriorPoint(
                    pattern, *rows, dual, linear[:, left], free[:, left], tolerance
                )
                for iteration in range(most + 1):
                    done = point.done()
                    converged[left[done]] = True
                    if iteration == most:
                        done[:] = True
                    x[:, left[done]], iterations[left[done]] = point.x[:, done], iteration
                    left = left[~done]
                    if not len(left):
                        break
                    if done.any():
                        point.keep(np.flatnonzero(~done))
                    point.advance()
        off = squares.times(x) - squares.right
        objective = total(linear * free * x) + total(squares.weight * off * off)
        return QpSolution(x, objective, converged, iterations)
