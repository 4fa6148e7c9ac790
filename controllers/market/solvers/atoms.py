"""The clearing problem cut into atoms, one per bus: their equations, boxes and cones as arrays.

Atom i owns the eight numbers of bus i and of the line from its parent, in the order of `KINDS`, and
four equality rows; the root's line is the import.

===========  =========================================================  ==================
row          equation                                                   with whom
===========  =========================================================  ==================
balance P    P_i - r_i l_i + P_G,i - P_L,i = sum over children of P_c   the children
balance Q    the same with Q, x_i l_i, and b_i v_i of the shunt         the children
voltage      v_i = w_i - 2 (r_i P_i + x_i Q_i) + (r_i^2 + x_i^2) l_i    itself
copy         w_i = v_parent                                             the parent
===========  =========================================================  ==================

What is left to an atom is a box and the cone ``P^2 + Q^2 <= w l`` (the relaxed branch-flow model:
M. Farivar and S. Low, "Branch Flow Model", IEEE Trans. Power Syst. 28(3), 2013), which has a closed
form when ``s_P^2 = s_Q^2 = s_w s_l / 2`` for the scales s of the variables. Rows are scaled to
2-norm 1.

In the notation of Patari et al. (eqs. 9-10) the voltage row is ``G_j a_j = b_j``; the others, which
reach into a neighbour, are the coordination rows ``B a = 0``. A copy of the child's flow in the
parent's atom, as there, would only enter linearly: it is left out, and with it two rows per line.

An `Atoms` holds some or all atoms of a network. What neighbours said enters as arrays: `below`, one
column per line to a child, and `above`, one column per atom. Every number of an atom is computed
from its own column by the same operations in the same order, so how atoms are divided over
instances changes no bit.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controllers.core.mail import FloatArray, IntArray
from controllers.market.model.checks import check_bids
from controllers.market.model.costs import tangent
from controllers.market.model.problem import Bids, ClearingProblem
from controllers.market.solvers.cone import project_limited_line, project_line
from grid_models.branch_flow.model import BranchNetwork

KINDS = ("p_gen", "q_gen", "p_load", "v_sq", "p_line", "q_line", "l_line", "w_sq")
P_GEN, Q_GEN, P_LOAD, V, P, Q, L, W = range(8)
BALANCE_P, BALANCE_Q, VOLTAGE, COPY = range(4)
N_KINDS, N_ROWS = 8, 4


@dataclass(frozen=True)
class Scales:
    """Sizes that count as one in the algorithm, per unit; `p` follows from the cone.

    The copies of the voltage (`w_sq`) move by hundredths, squared currents by tens.
    """

    w_sq: float = 1.0
    l_line: float = 20.0
    v_sq: float | None = None

    def vector(self, n: int) -> FloatArray:
        """Return one scale per kind and bus, shape (8, n)."""
        scale = np.ones((N_KINDS, n))
        scale[W], scale[L] = self.w_sq, self.l_line
        scale[P] = scale[Q] = np.sqrt(self.w_sq * self.l_line / 2.0)
        scale[V] = self.w_sq if self.v_sq is None else self.v_sq
        return scale


@dataclass
class Limits:
    """Box, cost ``curve/2 x^2 + slope x`` and line rating of m atoms, in scaled variables."""

    low: FloatArray
    high: FloatArray
    curve: FloatArray
    slope: FloatArray
    l_max: FloatArray
    root: Any
    rated: bool

    def proximal(self, point: FloatArray, step: float) -> FloatArray:
        """Return argmin of cost + ``|x - point|^2 / (2 step)`` over box and cone, shape (8, m).

        Equation (10a) with all equalities in the Lagrangian; `point` is the place reached by a
        step along their duals.
        """
        out = point - step * self.slope
        own = out[:P]
        own /= 1.0 + step * self.curve[:P]
        np.maximum(own, self.low[:P], out=own)
        np.minimum(own, self.high[:P], out=own)
        flows = out[P : Q + 1, self.root]
        line = out[P], out[Q], out[L], out[W]
        near = project_limited_line(*line, self.l_max) if self.rated else project_line(*line)
        out[P], out[Q], out[L], out[W] = near
        out[P : Q + 1, self.root] = flows
        out[L:, self.root] = 0.0
        return out


class Atoms:
    """Some or all atoms of a network with their present bids.

    Parameters
    ----------
    hosted : ndarray of int, optional. Rows of the network, ascending; all by default.
    import_price : float. Money per pu.
    v_sq_min, v_sq_max : ndarray, shape (n,). Of all buses.
    scales : Scales, optional

    Attributes
    ----------
    m : int. Number of atoms held.
    child, owner : ndarray of int, shape (e,)
        The lines to children of these atoms: row of the child, position of the atom.
    scale : ndarray, shape (8, m). ``x = scale * scaled x``.
    row_scale : (4, m); ``scaled row = row_scale * row``, so ``dual = row_scale * scaled dual``.
    limits : Limits
    """

    def __init__(
        self,
        network: BranchNetwork,
        hosted: IntArray | None = None,
        *,
        import_price: float,
        v_sq_min: FloatArray,
        v_sq_max: FloatArray,
        scales: Scales | None = None,
    ) -> None:
        self.network = network
        at = np.arange(network.size) if hosted is None else np.asarray(hosted, dtype=np.int64)
        self.hosted: IntArray = at
        self.m = at.size
        self.import_price = import_price
        self.r, self.x, self.b = network.r_pu[at], network.x_pu[at], network.b_pu[at]
        self.z_sq = self.r * self.r + self.x * self.x
        self.root = np.flatnonzero(network.parent[at] < 0)
        self.inner = np.where(network.parent[at] < 0, 0.0, 1.0)
        position = np.full(network.size, -1, dtype=np.int64)
        position[at] = np.arange(at.size)
        above = np.where(network.parent >= 0, position[network.parent], -1)
        self.child: IntArray = np.flatnonzero(above >= 0)
        self.owner: IntArray = above[self.child]
        self.count = np.bincount(self.owner, minlength=self.m).astype(np.float64)
        self.scale = (scales or Scales()).vector(self.m)
        self.v_sq_min, self.v_sq_max = v_sq_min[at], v_sq_max[at]
        zero = np.zeros(self.m)
        self.load(Bids(*(zero for _ in fields(Bids))), zero)

    @staticmethod
    def of(problem: ClearingProblem, scales: Scales | None = None) -> Atoms:
        """Return all atoms of a problem.

        Raises BidError, MarketError: The problem is none; see
        `controllers.market.model.checks.check_bids`.
        """
        check_bids(problem)
        made = Atoms(
            problem.network, import_price=problem.import_price, v_sq_min=problem.v_sq_min,
            v_sq_max=problem.v_sq_max, scales=scales,
        )  # fmt: skip
        made.load(problem.bids, np.full(made.m, problem.xi))
        return made

    # --- bids ------------------------------------------------------------------------------------

    def load(self, bids: Bids, xi: FloatArray) -> None:
        """Take the bids of these atoms, arrays of shape (m,), and their prices of losses."""
        self.bids, self.xi = bids, xi
        self.tangent = tangent(bids)
        # What a load draws whatever its p, where p_load0 is zero.
        self.q_fixed = np.where(bids.p_load0 != 0.0, 0.0, bids.q_load0)
        self._set_rows()
        self._set_limits()

    def load_some(self, where: NDArray[np.bool_], bids: Bids, xi: FloatArray) -> None:
        """Take new bids for the atoms `where` is true for; the others keep theirs."""
        mixed = {
            f.name: np.where(where, getattr(bids, f.name), getattr(self.bids, f.name))
            for f in fields(Bids)
        }
        self.load(replace(bids, **mixed), np.where(where, xi, self.xi))

    def _set_rows(self) -> None:
        """Write the equations of the module down: (row, kind, coefficient), per unit."""
        one, inner = np.ones(self.m), self.inner
        own = (
            (BALANCE_P, P, one), (BALANCE_P, P_GEN, one), (BALANCE_P, P_LOAD, -one),
            (BALANCE_P, L, -self.r),
            (BALANCE_Q, Q, one), (BALANCE_Q, Q_GEN, one), (BALANCE_Q, P_LOAD, -self.tangent),
            (BALANCE_Q, L, -self.x), (BALANCE_Q, V, self.b),
            (VOLTAGE, V, -inner), (VOLTAGE, W, inner), (VOLTAGE, P, -2.0 * self.r),
            (VOLTAGE, Q, -2.0 * self.x), (VOLTAGE, L, self.z_sq),
            (COPY, W, inner),
        )  # fmt: skip
        squares = np.zeros((N_ROWS, self.m))
        squares[[BALANCE_P, BALANCE_Q]] = self.count * self.scale[P] ** 2
        squares[COPY] = inner * self.scale[V] ** 2
        for row, kind, factor in own:
            squares[row] += (factor * self.scale[kind]) ** 2
        length = np.sqrt(squares)
        self.row_scale = 1.0 / np.where(length > 0.0, length, 1.0)
        self._own = [
            (row, kind, factor * self.scale[kind] * self.row_scale[row])
            for row, kind, factor in own
        ]
        self._rhs = np.zeros((N_ROWS, self.m))
        self._rhs[BALANCE_Q] = self.row_scale[BALANCE_Q] * self.q_fixed

    def _set_limits(self) -> None:
        bids, scale, root = self.bids, self.scale, self.root
        low, high = np.full((N_KINDS, self.m), -np.inf), np.full((N_KINDS, self.m), np.inf)
        low[P_GEN], high[P_GEN] = bids.p_gen_min, bids.p_gen_max
        low[Q_GEN], high[Q_GEN] = bids.q_gen_min, bids.q_gen_max
        low[P_LOAD], high[P_LOAD] = bids.p_load_min, bids.p_load_max
        low[V], high[V] = self.v_sq_min, self.v_sq_max
        low[V, root] = high[V, root] = self.network.v_root_pu**2
        curve, slope = np.zeros((N_KINDS, self.m)), np.zeros((N_KINDS, self.m))
        curve[P_GEN], curve[Q_GEN], curve[P_LOAD] = bids.alpha_p, bids.alpha_q, 2.0 * bids.beta
        slope[P_LOAD] = -2.0 * bids.beta * bids.p_load0
        slope[L] = self.xi * self.r
        slope[P, root] = self.import_price
        self.limits = Limits(
            low / scale, high / scale, curve * scale**2, slope * scale,
            self.network.l_max_pu[self.hosted] / scale[L], root,
            bool(np.isfinite(self.network.l_max_pu[1:]).any()),
        )  # fmt: skip

    # --- the equations ---------------------------------------------------------------------------

    def over_children(self, values: FloatArray) -> FloatArray:
        """Return each atom's sum over the lines to its children, (e,) to (m,)."""
        return np.asarray(np.bincount(self.owner, values, self.m), dtype=np.float64)

    def rows_own(self, x: FloatArray) -> FloatArray:
        """Return what an atom's own scaled variables (8, m) add to its scaled rows, (4, m)."""
        out = np.zeros((N_ROWS, self.m))
        for row, kind, factor in self._own:
            out[row] += factor * x[kind]
        return out

    def dense_rows(self) -> FloatArray:
        """Return the coefficients of `rows_own`, (4, 8, m)."""
        out = np.zeros((N_ROWS, N_KINDS, self.m))
        for row, kind, factor in self._own:
            out[row, kind] += factor
        return out

    def rows_off(self, p_q_below: FloatArray, v_above: FloatArray) -> FloatArray:
        """Return what neighbours add to the scaled rows, less the right-hand side, (4, m).

        Parameters
        ----------
        p_q_below : ndarray, shape (2, e). P and Q of each line to a child, pu.
        v_above : ndarray, shape (m,). Squared voltage of each parent, pu.
        """
        out = -self._rhs
        out[BALANCE_P] -= self.row_scale[BALANCE_P] * self.over_children(p_q_below[0])
        out[BALANCE_Q] -= self.row_scale[BALANCE_Q] * self.over_children(p_q_below[1])
        out[COPY] -= self.row_scale[COPY] * self.inner * v_above
        return out

    def pull_own(self, y: FloatArray) -> FloatArray:
        """Return the gradient in an atom's variables of its own rows times scaled duals y."""
        out = np.zeros((N_KINDS, self.m))
        for row, kind, factor in self._own:
            out[kind] += factor * y[row]
        return out

    def pull(self, y: FloatArray, dual_above: FloatArray, dual_below: FloatArray) -> FloatArray:
        """Return the gradient of all rows times their duals, (8, m).

        Parameters
        ----------
        y : ndarray, shape (4, m). Own duals, scaled.
        dual_above : ndarray, shape (2, m). Duals of the parent's two balances, money per pu.
        dual_below : ndarray, shape (e,). Dual of each child's copy of the voltage, money per pu.
        """
        out = self.pull_own(y)
        out[P] -= self.scale[P] * self.inner * dual_above[0]
        out[Q] -= self.scale[Q] * self.inner * dual_above[1]
        out[V] -= self.scale[V] * self.over_children(dual_below)
        return out

    # --- all atoms -------------------------------------------------------------------------------

    def all_rows(self, x: FloatArray) -> FloatArray:
        """Return the errors of all rows where all atoms are held, scaled, (4, n)."""
        below = (x * self.scale)[P : Q + 1, self.child]
        return self.rows_own(x) + self.rows_off(below, (x * self.scale)[V, self.network.parent])

    def all_pull(self, y: FloatArray) -> FloatArray:
        """Return the gradient of all rows times y where all atoms are held, (8, n)."""
        duals = y * self.row_scale
        return self.pull(y, duals[:VOLTAGE, self.network.parent], duals[COPY, self.child])

    def norm(self, steps: int = 60) -> float:
        """Return the largest singular value of the rows of all atoms, with 0.1 % to spare."""
        vector = (1.0 + np.cos(np.arange(N_KINDS * self.m, dtype=np.float64))).reshape(N_KINDS, -1)
        nothing = self.all_rows(np.zeros_like(vector))
        length = 1.0
        for _ in range(steps):
            vector = self.all_pull(self.all_rows(vector) - nothing)
            length = float(np.linalg.norm(vector))
            vector /= length
        return 1.001 * float(np.sqrt(length))

    def infeasibility_kw(self, x: FloatArray) -> float:
        """Return the largest error of a balance, in kW or kvar, and of a voltage, per mille."""
        return float(self.row_errors(self.all_rows(x)).max())

    def row_errors(self, rows: FloatArray) -> FloatArray:
        """Return the largest of each atom's errors, (m,): balances in kW, voltages per mille."""
        error = np.abs(rows) / self.row_scale
        balance = np.maximum(error[BALANCE_P], error[BALANCE_Q]) * self.network.base_kva
        worst: FloatArray = np.maximum(balance, 1e3 * np.maximum(error[VOLTAGE], error[COPY]))
        return worst

    def cost(self, x: FloatArray) -> float:
        """Return the objective at scaled x, money per hour."""
        limits, bids = self.limits, self.bids
        constant = float(np.sum(bids.beta * bids.p_load0**2))
        return float(np.sum((0.5 * limits.curve * x + limits.slope) * x)) + constant
