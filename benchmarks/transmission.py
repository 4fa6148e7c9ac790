"""Transmission dynamics: accuracy against published and independent results, and their cost.

    python benchmarks/transmission.py [--json] [--seconds N]

* Power flow: largest deviation from reference tables made with PYPOWER, per unit.
* Modes of Kundur's two areas beside those of the book (example 12.6).
* Cross-check: a load step integrated by the implicit trapezoidal rule at its usual steps, beside
  LSODA at a tolerance of 1e-8 and the classical Runge-Kutta method at 10 ms, which solve the
  network at every evaluation. Largest deviation of the centre of inertia's frequency.
* The 359 MW step at bus 9: lowest and steady frequency, tie flow, voltages; with the load restored
  at 60 s, and with automatic generation control.
* CPU time per simulated second.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from pathlib import Path
from typing import Any

from grid_models.base.threads import use_one_thread

use_one_thread()  # before numpy is loaded

import numpy as np  # noqa: E402
from scipy.integrate import solve_ivp  # noqa: E402

from grid_models.transmission.machine_options import Controls, LoadModel  # noqa: E402
from grid_models.transmission.machines import MachineDynamics  # noqa: E402
from grid_models.transmission.model import (  # noqa: E402
    BusDemand,
    Disturbance,
    FloatArray,
    TransmissionState,
)
from grid_models.transmission.power_flow import power_flow  # noqa: E402
from grid_models.transmission.protection import GenerationControl  # noqa: E402
from grid_models.transmission.solver import Trapezoid, state_matrix  # noqa: E402
from grid_models.transmission.system import TransmissionSystem, load_system  # noqa: E402

BOOK = np.array([-0.111 + 3.43j, -0.492 + 6.82j, -0.506 + 7.02j])
STEPS = {"kundur": ("9", 359.0), "ieee39": ("16", 300.0)}
TABLES = Path(__file__).parents[1] / "tests" / "grid_models" / "transmission" / "reference"
EXCHANGE_S = 0.1


def undisturbed(system: TransmissionSystem) -> Disturbance:
    """Return a disturbance that changes nothing."""
    n = len(system.buses)
    return Disturbance(
        np.zeros(n),
        np.ones(n),
        np.full(n, np.nan),
        np.ones(len(system.branches), bool),
        np.ones(len(system.machines), bool),
    )


def flow_deviation(name: str) -> float:
    """Return the largest deviation from the table's voltage magnitudes, per unit."""
    with (TABLES / f"{name}_power_flow.csv").open() as file:
        v_pu = np.array([float(row["vmag_pu"]) for row in csv.DictReader(file)])
    return float(np.abs(np.abs(power_flow(load_system(name)).v) - v_pu).max())


def modes() -> dict[str, Any]:
    """Return the electromechanical modes of the two areas without controls, 1/s."""
    model = MachineDynamics(
        load_system("kundur"),
        controls=Controls(avr=None, stabiliser=None, governor=None),
        load_model=LoadModel(p_by_frequency=0.0),
    )
    found = {}
    for saturation in ("total", "incremental"):
        if saturation == "incremental":
            model.equations.linearise_saturation(model.x, model.v)
        values = np.linalg.eigvals(state_matrix(model.equations, model.x, model.v, model.demand))
        found[saturation] = np.sort_complex(values[values.imag > 1.0])[::-1]
    return {
        "book": [str(mode) for mode in BOOK],
        "ours": [f"{mode:.4f}" for mode in found["incremental"]],
        "with_total_saturation": [f"{mode:.4f}" for mode in found["total"]],
        "max_deviation": float(np.abs(found["incremental"] - BOOK).max()),
    }


