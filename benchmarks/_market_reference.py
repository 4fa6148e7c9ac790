"""The primary market written for reading: one function for each block of constraints, in cvxpy.

Slow and plain; `central` solves the same and is checked against it. Sources: the branch-flow market
of the thesis' slides (primary market), with the readings of docs/market.md. In per unit, for each
line from parent i to bus j and each child k of j::

    minimise  sum(alpha/2 P_G^2 + alpha_Q/2 Q_G^2 + beta (P_L - P_L0)^2)
              + xi sum(r l) + price P_import

`Dispatch` says the signs. cvxpy's dual of a balance written as below is the *negative* price.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from controllers.core.mail import FloatArray
from controllers.market.model.checks import check_bids
from controllers.market.model.costs import cost, tangent
from controllers.market.model.errors import NoDispatchError
from controllers.market.model.problem import ClearingProblem, Dispatch
from grid_models.branch_flow.model import BranchNetwork


@dataclass(frozen=True)
class Unknowns:
    """The cvxpy variables; of lines and buses but the root (n - 1), of devices (n)."""

    p_line: Any
    q_line: Any
    l_line: Any
    v_sq: Any
    p_gen: Any
    q_gen: Any
    p_load: Any

    @classmethod
    def make(cls, n: int) -> Unknowns:
        """Return fresh variables for `n` buses."""
        import cvxpy as cp

        lines = [cp.Variable(n - 1) for _ in range(4)]
        return cls(*lines, *(cp.Variable(n) for _ in range(3)))


def children_matrix(network: BranchNetwork) -> sparse.csr_array:
    """Return C, (n, n - 1): ``C flows`` is what leaves each bus into its children."""
    m = network.size - 1
    where = (network.parent[1:], np.arange(m))
    return sparse.csr_array((np.ones(m), where), shape=(network.size, m))


def active_balance(problem: ClearingProblem, x: Unknowns) -> Any:
    """``P_j - r_j l_j - sum_k P_k + P_G,j - P_L,j = 0`` at every bus but the root."""
    net = problem.network
    below = children_matrix(net)[1:] @ x.p_line
    return (
        x.p_line - sparse.diags_array(net.r_pu[1:]) @ x.l_line - below + x.p_gen[1:] - x.p_load[1:]
        == 0
    )


def reactive_balance(problem: ClearingProblem, x: Unknowns) -> Any:
    """``Q_j - x_j l_j - sum_k Q_k + Q_G,j - Q_L,j + b_j v_j = 0`` at every bus but the root.

    The load keeps its power factor: ``Q_L = Q_L0 + tan(phi) (P_L - P_L0)``.
    """
    net, bids = problem.network, problem.bids
    below = children_matrix(net)[1:] @ x.q_line
    load = (
        bids.q_load0 - tangent(bids) * bids.p_load0 + sparse.diags_array(tangent(bids)) @ x.p_load
    )
    shunt = sparse.diags_array(net.b_pu[1:]) @ x.v_sq
    lost = sparse.diags_array(net.x_pu[1:]) @ x.l_line
    return x.q_line - lost - below + x.q_gen[1:] - load[1:] + shunt == 0


def voltage_drop(problem: ClearingProblem, x: Unknowns) -> Any:
    """``v_j - v_i + 2 (r P + x Q) - (r^2 + x^2) l = 0``."""
    net = problem.network
    r, react = net.r_pu[1:], net.x_pu[1:]
    drop = sparse.diags_array(2 * r) @ x.p_line + sparse.diags_array(2 * react) @ x.q_line
    rise = sparse.diags_array(r**2 + react**2) @ x.l_line
    return x.v_sq - parent_voltage(problem, x) + drop - rise == 0


def parent_voltage(problem: ClearingProblem, x: Unknowns) -> Any:
    """Return v_i of each line; the root's is given."""
    parents = children_matrix(problem.network).T.tocsr()
    v_root = problem.network.v_root_pu**2
    return parents[:, [0]].toarray().ravel() * v_root + parents[:, 1:] @ x.v_sq


def apparent_power(problem: ClearingProblem, x: Unknowns) -> list[Any]:
    """``P^2 + Q^2 <= v_i l``, relaxed from an equality: exact if the bound is met."""
    import cvxpy as cp

    v = parent_voltage(problem, x)
    arms = cp.vstack([2 * x.p_line, 2 * x.q_line, v - x.l_line])
    return [cp.SOC(v + x.l_line, arms, axis=0)]


