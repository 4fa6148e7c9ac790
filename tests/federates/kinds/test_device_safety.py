"""Whatever ends a federation, its devices reach their safe values; seen from the device's side.

The inverter stands at -10 kvar (its safe value is 0) when something goes wrong. The bound is two
heartbeats of the device file, 0.5 s each.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hil.devices.file import shipped_devices

pytestmark = pytest.mark.scenario

HEARTBEAT_S = 0.5
LIMIT_S = 2.0 * HEARTBEAT_S
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
        self.process = subprocess.Popen(
            [
                sys.executable, "-c", "from federates.cli import main; main()", "emulate",
                "inverter", "--leash", "--grid-port", "0", "--step", "0.02", "--kw", repr(KW),
                "--kva", repr(KVA), "--phases", "1",
            ],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        lines = [self.process.stdout.readline() for _ in range(2)]
        self.port = int(lines[0].split(":")[2].split()[0])
        self._socket = socket.create_connection(("127.0.0.1", int(lines[1].rpartition(":")[2])))
        self._file = self._socket.makefile("rw")

    def q_kvar(self) -> float:
        self._file.write("{}\n")
        self._file.flush()
        return float(json.loads(self._file.readline())["q_kvar"][0])

    def wait_for(self, q_kvar: float, limit_s: float) -> float:
        """Return the seconds until the device injects this."""
        began = time.monotonic()
        while abs(self.q_kvar() - q_kvar) > 0.02:
            assert time.monotonic() - began < limit_s, f"{self.q_kvar()} kvar after {limit_s} s"
            time.sleep(0.01)
        return time.monotonic() - began

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._file.close()
        self._socket.close()
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


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
        lines = (self.out / "bench.audit.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def end(self) -> None:
        for pid in (*self.children(), self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(10)


@pytest.fixture
def start(device: Device, tmp_path: Path) -> Iterator[object]:
    runs: list[Run] = []

    def begin(placement: str, **options: object) -> Run:
        run = Run(tmp_path, device, placement, **options)
        runs.append(run)
        try:
            device.wait_for(-10.0, 20.0)
        except AssertionError:
            raise AssertionError(run.log.read_text()) from None
        time.sleep(0.3)
        return run

    yield begin
    for run in runs:
        run.end()
    device.wait_for(0.0, 10.0)


def safe_after(device: Device) -> float:
    """Return, and print for `pytest -s`, the seconds until the device is at its safe value."""
    seconds = device.wait_for(0.0, 10.0)
    print(f" safe after {seconds:.2f} s", end=" ")
    return seconds


def test_kill_9_of_the_whole_federation(start, device) -> None:
    run = start("thread")
    os.kill(run.process.pid, signal.SIGKILL)
    assert safe_after(device) <= LIMIT_S


@pytest.mark.parametrize("victim", ["parent", "bench", "broker"])
def test_kill_9_of_one_process_of_the_federation(start, device, victim: str) -> None:
    run = start("process")
    pid = run.process.pid if victim == "parent" else run.child(victim)
    os.kill(pid, signal.SIGKILL)
    assert safe_after(device) <= LIMIT_S


def test_a_federation_that_hangs(start, device) -> None:
    """The feeder stops; nobody is told, and the device federate waits for a grant."""
    run = start("process")
    os.kill(run.child("feeder"), signal.SIGSTOP)
    assert safe_after(device) <= LIMIT_S


def test_sigterm_ends_the_run_in_order(start, device) -> None:
    run = start("thread")
    run.process.terminate()
    assert safe_after(device) <= LIMIT_S
    assert run.process.wait(10) == 130
    assert json.loads((run.out / "summary.json").read_text())["status"] == "interrupted"
    assert any(x["verdict"] == "safe" and x["by"] == "adapter" for x in run.audit())


def test_set_points_that_are_no_numbers(start, device) -> None:
    """At 20 s, that is after 2 s: the run goes on, the device goes to its safe value."""
    run = start("thread", bad_from_s=20.0, bad="nan")
    device.wait_for(0.0, 10.0)
    time.sleep(0.3)  # for the read-back that the audit log waits for
    assert run.process.poll() is None
    audit = run.audit()
    first_bad = next(x for x in audit if x["verdict"] == "refused")
    safe = next(x for x in audit if x["verdict"] == "safe")
    assert "not a finite number" in str(first_bad["why"])
    seconds = [float(str(x["time_utc"])[17:].partition("+")[0]) for x in (first_bad, safe)]
    assert (seconds[1] - seconds[0]) % 60.0 <= LIMIT_S
    written = [x for x in audit if x["point"] == "var_set_pct" and x["verdict"] != "refused"]
    assert all(abs(float(str(x["sent"]))) < 18.0 for x in written)
