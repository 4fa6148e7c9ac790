"""The man in the middle on real sockets: what devices get, what readers and writers believe."""

from __future__ import annotations

import re
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyModbusTCP.client import ModbusClient

from hil.adapter.adapter import Adapter
from hil.adapter.audit import read_audit
from hil.devices.errors import ArmingError, DeviceError
from hil.devices.points import Quality
from hil.devices.spec import DeviceSpec
from hil.emulators.background import Background, background
from hil.emulators.inverter_plant import inverters
from hil.mitm.proxy import MitmProxy, MitmTarget
from hil.mitm.rules import (
    DelayRule,
    DropRule,
    ExceptionRule,
    FloodRule,
    FrameRule,
    RewriteRule,
    WriteRule,
    wire_points,
)
from hil.modbus.frames import frame

OFF = float("nan")
#: 704.WMaxLimPct of the emulator, behind "SunS" and the models 1, 701, 702 and 703.
LIMIT = 40000 + 2 + (66 + 2) + (153 + 2) + (50 + 2) + (17 + 2) + 15


def plain_spec(port: int, **guard: Any) -> DeviceSpec:
    return DeviceSpec.model_validate(
        {
            "name": "d",
            "connection": {"port": port, "timeout_s": 0.4, "reconnect_max_s": 0.1},
            "poll_s": 60,
            "guard": {"heartbeat_s": 5, **guard},
            "points": {
                "temp_c": {"table": "input", "address": 3, "type": "int16", "scale": 0.1},
                "set_c": {
                    "table": "holding", "address": 10, "type": "int16", "scale": 0.1,
                    "access": "rw", "min": 10, "max": 30, "safe_value": 20,
                },
                "power_w": {
                    "table": "holding", "address": 20, "type": "float32", "access": "rw",
                    "min": -5, "max": 5, "safe_value": 0.5,
                },
                "relay": {
                    "table": "coil", "address": 3, "type": "bool", "access": "rw", "min": 0,
                    "max": 1, "safe_value": 0,
                },
            },
        }
    )  # fmt: skip


@contextmanager
def standing_before(
    spec: DeviceSpec, rules: Sequence[FrameRule], **options: Any
) -> Iterator[MitmProxy]:
    at = spec.connection
    with MitmProxy(
        [MitmTarget(spec.name, at.host, at.port, at.unit, rules)],
        n_steps=max((r.step for r in rules), default=0) + 1,
        **options,
    ) as proxy:
        if not spec.has_sunspec:
            proxy.learn(spec.name, wire_points(spec, spec.points))
        yield proxy


def on(proxy: MitmProxy, *steps: int, time_s: float = 0.0) -> None:
    elapsed = np.full(len(proxy._active), OFF)
    elapsed[list(steps)] = 0.0
    proxy.set_active(elapsed, time_s)


def speak(port: int, data: Sequence[bytes], pause_s: float = 0.01, wait_s: float = 0.15) -> bytes:
    """Send pieces, say that this was all, and return everything that comes."""
    with socket.create_connection(("127.0.0.1", port), 5) as sock:
        for piece in data:
            sock.sendall(piece)
            time.sleep(pause_s)
        sock.settimeout(wait_s)
        got = b""
        try:
            while more := sock.recv(4096):
                got += more
        except TimeoutError:
            return got
        except ConnectionResetError:
            return got + b"<end>"
        return got + b"<end>"


READ = frame(1, 1, struct.pack(">BHH", 3, 0, 4))


