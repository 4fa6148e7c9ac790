"""The branch-flow network: what is merged, cut and folded, and what per unit means."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grid_models.base.errors import GridModelError, TopologyError
from grid_models.branch_flow.model import branch_network
from grid_models.catalog import load_feeder
from grid_models.feeder.model import Bus, Feeder, Line, Source, Switch

IEEE123 = load_feeder("ieee123")
# Self 0.5 + j1.0 ohm, mutual 0.2 + j0.4: 0.3 + j0.6 for balanced currents.
Z_OHM = np.full((3, 3), 0.2 + 0.4j) + np.diag(np.full(3, 0.3 + 0.6j))


def three_bus_feeder(norm_amps: float | None = None, ohm_scale: float = 1.0) -> Feeder:
    """A three-phase line from a to b, then a single-phase lateral on phase 2 to c."""
    buses = {
        "a": Bus("a", (1, 2, 3), 2.4),
        "b": Bus("b", (1, 2, 3), 2.4),
        "c": Bus("c", (2,), 2.4),
        "d": Bus("d", (2,), 2.4),
    }
    no_charging = np.zeros((3, 3))
    lines = (
        Line("ab", "a", "b", (1, 2, 3), ohm_scale * Z_OHM, no_charging, norm_amps=norm_amps),
        Line("bc", "b", "c", (2,), ohm_scale * Z_OHM[:1, :1], no_charging[:1, :1]),
    )
    switches = (Switch("cd", "c", "d", (2,), True),)
    kv_ll = float(2.4 * np.sqrt(3))
    return Feeder("three", Source("a", kv_ll), buses, lines=lines, switches=switches)


def test_ieee_123_has_the_size_that_the_market_is_known_by() -> None:
    network = branch_network(IEEE123)
    # The thesis' market: 118 lines, 85 load nodes; the feeder's own tables: 3490 kW + j1920 kvar.
    assert network.size == 119
    assert int(network.depth.max()) == 19
    assert len({network.row_of[load.bus] for load in IEEE123.loads}) == 85
    assert sum(load.kw for load in IEEE123.loads) == 3490
    assert sum(load.kvar for load in IEEE123.loads) == 1920
    # 750 kvar of capacitors and a little line charging.
    assert 0.750 < network.b_pu.sum() < 0.752


@pytest.mark.parametrize("name", ["ieee13", "ieee123", "ieee123-der-rich"])
def test_parents_come_first_and_every_bus_has_a_row(name: str) -> None:
    feeder = load_feeder(name)
    network = branch_network(feeder)
    assert network.parent[0] == -1
    assert (network.parent[1:] < np.arange(1, network.size)).all()
    assert (network.parent[1:] >= 0).all()
    assert set(network.row_of) == set(feeder.buses)
    assert [network.row_of[bus] for bus in network.buses] == list(range(network.size))
    assert (network.r_pu[1:] > 0).all()


def test_three_phases_and_a_lateral_get_the_impedance_of_their_total_power() -> None:
    network = branch_network(three_bus_feeder())
    assert network.buses == ("a", "b", "c")
    assert network.row_of["d"] == 2
    base_ohm = 3 * 2.4**2 / 1.0  # 1 MVA
    # Balanced: self less mutual. Lateral: a third of the phases, three times the impedance.
    np.testing.assert_allclose(network.r_pu, [0, 0.3 / base_ohm, 3 * 0.5 / base_ohm])
    np.testing.assert_allclose(network.x_pu, [0, 0.6 / base_ohm, 3 * 1.0 / base_ohm])
    assert np.isinf(network.l_max_pu).all()


def test_a_rating_in_amperes_becomes_a_squared_current() -> None:
    network = branch_network(three_bus_feeder(norm_amps=100.0))
    # 3 x 2.4 kV x 100 A = 720 kVA.
    assert network.l_max_pu[1] == pytest.approx(0.72**2)
    assert np.isinf(branch_network(three_bus_feeder(100.0), ratings=False).l_max_pu).all()


@settings(max_examples=25, deadline=None)
@given(st.floats(1.0, 1e5), st.floats(0.1, 10.0))
def test_impedance_is_in_proportion_to_the_base_and_to_the_ohms(base: float, scale: float) -> None:
    one = branch_network(three_bus_feeder(norm_amps=50.0))
    other = branch_network(three_bus_feeder(norm_amps=50.0, ohm_scale=scale), base_kva=base)
    np.testing.assert_allclose(other.r_pu, one.r_pu * scale * base / 1000.0)
    np.testing.assert_allclose(other.l_max_pu[1], one.l_max_pu[1] * (1000.0 / base) ** 2)


@settings(max_examples=15, deadline=None)
@given(st.floats(0.0, 0.05))
def test_merging_loses_no_bus_and_only_short_lines(merge_ohm: float) -> None:
    whole, network = (
        branch_network(IEEE123, merge_ohm=0.0),
        branch_network(IEEE123, merge_ohm=merge_ohm),
    )
    assert network.size <= whole.size
    assert set(network.row_of) == set(whole.row_of)
    # Ohms of the equivalent, total power at line-to-neutral voltage; 1 MVA.
    kept = 4.16**2 / 3 * np.hypot(network.r_pu, network.x_pu)[1:]
    assert (kept >= 0.99 * merge_ohm).all()
    assert network.b_pu.sum() == pytest.approx(whole.b_pu.sum())


def test_an_open_switch_cuts_and_a_closed_tie_is_refused() -> None:
    names = {switch.name: switch for switch in IEEE123.switches}
    tie = next(s for s in names.values() if {s.from_bus, s.to_bus} == {"54", "94"})
    closed = tuple(replace(s, closed=True) if s == tie else s for s in IEEE123.switches)
    with pytest.raises(TopologyError, match="meshed"):
        branch_network(replace(IEEE123, switches=closed))


def test_folded_ratios_give_the_feeder_s_own_voltages_back() -> None:
    network = branch_network(IEEE123, ratios="folded")
    assert network.v_scale is not None
    # Regulator 1 stands at +7 steps of 0.00625 between the root and bus 1.
    first = network.row_of["1"]
    assert network.v_scale[first] == pytest.approx(1 + 7 * 0.00625)
    plain = branch_network(IEEE123)
    assert plain.v_scale is None
    # The same ohms on a higher base.
    assert network.r_pu[first] == pytest.approx(plain.r_pu[first] / 1.04375**2)


def test_a_transformer_is_an_impedance_with_a_rating() -> None:
    network = branch_network(IEEE123)
    row = network.row_of["610"]
    # 150 kVA, 2 x 0.635 % and 2.72 %, on 1 MVA; at 0.48 kV a small ohm value, and kept.
    assert network.buses[row] == "610"
    assert network.r_pu[row] == pytest.approx(0.0127 / 0.15)
    assert network.x_pu[row] == pytest.approx(0.0272 / 0.15)
    assert network.l_max_pu[row] == pytest.approx(0.15**2)


def test_bad_arguments_and_unknown_buses_are_named() -> None:
    with pytest.raises(GridModelError, match="above 0"):
        branch_network(IEEE123, base_kva=0.0)
    with pytest.raises(GridModelError, match="did you mean 'folded'"):
        branch_network(IEEE123, ratios="fold")  # type: ignore[arg-type]
    with pytest.raises(GridModelError, match="no bus 'x'"):
        branch_network(IEEE123).position("x")
