"""EXTRA: gradient descent with neighbours, corrected by the round before, exact at a constant step.

::

    x^1     = W x^0 - alpha g(x^0)
    x^(k+1) = x^k + W x^k - (x^(k-1) + W x^(k-1)) / 2 - alpha (g(x^k) - g(x^(k-1)))

(Shi, Ling, Wu and Yin, "EXTRA: an exact first-order algorithm for decentralized consensus
optimization", SIAM J. Optimization 2015.) With ``h^k = (x^k + W x^k) / 2`` it needs one number of
memory: ``x^(k+1) = 2 h^k - alpha g^k - c^k``, ``c^(k+1) = h^k - alpha g^k``, ``c^0 = x^0``.
"""

from __future__ import annotations

from controllers.core.agent_rows import Heard, RowController
from controllers.core.graph import Weights
from controllers.core.mail import FloatArray, IntArray
from controllers.core.waiting import Waiting
from controllers.optimisation.algorithms.peers import (
    MixingPeers,
    checked,
    primal_dual_step,
    refuse_asynchronous,
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
    weights: Weights = "metropolis",
    waiting: Waiting | None = None,
    tolerance: float = 1e-6,
    hosted: tuple[str, ...] | None = None,
) -> RowController:
    """Return the peers of a consensus or a dispatch; `step`: alpha."""
    refuse_asynchronous(waiting, "extra")
    common = common_variable(problem, "extra")
    alpha = primal_dual_step(common, weights) if step is None else checked(step, "step", "extra")
    return team_of(
        common, common.width, lambda at: ExtraRows(common, at, weights, alpha),
        waiting, tolerance, hosted,
    )  # fmt: skip


class ExtraRows(MixingPeers):
    """Agents of EXTRA."""

    def __init__(self, common: CommonVariable, at: IntArray, weights: Weights, step: float) -> None:
        super().__init__(common, at, weights)
        self._step, self._agents = step, len(common.names)
        self._memory = self.z.copy()

    def first(self) -> FloatArray:
        """Tell the start."""
        return self.z

    def compute(self, rows: IntArray, heard: Heard) -> FloatArray:
        """Mix, descend and take away what the round before did."""
        z = self.z[rows]
        half = 0.5 * (z + self.mix(rows, heard, z))
        keep = half - self._step * self.costs.gradient(z, rows)
        new = half + keep - self._memory[rows]
        # The sum of z moves by -alpha times the sum of the gradients, as in gradient descent.
        self.judge(rows, heard, heard.values - z[heard.row], self._agents * (z - new) / self._step)
        self._memory[rows] = keep
        self.z[rows] = new
        return new
