"""How exact a relaxed solution is: a dispatch that burns power in no wire is no dispatch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controllers.market.model.problem import Dispatch
from grid_models.branch_flow.model import BranchNetwork

# Below this squared current a line is empty, and its relative gap says nothing: 0.1 % of the base.
_EMPTY_L_PU = 1e-6
GAP_LIMIT_PU = 1e-7


@dataclass(frozen=True)
class Exactness:
    """The cone gap ``v_i l - (P^2 + Q^2)`` of a solution; 0 where the relaxation is exact.

    Attributes
    ----------
    gap_pu : float. Largest gap over the lines, per unit squared.
    relative : float. Largest gap over ``v_i l``, of the lines that carry current.
    bus : str. Lower end of the line with the largest gap.
    fictitious_loss_pu : Losses in excess of those of the flows: ``sum r (l - (P^2 + Q^2)/v_i)``.
    """

    gap_pu: float
    relative: float
    bus: str
    fictitious_loss_pu: float

    @property
    def exact(self) -> bool:
        """Whether the gap is at most 1e-7 pu."""
        return self.gap_pu <= GAP_LIMIT_PU


def exactness(network: BranchNetwork, dispatch: Dispatch) -> Exactness:
    """Return how far `dispatch` is from satisfying ``P^2 + Q^2 = v_i l`` on each line."""
    if network.size == 1:
        return Exactness(0.0, 0.0, network.buses[0], 0.0)
    v = dispatch.v_sq[network.parent[1:]]
    l_line, flow = dispatch.l_line[1:], dispatch.p_line[1:] ** 2 + dispatch.q_line[1:] ** 2
    gap = v * l_line - flow
    worst = int(np.argmax(gap))
    relative = np.where(l_line > _EMPTY_L_PU, gap / np.maximum(v * l_line, 1e-300), 0.0)
    return Exactness(
        gap_pu=float(gap[worst]),
        relative=float(relative.max()),
        bus=network.buses[worst + 1],
        fictitious_loss_pu=float(network.r_pu[1:] @ (gap / v)),
    )
