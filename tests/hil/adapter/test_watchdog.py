"""The adapter is killed, stopped or hung: devices are safe within two heartbeats, on their side."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hil.adapter.audit import read_audit

HEARTBEAT_S = 0.6
SAFE = 200

PROGRAM = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from hil.adapter.adapter import Adapter
    from hil.devices.file import DeviceSpec

    def spec(i, port):
        return DeviceSpec.model_validate({
            "name": f"d{i}", "poll_s": 0.2, "guard": {"heartbeat_s": %(heartbeat)g},
            "connection": {"port": port, "timeout_s": 0.3},
            "points": {
                "relay": {"table": "coil", "address": 3, "type": "bool", "access": "rw",
                          "min": 0, "max": 1, "safe_value": 0},
                "set_c": {"table": "holding", "address": 10, "type": "int16", "scale": 0.1,
                          "access": "rw", "min": 10, "max": 30, "safe_value": 20},
                "power": {"table": "holding", "address": 20, "type": "float32",
                          "access": "rw", "min": -5, "max": 5, "safe_value": 0.5}}})

    ports = [int(p) for p in sys.argv[3:]]
    adapter = Adapter([spec(i, p) for i, p in enumerate(ports)],
                      armed=[f"d{i}" for i in range(len(ports))], audit=Path(sys.argv[1]))
    adapter.start(wait_s=3)
    adapter.heartbeat()
    for i in range(len(ports)):
        adapter.command(f"d{i}", "set_c", 26.0)
        adapter.command(f"d{i}", "relay", 1)
        adapter.command(f"d{i}", "power", 3.0)
    assert adapter.flush()
    print("commanded", flush=True)
    end = sys.argv[2]
    start = time.monotonic()
    while time.monotonic() - start < 20:
        if end == "nan":
            adapter.command("d0", "set_c", float("nan"))
            end = "beat"
        if end == "exit":
            sys.exit(0)
        if end == "crash":
            raise RuntimeError("boom")
        if end != "federation":
            adapter.heartbeat()
        if end == "gil":
            print("hangs", flush=True)
            import re
            re.match(r"(a+)+$", "a" * 31 + "b")  # holds the interpreter lock for a long time
        time.sleep(0.05)
    """
) % {"heartbeat": HEARTBEAT_S}


@pytest.fixture
def devices(make_raw_device: Callable[..., Any]) -> list[Any]:
    return [make_raw_device() for _ in range(3)]


@pytest.fixture
def start(tmp_path: Path, devices: list[Any]) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def run(end: str) -> subprocess.Popen[str]:
        ports = [str(d.port) for d in devices]
        program = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path / "audit.jsonl"), end, *ports],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(program)
        assert program.stdout is not None
        line = program.stdout.readline()
        assert line.strip() == "commanded", program.communicate(timeout=5)[1]
        for device in devices:
            assert device.holding[10] == 260
            assert device.coils[3] == 1
        return program

    yield run
    for program in started:
        program.kill()
        program.communicate(timeout=5)


def is_safe(device: Any) -> bool:
    # 0.5 as float32 is 0x3F000000
    return bool(
        device.holding[10] == SAFE and device.coils[3] == 0 and device.holding[20:22] == [0x3F00, 0]
    )


def seconds_until_safe(devices: list[Any], until: Callable[..., bool], start_s: float) -> float:
    assert until(lambda: all(is_safe(d) for d in devices), 6 * HEARTBEAT_S)
    return max(d.writes[-1][0] for d in devices) - start_s


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGINT])
def test_every_device_is_safe_within_two_heartbeats_of_a_signal(
    number: signal.Signals, start: Any, devices: list[Any], until: Any, tmp_path: Path
) -> None:
    program = start("beat")
    time.sleep(0.2)
    at_s = time.monotonic()
    os.kill(program.pid, number)
    assert seconds_until_safe(devices, until, at_s) <= 2 * HEARTBEAT_S
    by = {r["by"] for r in read_audit(tmp_path / "audit.jsonl") if r["verdict"] == "safe"}
    killed = number in (signal.SIGKILL, signal.SIGSTOP)
    assert by == {"watchdog" if killed else "adapter"}


