"""A solved circuit as the Topology of OEDI-SI."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

import numpy as np

from federates.core.oedisi import TYPES, equipment_id
from grid_models.feeder.model import Feeder, node_label
from grid_models.opendss.admittance import node_admittance
from grid_models.opendss.circuit import Circuit

_Entry = tuple[str, str, float, float]


def topology(circuit: Circuit) -> str:
    """Return the Topology of a circuit at its present taps and switches, as JSON.

    Nodes are those of `Circuit.node_labels`, in their order, then the other nodes of their buses
    (neutral conductors). The admittance is that of `node_admittance`; capacitor banks are in it.
    Injections are the nominal loads (negative) and the ratings of the DERs, in equal shares on
    their phases. Angles are those of the present solution, in radians.
    """
    feeder = circuit.feeder
    labels, matrix = node_admittance(circuit.engine)
    place = {label: i for i, label in enumerate(labels)}
    known = set(circuit.node_labels)
    others = [x for x in labels if x not in known and x.rpartition(".")[0] in feeder.buses]
    nodes = [*circuit.node_labels, *others]
    at = [place[label] for label in nodes]
    sparse = matrix[at][:, at].tocoo()
    ids = [label.upper() for label in nodes]
    angles = np.zeros(len(nodes))
    angles[: len(known)] = np.angle(circuit.v_complex_pu())
    base_v = [1e3 * feeder.buses[label.rpartition(".")[0]].base_kv_ln for label in nodes]
    slack = feeder.buses[feeder.source.bus].labels
    injections = list(_injections(feeder))
    return json.dumps(
        {
            "admittance": {
                "from_equipment": [ids[i] for i in sparse.row],
                "to_equipment": [ids[i] for i in sparse.col],
                "admittance_list": sparse.data.view(np.float64).reshape(-1, 2).tolist(),
                "units": "S",
            },
            "injections": {
                "power_real": _powers(injections, 2, TYPES["PowersReal"].units),
                "power_imaginary": _powers(injections, 3, TYPES["PowersImaginary"].units),
            },
            "incidences": _incidences(feeder),
            "base_voltage_angles": {"values": angles.tolist(), "ids": ids, "units": "radians"},
            "base_voltage_magnitudes": {"values": base_v, "ids": ids, "units": "V"},
            "slack_bus": [label.upper() for label in slack],
        }
    )


def _injections(feeder: Feeder) -> Iterator[_Entry]:
    """Yield node, equipment, kW and kvar of each phase of each load and DER."""
    for load in feeder.loads:
        n = len(load.phases)
        for phase in load.phases:
            node = node_label(load.bus, phase).upper()
            yield node, equipment_id(load), -load.kw / n, -load.kvar / n
    for der in feeder.ders:
        for node in der.labels:
            yield node.upper(), equipment_id(der), der.p_max_kw / len(der.phases), 0.0


def _powers(entries: Iterable[_Entry], column: int, units: str) -> dict[str, object]:
    return {
        "values": [entry[column] for entry in entries],
        "ids": [entry[0] for entry in entries],
        "equipment_ids": [entry[1] for entry in entries],
        "units": units,
    }


def _incidences(feeder: Feeder) -> dict[str, list[str]]:
    """Return each branch's buses; one of a transformer to each winding after its first."""
    rows = [(x.from_bus, x.to_bus, x.name, "Line") for x in feeder.lines]
    rows += [(x.from_bus, x.to_bus, x.name, "Line") for x in feeder.switches]
    rows += [(x.from_bus, x.to_bus, x.name, "Transformer") for x in feeder.regulators]
    for unit in feeder.transformers:
        first, *rest = (winding.bus for winding in unit.windings)
        # Both halves of a centre-tapped secondary are at one bus.
        rows += [(first, bus, unit.name, "Transformer") for bus in dict.fromkeys(rest)]
    return {
        "from_equipment": [row[0].upper() for row in rows],
        "to_equipment": [row[1].upper() for row in rows],
        "ids": [row[2] for row in rows],
        "equipment_type": [row[3] for row in rows],
    }
