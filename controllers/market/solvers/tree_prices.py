"""Marginal prices at a power flow, by sweeps of the tree: the derivative of the clearing's cost.

With the flows of a radial network solved exactly, the cost of one more unit of load at a bus
follows from the adjoint of the branch-flow equations, those of `controllers.market.model.prices`.
They are solved there by one sparse factorisation, here by messages up and down the tree. For the
line from the parent k to bus i, with the duals lambda of the balances, eta of the voltage drop and
kappa of ``P^2 + Q^2 = v_k l``::

    kappa_i v_k = r_i (xi + lambdaP_i) + x_i lambdaQ_i + |z_i|^2 eta_i
    lambdaP_i   = lambdaP_k - 2 r_i eta_i + 2 P_i kappa_i              down the tree
    lambdaQ_i   = lambdaQ_k - 2 x_i eta_i + 2 Q_i kappa_i
    eta_i       = sum over children c (eta_c - kappa_c l_c) - b_i lambdaQ_i + m_i      up the tree

with m what a unit of squared voltage costs at each bus, zero where no voltage binds. The sweeps
repeat until the prices stand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controllers.core.mail import FloatArray
from controllers.market.model.problem import ClearingProblem, Dispatch
from controllers.market.solvers.warm_start import (
    Flow,
    Start,
    Tree,
    best_response,
    settled,
    warm_start,
)

_SWEEPS = 30


@dataclass(frozen=True)
class TreePrices:
    """Duals of a power flow, shape (n,): balances, voltage drops, and the lines' cones."""

    p: FloatArray
    q: FloatArray
    voltage: FloatArray
    cone: FloatArray

    def stacked(self, l_line: FloatArray) -> FloatArray:
        """Return the duals of the atoms' rows (balance P, balance Q, voltage, copy), (4, n)."""
        rows = np.array([-self.p, -self.q, self.voltage, self.cone * l_line - self.voltage])
        rows[2:, 0] = 0.0
        return rows


def marginal_prices(
    problem: ClearingProblem,
    flow: Flow,
    v_worth: FloatArray | None = None,
    l_worth: FloatArray | None = None,
    start: TreePrices | None = None,
    *,
    tree: Tree | None = None,
    tolerance: float = 1e-10,
) -> TreePrices:
    """Return what one more unit of load costs at each bus, with the flows given by physics.

    Parameters
    ----------
    flow : Flow. The solved power flow.
    v_worth, l_worth : ndarray, shape (n,), optional
        Derivative of further costs in v_sq and l_line (penalties, multipliers).
    start : Prices, optional. Where the sweeps begin.
    tree : Tree, optional
    tolerance : float. Largest change of a price in the last sweep, relative to the import price.
    """
    net = problem.network
    n, parent, r, x = net.parent.size, net.parent, net.r_pu, net.x_pu
    tree = tree or Tree(parent)
    v_above = flow.v_sq[parent]
    z_sq, flat = r * r + x * x, problem.xi * r
    if l_worth is not None:
        flat = flat + l_worth
    worth = np.zeros(n) if v_worth is None else v_worth
    price = np.empty((n, 2))
    price[:, 0] = problem.import_price if start is None else start.p
    price[:, 1] = 0.0 if start is None else start.q
    eta = np.zeros(n) if start is None else start.voltage
    kappa = np.zeros(n)
    step = np.empty((n, 2))
    limit = tolerance * max(abs(problem.import_price), 1e-3)
    for _ in range(_SWEEPS):
        kappa = (flat + r * price[:, 0] + x * price[:, 1] + z_sq * eta) / v_above
        kappa[0] = 0.0
        # Each bus passes up eta - kappa l; what it passes is its own plus what came from below.
        eta = tree.up(worth - net.b_pu * price[:, 1] - kappa * flow.l_line) + kappa * flow.l_line
        step[:, 0] = 2.0 * (flow.p_line * kappa - r * eta)
        step[:, 1] = 2.0 * (flow.q_line * kappa - x * eta)
        step[0] = problem.import_price, 0.0
        now = tree.down(step)
        change = float(np.abs(now - price).max())
        price = now
        if change < limit:
            break
    return TreePrices(price[:, 0], price[:, 1], eta, kappa)


def priced_start(problem: ClearingProblem, rounds: int = 1) -> Start:
    """Return a start that knows what losses cost: best responses to the prices at the last flows.

    `warm_start`, then `rounds` times: a sweep for the marginal prices, every bus answers its own.
    Neighbours only, like `warm_start`. The prices know of no voltage or current limit: where none
    binds every round takes one to three digits off the gap, elsewhere one is enough.
    """
    tree = Tree(problem.network.parent)
    dispatch = warm_start(problem)
    prices = marginal_prices(problem, flow_of(dispatch), tree=tree)
    for _ in range(rounds):
        answer = best_response(problem.bids, prices.p, prices.q)
        dispatch = settled(problem, answer, prices.p, prices.q)
        prices = marginal_prices(problem, flow_of(dispatch), start=prices, tree=tree)
    return Start(dispatch, prices.stacked(dispatch.l_line))


def flow_of(dispatch: Dispatch) -> Flow:
    """Return the flows of a dispatch with the import as the root's line."""
    p, q = dispatch.p_line.copy(), dispatch.q_line.copy()
    p[0], q[0] = dispatch.p_import, dispatch.q_import
    return Flow(p, q, dispatch.l_line, dispatch.v_sq, 0.0)
