"""Proximal Jacobian ADMM: all members at once, held back by a proximal term.

::

    v      = lambda + rho (A x - b)                              (inequality rows: not below 0)
    x_i    <- argmin f_i(x) + v' A_i x + rho |A_i (x - x_i)|^2 / 2 + P_i (x - x_i)^2 / 2
    lambda <- lambda + rho (A x - b)

The members minimise the augmented Lagrangian of the rows, each as if the others stood still. It
converges for ``P_i > rho (n - 1) |A_i|^2`` (W. Deng, M.-J. Lai, Z. Peng and W. Yin, "Parallel
multi-block ADMM with o(1/k) convergence", 2017, lemma 2.2; the survey's proximal regularisation);
here P_i is 1.01 times that bound. The bound grows with the number of members n, therefore rho is
1 / n of that of sharing ADMM with penalty "common", row by row: the pull of all terms on x is then
as large as there.
"""

from __future__ import annotations

import numpy as np

from controllers.core.agent_rows import Heard, RowController
from controllers.core.mail import FloatArray, IntArray
from controllers.core.waiting import Waiting
from controllers.optimisation.algorithms import admm, dual
from controllers.optimisation.algorithms.star import star_of
from controllers.optimisation.problems.dispatch import Dispatch, row_sum

_ABOVE_BOUND = 1.01


def build(
    problem: Dispatch,
    *,
    penalty_factor: float = 1.0,
    waiting: Waiting | None = None,
    tolerance: float = 1e-6,
    hosted: tuple[str, ...] | None = None,
) -> RowController:
    """Return the members of a dispatch and their coordinator.

    penalty_factor : Multiplies rho.
    """
    rho = admm.penalties(problem, "common", penalty_factor)[0] / problem.size
    m = len(problem.right)
    return star_of(
        problem, lambda at: Members(problem, at, rho), lambda: Coordinator(problem, rho),
        (m, m), waiting, tolerance, hosted,
    )  # fmt: skip


class Members(dual.Members):
    """Agents that move towards the cheapest x at a price. rho : (m,)."""

    def __init__(self, problem: Dispatch, at: IntArray, rho: FloatArray) -> None:
        super().__init__(problem, at)
        own = row_sum(self._own.column**2 * rho)
        held = _ABOVE_BOUND * (problem.size - 1) * own
        self._bend = np.maximum(self._own.quadratic + own + held, admm.TINY)
        self.residual = np.ones(len(at))

    def compute(self, rows: IntArray, heard: Heard) -> FloatArray:
        """Move, where the price is new."""
        new, own, price = rows[heard.fresh], self._own, heard.values[heard.fresh]
        x, column = self.x[new], own.column[new]
        value = row_sum(column * price)
        slope = own.quadratic[new] * x + own.linear[new] + value
        x = np.clip(x - slope / self._bend[new], own.low[new], own.high[new])
        self.x[new] = x
        self.residual[new] = own.stationarity(x, value, new)
        return np.asarray(own.column[rows] * self.x[rows, None])


class Coordinator(dual.Coordinator):
    """Keeps the price lambda and asks at the price v of the augmented Lagrangian."""

    def compute(self, rows: IntArray, heard: Heard) -> FloatArray:
        """Move the price by the imbalance."""
        imbalance = heard.total() - self._right
        self.price = self.moved(self.price, imbalance, self._step)
        asked = self.price + self._step * imbalance
        return np.asarray(np.where(self._equal, asked, np.maximum(asked, 0.0)))
