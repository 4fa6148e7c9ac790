"""The clearing problem cut into atoms: one per bus, all of them stacked as arrays.

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

In the words of Patari et al. (eqs. 9-10) the voltage row is ``G_j a_j = b_j``; the others, which
reach into a neighbour, are the coordination rows ``B a = 0``. A copy of the child's flow in the
parent's atom, as there, would only enter linearly: it is left out, and with it two rows per line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from controllers.core.mail import FloatArray
from controllers.market.model.checks import check_bids
from controllers.market.model.costs import tangent
from controllers.market.model.problem import ClearingProblem, Dispatch
from controllers.market.solvers.cone import project_limited_line, project_line

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


@dataclass(frozen=True)
class Law:
    """What some atoms do on their own, in scaled variables; arrays of shape (8, m) or (m,).

    Attributes
    ----------
    low, high, curve, slope : ndarray, shape (8, m)
        Box, and cost ``curve/2 x^2 + slope x``.
    l_max : ndarray, shape (m,)
    root : ndarray of int
        Positions, among these m, of the atom at the root (none or one): its line is free.
    limited : bool
        Whether any line of the whole network has a rating.
    """

    low: FloatArray
    high: FloatArray
    curve: FloatArray
    slope: FloatArray
    l_max: FloatArray
    root: Any
    limited: bool

    def of(self, pick: Any) -> Law:
        """Return the law of some atoms."""
        return Law(
            self.low[:, pick],
            self.high[:, pick],
            self.curve[:, pick],
            self.slope[:, pick],
            self.l_max[pick],
            np.flatnonzero(np.isin(pick, self.root)),
            self.limited,
        )

    def proximal(self, point: FloatArray, step: float) -> FloatArray:
        """Return the atoms' answers: argmin of cost + ``|x - point|^2 / (2 step)``, shape (8, m).

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
        near = project_limited_line(*line, self.l_max) if self.limited else project_line(*line)
        out[P], out[Q], out[L], out[W] = near
        out[P : Q + 1, self.root] = flows
        out[L:, self.root] = 0.0
        return out


@dataclass(frozen=True)
class Atoms:
    """A clearing problem, scaled and cut; see the module.

    Attributes
    ----------
    matrix, transposed : csr_array, shapes (4 n, 8 n) and (8 n, 4 n)
        The scaled rows. Their entries stand in the order of the columns: a part of them, cut for
        some atoms in the same order, gives the same sums to the last bit.
    rhs : ndarray, shape (4 n,)
    scale : ndarray, shape (8, n)
        ``x = scale * scaled x``.
    row_scale : ndarray, shape (4 n,)
        ``scaled row = row_scale * row``, so ``dual = row_scale * scaled dual``.
    norm : float
        Largest singular value of `matrix`, with 0.1 % to spare.
    """

    problem: ClearingProblem
    law: Law
    matrix: Any
    transposed: Any
    rhs: FloatArray
    scale: FloatArray
    row_scale: FloatArray
    norm: float
    constant: float

    @property
    def n(self) -> int:
        """Number of buses."""
        return int(self.scale.shape[1])

    def cost(self, x: FloatArray) -> float:
        """Return the objective at scaled x, money per hour."""
        law = self.law
        return float(np.sum((0.5 * law.curve * x + law.slope) * x)) + self.constant

    def infeasibility_kw(self, x: FloatArray) -> float:
        """Return the largest error of a balance, in kW or kvar, and of a voltage, per mille."""
        error = (self.matrix @ x.ravel() - self.rhs) / self.row_scale
        balance = np.abs(error[: 2 * self.n]).max() * self.problem.network.base_kva
        return float(max(balance, 1e3 * np.abs(error[2 * self.n :]).max()))

    def dispatch(self, x: FloatArray, y: FloatArray) -> Dispatch:
        """Return scaled variables and duals as a dispatch; a price is minus a balance's dual."""
        phys = x * self.scale
        duals = (y * self.row_scale).reshape(N_ROWS, self.n)
        per_p, fixed = load_tangent(self.problem)
        line = phys[P : L + 1].copy()
        line[:, 0] = 0.0
        return Dispatch(
            p_gen=phys[P_GEN],
            q_gen=phys[Q_GEN],
            p_load=phys[P_LOAD],
            q_load=phys[P_LOAD] * per_p + fixed,
            p_line=line[0],
            q_line=line[1],
            l_line=line[2],
            v_sq=phys[V],
            p_import=float(phys[P, 0]),
            q_import=float(phys[Q, 0]),
            lmp_p=-duals[BALANCE_P],
            lmp_q=-duals[BALANCE_Q],
            cost=self.cost(x),
        )

    def scaled(self, dispatch: Dispatch) -> tuple[FloatArray, FloatArray]:
        """Return a dispatch as scaled variables (8, n) and duals (4 n,), voltage duals zero."""
        d = dispatch
        parent = self.problem.network.parent
        w_sq = np.where(parent >= 0, d.v_sq[parent], 0.0)
        rows = (d.p_gen, d.q_gen, d.p_load, d.v_sq, d.p_line, d.q_line, d.l_line, w_sq)
        phys = np.array(rows, dtype=np.float64)
        phys[P, 0], phys[Q, 0] = d.p_import, d.q_import
        duals = np.zeros((N_ROWS, self.n))
        duals[BALANCE_P], duals[BALANCE_Q] = -d.lmp_p, -d.lmp_q
        return phys / self.scale, duals.ravel() / self.row_scale


