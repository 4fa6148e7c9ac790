"""Circuits for the fast MPC: a 24-bus feeder in four clusters, and chains of any length.

The published test (a 0.6 pu load step at an end bus of 24 buses in four clusters of six, chained
C2-C0-C1-C3, twelve inverters of 0.15 pu, r about 0.008 pu, l about 0.03/377 pu s, c about 5e-3 pu
s) does not give the layout and the loads. Here the slack feeds cluster c2; a cluster is a trunk of
four buses with two laterals of one bus; r, l and c vary by 10 % around the published values (fixed
seed); the loads are small conductances.
"""

from __future__ import annotations

import numpy as np

from grid_models.circuits.dynamics import Array, RlcCircuit, circuit_from_lines
from grid_models.feeder.clusters import Clusters, given_clusters

R_PU, L_PU_S, C_PU_S = 0.008, 0.03 / 377.0, 5e-3
_SPREAD = 0.1
_LIMIT_PU = 0.15


def feeder_of_clusters(
    order: tuple[str, ...],
    *,
    trunk: int = 4,
    laterals: tuple[int, ...] = (1, 3),
    inverters: tuple[int, ...] = (1, 3, 5),
    g_pu: float = 0.02,
    seed: int = 24,
    name: str = "feeder",
) -> tuple[RlcCircuit, Clusters]:
    """Return a feeder whose clusters hang one after the other from the slack.

    Parameters
    ----------
    order : Names of the clusters from the slack outwards.
    trunk : Trunk buses of a cluster.
    laterals : Trunk positions (from 0) that carry a lateral of one bus.
    inverters : Positions in the cluster (trunk first, then laterals) of its inverters.
    g_pu : Mean load conductance of a bus.
    """
    rng = np.random.default_rng(seed)
    buses: list[str] = []
    lines: list[tuple[str | None, str, float, float]] = []
    units: list[str] = []
    lists: dict[str, list[str]] = {}
    last: str | None = None

    def vary() -> float:
        return float(1.0 + _SPREAD * rng.uniform(-1.0, 1.0))

    for cluster in order:
        own = [f"{cluster}_{i}" for i in range(trunk + len(laterals))]
        feeding = [last, *own[: trunk - 1], *(own[i] for i in laterals)]
        lines += [
            (up, bus, R_PU * vary(), L_PU_S * vary()) for up, bus in zip(feeding, own, strict=True)
        ]
        last = own[trunk - 1]
        buses += own
        units += [own[i] for i in inverters]
        lists[cluster] = own
    scatter: Array = 1.0 + _SPREAD * rng.uniform(-1.0, 1.0, (2, len(buses)))
    circuit = circuit_from_lines(
        name,
        buses,
        lines,
        c_pu_s=C_PU_S * scatter[0],
        g_pu=g_pu * scatter[1],
        inverters=units,
        inverter_limit_pu=_LIMIT_PU,
    )
    return circuit, given_clusters(buses, lists, circuit.line_from, circuit.line_to)


def feeder24() -> tuple[RlcCircuit, Clusters]:
    """Return the 24-bus test feeder and its four clusters; see the module's text."""
    return feeder_of_clusters(("c2", "c0", "c1", "c3"), name="feeder24")
