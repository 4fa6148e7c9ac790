"""Distributed gradient descent: mix with the neighbours, step along the own gradient.

::

    x_i <- sum_j W_ij x_j - alpha_k grad f_i(x_i)

(Nedic and Ozdaglar, "Distributed subgradient methods for multi-agent optimization", IEEE Trans.
Automatic Control 2009; tutorial, "The art of reaching a consensus".) With a constant step the
agents come to rest apart from each other, at a distance in proportion to the step: pulled by its
own gradient, none stays at the mean. ``decay`` p > 0 lets the step fall as alpha / (k + 1)^p, which
has no such bias in the end and no linear rate.
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
    primal_dual_step,
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
    decay: float = 0.0,
    weights: Weights = "metropolis",
    waiting: Waiting | None = None,
    tolerance: float = 1e-6,
    hosted: tuple[str, ...] | None = None,
) -> RowController:
    """Return the peers of a consensus or a dispatch; `step`: alpha, default that of EXTRA."""
    common = common_variable(problem, "dgd")
    alpha = primal_dual_step(common, weights) if step is None else checked(step, "step", "dgd")
    if decay:
        checked(decay, "decay", "dgd", 1.0)
    return team_of(
        common, common.width, lambda at: DescentRows(common, at, weights, alpha, decay),
        waiting, tolerance, hosted,
    )  # fmt: skip


class DescentRows(MixingPeers):
    """Agents of distributed gradient descent."""

    def __init__(
        self, common: CommonVariable, at: IntArray, weights: Weights, step: float, decay: float
    ) -> None:
        super().__init__(common, at, weights)
        self._agents = len(common.names)
        self._step, self._decay = step, decay
        self._k = np.zeros(len(at))

    def first(self) -> FloatArray:
        """Tell the start."""
        return self.z

    def compute(self, rows: IntArray, heard: Heard) -> FloatArray:
        """Mix and descend."""
        z = self.z[rows]
        alpha = (self._step / (self._k[rows] + 1.0) ** self._decay)[:, None]
        new = self.mix(rows, heard, z) - alpha * self.costs.gradient(z, rows)
        # W keeps the sum of z, so that the sum moves by -alpha times the sum of the gradients.
        self.judge(rows, heard, heard.values - z[heard.row], self._agents * (z - new) / alpha)
        self._k[rows] += 1.0
        self.z[rows] = new
        return new
