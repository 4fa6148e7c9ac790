"""The tree of two-ports is the circuit: what holds for OpenDSS' voltages holds in it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from grid_models.base.errors import FeederError, TopologyError
from grid_models.catalog import load_feeder
from grid_models.current_injection.power_flow import power_flow
from grid_models.feeder.model import Feeder, Switch
from grid_models.opendss.branches import branch_tree
from grid_models.opendss.circuit import Circuit
from grid_models.opendss.ports import port_network


def _circuit(feeder: Feeder | str) -> Circuit:
    feeder = load_feeder(feeder) if isinstance(feeder, str) else feeder
    return Circuit.from_feeder(feeder, tolerance_pu=1e-9)


@pytest.mark.parametrize("name", ["ieee13", "ieee123"])
def test_laws_of_the_branches_hold_at_a_power_flow(name: str) -> None:
    circuit = _circuit(name)
    net = port_network(circuit)
    tree = branch_tree(circuit, net)
    flow = power_flow(net, -net.loads.nominal)
    v = [np.zeros(size, dtype=complex) for size in tree.sizes]
    inner = [
        k for k, row in enumerate(tree.node_row) if np.sum(row == 1.0) == 1 == np.sum(row != 0)
    ]
    for k in inner:
        v[tree.node_bus[k]][np.argmax(tree.node_row[k] == 1.0)] = flow.v[k]
    # Nodes in dead ends follow from the bus that these are at.
    for k, row in enumerate(tree.node_row):
        assert row @ v[tree.node_bus[k]] == pytest.approx(flow.v[k], abs=1e-7)
    below = [
        np.linalg.solve(b.z, b.ratio @ v[b.parent][b.above] - v[b.child]) for b in tree.branches
    ]
    # Kirchhoff's law at each bus, with what the ports inject.
    left = [-y @ x for y, x in zip(tree.shunts, v, strict=True)]
    left[0] = left[0] + np.linalg.solve(tree.source_z, tree.source_v - v[0])
    for b, j in zip(tree.branches, below, strict=True):
        left[b.child] = left[b.child] + j
        left[b.parent][b.above] -= b.shunt @ v[b.parent][b.above] + b.ratio_back @ j
    index = {label: k for k, label in enumerate(net.nodes)}
    for port, current in zip(net.ports, flow.i, strict=True):
        bus, _, phases = port.rpartition(".")
        for phase, sign in zip(phases.split("-"), (1.0, -1.0), strict=False):
            k = index[f"{bus}.{phase}"]
            left[tree.node_bus[k]] = left[tree.node_bus[k]] + sign * current * tree.node_row[k]
    assert max(np.abs(x).max() for x in left) < 1e-6
    rated = net.line_w + net.line_z @ flow.i
    for one in tree.rated:
        b = tree.branches[one.branch]
        both = np.concatenate([v[b.parent][b.above], below[one.branch]])
        assert one.row @ both == pytest.approx(rated[one.line], abs=1e-6)
    assert len(tree.rated) + len(tree.unrated) == len(net.lines)


def test_a_mesh_is_refused() -> None:
    feeder = load_feeder("ieee13")
    tie = Switch("tie", "632", "675", (1, 2, 3), closed=True)
    circuit = _circuit(replace(feeder, switches=(*feeder.switches, tie)))
    with pytest.raises(TopologyError, match=r"meshed: a loop closes between buses '\w+' and '\w+'"):
        branch_tree(circuit, port_network(circuit))


def test_a_delta_winding_that_feeds_loads_is_refused() -> None:
    feeder = load_feeder("ieee13")
    fed = next(t for t in feeder.transformers if t.windings[1].bus == "634")
    delta = replace(fed.windings[1], connection="delta", nodes=(1, 2, 3))
    changed = replace(fed, windings=(fed.windings[0], delta))
    units = tuple(changed if t is fed else t for t in feeder.transformers)
    circuit = _circuit(replace(feeder, transformers=units))
    with pytest.raises(FeederError, match=r"bus '634'.*open"):
        branch_tree(circuit, port_network(circuit))
