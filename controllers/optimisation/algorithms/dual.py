"""Dual decomposition: a coordinator moves the price by the rows' imbalance.

Every round the members answer the price, ``x_i = argmin f_i(x) + lambda' A_i x``, and the
coordinator corrects it::

    lambda <- lambda + alpha_k D (A x - b)          (inequality rows: not below 0)

(tutorial, "The invisible hand of prices"). The dual function of agents with curvature q is
1/q-smooth, so a constant alpha is stable below 2 / L with L = |A diag(1/q) A'|. `step`:

* "curvature" (default): 1 / L, where L is the exact norm; for one balance row 1 / sum(1/q).
* "conservative": 1 / (|A|^2 / min q), known without all costs; for one row q_min / n.
* "diminishing": 1 / (L sqrt(k + 1)).
* "preconditioned": every row its own step, 1 / (A diag(1/q) A')_jj, times 2 / (largest + smallest
  eigenvalue of the scaled matrix): Jacobi. At most 1.8 / largest, because 2 is the edge of
  stability where rows depend on each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from controllers.core.agent_rows import AgentRows, Heard, RowController
from controllers.core.mail import FloatArray, IntArray
from controllers.core.waiting import Waiting
from controllers.optimisation.algorithms.star import star_of
from controllers.optimisation.problems.dispatch import Dispatch

Step = Literal["curvature", "conservative", "diminishing", "preconditioned"]

_MOST = 1.8


def build(
    problem: Dispatch,
    *,
    step: Step = "curvature",
    waiting: Waiting | None = None,
    tolerance: float = 1e-6,
    hosted: tuple[str, ...] | None = None,
) -> RowController:
    """Return the members of a dispatch and their coordinator."""
    problem.refuse_flat("dual")
    m, alpha = len(problem.right), step_sizes(problem, step)
    return star_of(
        problem,
        lambda at: Members(problem, at),
        lambda: Coordinator(problem, alpha, diminishing=step == "diminishing"),
        (m, m), waiting, tolerance, hosted,
    )  # fmt: skip


class Members(AgentRows):
    """Agents that answer a price by their share of the rows, A_i x_i."""

    def __init__(self, problem: Dispatch, at: IntArray) -> None:
        self._own = problem.part(at)
        self.x = np.clip(np.zeros(len(at)), self._own.low, self._own.high)
        self.residual = np.zeros(len(at))  # the coordinator sees whether the rows hold

    def first(self) -> None:
        """Wait for the first price."""
        return

    def compute(self, rows: IntArray, heard: Heard) -> FloatArray:
        """Answer the price."""
        self.x[rows] = self._own.answer(heard.values, rows)
        return self._own.column[rows] * self.x[rows, None]

    def answer(self) -> Mapping[str, FloatArray]:
        """Return x (rows,)."""
        return {"x": self.x}


class Coordinator(AgentRows):
    """Keeps the price of the rows. step : (m,)."""

    def __init__(self, problem: Dispatch, step: FloatArray, *, diminishing: bool = False) -> None:
        self._right, self._equal = problem.right, problem.equal
        self._scale = problem.row_scale
        self._step, self._diminishing = step, diminishing
        self._k = 0
        self.price = np.zeros((1, len(problem.right)))
        self.residual = np.ones(1)

    def first(self) -> FloatArray:
        """Ask at price 0."""
        return self.price

    def compute(self, rows: IntArray, heard: Heard) -> FloatArray:
        """Move the price along the imbalance."""
        imbalance = heard.total() - self._right
        step = self._step / np.sqrt(self._k + 1.0) if self._diminishing else self._step
        self._k += 1
        self.price = self.moved(self.price, imbalance, step)
        return self.price

    def moved(self, asked: FloatArray, imbalance: FloatArray, step: FloatArray) -> FloatArray:
        """Return the price after a step from the one asked at; set the residual. All (1, m)."""
        price = asked + step * imbalance
        price = np.where(self._equal, price, np.maximum(price, 0.0))
        # A row that does not bind has its imbalance and no movement of its price.
        open_rows = np.where(self._equal, imbalance, (price - asked) / step)
        self.residual = np.max(np.abs(open_rows) / self._scale, axis=1)
        return np.asarray(price)

    def answer(self) -> Mapping[str, FloatArray]:
        """Return the price (1, m)."""
        return {"price": self.price}


def step_sizes(problem: Dispatch, step: Step, *, momentum: bool = False) -> FloatArray:
    """Return alpha of each row, (m,); a row without coefficients gets 1.

    momentum : For use with momentum, which bears 1 / L at most.
    """
    hessian = (problem.rows / problem.quadratic) @ problem.rows.T
    empty = np.diag(hessian) == 0.0
    hessian[empty, empty] = 1.0
    if step == "conservative":
        norm = float(np.linalg.norm(problem.rows, 2)) ** 2 / float(problem.quadratic.min())
        return np.full(len(hessian), 1.0 / (norm or 1.0))
    if step == "preconditioned":
        scale = 1.0 / np.sqrt(np.diag(hessian))
        values = np.linalg.eigvalsh(scale[:, None] * hessian * scale)
        middle = max((values[0] + values[-1]) / 2.0, values[-1] / _MOST)
        return np.asarray(scale**2 / (values[-1] if momentum else middle))
    return np.full(len(hessian), 1.0 / float(np.linalg.eigvalsh(hessian)[-1]))
