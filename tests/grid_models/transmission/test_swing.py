"""The linear swing network against a general integrator and against sums that must hold."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from grid_models.transmission.model import BusDemand, Disturbance, TransmissionError
from grid_models.transmission.swing import SwingNetwork
from grid_models.transmission.system import load_system

SYSTEM = load_system("ieee39")
N, BASE = len(SYSTEM.buses), SYSTEM.base_mva
LOST = [SYSTEM.buses.index(bus) for bus in ("37", "39")]


def calm() -> Disturbance:
    n_branches, n_machines = len(SYSTEM.branches), len(SYSTEM.machines)
    return Disturbance(
        np.zeros(N),
        np.ones(N),
        np.full(N, np.nan),
        np.ones(n_branches, bool),
        np.ones(n_machines, bool),
    )


def crash() -> Disturbance:
    """Net injections of buses 37 and 39 (5.4 and -1.04 pu) set to zero."""
    done = calm()
    done.injection_mw[LOST] = 0.0
    return done


def test_start_is_steady() -> None:
    plant = SwingNetwork(SYSTEM)
    first = plant.state
    later = plant.advance(10.0, BusDemand.none(N), calm())
    assert np.abs(later.frequency_hz - 60.0).max() < 1e-12
    assert np.abs(later.flow_mw - first.flow_mw).max() < 1e-8
    assert first.p_mech_mw.sum() == pytest.approx(SYSTEM.load_mw.sum(), abs=1e-9)


def test_steps_follow_the_differential_equations() -> None:
    """An integrator of scipy, with the equations of the module's text written bus by bus."""
    plant = SwingNetwork(SYSTEM, inertia_pu=8.0, damping_pu=1.5)
    start = plant.state
    done, t_end = crash(), 0.4
    for k in range(8):
        after = plant.advance(0.05 * (k + 1), BusDemand.none(N), done)
    net = -after.load_mw / BASE
    net[SYSTEM.machine.bus] += after.p_mech_mw / BASE
    swings = np.isin(np.arange(N), SYSTEM.machine.bus)

    def speeds(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        flow = (x[SYSTEM.branch_from] - x[SYSTEM.branch_to]) / SYSTEM.x_pu
        surplus = net.copy()
        np.subtract.at(surplus, SYSTEM.branch_from, flow)
        np.add.at(surplus, SYSTEM.branch_to, flow)
        return np.where(swings, x[N:], surplus / 1.5), surplus

    def rate(_: float, x: np.ndarray) -> np.ndarray:
        omega, surplus = speeds(x)
        return np.concatenate([omega, np.where(swings, (surplus - 1.5 * omega) / 8.0, 0.0)])

    x0 = np.concatenate([np.angle(start.v), np.zeros(N)])
    solved = solve_ivp(rate, (0.0, t_end), x0, method="LSODA", rtol=1e-10, atol=1e-12).y[:, -1]
    hz = 60.0 + speeds(solved)[0] / (2.0 * np.pi)
    assert np.abs(after.frequency_hz - hz).max() < 1e-8


def test_steady_deviation_is_imbalance_over_damping() -> None:
    plant = SwingNetwork(SYSTEM)
    state = plant.advance(1000.0, BusDemand.none(N), crash())
    assert state.frequency_hz - 60.0 == pytest.approx(-4.36 / N / (2.0 * np.pi), abs=1e-9)
    # Electrical power is what the machine delivers: in steady state its mechanical power.
    assert state.p_mw == pytest.approx(state.p_mech_mw, abs=1e-6)


def test_one_long_step_equals_many_short_ones() -> None:
    long, short = SwingNetwork(SYSTEM), SwingNetwork(SYSTEM)
    once = long.advance(1.0, BusDemand.none(N), crash())
    for k in range(20):
        many = short.advance(0.05 * (k + 1), BusDemand.none(N), crash())
    assert once.frequency_hz == pytest.approx(many.frequency_hz, abs=1e-11)


def test_demand_is_taken_at_one_per_unit() -> None:
    """Demand given at 0.9 pu with its slope is what it is at the model's 1 pu."""
    zero, at = np.zeros(N), np.zeros(N)
    at[3] = 100.0
    given = BusDemand(at, zero, 5.0 * at, zero, np.full(N, 0.9))
    state = SwingNetwork(SYSTEM).advance(1.0, given, calm())
    assert state.load_mw[3] == pytest.approx(SYSTEM.load_mw[3] + 150.0)


def test_island_without_machine_is_dead_and_comes_back() -> None:
    plant, done = SwingNetwork(SYSTEM), calm()
    lines = [SYSTEM.branches.index(b) for b in ("16-19-1", "19-20-1", "19-33-1")]
    done.branch_in[lines] = False
    state = plant.advance(5.0, BusDemand.none(N), done)
    bus = SYSTEM.buses.index("19")
    assert state.v[bus] == 0.0
    assert np.isnan(state.frequency_hz[bus])
    assert state.load_mw[bus] == 0.0
    assert np.isfinite(np.delete(state.frequency_hz, bus)).all()
    assert not state.flow_mw[lines].any()
    (event,) = plant.take_events()
    assert event.kind == "islanded"
    assert event.details["dead_buses"] == "19"
    state = plant.advance(300.0, BusDemand.none(N), calm())
    assert np.abs(state.frequency_hz - 60.0).max() < 1e-6
    assert np.abs(np.abs(state.v) - 1.0).max() < 1e-12


def test_all_machines_out_is_a_collapse() -> None:
    plant, done = SwingNetwork(SYSTEM), calm()
    done.machine_in[:] = False
    state = plant.advance(1.0, BusDemand.none(N), done)
    assert np.isnan(state.coi_hz)
    assert not state.v.any()
    assert [event.kind for event in plant.take_events()] == ["collapsed"]


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.ones(2)])
def test_inertia_and_damping_are_positive(value: float | np.ndarray) -> None:
    with pytest.raises(TransmissionError, match="damping_pu"):
        SwingNetwork(SYSTEM, damping_pu=value)
    with pytest.raises(TransmissionError, match="inertia_pu"):
        SwingNetwork(SYSTEM, inertia_pu=value)
