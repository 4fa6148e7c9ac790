"""A start for the distributed clearing: every bus answers one price, a sweep finds the flows.

The best responses need no neighbour; the flows come by backward/forward sweeps (D. Shirmohammadi et
al., "A compensation-based power flow method", IEEE Trans. Power Syst. 3(2), 1988), each of them one
message up and one down every line. All balances start with the broadcast price as their dual.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from controllers.core.mail import FloatArray
from controllers.market.model.costs import cost, reactive_load, tangent
from controllers.market.model.problem import Bids, ClearingProblem, Dispatch
from controllers.market.solvers.atoms import (
    BALANCE_P,
    BALANCE_Q,
    N_ROWS,
    P_GEN,
    P_LOAD,
    Q_GEN,
    Atoms,
    L,
    P,
    Q,
    V,
)
from grid_models.branch_flow.model import BranchNetwork

_SWEEPS = 60
_TOLERANCE = 1e-12


class Tree:
    """Sums along the lines of a radial network: what messages up or down the tree would add up."""

    def __init__(self, parent: Any) -> None:
        n = parent.size
        child = np.arange(1, n)
        ones = np.ones(n - 1)
        above = sparse.csc_array((ones, (parent[1:], child)), shape=(n, n))
        # Triangular with a unit diagonal: the factors are the matrix itself, a solution is a sweep.
        self._factor: Any = splu(
            sparse.csc_matrix(sparse.eye_array(n, format="csc") - above),
            permc_spec="NATURAL",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )

    def up(self, values: FloatArray) -> FloatArray:
        """Return each bus's sum over itself and everything below it; (n,) or (n, k)."""
        return np.asarray(self._factor.solve(values), dtype=np.float64)

    def down(self, values: FloatArray) -> FloatArray:
        """Return each bus's sum over itself and everything between it and the root."""
        return np.asarray(self._factor.solve(values, "T"), dtype=np.float64)


@dataclass(frozen=True)
class Flow:
    """A power flow; arrays of shape (n,), line i from bus i's parent, its flow at that end."""

    p_line: FloatArray
    q_line: FloatArray
    l_line: FloatArray
    v_sq: FloatArray
    error: float


def power_flow(
    network: BranchNetwork,
    p_load: FloatArray,
    q_load: FloatArray,
    start: Flow | None = None,
    *,
    tree: Tree | None = None,
    sweeps: int = _SWEEPS,
) -> Flow:
    """Return the branch flow for given net loads by backward/forward sweeps.

    Parameters
    ----------
    p_load, q_load : ndarray, shape (n,). Load minus generation, pu.
    start : Flow, optional
    tree : Tree, optional. Reused between calls.
    sweeps : int. Most sweeps; ends earlier when no squared current changes by more than 1e-12.
    """
    tree = tree or Tree(network.parent)
    r, x, parent = network.r_pu, network.x_pu, network.parent
    z_sq = r * r + x * x
    root_v = network.v_root_pu**2
    v_sq = np.full(parent.size, root_v) if start is None else start.v_sq
    l_line = np.zeros(parent.size) if start is None else start.l_line
    load = np.empty((parent.size, 2))
    error = np.inf
    for _ in range(sweeps):
        load[:, 0] = p_load + r * l_line
        load[:, 1] = q_load - network.b_pu * v_sq + x * l_line
        p, q = tree.up(load).T
        drop = z_sq * l_line - 2.0 * (r * p + x * q)
        drop[0] = root_v
        # A load beyond the network's capacity has no power flow: the sweep stays where it can go.
        v_sq = np.maximum(tree.down(drop), 0.04)
        now = (p * p + q * q) / v_sq[parent]
        now[0] = 0.0
        error = float(np.abs(now - l_line).max(initial=0.0))
        l_line = now
        if error < _TOLERANCE:
            break
    return Flow(p, q, l_line, v_sq, error)


def best_response(bids: Bids, price_p: FloatArray, price_q: FloatArray) -> FloatArray:
    """Return what each bus would do at its prices: P_G, Q_G, P_L, shape (3, n)."""
    value = price_p + tangent(bids) * price_q
    p_load = bids.p_load0 - _per(value, 2.0 * bids.beta)
    wish = np.array([_per(price_p, bids.alpha_p), _per(price_q, bids.alpha_q), p_load])
    low = np.array([bids.p_gen_min, bids.q_gen_min, bids.p_load_min])
    high = np.array([bids.p_gen_max, bids.q_gen_max, bids.p_load_max])
    return np.asarray(np.minimum(np.maximum(wish, low), high))


