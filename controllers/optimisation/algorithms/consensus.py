"""Average consensus by repeated mixing with the neighbours, x <- W x.

Constant optimal or Metropolis weights, or a two-step momentum (tutorial on distributed optimisation
in networked energy systems, "The art of reaching a consensus").

With momentum ``x_{k+1} = omega_{k+1} W x_k + (1 - omega_{k+1}) x_{k-1}``, where rho is the rate of
W, omega_1 = 1, ``omega_2 = 2 / (2 - rho^2)`` and ``omega_{k+1} = 1 / (1 - rho^2 omega_k / 4)``: the
Chebyshev semi-iteration. After k rounds the error is at most ``1 / cosh(k arcosh(1 / rho))`` of the
first (Golub and Varga, Numerische Mathematik 1961; omega tends to that of second-order diffusion,
Muthukrishnan, Ghosh and Schultz, 1998).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from controllers.core.agent_rows import AgentRows, Heard, Kind, RowController, Team
from controllers.core.graph import Weights
from controllers.core.mail import FloatArray, IntArray
from controllers.core.waiting import Waiting
from controllers.optimisation.algorithms.peers import refuse_asynchronous
from controllers.optimisation.problems.consensus import Consensus


def build(
    problem: Consensus,
    *,
    weights: Weights = "optimal",
    momentum: bool = False,
    waiting: Waiting | None = None,
    tolerance: float = 1e-6,
    hosted: tuple[str, ...] | None = None,
) -> RowController:
    """Return agents that mix their numbers with their neighbours'."""
    refuse_asynchronous(waiting, "consensus")
    kind = Kind(problem.size, 1, lambda at: Mixers(problem, at, weights, momentum=momentum))
    team = Team.peers(problem.names, problem.graph, kind)
    return RowController(team, hosted, waiting=waiting, tolerance=tolerance)


class Mixers(AgentRows):
    """Agents that move to a weighted mean of their own number and the neighbours'."""

    def __init__(
        self, problem: Consensus, at: IntArray, weights: Weights, *, momentum: bool
    ) -> None:
        arc, own = problem.graph.mixing(weights)
        self._arc = arc[np.isin(problem.graph.arcs[1], at)]
        self._own = own[at]
        self._square = problem.graph.rate(weights) ** 2 if momentum else 0.0
        self._omega = np.zeros(len(at))  # of the round before; 0: there was none
        # Nobody is further from the mean than the diameter times the largest difference of
        # neighbours.
        self._scale = problem.graph.diameter / (float(np.ptp(problem.own)) or 1.0)
        self.x = problem.own[at].astype(float)
        self._before = self.x.copy()
        self.residual = np.ones(len(at))

    def first(self) -> FloatArray:
        """Tell the own number."""
        return self.x[:, None]

    def compute(self, rows: IntArray, heard: Heard) -> FloatArray:
        """Mix; the residual bounds the distance from the mean, relative to the start's spread."""
        x = self.x[rows]
        arc = self._arc[heard.link, None]
        mixed = self._own[rows] * x + heard.total(arc * heard.values)[:, 0]
        apart = np.abs(heard.values[:, 0] - x[heard.row])
        self.residual[rows] = 0.0
        np.maximum.at(self.residual, rows[heard.row], apart * self._scale)
        omega = 1.0 / (1.0 - 0.25 * self._square * self._omega[rows])
        self._omega[rows] = np.where(self._omega[rows] == 0.0, 2.0, omega)
        new = omega * mixed + (1.0 - omega) * self._before[rows]
        self.x[rows], self._before[rows] = new, x
        return self.x[rows, None]

    def answer(self) -> Mapping[str, FloatArray]:
        """Return x (rows,)."""
        return {"x": self.x}
