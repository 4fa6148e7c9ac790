"""The adapter against honest devices: requests, writes, refusals, quality, other stacks."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hil.adapter.adapter import Adapter
from hil.adapter.audit import read_audit
from hil.devices.errors import ArmingError, DeviceError, GuardError
from hil.devices.points import Quality
from hil.devices.spec import DeviceSpec

POINTS: dict[str, Any] = {
    "temp_c": {"table": "input", "address": 0, "type": "int16", "scale": 0.1},
    "energy_wh": {"table": "input", "address": 1, "type": "uint32", "word_order": "little"},
    "far": {"table": "input", "address": 200, "type": "uint16"},
    "relay": {"table": "coil", "address": 3, "type": "bool"},
    "set_c": {
        "table": "holding", "address": 10, "type": "int16", "scale": 0.1, "access": "rw",
        "min": 10, "max": 30, "safe_value": 20, "max_step": 8,
        "reversion": {"point": "timer", "seconds": 40, "before": [{"point": "back", "value": 7}]},
        "enable": [{"point": "on", "value": 1}],
    },
    "timer": {"table": "holding", "address": 11, "type": "uint32", "access": "guard"},
    "back": {"table": "holding", "address": 13, "type": "uint16", "access": "guard"},
    "on": {"table": "holding", "address": 14, "type": "uint16", "access": "guard"},
    "mode": {
        "table": "holding", "address": 15, "type": "uint16", "access": "rw",
        "enum": {"off": 0, "heat": 1}, "safe_value": 0,
    },
    "strict": {
        "table": "holding", "address": 16, "type": "uint16", "access": "rw",
        "min": 0, "max": 100, "max_rate": 1, "safe_value": 0, "on_limit": "refuse",
    },
}  # fmt: skip


def spec_of(port: int, name: str = "d", **changes: Any) -> DeviceSpec:
    connection = {"port": port, "timeout_s": 0.3, **changes.pop("connection", {})}
    data: dict[str, Any] = {
        "name": name, "poll_s": 0.1, "points": POINTS, "guard": {"heartbeat_s": 30.0},
    }  # fmt: skip
    return DeviceSpec.model_validate(data | changes | {"connection": connection})


@pytest.fixture
def start_adapter(raw_device: Any, tmp_path: Path) -> Iterator[Callable[..., Adapter]]:
    made: list[Adapter] = []

    def start(*, armed: bool = True, **changes: Any) -> Adapter:
        raw_device.input[0:3] = [198, 2, 1]  # 65538 with the low word first
        raw_device.coils[3] = 1
        raw_device.holding[10] = 210
        adapter = Adapter(
            [spec_of(raw_device.port, **changes)],
            armed={"d"} if armed else (),
            audit=tmp_path / "audit.jsonl",
            watchdog=False,
        )
        adapter.start()
        made.append(adapter)
        return adapter

    yield start
    for adapter in made:
        adapter.close()


def test_values_of_every_table_and_type(start_adapter: Any) -> None:
    now = start_adapter().poll()["d"]
    assert now["temp_c"].value == 19.8
    assert now["energy_wh"].value == 65538
    assert now["relay"].value == 1
    assert now["set_c"].value == 21.0
    assert {r.quality for r in now.values()} == {Quality.GOOD}
    assert all(r.age_s < 60 for r in now.values())


def test_reads_are_coalesced_into_the_fewest(start_adapter: Any, raw_device: Any) -> None:
    adapter = start_adapter(armed=False, poll_s=100.0)
    time.sleep(0.2)
    raw_device.requests.clear()
    adapter.poll()
    asked = sorted(struct.unpack(">BHH", r) for r in raw_device.requests)
    # one coil; inputs 0-2 and 200 (a gap that the file does not allow); holding 10-16 in one
    assert asked == [(1, 3, 1), (3, 10, 7), (4, 0, 3), (4, 200, 1)]


def test_order_of_a_write_reversion_first_read_back_last(
    start_adapter: Any, raw_device: Any
) -> None:
    adapter = start_adapter(poll_s=100.0)
    adapter.poll()
    adapter.heartbeat()
    raw_device.requests.clear()
    adapter.command("d", "set_c", 25.04)
    assert adapter.flush()
    steps = [(r[0], struct.unpack(">H", r[1:3])[0]) for r in raw_device.requests]
    assert steps == [(6, 13), (16, 11), (6, 10), (6, 14), (3, 10)]
    assert raw_device.holding[11:13] == [0, 40]
    assert raw_device.holding[10] == 250


def test_the_latest_value_wins(start_adapter: Any, raw_device: Any) -> None:
    adapter = start_adapter()
    adapter.poll()
    raw_device.behaviour = lambda tid, unit, asked, honest: [
        0.05, struct.pack(">HHHB", tid, 0, len(honest) + 1, unit) + honest
    ]  # fmt: skip
    for value in np.linspace(21, 25, 40):
        adapter.command("d", "set_c", float(value))
    adapter.heartbeat()
    assert adapter.flush(timeout_s=5)
    sent = raw_device.written(10)
    assert sent[-1] == 250
    assert len(sent) <= 3


def test_refusals_are_immediate_logged_and_visible(
    start_adapter: Any, raw_device: Any, tmp_path: Path
) -> None:
    adapter = start_adapter()
    adapter.poll()
    for point, value in [("temp_c", 1.0), ("timer", 5.0), ("nope", 1.0), ("mode", "boil")]:
        with pytest.raises(GuardError):
            adapter.command("d", point, value)
    adapter.heartbeat()
    adapter.command("d", "mode", 7)
    adapter.command("d", "strict", 500)
    adapter.flush()
    adapter.command("d", "strict", 90)  # too fast: 1 per second
    adapter.flush()
    assert raw_device.writes == []
    events = [e for e in adapter.events() if e.kind == "refused"]
    assert len(events) == 7
    with pytest.raises(DeviceError, match="no device 'x'"):
        adapter.command("x", "mode", 1)
    refused = [r for r in read_audit(tmp_path / "audit.jsonl") if r["verdict"] == "refused"]
    assert len(refused) == 7
    assert all(r["why"] for r in refused)


def test_limited_and_clamped_values_are_told(
    start_adapter: Any, raw_device: Any, tmp_path: Path
) -> None:
    adapter = start_adapter()
    adapter.poll()
    adapter.heartbeat()
    adapter.command("d", "set_c", 99.0)
    adapter.flush()
    assert raw_device.holding[10] == 290  # 21 + a step of 8
    adapter.command("d", "set_c", 99.0)
    adapter.flush()
    assert raw_device.holding[10] == 300
    assert [e.kind for e in adapter.events() if e.device] == ["limited", "clamped"]
    written = [r for r in read_audit(tmp_path / "audit.jsonl") if r["point"] == "set_c"]
    assert [(r["asked"], r["sent"], r["read_back"]) for r in written] == [
        (99.0, 29.0, 29.0), (99.0, 30.0, 30.0),
    ]  # fmt: skip


def test_nothing_is_written_without_arming(start_adapter: Any, raw_device: Any) -> None:
    adapter = start_adapter(armed=False)
    adapter.poll()
    with pytest.raises(GuardError, match="--arm d"):
        adapter.command("d", "mode", 1)
    with pytest.raises(GuardError, match="not armed"):
        adapter.adopt_curve("d", 705, [(100, 0)])
    adapter.heartbeat()
    adapter.safe_state("test")
    adapter.close()
    assert raw_device.writes == []


def test_devices_elsewhere_are_refused_before_any_connection(tmp_path: Path) -> None:
    far = spec_of(502, connection={"host": "192.0.2.1"})
    with pytest.raises(ArmingError, match="--arm d"):
        Adapter([far], audit=tmp_path / "a.jsonl")
    with pytest.raises(ArmingError, match="no device 'dd'"):
        Adapter([far], armed={"dd"}, audit=tmp_path / "a.jsonl")
    with pytest.raises(DeviceError, match="two devices"):
        Adapter([spec_of(1), spec_of(2)], audit=tmp_path / "a.jsonl")


def test_not_a_number_goes_to_the_safe_state_and_a_number_leaves_it(
    start_adapter: Any, raw_device: Any, until: Callable[..., bool]
) -> None:
    adapter = start_adapter()
    adapter.poll()
    adapter.heartbeat()
    adapter.command("d", "set_c", 25.0)
    assert adapter.flush()
    adapter.command("d", "set_c", float("nan"))
    assert until(lambda: adapter.safe_devices()["d"] and raw_device.holding[10] == 200)
    adapter.heartbeat()
    adapter.command("d", "set_c", 24.0)
    assert adapter.flush()
    assert raw_device.holding[10] == 240
    assert not adapter.safe_devices()["d"]


def test_a_command_that_is_not_repeated_ends_in_the_safe_state(
    start_adapter: Any, raw_device: Any, until: Callable[..., bool]
) -> None:
    adapter = start_adapter(guard={"heartbeat_s": 1.0, "input_timeout_s": 0.3})
    adapter.poll()
    adapter.heartbeat()
    adapter.command("d", "set_c", 25.0)
    assert adapter.flush()

    def beaten() -> bool:
        adapter.heartbeat()
        return bool(raw_device.holding[10] == 200)

    assert until(beaten)
    assert any("no command" in e.text for e in adapter.events() if e.kind == "safe")


def test_heartbeat_point_counts_while_the_federation_lives(
    start_adapter: Any, raw_device: Any, until: Callable[..., bool]
) -> None:
    points = POINTS | {"hb": {"table": "holding", "address": 30, "type": "uint16",
                              "access": "guard"}}  # fmt: skip
    adapter = start_adapter(points=points, guard={"heartbeat_s": 0.4, "heartbeat_point": "hb"})
    adapter.poll()
    start_s = time.monotonic()

    def counted() -> list[int]:
        return list(raw_device.written(30))

    def beaten() -> bool:
        adapter.heartbeat()
        return len(counted()) >= 4

    assert until(beaten)
    assert counted() == sorted(set(counted()))
    assert len(counted()) <= 2 + (time.monotonic() - start_s) / 0.2  # every half heartbeat
    assert until(lambda: any("no heartbeat" in e.text for e in adapter.events()))
    last = len(counted())
    time.sleep(0.5)
    assert len(counted()) <= last + 1  # silence of the federation ends it


def test_quality_goes_stale_then_bad_then_good_again(
    start_adapter: Any, raw_device: Any, until: Callable[..., bool]
) -> None:
    adapter = start_adapter(stale_after_s=0.3, bad_after_s=0.8, connection={"reconnect_max_s": 0.2})
    adapter.poll()
    raw_device.behaviour = lambda *_: []
    seen: list[Quality] = []

    def quality() -> Quality:
        found = adapter.latest()["d"]["temp_c"].quality
        if not seen or seen[-1] is not found:
            seen.append(found)
        return found

    assert until(lambda: quality() is Quality.BAD)
    assert seen == [Quality.GOOD, Quality.STALE, Quality.BAD]
    assert adapter.latest()["d"]["temp_c"].value == 19.8  # the last good one, with its age
    raw_device.behaviour = None
    raw_device.input[0] = 205
    assert until(lambda: adapter.latest()["d"]["temp_c"][:2] == (20.5, Quality.GOOD))


def test_reconnects_at_once_after_a_reset(start_adapter: Any, raw_device: Any) -> None:
    adapter = start_adapter()
    adapter.poll()
    for _ in range(3):
        raw_device.drop_connections()
        time.sleep(0.02)
        assert adapter.poll()["d"]["temp_c"].age_s < 0.1
    assert adapter.stats["connects"] == 4


def test_a_refused_point_is_bad_and_the_others_are_not(start_adapter: Any, raw_device: Any) -> None:
    raw_device.valid = 150
    now = start_adapter().poll()["d"]
    assert now["far"].quality is Quality.BAD
    assert np.isnan(now["far"].value)
    assert now["temp_c"].quality is Quality.GOOD


def test_implausible_is_bad(start_adapter: Any, raw_device: Any) -> None:
    points = {"temp_c": POINTS["temp_c"] | {"plausible": [-40, 60]}}
    adapter = start_adapter(points=points, armed=False)
    assert adapter.poll()["d"]["temp_c"].quality is Quality.GOOD
    raw_device.input[0] = 990
    reading = adapter.poll()["d"]["temp_c"]
    assert (reading.value, reading.quality) == (19.8, Quality.BAD)


def test_snapshot_and_latest_agree_and_names_are_checked(start_adapter: Any) -> None:
    adapter = start_adapter()
    adapter.poll()
    view = adapter.snapshot()
    at = view.positions([("d", "set_c"), ("d", "temp_c")])
    assert view.values[at].tolist() == [21.0, 19.8]
    assert view.reading("d", "temp_c").value == adapter.latest()["d"]["temp_c"].value
    with pytest.raises(DeviceError, match="did you mean 'temp_c'"):
        view.positions([("d", "temp")])
    assert adapter.points("d") == list(POINTS)


def test_units_behind_one_address_share_a_connection(raw_device: Any, tmp_path: Path) -> None:
    specs = [spec_of(raw_device.port, f"u{i}", connection={"unit": i}) for i in range(1, 21)]
    with Adapter(specs, audit=tmp_path / "a.jsonl") as adapter:
        adapter.poll()
        assert all(d["temp_c"].quality is Quality.GOOD for d in adapter.latest().values())
        assert raw_device.connections == 1


def test_a_device_that_is_not_there_does_not_hold_up_the_others(
    raw_device: Any, tmp_path: Path, unused_port: int, until: Callable[..., bool]
) -> None:
    specs = [spec_of(unused_port, "gone"), spec_of(raw_device.port, "here")]
    with Adapter(specs, audit=tmp_path / "a.jsonl") as adapter:
        adapter.poll()
        polls = len(raw_device.requests)
        assert until(lambda: len(raw_device.requests) > polls + 6)
        assert until(lambda: "gone" in {e.device for e in adapter.events() if e.kind == "quality"})
        now = adapter.latest()
        assert now["gone"]["temp_c"].quality is Quality.BAD
        assert now["here"]["temp_c"].quality is Quality.GOOD
        assert "gone" in adapter.stats["last_errors"]


def test_a_device_never_met_does_not_hold_up_the_end(tmp_path: Path, unused_port: int) -> None:
    adapter = Adapter([spec_of(unused_port)], armed={"d"}, audit=tmp_path / "a.jsonl")
    adapter.start()
    start_s = time.monotonic()
    assert adapter.close(timeout_s=600.0)  # nothing was ever sent to it
    assert adapter.safe_devices() == {"d": False}  # and nobody knows how it stands
    assert time.monotonic() - start_s < 300.0


def test_a_command_that_never_went_out_leaves_nothing_to_make_safe(
    tmp_path: Path, unused_port: int, until: Callable[..., bool]
) -> None:
    with Adapter([spec_of(unused_port)], armed={"d"}, audit=tmp_path / "a.jsonl") as adapter:
        adapter.heartbeat()
        adapter.command("d", "mode", 1)
        assert until(lambda: list(adapter.not_commanded()) == [("d", "mode")])
        assert adapter.close(timeout_s=600.0)
        assert adapter.faults() == {}


def test_not_started_and_closed(tmp_path: Path) -> None:
    adapter = Adapter([spec_of(1)], audit=tmp_path / "a.jsonl")
    with pytest.raises(DeviceError, match="not running"):
        adapter.poll()
    assert adapter.close()


def test_pymodbustcp_server_is_driven(tmp_path: Path, unused_port: int) -> None:
    from pyModbusTCP.server import ModbusServer

    server = ModbusServer("127.0.0.1", unused_port, no_block=True)
    server.start()
    try:
        server.data_bank.set_holding_registers(10, [210])
        server.data_bank.set_input_registers(0, [198, 2, 1])
        _drive(unused_port, tmp_path, lambda: server.data_bank.get_holding_registers(10)[0])
    finally:
        server.stop()


def test_umodbus_server_is_driven(tmp_path: Path) -> None:
    import threading
    from socketserver import TCPServer

    from umodbus.server.tcp import RequestHandler, get_server

    holding = dict.fromkeys(range(10, 17), 0) | {10: 210}
    inputs = {0: 198, 1: 2, 2: 1, 200: 0}
    server = get_server(TCPServer, ("127.0.0.1", 0), RequestHandler)
    route = server.route
    route(slave_ids=[1], function_codes=[1], addresses=[3])(
        lambda slave_id, function_code, address: 1
    )
    route(slave_ids=[1], function_codes=[3], addresses=list(holding))(
        lambda slave_id, function_code, address: holding[address]
    )
    route(slave_ids=[1], function_codes=[4], addresses=list(inputs))(
        lambda slave_id, function_code, address: inputs[address]
    )

    @route(slave_ids=[1], function_codes=[6, 16], addresses=list(holding))
    def write(slave_id: int, function_code: int, address: int, value: int) -> None:
        holding[address] = value

    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        _drive(server.server_address[1], tmp_path, lambda: holding[10])
    finally:
        server.shutdown()
        server.server_close()


def _drive(port: int, tmp_path: Path, register: Callable[[], int]) -> None:
    with Adapter([spec_of(port)], armed={"d"}, audit=tmp_path / "a.jsonl") as adapter:
        now = adapter.poll()["d"]
        assert now["temp_c"][:2] == (19.8, Quality.GOOD)
        assert now["energy_wh"].value == 65538
        adapter.heartbeat()
        adapter.command("d", "set_c", 25.0)
        assert adapter.flush()
        assert register() == 250
        assert adapter.close()
    assert register() == 200
