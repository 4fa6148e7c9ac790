"""Machines, controls, loads and network: modes, and what happens to a disturbed system."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from grid_models.transmission.machine_options import Controls, LoadModel
from grid_models.transmission.machines import MachineDynamics
from grid_models.transmission.model import BusDemand, TransmissionError
from grid_models.transmission.solver import Trapezoid, state_matrix
from grid_models.transmission.system import load_system
from tests.grid_models.transmission._undisturbed import undisturbed

BUS_9 = 8


def test_modes_are_those_of_the_book() -> None:
    # Kundur (1994), example 12.6, manual excitation and constant torque: table E12.2 (i).
    book = np.array([-0.111 + 3.43j, -0.492 + 6.82j, -0.506 + 7.02j])
    model = MachineDynamics(
        load_system("kundur"),
        controls=Controls(avr=None, stabiliser=None, governor=None),
        load_model=LoadModel(p_by_frequency=0.0),
    )
    equations = model.equations
    equations.linearise_saturation(model.x, model.v)
    modes = np.linalg.eigvals(state_matrix(equations, model.x, model.v, model.demand))
    electromechanical = np.sort_complex(modes[modes.imag > 1.0])[::-1]
    assert np.abs(electromechanical - book).max() < 0.015


@pytest.mark.parametrize("name", ["kundur", "ieee39"])
def test_the_default_controls_make_both_systems_stable(name: str) -> None:
    model = MachineDynamics(load_system(name))
    modes = np.linalg.eigvals(state_matrix(model.equations, model.x, model.v, model.demand))
    # One eigenvalue is 0: turning all angles changes nothing.
    assert np.sort(modes.real)[-1] == pytest.approx(0.0, abs=1e-9)
    assert np.sort(modes.real)[-2] < -0.05


def test_a_load_step_is_that_of_lsoda() -> None:
    system = load_system("kundur")
    model, done = MachineDynamics(system), undisturbed(system)
    done.load_mw[BUS_9] = 359.0
    model.advance(0.0, BusDemand.none(11), done)
    e, demand, v = model.equations, model.demand, model.v
    network = Trapezoid(e, 1.0, 1e-11)

    def rates(_t: float, x: np.ndarray) -> np.ndarray:
        nonlocal v
        v = network.settle(x.reshape(12, 4), v, demand)
        return e.rates(x.reshape(12, 4), v, demand.reference).ravel()

    found = solve_ivp(rates, (0.0, 2.0), model.x.ravel(), "LSODA", rtol=1e-8, atol=1e-10)
    exact = found.y[:, -1].reshape(12, 4)
    end = model.advance(2.0, BusDemand.none(11), done)
    assert abs(end.coi_hz - 60.0 * (1.0 + e.inertia @ exact[1])) < 1e-4
    assert np.abs(end.speed_hz - 60.0 * (1.0 + exact[1])).max() < 3e-4


@pytest.mark.parametrize("name", ["kundur", "ieee39"])
@pytest.mark.parametrize("model", ["sixth", "classical"])
def test_an_undisturbed_system_stays_where_it_is(name: str, model: str) -> None:
    system = load_system(name)
    dynamics = MachineDynamics(system, model=model)  # type: ignore[arg-type]  # of two literals
    start = dynamics.state
    end = dynamics.advance(2.0, BusDemand.none(len(system.buses)), undisturbed(system))
    assert np.abs(np.abs(end.v) - np.abs(start.v)).max() < 1e-9
    assert end.coi_hz == pytest.approx(60.0, abs=1e-9)
    assert dynamics.take_events() == []


def test_a_step_of_359_mw_at_bus_9() -> None:
    # Figures of an independent implementation: nadir 59.799 Hz at 2.3 s, tie 400 to 592 MW.
    system = load_system("kundur")
    dynamics, done = MachineDynamics(system), undisturbed(system)
    demand = BusDemand.none(len(system.buses))
    assert dynamics.state.flow_mw[system.tie].sum() == pytest.approx(400.3, abs=0.1)
    done.load_mw[BUS_9] = 359.0
    states = [dynamics.advance(0.1 * k, demand, done) for k in range(1, 51)]
    hz = np.array([state.coi_hz for state in states])
    assert hz.min() == pytest.approx(59.799, abs=0.001)
    assert 0.1 * (1 + hz.argmin()) == pytest.approx(2.3, abs=0.15)
    assert max(state.flow_mw[system.tie].sum() for state in states) == pytest.approx(592.0, abs=2.0)


def test_power_is_balanced_at_every_moment() -> None:
    system = load_system("ieee39")
    dynamics, done = MachineDynamics(system), undisturbed(system)
    done.load_mw[15] = 200.0
    state = dynamics.advance(1.0, BusDemand.none(39), done)
    v = state.v
    losses = (v * (system.admittance() @ v).conj()).real.sum() * system.base_mva
    assert state.p_mw.sum() == pytest.approx(state.load_mw.sum() + losses, abs=1e-5)


def test_too_much_load_ends_in_a_collapse_that_is_reported_once() -> None:
    system = load_system("kundur")
    dynamics, done = MachineDynamics(system), undisturbed(system)
    demand = BusDemand.none(11)
    done.load_mw[BUS_9] = 1200.0
    state = dynamics.advance(0.1, demand, done)
    assert np.isnan(state.coi_hz)
    assert not state.v.any()
    assert not state.load_mw.any()
    state = dynamics.advance(5.0, demand, done)
    assert [event.kind for event in dynamics.take_events()] == ["collapsed"]


@pytest.mark.parametrize(
    ("controls", "load_model"),
    [(None, LoadModel(p_exponent=0.0)), (Controls(avr=None, stabiliser=None), None)],
)
def test_the_two_areas_are_limited_by_voltage(
    controls: Controls | None, load_model: LoadModel | None
) -> None:
    system = load_system("kundur")
    dynamics = MachineDynamics(system, controls=controls, load_model=load_model)
    done = undisturbed(system)
    done.load_mw[BUS_9] = 359.0
    dynamics.advance(2.0, BusDemand.none(11), done)
    assert [event.kind for event in dynamics.take_events()] == ["collapsed"]


def test_an_island_can_collapse_while_the_rest_goes_on() -> None:
    system = load_system("kundur")
    dynamics, done = MachineDynamics(system), undisturbed(system)
    done.branch_in[system.tie] = False
    done.load_mw[BUS_9] = 1200.0
    state = dynamics.advance(1.0, BusDemand.none(11), done)
    first = np.array([area == "1" for area in system.areas])
    assert (np.abs(state.v[first]) > 0.9).all()
    assert not state.v[~first].any()
    assert state.coi_hz > 60.0
    kinds = [event.kind for event in dynamics.take_events()]
    assert "island_collapsed" in kinds
    assert "collapsed" not in kinds


def test_the_tie_can_close_again_on_islands_that_are_in_phase() -> None:
    system = load_system("kundur")
    dynamics, done = MachineDynamics(system), undisturbed(system)
    demand = BusDemand.none(11)
    done.branch_in[system.tie] = False
    parted = dynamics.advance(0.1, demand, done)
    # The first area is without 400 MW of demand; its angle runs ahead of the second's.
    ahead = np.angle(parted.v[6] / parted.v[8]) - np.angle(dynamics.v[6] / dynamics.v[8])
    assert ahead > 0.0
    done.branch_in[:] = True
    state = dynamics.advance(5.0, demand, done)
    assert state.flow_mw[system.tie].sum() == pytest.approx(400.0, abs=60.0)
    assert np.ptp(state.frequency_hz) < 0.1


def test_the_exchange_step_changes_no_bit_while_nothing_else_changes() -> None:
    system = load_system("ieee39")
    ends = []
    for steps in (1, 10):
        dynamics, done = MachineDynamics(system), undisturbed(system)
        done.load_mw[15] = 200.0
        for k in range(1, steps + 1):
            state = dynamics.advance(round(k / steps, 6), BusDemand.none(39), done)
        ends.append(state.v)
    assert np.array_equal(*ends)


@settings(max_examples=25)
@given(
    st.lists(st.floats(-60.0, 60.0), min_size=11, max_size=11),
    st.lists(st.floats(-2.0, 2.0), min_size=11, max_size=11),
)
def test_what_machines_make_is_what_loads_and_lines_take(
    load_mw: list[float], slope_pu: list[float]
) -> None:
    system = load_system("kundur")
    dynamics, done = MachineDynamics(system), undisturbed(system)
    none, slope = np.zeros(11), 100.0 * np.array(slope_pu)
    done.load_mw[:] = load_mw
    demand = BusDemand(none, none, slope, slope, np.ones(11))
    state = dynamics.advance(0.04, demand, done)
    v = state.v
    losses = (v * (system.admittance() @ v).conj()).sum() * system.base_mva
    made = (state.p_mw + 1j * state.q_mvar).sum()
    assert made == pytest.approx((state.load_mw + 1j * state.load_mvar).sum() + losses, abs=1e-4)


def test_the_areas_go_on_as_islands_without_their_tie() -> None:
    system = load_system("kundur")
    dynamics, done = MachineDynamics(system), undisturbed(system)
    done.branch_in[system.tie] = False
    state = dynamics.advance(8.0, BusDemand.none(11), done)
    (event,) = dynamics.take_events()
    assert (event.kind, event.details["buses"]) == ("islanded", "1, 2, 5, 6, 7")
    first = np.array([area == "1" for area in system.areas])
    assert (state.frequency_hz[first] > 60.2).all()
    assert (state.frequency_hz[~first] < 59.8).all()
    assert not state.flow_mw[system.tie].any()


def test_buses_without_a_machine_are_dead() -> None:
    system = load_system("ieee39")
    dynamics, done = MachineDynamics(system), undisturbed(system)
    done.branch_in[[b.split("-")[0] == "12" for b in system.branches]] = False
    state = dynamics.advance(0.1, BusDemand.none(39), done)
    assert np.flatnonzero(state.v == 0.0).tolist() == [11]
    assert state.load_mw[11] == 0.0
    assert np.isnan(state.frequency_hz[11])
    (event,) = dynamics.take_events()
    assert event.details == {"buses": "12", "energised": "no"}
    done.branch_in[:] = True
    state = dynamics.advance(0.2, BusDemand.none(39), done)
    assert abs(state.v[11]) > 0.9


def test_a_tripped_machine_stays_out() -> None:
    system = load_system("kundur")
    dynamics, done = MachineDynamics(system), undisturbed(system)
    done.machine_in[0] = False
    state = dynamics.advance(1.0, BusDemand.none(11), done)
    assert state.p_mw[0] == 0.0
    assert np.isnan(state.speed_hz[0])
    assert state.coi_hz < 59.8
    done.machine_in[0] = True
    with pytest.raises(TransmissionError, match="machine 'G1' was tripped"):
        dynamics.advance(1.1, BusDemand.none(11), done)


def test_feeders_that_stand_for_a_part_of_the_load_change_nothing_at_the_start() -> None:
    system = load_system("kundur")
    dynamics = MachineDynamics(system)
    p_mw, q_mvar, none = np.zeros(11), np.zeros(11), np.zeros(11)
    p_mw[BUS_9], q_mvar[BUS_9] = 729.0, 60.0
    dynamics.separate(p_mw, q_mvar)
    v_pu = np.abs(dynamics.state.v)
    fed = BusDemand(p_mw, q_mvar, none, none, v_pu)
    state = dynamics.advance(1.0, fed, undisturbed(system))
    assert state.coi_hz == pytest.approx(60.0, abs=1e-9)
    assert state.load_mw[BUS_9] == pytest.approx(1767.0)


@pytest.mark.parametrize("until_s", [0.013, -0.02])
def test_a_time_between_steps_or_before_now_is_refused(until_s: float) -> None:
    system = load_system("kundur")
    with pytest.raises(TransmissionError, match=r"multiple of the step of 0\.02 s"):
        MachineDynamics(system).advance(until_s, BusDemand.none(11), undisturbed(system))


def test_an_unknown_machine_model_names_the_nearest() -> None:
    with pytest.raises(TransmissionError, match="did you mean 'classical'"):
        MachineDynamics(load_system("kundur"), model="clasical")  # type: ignore[arg-type]