def _per(price: FloatArray, curve: FloatArray) -> FloatArray:
    """Return price / curve; without curvature everything, or nothing at price zero."""
    flat = np.where(price > 0.0, np.inf, np.where(price < 0.0, -np.inf, 0.0))
    return np.divide(price, curve, out=flat, where=curve > 0.0)


def settled(
    problem: ClearingProblem, devices: FloatArray, price_p: FloatArray, price_q: FloatArray
) -> Dispatch:
    """Return the dispatch of set-points (P_G, Q_G, P_L), (3, n), with the flows of physics."""
    p_gen, q_gen, p_load = devices
    q_load = reactive_load(problem.bids, p_load)
    flow = power_flow(problem.network, p_load - p_gen, q_load - q_gen)
    paid = cost(
        problem, p_gen=p_gen, q_gen=q_gen, p_load=p_load, l_line=flow.l_line,
        p_import=float(flow.p_line[0]),
    )  # fmt: skip
    line = np.array([flow.p_line, flow.q_line])
    line[:, 0] = 0.0
    return Dispatch(
        p_gen=p_gen, q_gen=q_gen, p_load=p_load, q_load=q_load,
        p_line=line[0], q_line=line[1], l_line=flow.l_line, v_sq=flow.v_sq,
        p_import=float(flow.p_line[0]), q_import=float(flow.q_line[0]),
        lmp_p=price_p, lmp_q=price_q, cost=paid,
    )  # fmt: skip


@dataclass(frozen=True)
class Start:
    """Where a distributed clearing begins.

    Attributes
    ----------
    dispatch : Dispatch
    dual : (4, n); Duals of the atoms' rows in physical units; None: the dispatch's prices on the
        balances and nothing on the voltages.
    """

    dispatch: Dispatch
    dual: FloatArray | None = None


def begin(
    problem: ClearingProblem, atoms: Atoms, start: Dispatch | Start | None
) -> tuple[FloatArray, FloatArray]:
    """Return scaled variables (8, n) and duals (4, n) for a start; `warm_start` for None."""
    if start is None:
        start = warm_start(problem)
    if isinstance(start, Dispatch):
        start = Start(start)
    d, parent = start.dispatch, problem.network.parent
    w_sq = np.where(parent >= 0, d.v_sq[parent], 0.0)
    rows = (d.p_gen, d.q_gen, d.p_load, d.v_sq, d.p_line, d.q_line, d.l_line, w_sq)
    x = np.array(rows, dtype=np.float64)
    x[P, 0], x[Q, 0] = d.p_import, d.q_import
    y = np.zeros((N_ROWS, atoms.m)) if start.dual is None else start.dual
    if start.dual is None:
        y[BALANCE_P], y[BALANCE_Q] = -d.lmp_p, -d.lmp_q
    return x / atoms.scale, y / atoms.row_scale


def dispatch_of(problem: ClearingProblem, atoms: Atoms, x: FloatArray, y: FloatArray) -> Dispatch:
    """Return scaled variables and duals as a dispatch; a price is minus a balance's dual."""
    phys, duals = x * atoms.scale, y * atoms.row_scale
    line = phys[P : L + 1].copy()
    line[:, 0] = 0.0
    return Dispatch(
        p_gen=phys[P_GEN], q_gen=phys[Q_GEN], p_load=phys[P_LOAD],
        q_load=reactive_load(problem.bids, phys[P_LOAD]),
        p_line=line[0], q_line=line[1], l_line=line[2], v_sq=phys[V],
        p_import=float(phys[P, 0]), q_import=float(phys[Q, 0]),
        lmp_p=-duals[BALANCE_P], lmp_q=-duals[BALANCE_Q], cost=atoms.cost(x),
    )  # fmt: skip


def warm_start(problem: ClearingProblem) -> Dispatch:
    """Return the start of the module: best responses to the import price, and their flows."""
    n = problem.network.parent.size
    price_p, price_q = np.full(n, problem.import_price), np.zeros(n)
    return settled(problem, best_response(problem.bids, price_p, price_q), price_p, price_q)


def flat_start(problem: ClearingProblem) -> Dispatch:
    """Return the start that knows nothing: no power anywhere, 1 pu, no price."""
    zero = np.zeros(problem.network.parent.size)
    return Dispatch(
        p_gen=zero, q_gen=zero, p_load=zero, q_load=zero, p_line=zero, q_line=zero, l_line=zero,
        v_sq=zero + 1.0, p_import=0.0, q_import=0.0, lmp_p=zero, lmp_q=zero, cost=0.0,
    )  # fmt: skip
