"""The objective of the primary market, written once."""

from __future__ import annotations

import numpy as np

from controllers.core.mail import FloatArray
from controllers.market.model.problem import Bids, ClearingProblem


def cost(
    problem: ClearingProblem,
    *,
    p_gen: FloatArray,
    q_gen: FloatArray,
    p_load: FloatArray,
    l_line: FloatArray,
    p_import: float,
) -> float:
    """Return the objective, money per hour.

    ``sum(alpha_p/2 P_G^2 + alpha_q/2 Q_G^2 + beta (P_L - P_L0)^2) + xi sum(r l)
    + price P_import + slope/2 P_import^2`` (thesis, cost function (1), with the import priced).
    """
    bids = problem.bids
    devices = (
        0.5 * bids.alpha_p * p_gen**2
        + 0.5 * bids.alpha_q * q_gen**2
        + bids.beta * (p_load - bids.p_load0) ** 2
    )
    losses = float(problem.network.r_pu @ l_line)
    imported = (problem.import_price + 0.5 * problem.import_slope * p_import) * p_import
    return float(devices.sum()) + problem.xi * losses + imported


def reactive_load(bids: Bids, p_load: FloatArray) -> FloatArray:
    """Return ``Q_L0 + tan(phi) (P_L - P_L0)``; a load without active power keeps its Q_L0."""
    return np.asarray(bids.q_load0 + tangent(bids) * (p_load - bids.p_load0))


def tangent(bids: Bids) -> FloatArray:
    """Return tan(phi) = Q_L0 / P_L0 of each bus, 0 where there is no active load."""
    zero = np.zeros(len(bids.p_load0))
    return np.divide(bids.q_load0, bids.p_load0, out=zero, where=bids.p_load0 != 0)
