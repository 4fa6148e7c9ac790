"""The tables of a sweep: ``results.parquet`` and ``timings.parquet``."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from federates.runs.sweep_plan import SweepPlan

RESULTS, TIMINGS = "results.parquet", "timings.parquet"
_NO_KEYS = ("run", "seed", "status", "reason", "steps", "folder", "host", "process")


def write_tables(folder: Path, plan: SweepPlan, rows: Mapping[int, Mapping[str, Any]]) -> None:
    """Write both tables of the runs that have ended; a reader sees the old or the new ones.

    ``results.parquet`` holds nothing that differs between two executions of one plan: times and
    hosts are in the other.
    """
    order = sorted(rows)
    _write(folder / RESULTS, _results(plan, [rows[i] for i in order]))
    times = [{"run": i, **rows[i]["times"]} for i in order]
    kinds = {"run": pa.int64(), "wall_s": pa.float64(), "stepping_s": pa.float64(),
             "host": pa.string(), "process": pa.int64()}  # fmt: skip
    _write(
        folder / TIMINGS,
        pa.table({k: pa.array([t.get(k) for t in times], kind) for k, kind in kinds.items()}),
    )


def read_tables(folder: Path) -> list[dict[str, Any]]:
    """Return both tables as one row per run."""
    rows, times = (pq.read_table(folder / name).to_pylist() for name in (RESULTS, TIMINGS))
    return [{**row, **time} for row, time in zip(rows, times, strict=True)]


def metric_names(folder: Path) -> list[str]:
    """Return the columns of ``results.parquet`` that are metrics."""
    names = pq.read_schema(folder / RESULTS).names
    return list(names[names.index("steps") + 1 : -1])


def column_name(key: str) -> str:
    """Return the column of a swept key."""
    return f"set {key}" if key in _NO_KEYS else key


def _results(plan: SweepPlan, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return run, overrides, seed, status, reason, steps, metrics and folder, in this order."""
    runs = [row["run"] for row in rows]
    points = [plan.run(i) for i in runs]
    columns: dict[str, pa.Array] = {"run": pa.array(runs, pa.int64())}
    for key in plan.keys:
        columns[column_name(key)] = column([point.get(key) for point, _ in points])
    columns["seed"] = pa.array([seed for _, seed in points], pa.int64())
    for key in ("status", "reason"):
        columns[key] = pa.array([row[key] for row in rows], pa.string())
    columns["steps"] = pa.array([row["steps"] for row in rows], pa.int64())
    for key in metric_keys(rows):
        columns[key] = pa.array([row["metrics"].get(key) for row in rows], pa.float64())
    columns["folder"] = pa.array([f"runs/{i:05d}" for i in runs], pa.string())
    return pa.table(columns)


def metric_keys(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the metrics of all runs, in order of appearance."""
    return list(dict.fromkeys(key for row in rows for key in row["metrics"]))


def column(values: Sequence[Any]) -> pa.Array:
    """Return values as numbers, truth values or text if all are; else each as JSON."""
    kinds = {type(v) for v in values if v is not None}
    if kinds == {int, float}:
        return pa.array([None if v is None else float(v) for v in values], pa.float64())
    types = {int: pa.int64(), float: pa.float64(), bool: pa.bool_(), str: pa.string()}
    if len(kinds) == 1 and (kind := kinds.pop()) in types:
        return pa.array(values, types[kind])
    return pa.array([None if v is None else json.dumps(v) for v in values], pa.string())


def _write(path: Path, table: pa.Table) -> None:
    partial = path.with_name(path.name + ".partial")
    pq.write_table(table, partial, compression="zstd")
    os.replace(partial, path)
