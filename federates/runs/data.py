"""What a report shows of a run, read piece by piece from its folder.

Per step only a few statistics are kept, so that a day at 1 s of a large feeder fits in memory.
Everything here works on runs that failed or were killed: what is readable is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from controllers.core.mail import FloatArray
from federates.core.signals import signal_batches, signal_labels, signal_names
from federates.runs.manifest import known_status, read_manifest, read_summary

BINS = 1500
"""Most points of a curve on a page: about one per pixel of a wide screen."""
PHASE_NAMES = {"1": "A", "2": "B", "3": "C"}
OTHER = "other"
_CHANGES, _CHANGE = 5, 60
"""Most changes that a title names, and most letters of each."""
FEEDER_KINDS = ("feeder", "feeders")
"""Kinds of federates with a feeder in OpenDSS."""
DEAD_PU = 0.05
"""A node with less has no voltage: it was cut off from the source."""


def live_voltages(v_pu: FloatArray) -> FloatArray:
    """Return recorded voltages with NaN for dead nodes; all statistics of voltages are of these.

    A node that an attack cut off is recorded as 0 pu. That is no violation of a band (and would
    hide every real one): the feeder counts it as ``dead_node_hours``.

    Parameters
    ----------
    v_pu : float64, any shape
    """
    dead = v_pu < DEAD_PU
    return np.where(dead, np.nan, v_pu) if dead.any() else v_pu


def with_changes(title: str, changes: Sequence[str]) -> str:
    """Return a title that says what was changed; a long list is cut."""
    shown = [c if len(c) <= _CHANGE else f"{c[: _CHANGE - 3]}..." for c in changes[:_CHANGES]]
    shown += [f"and {len(changes) - _CHANGES} more"] if len(changes) > _CHANGES else []
    return f"{title} ({', '.join(shown)})" if shown else title


@dataclass(frozen=True)
class Spread:
    """Smallest, middle and largest element of a vector signal over time, each (n,).

    NaN is where the signal had none; a chart has a gap there.
    """

    time_s: FloatArray
    low: FloatArray
    mid: FloatArray
    high: FloatArray

    def decimated(self, bins: int = BINS) -> Spread:
        """Return at most `bins` points, evenly many samples in each; all extremes survive."""
        n = len(self.time_s)
        if n <= bins:
            return self
        starts = np.arange(0, n, -(-n // bins))
        # A bin without any number stays a gap; one number is enough to fill it.
        good = np.isfinite(self.mid)
        counts = np.add.reduceat(good.astype(np.float64), starts)
        sums = np.add.reduceat(np.where(good, self.mid, 0.0), starts)
        return Spread(
            self.time_s[starts],
            np.fmin.reduceat(self.low, starts),
            np.where(counts > 0.0, sums / np.maximum(counts, 1.0), np.nan),
            np.fmax.reduceat(self.high, starts),
        )


@dataclass(frozen=True)
class Shade:
    """Stretches of time, (begin_s, end_s) each, and what was on in them."""

    name: str
    windows: tuple[tuple[float, float], ...]


def stretches(windows: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Return the stretches of time that windows, (begin_s, end_s) each, cover, in order."""
    out: list[tuple[float, float]] = []
    for begin, end in sorted(windows):
        if out and begin <= out[-1][1]:
            out[-1] = (out[-1][0], max(out[-1][1], end))
        else:
            out.append((begin, end))
    return tuple(out)


@dataclass(frozen=True)
class Voltages:
    """Node voltages of a feeder over a run, of live nodes only: see `live_voltages`.

    `phases` maps a phase's name to its spread; `total` is that of all nodes. From `since_s` on, the
    end of the warm-up: `node_low` and `node_high` are each node's extremes, NaN for one that never
    had a voltage; `worst` holds all nodes at `worst_s`, the instant with the largest violation of
    the band (or the smallest distance to it), NaN for those that are dead then.
    """

    labels: tuple[str, ...]
    total: Spread
    phases: dict[str, Spread]
    node_low: FloatArray
    node_high: FloatArray
    worst_s: float
    worst: FloatArray
    since_s: float = -np.inf

    def extreme(self, *, highest: bool) -> tuple[str, float, float]:
        """Return (node, v_pu, time_s) of the highest or the lowest voltage."""
        ends = self.node_high if highest else self.node_low
        node = int(np.nanargmax(ends) if highest else np.nanargmin(ends))
        series = self.total.high if highest else self.total.low
        series = np.where(self.total.time_s >= self.since_s, series, np.nan)
        at = int(np.nanargmax(series) if highest else np.nanargmin(series))
        return self.labels[node], float(ends[node]), float(self.total.time_s[at])


