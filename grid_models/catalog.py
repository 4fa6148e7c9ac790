"""Feeders by name or by path."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from pathlib import Path

from grid_models.errors import FeederError, nearest_name
from grid_models.feeder import Feeder
from grid_models.tables import feeder_from_tables

_SHIPPED = {
    "ieee13": "IEEE 13-node test feeder, 4.16 kV, 3.5 MW, short and highly loaded",
    "ieee123": "IEEE 123-node test feeder, 4.16 kV, 3.5 MW, 85 load buses, seven regulators",
    "ieee123-der-rich": "IEEE 123 with 1008 houses, 348 water heaters, 207 PV and 173 batteries "
    "in place of its spot loads",
}
_DER_RICH = "ieee123-der-rich"


def shipped_feeders() -> dict[str, str]:
    """Return the name of every shipped feeder with a one-line description."""
    return dict(_SHIPPED)


def shipped_folder(name: str) -> Path:
    """Return the folder that holds the tables of a shipped feeder."""
    return Path(str(resources.files("grid_models"))) / "data" / name


def load_feeder(model: str | Path) -> Feeder:
    """Return a feeder by its shipped name, or read from an OpenDSS master file or table folder.

    Parameters
    ----------
    model : str or Path
        A name of `shipped_feeders`, the path of an OpenDSS master file, or the path of a folder
        of tables (see `feeder_from_tables`).

    Raises
    ------
    FeederError
        No such name or file, or the file does not give a usable feeder.
    """
    if str(model).lower() in _SHIPPED:
        name = str(model).lower()
        if name == _DER_RICH:
            from grid_models import der_rich

            # The houses stand for the spot loads; both would serve the same customers twice.
            return replace(load_feeder("ieee123"), name=name, loads=(), ders=der_rich.load())
        return feeder_from_tables(shipped_folder(name), name=name)
    path = require_model_path(model)
    if path.is_dir():
        return feeder_from_tables(path)
    from grid_models.opendss import Circuit

    return Circuit.from_master(path).feeder


def require_model_path(model: str | Path) -> Path:
    """Return `model` as the path of something that exists, or raise naming the nearest thing."""
    path = Path(model).expanduser()
    if path.exists():
        return path
    text = str(model)
    siblings: list[str] = []
    if path.parent.is_dir() and path.name:
        siblings = [str(path.parent / p.name) for p in path.parent.iterdir()]
    looks_like_path = path.suffix.lower() in (".dss", ".txt") or path.parent != Path()
    raise FeederError(
        "no such file" if looks_like_path else "no such feeder",
        where=f"grid model '{text}'",
        expected=f"one of {', '.join(_SHIPPED)}, or the path of an OpenDSS master file",
        nearest=nearest_name(text, [*_SHIPPED, *siblings]),
    )
