"""What a report shows of a run, read piece by piece from its folder.

Per step only a few statistics are kept, so that a day at 1 s of a large feeder fits in memory.
Everything here works on runs that failed or were killed: what is readable is read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from controllers.mail import FloatArray
from federates.errors import ScenarioError
from federates.signals import signal_batches, signal_labels, signal_names

BINS = 480
PHASE_NAMES = {"1": "A", "2": "B", "3": "C"}
OTHER = "other"


@dataclass(frozen=True)
class Spread:
    """Smallest, middle and largest element of a vector signal over time, each (n,)."""

    time_s: FloatArray
    low: FloatArray
    mid: FloatArray
    high: FloatArray

    def decimated(self, bins: int = BINS) -> Spread:
        """Return at most `bins` points; the extremes of every bin survive."""
        n = len(self.time_s)
        if n <= bins:
            return self
        starts = np.arange(bins) * n // bins
        counts = np.diff(np.append(starts, n))
        return Spread(
            self.time_s[starts],
            np.minimum.reduceat(self.low, starts),
            np.add.reduceat(self.mid, starts) / counts,
            np.maximum.reduceat(self.high, starts),
        )


@dataclass(frozen=True)
class Shade:
    """Stretches of time, (begin_s, end_s) each, and what was on in them."""

    name: str
    windows: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Voltages:
    """Node voltages of a feeder over a run.

    `phases` maps a phase's name to its spread; `total` is that of all nodes. `node_low` and
    `node_high` are each node's extremes over the run; `worst` holds all nodes at `worst_s`, the
    instant with the largest violation of the band (or the smallest distance to it).
    """

    labels: tuple[str, ...]
    total: Spread
    phases: dict[str, Spread]
    node_low: FloatArray
    node_high: FloatArray
    worst_s: float
    worst: FloatArray

    def extreme(self, *, highest: bool) -> tuple[str, float, float]:
        """Return (node, v_pu, time_s) of the highest or the lowest voltage."""
        ends = self.node_high if highest else self.node_low
        node = int(np.argmax(ends) if highest else np.argmin(ends))
        series = self.total.high if highest else self.total.low
        at = int(np.argmax(series) if highest else np.argmin(series))
        return self.labels[node], float(ends[node]), float(self.total.time_s[at])


class RunData:
    """A run's folder.

    Parameters
    ----------
    folder : Path

    Raises
    ------
    ScenarioError
        The folder holds no run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest: dict[str, Any] = _read_json(folder / "manifest.json")
        if not isinstance(self.manifest.get("scenario"), dict):
            raise ScenarioError(
                "not the folder of a run",
                where=str(folder),
                expected="a folder with a manifest.json, as 'feederate run' writes it",
            )
        self.summary: dict[str, Any] = _read_json(folder / "summary.json")
        self.scenario: dict[str, Any] = self.manifest["scenario"]
        self.signals = folder / "signals"

    @property
    def name(self) -> str:
        """Name of the scenario."""
        return str(self.manifest.get("name", self.folder.name))

    @property
    def title(self) -> str:
        """Title of the scenario, or its name."""
        return str(self.scenario.get("title") or self.name)

    @property
    def status(self) -> str:
        """``finished``, ``failed``, ``interrupted`` or ``not finished``."""
        status = str(self.manifest.get("status", "not finished"))
        return "not finished" if status == "running" else status

    @property
    def reason(self) -> str:
        """Why the run did not finish; empty when it did."""
        return str(self.manifest.get("reason") or self.summary.get("reason") or "")

    @property
    def metrics(self) -> dict[str, float | None]:
        """The run's metrics; empty when it did not come to its end."""
        return dict(self.summary.get("metrics") or {})

    @property
    def start_s(self) -> float:
        """Time of day of the first step."""
        return float(self.scenario["time"]["start_s"])

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
    def feeder(self) -> str | None:
        """Name of the first feeder federate."""
        federates = self.scenario.get("federates", {})
        return next((n for n, spec in federates.items() if spec.get("kind") == "feeder"), None)

    def has(self, port: str) -> bool:
        """Whether a port of the feeder is recorded and holds at least one step."""
        name = f"{self.feeder}.{port}"
        return name in self.recorded and any(
            len(time_s) for time_s, _ in signal_batches(self.signals, name, rows=1)
        )

    def events(self, limit: int = 200) -> list[dict[str, Any]]:
        """Return the last `limit` events; a torn last line is left out."""
        events = []
        try:
            lines = (self.folder / "events.jsonl").read_text("utf-8", "replace").splitlines()
        except OSError:
            return []
        for line in lines[-limit:]:
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
    def voltages(self) -> Voltages | None:
        """Node voltages of the feeder, or None where they were not recorded."""
        if not self.has("v_pu"):
            return None
        return _voltages(self.signals, f"{self.feeder}.v_pu", self.band)

    @cached_property
    def shade(self) -> Shade | None:
        """When the attack was at work; None for a run without one."""
        attack = self.scenario.get("attack")
        if not isinstance(attack, dict):
            return None
        from federates.attacks.labels import attack_windows

        windows = tuple((begin, end) for _, begin, end in attack_windows(self.folder))
        return Shade(str(attack.get("kind", "attack")), windows) if windows else None

    def spread(self, port: str) -> Spread | None:
        """Return smallest, median and largest element of a feeder port over time."""
        return self._reduced(f"{self.feeder}.{port}", _spread_of)

    def total(self, port: str) -> Spread | None:
        """Return the sum over a feeder port's elements (as a spread, so that it decimates)."""
        return self._reduced(f"{self.feeder}.{port}", _sum_of)

    def spread_of(self, name: str) -> Spread | None:
        """Return smallest, median and largest element of a recorded signal, ``federate.port``."""
        return self._reduced(name, _spread_of)

    def total_of(self, name: str) -> Spread | None:
        """Return the sum over the elements of a recorded signal, ``federate.port``."""
        return self._reduced(name, _sum_of)

    def _reduced(self, name: str, reduce: Any) -> Spread | None:
        if name not in self.recorded:
            return None
        times, parts = [], []
        for time_s, values in signal_batches(self.signals, name):
            if values.shape[1] and len(time_s):
                times.append(time_s)
                parts.append(reduce(values))
        return _spread(times, parts) if times else None


