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
"""

from __future__ import annotations

import numpy as np

from controllers.core.agent_rows import Heard, RowController
from controllers.core.mail import FloatArray, IntArray
from controllers.core.waiting import Waiting
from controllers.optimisation.algorithms.peers import Peers, checked, team_of
from controllers.optimisation.problems.common_variable import (
    CommonVariable,
    Solvable,
    common_variable,
)


def build(
    problem: Solvable,
    *,
    damping: float | None = None,
    waiting: Waiting | None = None,
    tolerance: float = 1e-6,
    hosted: tuple[str, ...] | None = None,
) -> RowController:
    """Return the peers of a consensus or a dispatch; `damping`: 0 to 1."""
    common = common_variable(problem, "ratio-consensus")
    default = 1.0 if common.fixed else 0.5
    part = checked(default if damping is None else damping, "damping", "ratio-consensus", 1.0)
    return team_of(
        common, common.width + 1, lambda at: RatioRows(common, at, part),
        waiting, tolerance, hosted,
    )  # fmt: skip


class RatioRows(Peers):
    """Agents of ratio consensus.

    Attributes
    ----------
    mass : (rows, m + 1). What each holds: of s, then of h.
    sent, heard : (rows or links, m + 1). Running sums of what went out to each neighbour and of
        what came in.
    """

    def __init__(self, common: CommonVariable, at: IntArray, damping: float) -> None:
        super().__init__(common, at)
        self._damping, self._fixed = damping, common.fixed
        self._curvature = common.curvature[at, None]
        self._total_curvature = float(common.curvature.sum())
        self._share = 1.0 / (1.0 + common.graph.degree[at, None])
        everyone = np.arange(len(at))
        self._signal = self._signal_at(self.z, everyone)
        self.mass = np.hstack([self._signal, self._curvature])
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
        mass = self._share[rows] * self.mass[rows] + heard.total(came)
        z = self.z[rows]
        quotient = np.divide(mass[:, :-1], mass[:, -1:], out=z.copy(), where=mass[:, -1:] > 0.0)
        self._judge_quotient(rows, heard, came, quotient)
        new = z + self._part(mass, rows) * (quotient - z)
        signal = self._signal_at(new, rows)
        mass[:, :-1] += signal - self._signal[rows]
        self.z[rows], self.mass[rows], self._signal[rows] = new, mass, signal
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