class RunData:
    """A run's folder.

    Parameters
    ----------
    folder : Path

    Raises
    ------
    ScenarioError
        The folder holds no run, or one with another manifest than ours.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest: dict[str, Any] = read_manifest(folder)
        self.summary: dict[str, Any] = read_summary(folder)
        self.scenario: dict[str, Any] = self.manifest["scenario"]
        self.signals = folder / "signals"

    @property
    def name(self) -> str:
        """Name of the scenario."""
        return str(self.manifest.get("name", self.folder.name))

    @property
    def title(self) -> str:
        """Title of the scenario, or its name, with what the run changed in it."""
        return with_changes(str(self.scenario.get("title") or self.name), self.changes)

    @property
    def changes(self) -> list[str]:
        """What the run changed in its scenario's file, ``key=value`` each."""
        return [str(change) for change in self.manifest.get("changes") or ()]

    @property
    def status(self) -> str:
        """``finished``, ``failed``, ``interrupted``, ``not finished``; else ``unknown``."""
        return known_status(self.manifest.get("status"))

    @property
    def reason(self) -> str:
        """Why the run did not finish; empty when it did."""
        return str(self.manifest.get("reason") or self.summary.get("reason") or "")

    @property
    def metrics(self) -> dict[str, float | None]:
        """The run's metrics; empty when it did not come to its end."""
        return dict(self.summary["metrics"])

    def by_plant(self, metrics: Mapping[str, float | None]) -> dict[str, dict[str, float | None]]:
        """Return metrics of the whole run under ''; those of several plants by their names."""
        names = [plant.name for plant in self.plants]
        out: dict[str, dict[str, float | None]] = {"": {}}
        out |= {name: {} for name in names} if len(names) > 1 else {}
        for key, value in metrics.items():
            plant, _, own = key.rpartition(".")
            column, key = (plant, own) if plant in out else ("", key)
            out[column][key] = value
        return out

    @property
    def start_s(self) -> float:
        """Time of day of the first step."""
        return float(self.scenario["time"]["start_s"])

    @property
    def warm_up_s(self) -> float:
        """What metrics, maps and extremes leave out at the begin of the run."""
        return float(self.manifest.get("warm_up_s") or 0.0)

    @property
    def band(self) -> tuple[float, float]:
        """Voltage band in pu."""
        band = self.scenario["band"]
        return float(band["v_min_pu"]), float(band["v_max_pu"])

    @cached_property
    def recorded(self) -> list[str]:
        """Names of the recorded signals."""
        return signal_names(self.signals) if self.signals.is_dir() else []

    @cached_property
    def plants(self) -> tuple[PlantData, ...]:
        """The plants of the scenario, in its order: feeders, and what else records voltages."""
        specs = self.scenario.get("federates", {}).items()
        names = [n for n, spec in specs if spec.get("kind") in FEEDER_KINDS]
        names += [n for n, _ in specs if n not in names and f"{n}.v_pu" in self.recorded]
        return tuple(PlantData(self, name) for name in names)

    def label(self, plant: PlantData, title: str) -> str:
        """Return a title that names the plant where the run has several."""
        return title if len(self.plants) < 2 else f"{plant.name}: {title}"

    def has(self, name: str) -> bool:
        """Whether a signal, ``federate.port``, is recorded and holds at least one step."""
        return name in self.recorded and any(
            len(time_s) for time_s, _ in signal_batches(self.signals, name, rows=1)
        )

    def events(self) -> list[dict[str, Any]]:
        """Return the events of the run, in order; a torn last line is left out."""
        events = []
        try:
            lines = (self.folder / "events.jsonl").read_text("utf-8", "replace").splitlines()
        except OSError:
            return []
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                events.append(event)
        return events

    def logs(self, tail: int = 4000) -> dict[str, str]:
        """Return the ends of the log files that are not empty."""
        texts = {}
        for path in sorted((self.folder / "logs").glob("*.log")):
            text = path.read_text("utf-8", "replace").strip()
            if text:
                texts[path.stem] = text[-tail:]
        return texts

    @cached_property
    def shade(self) -> Shade | None:
        """When the attack was at work; None for a run without one."""
        attack = self.scenario.get("attack")
        if not isinstance(attack, dict):
            return None
        from federates.attacks.labels import attack_windows

        windows = stretches([(begin, end) for _, begin, end in attack_windows(self.folder)])
        return Shade(str(attack.get("kind", "attack")), windows) if windows else None

    def spread_of(self, name: str, labels: Sequence[str] | None = None) -> Spread | None:
        """Return smallest, median and largest element of a recorded signal, ``federate.port``.

        `labels`: the elements that count; without them, all.
        """
        return self._reduced(name, row_spread, labels)

    def total_of(self, name: str, labels: Sequence[str] | None = None) -> Spread | None:
        """Return the sum over the elements of a recorded signal, ``federate.port``."""
        return self._reduced(name, _sum_of, labels)

    def _reduced(self, name: str, reduce: Any, labels: Sequence[str] | None) -> Spread | None:
        if name not in self.recorded:
            return None
        chosen = (
            slice(None) if labels is None else np.isin(signal_labels(self.signals, name), labels)
        )
        times, parts = [], []
        for time_s, recorded in signal_batches(self.signals, name):
            values = recorded[:, chosen]
            if values.shape[1] and len(time_s):
                times.append(time_s)
                parts.append(reduce(values))
        return _spread(times, parts) if times else None