def voltage_band(problem: ClearingProblem, x: Unknowns) -> list[Any]:
    """``v_min^2 <= v_j <= v_max^2`` at every bus but the root."""
    return [x.v_sq <= problem.v_sq_max[1:], x.v_sq >= problem.v_sq_min[1:]]


def current_limit(problem: ClearingProblem, x: Unknowns) -> list[Any]:
    """``l <= l_max``, a constant: ``l <= S_max^2 / v`` is not convex."""
    rated = np.flatnonzero(np.isfinite(problem.network.l_max_pu[1:]))
    return [x.l_line[rated] <= problem.network.l_max_pu[1:][rated]] if len(rated) else []


def device_limits(problem: ClearingProblem, x: Unknowns) -> list[Any]:
    """``min <= x <= max`` of every generator's P and Q and of every load."""
    bids = problem.bids
    return [
        limit
        for name in ("p_gen", "q_gen", "p_load")
        for limit in (
            getattr(x, name) >= getattr(bids, f"{name}_min"),
            getattr(x, name) <= getattr(bids, f"{name}_max"),
        )
    ]


def objective(problem: ClearingProblem, x: Unknowns) -> Any:
    """Generation, disutility, losses and import: see the head of this file."""
    import cvxpy as cp

    bids = problem.bids
    generation = 0.5 * bids.alpha_p @ cp.square(x.p_gen) + 0.5 * bids.alpha_q @ cp.square(x.q_gen)
    disutility = bids.beta @ cp.square(x.p_load - bids.p_load0)
    losses = problem.network.r_pu[1:] @ x.l_line
    return (
        generation
        + disutility
        + problem.xi * losses
        + problem.import_price * power_import(problem, x)
    )


def power_import(problem: ClearingProblem, x: Unknowns) -> Any:
    """``P_import = sum_k P_k + P_L - P_G`` at the root."""
    return children_matrix(problem.network)[[0]] @ x.p_line + x.p_load[0] - x.p_gen[0]


def clear_reference(problem: ClearingProblem, *, tolerance: float = 1e-9) -> Dispatch:
    """Return the dispatch and prices of `problem`, through cvxpy.

    Raises
    ------
    BidError, MarketError
        The problem is none.
    NoDispatchError
        cvxpy found no optimum.
    """
    import cvxpy as cp

    check_bids(problem)
    x = Unknowns.make(problem.network.size)
    active, reactive = active_balance(problem, x), reactive_balance(problem, x)
    constraints = [active, reactive, voltage_drop(problem, x)]
    for block in (apparent_power, voltage_band, current_limit, device_limits):
        constraints += block(problem, x)
    program = cp.Problem(cp.Minimize(cp.sum(objective(problem, x))), constraints)
    limits = {f"tol_{name}": tolerance for name in ("gap_abs", "gap_rel", "feas")}
    program.solve(solver=cp.CLARABEL, **limits)
    if program.status not in ("optimal", "optimal_inaccurate"):
        raise NoDispatchError(
            "cvxpy found no dispatch",
            status=str(program.status),
            where="primary market",
            expected="limits that can be met",
        )
    return _dispatch(problem, x, -active.dual_value, -reactive.dual_value)


def _dispatch(
    problem: ClearingProblem, x: Unknowns, price_p: FloatArray, price_q: FloatArray
) -> Dispatch:
    net, bids = problem.network, problem.bids
    line = {
        name: np.concatenate([[0.0], getattr(x, name).value])
        for name in ("p_line", "q_line", "l_line")
    }
    v_sq = np.concatenate([[net.v_root_pu**2], x.v_sq.value])
    p_gen, q_gen, p_load = x.p_gen.value, x.q_gen.value, x.p_load.value
    q_load = bids.q_load0 + tangent(bids) * (p_load - bids.p_load0)
    first = net.parent == 0
    p_import = float(line["p_line"][first].sum() + p_load[0] - p_gen[0])
    q_import = float(line["q_line"][first].sum() + q_load[0] - q_gen[0] - net.b_pu[0] * v_sq[0])
    total = cost(
        problem,
        p_gen=p_gen,
        q_gen=q_gen,
        p_load=p_load,
        l_line=line["l_line"],
        p_import=p_import,
    )
    return Dispatch(
        p_gen=p_gen,
        q_gen=q_gen,
        p_load=p_load,
        q_load=q_load,
        **line,
        v_sq=v_sq,
        p_import=p_import,
        q_import=q_import,
        lmp_p=np.concatenate([[problem.import_price], price_p]),
        lmp_q=np.concatenate([[0.0], price_q]),
        cost=total,
    )