def test_a_stopped_adapter_that_wakes_up_writes_no_old_set_point(
    start: Any, devices: list[Any], until: Any, tmp_path: Path
) -> None:
    program = start("beat")
    os.kill(program.pid, signal.SIGSTOP)
    seconds_until_safe(devices, until, time.monotonic())
    os.kill(program.pid, signal.SIGCONT)
    time.sleep(0.5)
    assert all(is_safe(d) for d in devices)
    assert any(r["verdict"] == "fault" for r in read_audit(tmp_path / "audit.jsonl"))


@pytest.mark.parametrize("end", ["federation", "exit", "crash"])
def test_silence_exit_and_crash_of_the_federation(
    end: str, start: Any, devices: list[Any], until: Any
) -> None:
    start(end)
    assert seconds_until_safe(devices, until, time.monotonic()) <= 2 * HEARTBEAT_S


def test_an_interpreter_that_hangs_is_noticed_by_the_watchdog(
    start: Any, devices: list[Any], until: Any, tmp_path: Path
) -> None:
    program = start("gil")
    assert program.stdout is not None
    program.stdout.readline()
    at_s = time.monotonic()
    assert seconds_until_safe(devices, until, at_s) <= 2 * HEARTBEAT_S
    safe = [r for r in read_audit(tmp_path / "audit.jsonl") if r["verdict"] == "safe"]
    assert {r["by"] for r in safe} == {"watchdog"}


def test_a_set_point_that_is_not_a_number_makes_its_device_safe(
    start: Any, devices: list[Any], until: Any
) -> None:
    at_s = time.monotonic()
    start("nan")
    assert until(lambda: is_safe(devices[0]), 2 * HEARTBEAT_S)
    assert devices[0].writes[-1][0] - at_s < 5
    assert devices[1].holding[10] == 260  # the others go on


def test_the_watchdog_goes_on_until_the_device_is_back(
    start: Any, devices: list[Any], until: Any
) -> None:
    program = start("beat")
    devices[0].behaviour = lambda tid, unit, asked, honest: ["reset"]
    os.kill(program.pid, signal.SIGKILL)
    assert until(lambda: is_safe(devices[1]) and is_safe(devices[2]), 2 * HEARTBEAT_S)
    devices[0].behaviour = None
    assert until(lambda: is_safe(devices[0]), 2.0)


def test_a_watchdog_that_is_killed_ends_all_commands(
    tmp_path: Path, raw_device: Any, until: Any
) -> None:
    from hil.adapter.adapter import Adapter
    from hil.devices.errors import GuardError
    from hil.devices.file import DeviceSpec

    spec = DeviceSpec.model_validate(
        {
            "name": "d", "connection": {"port": raw_device.port}, "poll_s": 0.1,
            "points": {
                "set_c": {
                    "table": "holding", "address": 10, "type": "int16", "scale": 0.1,
                    "access": "rw", "min": 10, "max": 30, "safe_value": 20,
                }
            },
        }
    )  # fmt: skip
    with Adapter([spec], armed={"d"}, audit=tmp_path / "audit.jsonl") as adapter:
        adapter.heartbeat()
        adapter.command("d", "set_c", 26)
        assert adapter.flush()
        watchdog = adapter._core._watchdog
        assert watchdog is not None
        assert watchdog.process is not None
        watchdog.process.kill()
        assert until(lambda: "the watchdog is gone" in adapter.faults().get("d", ""))
        assert until(lambda: raw_device.holding[10] == SAFE)
        with pytest.raises(GuardError, match="the watchdog is gone"):
            adapter.command("d", "set_c", 27)


def test_audit_lines_of_both_processes_are_whole(
    start: Any, devices: list[Any], until: Any, tmp_path: Path
) -> None:
    program = start("beat")
    os.kill(program.pid, signal.SIGKILL)
    seconds_until_safe(devices, until, time.monotonic())
    time.sleep(0.05)
    lines = (tmp_path / "audit.jsonl").read_text().splitlines()
    assert all({"time_utc", "device", "why"} <= json.loads(line).keys() for line in lines)
