"""A transmission system and its feeders in one loop, solved together at each step of the dynamics.

The reference for the exchange of a co-simulation. The feeders draw what the federate `feeders` of a
run has set, step by step, so market and attack are those of the run; only the exchange of power and
voltage differs. At every step of the integration both sides are iterated until the voltage at which
the feeders were solved is that at which the step ends.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from federates.assembly.federation import Assembly
from federates.core.signals import read_signal
from federates.kinds.feeder.federate import Applied
from federates.kinds.feeders.federate import FeedersFederate
from federates.kinds.feeders.fleet import Fleet
from federates.scenario.schema import Scenario
from grid_models.transmission.machines import MachineDynamics
from grid_models.transmission.model import BusDemand, Disturbance, TransmissionModel
from grid_models.transmission.system import load_system

FloatArray = NDArray[np.float64]
BUS, TOLERANCE_PU, ITERATIONS = "9", 1e-9, 20


@dataclass(frozen=True)
class Trajectory:
    """Time, frequency of the centre of inertia, tie flow and voltage of the feeders' bus, (n,)."""

    time_s: FloatArray
    coi_hz: FloatArray
    tie_mw: FloatArray
    v_pu: FloatArray

    def at(self, time_s: FloatArray) -> Trajectory:
        """Return the values at other times, which must be among them."""
        k = np.searchsorted(self.time_s, time_s - 1e-6)
        assert np.allclose(self.time_s[k], time_s)
        return Trajectory(time_s, self.coi_hz[k], self.tie_mw[k], self.v_pu[k])


def applied_of(run: Path, load_kva: NDArray[np.complex128]) -> Callable[[float], Applied]:
    """Return what the first feeder of a run had set at each time, its demand being constant."""
    time_s, _, p_kw = read_signal(run / "signals", "feeders.p_kw")
    _, _, q_kvar = read_signal(run / "signals", "feeders.q_kvar")

    def applied(now_s: float) -> Applied:
        k = int(np.searchsorted(time_s, now_s + 1e-6)) - 1
        return Applied(load_kva.real, load_kva.imag, p_kw[k], q_kvar[k], False)

    return applied


def run_monolithic(scenario: Scenario, run: Path, until_s: float, step_s: float) -> Trajectory:
    """Return what a run of a scenario would have been with its two plants in one.

    Parameters
    ----------
    run : Folder of a run of it, with the signals of what the feeders had set.
    """
    feeders = Assembly(scenario).build_all()["feeders"]
    assert isinstance(feeders, FeedersFederate)
    assert scenario.grid is not None
    fleet, offset_s = feeders._fleet_of, scenario.federates["grid"].offset_s or 0.0
    loads = fleet.groups[0].circuit.feeder.all_loads
    nominal_kva = np.array([complex(x.kw, x.kvar) for x in loads], dtype=np.complex128)
    applied = applied_of(run, scenario.grid.load_scale * nominal_kva)
    model = MachineDynamics(load_system("kundur"), step_s=step_s)
    return monolithic(model, fleet, model.buses.index(BUS), applied, offset_s, until_s, step_s)


def monolithic(
    model: TransmissionModel,
    fleet: Fleet,
    bus: int,
    applied: Callable[[float], Applied],
    from_s: float,
    until_s: float,
    step_s: float,
) -> Trajectory:
    """Solve both together from a steady state at `from_s`.

    Parameters
    ----------
    model : At rest.
    bus : Where the feeders are.
    step_s : Of the integration; the model must not have a longer one.
    """
    n = len(model.buses)
    v0_pu = v_pu = float(np.abs(model.state.v[bus]))
    first = fleet.solve(applied(from_s), 1.0).import_kva.sum() / 1000.0
    model.separate(_at(bus, n, first.real), _at(bus, n, first.imag))
    done = Disturbance(
        np.zeros(n),
        np.ones(n),
        np.full(n, np.nan),
        np.ones(len(model.branches), dtype=bool),
        np.ones(len(model.machines), dtype=bool),
    )
    rows = []
    for k in range(round((until_s - from_s) / step_s)):
        now_s = from_s + k * step_s
        rows.append((now_s, model.state.coi_hz, _tie_mw(model), v_pu))
        before, set_now = model, applied(now_s)
        for _ in range(ITERATIONS):
            model = copy.deepcopy(before)
            model.advance((k + 1) * step_s, _demand(n, bus, fleet, set_now, v_pu, v0_pu), done)
            solved_pu, v_pu = v_pu, float(np.abs(model.state.v[bus]))
            if abs(v_pu - solved_pu) < TOLERANCE_PU:
                break
        else:
            raise RuntimeError(f"no common solution at {now_s:g} s")
    return Trajectory(*np.array(rows).T)


def _demand(
    n: int, bus: int, fleet: Fleet, applied: Applied, v_pu: float, v0_pu: float
) -> BusDemand:
    """Return the feeders' demand about a voltage of their bus."""
    state = fleet.solve(applied, v_pu / v0_pu)
    power = state.import_kva.sum() / 1000.0
    slope = state.slope_kva_per_pu.sum() / 1000.0 / v0_pu
    parts = (power.real, power.imag, slope.real, slope.imag)
    p_mw, q_mvar, p_slope_mw, q_slope_mvar = (_at(bus, n, x) for x in parts)
    return BusDemand(p_mw, q_mvar, p_slope_mw, q_slope_mvar, np.full(n, v_pu))


def _at(bus: int, n: int, value: float) -> FloatArray:
    """Return a value at one of n buses, 0 at the others."""
    out = np.zeros(n)
    out[bus] = value
    return out


def _tie_mw(model: TransmissionModel) -> float:
    return float(model.state.flow_mw[model.tie].sum())
