"""Loads that frequency control may raise or lower, and what that costs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from grid_models.base.csv_tables import read_table
from grid_models.base.errors import nearest_name
from grid_models.transmission.model import FloatArray, TransmissionError
from grid_models.transmission.system import IntArray, TransmissionSystem, system_folder

TABLE = "flexible_loads.csv"
_COLUMNS = ("bus", "cost_per_pu2", "cost_per_pu", "limit_mw")


@dataclass(frozen=True, eq=False)
class FlexibleLoads:
    """Flexible loads, one row a load; a change d of demand, per unit, costs a d^2 + b |d|.

    Attributes
    ----------
    bus : (k,). Index of the bus.
    quadratic, absolute : (k,). a and b, per unit of the system's base.
    limit_pu : (k,). Largest change either way.
    """

    bus: IntArray
    quadratic: FloatArray
    absolute: FloatArray
    limit_pu: FloatArray


def load_flexible(source: str | Path, system: TransmissionSystem) -> FlexibleLoads:
    """Return the flexible loads of a system, from ``flexible_loads.csv`` in its folder.

    Raises TransmissionError: There is no such table, or one that cannot be used.
    """
    path = system_folder(source) / TABLE
    if not path.is_file():
        raise TransmissionError(
            f"system '{source}' has no flexible loads",
            where=str(path),
            expected=f"a table with the columns {', '.join(_COLUMNS)}",
        )
    rows = read_table(path, _COLUMNS, TransmissionError)
    at = {bus: i for i, bus in enumerate(system.buses)}
    bus: list[int] = []
    for row in rows:
        name = row.name("bus")
        if name not in at or at[name] in bus:
            raise row.error(
                "bus",
                f"'{name}' {'is there twice' if name in at else 'is no bus'}",
                expected="each bus of buses.csv at most once",
                nearest=nearest_name(name, at),
            )
        bus.append(at[name])
    return FlexibleLoads(
        np.array(bus, dtype=np.int64),
        np.array([row.number_of("cost_per_pu2", over=0.0) for row in rows]),
        np.array([row.number_of("cost_per_pu", least=0.0) for row in rows]),
        np.array([row.number_of("limit_mw", least=0.0) for row in rows]) / system.base_mva,
    )
