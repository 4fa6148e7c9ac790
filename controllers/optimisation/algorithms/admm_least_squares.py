"""ADMM of variables, rows and a coordinator that joins them by least squares.

Every variable and every row of a dispatch is an agent with one number: z_i is a copy of x_i that
keeps its cost and limits, z_j a copy of A_j x that keeps row j. With w = z - u, u the multipliers
over the penalties::

    x  = argmin  sum_i rho_i (x_i - w_i)^2 + sum_j rho_j (A_j x - w_j)^2          (coordinator)
    v  = alpha [x, A x] + (1 - alpha) z + u
    z <- argmin  f(z) + rho (z - v)^2 / 2  within its limits,   u <- v - z         (each agent)

S. Boyd et al., "Distributed optimization and statistical learning via the alternating direction
method of multipliers", 2011, sections 3.4.3, 5 and 7.3; the splitting is that of OSQP (B. Stellato
et al., 2020). The coordinator has one constant matrix and no state. A message is one number, where
sharing ADMM (`admm`) sends one for each row, and rows that are alike slow it down less.

Penalties: rho_i = q_i; rho_j is the same for all rows, ``stiffness / |A diag(q)^-1/2|^2``.

**Start.** Agents may start from a guess of x and of the prices: a solution of the instant before,
or a learned one (`controllers.optimisation.starts`). The problem is convex, so any start converges.
To bound the harm of a bad one, agents that have not stopped after `restart_after` rounds begin
again without it: their later rounds are those of a cold start, bit for bit, so a start costs at
most `restart_after` rounds. Each counts for itself; no message is needed.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from controllers.core.agent_rows import AgentRows, Heard, Kind, RowController, Team
from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, IntArray
from controllers.core.waiting import Waiting
from controllers.optimisation.algorithms.peers import refuse_asynchronous
from controllers.optimisation.problems.dispatch import Dispatch
from controllers.optimisation.starts import Start

_NAME = "admm-least-squares"


def build(
    problem: Dispatch,
    *,
    stiffness: float = 50.0,
    relaxation: float = 1.6,
    start: Start | None = None,
    restart_after: int | None = None,
    waiting: Waiting | None = None,
    tolerance: float = 1e-6,
    hosted: tuple[str, ...] | None = None,
) -> RowController:
    """Return the agents of a dispatch's variables and rows, and their coordinator.

    stiffness : Of the rows beside the costs; `benchmarks/learned_start.py penalty` compares some.
    relaxation : alpha, between 0 and 2.
    start : Where the agents begin; default: x = 0 within the limits, prices 0.
    restart_after : Rounds after which a start is given up.

    Raises ControllerError: An option is out of its range, or there is one of `start` and
        `restart_after` without the other.
    """
    where = f"algorithm '{_NAME}'"
    refuse_asynchronous(waiting, _NAME)
    if not 0.0 < relaxation < 2.0:
        raise ControllerError(
            f"relaxation is {relaxation}", where=where, expected="between 0 and 2"
        )
    if not 0.0 < stiffness < np.inf:
        raise ControllerError(f"stiffness is {stiffness}", where=where, expected="positive")
    if start is not None and not isinstance(start, Start):
        raise ControllerError(
            f"option 'start' is a {type(start).__name__}", where=where, expected="a Start"
        )
    if (start is None) != (restart_after is None):
        one, other = ("restart_after", "start") if start is None else ("start", "restart_after")
        raise ControllerError(f"there is {one} without {other}", where=where, expected="both")
    if restart_after is not None and restart_after < 1:
        raise ControllerError(
            f"restart_after is {restart_after}", where=where, expected="a number of rounds from 1"
        )
    if start is not None:
        start.check(problem.size, len(problem.right), where)
    rho = _penalties(problem, stiffness)
    n, m = problem.size, len(problem.right)
    team = Team.star(
        (*problem.names, *(f"row_{j}" for j in range(m)), "coordinator"),
        Kind(n + m, 1, lambda at: Copies(problem, at, rho, relaxation, start, restart_after)),
        Kind(1, 1, lambda _: LeastSquares(problem, rho)),
    )
    return RowController(team, hosted, waiting=waiting, tolerance=tolerance)


def _penalties(problem: Dispatch, stiffness: float) -> FloatArray:
    """Return rho of the variables and rows, (n + m,)."""
    own = problem.curvature
    norm = float(np.linalg.norm(problem.rows / np.sqrt(own), 2)) or 1.0
    return np.concatenate([own, np.full(len(problem.right), stiffness / norm**2)])


class Copies(AgentRows):
    """Agents with a copy of a variable or of a row; rho : (n + m,) of all."""

    def __init__(
        self,
        problem: Dispatch,
        at: IntArray,
        rho: FloatArray,
        relaxation: float,
        start: Start | None,
        restart_after: int | None,
    ) -> None:
        n, m = problem.size, len(problem.right)
        none = np.zeros(m)
        self._rho, self._alpha = rho[at], relaxation
        self._quadratic = np.concatenate([problem.quadratic, none])[at]
        self._linear = np.concatenate([problem.linear, none])[at]
        bottom = np.where(problem.equal, problem.right, -np.inf)
        self._low = np.concatenate([problem.low, bottom])[at]
        self._high = np.concatenate([problem.high, problem.right])[at]
        width = problem.high - problem.low
        large = np.maximum(1.0, np.abs(problem.right).max())
        width = np.where(np.isfinite(width) & (width > 0.0), width, large)
        self._scale = np.concatenate([width, problem.row_scale])[at]
        self._cold = self._begin(problem, at, Start(np.zeros(n), none))
        self._z, self._u = self._begin(problem, at, start) if start else map(np.copy, self._cold)
        self._restart_after = restart_after if start else None
        self._of_row = at >= n
        self._answer = self._z.copy(), self._u.copy()
        self._rounds: IntArray = np.zeros(len(at), dtype=np.int64)
        self.residual = np.ones(len(at))

    def _begin(
        self, problem: Dispatch, at: IntArray, start: Start
    ) -> tuple[FloatArray, FloatArray]:
        """Return the copies and multipliers that belong to x and the prices."""
        x = np.clip(start.x, problem.low, problem.high)
        price = np.where(problem.equal, start.price, np.maximum(start.price, 0.0))
        z = np.concatenate([x, problem.rows @ x])[at]
        pull = np.concatenate([-(problem.rows.T @ price), price])[at]
        return np.clip(z, self._low, self._high), pull / self._rho

    def first(self) -> FloatArray:
        """Tell the copies."""
        return np.asarray((self._z - self._u)[:, None])

    def compute(self, rows: IntArray, heard: Heard) -> FloatArray:
        """Follow what the coordinator joined, or give up the start."""
        self._rounds[rows] += 1
        joint, z = heard.values[:, 0], self._z[rows]
        v = self._alpha * joint + (1.0 - self._alpha) * z + self._u[rows]
        bend, rho = self._quadratic[rows], self._rho[rows]
        new = (rho * v - self._linear[rows]) / (bend + rho)
        new = np.clip(new, self._low[rows], self._high[rows])
        far = np.maximum(np.abs(joint - new), np.abs(new - z)) / self._scale[rows]
        self._z[rows], self._u[rows], self.residual[rows] = new, v - new, far
        for found, now in zip(self._answer, (self._z, self._u), strict=True):
            found[rows] = now[rows]
        if self._restart_after is not None:
            again = rows[self._rounds[rows] == self._restart_after]
            self._z[again], self._u[again] = self._cold[0][again], self._cold[1][again]
            self.residual[again] = 1.0
        return np.asarray((self._z[rows] - self._u[rows])[:, None])

    def answer(self) -> Mapping[str, FloatArray]:
        """Return x (variables,) and the prices (rows,) of these agents."""
        z, u = self._answer
        return {"x": z[~self._of_row], "price": (self._rho * u)[self._of_row]}


class LeastSquares(AgentRows):
    """The coordinator: joins the copies. rho : (n + m,)."""

    by_link = True

    def __init__(self, problem: Dispatch, rho: FloatArray) -> None:
        n = problem.size
        weighted = rho[n:, None] * problem.rows
        inverse = np.linalg.inv(np.diag(rho[:n]) + problem.rows.T @ weighted)
        self._join = inverse @ np.hstack([np.diag(rho[:n]), weighted.T])
        self._rows = problem.rows
        self.residual = np.zeros(1)

    def first(self) -> None:
        """Wait for the copies."""
        return

    def compute(self, rows: IntArray, heard: Heard) -> FloatArray:
        """Return x and A x that are nearest to the copies."""
        x = self._join @ heard.values[:, 0]
        return np.concatenate([x, self._rows @ x])[:, None]

    def answer(self) -> Mapping[str, FloatArray]:
        """Return nothing: the copies know the solution."""
        return {}
