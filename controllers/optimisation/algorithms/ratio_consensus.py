"""Ratio consensus by running sums: the optimum as the quotient of two averages.

With parabolas of curvature h_i the optimum is ``sum(s_i) / sum(h_i)``, ``s_i = h_i z - g_i(z)``,
for any z. Every agent spreads two masses, s and h, in equal parts over itself and its neighbours;
the quotient of what it holds tends to that of the sums on any graph::

    mass_i <- mass_i / (1 + d_i) + sum_j mass_j / (1 + d_j)

(Dominguez-Garcia, Cady and Hadjicostis, "Decentralized optimal dispatch of distributed energy
resources", CDC 2012). A message holds the running sum of all that was sent to a neighbour, and its
receiver takes the difference from what it knew, so that a lost or late message loses no mass
(Hadjicostis, Vaidya and Dominguez-Garcia, "Robust distributed average consensus via exchange of
running sums", IEEE Trans. Automatic Control 2016).

Where limits bend the f_i, s_i depends on z. Agents then move by a part of the way to their quotient
and add the change of s_i to their mass (Newton-Raphson consensus of Varagnolo et al., IEEE Trans.
Automatic Control 2016, with a bound of the curvature for h). The part is ``damping min(1, mass_h /
h_i)``: an agent that holds little mass would amplify its own changes. Default: 1/2, and 1
for parabolas.

With momentum a round mixes by ``(1 + beta) P mass - beta mass before``, P the matrix above, and s
takes in ``change - beta change before``, as in gradient tracking; every message is needed. beta is
``((1 - sqrt(1 - rho^2)) / rho)^2`` for the second largest eigenvalue rho of P. Default damping: at
most ``2 (1 - sqrt(beta))``, the pace of the mixing.
"""

from __future__ import annotations

import numpy as np

from controllers.core.agent_rows import Heard, RowController
from controllers.core.graph import Graph
from controllers.core.mail import FloatArray, IntArray
from controllers.core.waiting import Waiting
from controllers.optimisation.algorithms.peers import (
    Peers,
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
    damping: float | None = None,
    momentum: bool = False,
    waiting: Waiting | None = None,
    tolerance: float = 1e-6,
    hosted: tuple[str, ...] | None = None,
) -> RowController:
    """Return the peers of a consensus or a dispatch; `damping`: 0 to 1."""
    if momentum:
        refuse_asynchronous(waiting, "ratio-consensus-momentum")
    common = common_variable(problem, "ratio-consensus")
    beta = second_order(_rate(common.graph)) if momentum else 0.0
    if damping is None:
        damping = 1.0 if common.fixed else min(0.5, 2.0 * (1.0 - float(np.sqrt(beta))))
    part = checked(damping, "damping", "ratio-consensus", 1.0)
    return team_of(
        common, common.width + 1, lambda at: RatioRows(common, at, part, beta),
        waiting, tolerance, hosted,
    )  # fmt: skip


def _rate(graph: Graph) -> float:
    """Return the size of the second largest eigenvalue of P, which has the columns 1 / (1 + d_j).

    P is similar to the symmetric matrix of 1 / sqrt((1 + d_i) (1 + d_j)).
    """
    root = 1.0 / np.sqrt(1.0 + graph.degree)
    matrix = np.diag(root**2)
    source, target = graph.arcs
    matrix[target, source] = root[target] * root[source]
    return float(np.abs(np.linalg.eigvalsh(matrix)[:-1]).max())


class RatioRows(Peers):
    """Agents of ratio consensus.

    Attributes
    ----------
    mass : (rows, m + 1). What each holds: of s, then of h.
    sent, heard : (rows or links, m + 1). Running sums of what went out to each neighbour and of
        what came in.
    """

    def __init__(self, common: CommonVariable, at: IntArray, damping: float, beta: float) -> None:
        super().__init__(common, at)
        self._damping, self._beta, self._fixed = damping, beta, common.fixed
        self._curvature = common.curvature[at, None]
        self._total_curvature = float(common.curvature.sum())
        self._share = (1.0 + beta) / (1.0 + common.graph.degree[at, None])
        everyone = np.arange(len(at))
        self._signal = self._signal_at(self.z, everyone)
        self.mass = np.hstack([self._signal, self._curvature])
        self._before = self.mass.copy()
        self._change = np.zeros(self.z.shape)
        self.sent = self._share * self.mass
        self.heard = np.zeros((int(self.links.sum()), self.mass.shape[1]))
        self._ratio = np.zeros((len(self.heard), self.z.shape[1]))

    def first(self) -> FloatArray:
        """Send the first parts."""
        return self.sent

    def compute(self, rows: IntArray, heard: Heard) -> FloatArray:
        """Take in, move towards the quotient, send parts."""
        came = heard.values - self.heard[heard.link]
        self.heard[heard.link] = heard.values
        beta, now = self._beta, self.mass[rows]
        mass = self._share[rows] * now + heard.total(came) - beta * self._before[rows]
        z = self.z[rows]
        quotient = np.divide(mass[:, :-1], mass[:, -1:], out=z.copy(), where=mass[:, -1:] > 0.0)
        self._judge_quotient(rows, heard, came, quotient)
        new = z + self._part(mass, rows) * (quotient - z)
        signal = self._signal_at(new, rows)
        change = signal - self._signal[rows]
        mass[:, :-1] += change - beta * self._change[rows]
        self.z[rows], self._signal[rows], self._change[rows] = new, signal, change
        self.mass[rows], self._before[rows] = mass, now
        self.sent[rows] += self._share[rows] * mass
        return self.sent[rows]

    def _judge_quotient(
        self, rows: IntArray, heard: Heard, came: FloatArray, quotient: FloatArray
    ) -> None:
        """Judge by the quotients of the neighbours, which are those of what came from them."""
        new = came[:, -1] > 0.0
        self._ratio[heard.link[new]] = came[new, :-1] / came[new, -1:]
        apart = self._ratio[heard.link] - quotient[heard.row]
        self.judge(rows, heard, apart, self._total_curvature * (quotient - self.z[rows]))

    def _part(self, mass: FloatArray, rows: IntArray) -> FloatArray:
        if self._fixed:
            return np.ones((len(rows), 1))
        return self._damping * mass[:, -1:] / np.maximum(mass[:, -1:], self._curvature[rows])

    def _signal_at(self, z: FloatArray, rows: IntArray) -> FloatArray:
        return self._curvature[rows] * z - self.costs.gradient(z, rows)
