"""Limits that need more than one number of a solved case, against OpenDSS alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from _hosting_cases import hosting_case
from numpy.typing import NDArray

from grid_models.base.errors import FeederError
from grid_models.hosting.limits import LimitCheck, Limits
from grid_models.hosting.model import HostingModel
from grid_models.opendss.circuit import Circuit

Array = NDArray[np.float64]


@pytest.fixture(scope="module")
def case() -> tuple[HostingModel, Circuit, NDArray[np.complex128]]:
    """The feeder at steps of 2 h with random PV, complex (1, T, S)."""
    model, circuit = hosting_case(step_h=2.0)
    kw = np.random.default_rng(3).uniform(0.0, 25.0, len(model.sites))
    return model, circuit, (1.0 - 0.2j) * kw * model.pv_pu[None, :, None]


def _solve(model: HostingModel, circuit: Circuit, t: int, kva: NDArray[np.complex128]) -> Array:
    circuit.set_loads(model.load_kva[t].real, model.load_kva[t].imag)
    circuit.set_ders(kva.real, kva.imag)
    circuit.solve()
    return circuit.v_pu().copy()


def _loading(circuit: Circuit) -> Array:
    """Return the currents of the lines' phases over their ratings."""
    found = []
    for line in circuit.feeder.lines:
        circuit.engine.dss.Circuit.SetActiveElement(f"line.{line.name}")
        amps = circuit.engine.dss.CktElement.CurrentsMagAng()[: 2 * len(line.phases) : 2]
        found.append(np.array(amps) / line.norm_amps)
    return np.concatenate(found)


def test_the_change_when_a_site_is_switched_off_is_the_engines(
    case: tuple[HostingModel, Circuit, NDArray[np.complex128]],
) -> None:
    model, circuit, kva = case
    model = replace(model, limits=Limits(deviation_pu=0.003))
    steps = np.array([4, 6])
    found = model.excess(kva[:, steps], steps)
    at = model.check.kinds.index("deviation")
    for row, t in enumerate(steps.tolist()):
        before = _solve(model, circuit, t, kva[0, t])
        change = np.zeros(len(model.sites))
        for s in range(len(model.sites)):
            without = kva[0, t].copy()
            without[s] = 0.0
            change[s] = np.abs(_solve(model, circuit, t, without) - before).max()
        assert found.value[row, at] == pytest.approx(change.max() - 0.003, abs=1e-7)
        assert found.element[row, at] == change.argmax()
    assert model.check.labels("deviation") == tuple(site.name for site in model.sites)


def test_unbalance_is_that_of_the_engines_sequence_voltages(
    case: tuple[HostingModel, Circuit, NDArray[np.complex128]],
) -> None:
    model, circuit, kva = case
    model = replace(model, limits=Limits(unbalance_pct=1.0))
    found = model.excess(kva)
    at, labels = model.check.kinds.index("unbalance"), model.check.labels("unbalance")
    assert "60" in labels
    assert "85" not in labels  # phase 3 only
    for t in (0, 6, 9):
        _solve(model, circuit, t, kva[0, t])
        by_bus = {}
        for bus in labels:
            circuit.engine.dss.Circuit.SetActiveBus(bus)
            _, positive, negative = circuit.engine.dss.Bus.SeqVoltages()
            by_bus[bus] = 100.0 * negative / positive
        worst = max(by_bus, key=by_bus.__getitem__)
        assert found.value[t, at] == pytest.approx(by_bus[worst] - 1.0, abs=1e-4)
        assert labels[found.element[t, at]] == worst


def test_continuous_currents_are_means_and_short_time_currents_are_not(
    case: tuple[HostingModel, Circuit, NDArray[np.complex128]],
) -> None:
    model, circuit, kva = case
    limits = Limits(line_pu=0.7, transformer_pu=None, average_h=6.0, short_time_pu=0.9)
    model = replace(model, limits=limits)
    assert model.check.kinds == ("overvoltage", "undervoltage", "line", "short-time current")
    found = model.excess(kva)
    loading = []
    for t in range(len(model.hours)):
        _solve(model, circuit, t, kva[0, t])
        loading.append(_loading(circuit))
    assert np.isneginf(found.value[:2, 2]).all()
    for t in range(2, len(loading)):
        mean = np.mean(loading[t - 2 : t + 1], axis=0)
        assert found.value[t, 2] == pytest.approx(mean.max() / 0.7 - 1.0, abs=1e-6)
        assert found.value[t, 3] == pytest.approx(loading[t].max() / 0.9 - 1.0, abs=1e-6)
    # Steps with a gap between them have no mean over it.
    some = np.array([2, 3, 4, 9])
    part = model.excess(kva[:, some], some)
    assert part.value[2, 2] == pytest.approx(found.value[4, 2], abs=1e-9)
    assert np.isneginf(part.value[[0, 1, 3], 2]).all()
    fields = ("load_kva", "der_kva", "hours", "pv_pu", "temp_c")
    shorter = replace(model, **{name: getattr(model, name)[some] for name in fields})
    left = shorter.excess(kva[:, some])
    assert left.value[:, 2].tolist() == pytest.approx(part.value[:, 2].tolist())


def test_unbalance_of_a_balanced_equivalent_is_refused() -> None:
    model, _ = hosting_case(balanced=True, step_h=12.0)
    with pytest.raises(FeederError, match="no bus of the network has three phases"):
        LimitCheck(model.feeder.network, Limits(unbalance_pct=2.0))
