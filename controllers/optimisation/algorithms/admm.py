"""Sharing ADMM: members and a coordinator (parallel ADMM).

Member i has a copy z_i of its share A_i x_i of the rows, and the copies satisfy the rows. Every
round, with the price lambda that all multipliers equal after the copies' update::

    z_i    = y_i - lambda / rho_i
    x_i    = argmin f_i(x) + lambda' A_i x + |A_i x - z_i|^2 rho_i / 2
    y_i    <- y_i + alpha (A_i x_i + lambda / rho_i - y_i)                        (member)
    lambda = (sum_i y_i - b) / sum_i 1 / rho_i     (inequality rows: not below 0)  (coordinator)

For one rho and alpha = 1 this is equation 2 of the survey of distributed optimal power flow with
its updates of x, d and lambda, written with ``y_i = A_i x_i + lambda_i / rho`` for its pair of
A_i x_i and multiplier (J. Eckstein and D. Bertsekas, "On the Douglas-Rachford splitting method and
the proximal point algorithm", 1992, who also prove it for 0 < alpha < 2). The coordinator has no
state and y_i is absolute, so lost, repeated and late messages do no harm. A member does not answer
the same price twice.

Penalty rho, one for each member and row; the coordinator knows A, b and the curvatures q, which
members report once:

* "common": rho_j = n / (2 sum_i(A_ji^2 / q_i)), the same for all members, free of the rows' units.
  (The best multiple of n / sum varies from 0.2 to 1 in random problems; 1/2 is never far from it.)
* "scaled": rho_ij = kappa q_i / (m A_ji^2) with kappa = 2 sqrt(m) for m rows: as if variables were
  scaled by sqrt(q_i), so that all members have the same curvature (tutorial, "Tuning the
  instruments").
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from controllers.core.agent_rows import AgentRows, Heard, RowController
from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, IntArray
from controllers.core.waiting import Asynchronous, Waiting
from controllers.optimisation.algorithms.star import star_of
from controllers.optimisation.problems.dispatch import Dispatch, row_sum

Penalty = Literal["common", "scaled"]
Rows = IntArray | slice
TINY = 1e-150
"""In place of a curvature of 0, as of an agent without cost that is in no row."""


def build(
    problem: Dispatch,
    *,
    penalty: Penalty = "common",
    penalty_factor: float = 1.0,
    relaxation: float = 1.0,
    waiting: Waiting | None = None,
    tolerance: float = 1e-6,
    hosted: tuple[str, ...] | None = None,
) -> RowController:
    """Return the members of a dispatch and their coordinator.

    penalty_factor : Multiplies the penalties. relaxation : alpha, between 0 and 2.
    """
    rho = penalties(problem, penalty, penalty_factor)
    if not 0.0 < relaxation < 2.0:
        raise ControllerError(
            f"relaxation is {relaxation}", where="algorithm 'admm'", expected="between 0 and 2"
        )
    # Else the coordinator knows the shares from the y and the price that it sent.
    apart = isinstance(waiting, Asynchronous) or relaxation != 1.0
    m = len(problem.right)
    return star_of(
        problem,
        lambda at: Members(problem, at, rho, relaxation, apart=apart),
        lambda: Coordinator(problem, rho),
        (2 * m if apart else m, m), waiting, tolerance, hosted,
    )  # fmt: skip


def penalties(problem: Dispatch, penalty: Penalty, factor: float = 1.0) -> FloatArray:
    """Return rho of each member and row, (n, m); infinite where a member has no share in a row.

    Raises ControllerError: The factor is not positive.
    """
    if not 0.0 < factor < np.inf:
        raise ControllerError(
            f"penalty_factor is {factor}", where="algorithm 'admm'", expected="a positive number"
        )
    square = problem.rows.T**2
    m = square.shape[1]
    if penalty == "common":
        response = (square / problem.curvature[:, None]).sum(axis=0)
        rho = 0.5 * problem.size / np.where(response > 0.0, response, 1.0)
        return np.tile(factor * rho, (problem.size, 1))
    with np.errstate(divide="ignore"):
        return np.asarray(factor * 2.0 / np.sqrt(m) * problem.curvature[:, None] / square)


class Members(AgentRows):
    """Agents that answer a price by y_i, and by their share of the rows too where `apart`.

    rho : (n, m). Of all agents.
    """

    def __init__(
        self,
        problem: Dispatch,
        at: IntArray,
        rho: FloatArray,
        relaxation: float = 1.0,
        *,
        apart: bool = False,
    ) -> None:
        self._own, self._alpha, self._apart = problem.part(at), relaxation, apart
        column = self._own.column
        self._inverse = 1.0 / rho[at]
        self._rho = np.where(np.isfinite(rho[at]), rho[at], 0.0)
        self._pull = self._rho * column
        self._weight = row_sum(self._pull * column)
        self.x = np.clip(np.zeros(len(at)), self._own.low, self._own.high)
        self.share = column * self.x[:, None]
        self.y = self.share.copy()
        self.residual = np.ones(len(at))

    def first(self) -> None:
        """Wait for the first price."""
        return

    def compute(self, rows: IntArray, heard: Heard) -> FloatArray:
        """Answer the price where it is new."""
        if heard.fresh.all():
            new, price = rows, heard.values
        else:
            new, price = rows[heard.fresh], heard.values[heard.fresh]
        at = self.at(new)
        y = self.y[at]
        self.y[at] = y + self._alpha * (self.mapped(at, price, y) - y)
        told = [self.y[rows], self.share[rows]] if self._apart else [self.y[rows]]
        return np.concatenate(told, axis=1)

    def at(self, rows: IntArray) -> Rows:
        """Return all rows as a slice, which is quicker than their positions."""
        return slice(None) if len(rows) == len(self.x) else rows

    def mapped(self, rows: Rows, price: FloatArray, y: FloatArray) -> FloatArray:
        """Return what y becomes at a price without relaxation; arrays (rows, m)."""
        shift = price * self._inverse[rows]
        return self.solve(rows, price, y - shift) + shift

    def solve(
        self, rows: Rows, price: FloatArray, z: FloatArray, factor: FloatArray | float = 1.0
    ) -> FloatArray:
        """Set x of some rows; return their shares A_i x_i, (rows, m).

        factor : Multiplies the penalties, a number or (rows,).
        """
        own = self._own
        column = own.column[rows]
        value = row_sum(column * price)
        bend = own.quadratic[rows] + factor * self._weight[rows]
        x = factor * row_sum(self._pull[rows] * z) - (own.linear[rows] + value)
        x = np.clip(x / np.maximum(bend, TINY), own.low[rows], own.high[rows])
        share: FloatArray = column * x[:, None]
        self.x[rows], self.share[rows] = x, share
        self.residual[rows] = own.stationarity(x, value, rows)
        return share

    def answer(self) -> Mapping[str, FloatArray]:
        """Return x (rows,)."""
        return {"x": self.x}


class Coordinator(AgentRows):
    """Turns the sum of the y_i into a price. rho : (n, m)."""

    def __init__(self, problem: Dispatch, rho: FloatArray) -> None:
        self._right, self._equal = problem.right, problem.equal
        self._scale = problem.row_scale
        inverse = (1.0 / rho).sum(axis=0)
        self._step = 1.0 / np.where(inverse > 0.0, inverse, 1.0)
        self.price = np.zeros((1, len(problem.right)))
        self.residual = np.ones(1)

    def first(self) -> FloatArray:
        """Ask at price 0."""
        return self.price

    def compute(self, rows: IntArray, heard: Heard) -> FloatArray:
        """Set the price."""
        total = heard.total()
        m = len(self._right)
        y = total[:, :m]
        self.judge(total[:, m:] if total.shape[1] > m else y - self.price / self._step)
        self.price = self.price_of(y)
        return self.price

    def price_of(self, y: FloatArray) -> FloatArray:
        """Return the price (1, m) for a sum of the y_i, (1, m)."""
        price = self._step * (y - self._right)
        return np.asarray(np.where(self._equal, price, np.maximum(price, 0.0)))

    def judge(self, shares: FloatArray) -> None:
        """Set the residual from the sum of the shares, (1, m), and the price they answer.

        An inequality row counts where it is violated, and where it is slack at a positive price.
        """
        error = shares - self._right
        error = np.where(self._equal, error, np.maximum(error, -self.price / self._step))
        self.residual = np.max(np.abs(error) / self._scale, axis=1)

    def answer(self) -> Mapping[str, FloatArray]:
        """Return the price (1, m)."""
        return {"price": self.price}
