"""Labels for machine learning: beside every recorded signal a table of the same shape.

``labels/FEDERATE.PORT.parquet`` has the rows and columns of ``signals/FEDERATE.PORT.parquet``:
``time_s``; ``under_attack``, 1 while any step is active; and one column per label, 0 where the
value is true and k where step k of the attack (from 1) changed it. A port's own signal holds the
true values, the attack federates' signals hold what the readers saw; both are labelled.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from controllers.core.mail import FloatArray
from federates.attacks.plan import AttackPlan
from federates.attacks.truth import read_truth
from federates.clock import to_s
from federates.core.signals import read_signal, signal_names

FOLDER = "labels"
_Key = tuple[str, str]
_Marks = dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]
"""Of one port: label to (times in ns, numbers of the steps that acted)."""


def write_labels(run: Path, plan: AttackPlan, groups: Mapping[str, Sequence[str]]) -> None:
    """Write the labels of a run that has ended.

    Parameters
    ----------
    run : Folder of the run.
    groups : Instances by the scenario's federate name.
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
        columns = _columns(time_s + shift_s, labels, marks.get(key, {}), numbers)
        under = _under_attack(time_s + shift_s, windows)
        table = pa.table([pa.array(time_s), under, *columns], ["time_s", "under_attack", *labels])
        pq.write_table(table, folder / f"{name}.parquet", compression="zstd")


def _marks(run: Path, steps: Sequence[str]) -> dict[_Key, _Marks]:
    """Return which values of which ports were acted on."""
    truth = read_truth(run)
    if not truth.num_rows:
        return {}
    number = {step: k + 1 for k, step in enumerate(steps)}
    time_ns = np.rint(np.asarray(truth["time_s"]) * 1e9).astype(np.int64)
    words = {c: truth[c].combine_chunks() for c in ("federate", "port", "label", "step")}
    codes = {c: np.asarray(w.indices).astype(np.int64) for c, w in words.items()}
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
    time_ns = np.rint(time_s * 1e9).astype(np.int64)
    nothing = pa.array(np.zeros(time_ns.size, dtype=numbers))
    columns = []
    for label in labels:
        if label not in marks or not time_ns.size:
            columns.append(nothing)
            continue
        at_ns, step = marks[label]
        row = np.searchsorted(time_ns, at_ns)
        known = (row < time_ns.size) & (time_ns[np.minimum(row, time_ns.size - 1)] == at_ns)
        column = np.zeros(time_ns.size, dtype=numbers)
        column[row[known]] = step[known]
        columns.append(pa.array(column))
    return columns


def _under_attack(time_s: FloatArray, windows: Sequence[tuple[str, float, float]]) -> Any:
    active = np.zeros(time_s.size, dtype=bool)
    for _, begin_s, end_s in windows:
        active |= (time_s >= begin_s - 1e-9) & (time_s < end_s - 1e-9)
    return pa.array(active.astype(np.int8))


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
