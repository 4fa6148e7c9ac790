"""Sharing ADMM with Nesterov's momentum and restart (fast ADMM).

The next round starts from ::

    s = r_0 + (a_k - 1) / a_{k+1} (r_0 - r_1),   a_{k+1} = (1 + sqrt(1 + 4 a_k^2)) / 2

as long as the combined residual |T(s) - s|^2 falls by the factor eta = 0.999 a round; else from the
result before (r_1) with a = 1 (T. Goldstein, B. O'Donoghue, S. Setzer and R. Baraniuk, "Fast
alternating direction optimization methods", 2014, algorithm 8; the survey's accelerated ADMM with
a guard). r_0 and r_1 are results of sharing ADMM, see `controllers.optimisation.algorithms.
combining`; for equations their combination is that of the paper's two accelerated variables.
"""

from __future__ import annotations

import numpy as np

from controllers.core.agent_rows import RowController
from controllers.core.mail import FloatArray
from controllers.core.waiting import Waiting
from controllers.optimisation.algorithms import combining
from controllers.optimisation.algorithms.admm import Penalty, penalties
from controllers.optimisation.algorithms.combining import refuse_asynchronous
from controllers.optimisation.problems.dispatch import Dispatch

_ETA = 0.999


def build(
    problem: Dispatch,
    *,
    penalty: Penalty = "common",
    penalty_factor: float = 1.0,
    waiting: Waiting | None = None,
    tolerance: float = 1e-6,
    hosted: tuple[str, ...] | None = None,
) -> RowController:
    """Return the members of a dispatch and their coordinator; options as those of `admm.build`."""
    refuse_asynchronous(waiting, "admm-nesterov")
    rho = penalties(problem, penalty, penalty_factor)
    return combining.build(
        problem, lambda: Coordinator(problem, rho, 1), rho, (1, 1), waiting, tolerance, hosted
    )


class Coordinator(combining.Coordinator):
    """Adds momentum, and takes it away where the residual rises."""

    _a = 1.0
    _before = np.inf

    def weights(self, products: FloatArray) -> FloatArray:
        """Return -beta, or 1: back to the result before."""
        residual = float(products[0])
        if residual > _ETA * self._before:
            self._a, self._before = 1.0, self._before / _ETA
            return np.ones(1)
        a = (1.0 + np.sqrt(1.0 + 4.0 * self._a**2)) / 2.0
        beta = (self._a - 1.0) / a
        self._a, self._before = a, residual
        return np.array([-beta])
