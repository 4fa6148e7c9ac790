"""The adapter is killed, stopped or hung: devices are made safe, seen from their side.

The bounds in heartbeats are tested with the clocks of watchdog and guard, which the machine's speed
does not touch; `benchmarks/hil_safe_state.py` measures the real times.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hil.adapter import lock
from hil.adapter.adapter import Adapter
from hil.adapter.audit import AuditLog, read_audit
from hil.adapter.loop import AdapterLoop
from hil.adapter.unsafe import unsafe_text
from hil.adapter.watchdog import Watchdog
from hil.devices.errors import DeviceError, GuardError
from hil.devices.spec import DeviceSpec

#: Of tests that wait for one, and of tests in which none may pass unnoticed.
HEARTBEAT_S, LONG_S, LIMIT_S = 1.0, 60.0, 120.0
SAFE = 200

PROGRAM = textwrap.dedent(
    """
    import signal, sys, time
    from pathlib import Path
    from hil.adapter.adapter import Adapter
    from hil.devices.spec import DeviceSpec

    def spec(i, port):
        return DeviceSpec.model_validate({
            "name": f"d{i}", "poll_s": 0.2, "guard": {"heartbeat_s": float(sys.argv[3])},
            "connection": {"port": port, "timeout_s": 2.0},
            "points": {
                "relay": {"table": "coil", "address": 3, "type": "bool", "access": "rw",
                          "min": 0, "max": 1, "safe_value": 0},
                "set_c": {"table": "holding", "address": 10, "type": "int16", "scale": 0.1,
                          "access": "rw", "min": 10, "max": 30, "safe_value": 20},
                "power": {"table": "holding", "address": 20, "type": "float32",
                          "access": "rw", "min": -5, "max": 5, "safe_value": 0.5}}})

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
    ports = [int(p) for p in sys.argv[4:]]
    adapter = Adapter([spec(i, p) for i, p in enumerate(ports)],
                      armed=[f"d{i}" for i in range(len(ports))], audit=Path(sys.argv[1]))
    adapter.start(wait_s=60)
    adapter.heartbeat()
    for i in range(len(ports)):
        adapter.command(f"d{i}", "set_c", 26.0)
        adapter.command(f"d{i}", "relay", 1)
        adapter.command(f"d{i}", "power", 3.0)
    assert adapter.flush(timeout_s=60)
    print("commanded", flush=True)
    end = sys.argv[2]
    start = time.monotonic()
    while time.monotonic() - start < 300:
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
            re.match(r"(a+)+$", "a" * 40 + "b")  # holds the interpreter lock for a long time
        time.sleep(0.05)
    """
)


@pytest.fixture
def devices(make_raw_device: Callable[..., Any]) -> list[Any]:
    return [make_raw_device() for _ in range(3)]


@pytest.fixture
def start(tmp_path: Path, devices: list[Any]) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    watchdogs: list[int] = []

    def run(
        end: str, heartbeat_s: float = LONG_S, audit: Path = tmp_path / "audit.jsonl"
    ) -> subprocess.Popen[str]:
        words = [str(heartbeat_s), *(str(d.port) for d in devices)]
        program = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(audit), end, *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(program)
        assert program.stdout is not None
        line = program.stdout.readline()
        assert line.strip() == "commanded", program.communicate(timeout=5)[1]
        for path in Path(f"/proc/{program.pid}/task").glob("*/children"):
            watchdogs.extend(map(int, path.read_text().split()))
        for device in devices:
            assert 260 in device.written(10)
            assert 1 in device.written(3)
        return program

    yield run
    for program in started:
        program.kill()
        program.communicate(timeout=5)
    for pid in watchdogs:  # it would try for long: its devices end now
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def is_safe(device: Any) -> bool:
    # 0.5 as float32 is 0x3F000000
    return bool(
        device.holding[10] == SAFE and device.coils[3] == 0 and device.holding[20:22] == [0x3F00, 0]
    )


def wait_until_safe(devices: list[Any], until: Callable[..., bool]) -> None:
    assert until(lambda: all(is_safe(d) for d in devices), LIMIT_S)


def made_safe_by(folder: Path) -> set[str]:
    records = read_audit(folder / "audit.jsonl")
    return {f"{r['by']}: {r['why']}" for r in records if r["verdict"] == "safe"}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_every_device_is_made_safe_after_a_signal(
    number: signal.Signals, start: Any, devices: list[Any], until: Any, tmp_path: Path
) -> None:
    program = start("beat")
    os.kill(program.pid, number)
    wait_until_safe(devices, until)
    by, why = "adapter: ", "the adapter closes"
    if number is signal.SIGKILL:
        by, why = "watchdog: ", "the adapter is gone"
    assert all(text.startswith(by) and why in text for text in made_safe_by(tmp_path))


def test_a_stopped_adapter_that_wakes_up_writes_no_old_set_point(
    start: Any, devices: list[Any], until: Any, tmp_path: Path
) -> None:
    program = start("beat", HEARTBEAT_S)
    os.kill(program.pid, signal.SIGSTOP)
    wait_until_safe(devices, until)
    assert made_safe_by(tmp_path) == {"watchdog: watchdog: no beat from the adapter"}
    before = [len(d.writes) for d in devices]
    os.kill(program.pid, signal.SIGCONT)
    audit = tmp_path / "audit.jsonl"
    assert until(
        lambda: {r["device"] for r in read_audit(audit) if r["verdict"] == "fault"} >= {"d0", "d1"},
        LIMIT_S,
    )
    assert all(is_safe(d) for d in devices)
    later = [w for d, n in zip(devices, before, strict=True) for w in d.writes[n:]]
    assert all((w[2], w[3]) in [(10, [SAFE]), (3, [0]), (20, [0x3F00, 0])] for w in later)


@pytest.mark.parametrize(
    ("end", "heartbeat_s", "by"),
    [("federation", HEARTBEAT_S, "adapter"), ("exit", LONG_S, "adapter"), ("crash", LONG_S, "")],
)
def test_silence_exit_and_crash_of_the_federation(
    end: str, heartbeat_s: float, by: str, start: Any, devices: list[Any], until: Any,
    tmp_path: Path,
) -> None:  # fmt: skip
    start(end, heartbeat_s)
    wait_until_safe(devices, until)
    assert all(text.startswith(by) for text in made_safe_by(tmp_path))


def test_an_interpreter_that_hangs_is_noticed_by_the_watchdog(
    start: Any, devices: list[Any], until: Any, tmp_path: Path
) -> None:
    program = start("gil", HEARTBEAT_S)
    assert program.stdout is not None
    program.stdout.readline()
    wait_until_safe(devices, until)
    assert all(text.startswith("watchdog") for text in made_safe_by(tmp_path))


def test_a_set_point_that_is_not_a_number_makes_its_device_safe(
    start: Any, devices: list[Any], until: Any
) -> None:
    start("nan")
    assert until(lambda: is_safe(devices[0]), LIMIT_S)
    assert devices[1].holding[10] == 260  # the others go on


def test_the_watchdog_goes_on_until_the_device_is_back(
    start: Any, devices: list[Any], until: Any, tmp_path: Path
) -> None:
    """Meanwhile it keeps the device's lock, but not the output of the program that is gone."""
    program = start("beat")
    devices[0].behaviour = lambda tid, unit, asked, honest: ["reset"]
    os.kill(program.pid, signal.SIGKILL)
    assert until(lambda: is_safe(devices[1]) and is_safe(devices[2]), LIMIT_S)
    assert program.communicate(timeout=LIMIT_S)[0] == ""  # as `| tee` waits for its end
    assert not is_safe(devices[0])
    other = Adapter([spec_at(devices[0].port)], armed={"d"}, audit=tmp_path / "other.jsonl")
    with pytest.raises(DeviceError, match=r"process \d+, which still makes it safe after run"):
        other.start()
    devices[0].behaviour = None
    assert until(lambda: is_safe(devices[0]), LIMIT_S)


