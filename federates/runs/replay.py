"""Repeating a run from its folder, and the byte-wise comparison of two runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from federates.attacks.labels import FOLDER as LABELS
from federates.attacks.labels import SEEN
from federates.attacks.truth import FOLDER as TRUTH
from federates.core.run_store import package_versions
from federates.core.signals import STREAM, TABLE, read_batches
from federates.errors import ScenarioError
from federates.runs.data import RunData
from federates.scenario.named_classes import make_importable
from federates.scenario.schema import Scenario, scenario_from
from federates.scenario.yaml_source import YamlSource

_FOLDERS = ("signals", TRUTH, LABELS, SEEN)


@dataclass(frozen=True)
class Difference:
    """Where two runs differ first.

    Attributes
    ----------
    file : str
        Relative to the run's folder.
    what : str
        In words.
    time_s, label : float, str, or None
        Of the first value that differs.
    """

    file: str
    what: str
    time_s: float | None = None
    label: str | None = None

    def __str__(self) -> str:
        at = "" if self.time_s is None else f" at time_s={self.time_s:g}"
        label = "" if self.label is None else f", label {self.label}"
        return f"{self.file}{at}{label}: {self.what}"


@dataclass(frozen=True)
class Verdict:
    """What the comparison of two runs gave; `whole` False: only what the first recorded."""

    files: int
    differences: tuple[Difference, ...]
    whole: bool = True

    @property
    def first(self) -> Difference | None:
        """The difference that lies earliest in time; None where there is none."""
        at = [d for d in self.differences if d.time_s is not None]
        return min(at, key=lambda d: d.time_s or 0.0) if at else next(iter(self.differences), None)


def scenario_of_run(folder: Path) -> tuple[Scenario, RunData]:
    """Return the scenario of a run as its manifest holds it, attack and defence merged in.

    Raises
    ------
    ScenarioError
        The folder holds no run, or one of a version whose scenarios are not understood.
    """
    run = RunData(folder)
    base_dir = Path(run.manifest.get("base_dir", "."))
    attack_dir = Path(run.manifest.get("attack_base_dir", base_dir))
    make_importable([attack_dir])
    source = YamlSource(str(base_dir / f"{run.name}.yaml"), run.scenario)
    try:
        changes = [c for c in run.changes if not c.startswith("steps=")]
        scenario = scenario_from(source, base_dir=base_dir, changes=changes)
    except ScenarioError as error:
        error.where = error.where or str(folder / "manifest.json")
        raise
    if scenario.attack_spec is not None:
        scenario.attack_spec._base_dir = attack_dir
    return scenario, run


def version_warnings(run: RunData) -> list[str]:
    """Say which packages are not those of the run."""
    was = run.manifest.get("versions") or {}
    return [
        f"{name} was {was.get(name)}, is {now}"
        for name, now in package_versions().items()
        if name in was and was[name] != now
    ]


def compare_runs(first: Path, again: Path, *, whole: bool = True) -> Verdict:
    """Compare the recorded signals, the ground truth and the labels of two runs.

    Parameters
    ----------
    first, again : Path
        Folders of the runs.
    whole : bool
        False: the first did not finish; only what it recorded is compared, by value.
    """
    names = sorted(set(_tables(first)) | (set(_tables(again)) if whole else set()))
    if not whole:  # labels are made at the end of a run
        names = [n for n in names if not n.startswith((f"{LABELS}/", f"{SEEN}/"))]
    found = (_difference(first, again, name, whole) for name in names)
    return Verdict(len(names), tuple(d for d in found if d is not None), whole)


def _tables(folder: Path) -> Iterator[str]:
    for sub in _FOLDERS:
        for path in sorted((folder / sub).glob("*")):
            if path.suffix in (TABLE, STREAM):
                yield f"{sub}/{path.name.removesuffix(path.suffix)}"


def _difference(first: Path, again: Path, name: str, whole: bool) -> Difference | None:
    one, two = _path(first / name), _path(again / name)
    if one is None or two is None:
        there, not_there = ("again", "before") if one is None else ("before", "again")
        return Difference(name, f"written {there}, not {not_there}")
    file = str(one.relative_to(first))
    if whole and one.read_bytes() == two.read_bytes():
        return None
    was, now = _read(one), _read(two)
    if was.column_names != now.column_names:
        return Difference(file, f"{len(was.column_names)} columns, again {len(now.column_names)}")
    rows = min(was.num_rows, now.num_rows)
    found = _first_value(file, was.slice(0, rows), now.slice(0, rows))
    if found is not None:
        return found
    if was.num_rows > rows or (whole and now.num_rows > rows):
        return Difference(file, f"{was.num_rows} rows, again {now.num_rows}")
    return Difference(file, "equal values in other bytes") if whole else None


def _first_value(file: str, was: Any, now: Any) -> Difference | None:
    best: tuple[int, str] | None = None
    for name in was.column_names:
        row = _first_row(was[name], now[name])
        if row is not None and (best is None or row < best[0]):
            best = row, name
    if best is None:
        return None
    row, name = best
    time_s = was["time_s"][row].as_py() if "time_s" in was.column_names else None
    label = was["label"][row].as_py() if "label" in was.column_names else name
    values = was[name][row].as_py(), now[name][row].as_py()
    return Difference(file, f"{values[0]!r}, again {values[1]!r}", time_s, label)


def _first_row(was: Any, now: Any) -> int | None:
    """Return the first row at which two columns differ in a bit."""
    import pyarrow as pa

    if was.type == pa.float64() and now.type == pa.float64():
        one, two = (
            np.array(c.combine_chunks().to_pylist(), dtype=np.float64).view(np.int64)
            for c in (was, now)
        )
        rows = np.flatnonzero(one != two)
        return int(rows[0]) if rows.size else None
    pairs = zip(was.to_pylist(), now.to_pylist(), strict=True)
    return next((i for i, (one, two) in enumerate(pairs) if one != two), None)


def _path(stem: Path) -> Path | None:
    paths = (stem.with_name(stem.name + suffix) for suffix in (TABLE, STREAM))
    return next((path for path in paths if path.is_file()), None)


def _read(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix == TABLE:
        return pq.read_table(path)
    batches = list(read_batches(path))
    return pa.Table.from_batches(batches) if batches else pa.table({})
