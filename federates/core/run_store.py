"""The run folder: manifest, signals, events, summary.

``manifest.json`` is written first with status ``running`` and rewritten at the end, each time
through a temporary file, so that it is complete at any moment.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from controllers.core.ports import Port
from federates.core.signals import SignalWriter, finalise_folder
from federates.scenario.schema import Scenario
from federates.scenario.sections import Record

_PACKAGES = ("feederate", "helics", "numpy", "scipy", "opendssdirect.py", "dss-python", "pyarrow")


_RESERVE_BYTES = 1 << 16
_NAMED_CHANGES = 60
"""Most letters of a folder's name that say what was changed."""


def write_json(path: Path, data: Any) -> None:
    """Write JSON so that a reader sees either the old file or the new one."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(data, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(partial, path)


def new_run_dir(scenario_name: str, out: Path | None, changes: Sequence[str] = ()) -> Path:
    """Create the run's folder: `out`, or ``runs/NAME-CHANGES-TIME`` here.

    `changes` are ``key=value``; of a key the last part is in the name. An existing run is kept.
    """
    if out is not None:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise FileExistsError(str(out))
        out.mkdir(parents=True, exist_ok=True)
        return out
    short = [
        f"{key.split('.')[-1]}={value}" for key, _, value in (c.partition("=") for c in changes)
    ]
    words = re.sub(r"[^\w.=-]+", "_", "-".join(short))[:_NAMED_CHANGES].strip("_-.")
    scenario_name += f"-{words}" if words else ""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    for n in range(1000):
        path = Path("runs") / f"{scenario_name}-{stamp}{f'-{n}' if n else ''}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        return path
    raise FileExistsError(f"runs/{scenario_name}-{stamp}")


class RunStore:
    """What one execution writes. Every process of a run opens its own on the same folder.

    Attributes
    ----------
    keeps : Whether signals and tables are wanted; else only events and logs, as in a sweep.
    """

    def __init__(self, folder: Path, record: Record, *, keeps: bool = True) -> None:
        self.folder = folder
        self.keeps = keeps
        self.signals = folder / "signals"
        self.logs = folder / "logs"
        self._record = record
        if keeps:
            self.signals.mkdir(parents=True, exist_ok=True)

    @property
    def heartbeat(self) -> Path:
        """The table of heartbeats, while the run goes on and others read it."""
        return self.folder / ".progress"

    @property
    def every(self) -> int:
        """Record every n-th step."""
        return self._record.every

    def writer(self, federate: str, port: Port) -> SignalWriter | None:
        """Return a writer for one output port, or None where the scenario does not record it."""
        name = f"{federate}.{port.name}"
        if not self.keeps or not any(fnmatchcase(name, glob) for glob in self._record.ports):
            return None
        if self._record.labels == ["*"]:
            return SignalWriter(self.signals / name, port.labels)
        chosen = [
            i
            for i, label in enumerate(port.labels)
            if any(fnmatchcase(label, glob) for glob in self._record.labels)
        ]
        if not chosen:
            return None
        labels = [port.labels[i] for i in chosen]
        return SignalWriter(self.signals / name, labels, np.array(chosen))

    def event(self, federate: str, kind: str, time_s: float | None = None, **fields: Any) -> None:
        """Append one line to ``events.jsonl``; safe from several processes at once."""
        line = {"wall": datetime.now(UTC).isoformat(), "time_s": time_s, "federate": federate}
        text = json.dumps({**line, "event": kind, **fields}, default=str) + "\n"
        handle = os.open(
            self.folder / "events.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644
        )
        try:
            os.write(handle, text.encode())
        finally:
            os.close(handle)

    def events(self, federate: str, time_s: float, events: Iterable[Mapping[str, Any]]) -> None:
        """Append events that a controller or detector reports, each with the key ``event``."""
        for event in events:
            details = {key: value for key, value in event.items() if key != "event"}
            self.event(federate, event["event"], time_s, **details)

    def log_traceback(self, federate: str, text: str) -> None:
        """Append a traceback to the federate's log file."""
        self.logs.mkdir(exist_ok=True)
        with (self.logs / f"{federate}.log").open("a", encoding="utf-8") as file:
            file.write(text)

    def finalise_signals(self) -> list[str]:
        """Turn the streams of writers that died into tables; return what could not be."""
        return finalise_folder(self.signals)


class Manifest:
    """``manifest.json``: what was run, with what, and how it ended."""

    def __init__(
        self,
        folder: Path,
        scenario: Scenario,
        placement: str,
        steps: int,
        warnings: Sequence[str] = (),
        more: Mapping[str, Any] | None = None,
    ) -> None:
        self._path = folder / "manifest.json"
        self._started = time.time()
        self.data: dict[str, Any] = {
            "status": "running",
            "reason": "not finished: the run was killed, or still goes on",
            "name": scenario.name,
            "seed": scenario.seed,
            "steps": steps,
            **(more or {}),
            "placement": placement,
            "started": datetime.now(UTC).isoformat(),
            "host": {
                "python": sys.version.split()[0],
                "platform": platform.platform(),
                "cpus": os.cpu_count(),
            },
            "versions": package_versions(),
            "base_dir": str(scenario.base_dir),
            "scenario": scenario.resolved(),
        }
        if warnings:
            self.data["warnings"] = list(warnings)
        if scenario.attack_spec is not None:
            self.data["attack_base_dir"] = str(scenario.attack_spec.base_dir)
        write_json(self._path, self.data)
        # Given back at the end, so that a run that filled the disk can still say so.
        self._reserve = folder / ".reserve"
        self._reserve.write_bytes(os.urandom(_RESERVE_BYTES))

    def free_reserve(self) -> None:
        """Make room on a full disk for the words about how the run ended."""
        self._reserve.unlink(missing_ok=True)

    def finish(self, status: str, reason: str | None, **fields: Any) -> None:
        """Write the end of the run."""
        self.free_reserve()
        self.data |= {"status": status, "reason": reason, **fields}
        self.data["finished"] = datetime.now(UTC).isoformat()
        write_json(self._path, self.data)


@cache
def package_versions() -> dict[str, str | None]:
    """Return the versions of the packages that decide a run's bits; None: not installed."""
    return {name: _version(name) for name in _PACKAGES}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