def test_a_full_disk_stops_no_safe_write(start: Any, devices: list[Any], until: Any) -> None:
    program = start("beat", LONG_S, Path("/dev/full"))
    os.kill(program.pid, signal.SIGKILL)
    wait_until_safe(devices, until)
    assert program.communicate(timeout=LIMIT_S)[1].count("the audit log cannot be written") == 1


def test_a_stopped_adapter_that_holds_the_only_connection_is_ended(
    start: Any, devices: list[Any], until: Any, tmp_path: Path
) -> None:
    program = start("beat", HEARTBEAT_S)
    for device in devices:
        device.refuse = True  # what is there stays, what comes is ended
    os.kill(program.pid, signal.SIGSTOP)
    assert program.wait(LIMIT_S) == -signal.SIGKILL
    for device in devices:
        device.refuse = False
    wait_until_safe(devices, until)
    killed = [r for r in read_audit(tmp_path / "audit.jsonl") if r["verdict"] == "killed"]
    assert len(killed) == 1
    assert f"process {program.pid} is ended" in killed[0]["why"]


def test_what_cannot_be_taken_over_is_refused_at_the_start(tmp_path: Path) -> None:
    spec = spec_at(1)
    connection = spec.connection.model_copy(update={"one_connection": True})
    spec = spec.model_copy(update={"connection": connection})
    with pytest.raises(DeviceError, match=r"one connection only.*may_kill=True"):
        Adapter([spec], armed={"d"}, audit=tmp_path / "audit.jsonl", may_kill=False)


