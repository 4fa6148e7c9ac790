"""Recorded or foreign traces: long tables of values that a step plays."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from controllers.core.mail import FloatArray
from federates.errors import ScenarioError, WiringError
from federates.scenario.attack_schedule import LATE_S, AttackSchedule
from federates.scenario.attack_schema import AttackSpec
from grid_models.base.errors import nearest_hint, nearest_name

_SHOWN = 4
TIME_NAMES, COLUMNS = ("time_s", "time"), ("port", "label", "value")


class Trace:
    """A trace as step functions of time for given elements.

    Parameters
    ----------
    path : As `read_trace` takes it.
    elements : (port, label). Whose values are wanted; an element without rows is never played.
    offset_s, speed : ``trace time = (elapsed_s - offset_s) * speed``.
    aim : A further name of the elements' port: that of the input which they feed.

    Attributes
    ----------
    wanted : (port, label). The elements, by the port's name in the attack file if it gives one.
    some : (port, label). Of the file's first value; None if it holds none.
    """

    def __init__(
        self,
        path: Path,
        elements: Sequence[tuple[str, str]],
        offset_s: float,
        speed: float,
        aim: str = "",
    ) -> None:
        times, ports, labels, values = read_trace(path)
        self.path = path
        port = aim if aim and not set(aim) & set("*?[") else ""
        self.wanted = tuple((port or name, label) for name, label in elements)
        self.some = (ports[0], labels[0]) if ports else None
        self.offset_s, self._speed = offset_s, speed
        number = {(aim, label): i for i, (_, label) in enumerate(elements)}
        number |= {key: i for i, key in enumerate(elements)}
        owner = np.array([number.get(key, -1) for key in zip(ports, labels, strict=True)], np.intp)
        order = np.lexsort((times, owner))
        order = order[owner[order] >= 0]
        self._times, self._values = times[order], values[order]
        # Each element reads its own part of the table, from the row before its first.
        count = np.bincount(owner[order], minlength=len(elements))
        self._end = np.cumsum(count)
        self._first = self._end - count
        self._at = self._first - 1

    def play(self, elapsed_s: float, true: FloatArray) -> FloatArray:
        """Return the trace's values now; the true ones before the first row of an element."""
        now = (elapsed_s - self.offset_s) * self._speed + LATE_S
        if not len(self._times):
            return true
        while True:  # as many rounds as rows have passed since the last step
            following = np.minimum(self._at + 1, len(self._times) - 1)
            due = (self._at + 1 < self._end) & (self._times[following] <= now)
            if not due.any():
                break
            self._at[due] += 1
        began = self._at >= self._first
        out = true.copy()
        out[began] = self._values[self._at[began]]
        return out

    @property
    def begins_s(self) -> float:
        """Time since the step's begin of the first value that is played; inf: none ever is."""
        if not len(self._times):
            return float("inf")
        return self.offset_s + float(self._times.min()) / self._speed


def read_trace(path: Path) -> tuple[FloatArray, list[str], list[str], FloatArray]:
    """Read a long table: times in s, ports, labels, values; rows without a value are left out.

    NaN is no value. The ground truth of an attacked run (its folder, or a table of it) is read as
    what was seen, a recorded signal (``signals/FEDERATE.PORT.parquet``) as a trace of its port.

    Raises ScenarioError: The file is missing, is no table, lacks a column or has it twice, or holds
    a time or a value that is not a number.
    """
    table = _in_long_form(_table(path), path)
    names = table.column_names
    time_name = next((n for n in TIME_NAMES if n in names), "")
    missing = next((n for n in (time_name or "time_s", *COLUMNS) if n not in names), None)
    if missing is not None:
        raise ScenarioError(
            f"has no column '{missing}'",
            where=str(path),
            expected="the columns time_s, port, label, value",
            nearest=nearest_name(missing, names),
        )
    _refuse_twice(names, (time_name, *COLUMNS), path)
    times = _numbers(table, time_name, path, nan=False)
    values = _numbers(table, "value", path)
    good = np.flatnonzero(~np.isnan(values))
    columns = (table[n].to_pylist() for n in ("port", "label"))
    ports, labels = ([str(column[i]) for i in good.tolist()] for column in columns)
    return times[good], ports, labels, values[good]


def left_out(path: Path) -> list[str]:
    """Say what of a ground truth is not played, since it is no value of a signal.

    Raises ScenarioError: As `read_trace`.
    """
    table = _table(path)
    if not _is_truth(table):
        return []
    ports = Counter(table["port"].to_pylist())
    rows: Counter[str] = Counter()
    for port, words in _no_signals().items():
        rows[words] += ports[port]
    return [f"{n} rows of {words} are not played" for words, n in rows.items() if n]


def _no_signals() -> dict[str, str]:
    """Return what the ports of a ground truth that are no signals hold."""
    from federates.attacks.link.inbox import TRUTH_PORT
    from federates.attacks.modbus.wire import PORT
    from federates.attacks.physical.action import UNITS

    return {TRUTH_PORT: "mail", PORT: "Modbus points"} | dict.fromkeys(
        UNITS, "states of grid elements"
    )


def _is_truth(table: Any) -> bool:
    return {"federate", "port", "label", "seen_value"} <= set(table.column_names)