def _spread_of(values: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    return values.min(axis=1), np.median(values, axis=1), values.max(axis=1)


def _sum_of(values: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    total = values.sum(axis=1)
    return total, total, total


def _spread(
    times: Sequence[FloatArray], parts: Sequence[tuple[FloatArray, FloatArray, FloatArray]]
) -> Spread:
    low, mid, high = (np.concatenate([p[i] for p in parts]) for i in range(3))
    return Spread(np.concatenate(times), low, mid, high)


def _voltages(folder: Path, name: str, band: tuple[float, float]) -> Voltages | None:
    labels = signal_labels(folder, name)
    phase_of = np.array([PHASE_NAMES.get(x.rpartition(".")[2], OTHER) for x in labels])
    groups = {str(p): np.flatnonzero(phase_of == p) for p in sorted(set(phase_of))}
    times: list[FloatArray] = []
    total: list[Any] = []
    phases: dict[str, list[Any]] = {phase: [] for phase in groups}
    node_low = np.full(len(labels), np.inf)
    node_high = np.full(len(labels), -np.inf)
    worst_s, worst, worst_excess = 0.0, np.ones(len(labels)), -np.inf
    for time_s, v_pu in signal_batches(folder, name):
        times.append(time_s)
        total.append(_spread_of(v_pu))
        for phase, columns in groups.items():
            phases[phase].append(_spread_of(v_pu[:, columns]))
        node_low = np.minimum(node_low, v_pu.min(axis=0))
        node_high = np.maximum(node_high, v_pu.max(axis=0))
        excess = np.maximum(total[-1][2] - band[1], band[0] - total[-1][0])
        k = int(np.argmax(excess))
        if excess[k] > worst_excess:
            worst_s, worst, worst_excess = float(time_s[k]), v_pu[k].copy(), float(excess[k])
    if not times or not labels:
        return None
    return Voltages(
        labels,
        _spread(times, total),
        {phase: _spread(times, parts) for phase, parts in phases.items()},
        node_low,
        node_high,
        worst_s,
        worst,
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
