"""What the page shows: read from the run's folder and its heartbeats, once a second."""

from __future__ import annotations

import csv
import math
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

from controllers.core.mail import FloatArray
from federates.core.progress import Progress
from federates.core.signals import signal_names
from federates.live.roster import EXTERNAL, HERE
from federates.live.tail import EventTail, SignalTail
from federates.live.waits import who_waits
from federates.runs.manifest import read_json

_RATE_OVER = 5
"""Looks over which rates are averaged."""
QUALITY = {0.0: "good", 1.0: "stale", 2.0: "bad"}


class RunView:
    """A run that goes on.

    Parameters
    ----------
    roster : As `federates.live.roster.roster_of` gives it.
    """

    def __init__(self, roster: dict[str, Any]) -> None:
        self.roster = roster
        self.folder = Path(roster["folder"])
        n = sum(f["where"] == HERE for f in roster["federates"])
        heartbeat = self.folder / ".progress"  # a short run may have ended by now
        self.progress = Progress(n, heartbeat if heartbeat.exists() else None)
        self._events = EventTail(self.folder)
        self._tails: dict[str, SignalTail] = {}
        self._counts: deque[tuple[float, int, int]] = deque(maxlen=_RATE_OVER + 1)
        self._began_s = time.monotonic()
        self.ended = False
        self.look()

    def look(self) -> None:
        """Read what has come since the last look."""
        self._events.look()
        for tail in self._tails.values():
            tail.look()
        beats, _ = self.progress.snapshot()
        first, messages = beats[0][1] if beats else 0, sum(b[2] for b in beats)
        self._counts.append((time.monotonic(), first, messages))

    def running(self) -> bool:
        """Return whether the run has not ended."""
        status = read_json(self.folder / "manifest.json").get("status")
        return status == "running" and not self.ended

    def tail(self, name: str) -> SignalTail | None:
        """Return the tail of a recorded signal; None where it is not recorded."""
        if name not in self._tails:
            if name not in self.recorded():
                return None
            self._tails[name] = SignalTail(self.folder / "signals", name)
            self._tails[name].look()
        return self._tails[name]

    def recorded(self) -> list[str]:
        """Return the signals that are recorded."""
        return signal_names(self.folder / "signals")

    def state(self, wanted: list[str], plant: str) -> dict[str, Any]:
        """Return everything that changes, as plain data.

        Parameters
        ----------
        wanted : Curves, ``federate.port`` or ``federate.port label``.
        plant : Whose map is shown.
        """
        beats, late_ns = self.progress.snapshot()
        paused = self.progress.paused
        manifest = read_json(self.folder / "manifest.json")
        roster = self.roster
        (t0, steps0, messages0), (t1, steps1, messages1) = self._counts[0], self._counts[-1]
        over_s = max(t1 - t0, 1e-9)
        status = manifest.get("status", "unknown")
        return {
            "status": _status(status, paused=paused, ended=self.ended, begun=_begun(beats)),
            "reason": manifest.get("reason") if status != "running" else None,
            "ended": self.ended,
            "wall_s": round(time.monotonic() - self._began_s, 1),
            "paused_s": self.progress.paused_ns() / 1e9,
            "late_s": late_ns / 1e9 if roster["paced"] else None,
            "steps_per_s": (steps1 - steps0) / over_s if t1 > t0 else None,
            "messages_per_s": (messages1 - messages0) / over_s if t1 > t0 else None,
            "messages": messages1,
            "federates": self._federates(beats, paused),
            "said": self._events.said,
            "windows": self._events.windows,
            "events": list(self._events.last),
            "event_count": self._events.count,
            "curves": {key: self._curve(key) for key in wanted},
            "map": self._map(plant),
            "devices": self._devices(),
        }

    def _federates(self, beats: list[list[int]], paused: bool) -> list[dict[str, Any]]:
        roster = self.roster
        how = {key: roster[key] for key in ("paced", "one_loop")}
        rows = who_waits(roster["federates"], beats, time.monotonic_ns(), paused=paused, **how)
        for row in rows:
            if row["where"] == EXTERNAL:  # what is recorded of it tells when it last published
                names = [n for n in roster["signals"] if n.startswith(f"{row['name']}.")]
                times = [tail.time_s for tail in map(self.tail, names) if tail is not None]
                row["heard_s"] = max((t for t in times if math.isfinite(t)), default=None)
        return rows

    def _curve(self, key: str) -> dict[str, Any] | None:
        name, _, label = key.partition(" ")
        tail = self.tail(name)
        if tail is None:
            return None
        found = tail.curve(label or None)
        return {
            "labels": tail.labels,
            "t": _numbers(found.time_s, 9),
            **{part: _numbers(getattr(found, part), 6) for part in ("low", "mid", "high")},
        }

    def _map(self, plant: str) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for port in ("v_pu", "loading_pct"):
            tail = self.tail(f"{plant}.{port}")
            if tail is not None and len(tail.latest):
                values = dict(zip(tail.labels, _numbers(tail.latest, 5), strict=True))
                out[port] = {"time_s": tail.time_s, "values": values}
        return out

    def _devices(self) -> list[dict[str, Any]]:
        rows = []
        for federate, devices in self.roster["devices"].items():
            quality = self.tail(f"{federate}.quality")
            ports = [
                (signal.partition(".")[2], unit, self.tail(signal))
                for signal, unit in self.roster["signals"].items()
                if signal.startswith(f"{federate}.") and not signal.endswith(".quality")
            ]
            for device, kind in devices.items():
                code = _of(quality, device)
                good_s = _of(quality, device, "last_good_s")
                late = None if quality is None or good_s is None else quality.time_s - good_s
                values = {
                    port: [_of(tail, device), unit]
                    for port, unit, tail in ports
                    if tail is not None and device in tail.labels
                }
                rows.append(
                    {
                        "federate": federate,
                        "device": device,
                        "kind": kind,
                        "quality": "-" if code is None else QUALITY.get(code, str(code)),
                        "late_s": late,
                        "values": values,
                    }
                )
        return rows

    def grid(self, plant: str) -> dict[str, Any] | None:
        """Return a plant's buses and branches, as its feeder wrote them; None before."""
        folder = self.folder / "grid"
        own = folder / plant
        folder = own if own.is_dir() else folder
        try:
            buses = [r for r in _rows(folder / "buses.csv") if r["x"] and r["y"]]
            branches = _rows(folder / "branches.csv")
            ders = sorted({row["bus"] for row in _rows(folder / "ders.csv")})
        except OSError:
            return None
        return {
            "buses": [[row["bus"], float(row["x"]), float(row["y"])] for row in buses],
            "branches": [
                [row["from_bus"], row["to_bus"], row["element"], row["closed"] != "0"]
                for row in branches
            ],
            "ders": ders,
        }


def _status(status: str, *, paused: bool, ended: bool, begun: bool) -> str:
    if status != "running":
        return status
    if ended:
        return "killed"
    if paused:
        return "paused"
    return "running" if begun else "starting"


def _begun(beats: list[list[int]]) -> bool:
    return any(since or steps for since, steps, _ in beats)


def _of(tail: SignalTail | None, label: str, part: str = "latest") -> float | None:
    values: FloatArray = getattr(tail, part, np.empty(0))
    if tail is None or label not in tail.labels or not len(values):
        return None
    value = float(values[tail.labels.index(label)])
    return value if math.isfinite(value) else None


def _numbers(values: FloatArray, digits: int) -> list[float | None]:
    """Return numbers as JSON has them: NaN is null. `digits` are significant ones."""
    return [float(f"{v:.{digits}g}") if math.isfinite(v) else None for v in values.tolist()]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
