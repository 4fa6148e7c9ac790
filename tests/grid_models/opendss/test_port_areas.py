"""A feeder cut into areas: together they are the whole feeder."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grid_models.base.errors import FeederError
from grid_models.catalog import load_feeder
from grid_models.current_injection.model import ComplexArray, PortArea, PortNetwork
from grid_models.current_injection.power_flow import power_flow
from grid_models.feeder.model import Switch
from grid_models.opendss.circuit import Circuit
from grid_models.opendss.port_areas import with_areas
from grid_models.opendss.ports import port_network


@cache
def _network(name: str) -> PortNetwork:
    feeder = load_feeder("ieee13" if name == "meshed" else name)
    if name == "meshed":
        tie = Switch("tie", "632", "675", (1, 2, 3), closed=True)
        feeder = replace(feeder, switches=(*feeder.switches, tie))
    circuit = Circuit.from_feeder(feeder, tolerance_pu=1e-11)
    return with_areas(port_network(circuit), circuit)


def _given(area: PortArea, i: ComplexArray, v: ComplexArray, j: ComplexArray) -> ComplexArray:
    """Return zeta of an area: its ports' currents and what it is given."""
    return np.concatenate([i[area.ports], np.where(area.owns, j - area.j0, v - area.v0)])


def _shared_currents(
    areas: tuple[PortArea, ...], i: ComplexArray, v: list[ComplexArray]
) -> list[ComplexArray]:
    """Return the currents at shared nodes that all areas agree on: a linear fixed point."""
    j = [area.j0.copy() for area in areas]
    for _ in range(200):
        before = [row.copy() for row in j]
        for a, area in enumerate(areas):
            j[a] = area.j0 + area.j @ _given(area, i, v[a], j[a])
            for q in set(area.neighbour.tolist()):
                takes = (area.neighbour == q) & ~area.owns
                j[q][(areas[q].neighbour == a) & areas[q].owns] = j[a][takes]
        if max(np.abs(x - y).max(initial=0.0) for x, y in zip(j, before, strict=True)) < 1e-13:
            break
    return j


@settings(max_examples=12, deadline=None)
@given(
    name=st.sampled_from(["ieee13", "ieee123", "meshed"]),
    k=st.integers(1, 9),
    scale=st.floats(0.0, 1.1),
)
def test_areas_together_are_the_feeder(name: str, k: int, scale: float) -> None:
    network = _network(name)
    areas = network.areas(k)
    flow = power_flow(network, -scale * network.loads.nominal)
    at = {label: n for n, label in enumerate(network.nodes)}
    v = [np.array([flow.v[at[x]] for x in area.shared], dtype=complex) for area in areas]
    j = _shared_currents(areas, flow.i, v)
    lines = dict(zip(network.lines, network.line_w + network.line_z @ flow.i, strict=True))
    seen = 0j
    for a, area in enumerate(areas):
        own, zeta = area.network, _given(area, flow.i, v[a], j[a])
        close = {"rtol": 0.0, "atol": 1e-7}
        np.testing.assert_allclose(own.w + own.z @ zeta, flow.v[area.nodes], **close)
        np.testing.assert_allclose(own.w_port + own.z_port @ zeta, flow.u[area.ports], **close)
        np.testing.assert_allclose(area.v0 + area.v @ zeta, v[a], **close)
        rated = own.line_w + own.line_z @ zeta
        np.testing.assert_allclose(rated, [lines[x] for x in own.lines], **close)
        seen += own.source_power(zeta)
    assert abs(seen - flow.s_import) < 1e-7
    whole = (network.nodes, network.ports, network.lines)
    parts = [(x.network.nodes, x.network.ports, x.network.lines) for x in areas]
    for i, names in enumerate(whole):
        assert sorted(x for part in parts for x in part[i]) == sorted(names)


def test_a_shared_node_has_one_owner_and_one_user() -> None:
    areas = _network("ieee123").areas(6)
    for a, area in enumerate(areas):
        for q, label, owns in zip(area.neighbour, area.shared, area.owns, strict=True):
            other = areas[q]
            same = [i for i, x in enumerate(other.shared) if x == label and other.neighbour[i] == a]
            assert len(same) == 1
            assert other.owns[same[0]] != owns


def test_what_cannot_be_cut_is_refused() -> None:
    network = _network("ieee13")
    with pytest.raises(FeederError, match="cannot cut into 99 areas"):
        network.areas(99)
    with pytest.raises(FeederError, match="cannot be cut into areas"):
        network.areas(2)[0].network.areas(2)
