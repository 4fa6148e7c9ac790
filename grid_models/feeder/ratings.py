"""Normal currents of lines from a table, where a feeder has none of its own."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path

from grid_models.base.csv_tables import read_table
from grid_models.base.errors import FeederError, listed, nearest_name
from grid_models.feeder.model import Feeder

SHIPPED_RATINGS = {
    "ieee123-assumed": "530, 230 and 155 A for line configurations 1 to 8, 9 to 11 and 12 of IEEE "
    "123; assumptions, for the test feeder publishes none",
}


def ratings_file(name: str | Path) -> Path:
    """Return the file of a shipped table of ratings, or the path as it is."""
    if str(name) in SHIPPED_RATINGS:
        stem = str(name).replace("-", "_")
        return Path(str(resources.files("grid_models"))) / "data" / f"ratings_{stem}.csv"
    return Path(name)


def with_ratings(feeder: Feeder, path: Path) -> Feeder:
    """Return the feeder with the normal currents of a table.

    path : CSV with the columns `line` (a name or a glob, in any case) and `normal_a`. Of several
        rows that match a line the last one counts.

    Raises FeederError: A row matches no line, or a cell cannot be used.
    """
    amps: dict[str, float] = {}
    names = [line.name for line in feeder.lines]
    for row in read_table(path, ("line", "normal_a")):
        glob = row.text("line").lower().removeprefix("line.")
        value = row.number_of("normal_a", over=0.0)
        found = [name for name in names if fnmatchcase(name.lower(), glob)]
        if not found:
            raise row.error(
                "line",
                f"'{glob}' matches no line of '{feeder.name}'",
                expected="the name of a line, or a glob such as 'line_1_*'",
                nearest=nearest_name(glob, names),
            )
        amps |= dict.fromkeys(found, value)
    if not amps:
        raise FeederError("the table has no row", where=str(path), expected="rows line,normal_a")
    notes = feeder.notes
    left = [name for name in names if name not in amps]
    if left:
        notes += (f"lines without a row in {path.name} ({len(left)}): {listed(left, 4)}",)
    lines = tuple(replace(x, norm_amps=amps.get(x.name, x.norm_amps)) for x in feeder.lines)
    return replace(feeder, lines=lines, notes=notes)
