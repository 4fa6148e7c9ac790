"""Which tables make a feeder, and reading all of a folder."""

from __future__ import annotations

from pathlib import Path

from grid_models.base.csv_tables import Row, read_table
from grid_models.base.errors import FeederError, nearest_name

POWER_COLUMNS = ("kw_a", "kvar_a", "kw_b", "kvar_b", "kw_c", "kvar_c")
COLUMNS: dict[str, tuple[str, ...]] = {
    table: tuple(columns.split())
    for table, columns in {
        "lines": "from_bus to_bus phases length_ft config",
        "line_configs": "config phase_i phase_j r_ohm_per_mile x_ohm_per_mile "
        "b_microsiemens_per_mile",
        "spot_loads": f"bus connection model {' '.join(POWER_COLUMNS)}",
        "distributed_loads": f"from_bus to_bus connection model {' '.join(POWER_COLUMNS)}",
        "transformers": "name from_bus to_bus phases kva kv_ll_high conn_high kv_ll_low conn_low "
        "r_pct x_pct in_published_solution",
        "regulators": "name from_bus to_bus phases monitored_phase ganged bandwidth_v pt_ratio "
        "ct_primary_a r_setting_v x_setting_v voltage_level_v published_tap_step",
        "capacitors": "bus kv_ln kvar_a kvar_b kvar_c",
        "switches": "name from_bus to_bus phases normal_state",
        "bus_coords": "bus x_ft y_ft",
    }.items()
}
_REQUIRED = ("lines", "line_configs", "spot_loads")
_IGNORED = ("line_config_conductors", "reference_")


def read_folder(folder: Path) -> dict[str, list[Row]]:
    """Return the rows of every known table; one that is absent and may be is empty."""
    if not folder.is_dir():
        siblings = [p.name for p in folder.parent.iterdir()] if folder.parent.is_dir() else []
        raise FeederError(
            "the folder does not exist",
            where=str(folder),
            expected="a folder of feeder tables",
            nearest=nearest_name(folder.name, siblings),
        )
    for path in sorted(folder.glob("*.csv")):
        # A misspelt optional table would otherwise be a silently smaller feeder.
        if path.stem not in COLUMNS and not path.name.startswith(_IGNORED):
            raise FeederError(
                "no table has this name",
                where=str(path),
                expected=", ".join(f"{t}.csv" for t in COLUMNS),
                nearest=nearest_name(path.stem, COLUMNS),
            )
    tables = {}
    for table, columns in COLUMNS.items():
        path = folder / f"{table}.csv"
        tables[table] = read_table(path, columns) if table in _REQUIRED or path.exists() else []
    return tables
