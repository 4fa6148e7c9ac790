"""The AC optimum that real-time OPF is compared with: replay, and an independent solver."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from _ac_optimum import AcOptimum, AcProgram, NoOptimumError, Objective
from scipy.optimize import minimize

from controllers.core.mail import FloatArray
from grid_models.catalog import load_feeder
from grid_models.feeder.model import Der
from grid_models.opendss.circuit import Circuit
from grid_models.opendss.ports import port_network

AVAILABLE_KW = np.array([1200.0, 500.0, 800.0])
KVA = np.array([1250.0, 600.0, 850.0])
LOAD_PU = 0.5


@dataclass
class Plant:
    """IEEE 13, whose loads are of constant power, current and impedance, with three PV units."""

    circuit: Circuit
    program: AcProgram

    def solve(self, objective: Objective, sun: float = 1.0) -> AcOptimum:
        loads = self.program.network.loads.scaled(LOAD_PU)
        return self.program.solve(loads, sun * AVAILABLE_KW, objective)

    def replay(self, x: FloatArray) -> None:
        """Set P and Q, kW and kvar, and solve."""
        self.circuit.set_ders(x[:3], x[3:])
        self.circuit.solve()

    def cost(self, x: FloatArray, o: Objective) -> float:
        """Return an objective as OpenDSS measures it."""
        self.replay(x)
        import_kw, losses = self.circuit.source_kw_kvar()[0], self.circuit.losses_kw()
        load = import_kw + x[:3].sum() - losses
        curtailed = AVAILABLE_KW - x[:3]
        linear = o.load * load + o.losses * losses + o.curtailment * curtailed.sum()
        squares = o.tracking * (import_kw - o.import_kw) ** 2 + o.q_cost * (x[3:] ** 2).sum()
        return float(linear / 1e3 + (squares + o.curtailment_sq * (curtailed**2).sum()) / 1e6)


@pytest.fixture(scope="module")
def plant() -> Plant:
    sites = (("671", (1, 2, 3)), ("645", (2,)), ("675", (1, 2, 3)))
    ders = tuple(
        Der(f"pv_{bus}", "pv", bus, phases, kva, kw)
        for (bus, phases), kva, kw in zip(sites, KVA.tolist(), AVAILABLE_KW.tolist(), strict=True)
    )
    feeder = load_feeder("ieee13").with_ders(ders)
    circuit = Circuit.from_feeder(feeder, tolerance_pu=1e-10)
    circuit.set_taps({"rg1a": 1, "rg1b": 0, "rg1c": 2})
    circuit.set_loads(LOAD_PU * circuit.load_kw, LOAD_PU * circuit.load_kvar)
    circuit.solve()
    return Plant(circuit, AcProgram(port_network(circuit), ders, 0.95, 1.02))


OBJECTIVES = {
    "curtailment": Objective(curtailment=1.0, q_cost=0.01),
    "losses": Objective(losses=1.0, q_cost=0.001, curtailment=1.0),
    "import": Objective(tracking=1.0, import_kw=300.0, curtailment_sq=0.1, q_cost=0.01),
    "load": Objective(load=1.0, losses=1.0, curtailment=1.2, q_cost=0.001),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_replay_in_opendss_and_optimum_of_a_solver_that_only_sees_opendss(
    plant: Plant, name: str
) -> None:
    objective = OBJECTIVES[name]
    found = plant.solve(objective)
    x = np.concatenate([found.p_kw, found.q_kvar])
    cost = plant.cost(x, objective)
    circuit = plant.circuit
    assert np.abs(circuit.v_complex_pu() - found.voltage).max() < 1e-6
    assert found.losses_kw == pytest.approx(circuit.losses_kw(), abs=1e-3)
    assert found.import_kw == pytest.approx(circuit.source_kw_kvar()[0], abs=1e-3)

    held = np.array([not label.startswith("sourcebus") for label in circuit.node_labels])

    def room(y: FloatArray) -> FloatArray:
        plant.replay(y * 1e3)
        v = circuit.v_pu()[held]
        rated = 1.0 - (y[:3] ** 2 + y[3:] ** 2) * 1e6 / KVA**2
        return np.concatenate([1.02 - v, v - 0.95, rated])

    assert room(x / 1e3).min() > -1e-7
    other = minimize(
        lambda y: plant.cost(y * 1e3, objective),
        np.concatenate([0.5 * AVAILABLE_KW, np.zeros(3)]) / 1e3,
        method="SLSQP",
        constraints={"type": "ineq", "fun": room},
        bounds=[(0.0, p / 1e3) for p in AVAILABLE_KW] + [(None, None)] * 3,
        options={"ftol": 1e-10, "eps": 1e-5, "maxiter": 200},
    )
    # Finite differences of a power flow solved to 1e-10 limit how well SLSQP can do.
    assert cost == pytest.approx(other.fun, abs=2e-5)
    assert cost < other.fun + 1e-6


def test_powers_that_cannot_move_stay_and_a_band_that_cannot_be_held_is_an_error(
    plant: Plant,
) -> None:
    network, ders = plant.program.network, plant.circuit.feeder.ders
    loads = network.loads.scaled(LOAD_PU)
    held = AcProgram(network, ders, 0.95, 1.05, fixed_p=True)
    found = held.solve(loads, 0.3 * AVAILABLE_KW, Objective(losses=1.0))
    assert found.p_kw == pytest.approx(0.3 * AVAILABLE_KW)
    assert found.curtailed_kw == pytest.approx(0.0, abs=1e-9)
    dark = held.solve(loads, 0.0 * AVAILABLE_KW, Objective(losses=1.0))
    assert not dark.p_kw.any()
    with pytest.raises(NoOptimumError):
        AcProgram(network, ders, 1.09, 1.1).solve(loads, AVAILABLE_KW, Objective(losses=1.0))
