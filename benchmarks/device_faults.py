"""What ends a set-point: faults x ways to command a device, with seconds until it is safe.

``python benchmarks/device_faults.py [--only WORD] [--json]``: a battery stands at -2000 W,
commanded by a run (placement `shared` or `process`), by ``feederate device write --hold`` or by
the Python adapter. Then something happens. The seconds are those of the device, whose code shares
nothing with the project's, from the event (or, where the device itself was away, from its return)
until 0 W and the lamp's safe value stay. Exit code 1 if a device is left unsafe. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from _fault_device import Device

HEARTBEAT_S, LIMIT_S, AWAY_S = 1.0, 60.0, 4.0
WAYS = ("run shared", "run process", "device write", "Python")
SCENARIO: dict[str, Any] = {
    "seed": 1,
    "time": {"duration_s": 300, "step_s": 1, "real_time": {"factor": 1}},
    "grid": {
        "model": "ieee13",
        "ders": [{"kind": "battery", "at": ["671"], "kw": 5, "kva": 5, "prefix": "bat"}],
    },
    "federates": {
        "feeder": {"kind": "feeder"},
        "op": {
            "kind": "signal",
            "options": {"port": "p_set_kw", "unit": "kW", "values": [[0, -2]]},
        },
        "bench": {"kind": "device", "devices": {"*": "bat.yaml"}, "options": {"points": {
            "p_kw": None, "q_kvar": None, "soc_pct": None}}},
    },
    "connections": ["feeder.v_pu -> bench.v_pu", "op.p_set_kw -> bench.p_set_kw"],
}  # fmt: skip
PROGRAM = """
import sys, time
from pathlib import Path
from hil.adapter.adapter import Adapter
from hil.devices.file import load_device_file
spec = load_device_file(Path("bat.yaml"))
with Adapter([spec], armed=["bat"], audit=Path("bat.audit.jsonl")) as adapter:
    while True:
        adapter.heartbeat()
        adapter.command("bat", "w_set_pct", -40.0)
        time.sleep(0.2)
"""


def device_file(port: int, **connection: Any) -> dict[str, Any]:
    """Return the battery's device file."""
    points = {
        "w_set_pct": {
            "table": "holding", "address": 10, "type": "int32", "scale": 0.02, "unit": "%",
            "access": "rw", "min": -60, "max": 60, "safe_value": 0,
            "enable": [{"point": "on", "value": 1}],
        },
        "on": {"table": "holding", "address": 12, "type": "uint16", "access": "guard"},
        "lamp": {
            "table": "holding", "address": 13, "type": "uint16",
            "access": "rw", "min": 0, "max": 9, "safe_value": 3,
        },
    }  # fmt: skip
    return {
        "name": "bat", "poll_s": 0.5, "points": points, "guard": {"heartbeat_s": HEARTBEAT_S},
        "connection": {"port": port, "timeout_s": 0.3} | connection,
    }  # fmt: skip


class Commanding:
    """A process that holds the set-point, in a folder of its own."""

    def __init__(self, way: str, folder: Path, spec: Mapping[str, Any]) -> None:
        self.folder = folder
        (folder / "bat.yaml").write_text(yaml.safe_dump(dict(spec)), encoding="utf-8")
        (folder / "s.yaml").write_text(yaml.safe_dump(SCENARIO), encoding="utf-8")
        self.read, self.output = os.pipe()
        self.process = self.start(way)

    def start(self, way: str) -> subprocess.Popen[bytes]:
        """Start a process that commands the device."""
        command = [sys.executable, "-c", "from federates.cli import main; main()"]
        if way == "Python":
            command = [sys.executable, "-c", PROGRAM]
        elif way == "device write":
            command += ["device", "write", "bat.yaml", "w_set_pct", "-40", "--arm", "bat"]
            command += ["--hold", "300"]
        else:
            command += ["run", "s.yaml", "--no-report", "--arm", "bat_671"]
            command += ["--placement", way.split()[1], "--out", f"run-{time.monotonic_ns()}"]
        return subprocess.Popen(
            command, cwd=self.folder, stdin=subprocess.DEVNULL,
            stdout=self.output, stderr=self.output, start_new_session=True,
            env={**os.environ, "TMPDIR": str(self.folder)},
        )  # fmt: skip

    def watchdog(self) -> int:
        """Return the process id of the watchdog; 0 where there is none."""
        for proc in Path("/proc").iterdir():
            with suppress(OSError):
                words = (proc / "cmdline").read_bytes().split(b"\0")
                inside = any(str(self.folder).encode() in w for w in words)
                if proc.name.isdigit() and b"hil.adapter.watchdog" in words and inside:
                    return int(proc.name)
        return 0

    def adapter(self) -> int:
        """Return the process id of the process with the adapter."""
        stat = (Path("/proc") / str(self.watchdog()) / "stat").read_text().rpartition(")")[2]
        return int(stat.split()[1])

    def end(self) -> list[str]:
        """End everything that was started; return the lines that it printed."""
        watchdog = self.watchdog()
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if watchdog:
            with suppress(ProcessLookupError):
                os.kill(watchdog, signal.SIGKILL)
        os.close(self.output)
        with os.fdopen(self.read, errors="replace") as lines:
            return lines.read().splitlines()


