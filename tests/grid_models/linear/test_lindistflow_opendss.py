"""The linear model against OpenDSS on the shipped feeders, published taps held.

OpenDSS solves the full unbalanced AC equations of the same `Feeder`; tolerances are the figures
measured when the model was written, rounded up. LinDistFlow leaves out losses and so lies high.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from grid_models.catalog import load_feeder
from grid_models.feeder.model import Der
from grid_models.linear.lindistflow import LinDistFlow
from grid_models.opendss.circuit import Circuit


def solved(name: str) -> dict[str, float]:
    circuit = Circuit.from_feeder(load_feeder(name))
    circuit.solve()
    return dict(zip(circuit.node_labels, circuit.v_pu().tolist(), strict=True))


@pytest.mark.parametrize(
    ("name", "flat_pu", "tangent_pu"), [("ieee13", 0.0075, 2e-4), ("ieee123", 0.0035, 2e-4)]
)
def test_voltages_at_nominal_load(name: str, flat_pu: float, tangent_pu: float) -> None:
    v = solved(name)
    feeder = load_feeder(name)
    flat = LinDistFlow.from_feeder(feeder)
    assert set(flat.nodes) == set(v)
    truth = np.array([v[label] for label in flat.nodes])
    injection = flat.nominal_injection()
    error = np.abs(flat.v_pu(*injection) - truth).max()
    assert error < flat_pu < 0.01
    tangent = LinDistFlow.from_feeder(feeder, around="nominal")
    assert np.abs(tangent.v_pu(*injection) - truth).max() < tangent_pu
    single = LinDistFlow.from_feeder(feeder, "single")
    v_bus = dict(zip(single.nodes, single.v_pu(*single.nominal_injection()), strict=True))
    single_error = max(abs(v_bus[label.rsplit(".", 1)[0]] - x) for label, x in v.items())
    assert error < 0.5 * single_error


@pytest.mark.parametrize("scale", [0.3, 1.25])
def test_tangent_away_from_its_point(scale: float) -> None:
    """Loads of 30 % and 125 %: second-order error only (measured 0.0012 and 0.0005 pu)."""
    feeder = load_feeder("ieee123")
    circuit = Circuit.from_feeder(feeder)
    circuit.set_loads(
        scale * np.array([d.kw for d in feeder.loads]),
        scale * np.array([d.kvar for d in feeder.loads]),
    )
    circuit.solve()
    v = dict(zip(circuit.node_labels, circuit.v_pu(), strict=True))
    model = LinDistFlow.from_feeder(feeder, around="nominal")
    p, q = model.nominal_injection()
    truth = [v[label] for label in model.nodes]
    assert np.abs(model.v_pu(scale * p, scale * q) - truth).max() < 0.002


def test_sensitivities_against_finite_differences() -> None:
    """All 96 loaded nodes: d(v^2)/dq of OpenDSS by central differences of 20 kvar.

    Flat: own reactance at most 6 % off, Frobenius norm 6 %; tangent: 0.1 %. Leaving the coupling
    between phases out costs 33 %, so it must be there.
    """
    feeder = load_feeder("ieee123")
    labels = list(dict.fromkeys(f"{d.bus}.{p}" for d in feeder.loads for p in d.phases))
    assert len(labels) == 96
    truth = finite_differences(labels, step_kvar=20.0)

    def off(x: NDArray[np.float64]) -> tuple[float, float]:
        own = np.abs(np.diag(x) / np.diag(truth) - 1).max()
        return float(own), float(np.linalg.norm(x - truth) / np.linalg.norm(truth))

    _, flat = LinDistFlow.from_feeder(feeder).sensitivity(labels, labels)
    own, whole = off(flat)
    assert own < 0.06
    assert whole < 0.06
    _, tangent = LinDistFlow.from_feeder(feeder, around="nominal").sensitivity(labels, labels)
    own, whole = off(tangent)
    assert own < 0.001
    assert whole < 0.001
    phase = np.array([label[-1] for label in labels])
    same_phase_only = np.where(phase[:, None] == phase, tangent, 0.0)
    assert off(same_phase_only)[1] > 0.3


def finite_differences(labels: list[str], step_kvar: float) -> NDArray[np.float64]:
    """Return d(v^2)/dq at `labels` in pu per kvar, (k, k), by OpenDSS."""
    ders = [
        Der(f"at_{bus}_{phase}", "inverter", bus, (int(phase),), 100.0, 0.0)
        for bus, phase in (label.split(".") for label in labels)
    ]
    circuit = Circuit.from_feeder(load_feeder("ieee123").with_ders(ders))
    at = [circuit.node_labels.index(label) for label in labels]
    zero = np.zeros(len(labels))
    columns = []
    for j in range(len(labels)):
        v2 = []
        for sign in (1.0, -1.0):
            q = zero.copy()
            q[j] = sign * step_kvar
            circuit.set_ders(zero, q)
            circuit.solve()
            v2.append(circuit.v_pu()[at] ** 2)
        columns.append((v2[0] - v2[1]) / (2 * step_kvar))
    return np.stack(columns, axis=1)