def test_the_watchdog_acts_when_a_heartbeat_has_passed_without_a_beat(
    raw_device: Any, tmp_path: Path
) -> None:
    """Its clock is the test's: at 0.99 heartbeats nothing, at 1.01 every write of the plan."""
    clock = [100.0]
    plan = {
        "name": "d", "host": "127.0.0.1", "port": raw_device.port, "unit": 1, "tls": None,
        "timeout_s": 30.0, "heartbeat_s": 2.0, "writes": [
            {"function": 6, "address": 10, "registers": [SAFE], "mask": None, "point": "set_c",
             "value": 20.0},
        ],
    }  # fmt: skip

    async def main() -> None:
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        audit = AuditLog(tmp_path / "audit.jsonl", by="watchdog")
        watching = asyncio.create_task(Watchdog(theirs, audit, lambda: clock[0]).run())
        reader, writer = await asyncio.open_connection(sock=ours)
        assert b"ready" in await reader.readline()
        writer.write(json.dumps({"plan": plan}).encode() + b"\n")
        for now_s in (100.0, 101.98, 103.96):  # each beat counts from its own time
            clock[0] = now_s
            writer.write(b'{"beat": 1}\n')
            await asyncio.sleep(0.5)
        assert raw_device.writes == []
        clock[0] = 103.96 + 1.98
        await asyncio.sleep(0.5)
        assert raw_device.writes == []
        clock[0] = 103.96 + 2.02
        assert b"fired" in await asyncio.wait_for(reader.readline(), LIMIT_S)
        writer.close()
        assert await asyncio.wait_for(watching, LIMIT_S) == 0
        audit.close()

    asyncio.run(main())
    assert raw_device.holding[10] == SAFE


def test_the_guard_acts_when_a_heartbeat_has_passed_without_the_federation(tmp_path: Path) -> None:
    async def main() -> None:
        spec = spec_at(1)
        loop = AdapterLoop([spec], {"d"}, tmp_path / "audit.jsonl", False, lambda *_: None, {})
        writer, heartbeat_s = loop.writer("d"), spec.guard.heartbeat_s
        writer.touched = True  # it was commanded before
        loop.heard_s = 100.0
        loop._watch(writer, 100.0 + 0.99 * heartbeat_s)
        assert writer.safe_why == ""
        loop._watch(writer, 100.0 + 1.01 * heartbeat_s)
        assert "no heartbeat of the federation" in writer.safe_why
        loop.audit.close()

    asyncio.run(main())


def spec_at(port: int) -> DeviceSpec:
    return DeviceSpec.model_validate(
        {
            "name": "d", "connection": {"port": port}, "poll_s": 0.1,
            "points": {
                "set_c": {
                    "table": "holding", "address": 10, "type": "int16", "scale": 0.1,
                    "access": "rw", "min": 10, "max": 30, "safe_value": 20,
                }
            },
        }
    )  # fmt: skip


def test_a_watchdog_that_is_killed_ends_all_commands(
    tmp_path: Path, raw_device: Any, until: Any
) -> None:
    with Adapter(
        [spec_at(raw_device.port)], armed={"d"}, audit=tmp_path / "audit.jsonl"
    ) as adapter:
        adapter.heartbeat()
        adapter.command("d", "set_c", 26)
        assert adapter.flush()
        watchdog = adapter._core._watchdog
        assert watchdog is not None
        assert watchdog.process is not None
        watchdog.process.kill()
        assert until(lambda: "the watchdog is gone" in adapter.faults().get("d", ""), LIMIT_S)
        assert until(lambda: raw_device.holding[10] == SAFE, LIMIT_S)
        with pytest.raises(GuardError, match="the watchdog is gone"):
            adapter.command("d", "set_c", 27)


def test_two_runs_cannot_command_one_device(
    tmp_path: Path, raw_device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_PATIENCE_S", 0.0)
    spec = spec_at(raw_device.port)
    by_name = spec.at(host="localhost")
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    with Adapter([spec], armed={"d"}, audit=first):
        words = f"process {os.getpid()}, run {first.resolve()}"
        with pytest.raises(DeviceError, match=re.escape(words)):
            Adapter([by_name], armed={"d"}, audit=second).start()
        with Adapter([by_name], audit=second) as reader:  # readers need no lock
            assert reader.poll()["d"]["set_c"].value == 0
        with Adapter([spec.at(unit=2)], armed={"d"}, audit=second):
            pass  # another unit of a gateway
    with Adapter([by_name], armed={"d"}, audit=second):
        pass


def test_what_is_not_safe_is_named_with_the_value_it_stands_at(
    tmp_path: Path, raw_device: Any
) -> None:
    spec = spec_at(raw_device.port)
    adapter = Adapter([spec], armed={"d"}, audit=tmp_path / "audit.jsonl", watchdog=False)
    adapter.start(wait_s=LIMIT_S)
    adapter.heartbeat()
    adapter.command("d", "set_c", 26)
    assert adapter.flush()
    adapter.refresh(timeout_s=LIMIT_S)
    raw_device.behaviour = lambda tid, unit, asked, honest: []
    assert not adapter.close(timeout_s=0.2)
    assert adapter.unsafe() == [("d", "set_c", 26.0)]
    text = unsafe_text(adapter.unsafe(), [spec])
    assert text == "not safe: d.set_c last stood at 26, should be 20"


def test_audit_lines_of_both_processes_are_whole(
    start: Any, devices: list[Any], until: Any, tmp_path: Path
) -> None:
    program = start("beat")
    os.kill(program.pid, signal.SIGKILL)
    wait_until_safe(devices, until)
    lines = (tmp_path / "audit.jsonl").read_text().splitlines()
    assert all({"time_utc", "device", "why"} <= json.loads(line).keys() for line in lines)
