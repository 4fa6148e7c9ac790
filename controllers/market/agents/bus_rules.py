"""Bus agents: their names and links, what they believe of each other, what limits are worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from controllers.core.mail import FloatArray, Link
from controllers.market.agents.bid_receiver import NUMBER_MAX
from controllers.market.agents.distributed_operator import ORDER_FIELDS
from controllers.market.agents.schedule import RESULT_FIELDS, MarketTerms
from controllers.market.agents.smo import AWARD_FIELDS
from controllers.market.model.participants import BID_FIELDS, Participants
from controllers.market.model.problem import ClearingProblem
from controllers.market.solvers.atoms import P_LOAD, Atoms, L, V
from controllers.market.solvers.iteration import WEIGHT_PER_PRICE, WIDTH, Iteration
from grid_models.branch_flow.model import BranchNetwork

SAID = WIDTH + 1
"""Numbers of a message: the algorithm's, then the count of the stopping rule."""


@dataclass(frozen=True)
class Bounds:
    """Largest numbers that are believed of a neighbour; shape (4,) each.

    Ten times what planning data say is large. Powers: all devices at the ends of their ranges.
    Squared voltages: the band's upper limit. Duals: the dearest offer, in the unit in which the
    algorithm weighs prices and powers alike. Clean runs stay below a tenth of that.
    """

    up: FloatArray
    down: FloatArray

    @staticmethod
    def of(problem: ClearingProblem, algorithm: type[Iteration]) -> Bounds:
        """Return the bounds of a nominal problem."""
        bids = problem.bids
        p_gen, q_gen, p_load = (
            np.maximum(np.abs(low), np.abs(high))
            for low, high in (
                (bids.p_gen_min, bids.p_gen_max),
                (bids.q_gen_min, bids.q_gen_max),
                (bids.p_load_min, bids.p_load_max),
            )
        )
        v_sq = max(float(problem.v_sq_max.max()), problem.network.v_root_pu**2)
        shunts = np.abs(problem.network.b_pu) * v_sq
        flexible = bids.p_load_max - bids.p_load_min
        offers = (bids.alpha_p * p_gen, bids.alpha_q * q_gen, 2.0 * bids.beta * flexible)
        dearest = max(
            abs(problem.import_price), problem.xi, *(float(o.max(initial=0.0)) for o in offers)
        )
        large = {
            "power": float(np.sum(p_gen + q_gen + p_load + np.abs(bids.q_load0) + shunts)) + 1e-3,
            "voltage": v_sq,
            "dual": WEIGHT_PER_PRICE * max(dearest, 1e-3),
        }
        up, down = (
            # The sweeps' messages are those of PAC.
            [10.0 * max(large[a], large[b]) for a, b in zip(kinds, sweeps, strict=True)]
            for kinds, sweeps in (
                (algorithm.up_is, Iteration.up_is), (algorithm.down_is, Iteration.down_is),
            )
        )  # fmt: skip
        return Bounds(np.array([*up, NUMBER_MAX]), np.array([*down, NUMBER_MAX]))


def bus_names(buses: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the bus agents, in the network's order."""
    return tuple(f"bus_{bus}" for bus in buses)


def diameter(network: BranchNetwork) -> int:
    """Return the number of lines between the two buses of a tree that are farthest apart."""
    below = np.zeros(network.size, dtype=np.int64)
    widest = 0
    for i in range(network.size - 1, 0, -1):
        up = network.parent[i]
        widest = max(widest, int(below[up] + below[i] + 1))
        below[up] = max(below[up], below[i] + 1)
    return widest


def bus_links(table: Participants, terms: MarketTerms, operator: str) -> dict[str, list[Link]]:
    """Return all links of bus agents by what they carry.

    ``up`` and ``down`` have one per line, in the order of the child's rows; ``order`` and
    ``result`` one per bus; ``bid`` and ``award`` one per SMO.
    """
    names, parent = bus_names(terms.network.buses), terms.network.parent.tolist()
    lines = [(names[i], names[parent[i]]) for i in range(1, len(names))]
    at = [names[row] for row in table.rows.tolist()]
    smos = list(zip(table.names, at, strict=True))
    bid, award = 1 + len(BID_FIELDS), len(AWARD_FIELDS)
    return {
        "up": [Link(child, above, "up", 2 * SAID) for child, above in lines],
        "down": [Link(above, child, "down", 2 * SAID) for child, above in lines],
        "order": [Link(operator, name, "order", len(ORDER_FIELDS)) for name in names],
        "result": [Link(name, operator, "result", len(RESULT_FIELDS)) for name in names],
        "bid": [Link(smo, bus, "bid", bid) for smo, bus in smos],
        "award": [Link(bus, smo, "award", award) for smo, bus in smos],
    }


def worth_of_limits(
    atoms: Atoms, x: FloatArray, reduced: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return what voltage limits and ratings are worth at scaled x, money per pu, (m,) each.

    A voltage at its lower limit has a positive worth, one at its upper limit a negative.
    """
    limits = atoms.limits
    low, high = x[V] <= limits.low[V], x[V] >= limits.high[V]
    v_worth = np.where(low, np.maximum(reduced[V], 0.0), 0.0)
    v_worth = (v_worth + np.where(high, np.minimum(reduced[V], 0.0), 0.0)) / atoms.scale[V]
    flow_p, flow_q, current, copy = reduced[P_LOAD + 2 :]
    rated = np.isfinite(limits.l_max) & (x[L] >= limits.l_max * (1.0 - 1e-6)) & (copy > 0.0)
    price = (flow_p**2 + flow_q**2) / np.where(rated, 2.0 * copy, 1.0) - current
    l_worth = np.where(rated, np.maximum(price, 0.0), 0.0) / atoms.scale[L]
    return v_worth * atoms.inner, l_worth * atoms.inner
