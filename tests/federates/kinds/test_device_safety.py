"""Whatever ends a federation, its devices reach their safe values; seen from the device's side.

The inverter stands at -10 kvar (its safe value is 0) when something goes wrong. The audit log says
who made it safe and why. How long it takes depends on the machine: `benchmarks/hil_safe_state.py`
measures it, and the bounds of watchdog and guard are tested with their clocks in `tests/hil`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hil.adapter.lock import DeviceLock
from hil.devices.file import load_device_file, shipped_devices
from hil.emulators.options import EmulatorOptions
from hil.emulators.process import EmulatorProcess

pytestmark = pytest.mark.scenario

HEARTBEAT_S = 1.0
LIMIT_S = 120.0
KW, KVA = 52.65042979942693, 58.63151862464183
SCENARIO = """
time: {{start_s: 43200, duration_s: 600, step_s: 1, real_time: {{factor: 10}}}}
grid:
  model: ieee123
  taps: {{rg1: 3}}
  ders: [{{kind: pv, at: load_phases, total_kw: 3500, kva_per_kw: 1.1136}}]
federates:
  feeder: {{kind: feeder}}
  setter:
    kind: "bad_numbers:Setter"
    options: {{bad_from_s: {bad_from_s}, bad: "{bad}"}}
  bench: {{kind: device, devices: {{pv_65_1: inverter.yaml}}}}
connections:
  - feeder.v_pu -> bench.v_pu
  - setter.q_set_kvar -> bench.q_set_kvar
  - bench.p_kw -> feeder.p_meas_kw
  - bench.q_kvar -> feeder.q_meas_kvar
