"""How far a relaxation of the three-phase market is from the power flow of what it dispatches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controllers.market.model.exactness import Exactness
from controllers.market.model.problem import PortProblem
from controllers.market.three_phase.dispatch import ComplexArray, PortClearing
from grid_models.current_injection.model import PortNetwork
from grid_models.current_injection.power_flow import PortFlow


@dataclass(frozen=True)
class ReplayGap:
    """What the AC power flow of a dispatch has more than the relaxation expected.

    Attributes
    ----------
    import_kw : float
    voltage_pu : float. Largest difference of a node's voltage, at `node`.
    cost : float. Money per hour.
    relaxed_cost : float
        The relaxation's own cost, a lower bound of the optimum where all loads are of constant
        power and no voltage turns by more than 10 degrees.
    beyond_band_pu, beyond_rating : float
        Largest excess of the voltage band by the power flow, pu, and of a line's rating, as a part
        of it. 0 where they are kept.
    """

    import_kw: float
    voltage_pu: float
    node: str
    cost: float
    relaxed_cost: float
    beyond_band_pu: float
    beyond_rating: float

    def exactness(self, p_import: float, base_kva: float) -> Exactness:
        """Return it as a clearing's exactness, at an import in pu."""
        more = self.import_kw / base_kva
        relative = abs(more) / max(abs(p_import), 1e-9)
        return Exactness(self.voltage_pu, relative, self.node, more)


@dataclass(frozen=True)
class McCormickClearing(PortClearing):
    """A cleared interval with its replay.

    Attributes
    ----------
    replay : ReplayGap
    rounds : int. Of tightening.
    u_half, i_half : Means of the boxes' half widths, pu.
    """

    replay: ReplayGap
    rounds: int
    u_half: float
    i_half: float


def relaxed_flow(network: PortNetwork, i: ComplexArray) -> PortFlow:
    """Return voltages, import and losses of port currents, whatever powers these belong to."""
    u = network.w_port + network.z_port @ i
    source = network.source_power(i)
    loss = source.real + float((u * i.conj()).real.sum())
    return PortFlow(i, u, network.w + network.z @ i, np.zeros_like(i), source, loss)


def replay_gap(
    problem: PortProblem,
    flow: PortFlow,
    relaxed: PortFlow,
    p_import: float,
    costs: tuple[float, float],
) -> ReplayGap:
    """Return the gap.

    Parameters
    ----------
    flow, relaxed : PortFlow. Of the dispatch, and what the relaxation expected.
    p_import : float. The relaxation's import, pu.
    costs : (float, float). Of the dispatch and of the relaxation.
    """
    net = problem.network
    off = np.abs(flow.v - relaxed.v)
    worst = int(np.argmax(off))
    held = np.abs(net.w) > 0.0
    held[net.source_nodes] = False
    v = np.abs(flow.v[held])
    over = np.maximum(v - problem.v_max_pu, problem.v_min_pu - v)
    lines = np.abs(net.line_w + net.line_z @ flow.i) / np.maximum(net.line_limit, 1e-9)
    return ReplayGap(
        import_kw=(flow.s_import.real - p_import) * net.base_kva,
        voltage_pu=float(off[worst]),
        node=net.nodes[worst],
        cost=costs[0] - costs[1],
        relaxed_cost=costs[1],
        beyond_band_pu=float(np.max(over, initial=0.0)),
        beyond_rating=float(np.max(lines - 1.0, initial=0.0)),
    )