@pytest.mark.parametrize(
    "data",
    [
        [READ],
        [READ + frame(2, 9, READ[7:]) + frame(1, 1, b"\x04\x00\x03\x00\x01")],
        [READ[i : i + 1] for i in range(len(READ))],
        [READ + READ[:5], READ[5:]],
        [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"],
        [READ + frame(3, 1, b"\x03" + bytes(260))],
    ],
    ids=["one", "pipelined", "bytewise", "torn", "tls", "oversize"],
)
def test_a_quiet_proxy_changes_no_byte(data: list[bytes]) -> None:
    with background(inverters(1, 10.0)) as devices:
        spec = plain_spec(devices.ports[0])
        with standing_before(spec, [RewriteRule(0, point="set_c", value=1.0)]) as proxy:
            assert speak(proxy.places["d"][1], data) == speak(devices.ports[0], data)


def test_a_device_that_is_away_looks_away(unused_port: int) -> None:
    with standing_before(plain_spec(unused_port), []) as proxy:
        assert speak(proxy.places["d"][1], [READ]) == b"<end>"


def test_a_client_may_end_its_side_and_still_get_its_answer(raw_device: Any) -> None:
    with (
        standing_before(plain_spec(raw_device.port), []) as proxy,
        socket.create_connection(proxy.places["d"], 5) as sock,
    ):
        sock.sendall(READ)
        sock.shutdown(socket.SHUT_WR)
        sock.settimeout(2.0)
        assert sock.recv(100)[7:] == bytes([3, 8, *bytes(8)])
        assert sock.recv(100) == b""


@contextmanager
def adapter_on(
    spec: DeviceSpec, proxy: MitmProxy, folder: Path, **options: Any
) -> Iterator[Adapter]:
    options = {"armed": {spec.name}, "watchdog": False} | options
    adapter = Adapter([spec], audit=folder / "audit.jsonl", via=proxy.places, **options)
    adapter.start(wait_s=2.0)
    try:
        yield adapter
    finally:
        adapter.close(timeout_s=1.0)


def test_the_writer_is_deceived_until_it_reads_back(raw_device: Any, tmp_path: Path) -> None:
    spec = plain_spec(raw_device.port)
    rules = [
        RewriteRule(0, point="set_c", direction="write", bias=3.0),
        RewriteRule(0, point="power_w", direction="write", factor=-1.0),
        RewriteRule(0, point="relay", direction="write", value=1.0),
    ]
    with standing_before(spec, rules) as proxy:
        client = ModbusClient("127.0.0.1", proxy.places["d"][1], auto_close=True, timeout=2)
        on(proxy, 0)
        assert client.write_single_register(10, 210)  # pyModbusTCP checks the echo
        assert client.write_multiple_registers(19, [7, 0x4040, 0, 8])  # 3.0 in the middle
        assert client.write_single_coil(3, False)
        assert raw_device.holding[10] == 240
        assert raw_device.holding[19:23] == [7, 0xC040, 0, 8]
        assert raw_device.coils[3] == 1
        assert client.read_holding_registers(10, 1) == [240]
        seen = [(f.point, f.true, f.seen) for f in proxy.drain()]
        assert seen == [
            ("set_c", pytest.approx(21.0), pytest.approx(24.0)), ("power_w", 3.0, -3.0),
            ("relay", 0.0, 1.0),
        ]  # fmt: skip
        client.close()
        with adapter_on(spec, proxy, tmp_path) as adapter:
            adapter.heartbeat()
            adapter.command("d", "set_c", 25.0)
            adapter.flush(timeout_s=1.0)
            assert "read back 28, sent was 25" in adapter.faults()["d"]
            on(proxy)  # so that the safe state is reached


def test_hidden_writes_deceive_the_read_back_and_are_undone_at_the_end(
    raw_device: Any, tmp_path: Path
) -> None:
    spec = plain_spec(raw_device.port)
    rule = RewriteRule(0, point="set_c", direction="write", value=30.0, hide=True)
    with standing_before(spec, [rule]) as proxy, adapter_on(spec, proxy, tmp_path) as adapter:
        on(proxy, 0, time_s=7.0)
        adapter.heartbeat()
        adapter.command("d", "set_c", 22.0)
        assert adapter.flush()
        assert adapter.poll()["d"]["set_c"].value == pytest.approx(22.0)
        assert raw_device.holding[10] == 300
        assert adapter.faults() == {}
        assert proxy.true_values("d") == {"set_c": 30.0}
        on(proxy, time_s=8.0)
        assert raw_device.holding[10] == 220  # what the writer wanted
        adapter.poll()
        assert proxy.true_values("d") == {}
        assert {(f.time_s, f.point, f.true, f.seen) for f in proxy.drain()} == {
            (7.0, "set_c", 22.0, 30.0),
            (7.0, "set_c", 30.0, 22.0),
        }


def test_the_attack_writes_itself_and_gives_back_what_was_there(raw_device: Any) -> None:
    raw_device.holding[10] = 205
    rules = [WriteRule(0, point="set_c", value=99.9), WriteRule(1, point="temp_c", value=1.0)]
    with standing_before(plain_spec(raw_device.port), rules[:1]) as proxy:
        on(proxy, 0)
        assert raw_device.holding[10] == 999
        on(proxy)
        assert raw_device.holding[10] == 205
        on(proxy, 0)
    assert raw_device.holding[10] == 205  # closing ends what is active


def test_what_others_wrote_meanwhile_is_not_undone(raw_device: Any) -> None:
    raw_device.holding[10] = 205
    rules = [WriteRule(0, point="set_c", value=99.9)]
    with standing_before(plain_spec(raw_device.port), rules) as proxy:
        on(proxy, 0)
        client = ModbusClient("127.0.0.1", proxy.places["d"][1], auto_close=True)
        assert client.write_multiple_registers(9, [1, 230, 2])
        on(proxy)
        assert raw_device.holding[9:12] == [1, 230, 2]


def test_exceptions_drops_and_delays(raw_device: Any, tmp_path: Path) -> None:
    spec = plain_spec(raw_device.port)
    rules = [ExceptionRule(0, code=6), DropRule(1), DelayRule(2, delay_s=0.15)]
    with standing_before(spec, rules) as proxy:
        client = ModbusClient("127.0.0.1", proxy.places["d"][1], timeout=0.3)
        assert client.read_holding_registers(0, 1) == [0]
        asked = len(raw_device.requests)
        on(proxy, 0)
        assert client.read_holding_registers(0, 1) is None
        assert client.last_except == 6
        on(proxy, 1)
        assert client.read_holding_registers(0, 1) is None
        assert len(raw_device.requests) == asked  # the device has seen neither
        on(proxy, 2)
        client.timeout = 5.0
        began = time.monotonic()
        assert client.read_holding_registers(0, 1) == [0]
        assert time.monotonic() - began >= 0.15
        assert proxy.acted() == {0: 1, 1: 1, 2: 1}
        client.close()


def test_what_is_late_stays_in_order_and_reaches_the_device_after_all(
    raw_device: Any, until: Callable[..., bool]
) -> None:
    with standing_before(plain_spec(raw_device.port), [DelayRule(0, delay_s=0.1)]) as proxy:
        on(proxy, 0)
        with socket.create_connection(proxy.places["d"]) as sock:
            sock.sendall(b"".join(frame(i, 1, struct.pack(">BHH", 6, 0, i)) for i in range(20)))
            time.sleep(0.05)
            on(proxy)
            sock.sendall(frame(99, 1, struct.pack(">BHH", 6, 0, 99)))
        # The client is gone, as one is that has given up; a stale set-point still arrives.
        assert until(lambda: len(raw_device.writes) == 21)
        assert raw_device.written(0) == [*range(20), 99]


def test_a_flood_goes_at_its_rate_beside_the_others(raw_device: Any) -> None:
    with standing_before(plain_spec(raw_device.port), [FloodRule(0, requests_per_s=500)]) as proxy:
        client = ModbusClient("127.0.0.1", proxy.places["d"][1], timeout=1)
        began = time.monotonic()
        on(proxy, 0)
        time.sleep(0.4)
        assert client.read_holding_registers(0, 1) == [0]
        on(proxy)
        sent = proxy.acted()[0]
        time.sleep(0.1)
        # A busy machine loses some, and never makes more of them.
        assert 1 <= sent <= 500 * (time.monotonic() - began) + 50
        assert len(raw_device.requests) <= sent + 1
        client.close()


def test_a_proxy_that_cannot_listen_says_why(raw_device: Any) -> None:
    target = MitmTarget("d", "127.0.0.1", 1, 1, (), ("127.0.0.1", raw_device.port))
    with pytest.raises(DeviceError, match="cannot listen"):
        MitmProxy([target], n_steps=0).start()


def test_a_proxy_on_loopback_does_not_arm_what_is_behind_it(tmp_path: Path) -> None:
    spec = plain_spec(502).at(host="192.0.2.7")
    with pytest.raises(ArmingError, match="--arm d"):
        Adapter([spec], audit=tmp_path / "a.jsonl", via={"d": ("127.0.0.1", 5020)})


#: An adapter behind the proxy, commanding until it is killed: SPEC_JSON AUDIT HOST PORT.
PROGRAM = """
import sys, time
from pathlib import Path
from hil.adapter.adapter import Adapter
from hil.devices.spec import DeviceSpec

spec = DeviceSpec.model_validate_json(sys.argv[1])
adapter = Adapter([spec], armed=["d"], audit=Path(sys.argv[2]),
                  via={"d": (sys.argv[3], int(sys.argv[4]))})
adapter.start(wait_s=3)
adapter.heartbeat()
adapter.command("d", "set_c", 25.0)
assert adapter.flush()
print("commanded", flush=True)
while True:
    adapter.heartbeat()
    time.sleep(0.05)
"""


def test_the_watchdog_goes_past_the_proxy(
    raw_device: Any, tmp_path: Path, until: Callable[..., bool]
) -> None:
    """A run that is killed may leave its proxy behind; the device must still be made safe."""
    spec = plain_spec(raw_device.port)
    rule = RewriteRule(0, point="set_c", direction="write", value=30.0)
    with standing_before(spec, [rule]) as proxy:
        host, port = proxy.places["d"]
        program = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, spec.model_dump_json(exclude_defaults=True),
             str(tmp_path / "audit.jsonl"), host, str(port)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert program.stdout is not None
            line = program.stdout.readline()
            assert line == "commanded\n", program.communicate(timeout=5)[1]
            assert raw_device.holding[10] == 250
            on(proxy, 0)
        finally:
            program.kill()
            program.communicate(timeout=5)
        assert until(lambda: raw_device.holding[10] == 200)
        assert until(  # it reads back first
            lambda: (
                {r["by"] for r in read_audit(tmp_path / "audit.jsonl") if r["verdict"] == "safe"}
                == {"watchdog"}
            )
        )


# -- an emulated inverter ----------------------------------------------------------------------


def inverter_spec(devices: Background, **limit: Any) -> DeviceSpec:
    point = {
        "sunspec": "704.WMaxLimPct", "access": "rw", "min": 0, "max": 60, "safe_value": 50,
        "readback": {"tolerance": 0.005},
    } | limit  # fmt: skip
    return DeviceSpec.model_validate(
        {
            "name": "inverter",
            "connection": {"port": devices.ports[0], "timeout_s": 1.0},
            "poll_s": 60,
            "guard": {"heartbeat_s": 10},
            "points": {
                "p_w": {"sunspec": "701.W", "unit": "W"},
                "limit_pct": point,
                "limit_on": {"sunspec": "704.WMaxLimPctEna", "access": "guard"},
                "revert_s": {"sunspec": "704.WMaxLimPctRvrtTms", "access": "guard"},
                "revert_pct": {"sunspec": "704.WMaxLimPctRvrt", "access": "guard"},
                "revert_on": {"sunspec": "704.WMaxLimPctEnaRvrt", "access": "guard"},
            },
        }
    )


@contextmanager
def inverter(
    tmp_path: Path, rules: Sequence[FrameRule], **limit: Any
) -> Iterator[tuple[Background, DeviceSpec, MitmProxy, Adapter]]:
    with background(inverters(1, 10.0)) as devices:
        spec = inverter_spec(devices, **limit)
        with standing_before(spec, rules) as proxy, adapter_on(spec, proxy, tmp_path) as adapter:
            proxy.learn("inverter", wire_points(spec, spec.points, adapter.sunspec_map("inverter")))
            adapter.heartbeat()
            yield devices, spec, proxy, adapter
            on(proxy)


def true_limit_pct(devices: Background) -> float:
    """Ask the device itself, past the proxy."""
    client = ModbusClient("127.0.0.1", devices.ports[0], auto_close=True)
    (raw,) = client.read_holding_registers(LIMIT, 1) or [-1]
    return raw / 100.0  # WMaxLimPct_SF of the emulator is -2


def other_client(port: int, address: int) -> int:
    """Read one register with a program that is not ours: mbpoll, or pyModbusTCP without it."""
    if shutil.which("mbpoll") is None:
        found = ModbusClient("127.0.0.1", port, auto_close=True).read_holding_registers(address, 1)
        assert found is not None
        return int(found[0])
    done = subprocess.run(
        ["mbpoll", "-0", "-1", "-r", str(address), "-p", str(port), "127.0.0.1"],
        check=True, capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    return int(re.findall(r"^\[\d+\]: \t(-?\d+)", done.stdout, re.MULTILINE)[0])


def test_mbpoll_and_the_adapter_both_read_the_forged_value(tmp_path: Path) -> None:
    with inverter(tmp_path, [RewriteRule(0, point="p_w", value=4321.0)]) as (
        devices,
        spec,
        proxy,
        adapter,
    ):
        address = wire_points(spec, ["p_w"], adapter.sunspec_map("inverter"))["p_w"].place.address
        on(proxy, 0)
        assert adapter.poll()["inverter"]["p_w"][:2] == (4321.0, Quality.GOOD)
        assert other_client(proxy.places["inverter"][1], address) == 4321
        assert other_client(devices.ports[0], address) != 4321  # past the proxy, the truth
        on(proxy)
        assert adapter.poll()["inverter"]["p_w"].value != 4321.0


def test_forged_readings_do_not_move_the_guards_limits(tmp_path: Path) -> None:
    """A controller that is told of no power asks for more; the device never gets beyond 60 %."""
    with inverter(tmp_path, [RewriteRule(0, point="p_w", value=0.0)]) as (
        devices,
        _,
        proxy,
        adapter,
    ):
        on(proxy, 0)
        for _ in range(3):
            reading = adapter.poll()["inverter"]["p_w"].value
            adapter.heartbeat()
            adapter.command("inverter", "limit_pct", 40.0 + (9000.0 - reading) / 100.0)
            assert adapter.flush()
            assert true_limit_pct(devices) == 60.0
        assert {e.kind for e in adapter.events()} >= {"clamped"}


def test_a_forged_reading_does_not_stretch_a_step_once_we_have_written(tmp_path: Path) -> None:
    rules = [RewriteRule(0, point="limit_pct", value=55.0)]
    with inverter(tmp_path, rules, max_step=5) as (devices, _, proxy, adapter):
        # The device stands at 100 %; a step of 5 % from there would be outside the limit of 60 %.
        adapter.command("inverter", "limit_pct", 100.0)
        assert adapter.flush()
        assert true_limit_pct(devices) == 60.0
        for limit in (55.0, 50.0):
            adapter.command("inverter", "limit_pct", 0.0)
            assert adapter.flush()
            assert true_limit_pct(devices) == limit
        on(proxy, 0)
        adapter.poll()
        adapter.command("inverter", "limit_pct", 0.0)
        adapter.flush(timeout_s=0.3)
        # One step; that reads back as 55, which is a fault, and 50 is safe.
        assert true_limit_pct(devices) in (45.0, 50.0)
        assert "inverter" in adapter.faults()


@pytest.mark.parametrize(("forged", "at_device"), [(95.0, 95.0), (250.0, 30.0)])
def test_a_rewritten_write_passes_the_guard_but_not_the_nameplate(
    tmp_path: Path, forged: float, at_device: float
) -> None:
    """Behind the guard only the device itself is left: what it can do, it does; no more.

    The guard's own read-back sees it and latches a fault, and the device is made safe as soon as
    the attack lets writes through.
    """
    rules = [RewriteRule(0, point="limit_pct", direction="write", value=forged)]
    with inverter(tmp_path, rules) as (devices, _, proxy, adapter):
        adapter.command("inverter", "limit_pct", 30.0)
        assert adapter.flush()
        on(proxy, 0)
        adapter.command("inverter", "limit_pct", 40.0)
        adapter.flush(timeout_s=0.3)
        assert true_limit_pct(devices) == at_device
        assert "inverter" in adapter.faults()
        verdicts = {r["verdict"] for r in read_audit(tmp_path / "audit.jsonl")}
        assert {"written", "failed", "fault"} <= verdicts
        on(proxy)
        deadline = time.monotonic() + 120.0
        while true_limit_pct(devices) != 50.0 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert true_limit_pct(devices) == 50.0


def test_the_timer_in_the_device_ends_what_the_guard_cannot(
    tmp_path: Path, until: Callable[..., bool]
) -> None:
    """Writes stay rewritten, so the safe value never arrives; left alone, the device reverts."""
    reversion = {
        "point": "revert_s", "seconds": 1, "refresh_s": 0.5,
        "before": [{"point": "revert_pct", "value": 50}, {"point": "revert_on", "value": 1}],
    }  # fmt: skip
    rules = [RewriteRule(0, point="limit_pct", direction="write", value=95.0)]
    limit = {"reversion": reversion, "enable": [{"point": "limit_on", "value": 1}]}
    with inverter(tmp_path, rules, **limit) as (devices, _, proxy, adapter):
        adapter.command("inverter", "limit_pct", 30.0)
        assert adapter.flush()
        on(proxy, 0)
        adapter.command("inverter", "limit_pct", 40.0)
        assert until(lambda: true_limit_pct(devices) == 95.0)
        assert until(lambda: "inverter" in adapter.faults())
        # Three tries of 0.25 s, then the timer of 1 s; what the attack writes is over.
        assert until(lambda: true_limit_pct(devices) == 50.0, 4.0)
        assert until(lambda: adapter.safe_devices()["inverter"])
        safe = [r for r in read_audit(tmp_path / "audit.jsonl") if r["verdict"] == "safe"]
        assert "by the device's own timer" in safe[-1]["why"]
        assert true_limit_pct(devices) == 50.0
