"""The tables of a data set: of each run what the operator read, with labels, and the truth."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from controllers.core.mail import FloatArray
from federates.attacks.labels import about_run, attack_windows, with_metadata
from federates.attacks.truth import read_truth
from federates.core.signals import arrow_column, read_signal
from federates.runs.dataset_plan import DatasetPlan, DatasetRun

RECOVERING_S = 900.0
"""As long after an attack the grid may still be recovering; detectors are judged by the same."""
TRUTH, PCAP, RUNS = "truth", "pcap", "runs.csv"
LABELS = ("time_s", "under_attack", "recovering", "step")
"""Columns that are no readings."""


def table_file(run: DatasetRun) -> str:
    """Return the path of a run's table in the data set."""
    return f"{run.split}/{run.name}.parquet"


def write_tables(plan: DatasetPlan, run: DatasetRun, folder: Path, out: Path) -> dict[str, Any]:
    """Write the table, the truth and the captures of a run that ended; return its row.

    Parameters
    ----------
    folder : Of the run.
    out : Of the data set.
    """
    attack = plan.attacks.get(run.attack or "")
    about = about_run(plan.scenario) | {"seed": run.seed, "attack": run.attack, "split": run.split}
    ids = [] if attack is None else [step.id for step in attack.steps]
    about["steps"] = {"0": "none", **{str(k): step for k, step in enumerate(ids, 1)}}
    about["units"] = {sensor.source: sensor.unit for sensor in plan.sensors}
    windows = attack_windows(folder)
    columns: dict[str, Any] = {}
    for sensor in plan.sensors:
        read_s, labels, values = read_signal(folder / "signals", f"{plan.operator}.{sensor.name}")
        rows = read_s - plan.offset_s >= plan.lead_s - 1e-9
        if not columns:
            columns = _labels(read_s[rows], plan.offset_s, windows, ids)
        for label, column in zip(labels, values[rows].T.astype(np.float32), strict=True):
            columns[f"{sensor.source}:{label}"] = np.ascontiguousarray(column)
    table = pa.table([arrow_column(column) for column in columns.values()], list(columns))
    _write(with_metadata(table, about), out / table_file(run))
    row: dict[str, Any] = {
        "run": run.name,
        "split": run.split,
        "table": table_file(run),
        "truth": "",
        "attack": run.attack or "",
        "seed": run.seed,
        "begin_s": f"{windows[0][1]:g}" if windows else "",
        "end_s": f"{min(max(w[2] for w in windows), _end_s(plan)):g}" if windows else "",
        "rows": table.num_rows,
        "rows_under_attack": int(columns["under_attack"].sum()),
        "rows_recovering": int(columns["recovering"].sum()),
    }
    if run.attack is not None:
        row["truth"] = f"{TRUTH}/{run.name}.parquet"
        truth = read_truth(folder)
        first = int(np.searchsorted(np.asarray(truth["time_s"]), plan.lead_s - 1e-9))
        _write(with_metadata(truth.slice(first), about), out / row["truth"], split=False)
    for capture in sorted((folder / PCAP).glob("*.pcapng")):
        (out / PCAP / run.name).mkdir(parents=True, exist_ok=True)
        capture.rename(out / PCAP / run.name / capture.name)
    return row


def _end_s(plan: DatasetPlan) -> float:
    return plan.n_steps * plan.scenario.time.step_s


def _labels(
    read_s: FloatArray, offset_s: float, windows: list[tuple[str, float, float]], ids: list[str]
) -> dict[str, Any]:
    """Return time and labels of what was read at `read_s`, `offset_s` after the plant's step.

    A window begins and ends when its first value, and the first after it, are produced: what is
    read after that is it. So the labels fit values of the plant and of devices alike.
    """
    time_s = np.round(read_s - offset_s, 9)
    step, recovering = np.zeros(len(time_s), dtype=np.int8), np.zeros(len(time_s), dtype=bool)
    for name, begin_s, end_s in windows:
        step[(read_s > begin_s) & (read_s <= end_s)] = ids.index(name) + 1
        recovering |= (read_s > end_s) & (read_s <= end_s + RECOVERING_S)
    active = step > 0
    values = time_s, active.astype(np.int8), (recovering & ~active).astype(np.int8), step
    return dict(zip(LABELS, values, strict=True))


def _write(table: Any, path: Path, *, split: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    floats = [f.name for f in table.schema if pa.types.is_floating(f.type)] if split else False
    pq.write_table(
        table,
        path,
        compression="zstd",
        use_dictionary=not split,
        use_byte_stream_split=floats,
        write_statistics=False,
    )


def file_hashes(out: Path) -> dict[str, Mapping[str, Any]]:
    """Return SHA-256 and size of every file of a data set, by its path there."""
    found: dict[str, Mapping[str, Any]] = {}
    for path in sorted(p for p in out.rglob("*") if p.is_file()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        found[path.relative_to(out).as_posix()] = {"sha256": digest, "bytes": path.stat().st_size}
    return found