def _in_long_form(table: Any, path: Path) -> Any:
    """Return a ground truth or a recorded signal as a long table; others as they are.

    Of a ground truth the values of signals are taken: mail, Modbus points and states of elements
    have no port that a trace could play.
    """
    import pyarrow as pa

    names = table.column_names
    if _is_truth(table):
        others = _no_signals()
        played = [port not in others for port in table["port"].to_pylist()]
        table = table.filter(pa.array(played, pa.bool_()))
        whose = zip(table["federate"].to_pylist(), table["port"].to_pylist(), strict=True)
        columns = [table["time_s"], [f"{f}.{p}" for f, p in whose], table["label"]]
        return pa.table([*columns, table["seen_value"]], ["time_s", *COLUMNS])
    if "time_s" in names and not set(COLUMNS) & set(names) and path.stem.count(".") == 1:
        _refuse_twice(names, names, path)
        labels = [n for n in names if n != "time_s"]
        n, m = table.num_rows, len(labels)
        times = np.repeat(_numbers(table, "time_s", path, nan=False), m)
        values = np.array([_numbers(table, label, path) for label in labels]).T.ravel()
        return pa.table([times, [path.stem] * (n * m), labels * n, values], ["time_s", *COLUMNS])
    return table


def _table(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.csv as csv
    import pyarrow.parquet as pq

    if (path / "manifest.json").is_file():
        from federates.attacks.truth import read_truth

        return read_truth(path)
    if not path.is_file():
        what = "is no folder of a run" if path.is_dir() else "no such file or folder"
        expected = "the folder of an attacked run, or a CSV or Parquet table"
        raise ScenarioError(what, where=str(path), expected=expected)
    try:
        if path.suffix.lower() == ".parquet":
            return pq.read_table(path)
        words = {"port": pa.string(), "label": pa.string()}
        table = csv.read_csv(path, convert_options=csv.ConvertOptions(column_types=words))
        _ = table.column_names  # only now it is decoded
        return table
    except UnicodeDecodeError as error:
        what = f"a column's name is not UTF-8: {error.object!r}"
        raise ScenarioError(what, where=f"{path}, row 1", expected="a table in UTF-8") from None
    except (pa.ArrowException, OSError):
        parquet = path.suffix.lower() == ".parquet"
        raise ScenarioError(
            "cannot be read as a table",
            where=str(path),
            expected="a complete Parquet file"
            if parquet
            else "CSV in UTF-8: a header row, and as many fields in every row",
        ) from None


def _refuse_twice(names: Sequence[str], wanted: Sequence[str], path: Path) -> None:
    for name in wanted:
        if names.count(name) > 1:
            what = f"has {names.count(name)} columns '{name}'"
            raise ScenarioError(what, where=str(path), expected="one")


def _numbers(table: Any, name: str, path: Path, *, nan: bool = True) -> FloatArray:
    """Return a column of finite numbers; NaN, for none, only where that is allowed."""
    import pyarrow as pa

    try:
        column = table[name].cast(pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        found = next((x for x in table[name].to_pylist() if not _is_number(x)), "")
        raise ScenarioError(
            f"column '{name}' is not of numbers: found {found!r:.60}", where=str(path)
        ) from None
    out = np.array([np.nan if x is None else x for x in column.to_pylist()], dtype=np.float64)
    bad = np.isinf(out) if nan else ~np.isfinite(out)
    if bad.any():
        k = int(np.argmax(bad))
        row = k + (1 if path.suffix.lower() == ".parquet" else 2)  # of a CSV, 1 is the header
        where = f"{path}, row {row}, column '{name}'"
        raise ScenarioError(f"found {out[k]:g}", where=where, expected="a finite number")
    return out


def _is_number(value: object) -> bool:
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return value is None
    return True


def refuse_idle(
    spec: AttackSpec,
    schedule: AttackSchedule,
    horizon_s: float,
    traces: Iterable[tuple[int, Trace]],
) -> None:
    """Raise a `WiringError` for steps that play a file of which no value would ever be played.

    `traces` are (step, Trace) of all attack federates: each plays the part of a step's targets
    that pass it. The run ends at `horizon_s`.
    """
    of_step: dict[int, list[Trace]] = {}
    for i, trace in traces:
        of_step.setdefault(i, []).append(trace)
    problems = []
    for i, parts in sorted(of_step.items()):
        begin_s = 0.0 if math.isnan(schedule.begin_s[i]) else schedule.begin_s[i]
        last_s = min(schedule.length_s[i], horizon_s - begin_s)
        first_s = min(part.begins_s for part in parts)
        if not (first_s < last_s or (schedule.stays[i] and first_s <= last_s)):
            where, path = spec.where("steps", i, "action", "file"), parts[0].path
            why = _why_idle(parts, first_s, last_s)
            problems.append(f"{where}: nothing of {path} would be played: {why}")
    if problems:
        raise WiringError(problems)


def _why_idle(parts: Sequence[Trace], first_s: float, last_s: float) -> str:
    some = parts[0].some
    if some is None:
        return "it holds no value; expected a row with a value that is not NaN"
    if math.isfinite(first_s):
        offset_s = parts[0].offset_s - first_s
        return (
            f"the first value of a target would come {first_s:.10g} s after the step's begin; "
            f"expected less than {last_s:g} s; offset_s: {offset_s!r} plays it at once"
        )
    keys = dict.fromkeys(f"{port} {label}" for part in parts for port, label in part.wanted)
    return (
        f"no row is of a target, its first is of {' '.join(some)}; expected rows of "
        f"{', '.join(list(keys)[:_SHOWN])}{nearest_hint(' '.join(some), keys)}"
    )
