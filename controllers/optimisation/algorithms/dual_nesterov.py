"""Dual decomposition with Nesterov's momentum and restart.

The members answer an extrapolated price v, and the coordinator moves it::

    lambda_{k+1} = v_k + alpha (A x(v_k) - b)                   (inequality rows: not below 0)
    v_{k+1} = lambda_{k+1} + (a_k - 1) / a_{k+1} (lambda_{k+1} - lambda_k)
    a_{k+1} = (1 + sqrt(1 + 4 a_k^2)) / 2

with alpha = 1 / L as in `controllers.optimisation.algorithms.dual`, or, with `step`
"preconditioned", each row in units of its own curvature. Where the price turns against the
imbalance, ``(lambda_{k+1} - v_k)' (lambda_{k+1} - lambda_k) < 0`` in these units, a starts again at
1 (B. O'Donoghue and E. Candes, "Adaptive restart for accelerated gradient schemes", 2015, gradient
scheme).
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from controllers.core.agent_rows import Heard, RowController
from controllers.core.mail import FloatArray, IntArray
from controllers.core.waiting import Waiting
from controllers.optimisation.algorithms import dual
from controllers.optimisation.algorithms.star import star_of
from controllers.optimisation.problems.dispatch import Dispatch


def build(
    problem: Dispatch,
    *,
    step: Literal["curvature", "preconditioned"] = "curvature",
    waiting: Waiting | None = None,
    tolerance: float = 1e-6,
    hosted: tuple[str, ...] | None = None,
) -> RowController:
    """Return the members of a dispatch and their coordinator."""
    problem.refuse_flat("dual-nesterov")
    m, alpha = len(problem.right), dual.step_sizes(problem, step, momentum=True)
    return star_of(
        problem, lambda at: dual.Members(problem, at), lambda: Coordinator(problem, alpha),
        (m, m), waiting, tolerance, hosted,
    )  # fmt: skip


class Coordinator(dual.Coordinator):
    """Keeps the price and the extrapolated one that it asks at."""

    def __init__(self, problem: Dispatch, step: FloatArray) -> None:
        super().__init__(problem, step)
        self._a = 1.0
        self._asked = self.price

    def compute(self, rows: IntArray, heard: Heard) -> FloatArray:
        """Move the price along the imbalance, with momentum."""
        price = self.moved(self._asked, heard.total() - self._right, self._step)
        push, move = (price - self._asked) / self._step, price - self.price
        if float((push * move).sum()) < 0.0:
            self._a = 1.0
        a = (1.0 + np.sqrt(1.0 + 4.0 * self._a**2)) / 2.0
        self._asked = price + (self._a - 1.0) / a * move
        self._a, self.price = a, price
        return self._asked