class Stepped:
    """A load step at time 0, integrated in several ways."""

    def __init__(self, name: str, seconds: float, *, step_s: float = 0.02) -> None:
        self.system, bus_mw = load_system(name), STEPS[name]
        self.model = MachineDynamics(self.system, step_s=step_s)
        self.done = undisturbed(self.system)
        self.done.load_mw[self.system.buses.index(bus_mw[0])] = bus_mw[1]
        self.times = EXCHANGE_S * np.arange(1, round(seconds / EXCHANGE_S) + 1)

    def trapezoidal(self) -> tuple[FloatArray, float]:
        """Return the frequencies, and CPU seconds per simulated second."""
        demand, before = BusDemand.none(len(self.system.buses)), time.process_time()
        hz = [self.model.advance(round(t, 6), demand, self.done).coi_hz for t in self.times]
        return np.array(hz), (time.process_time() - before) / float(self.times[-1])

    def explicit(self, method: str) -> tuple[FloatArray, float]:
        """Return the same by ``LSODA`` or ``RK4``."""
        self.model.advance(0.0, BusDemand.none(len(self.system.buses)), self.done)
        e, demand = self.model.equations, self.model.demand
        network, v, shape = Trapezoid(e, 1.0, 1e-11), self.model.v, self.model.x.shape

        def rates(_t: float, x: FloatArray) -> FloatArray:
            nonlocal v
            v = network.settle(x.reshape(shape), v, demand)
            return e.rates(x.reshape(shape), v, demand.reference).ravel()

        before, x0 = time.process_time(), self.model.x.ravel()
        if method == "RK4":
            states = runge_kutta(rates, x0, self.times)
        else:
            found = solve_ivp(
                rates, (0.0, self.times[-1]), x0, "LSODA", self.times, rtol=1e-8, atol=1e-10
            )
            states = found.y.T
        cpu_s = (time.process_time() - before) / float(self.times[-1])
        speed = states.reshape(len(states), *shape)[:, 1]
        return self.system.nominal_hz * (1.0 + speed @ e.inertia), cpu_s


def runge_kutta(rates: Any, x: FloatArray, times: FloatArray, steps: int = 10) -> FloatArray:
    """Return the states at `times` by the classical method, `steps` steps between two of them."""
    h, states = EXCHANGE_S / steps, []
    for _ in times:
        for _ in range(steps):
            k1 = rates(0.0, x)
            k2 = rates(0.0, x + 0.5 * h * k1)
            k3 = rates(0.0, x + 0.5 * h * k2)
            k4 = rates(0.0, x + h * k3)
            x = x + h / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)
        states.append(x)
    return np.array(states)


def cross_check(name: str, seconds: float) -> dict[str, float]:
    """Return deviations from LSODA in mHz, and CPU ms per simulated second."""
    exact, lsoda_s = Stepped(name, seconds).explicit("LSODA")
    rk4, rk4_s = Stepped(name, seconds).explicit("RK4")
    figures = {
        "rk4_10ms_mhz": 1e3 * float(np.abs(rk4 - exact).max()),
        "rk4_10ms_cpu_ms_per_s": 1e3 * rk4_s,
        "lsoda_cpu_ms_per_s": 1e3 * lsoda_s,
    }
    for step_ms in (20, 10):
        hz, cpu_s = Stepped(name, seconds, step_s=step_ms / 1e3).trapezoidal()
        figures[f"trapezoidal_{step_ms}ms_mhz"] = 1e3 * float(np.abs(hz - exact).max())
        figures[f"trapezoidal_{step_ms}ms_cpu_ms_per_s"] = 1e3 * cpu_s
    return figures


def response(agc: bool, restored: bool) -> dict[str, float]:
    """Return figures of the 359 MW step at bus 9 over 180 s."""
    system = load_system("kundur")
    model = MachineDynamics(system, agc=GenerationControl() if agc else None)
    done, demand = undisturbed(system), BusDemand.none(len(system.buses))
    bus = system.buses.index("9")
    done.load_mw[bus] = 359.0
    states: list[TransmissionState] = []
    for k in range(1, 1801):
        if restored and k == 601:
            done.load_mw[bus] = 0.0
        states.append(model.advance(round(EXCHANGE_S * k, 6), demand, done))
    hz = np.array([state.coi_hz for state in states])
    tie_mw = np.array([state.flow_mw[system.tie].sum() for state in states])
    return {
        "frequency_min_hz": float(hz.min()),
        "frequency_min_at_s": EXCHANGE_S * float(1 + hz.argmin()),
        "frequency_60s_hz": float(hz[599]),
        "frequency_180s_hz": float(hz[-1]),
        "tie_max_mw": float(tie_mw.max()),
        "tie_60s_mw": float(tie_mw[599]),
        "tie_180s_mw": float(tie_mw[-1]),
        "v_min_pu": float(min(np.abs(state.v).min() for state in states)),
        "v_min_180s_pu": float(np.abs(states[-1].v).min()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the cross-check")
    args = parser.parse_args()
    figures: dict[str, Any] = {
        "power_flow_pu": {name: flow_deviation(name) for name in STEPS},
        "modes": modes(),
        "cross_check": {name: cross_check(name, args.seconds) for name in STEPS},
        "step_359_mw": response(agc=False, restored=False),
        "step_359_mw_restored": response(agc=False, restored=True),
        "step_359_mw_agc": response(agc=True, restored=False),
    }
    if args.json:
        print(json.dumps(figures))
        return
    for part, values in figures.items():
        print(part)
        for key, value in values.items():
            print(f"  {key:24s} {value}")


if __name__ == "__main__":
    main()
