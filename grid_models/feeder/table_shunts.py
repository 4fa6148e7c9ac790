"""Loads and capacitors from their tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import get_args

import numpy as np

from grid_models.base.csv_tables import Row
from grid_models.base.errors import nearest_name
from grid_models.feeder.model import Bus, Capacitor, Connection, Load, LoadModel


def _bus_of(row: Row, buses: Mapping[str, Bus]) -> Bus:
    name = row.name("bus")
    if name not in buses:
        raise row.error(
            "bus",
            f"bus '{name}' is unknown",
            expected="a bus that a line, switch or transformer leads to",
            nearest=nearest_name(name, buses),
        )
    return buses[name]


def read_loads(buses: Mapping[str, Bus], rows: Sequence[Row], prefix: str) -> list[Load]:
    """One load per phase (wye) or phase pair (delta: a = A-B, b = B-C, c = C-A)."""
    loads: dict[str, Load] = {}
    for row in rows:
        bus = _bus_of(row, buses)
        connection: Connection = "wye" if row.choice("connection", ("Y", "D")) == "Y" else "delta"
        wanted = row.choice("model", get_args(LoadModel))
        model: LoadModel = "PQ" if wanted == "PQ" else "I" if wanted == "I" else "Z"
        for i, letter in enumerate("abc"):
            kw, kvar = row.number_of(f"kw_{letter}"), row.number_of(f"kvar_{letter}")
            if kw == 0.0 and kvar == 0.0:
                continue
            nodes = (i + 1,) if connection == "wye" else (i + 1, (i + 1) % 3 + 1)
            _check_phases(row, f"kw_{letter}", bus, nodes)
            kv = bus.base_kv_ln * (1.0 if connection == "wye" else np.sqrt(3.0))
            name = f"{prefix}_{bus.name}{letter}"
            if name in loads:
                raise row.error(
                    "bus",
                    f"bus '{bus.name}' has two loads on {letter.upper()}",
                    expected="one row per bus and phase",
                )
            loads[name] = Load(name, bus.name, nodes, connection, model, kw, kvar, float(kv))
    return list(loads.values())


def read_capacitors(buses: Mapping[str, Bus], rows: Iterable[Row]) -> list[Capacitor]:
    """One bank where the phases are equal, else one capacitor per phase."""
    banks: dict[str, Capacitor] = {}
    for row in rows:
        bus = _bus_of(row, buses)
        kv_ln = row.number_of("kv_ln", over=0.0)
        kvar = {p: row.number_of(f"kvar_{letter}", least=0.0) for p, letter in enumerate("abc", 1)}
        used = tuple(p for p in kvar if kvar[p] > 0.0)
        groups: list[tuple[int, ...]] = [(p,) for p in used]
        if len({kvar[p] for p in used}) == 1:
            groups = [used]
        for group in groups:
            _check_phases(row, f"kvar_{'abc'[group[0] - 1]}", bus, group)
            name = f"cap_{bus.name}" + ("" if len(group) > 1 else "abc"[group[0] - 1])
            if name in banks:
                raise row.error("bus", f"'{name}' is defined twice", expected="one row per bus")
            total = sum(kvar[p] for p in group)
            banks[name] = Capacitor(name, bus.name, group, "wye", total, kv_ln)
    return list(banks.values())


def _check_phases(row: Row, column: str, bus: Bus, nodes: tuple[int, ...]) -> None:
    for node in nodes:
        if node not in bus.phases:
            has = "".join("ABC"[p - 1] for p in bus.phases)
            raise row.error(
                column, f"bus '{bus.name}' has no phase {'ABC'[node - 1]}", expected=f"phases {has}"
            )
