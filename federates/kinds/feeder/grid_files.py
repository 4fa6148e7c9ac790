"""The grid of a run as tables, written once into the run's folder: ``grid/``.

| file | one row per |
| --- | --- |
| ``buses.csv`` | bus with voltage: base, phases, coordinates |
| ``branches.csv`` | line, switch, regulator, and pair of windings of a transformer: ends, rating |
| ``loads.csv``, ``capacitors.csv``, ``ders.csv`` | load, capacitor bank, DER |
| ``nodes.csv`` | node of the engine, neutral conductors too |
| ``admittance.parquet`` | entry of the node admittance matrix in siemens; positions in nodes.csv |

Elements are named as in the ports ``i_a`` and ``loading_pct``.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from federates.core.signals import arrow_column
from federates.kinds.feeder.ports import Measured
from grid_models.feeder.model import Feeder
from grid_models.opendss.admittance import node_admittance
from grid_models.opendss.circuit import Circuit

FOLDER = "grid"
_M_PER_FT = 0.3048
_BRANCH_COLUMNS = (
    "element",
    "kind",
    "from_bus",
    "to_bus",
    "phases",
    "closed",
    "length_m",
    "normal_a",
    "kva",
    "kv_from",
    "kv_to",
    "tap_step",
)


def write_grid(folder: Path, measured: Measured) -> None:
    """Write the tables of a circuit into a folder, with its taps as they are now."""
    folder.mkdir(parents=True, exist_ok=True)
    circuit, readings = measured.circuit, measured.elements
    feeder = circuit.feeder
    buses = feeder.buses.values()
    _write(
        folder / "buses.csv",
        ("bus", "base_kv_ln", "phases", "x", "y"),
        ((b.name, b.base_kv_ln, _phases(b.phases), b.x_ft, b.y_ft) for b in buses),
    )
    amps = dict(zip(readings.rated, readings.normal_a.tolist(), strict=True))
    taps = dict(zip(measured.taps.names, measured.taps.steps().astype(int).tolist(), strict=True))
    found = (
        row
        | {
            "element": f"{row['class']}.{row['name']}",
            "normal_a": amps.get(f"{row['class']}.{row['name']}"),
            "tap_step": taps.get(row["name"]),
        }
        for row in _branches(feeder)
    )
    rows = ([row.get(c) for c in _BRANCH_COLUMNS] for row in found)
    _write(folder / "branches.csv", _BRANCH_COLUMNS, rows)
    _write(
        folder / "loads.csv",
        ("load", "bus", "phases", "connection", "kw", "kvar"),
        ((x.name, x.bus, _phases(x.phases), x.connection, x.kw, x.kvar) for x in feeder.all_loads),
    )
    _write(
        folder / "capacitors.csv",
        ("capacitor", "bus", "phases", "connection", "kvar"),
        ((x.name, x.bus, _phases(x.phases), x.connection, x.kvar) for x in feeder.capacitors),
    )
    ders = (
        (d.name, d.kind, d.bus, _phases(d.phases), d.kva, d.p_max_kw, d.p_min_kw)
        for d in feeder.ders
    )
    _write(
        folder / "ders.csv", ("der", "kind", "bus", "phases", "kva", "p_max_kw", "p_min_kw"), ders
    )
    _write_admittance(folder, circuit)


def _branches(feeder: Feeder) -> Iterator[dict[str, Any]]:
    for kind, group in (("line", feeder.lines), ("switch", feeder.switches)):
        for branch in group:
            yield {
                "class": "line",
                "name": branch.name,
                "kind": kind,
                "from_bus": branch.from_bus,
                "to_bus": branch.to_bus,
                "phases": _phases(branch.phases),
                "closed": int(branch.closed),
                "length_m": round(getattr(branch, "length_ft", 0.0) * _M_PER_FT, 6),
            }
    for unit in feeder.regulators:
        yield {
            "class": "transformer",
            "name": unit.name,
            "kind": "regulator",
            "from_bus": unit.from_bus,
            "to_bus": unit.to_bus,
            "phases": _phases(unit.phases),
            "closed": 1,
        }
    for transformer in feeder.transformers:
        first = transformer.windings[0]
        for other in transformer.windings[1:]:
            yield {
                "class": "transformer",
                "name": transformer.name,
                "kind": "transformer",
                "from_bus": first.bus,
                "to_bus": other.bus,
                "phases": _phases(node for node in first.nodes if node),
                "closed": 1,
                "kva": first.kva,
                "kv_from": first.kv,
                "kv_to": other.kv,
            }


def _write_admittance(folder: Path, circuit: Circuit) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    labels, matrix = node_admittance(circuit.engine)
    rows = ((i, *label.rpartition(".")[::2], label) for i, label in enumerate(labels))
    _write(folder / "nodes.csv", ("position", "bus", "node", "label"), rows)
    entries = matrix.tocoo()
    order = np.lexsort((entries.col, entries.row))
    columns = {
        "row": entries.row[order].astype(np.int64),
        "column": entries.col[order].astype(np.int64),
        "g_s": entries.data.real[order],
        "b_s": entries.data.imag[order],
    }
    table = pa.table({name: arrow_column(values) for name, values in columns.items()})
    pq.write_table(table, folder / "admittance.parquet", compression="zstd")


def _phases(phases: Iterable[int]) -> str:
    return ".".join(map(str, phases))


def _write(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
