"""Load shedding, machine protection and automatic generation control."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid_models.base.options import parse_options
from grid_models.transmission.machine_options import Controls
from grid_models.transmission.machines import MachineDynamics
from grid_models.transmission.model import BusDemand, TransmissionError
from grid_models.transmission.protection import (
    GenerationControl,
    LoadShedding,
    MachineProtection,
    Relays,
)
from grid_models.transmission.system import load_system
from tests.grid_models.transmission._undisturbed import undisturbed


@given(st.lists(st.booleans(), max_size=40), st.integers(1, 6))
def test_a_relay_acts_once_after_its_delay_without_interruption(
    beyond: list[bool], steps: int
) -> None:
    relays = Relays((1,), 0.1 * steps)
    acted = [bool(relays.look(np.array([b]), 0.1)[0]) for b in beyond]
    text = "".join("x" if b else "." for b in beyond)
    first = text.find("x" * steps)
    assert acted.count(True) == (first >= 0)
    if first >= 0:
        assert acted.index(True) == first + steps - 1


def test_generation_control_brings_frequency_and_tie_flow_back() -> None:
    system = load_system("kundur")
    agc = GenerationControl(integral_s=20.0)
    dynamics, done = MachineDynamics(system, step_s=0.1, agc=agc), undisturbed(system)
    done.load_mw[8] = 150.0
    state = dynamics.advance(80.0, BusDemand.none(11), done)
    assert state.coi_hz == pytest.approx(60.0, abs=0.003)
    assert state.flow_mw[system.tie].sum() == pytest.approx(400.3, abs=3.0)
    # The machines of the area with the new load carry it, but for the losses.
    assert state.p_mech_mw[2:].sum() == pytest.approx(1419.1 + 150.0, abs=15.0)


def test_load_shedding_stops_the_decline_of_an_island() -> None:
    system = load_system("kundur")
    demand = BusDemand.none(11)
    shed = LoadShedding(stages=((59.5, 0.1), (59.2, 0.1)), delay_s=0.1)
    ends = {}
    for options in (None, shed):
        dynamics, done = MachineDynamics(system, load_shedding=options), undisturbed(system)
        done.branch_in[system.tie] = False
        ends[options] = dynamics.advance(6.0, demand, done).frequency_hz[8]
        events = [e for e in dynamics.take_events() if e.kind == "load_shed"]
    assert ends[shed] > ends[None] + 0.1
    first = events[0]
    assert first.details["stage_hz"] == 59.5
    assert first.details["buses"] == "9"
    plain = MachineDynamics(system)
    before = plain.advance(first.time_s, demand, done)
    assert first.details["load_mw"] == pytest.approx(0.1 * before.load_mw[8])


def test_machines_out_of_their_frequency_range_trip_after_a_delay() -> None:
    system = load_system("kundur")
    protection = MachineProtection(under_hz=59.0, over_hz=60.5, delay_s=0.5)
    dynamics = MachineDynamics(system, machine_protection=protection)
    done = undisturbed(system)
    done.branch_in[system.branches.index("1-5-1")] = False
    dynamics.advance(2.0, BusDemand.none(11), done)
    trip = [e for e in dynamics.take_events() if e.kind == "machine_tripped"]
    assert [e.details["machine"] for e in trip] == ["G1"]
    assert 0.5 <= trip[0].time_s <= 1.0
    assert dynamics.state.v[0] == 0.0


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (LoadShedding, {"stages": [[59.5]]}, "a list of pairs"),
        (LoadShedding, {"stages": [[59.5, 0.8], [59.0, 0.3]]}, "more than the whole load"),
        (LoadShedding, {"delay": 1.0}, "did you mean 'delay_s'"),
        (MachineProtection, {"under_hz": 62.0}, "less than over_hz, 61.8"),
        (GenerationControl, {"cycle_s": 0.0}, "a number above 0"),
    ],
)
def test_options_that_cannot_be_used_are_refused(
    kind: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(TransmissionError, match=message):
        parse_options(kind, options, "here")


def test_generation_control_needs_governors_and_whole_cycles() -> None:
    system = load_system("kundur")
    with pytest.raises(TransmissionError, match="machines without governor"):
        MachineDynamics(system, controls=Controls(governor=None), agc=GenerationControl())
    with pytest.raises(TransmissionError, match="a multiple of the dynamics' step"):
        MachineDynamics(system, agc=GenerationControl(cycle_s=0.13))


def test_relays_of_60_hz_are_refused_in_a_system_of_50_hz() -> None:
    system = replace(load_system("kundur"), nominal_hz=50.0)
    with pytest.raises(TransmissionError, match=r"a stage at 59\.5 Hz.*nominal 50 Hz"):
        MachineDynamics(system, load_shedding=LoadShedding())
    with pytest.raises(TransmissionError, match=r"limits of 57\.5 and 61\.8 Hz"):
        MachineDynamics(system, machine_protection=MachineProtection())