record: {{ports: [bench.*]}}
"""
SETTER = '''
import numpy as np
from federates.core.federate import Federate, Port, Step


class Setter(Federate):
    """Says -10 kvar, and from a given time on what is no number."""

    def __init__(self, context, bad_from_s, bad):
        super().__init__(context)
        self.bad_from_s, self.bad = bad_from_s, float(bad)
        self.outputs = (Port("q_set_kvar", "kvar", ("pv_65_1",), np.nan),)

    def step(self, time_s, inputs, mail):
        return Step({"q_set_kvar": np.array([self.bad if time_s >= self.bad_from_s else -10.0])})
'''


class Device:
    """An emulated inverter, watched over its side channel: physics, not registers."""

    def __init__(self) -> None:
        options = EmulatorOptions(grid_port=0, step_s=0.1, kw=KW, kva=KVA, phases=1)
        self.process = EmulatorProcess(options)
        ((_, self.port, _),) = self.process.places.values()
        self.close = self.process.close

    def q_kvar(self) -> float:
        return float(self.process.ask()["q_kvar"][0])

    def wait_for(self, q_kvar: float) -> None:
        """Wait until the device injects this."""
        began = time.monotonic()
        while abs(self.q_kvar() - q_kvar) > 0.02:
            assert time.monotonic() - began < LIMIT_S, f"{self.q_kvar()} kvar"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def device() -> Iterator[Device]:
    device = Device()
    yield device
    device.close()


class Run:
    """A run in a process of its own, in a session of its own, until it is ended."""

    def __init__(self, folder: Path, device: Device, placement: str, bad_from_s=1e6, bad="nan"):
        text = shipped_devices()["sunspec-inverter"].read_text(encoding="utf-8")
        text = text.replace("port: 1502", f"port: {device.port}")
        text = text.replace("heartbeat_s: 2.0", f"heartbeat_s: {HEARTBEAT_S}")
        text = text.replace("poll_s: 1.0", "poll_s: 0.1").replace(
            "timeout_s: 0.5", "timeout_s: 0.1"
        )
        (folder / "inverter.yaml").write_text(text, encoding="utf-8")
        (folder / "bad_numbers.py").write_text(SETTER, encoding="utf-8")
        scenario = SCENARIO.format(bad_from_s=bad_from_s, bad=bad)
        (folder / "s.yaml").write_text(scenario, encoding="utf-8")
        self.out = folder / "run"
        self.log = folder / "log.txt"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-P", "-c", "from federates.cli import main; main()", "run",
                    str(folder / "s.yaml"), "--arm", "pv_65_1", "--placement", placement,
                    "--out", str(self.out), "--no-report",
                ],
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def children(self) -> dict[int, str]:
        """Return the federates' processes: pid and name, by the log they write to."""
        found = {}
        for proc in Path("/proc").iterdir():
            if proc.name.isdigit():
                with contextlib.suppress(OSError):
                    target = os.readlink(proc / "fd" / "2")
                    stat = (proc / "stat").read_text().rpartition(")")[2].split()
                    if target.startswith(f"{self.out}/logs/") and int(stat[1]) == self.process.pid:
                        found[int(proc.name)] = Path(target).stem
        return found

    def child(self, name: str) -> int:
        return next(pid for pid, n in self.children().items() if n == name)

    def audit(self) -> list[dict[str, object]]:
        path = self.out / "bench.audit.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    def wait_for_audit(self, **wanted: str) -> dict[str, object]:
        """Return the first record with these values, once it is there."""
        began = time.monotonic()
        while time.monotonic() - began < LIMIT_S:
            for record in self.audit():
                if all(str(value) in str(record[key]) for key, value in wanted.items()):
                    return record
            time.sleep(0.02)
        raise AssertionError(f"{wanted} is not in {self.audit()}; {self.log.read_text()}")

    def end(self) -> None:
        for pid in (*self.children(), self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(LIMIT_S)
        began = time.monotonic()
        while self.is_watched() and time.monotonic() - began < LIMIT_S:
            time.sleep(0.02)  # a watchdog whose device is gone would try for an hour

    def is_watched(self) -> bool:
        audit = f"{self.out}/bench.audit.jsonl".encode()
        for proc in Path("/proc").iterdir():
            if proc.name.isdigit():
                with contextlib.suppress(OSError):
                    if audit in (proc / "cmdline").read_bytes():
                        return True
        return False


@pytest.fixture
def start(device: Device, tmp_path: Path) -> Iterator[object]:
    runs: list[Run] = []

    def begin(placement: str, **options: object) -> Run:
        runs.append(Run(tmp_path, device, placement, **options))
        runs[-1].wait_for_audit(verdict="written", point="var_set_pct")
        return runs[-1]

    yield begin
    for run in runs:
        run.end()
    device.wait_for(0.0)


def test_kill_9_of_the_whole_federation(start, device) -> None:
    run = start("thread")
    device.wait_for(-10.0)
    os.kill(run.process.pid, signal.SIGKILL)
    device.wait_for(0.0)
    run.wait_for_audit(verdict="safe", by="watchdog", why="the adapter is gone")


@pytest.mark.parametrize("victim", ["parent", "bench", "broker"])
def test_kill_9_of_one_process_of_the_federation(start, device, victim: str) -> None:
    """The device federate closes its devices; the watchdog acts where that process is killed."""
    run = start("process")
    device.wait_for(-10.0)
    pid = run.process.pid if victim == "parent" else run.child(victim)
    os.kill(pid, signal.SIGKILL)
    device.wait_for(0.0)
    if victim == "bench":
        run.wait_for_audit(verdict="safe", by="watchdog", why="the adapter is gone")
    else:  # a busy machine may be so slow that the host kills the device federate, too
        run.wait_for_audit(verdict="safe")


def test_a_federation_that_hangs(start, device) -> None:
    """The feeder stops; nobody is told, and the device federate waits for a grant."""
    run = start("process")
    device.wait_for(-10.0)
    os.kill(run.child("feeder"), signal.SIGSTOP)
    device.wait_for(0.0)
    run.wait_for_audit(verdict="safe", by="adapter", why="no heartbeat of the federation")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_that_end_the_run_in_order(start, device, number) -> None:
    """SIGHUP: the terminal was closed."""
    usual = signal.signal(number, signal.SIG_DFL)  # `nohup pytest` has it ignored
    run = start("thread")
    signal.signal(number, usual)
    device.wait_for(-10.0)
    run.process.send_signal(number)
    device.wait_for(0.0)
    assert run.process.wait(LIMIT_S) == 130
    assert json.loads((run.out / "summary.json").read_text())["status"] == "interrupted"
    run.wait_for_audit(verdict="safe", by="adapter")


def test_a_device_that_another_run_commands(device, tmp_path) -> None:
    spec = load_device_file("sunspec-inverter")
    connection = spec.connection.model_copy(update={"port": device.port})
    lock = DeviceLock(spec.model_copy(update={"connection": connection}), tmp_path / "first")
    try:
        run = Run(tmp_path, device, "thread")
        assert run.process.wait(LIMIT_S) == 3
    finally:
        lock.close()
    said = run.log.read_text(encoding="utf-8")
    assert f"another run commands it: process {os.getpid()}, run {tmp_path}/first" in said
    assert "traceback" not in said.lower()
    assert not run.audit()


def test_set_points_that_are_no_numbers(start, device) -> None:
    """From 20 s on: the run goes on, the device goes to its safe value and stays there."""
    run = start("thread", bad_from_s=20.0, bad="nan")
    run.wait_for_audit(verdict="refused", why="not a finite number")
    run.wait_for_audit(verdict="safe", why="not a finite number")
    device.wait_for(0.0)
    assert run.process.poll() is None
    audit = run.audit()
    first_bad = next(i for i, x in enumerate(audit) if x["verdict"] == "refused")
    after = {(x["verdict"], x["point"]) for x in audit[first_bad:]}
    assert not {v for v, point in after if point == "var_set_pct"} - {"refused", "safe"}
    written = [x for x in audit if x["point"] == "var_set_pct" and x["verdict"] != "refused"]
    assert all(abs(float(str(x["sent"]))) < 18.0 for x in written)
