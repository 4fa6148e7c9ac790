"""Gradient tracking: every agent keeps an estimate y_i of the mean gradient and descends along it.

::

    x_i <- sum_j W_ij x_j - alpha y_i
    y_i <- sum_j W_ij y_j + grad f_i(x_i new) - grad f_i(x_i old),      y_i^0 = grad f_i(x_i^0)

(DIGing: Nedic, Olshevsky and Shi, "Achieving geometric convergence for distributed optimization
over time-varying graphs", SIAM J. Optimization 2017.) W keeps sums, so that the sum of y is that of
the gradients at all times. Default step: with equal curvature mu and second largest eigenvalue w of
W the best is ``alpha mu = (1 - w) / 2``, at the rate ``1 - (1 - w) / 2``; the smallest w and the
largest curvature allow half of ``(1 + w)^2 / 2``, from where on a mode alternates without decay.
"""

from __future__ import annotations

import numpy as np

from controllers.core.agent_rows import Heard, RowController
from controllers.core.graph import Weights
from controllers.core.mail import FloatArray, IntArray
from controllers.core.waiting import Waiting
from controllers.optimisation.algorithms.peers import MixingPeers, checked, team_of
from controllers.optimisation.problems.common_variable import (
    CommonVariable,
    Solvable,
    common_variable,
)


def build(
    problem: Solvable,
    *,
    step: float | None = None,
    weights: Weights = "metropolis",
    waiting: Waiting | None = None,
    tolerance: float = 1e-6,
    hosted: tuple[str, ...] | None = None,
) -> RowController:
    """Return the peers of a consensus or a dispatch; `step`: alpha."""
    common = common_variable(problem, "gradient-tracking")
    if step is None:
        alpha = _default_step(common, weights)
    else:
        alpha = checked(step, "step", "gradient-tracking")
    return team_of(
        common, 2 * common.width, lambda at: TrackingRows(common, at, weights, alpha),
        waiting, tolerance, hosted,
    )  # fmt: skip


def _default_step(common: CommonVariable, weights: Weights) -> float:
    values = common.graph.mixing_values(weights)
    best = 0.5 * (1.0 - values[-2]) / common.mean_curvature
    return float(min(best, 0.25 * (1.0 + values[0]) ** 2 / common.curvature.max()))


class TrackingRows(MixingPeers):
    """Agents of gradient tracking; a message holds x and y."""

    def __init__(self, common: CommonVariable, at: IntArray, weights: Weights, step: float) -> None:
        super().__init__(common, at, weights)
        self._step, self._agents = step, len(common.names)
        self._gradient = self.costs.gradient(self.z, np.arange(len(at)))
        self.y = self._gradient.copy()

    def first(self) -> FloatArray:
        """Tell the start and the own gradient."""
        return np.hstack([self.z, self.y])

    def compute(self, rows: IntArray, heard: Heard) -> FloatArray:
        """Descend along the tracked gradient, then track."""
        z, y, m = self.z[rows], self.y[rows], self.z.shape[1]
        mixed = self.mix(rows, heard, np.hstack([z, y]))
        new = mixed[:, :m] - self._step * y
        gradient = self.costs.gradient(new, rows)
        tracked = mixed[:, m:] + (gradient - self._gradient[rows])
        self.judge(rows, heard, heard.values[:, :m] - z[heard.row], self._agents * y)
        self.z[rows], self.y[rows], self._gradient[rows] = new, tracked, gradient
        return np.hstack([new, tracked])
