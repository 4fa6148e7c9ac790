"""The Topology message against the power flow of its own circuit."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from federates.kinds.feeder.topology import topology
from grid_models.catalog import open_circuit
from grid_models.feeder.model import Der
from grid_models.opendss.circuit import Circuit

# A neutral conductor, well grounded where a DER returns to it, a centre-tapped secondary, an open
# switch with nothing behind it.
MASTER = """\
clear
new circuit.t basekv=4.16 pu=1.01 bus1=src
new linecode.w nphases=4 r1=0.2 x1=0.4 r0=0.5 x0=0.9 units=km
new line.a phases=4 bus1=src.1.2.3.4 bus2=mid.1.2.3.4 linecode=w length=0.3 units=km
new line.b phases=3 bus1=mid bus2=off switch=yes
new line.c phases=1 bus1=off.1 bus2=far.1 r1=0.1 x1=0.1 r0=0.1 x0=0.1 length=1
open line.b 1
new reactor.g phases=1 bus1=mid.4 bus2=mid.0 r=1e-4 x=0
new transformer.house phases=1 windings=3 xhl=2 xht=2 xlt=1 buses=(mid.2.0 lv.1.0 lv.0.2)
~ kvs=(2.4 0.12 0.12) kvas=(50 50 50)
new load.h1 bus1=lv.1 phases=1 kv=0.12 kw=8 kvar=2
new load.h2 bus1=lv.2 phases=1 kv=0.12 kw=6 kvar=1
new load.m bus1=mid.1.2.3 kv=4.16 kw=90 kvar=30
set voltagebases=(4.16 0.208)
calcvoltagebases
solve
"""


@pytest.fixture(scope="module")
def circuit(tmp_path_factory: pytest.TempPathFactory) -> Circuit:
    path = tmp_path_factory.mktemp("feeder") / "Master.dss"
    path.write_text(MASTER)
    ders = [
        Der("roof", "pv", "lv", (1,), 5.0, 4.0),
        Der("bess", "battery", "mid", (1, 3), 9, 9, -9),
    ]
    built = open_circuit(path, ders)
    built.set_ders([4.0, 9.0], [0.0, 0.0])
    built.solve()
    return built


@pytest.fixture(scope="module")
def message(circuit: Circuit) -> dict[str, Any]:
    return dict(json.loads(topology(circuit)))


def _matrix(message: dict[str, Any]) -> np.ndarray:
    """Build the matrix as components do: by the identifiers of the base voltages."""
    ids = message["base_voltage_magnitudes"]["ids"]
    place = {name: i for i, name in enumerate(ids)}
    sparse = message["admittance"]
    y = np.zeros((len(ids), len(ids)), dtype=complex)
    rows = [place[name] for name in sparse["from_equipment"]]
    columns = [place[name] for name in sparse["to_equipment"]]
    y[rows, columns] = [complex(re, im) for re, im in sparse["admittance_list"]]
    return y


def test_nodes_come_in_the_order_of_the_voltages(circuit: Circuit, message: dict[str, Any]) -> None:
    ids = message["base_voltage_magnitudes"]["ids"]
    n = len(circuit.node_labels)
    assert ids[:n] == [label.upper() for label in circuit.node_labels]
    assert {"MID.4", "SRC.4"} <= set(ids[n:])  # the neutral conductor
    assert not [name for name in ids if name.startswith(("OFF", "FAR"))]  # no voltage there
    assert message["base_voltage_angles"]["ids"] == ids
    assert message["slack_bus"] == ["SRC.1", "SRC.2", "SRC.3"]
    base_v = dict(zip(ids, message["base_voltage_magnitudes"]["values"], strict=True))
    assert base_v["MID.2"] == pytest.approx(4160.0 / np.sqrt(3.0))
    assert base_v["LV.1"] == pytest.approx(208.0 / np.sqrt(3.0))


def test_admittance_and_angles_give_the_power_of_loads_and_ders(
    circuit: Circuit, message: dict[str, Any]
) -> None:
    ids = message["base_voltage_magnitudes"]["ids"]
    n = len(circuit.node_labels)
    v = np.zeros(len(ids), dtype=complex)
    volts = circuit.v_pu() * message["base_voltage_magnitudes"]["values"][:n]
    v[:n] = volts * np.exp(1j * np.array(message["base_voltage_angles"]["values"][:n]))
    y = _matrix(message)
    # Nothing is connected to the neutral conductor but its own line and its ground.
    v[n:] = -np.linalg.solve(y[n:, n:], y[n:, :n] @ v[:n])
    found_kva = v * np.conj(y @ v) / 1e3
    for side, part in (("power_real", found_kva.real), ("power_imaginary", found_kva.imag)):
        given = dict.fromkeys(ids, 0.0)
        entries = message["injections"][side]
        for node, value in zip(entries["ids"], entries["values"], strict=True):
            given[node] += value
        nodes = [i for i, name in enumerate(ids) if not name.startswith("SRC")]
        expected = np.array([given[ids[i]] for i in nodes])
        np.testing.assert_allclose(part[nodes], expected, atol=2e-3)
    assert found_kva[:3].sum() == pytest.approx(complex(*circuit.source_kw_kvar()), rel=1e-5)


def test_equipment_is_named_by_class(message: dict[str, Any]) -> None:
    real = message["injections"]["power_real"]
    entries = list(zip(real["equipment_ids"], real["ids"], real["values"], strict=True))
    assert ("PVSystem.roof", "LV.1", 4.0) in entries
    assert ("Storage.bess", "MID.3", 4.5) in entries
    assert ("Load.m", "MID.2", -30.0) in entries
    edges = message["incidences"]
    assert set(zip(edges["from_equipment"], edges["to_equipment"], edges["ids"], strict=True)) == {
        ("SRC", "MID", "a"),
        ("MID", "LV", "house"),
    }


@pytest.mark.parametrize("model", ["ieee13", "ieee123"])
def test_the_types_of_oedisi_read_it(model: str) -> None:
    types = pytest.importorskip("oedisi.types.data_types")
    circuit = open_circuit(model, ())
    read = types.Topology.model_validate_json(topology(circuit))
    assert isinstance(read.admittance, types.AdmittanceSparse)
    assert read.base_voltage_magnitudes.ids[: len(circuit.node_labels)] == [
        label.upper() for label in circuit.node_labels
    ]
    assert len(read.injections.power_real.values) >= len(circuit.feeder.loads)
