"""Labels for machine learning: beside every recorded signal a table of the same shape.

``labels/FEDERATE.PORT.parquet`` has the rows and columns of ``signals/FEDERATE.PORT.parquet``:
``time_s``; ``under_attack``, 1 while any step is active; and one column per label, 0 where no step
acted and k where step k of the attack (from 1) did: it forged the value, or it acts on the DER,
load, line or switch that the column belongs to. A port's own signal holds the true values, the
attack federates' signals hold what the readers saw; both are labelled.

``seen/FEDERATE.PORT.parquet``, of every attacked port, has the same rows and columns, too: the
whole port as its deceived readers saw it. So true value, seen value and label stand side by side.
Readers that were deceived in different ways have tables of their own, ``FEDERATE.PORT-2``.

The tables' metadata hold `about`: title, seed, version, unit of the port, and ``steps``, the legend
of the numbers. pandas gives it as ``DataFrame.attrs``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from controllers.core.mail import FloatArray, IntArray
from federates.attacks.physical.action import UNITS
from federates.attacks.plan import AttackPlan, SitePlan
from federates.attacks.signal.forge import ForgePlan
from federates.attacks.truth import read_truth
from federates.clock import to_s
from federates.core.run_store import package_versions
from federates.core.signals import arrow_column, numpy_column, read_signal, signal_names
from federates.scenario.schema import Scenario

FOLDER, SEEN = "labels", "seen"
_DER_PORTS = ("p_kw", "q_kvar")
"""A plant's outputs whose labels are names of DERs."""
_EMPTY: Mapping[str, Any] = MappingProxyType({})
_Key = tuple[str, str]
_Marks = dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]
"""Of one port: label to (times in ns, numbers of the steps that acted)."""


def about_run(scenario: Scenario) -> dict[str, Any]:
    """Return what the metadata of a run's tables say, the unit left out."""
    spec = scenario.attack_spec
    steps = [] if spec is None else spec.steps
    return {
        "title": scenario.title or scenario.name,
        "seed": scenario.seed,
        "version": package_versions()["feederate"],
        "attack": spec.id if spec is not None else None,
        "steps": {"0": "none", **{str(k): step.id for k, step in enumerate(steps, 1)}},
    }


def with_metadata(table: Any, about: Mapping[str, Any]) -> Any:
    """Return an Arrow table with metadata, which pandas gives as ``DataFrame.attrs``."""
    return table.replace_schema_metadata({"PANDAS_ATTRS": json.dumps(about)})


def write_labels(
    run: Path,
    plan: AttackPlan,
    groups: Mapping[str, Sequence[str]],
    units: Mapping[str, str] = _EMPTY,
    about: Mapping[str, Any] = _EMPTY,
) -> None:
    """Write the labels of a run that has ended, and what was seen of each attacked port.

    Parameters
    ----------
    run : Folder of the run.
    groups : Instances by the scenario's federate name.
    units : By ``federate.port``.
    about : Metadata of all tables.
    """
    marks = _marks(run, plan.schedule.ids)
    windows = attack_windows(run)
    group_of = {name: group for group, names in groups.items() for name in names}
    numbers = np.min_scalar_type(-len(plan.schedule.ids) - 1)  # signed, as small as will do
    channels = {
        (site.name, out): (key, to_s(site.shift_ns))
        for site in plan.sites.values()
        for out, key in (
            (port.name, (federate, name))
            for port, (federate, name, _) in zip(site.outputs, site.books, strict=True)
        )
    }
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    for name in signal_names(run / "signals"):
        federate, _, port = name.partition(".")
        own = ((group_of.get(federate, federate), port), 0.0)
        key, shift_s = channels.get((federate, port), own)
        time_s, labels, _ = read_signal(run / "signals", name)
        found = _on_elements(marks, federate, port, labels) | marks.get(key, {})
        columns = _columns(time_s + shift_s, labels, found, numbers)
        under = _under_attack(time_s + shift_s, windows)
        table = pa.table(
            [arrow_column(time_s), under, *columns], ["time_s", "under_attack", *labels]
        )
        table = with_metadata(table, {**about, "unit": units.get(name)})
        pq.write_table(table, folder / f"{name}.parquet", compression="zstd")
    for site in plan.sites.values():
        _write_seen(run, site, units, about)


def _write_seen(
    run: Path, site: SitePlan, units: Mapping[str, str], about: Mapping[str, Any]
) -> None:
    """Write each attacked port as its readers saw it: true, but for what passed the attack."""
    recorded = signal_names(run / "signals")
    for channel in (c for part in site.parts if isinstance(part, ForgePlan) for c in part.channels):
        if not channel.source:  # an input that only the attack feeds has no true value
            continue
        feed = site.feeds[channel.source][0]
        source, passing = f"{feed.source}.{feed.port}", f"{site.name}.{channel.out}"
        if passing not in recorded or source not in recorded:
            continue
        name = source + channel.out.removeprefix(f"{feed.source}-{feed.port}")
        seen_s, forged, passed = read_signal(run / "signals", passing)
        time_s, labels, values = read_signal(run / "signals", source)
        row, known = _rows_at(_ns(time_s), _ns(seen_s) + site.shift_ns)
        place = np.array([labels.index(label) for label in forged], dtype=np.int64)
        values[row[known, None], place] = passed[known]
        columns = [arrow_column(column) for column in (time_s, *values.T.copy())]
        table = pa.table(columns, ["time_s", *labels])
        (run / SEEN).mkdir(exist_ok=True)
        pq.write_table(
            with_metadata(table, {**about, "unit": units.get(source)}),
            run / SEEN / f"{name}.parquet",
            compression="zstd",
            use_dictionary=False,
            use_byte_stream_split=True,
        )


