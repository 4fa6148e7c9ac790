"""Derivatives of losses and of the loads' energy, beside finite differences of OpenDSS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from controllers.core.mail import FloatArray
from controllers.core.protocol import ControlSite
from controllers.real_time_opf.load_energy import LoadEnergy
from controllers.real_time_opf.losses import LineLosses
from grid_models.catalog import load_feeder
from grid_models.feeder.model import Der
from grid_models.opendss.circuit import Circuit
from grid_models.profiles.table import Profiles

AREAS = 3


@dataclass
class Plant:
    """IEEE 13, whose lines couple phases, with regulators, a transformer and three inverters."""

    circuit: Circuit
    site: ControlSite

    def slopes(self, measure: Callable[[], float]) -> FloatArray:
        """Return d(measure)/d(p, q), (2, n), about 100 kW and 20 kvar each."""
        n = len(self.site.ders)
        x = np.concatenate([np.full(n, 100.0), np.full(n, 20.0)])

        def at(y: FloatArray) -> float:
            self.circuit.set_ders(y[:n], y[n:])
            self.circuit.solve()
            return measure()

        steps = 2.0 * np.eye(2 * n)
        found = [(at(x + step) - at(x - step)) / 4.0 for step in steps]
        at(x)
        return np.reshape(found, (2, n))


@pytest.fixture(scope="module")
def plant() -> Plant:
    sites = (("671", (1, 2, 3)), ("645", (2,)), ("634", (1, 2, 3)))
    ders = tuple(Der(f"der_{bus}", "inverter", bus, ph, 300.0, 250.0) for bus, ph in sites)
    feeder = load_feeder("ieee13").with_ders(ders)
    day = Profiles.generate("clear", 0, 60, 3600)
    site = ControlSite(feeder, ders, 1.0, start_s=0.0, outlook=lambda: day)
    circuit = Circuit.from_feeder(feeder, tolerance_pu=1e-11)
    circuit.set_loads(0.5 * circuit.load_kw, 0.5 * circuit.load_kvar)
    return Plant(circuit, site)


def phasors(plant: Plant, labels: tuple[str, ...]) -> np.ndarray:
    v = dict(zip(plant.circuit.node_labels, plant.circuit.v_complex_pu(), strict=True))
    return np.array([v[label] for label in labels])


def test_phasors_give_the_derivatives_of_losses(plant: Plant) -> None:
    losses = LineLosses(plant.site, AREAS, range(AREAS))
    expected = plant.slopes(plant.circuit.losses_kw)
    found = losses.tolls(phasors(plant, losses.labels))
    # That loads of constant power draw less current at a higher voltage is left out, and powers are
    # currents at the voltage without load. Measured: at most 7 % of the largest, 13 % at full load.
    assert np.abs(np.sum(found, axis=0) - expected).max() < 0.09 * np.abs(expected).max()
    for area in range(AREAS):
        alone = LineLosses(plant.site, AREAS, [area])
        (own,) = alone.tolls(phasors(plant, alone.labels))
        assert (own == found[area]).all(), "whoever else is hosted"
        assert len(alone.labels) < len(losses.labels)


def test_curvature_bounds_how_fast_the_derivatives_change(plant: Plant) -> None:
    losses = LineLosses(plant.site, 1, [0])
    rating = np.array([der.kva for der in plant.site.ders])
    n = len(rating)
    changes = []
    for x in (np.zeros(2 * n), np.concatenate([0.3 * rating, 0.3 * rating])):
        plant.circuit.set_ders(x[:n], x[n:])
        plant.circuit.solve()
        changes.append(losses.tolls(phasors(plant, losses.labels))[0])
    change = np.abs(changes[1] - changes[0]).max() / 0.3
    # A bound, as far as the derivatives are exact, and no more than a few times what is there.
    assert 0.2 * losses.curvature < change < 1.2 * losses.curvature


def test_price_of_voltage_is_what_loads_draw_more(plant: Plant) -> None:
    circuit, site = plant.circuit, plant.site
    energy = LoadEnergy(site, circuit.node_labels)
    assert site.outlook is not None
    demand = float(site.outlook().sample(np.array([60.0]))["load_pu"][0])
    circuit.set_loads(demand * circuit.load_kw, demand * circuit.load_kvar)
    circuit.set_ders(np.zeros(3), np.zeros(3))
    drawn, squared, prices = [], [], []
    for source_v_pu in (0.999, 1.001):
        circuit.adjusted(None, source_v_pu)
        drawn.append(circuit.source_kw_kvar()[0] - circuit.losses_kw())
        squared.append(circuit.v_pu() ** 2)
        prices.append(energy.price(60.0, squared[-1]))
    circuit.adjusted(None, 1.0)
    predicted = 1e3 * float(np.mean(prices, axis=0) @ (squared[1] - squared[0]))
    # Delta loads see the mean of their phases here, in OpenDSS the voltage between them.
    assert predicted == pytest.approx(drawn[1] - drawn[0], rel=0.02)
