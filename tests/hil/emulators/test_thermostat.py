"""Thermostats: verbs, heartbeat, house."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid_models.ders.houses import HouseFleet, HouseParameters
from hil.emulators.thermostat_plant import ThermostatPlant, thermostats
from hil.servers.pdu import Refused, Table
from hil.servers.point_map import markdown_table
from hil.servers.thermostat import Thermostat
from hil.servers.thermostat_map import THERMOSTAT_MAP, Mode, Status, Verb

COOL, HEAT, MODE, VERB, DURATION, BEAT, BEAT_S = range(7)


def write(thermostat: Thermostat, address: int, *values: int) -> None:
    thermostat.bank.write(Table.holding, address, values)


@pytest.mark.parametrize(
    ("verb", "cool_c", "heat_c", "runs"),
    [
        (Verb.end_shed, 24.0, 20.0, True),
        (Verb.shed, 26.0, 18.0, True),
        (Verb.critical_peak, 28.0, 16.0, True),
        (Verb.grid_emergency, 24.0, 20.0, False),
        (Verb.load_up, 22.25, 21.75, True),  # 22 and 22 would meet: half a degree is kept
    ],
)
def test_verbs(verb: Verb, cool_c: float, heat_c: float, runs: bool) -> None:
    thermostat = Thermostat()
    write(thermostat, VERB, verb)
    targets = thermostat.targets
    assert (targets.cool_c, targets.heat_c, targets.may_run) == (cool_c, heat_c, runs)


def test_a_verb_with_a_duration_ends_by_itself() -> None:
    thermostat = Thermostat()
    write(thermostat, DURATION, 60)
    write(thermostat, VERB, Verb.shed)
    thermostat.advance(59.5)
    assert thermostat.verb is Verb.shed
    assert thermostat.bank.values["remaining_s"] == 1
    thermostat.advance(0.5)
    assert thermostat.verb is Verb.end_shed
    assert thermostat.targets.cool_c == 24.0


def test_a_lost_heartbeat_brings_back_the_safe_set_points() -> None:
    thermostat = Thermostat()
    thermostat.set_home(25.0, 19.0)
    write(thermostat, COOL, 300, 100)
    write(thermostat, VERB, Verb.grid_emergency)
    thermostat.advance(1000.0)  # nobody promised a heartbeat
    assert not thermostat.targets.may_run
    write(thermostat, BEAT, 1)
    thermostat.advance(20.0)
    write(thermostat, BEAT, 1)  # the same value again is no sign of life
    thermostat.advance(9.9)
    assert not thermostat.targets.may_run
    thermostat.advance(0.2)
    assert thermostat.targets.may_run
    assert (thermostat.targets.cool_c, thermostat.targets.heat_c) == (25.0, 19.0)
    assert int(thermostat.bank.values["status"]) & Status.reverted
    write(thermostat, BEAT, 2)
    assert not int(thermostat.bank.values["status"]) & Status.reverted


def test_modes_and_switch() -> None:
    thermostat = Thermostat()
    write(thermostat, MODE, Mode.cool)
    assert thermostat.targets.heat_c == -math.inf
    write(thermostat, MODE, Mode.heat)
    assert thermostat.targets.cool_c == math.inf
    thermostat.bank.write(Table.coil, 0, [0])
    assert not thermostat.targets.may_run


def test_set_points_keep_their_distance() -> None:
    thermostat = Thermostat()
    for address, values in ((HEAT, [240]), (COOL, [199]), (COOL, [360]), (MODE, [4]), (VERB, [5])):
        with pytest.raises(Refused):
            write(thermostat, address, *values)
    write(thermostat, COOL, 180, 150)  # both at once may pass each other


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 0xFFFF)), max_size=20))
def test_targets_stay_in_range_and_apart_whatever_is_written(writes: list[tuple[int, int]]) -> None:
    thermostat = Thermostat()
    for address, value in writes:
        try:
            write(thermostat, address, value)
        except Refused:
            continue
        thermostat.advance(10.0)
        values = thermostat.bank.values
        assert 5.0 <= values["heat_target_c"] <= values["cool_target_c"] - 0.5 + 1e-6 <= 35.0


def test_emulated_houses_are_the_simulated_houses() -> None:
    """No set-point written: the same fleet, step by step, to the last bit."""
    names = [f"house_{i}" for i in range(20)]
    plant = thermostats(names, 7.0, seed=4)
    fleet = HouseFleet(HouseParameters.draw(names, 4, 7.0))
    for k in range(500):
        outside = 30.0 + 5.0 * math.sin(k / 60.0)
        plant.set_inputs({"temp_out_c": outside})
        plant.advance(10.0)
        total = fleet.step(10.0, outside)
        np.testing.assert_array_equal(-np.array(plant.outputs()["p_kw"]), total)
    np.testing.assert_array_equal(plant.outputs()["temp_in_c"], fleet.temp_in_c)
    assert fleet.hvac_kw.any()


def cooling_kw(plant: ThermostatPlant, seconds: int) -> float:
    mean = 0.0
    for _ in range(seconds // 10):
        plant.advance(10.0)
        mean += sum(plant.outputs()["hvac_kw"]) * 10.0 / seconds
    return mean


def test_shed_and_emergency_save_power_and_load_up_costs_it() -> None:
    names = [f"house_{i}" for i in range(40)]
    mean = {}
    for verb in (Verb.end_shed, Verb.shed, Verb.load_up, Verb.grid_emergency):
        plant = thermostats(names, seed=2, temp_out_c=34.0)
        cooling_kw(plant, 7200)
        for thermostat in plant.thermostats:
            write(thermostat, VERB, verb)
        mean[verb] = cooling_kw(plant, 1800)
    assert mean[Verb.grid_emergency] == 0.0
    assert mean[Verb.shed] < 0.5 * mean[Verb.end_shed]
    assert mean[Verb.load_up] > 1.2 * mean[Verb.end_shed]


def test_registers_show_the_house_within_their_resolution() -> None:
    plant = thermostats(["a"], temp_out_c=38.0)
    for _ in range(400):
        plant.advance(10.0)
        registers = plant.banks[0].read(Table.input, 0, 3)
        outputs = plant.outputs()
        assert abs(registers[0] / 10 - outputs["temp_in_c"][0]) <= 0.05 + 1e-9
        assert abs(registers[1] - 1e3 * outputs["hvac_kw"][0]) <= 0.5 + 1e-9
        assert registers[2] == (outputs["hvac_kw"][0] > 0)
        cooling = plant.banks[0].read(Table.discrete, 0, 2)
        assert list(cooling) == [registers[2], 0]


def test_the_map_has_no_overlaps_and_documents_every_point() -> None:
    taken = [(p.table, p.address + i) for p in THERMOSTAT_MAP for i in range(p.size)]
    assert len(set(taken)) == len(taken)
    assert [p.address for p in THERMOSTAT_MAP if p.name == "verb"] == [VERB]
    table = markdown_table(THERMOSTAT_MAP)
    assert all(f"`{p.name}`" in table for p in THERMOSTAT_MAP)