def _on_elements(
    marks: Mapping[_Key, _Marks], federate: str, port: str, labels: Sequence[str]
) -> _Marks:
    """Return the marks of the columns whose DER, load, line or switch a physical step acts on."""
    found: _Marks = {}
    known = frozenset(labels)
    for (plant, action), elements in marks.items():
        if action not in UNITS or plant != federate:
            continue
        for element, mark in elements.items():
            kind, _, name = element.partition(".")
            label = name if kind == "der" and port in _DER_PORTS else element
            if label in known:
                at_ns, step = found.get(label, (mark[0][:0], mark[1][:0]))
                found[label] = np.append(at_ns, mark[0]), np.append(step, mark[1])
    return found


def _marks(run: Path, steps: Sequence[str]) -> dict[_Key, _Marks]:
    """Return which values of which ports were acted on."""
    truth = read_truth(run)
    if not truth.num_rows:
        return {}
    number = {step: k + 1 for k, step in enumerate(steps)}
    time_ns = _ns(numpy_column(truth["time_s"].combine_chunks()))
    words = {c: truth[c].combine_chunks() for c in ("federate", "port", "label", "step")}
    codes = {c: numpy_column(w.indices).astype(np.int64) for c, w in words.items()}
    names = {c: w.dictionary.to_pylist() for c, w in words.items()}
    step = np.array([number[x] for x in names["step"]], dtype=np.int64)[codes["step"]]
    key = np.stack([codes["federate"], codes["port"], codes["label"]])
    order = np.lexsort(key[::-1])
    changes = np.flatnonzero((np.diff(key[:, order]) != 0).any(axis=0)) + 1
    found: dict[_Key, _Marks] = {}
    for rows in np.split(order, changes):
        federate, port, label = (names[c][codes[c][rows[0]]] for c in ("federate", "port", "label"))
        found.setdefault((federate, port), {})[label] = (time_ns[rows], step[rows])
    return found


def _columns(
    time_s: FloatArray, labels: Sequence[str], marks: _Marks, numbers: np.dtype[Any]
) -> list[Any]:
    time_ns = _ns(time_s)
    nothing = arrow_column(np.zeros(time_ns.size, dtype=numbers))
    columns = []
    for label in labels:
        if label not in marks or not time_ns.size:
            columns.append(nothing)
            continue
        at_ns, step = marks[label]
        row, known = _rows_at(time_ns, at_ns)
        column = np.zeros(time_ns.size, dtype=numbers)
        column[row[known]] = step[known]
        columns.append(arrow_column(column))
    return columns


def _ns(time_s: FloatArray) -> IntArray:
    return np.rint(time_s * 1e9).astype(np.int64)


def _rows_at(time_ns: IntArray, at_ns: IntArray) -> tuple[IntArray, NDArray[np.bool_]]:
    """Return the row of each of the times `at_ns`, and whether there is one."""
    row = np.searchsorted(time_ns, at_ns)
    inside = row < time_ns.size
    known = inside.copy()
    known[inside] = time_ns[row[inside]] == at_ns[inside]
    return row, known


def _under_attack(time_s: FloatArray, windows: Sequence[tuple[str, float, float]]) -> Any:
    active = np.zeros(time_s.size, dtype=bool)
    for _, begin_s, end_s in windows:
        active |= (time_s >= begin_s - 1e-9) & (time_s < end_s - 1e-9)
    return arrow_column(active.astype(np.int8))


def attack_windows(run: Path) -> list[tuple[str, float, float]]:
    """Return (step, begin_s, end_s) of every window of a run, in order; inf where it did not end.

    Read from the run's events, so it holds what happened, not what was planned.
    """
    open_at: dict[str, float] = {}
    windows = []
    for event in _events(run):
        if event.get("event") not in ("attack_began", "attack_ended"):
            continue
        step, time_s = str(event["step"]), float(event["time_s"])
        if event["event"] == "attack_began":
            open_at.setdefault(step, time_s)
        elif step in open_at:
            windows.append((step, open_at.pop(step), time_s))
    windows += [(step, begin_s, float("inf")) for step, begin_s in open_at.items()]
    return sorted(windows, key=lambda w: w[1])


def _events(run: Path) -> Iterator[dict[str, Any]]:
    path = run / "events.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            yield json.loads(line)
        except json.JSONDecodeError:  # a torn last line of a run that was killed
            return
