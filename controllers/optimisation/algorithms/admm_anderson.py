"""Sharing ADMM with Anderson acceleration over the last five rounds, safeguarded.

With the moves g_j = T(s_j) - s_j of the last rounds the next round starts from ::

    s = r_0 + sum_j c_j (r_j - r_0),   c = argmin |g_0 + sum_j c_j (g_j - g_0)|^2

(D. Anderson, "Iterative procedures for nonlinear integral equations", 1965; applied to ADMM and
guarded by its combined residual: J. Zhang, Y. Peng, W. Ouyang and B. Deng, "Accelerating ADMM for
efficient simulation and optimization", 2019). Where the combined residual |g_0|^2 has risen the
round is refused: the next one starts from the result before it, and what was kept is forgotten.
The least squares are solved by the coordinator from the inner products, regularised by 1e-10 of
the sum of all |g_j|^2: where limits hold all members a round only moves the price, g does not
change, and differences of rounding errors would else make c arbitrary.
"""

from __future__ import annotations

import numpy as np

from controllers.core.agent_rows import RowController
from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray
from controllers.core.waiting import Waiting
from controllers.optimisation.algorithms import combining
from controllers.optimisation.algorithms.admm import Penalty, penalties
from controllers.optimisation.algorithms.combining import refuse_asynchronous
from controllers.optimisation.problems.dispatch import Dispatch

_REGULARISATION = 1e-10


def build(
    problem: Dispatch,
    *,
    memory: int = 5,
    penalty: Penalty = "common",
    penalty_factor: float = 1.0,
    waiting: Waiting | None = None,
    tolerance: float = 1e-6,
    hosted: tuple[str, ...] | None = None,
) -> RowController:
    """Return the members of a dispatch and their coordinator.

    memory : Number of earlier rounds that are combined. Others: see `admm.build`.
    """
    refuse_asynchronous(waiting, "admm-anderson")
    if memory < 1:
        raise ControllerError(
            f"memory is {memory}", where="algorithm 'admm-anderson'", expected="at least 1"
        )
    rho = penalties(problem, penalty, penalty_factor)
    return combining.build(
        problem, lambda: Coordinator(problem, rho, memory), rho, (memory, memory + 1),
        waiting, tolerance, hosted,
    )  # fmt: skip


class Coordinator(combining.Coordinator):
    """Combines earlier rounds so that their moves cancel as far as possible."""

    def __init__(self, problem: Dispatch, rho: FloatArray, memory: int) -> None:
        super().__init__(problem, rho, memory)
        self._gram = np.zeros((memory + 1, memory + 1))
        self._known = 0
        self._least = np.inf

    def weights(self, products: FloatArray) -> FloatArray:
        """Return c; 1 for the result before where the residual has risen."""
        self._gram[1:, 1:] = self._gram[:-1, :-1].copy()
        self._gram[0] = self._gram[:, 0] = products
        weight = np.zeros(self._memory)
        if products[0] > self._least:
            self._known, self._least = 0, np.inf
            weight[0] = 1.0
            return weight
        self._least = float(products[0])
        k = self._known
        self._known = min(k + 1, self._memory)
        if k and self._least > 0.0:
            gram = self._gram[: k + 1, : k + 1]
            toward = gram[1:, 0] - gram[0, 0]
            square = gram[1:, 1:] - gram[1:, :1] - gram[:1, 1:] + gram[0, 0]
            square = square + _REGULARISATION * np.trace(gram) * np.eye(k)
            weight[:k] = np.linalg.lstsq(square, -toward, rcond=None)[0]
        return weight
