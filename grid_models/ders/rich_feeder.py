"""The DER-rich IEEE 123-node feeder in the proportions of the thesis: its table, and user tables.

Thesis (Nair, "Our modified DER-rich 123-node system"): 1008 houses with HVAC, 348 of them with
water heaters, on 85 load nodes; 207 PV of 880.84 kVA on 68 nodes; 173 batteries of 865 kVA on 63
nodes; 380 generators of 1745.8 kVA on 82 nodes, "~44%" of the spot loads' 3985.7 kVA.

Reading taken: 880.84 and 865 kVA are totals, not ratings of each unit: they add up to the 1745.8
kVA given for all 380, and only so are they 44 % of 3985.7. So a PV unit has 4.26 kVA on average
and a battery exactly 5 kVA. 68 + 63 - 82 = 49 nodes have both.

Not in the thesis, chosen here: one unit stands at one house and is single-phase; PV sizes vary by
+-40 %; a battery stores 13.5 kWh; a water heater has 4.5 kW; a house rates 4 to 10 kW (the
thesis' range). The houses replace the spot loads, in proportion to their kW: a simulation that
runs the houses leaves the spot loads out.

Table (`grid_models/data/ieee123_der_rich.csv`, made by `benchmarks/_der_rich_table.py`): the
columns are the fields of `Der`; `phases` are digits. One row per PV unit and battery; the houses
of one bus and phase share a row, `count` is their number, and so do their water heaters (kind
flexible_load with energy). The feeder `ieee123-der-rich-homes` has them one by one, 1736 DERs in
all (`grid_models.ders.homes.single_units`).
"""

from __future__ import annotations

from dataclasses import fields
from importlib import resources
from pathlib import Path
from typing import cast, get_args

from grid_models.base.csv_tables import Row, read_table
from grid_models.ders.rules import DerError
from grid_models.feeder.model import Der, DerKind, VehicleUse

TABLE = "ieee123_der_rich.csv"
COLUMNS = tuple(f.name for f in fields(Der) if f.name not in ("volt_var", "vehicle"))
USE_COLUMNS = tuple(f.name for f in fields(VehicleUse))
"""Columns that a table may have besides; an empty cell is drawn or the default."""


def shipped_ders() -> tuple[Der, ...]:
    """Return the DERs of the shipped table of the IEEE 123-node feeder."""
    return ders_from_table(Path(str(resources.files("grid_models"))) / "data" / TABLE)


def ders_from_table(path: str | Path) -> tuple[Der, ...]:
    """Read a DER table of the shipped form, for instance an edited copy.

    Raises DerError: With file, row and column of the first fault.
    """
    return tuple(_der(row) for row in read_table(Path(path), COLUMNS, DerError))


def _der(row: Row) -> Der:
    digits = row.text("phases")
    phases = tuple(int(c) for c in digits if c in "123")
    if len(phases) != len(digits):
        raise row.error("phases", f"'{digits}' are no phases", expected="digits of 1, 2 and 3")
    kind = cast(DerKind, row.choice("kind", get_args(DerKind)))
    use = {name: row.number_of(name) for name in USE_COLUMNS if row.cells.get(name)}
    if use and kind != "vehicle":
        column = next(iter(use))
        raise row.error(column, f"a {kind} does not use it", expected="an empty cell")
    return Der(
        row.text("name"),
        kind,
        row.text("bus"),
        phases,
        row.number_of("kva"),
        row.number_of("p_max_kw"),
        row.number_of("p_min_kw"),
        row.number_of("energy_kwh"),
        row.whole_number("count"),
        vehicle=VehicleUse(**use) if kind == "vehicle" else None,
    )
