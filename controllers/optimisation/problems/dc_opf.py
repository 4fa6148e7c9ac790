"""DC optimal power flow of a case as a `Dispatch`: generators, one balance, limits of branches.

Variables are the powers of the generators in MW, costs USD/h without their constant part. Rows are
the balance and, of each branch with a rating that the generators can exceed, its flow at the rating
in that direction.
"""

from __future__ import annotations

import numpy as np

from controllers.core.errors import ControllerError
from controllers.optimisation.problems.dispatch import Dispatch, reachable
from controllers.optimisation.problems.network_peers import network_peers
from grid_models.transmission.dc_flow import DcFlow
from grid_models.transmission.opf_case import OpfCase


def dc_opf(case: OpfCase, rate: float = 1.0) -> Dispatch:
    """Return the DC optimal power flow of a case; `rate` multiplies the ratings of branches.

    Raises ControllerError: A generator's cost is not convex quadratic, or there is no feasible
    point.
    """
    units, buses = case.generators, case.buses
    coefficients = np.zeros((len(units.names), 3))
    given = case.costs.coefficients[:, :3]
    coefficients[:, : given.shape[1]] = given
    other = case.costs.piecewise | case.costs.coefficients[:, 3:].any(axis=1)
    if other.any():
        raise ControllerError(
            f"the cost of generator '{units.names[int(np.argmax(other))]}' is not quadratic",
            where=f"DC optimal power flow of case '{case.name}'",
            expected="polynomial costs of degree 2 at most",
        )
    flow = DcFlow.of(case)
    load = buses.load_mw + buses.shunt_mw
    at_rest = flow.offset_mw - flow.factors @ load
    rating = rate * case.branches.rate_mva
    of_units = flow.factors[:, units.bus]
    rows = np.vstack([np.ones((1, len(units.names))), of_units, -of_units])
    right = np.concatenate([[load.sum()], rating - at_rest, rating + at_rest])
    kept = reachable(rows, right, units.p_min_mw, units.p_max_mw)
    kept[0] = True
    edges = np.stack([case.branches.from_bus, case.branches.to_bus], axis=1)
    return Dispatch(
        2.0 * coefficients[:, 2],
        coefficients[:, 1],
        units.p_min_mw,
        units.p_max_mw,
        rows[kept],
        right[kept],
        np.arange(int(kept.sum())) == 0,
        tuple(f"generator_{name}" for name in units.names),
        network_peers(len(buses.names), edges, units.bus),
    )
