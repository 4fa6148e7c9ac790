"""Limits of a network: voltages, line currents and the import, as quadratic rows of the currents.

A node's voltage and a line's current are affine in the port currents i, ``y = y0 + Y i``, so each
limit is one of ``|y|^2 <= high^2``, ``-|y|^2 <= -low^2``, and for the import
``import_min <= P <= import_max``.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from controllers.core.mail import FloatArray, IntArray
from controllers.market.model.problem import PortProblem
from controllers.market.three_phase.dispatch import ComplexArray
from grid_models.current_injection.model import PortNetwork
from grid_models.current_injection.power_flow import PortFlow


@dataclass(frozen=True)
class LimitValues:
    """What limits apply to, at one state.

    Attributes
    ----------
    excess : ndarray of float (k,)
        Squared per unit (the import's: per unit) above each limit, negative where it is kept: n
        upper and n lower limits of voltages, r of lines, upper and lower one of the import.
    y : ndarray of complex (n + r,). Voltages and line currents.
    """

    excess: FloatArray
    y: ComplexArray


class Limits:
    """The limits of one network; the nodes of the source bus have none."""

    def __init__(self, network: PortNetwork) -> None:
        self.network = network
        self._y0 = np.concatenate([network.w, network.line_w])
        self._rows = np.vstack([network.z, network.line_z])
        self._held = network.w != 0.0
        self._held[network.source_nodes] = False

    def values(self, problem: PortProblem, flow: PortFlow) -> LimitValues:
        """Return the limits' excess at a power flow."""
        net, n = self.network, len(self.network.nodes)
        y = np.concatenate([flow.v, net.line_w + net.line_z @ flow.i])
        size, p = np.abs(y) ** 2, flow.s_import.real
        none = np.where(self._held, 0.0, -np.inf)
        excess = np.concatenate(
            [
                size[:n] - problem.v_max_pu**2 + none,
                problem.v_min_pu**2 - size[:n] + none,
                size[n:] - np.asarray(net.line_limit) ** 2,
                [p - problem.import_max, problem.import_min - p],
            ]
        )
        return LimitValues(excess, y)

    def predicted(self, at: LimitValues, change: ComplexArray, p_change: float) -> FloatArray:
        """Return the excess after a change of the currents, (m,), to first order."""
        n = len(self.network.nodes)
        more = 2.0 * (np.conj(at.y) * (self._rows @ change)).real
        return np.asarray(
            at.excess + np.concatenate([more[:n], -more[:n], more[n:], [p_change, -p_change]])
        )

    def gradients(
        self, at: LimitValues, rows: IntArray, import_gradient: ComplexArray
    ) -> ComplexArray:
        """Return the gradients of some limits by the currents, (len(rows), m)."""
        n, last = len(self.network.nodes), len(at.excess) - 2
        own = rows < last
        of_y = np.where(rows < n, rows, rows - n)[own]
        sign = np.where((rows >= n) & (rows < 2 * n), -2.0, 2.0)[own]
        out = np.empty((len(rows), self._rows.shape[1]), dtype=np.complex128)
        out[own] = (sign * at.y[of_y])[:, None] * np.conj(self._rows[of_y])
        out[rows == last] = import_gradient
        out[rows == last + 1] = -import_gradient
        return out

    def form(self, mu: FloatArray) -> ComplexArray:
        """Return M of ``Re(i^H M i)`` of the voltage and current limits times `mu` (k,), (m, m)."""
        weight = self._per_y(mu)
        used = np.flatnonzero(weight)
        rows = self._rows[used]
        return np.asarray((np.conj(rows).T * weight[used]) @ rows)

    def pull(self, at: LimitValues, mu: FloatArray) -> tuple[ComplexArray, ComplexArray]:
        """Return the gradients of the voltage and of the current limits times `mu`, (m,) each."""
        n = len(self.network.nodes)
        y = 2.0 * self._per_y(mu) * at.y
        rows = np.conj(self._rows)
        return np.asarray(y[:n] @ rows[:n]), np.asarray(y[n:] @ rows[n:])

    def _per_y(self, mu: FloatArray) -> FloatArray:
        n = len(self.network.nodes)
        return np.concatenate([mu[:n] - mu[n : 2 * n], mu[2 * n : -2]])

    def name(self, row: int) -> str:
        """Return a limit in words."""
        net, n = self.network, len(self.network.nodes)
        if row < 2 * n:
            end = "upper" if row < n else "lower"
            return f"the {end} voltage limit at node '{net.nodes[row % n]}'"
        if row < 2 * n + len(net.line_limit):
            return f"the current limit of line '{net.lines[row - 2 * n]}'"
        end = "lower" if row > 2 * n + len(net.line_limit) else "upper"
        return f"the {end} limit of the import"

    def worst_of_kinds(self, excess: FloatArray, least: float) -> IntArray:
        """Return the worst limit of each kind among those above `least`.

        Not all that are broken: of nodes side by side one is enough, and rows that say the same
        would make the quadratic program singular.
        """
        n, r = len(self.network.nodes), len(self.network.line_limit)
        ends = np.cumsum([0, n, n, r, 2])
        worst = [a + int(np.argmax(excess[a:b])) for a, b in pairwise(ends.tolist()) if b > a]
        return np.array([k for k in worst if excess[k] > least], dtype=np.intp)