def load_tangent(problem: ClearingProblem) -> tuple[FloatArray, FloatArray]:
    """Return a load's q per p, and the q that it draws whatever its p (where p_load0 is zero)."""
    bids = problem.bids
    return tangent(bids), np.where(bids.p_load0 != 0.0, 0.0, bids.q_load0)


def make_atoms(problem: ClearingProblem, scales: Scales | None = None) -> Atoms:
    """Cut a problem into scaled atoms.

    Parameters
    ----------
    problem : ClearingProblem
    scales : Scales, optional

    Raises
    ------
    BidError, MarketError
        The problem is none; see `controllers.market.model.checks.check_bids`.
    """
    check_bids(problem)
    n = problem.network.parent.size
    scale = (scales or Scales()).vector(n)
    rows = _rows(problem)
    scaled = rows @ sparse.diags_array(scale.ravel())
    length = np.sqrt(np.asarray(scaled.multiply(scaled).sum(axis=1)).ravel())
    row_scale = 1.0 / np.where(length > 0.0, length, 1.0)
    matrix = sparse.csr_array(sparse.diags_array(row_scale) @ scaled)
    matrix.sort_indices()
    transposed = sparse.csr_array(matrix.T)
    transposed.sort_indices()
    rhs = np.zeros((N_ROWS, n))
    rhs[BALANCE_Q] = load_tangent(problem)[1]
    constant = float(np.sum(problem.bids.beta * problem.bids.p_load0**2))
    return Atoms(
        problem, _law(problem, scale), matrix, transposed, rhs.ravel() * row_scale, scale,
        row_scale, 1.001 * _largest_singular_value(matrix, transposed), constant,
    )  # fmt: skip


def _rows(problem: ClearingProblem) -> Any:
    """Return the equality rows in physical variables, shape (4 n, 8 n)."""
    net = problem.network
    n = net.parent.size
    bus = np.arange(n)
    child, parent = bus[1:], net.parent[1:]
    r, x = net.r_pu[1:], net.x_pu[1:]
    one, per_p = np.ones(n), load_tangent(problem)[0]
    entries = (
        (BALANCE_P, bus, P, bus, one),
        (BALANCE_P, bus, P_GEN, bus, one),
        (BALANCE_P, bus, P_LOAD, bus, -one),
        (BALANCE_P, child, L, child, -r),
        (BALANCE_P, parent, P, child, -one[1:]),
        (BALANCE_Q, bus, Q, bus, one),
        (BALANCE_Q, bus, Q_GEN, bus, one),
        (BALANCE_Q, bus, P_LOAD, bus, -per_p),
        (BALANCE_Q, child, L, child, -x),
        (BALANCE_Q, parent, Q, child, -one[1:]),
        (BALANCE_Q, bus, V, bus, net.b_pu),
        (VOLTAGE, child, V, child, -one[1:]),
        (VOLTAGE, child, W, child, one[1:]),
        (VOLTAGE, child, P, child, -2.0 * r),
        (VOLTAGE, child, Q, child, -2.0 * x),
        (VOLTAGE, child, L, child, r * r + x * x),
        (COPY, child, W, child, one[1:]),
        (COPY, child, V, parent, -one[1:]),
    )
    row = np.concatenate([kind * n + at for kind, at, _, _, _ in entries])
    column = np.concatenate([kind * n + at for _, _, kind, at, _ in entries])
    values = np.concatenate([v for *_, v in entries])
    keep = values != 0.0
    return sparse.csr_array(
        (values[keep], (row[keep], column[keep])), shape=(N_ROWS * n, N_KINDS * n)
    )


def _law(problem: ClearingProblem, scale: FloatArray) -> Law:
    net, bids = problem.network, problem.bids
    n = net.parent.size
    low, high = np.full((N_KINDS, n), -np.inf), np.full((N_KINDS, n), np.inf)
    low[P_GEN], high[P_GEN] = bids.p_gen_min, bids.p_gen_max
    low[Q_GEN], high[Q_GEN] = bids.q_gen_min, bids.q_gen_max
    low[P_LOAD], high[P_LOAD] = bids.p_load_min, bids.p_load_max
    low[V], high[V] = problem.v_sq_min, problem.v_sq_max
    low[V, 0] = high[V, 0] = net.v_root_pu**2
    curve, slope = np.zeros((N_KINDS, n)), np.zeros((N_KINDS, n))
    curve[P_GEN], curve[Q_GEN], curve[P_LOAD] = bids.alpha_p, bids.alpha_q, 2.0 * bids.beta
    slope[P_LOAD] = -2.0 * bids.beta * bids.p_load0
    slope[L] = problem.xi * net.r_pu
    slope[P, 0] = problem.import_price
    limited = bool(np.isfinite(net.l_max_pu[1:]).any())
    return Law(
        low / scale, high / scale, curve * scale**2, slope * scale,
        net.l_max_pu / scale[L], np.array([0]), limited,
    )  # fmt: skip


def _largest_singular_value(matrix: Any, transposed: Any, steps: int = 60) -> float:
    """Return the 2-norm by power iteration from a fixed start."""
    vector = 1.0 + np.cos(np.arange(matrix.shape[1], dtype=np.float64))
    length = 1.0
    for _ in range(steps):
        vector = transposed @ (matrix @ vector)
        length = float(np.linalg.norm(vector))
        vector /= length
    return float(np.sqrt(length))
