"""Homes: one DER per house, and which devices belong to which house."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid_models.catalog import load_feeder
from grid_models.ders.homes import HOME_KINDS, homes_of, single_units
from grid_models.ders.rich_feeder import shipped_ders
from grid_models.feeder.model import Der


def der(name, kind, bus="1", phases=(1,), **more):
    energy = {"battery": 13.5, "flexible_load": 1.2}.get(kind, 0.0)
    return Der(name, kind, bus, phases, 5.0, 0.0, -5.0, **{"energy_kwh": energy, **more})


def test_the_feeder_of_homes_is_the_der_rich_one_unit_by_unit():
    rich, homes = load_feeder("ieee123-der-rich"), load_feeder("ieee123-der-rich-homes")
    assert len(homes.ders) == 1736
    assert Counter(d.kind for d in homes.ders) == {
        "house": 1008, "flexible_load": 348, "pv": 207, "battery": 173
    }  # fmt: skip
    assert homes.loads == ()
    assert {d.count for d in homes.ders} == {1}
    assert len({d.name.lower() for d in homes.ders}) == 1736
    assert homes.ders[0].name == "house_1_1_0"
    for row in rich.ders:
        mine = [d for d in homes.ders if d.name.rpartition("_")[0] == row.name]
        if row.kind in ("house", "flexible_load"):
            assert len(mine) == row.count
            assert {(d.bus, d.phases, d.kind) for d in mine} == {(row.bus, row.phases, row.kind)}
            for field in ("kva", "p_min_kw", "p_max_kw", "energy_kwh"):
                total = sum(getattr(d, field) for d in mine)
                assert total == pytest.approx(getattr(row, field), rel=1e-12)
        else:
            assert row in homes.ders


def test_the_houses_of_a_row_are_as_large_as_those_the_plant_simulates():
    from grid_models.ders.houses import houses_of_ders

    row = shipped_ders()[0]
    parameters, _ = houses_of_ders([row], seed=0)
    rated = parameters.hvac_kw + parameters.base_kw
    assert [-d.p_min_kw for d in single_units([row])] == pytest.approx(list(rated), rel=1e-12)


def test_every_device_of_the_der_rich_feeder_is_in_a_home_with_its_bus_and_phase():
    ders = load_feeder("ieee123-der-rich-homes").ders
    table = homes_of(ders)
    assert len(table.names) == 1008
    assert (table.house >= 0).all()
    assert [ders[i].name for i in table.house] == list(table.names)
    for i, d in enumerate(ders):
        house = ders[table.house[table.home[i]]]
        assert (d.bus, d.phases) == (house.bus, house.phases)
    # Nowhere are more units of a kind than houses, so no home has two.
    for kind in HOME_KINDS:
        held = np.bincount(table.home[[d.kind == kind for d in ders]], minlength=1008)
        assert held.max() == (kind != "vehicle")


def test_a_row_of_several_houses_is_one_home():
    ders = shipped_ders()
    table = homes_of(ders)
    assert len(table.names) == sum(d.kind == "house" for d in ders)
    assert set(table.home.tolist()) == set(range(len(table.names)))


def test_phases_buses_without_houses_and_what_is_no_device_of_a_home():
    ders = (
        der("h1", "house"),
        der("h2", "house", phases=(2,)),
        der("h3", "house", phases=(2,)),
        der("pv_3", "pv", phases=(3,)),
        der("pv_2", "pv", phases=(2,)),
        der("pv_23", "pv", phases=(2, 3)),
        der("pv_alone", "pv", bus="2"),
        der("bat_alone", "battery", bus="2"),
        der("inverter", "inverter"),
        der("shed", "flexible_load", energy_kwh=0.0),
        der("tank", "flexible_load", phases=(2,)),
    )
    table = homes_of(ders)
    assert table.names == ("h1", "h2", "h3", "pv_alone", "bat_alone")
    assert table.bus == ("1", "1", "1", "2", "2")
    assert table.house.tolist() == [0, 1, 2, -1, -1]
    #                                h1 h2 h3 3  2  23 alone inv shed tank
    assert table.home.tolist() == [0, 1, 2, 0, 1, 2, 3, 4, -1, -1, 1]
    empty = homes_of(())
    assert empty.names == ()
    assert empty.house.shape == empty.home.shape == (0,)


@given(
    houses=st.integers(1, 5),
    units=st.dictionaries(st.sampled_from(["pv", "battery", "flexible_load"]), st.integers(0, 12)),
)
def test_units_go_to_the_houses_in_turn(houses, units):
    ders = [der(f"house_{k}", "house") for k in range(houses)]
    ders += [der(f"{kind}_{k}", kind) for kind, n in units.items() for k in range(n)]
    table = homes_of(ders)
    for kind, n in units.items():
        held = np.bincount(table.home[[d.kind == kind for d in ders]], minlength=houses)
        assert held.sum() == n
        assert held.max() - held.min() <= 1
