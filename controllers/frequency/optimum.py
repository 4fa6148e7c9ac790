"""The optimum of load-side frequency control by a central solver, to compare iterates with.

::

    min sum a d^2 + b |d|   s.t.  sum d = sum P,  |d| <= d_max,  |H (P - d)| <= F_max

which is problem (5) of the paper with its angles eliminated; see `controllers.frequency.iteration`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray
from controllers.frequency.network import ControlNetwork

_SOLVER_OPTIONS: Mapping[str, float] = {
    "tol_gap_abs": 1e-12,
    "tol_gap_rel": 1e-12,
    "tol_feas": 1e-11,
}


def central_optimum(network: ControlNetwork, injection_pu: FloatArray) -> FloatArray:
    """Return the cheapest demand of all buses that restores the balance, (n,), per unit.

    injection_pu : (n,). Net injection P without flexible demand.

    Raises ControllerError: The loads cannot restore it within their limits and those of lines.
    """
    import cvxpy as cp

    flexible = np.flatnonzero(network.limit_pu > 0.0)
    limit, factor = network.limit_pu[flexible], network.line_factor
    demand = cp.Variable(len(flexible))
    cost = network.quadratic[flexible] @ cp.square(demand)
    cost += network.absolute[flexible] @ cp.abs(demand)
    rules = [cp.sum(demand) == injection_pu.sum(), cp.abs(demand) <= limit]
    if network.lines:
        flow = factor @ injection_pu - factor[:, flexible] @ demand
        rules.append(cp.abs(flow) <= network.line_limit_pu)
    problem = cp.Problem(cp.Minimize(cost), rules)
    problem.solve(solver=cp.CLARABEL, **_SOLVER_OPTIONS)
    if problem.status not in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE):
        raise ControllerError(
            f"the flexible loads cannot restore the balance: {problem.status}",
            where="central optimum",
            expected="limits of loads and lines that leave room for it",
        )
    out = np.zeros(len(network.buses))
    out[flexible] = demand.value
    return out
