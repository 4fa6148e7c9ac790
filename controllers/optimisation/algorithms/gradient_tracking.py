"""Gradient tracking: every agent keeps an estimate y_i of the mean gradient and descends along it.

::

    x_i <- sum_j W_ij x_j - alpha y_i
    y_i <- sum_j W_ij y_j + grad f_i(x_i new) - grad f_i(x_i old),      y_i^0 = grad f_i(x_i^0)

(DIGing: Nedic, Olshevsky and Shi, "Achieving geometric convergence for distributed optimization
over time-varying graphs", SIAM J. Optimization 2017.) W keeps sums, so that the sum of y is that of
the gradients at all times. Without `momentum` the rate is 1 - (1 - w) / 2 at best, w the second
largest eigenvalue of W: slow where mixing is slow.

With momentum beta both mix by ``(1 + beta) W now - beta before``, and y takes in ``change - beta
change before`` of the gradient, which keeps its sum (the loopless Chebyshev acceleration of Song,
Shi, Pu and Yan, "Optimal gradient tracking for decentralized optimization", Mathematical
Programming 2023). beta = ((1 - sqrt(1 - rho^2)) / rho)^2 for the rate rho of W.

Default step: ``alpha = (1 - beta) (1 - sqrt(beta)) / (2 mu)``, mu the mean curvature; without
momentum ``(1 - w) / (2 mu)``, where two modes are equally fast. From ``(1 + beta) (1 + w)^2 / 2``
over the curvature, w the smallest, a mode alternates without decay: at most half of that.
"""

from __future__ import annotations

import numpy as np

from controllers.core.agent_rows import Heard, RowController
from controllers.core.graph import Weights
from controllers.core.mail import FloatArray, IntArray
from controllers.core.waiting import Waiting
from controllers.optimisation.algorithms.peers import (
    MixingPeers,
    checked,
    refuse_asynchronous,
    second_order,
    team_of,
)
from controllers.optimisation.problems.common_variable import (
    CommonVariable,
    Solvable,
    common_variable,
)


def build(
    problem: Solvable,
    *,
    step: float | None = None,
    momentum: bool = True,
    weights: Weights = "metropolis",
    waiting: Waiting | None = None,
    tolerance: float = 1e-6,
    hosted: tuple[str, ...] | None = None,
) -> RowController:
    """Return the peers of a consensus or a dispatch; `step`: alpha."""
    refuse_asynchronous(waiting, "gradient-tracking")
    common = common_variable(problem, "gradient-tracking")
    beta = second_order(common.graph.rate(weights)) if momentum else 0.0
    if step is None:
        alpha = _default_step(common, weights, beta, momentum=momentum)
    else:
        alpha = checked(step, "step", "gradient-tracking")
    return team_of(
        common, 2 * common.width, lambda at: TrackingRows(common, at, weights, alpha, beta),
        waiting, tolerance, hosted,
    )  # fmt: skip


def _default_step(
    common: CommonVariable, weights: Weights, beta: float, *, momentum: bool
) -> float:
    values = common.graph.mixing_values(weights)
    part = (1.0 - beta) * (1.0 - np.sqrt(beta)) if momentum else 1.0 - values[-2]
    most = 0.25 * (1.0 + beta) * (1.0 + values[0]) ** 2
    return float(min(0.5 * part / common.mean_curvature, most / common.curvature.max()))


class TrackingRows(MixingPeers):
    """Agents of gradient tracking; a message holds x and y.

    Attributes
    ----------
    y : (rows, m). Estimates of the mean gradient.
    """

    def __init__(
        self, common: CommonVariable, at: IntArray, weights: Weights, step: float, beta: float
    ) -> None:
        super().__init__(common, at, weights)
        self._step, self._beta, self._agents = step, beta, len(common.names)
        self._gradient = self.costs.gradient(self.z, np.arange(len(at)))
        self._change = np.zeros(self.z.shape)
        self.y = self._gradient.copy()
        self._before = np.hstack([self.z, self.y])

    def first(self) -> FloatArray:
        """Tell the start and the own gradient."""
        return self._before

    def compute(self, rows: IntArray, heard: Heard) -> FloatArray:
        """Descend along the tracked gradient, then track."""
        z, y, m, beta = self.z[rows], self.y[rows], self.z.shape[1], self._beta
        now = np.hstack([z, y])
        mixed = (1.0 + beta) * self.mix(rows, heard, now) - beta * self._before[rows]
        new = mixed[:, :m] - self._step * y
        gradient = self.costs.gradient(new, rows)
        change = gradient - self._gradient[rows]
        tracked = mixed[:, m:] + (change - beta * self._change[rows])
        self.judge(rows, heard, heard.values[:, :m] - z[heard.row], self._agents * y)
        self.z[rows], self.y[rows], self._before[rows] = new, tracked, now
        self._gradient[rows], self._change[rows] = gradient, change
        return np.hstack([new, tracked])