class PlantData:
    """What one plant of a run recorded."""

    def __init__(self, run: RunData, name: str) -> None:
        self._run, self.name = run, name
        self.kind = str(run.scenario["federates"].get(name, {}).get("kind", ""))

    @cached_property
    def voltages(self) -> Voltages | None:
        """Voltages of its nodes; None where none were recorded, or no node had any."""
        run, name = self._run, f"{self.name}.v_pu"
        if not run.has(name):
            return None
        found = _voltages(run.signals, name, run.band, run.warm_up_s)
        # A run that was killed may have recorded its warm-up only.
        return found or _voltages(run.signals, name, run.band, -np.inf)

    def spread(self, port: str) -> Spread | None:
        """Return smallest, median and largest element of a port over time."""
        return self._run.spread_of(f"{self.name}.{port}")

    def total(self, port: str, labels: Sequence[str] | None = None) -> Spread | None:
        """Return the sum over a port's elements, all or some, as a spread, so that it decimates."""
        return self._run.total_of(f"{self.name}.{port}", labels)


def row_spread(values: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the least, the middle and the largest number of each row; NaN where there is none."""
    if not np.isnan(values).any():
        return values.min(axis=1), np.median(values, axis=1), values.max(axis=1)
    # np.nanmedian goes row by row and warns of empty ones; sorting puts NaN last.
    ordered, rows = np.sort(values, axis=1), np.arange(len(values))
    count = np.count_nonzero(~np.isnan(values), axis=1)
    last = np.maximum(count - 1, 0)
    mid = 0.5 * (ordered[rows, last // 2] + ordered[rows, np.minimum(count // 2, last)])
    return ordered[:, 0], mid, ordered[rows, last]


def _sum_of(values: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    total = values.sum(axis=1)
    return total, total, total


def _phase(label: str) -> str:
    """Return the phase of a node, ``bus.phase``; a bus without phases belongs to none."""
    bus, _, phase = label.rpartition(".")
    return PHASE_NAMES.get(phase, OTHER) if bus else OTHER


def _spread(
    times: Sequence[FloatArray], parts: Sequence[tuple[FloatArray, FloatArray, FloatArray]]
) -> Spread:
    low, mid, high = (np.concatenate([p[i] for p in parts]) for i in range(3))
    return Spread(np.concatenate(times), low, mid, high)


def _voltages(
    folder: Path, name: str, band: tuple[float, float], since_s: float
) -> Voltages | None:
    labels = signal_labels(folder, name)
    phase_of = np.array([_phase(label) for label in labels])
    groups = {str(p): np.flatnonzero(phase_of == p) for p in sorted(set(phase_of))}
    times: list[FloatArray] = []
    total: list[Any] = []
    phases: dict[str, list[Any]] = {phase: [] for phase in groups}
    node_low = np.full(len(labels), np.nan)
    node_high = np.full(len(labels), np.nan)
    worst_s, worst, worst_excess = 0.0, np.ones(len(labels)), -np.inf
    for time_s, recorded in signal_batches(folder, name):
        v_pu = live_voltages(recorded)
        times.append(time_s)
        total.append(row_spread(v_pu))
        for phase, columns in groups.items():
            phases[phase].append(row_spread(v_pu[:, columns]))
        settled = time_s >= since_s
        if not settled.any():
            continue
        node_low = np.fmin(node_low, np.fmin.reduce(v_pu[settled], axis=0))
        node_high = np.fmax(node_high, np.fmax.reduce(v_pu[settled], axis=0))
        excess = np.fmax(total[-1][2] - band[1], band[0] - total[-1][0])
        excess[np.isnan(excess) | ~settled] = -np.inf
        k = int(np.argmax(excess))
        if excess[k] > worst_excess:
            worst_s, worst, worst_excess = float(time_s[k]), v_pu[k].copy(), float(excess[k])
    if not times or np.isnan(node_low).all():
        return None
    return Voltages(
        labels,
        _spread(times, total),
        {phase: _spread(times, parts) for phase, parts in phases.items()},
        node_low,
        node_high,
        worst_s,
        worst,
        since_s,
    )
