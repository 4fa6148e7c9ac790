"""Consensus ADMM of peers: an agreement on each edge, no coordinator.

Agent i holds one number z_ij for each neighbour (m numbers each)::

    x_i  = argmin f_i(x) + sum_j rho / 2 |x - z_ij / rho|^2
    q_ij = 2 rho x_i - z_ij                             to neighbour j
    z_ij <- (1 - relaxation) z_ij + relaxation q_ji

With relaxation 1/2 the x are those of ADMM on ``x_i = y_e = x_j`` for each edge e: for a dispatch
by its price, the dual consensus ADMM of the survey's equation 3 (Chang, Hong and Wang, "Multi-agent
distributed optimization via inexact consensus ADMM", IEEE Trans. Signal Processing 2015) with half
of this rho. Larger relaxation is over-relaxed ADMM, 1 is Peaceman-Rachford splitting.

A message is taken in once, only its receiver's z changes, and a fixed point stays one in whatever
order messages come: it bears loss, delay and peers that do not wait (Bastianello, Carli, Schenato
and Todescato, "Asynchronous distributed optimization over lossy networks via relaxed ADMM", IEEE
Trans. Automatic Control 2021; bounded delay: Peng, Xu, Yan and Yin, "ARock", SIAM J. Scientific
Computing 2016).

Default penalty: with equal curvature mu and degree d the modes of a Laplacian eigenvalue lambda are
``(1 + c) r^2 - (2 + c - 2 l) r + 1 - l``, ``l = lambda / (2 d)``, ``c = mu / (rho d)``; the
slowest, of the smallest lambda > 0, is fastest at ``c = 2 sqrt(l (1 - l))``. mu and d are means.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

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
    penalty: float | None = None,
    relaxation: float = 0.5,
    waiting: Waiting | None = None,
    tolerance: float = 1e-6,
    hosted: tuple[str, ...] | None = None,
) -> RowController:
    """Return the peers of a consensus or a dispatch; `penalty`: rho, `relaxation`: 0 to 1."""
    name = "admm-consensus"
    common = common_variable(problem, name, flat=True)
    rho = default_penalty(common) if penalty is None else checked(penalty, "penalty", name)
    relaxation = checked(relaxation, "relaxation", name, 1.0)
    return team_of(
        common, common.width, lambda at: EdgeRows(common, at, rho, relaxation),
        waiting, tolerance, hosted,
    )  # fmt: skip


def default_penalty(common: CommonVariable) -> float:
    """Return rho; see the module's docstring."""
    degree = float(common.graph.degree.mean())
    part = min(0.5, float(common.graph.spectrum[1]) / (2.0 * degree))
    return float(common.mean_curvature / (2.0 * degree * np.sqrt(part * (1.0 - part))))


class EdgeRows(Peers):
    """Agents of consensus ADMM; each neighbour has its own message.

    Attributes
    ----------
    edge : (links, m). z_ij.
    x : (rows,). Part of the answer.
    """

    by_link: ClassVar[bool] = True

    def __init__(
        self, common: CommonVariable, at: IntArray, penalty: float, relaxation: float
    ) -> None:
        super().__init__(common, at)
        self._penalty, self._relaxation = penalty, relaxation
        self._agents = len(common.names)
        self._weight: FloatArray = penalty * common.graph.degree[at].astype(float)
        self._row: IntArray = np.searchsorted(at, common.graph.arcs[1][self.links])
        self.edge = penalty * self.z[self._row]
        self._change = np.full(self.edge.shape, np.inf)
        self.x = np.zeros(len(at))

    def first(self) -> FloatArray:
        """Minimise near the start."""
        return self._minimise(np.arange(len(self.z)), self._row, self.edge, self.z)

    def compute(self, rows: IntArray, heard: Heard) -> FloatArray:
        """Take in what is new, minimise, answer each neighbour."""
        new = heard.link[heard.fresh]
        self._change[new] = heard.values[heard.fresh] - self.edge[new]
        self.edge[new] += self._relaxation * self._change[new]
        change, edge = self._change[heard.link], self.edge[heard.link]
        # On an edge both ends' q_ji - z_ij differ by 2 rho (x_j - x_i), and half of their sum is
        # its part in the sum of the gradients.
        self.judge(rows, heard, change / self._penalty, 0.5 * self._agents * heard.total(change))
        target = heard.total(edge) / self._weight[rows, None]
        return self._minimise(rows, heard.row, edge, target)

    def _minimise(
        self, rows: IntArray, row: IntArray, edge: FloatArray, target: FloatArray
    ) -> FloatArray:
        z, self.x[rows] = self.costs.proximal(target, self._weight[rows], rows)
        self.z[rows] = z
        return 2.0 * self._penalty * z[row] - edge

    def answer(self) -> Mapping[str, FloatArray]:
        """Return x (rows,) and, of a dispatch, price (rows, m)."""
        return self.costs.answer(self.z, self.x)