Event = Callable[[Device, Commanding], float]
"""Lets something happen; returns from which second on the time to safe counts."""


def to_all(number: signal.Signals) -> Event:
    """Send a signal to the process that the user started."""

    def happen(device: Device, by: Commanding) -> float:
        os.kill(by.process.pid, number)
        return 0.0

    return happen


def to_adapter(number: signal.Signals) -> Event:
    """Send a signal to the process with the adapter."""

    def happen(device: Device, by: Commanding) -> float:
        os.kill(by.adapter(), number)
        return 0.0

    return happen


def watchdog_killed(device: Device, by: Commanding) -> float:
    """Kill the watchdog alone."""
    os.kill(by.watchdog(), signal.SIGKILL)
    return 0.0


def disk_full(then: Event) -> Event:
    """Let every write to a file fail in the adapter and its watchdog; then something else."""

    def happen(device: Device, by: Commanding) -> float:
        for pid in {by.adapter(), by.watchdog(), by.process.pid}:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        time.sleep(0.5)
        return 0.5 + then(device, by)

    return happen


def device_does(what: str, then: Event, seconds: float = AWAY_S) -> Event:
    """Let the device be away, silent or busy, and then something else happen."""

    def happen(device: Device, by: Commanding) -> float:
        getattr(device, what)(seconds)
        then(device, by)
        return seconds

    return happen


def second_run(device: Device, by: Commanding) -> float:
    """A second run is refused and writes nothing; then the first one is killed."""
    before, began_s = device.writes, time.monotonic()
    second = by.start("device write")
    if second.wait(LIMIT_S) != 2 or device.power_w != -2000 or device.writes != before:
        raise RuntimeError("a second run was let in")
    waited_s = time.monotonic() - began_s
    return waited_s + to_adapter(signal.SIGKILL)(device, by)


@dataclass
class Case:
    """One row of the table."""

    fault: str
    happens: Event
    ways: tuple[str, ...] = WAYS
    habits: dict[str, Any] = field(default_factory=dict)
    connection: dict[str, Any] = field(default_factory=dict)


KILL, STOP = to_adapter(signal.SIGKILL), to_adapter(signal.SIGSTOP)
TERM = to_all(signal.SIGTERM)
RUN, WRITE, PYTHON = ("run shared",), ("device write",), ("Python",)
ONE = {"one_connection": True}
CASES = [
    Case("SIGTERM", TERM),
    Case("SIGINT", to_all(signal.SIGINT)),
    Case("SIGHUP", to_all(signal.SIGHUP)),
    Case("SIGKILL of the adapter", KILL),
    Case("SIGSTOP of the adapter", STOP),
    Case("SIGKILL of the watchdog", watchdog_killed),
    Case("disk full, SIGKILL", disk_full(KILL)),
    Case("disk full, SIGSTOP", disk_full(STOP), WRITE + PYTHON),
    Case("disk full, SIGTERM", disk_full(TERM)),
    Case("device off, SIGKILL, back", device_does("away", KILL), RUN + WRITE),
    Case("device off, SIGTERM, back", device_does("away", TERM), RUN + WRITE),
    Case("device off 12 s, SIGTERM, back", device_does("away", TERM, 12.0), RUN + WRITE),
    Case("device silent, SIGKILL", device_does("silent", KILL), PYTHON),
    Case("device busy (6), SIGKILL", device_does("busy", KILL), PYTHON),
    Case("replies after 1 s, timeout 0.3 s, SIGKILL", KILL, PYTHON),
    Case("one connection, refuses, SIGSTOP", STOP, WAYS, {"connections": "refuse"}, ONE),
    Case("one connection, ends the first, SIGSTOP", STOP, PYTHON, {"connections": "kick"}, ONE),
    Case("one connection, lets wait, SIGSTOP", STOP, PYTHON, {"connections": "queue"}, ONE),
    Case("the same, not in the file: refuses", STOP, PYTHON, {"connections": "refuse"}),
    Case("the same, not in the file: lets wait", STOP, PYTHON, {"connections": "queue"}),
    Case(
        "connect delay 2 s, SIGKILL", KILL, PYTHON,
        {"connect_delay_s": 2.0}, {"connect_delay_s": 2.1},
    ),
    Case("pause 0.2 s, SIGKILL", KILL, WRITE, {"pause_s": 0.2}, {"pause_s": 0.25}),
    Case("a second run, SIGKILL", second_run, RUN + WRITE),
]  # fmt: skip


