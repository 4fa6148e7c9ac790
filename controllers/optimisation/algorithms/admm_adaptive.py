"""Sharing ADMM that adapts its penalty: residual balancing.

All penalties are multiplied by kappa, which the coordinator sends with the price. With primal
residual r, dual residual s (z: the members' copies of their shares, see
`controllers.optimisation.algorithms.admm`)::

    r^2 = sum_i rho_i |A_i x_i - z_i|^2 / sum_i rho_i |A_i x_i|^2
    s^2 = sum_i rho_i |kappa (z_i - z_i before)|^2 / sum_i |lambda|^2 / rho_i

kappa doubles where r > 2 s and halves where s > 2 r, every 10 rounds and at most 30 times, so that
it is constant in the end, as the proof of convergence demands (B. He, H. Yang and S. Wang,
"Alternating direction method with self-adaptive penalty parameters", 2000; relative residuals:
B. Wohlberg, "ADMM penalty parameter selection by residual balancing", 2017). Copies and prices
persist when kappa changes; y is that of the new kappa.
"""

from __future__ import annotations

import numpy as np

from controllers.core.agent_rows import Heard, RowController
from controllers.core.mail import FloatArray, IntArray
from controllers.core.waiting import Waiting
from controllers.optimisation.algorithms import admm
from controllers.optimisation.algorithms.combining import refuse_asynchronous
from controllers.optimisation.algorithms.star import star_of
from controllers.optimisation.problems.dispatch import Dispatch, row_sum

_EVERY_ROUNDS = 10
_CHANGES = 30
_APART = 2.0
_FACTOR = 2.0


def build(
    problem: Dispatch,
    *,
    penalty: admm.Penalty = "common",
    penalty_factor: float = 1.0,
    waiting: Waiting | None = None,
    tolerance: float = 1e-6,
    hosted: tuple[str, ...] | None = None,
) -> RowController:
    """Return the members of a dispatch and their coordinator; options as those of `admm.build`.

    penalty_factor : kappa at the start.
    """
    refuse_asynchronous(waiting, "admm-adaptive")
    rho = admm.penalties(problem, penalty, penalty_factor)
    m = len(problem.right)
    return star_of(
        problem, lambda at: Members(problem, at, rho), lambda: Coordinator(problem, rho),
        (m + 3, m + 1), waiting, tolerance, hosted,
    )  # fmt: skip


class Members(admm.Members):
    """Members that report y and their parts of the residuals."""

    def __init__(self, problem: Dispatch, at: IntArray, rho: FloatArray) -> None:
        super().__init__(problem, at, rho)
        self._kappa = np.ones(len(at))
        self._z = self.share.copy()

    def compute(self, rows: IntArray, heard: Heard) -> FloatArray:
        """Answer the price with the penalty asked for."""
        m = self.y.shape[1]
        price, kappa = heard.values[:, :m], heard.values[:, m]
        shift, rho = price * self._inverse[rows], self._rho[rows]
        z = self.y[rows] - shift / self._kappa[rows, None]
        share = self.share[rows]
        move = self._kappa[rows, None] * (z - self._z[rows])
        squares = [row_sum(rho * part**2) for part in (share - z, move, share)]
        self._z[rows], self._kappa[rows] = z, kappa
        self.y[rows] = self.solve(rows, price, z, kappa) + shift / kappa[:, None]
        return np.column_stack([self.y[rows], *squares])


class Coordinator(admm.Coordinator):
    """Keeps the price and kappa."""

    def __init__(self, problem: Dispatch, rho: FloatArray) -> None:
        super().__init__(problem, rho)
        self._unit_step = self._step
        self._kappa, self._rounds, self._changes = 1.0, 0, 0

    def first(self) -> FloatArray:
        """Ask at price 0."""
        return np.append(self.price, [[1.0]], axis=1)

    def compute(self, rows: IntArray, heard: Heard) -> FloatArray:
        """Set the price, and kappa where the residuals are far apart."""
        total = heard.total()
        m = len(self._right)
        self.judge(total[:, :m] - self.price / self._step)
        asked, self.price = self.price, self.price_of(total[:, :m])
        self._rounds += 1
        if self._rounds % _EVERY_ROUNDS == 0 and self._changes < _CHANGES:
            self._balance(total[0, m:], float((asked**2 / self._unit_step).sum()))
        return np.append(self.price, [[self._kappa]], axis=1)

    def _balance(self, squares: FloatArray, price: float) -> None:
        primal, dual, shares = squares
        # Cross products, because shares and price can be 0.
        r, s = np.sqrt(primal * price), np.sqrt(dual * shares)
        if r > _APART * s or s > _APART * r:
            self._kappa *= _FACTOR if r > s else 1.0 / _FACTOR
            self._step = self._kappa * self._unit_step
            self._changes += 1
