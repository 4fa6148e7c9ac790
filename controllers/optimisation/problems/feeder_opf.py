"""Optimal power flow of a feeder by LinDistFlow as a `Dispatch`: P and Q of its DERs.

A DER has two variables, its active power p (kW) and its reactive power q (kvar). At noon of a clear
day, with low loads, regulators at their neutral taps and the source at 1.04 pu, the cheapest way is
sought to hold all voltages in their band::

    min  sum_i  (p_i - a_i)^2 / (2 s_i) + KVAR_COST q_i^2 / (2 s_i)
    s.t. v_min^2 <= v_0^2 + R p + X q <= v_max^2 at every node,  0 <= p_i <= a_i,  |q_i| <= c_i

with a_i the power available, s_i the rating in kVA and ``c_i = sqrt(s_i^2 - a_i^2)``. Of the rows,
divided by the band's width, those stay that some p and q within the limits violate.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from controllers.core.errors import ControllerError
from controllers.optimisation.problems.dispatch import Dispatch, reachable
from controllers.optimisation.problems.network_peers import network_peers
from grid_models.ders.rules import DerRule, place
from grid_models.feeder.model import Feeder
from grid_models.linear.lindistflow import LinDistFlow

KVAR_COST = 0.1
LOAD, SUN = 0.4, 0.9
"""Shares of the nominal loads and of the DERs' largest powers."""
SOURCE_PU = 1.04
_PV = DerRule(kind="pv", at="load_buses", kw_per_load_kw=1.5)


def feeder_opf(feeder: Feeder, v_min_pu: float = 0.95, v_max_pu: float = 1.05) -> Dispatch:
    """Return the optimal power flow of a radial feeder with its PV; without PV it gets some.

    PV of one and a half times the loads then stands at the load buses.

    Raises FeederateError: The feeder is not radial, no voltage can leave the band, or none can be
    held.
    """
    ders = tuple(der for der in feeder.ders if der.kind == "pv") or place(feeder, _PV)
    neutral = tuple(replace(regulator, tap_step=0) for regulator in feeder.regulators)
    model = LinDistFlow.from_feeder(
        replace(feeder, regulators=neutral, source=replace(feeder.source, v_pu=SOURCE_PU))
    )
    rating = np.array([der.kva for der in ders])
    available = SUN * np.array([der.p_max_kw for der in ders])
    spare = np.sqrt(np.maximum(rating**2 - available**2, 0.0))
    load_kw, load_kvar = model.nominal_injection()
    for der in feeder.ders:
        if der.kind in ("house", "flexible_load"):
            load_kw[[model.index[x] for x in der.labels]] += der.p_min_kw / len(der.labels)
    start = model.v_squared_pu(LOAD * load_kw, LOAD * load_kvar)
    _, node = np.unique(model.network.node, return_index=True)
    response = np.hstack(model.sensitivity([model.nodes[i] for i in node], ders))
    low = np.concatenate([np.zeros(len(ders)), -spare])
    high = np.concatenate([available, spare])
    width = v_max_pu**2 - v_min_pu**2
    rows = np.vstack([response, -response]) / width
    right = np.concatenate([v_max_pu**2 - start[node], start[node] - v_min_pu**2]) / width
    kept = reachable(rows, right, low, high)
    if not kept.any():
        raise ControllerError(
            f"no voltage leaves {v_min_pu:g} to {v_max_pu:g} pu",
            where=f"optimal power flow of feeder '{feeder.name}'",
            expected="more PV, or a narrower band",
        )
    tree = model.tree
    at = np.array([tree.position(der.bus) for der in ders])
    edges = np.stack([np.arange(1, len(tree.buses)), tree.parent[1:]], axis=1)
    return Dispatch(
        np.concatenate([1.0 / rating, KVAR_COST / rating]),
        np.concatenate([-available / rating, np.zeros(len(ders))]),
        low,
        high,
        rows[kept],
        right[kept],
        np.zeros(int(kept.sum()), dtype=np.bool_),
        tuple(f"{der.name}_{power}" for power in ("p", "q") for der in ders),
        network_peers(len(tree.buses), edges, np.tile(at, 2)),
    )
