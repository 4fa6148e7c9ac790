"""Feeders by name or by path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from grid_models.base.errors import FeederError, listed, nearest_name
from grid_models.feeder.model import Der, Feeder
from grid_models.feeder.tables import feeder_from_tables

if TYPE_CHECKING:
    from grid_models.opendss.circuit import Circuit
    from grid_models.opendss.file_ders import FileDers
    from grid_models.opendss.solution import RegulatorMode

_SHIPPED = {
    "ieee13": "IEEE 13-node test feeder, 4.16 kV, 3.5 MW, short and highly loaded",
    "ieee123": "IEEE 123-node test feeder, 4.16 kV, 3.5 MW, 85 load buses, seven regulators",
    "ieee123-der-rich": "IEEE 123 with 1008 houses, 348 water heaters, 207 PV and 173 batteries "
    "in place of its spot loads",
    "ieee123-der-rich-homes": "The same feeder with one DER for each house and water heater, 1736 "
    "in all",
}
_DER_RICH = ("ieee123-der-rich", "ieee123-der-rich-homes")


def shipped_feeders() -> dict[str, str]:
    """Return the name of every shipped feeder with a one-line description."""
    return dict(_SHIPPED)


def shipped_folder(name: str) -> Path:
    """Return the folder that holds the tables of a shipped feeder."""
    return Path(str(resources.files("grid_models"))) / "data" / name


def load_feeder(model: str | Path) -> Feeder:
    """Return a feeder by its shipped name, or read from an OpenDSS master file or table folder.

    `model`: A name of `shipped_feeders`, the path of an OpenDSS master file, or the path of a
    folder of tables (see `feeder_from_tables`).

    Raises FeederError: No such name or file, or the file does not give a usable feeder.
    """
    if str(model).lower() in _SHIPPED:
        name = str(model).lower()
        if name in _DER_RICH:
            from grid_models.ders.homes import single_units
            from grid_models.ders.rich_feeder import shipped_ders

            ders = shipped_ders()
            if name == _DER_RICH[1]:
                ders = single_units(ders)
            # The houses stand for the spot loads; both would serve the same customers twice.
            return replace(load_feeder("ieee123"), name=name, loads=(), ders=ders)
        return _shipped_feeder(name)
    path = require_model_path(model)
    if path.is_dir():
        _refuse_folder_of_dss(path)
        return feeder_from_tables(path)
    from grid_models.opendss.master import open_master

    return open_master(path).feeder


@cache
def _shipped_feeder(name: str) -> Feeder:
    """Read the tables of a shipped feeder, once in a process: its runs share what cannot change."""
    return feeder_from_tables(shipped_folder(name), name=name)


def _refuse_folder_of_dss(path: Path) -> None:
    """Raise naming the master file where a folder holds OpenDSS files and no tables."""
    files = sorted(p for p in path.iterdir() if p.suffix.lower() == ".dss")
    if not files or (path / "lines.csv").exists():
        return
    masters = [p for p in files if "master" in p.stem.lower()] or files
    raise FeederError(
        "this is a folder of OpenDSS files",
        where=f"grid model '{path}'",
        expected=f"the path of its master file, one of {listed([p.name for p in files], 6)} "
        "(a folder is a model where it has tables: lines.csv, line_configs.csv, ...)",
        nearest=str(masters[0]) if len(masters) == 1 else None,
    )


def open_circuit(
    model: str | Path | Feeder,
    ders: Sequence[Der] = (),
    *,
    regulators: RegulatorMode = "fixed",
    taps: Mapping[str, int] | None = None,
    source_v_pu: float | None = None,
    file_ders: FileDers = "ours",
    tolerance_pu: float | None = None,
) -> Circuit:
    """Open any feeder as a circuit, with resources added, solved once.

    Parameters
    ----------
    model : A shipped name, the path of an OpenDSS master file or table folder, or a feeder.
    ders : Resources that `Circuit.set_ders` moves: instead of a feeder's own, and beside those
        that are taken over from a master file.
    regulators : See `Circuit.from_feeder` and `open_master`.
    taps : Taps to start from (or to hold), in steps of 0.00625 pu, by regulator.
    source_v_pu : Voltage of the source, instead of the model's.
    file_ders : Who runs the DERs of a master file, see `open_master`.
    tolerance_pu : Largest change between two iterations of a solution; 1e-6 by default.

    Raises FeederError, PowerFlowError: As the constructors do.
    """
    from grid_models.opendss.circuit import TOLERANCE_PU, Circuit

    tolerance_pu = TOLERANCE_PU if tolerance_pu is None else tolerance_pu
    if not isinstance(model, Feeder) and is_master(model):
        from grid_models.opendss.master import open_master

        circuit = open_master(
            require_model_path(model),
            regulators=regulators,
            file_ders=file_ders,
            tolerance_pu=tolerance_pu,
        )
        if ders:
            circuit.place_ders(ders)
    else:
        feeder = model if isinstance(model, Feeder) else load_feeder(model)
        feeder = feeder.with_ders(ders) if ders else feeder
        circuit = Circuit.from_feeder(feeder, regulators=regulators, tolerance_pu=tolerance_pu)
    return circuit.adjusted(taps, source_v_pu)


def is_master(model: str | Path) -> bool:
    """Whether `model` is an OpenDSS master file.

    Raises FeederError: It is not a shipped name either, and nothing at this path exists.
    """
    return str(model).lower() not in _SHIPPED and require_model_path(model).is_file()


def require_model_path(model: str | Path) -> Path:
    """Return `model` as the path of something that exists, or raise naming the nearest thing."""
    path = Path(model).expanduser()
    if path.exists():
        return path
    text = str(model)
    siblings: list[str] = []
    if path.parent.is_dir() and path.name:
        masters = [p.name for p in path.parent.iterdir() if p.suffix.lower() in (".dss", ".txt")]
        siblings = [str(path.parent / name) for name in masters]
    looks_like_path = path.suffix.lower() in (".dss", ".txt") or path.parent != Path()
    raise FeederError(
        "no such file" if looks_like_path else "no such feeder",
        where=f"grid model '{text}'",
        expected=f"one of {', '.join(_SHIPPED)}, or the path of an OpenDSS master file",
        nearest=nearest_name(path.name, _SHIPPED) or nearest_name(text, siblings),
    )