def measure(case: Case, way: str) -> dict[str, Any]:
    """Return one row: seconds to safe, exit code, what was said at the end."""
    device = Device(**case.habits)
    with tempfile.TemporaryDirectory() as folder:
        by = Commanding(way, Path(folder), device_file(device.port, **case.connection))
        try:
            until(lambda: device.power_w == -2000 and device.registers[12] == 1, by)
            if case.fault.startswith("replies after"):
                device.habits = (*device.habits[:3], 1.0)
            time.sleep(0.5)
            start_s = time.monotonic()
            start_s += case.happens(device, by)
            safe = until(lambda: device.safe_s > 0, by, start_s + LIMIT_S - time.monotonic())
            end = how_it_ended(by)
            time.sleep(1.0)
            safe = safe and device.safe_s > 0
            seconds = max(device.safe_s - start_s, 0.0) if safe else float("inf")
        finally:
            text = by.end()
            device.close()
    told = next((line for line in text if "not safe" in line or "cannot be written" in line), "")
    return {"fault": case.fault, "way": way, "seconds": round(seconds, 2), "end": end,
            "told": readable(told, folder)}  # fmt: skip


def readable(line: str, folder: str) -> str:
    """Return what was said without what differs from run to run."""
    line = line.replace(folder, "FOLDER").removeprefix("error: ")
    return re.sub(r"run-\d+|feederate-device-\w+", "OUT", line)


def how_it_ended(by: Commanding) -> str:
    """Wait a while for the end of the process; return its exit code or what it does."""
    for _ in range(80):
        if (code := by.process.poll()) is not None:
            return f"exit {code}" if code >= 0 else signal.Signals(-code).name
        stat = (Path("/proc") / str(by.process.pid) / "stat").read_text().rpartition(")")[2]
        if stat.split()[0] == "T":
            return "stopped"
        time.sleep(0.1)
    return "goes on"


def until(condition: Callable[[], bool], by: Commanding, limit_s: float = LIMIT_S) -> bool:
    """Wait for a condition of the device; return whether it came."""
    end_s = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end_s:
            return False
        time.sleep(0.01)
    return True


def as_line(row: Mapping[str, Any]) -> str:
    """Return a row of the table."""
    seconds = f"{row['seconds']:.2f}"
    return f"| {row['fault']} | {row['way']} | {seconds} | {row['end']} | {row['told'] or '-'} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="rows that have this word")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGHUP):  # a shell may have them ignored
        signal.signal(number, signal.SIG_DFL)
    rows: list[dict[str, Any]] = []
    if not options.json:
        print("| what happens | commanded by | seconds to safe | process | it says |")
        print(5 * "| --- " + "|")
    for case in CASES:
        for way in case.ways:
            if options.only in f"{case.fault}, {way}":
                rows.append(measure(case, way))
                if not options.json:
                    print(as_line(rows[-1]), flush=True)
    unsafe = [row for row in rows if row["seconds"] == float("inf")]
    if options.json:
        print(json.dumps({"rows": rows, "unsafe": len(unsafe)}))
    else:
        print(f"{len(rows)} rows, {len(unsafe)} unsafe")
    sys.exit(1 if unsafe else 0)


if __name__ == "__main__":
    main()
