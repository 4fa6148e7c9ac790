"""Cases of optimal power flow: shipped ones and a user's own."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from grid_models.base.errors import listed, nearest_name
from grid_models.transmission.case_tables import read_case_folder
from grid_models.transmission.matpower_file import read_matpower_file
from grid_models.transmission.model import TransmissionError
from grid_models.transmission.opf_case import OpfCase

__all__ = ["SHIPPED_CASES", "OpfCase", "load_case"]

SHIPPED_CASES = {
    "case39": "IEEE 39 buses (New England): 10 generators, limits of branches, 3 areas",
    "case57": "IEEE 57 buses: 7 generators, no limits of branches",
    "case118": "IEEE 118 buses: 54 generators, no limits of branches",
}
_FOLDER = Path(str(resources.files("grid_models"))) / "data"


def load_case(source: str | Path) -> OpfCase:
    """Return a case of optimal power flow.

    `source`: A name of `SHIPPED_CASES`, a MATPOWER file (``.m``, version 2), or a folder of tables
    like those of the shipped cases. What of a file is not used is in `OpfCase.notes`.

    Raises TransmissionError: No such name or file, or a value that cannot be used, with file, line,
    column, and bus, generator or branch.
    """
    name = str(source).lower()
    if name in SHIPPED_CASES:
        return read_case_folder(_FOLDER / name, name)
    path = Path(source)
    if path.is_dir():
        return read_case_folder(path, path.name)
    if path.is_file():
        return read_matpower_file(path)
    raise TransmissionError(
        f"there is no case '{source}'",
        expected=f"one of {listed(tuple(SHIPPED_CASES))}, a MATPOWER file or a folder of tables",
        nearest=nearest_name(name, SHIPPED_CASES) or _nearest_file(path),
    )


def _nearest_file(path: Path) -> str | None:
    others = (p.name for p in path.parent.glob("*.m")) if path.parent.is_dir() else ()
    near = nearest_name(path.name, others)
    return str(path.parent / near) if near else None
