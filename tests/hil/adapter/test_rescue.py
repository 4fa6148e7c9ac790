"""How the watchdog writes: patience with slow devices, back-off, bits, read-back, giving up."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable
from typing import Any

import pytest

from hil.adapter import watchdog_rescue
from hil.adapter.watchdog_rescue import NotSafe, Rescue
from hil.adapter.watchdog_wire import SafeWrites, crc16

SAFE = 200
WRITE = {"function": 6, "address": 10, "registers": [SAFE], "mask": None, "point": "set_c",
         "value": 20.0, "of": "set_c", "check": None}  # fmt: skip
CHECK = {"function": 3, "address": 10, "count": 1, "format": ">h", "low": SAFE, "high": SAFE,
         "delay_s": 0.0, "reversion_s": 0.0}  # fmt: skip
OTHER = WRITE | {"address": 20, "registers": [7], "point": "mode", "of": "mode"}


def frame(tid: int, unit: int, pdu: bytes) -> bytes:
    return struct.pack(">HHHB", tid, 0, len(pdu) + 1, unit) + pdu


@pytest.fixture
def rescue(raw_device: Any) -> Callable[..., tuple[list[NotSafe], list[dict[str, Any]]]]:
    """Run a rescue of one device to its end; return what is not safe, and the records."""

    def run(
        *writes: dict[str, Any], take_over: Callable[[], bool] = lambda: False, **plan: Any
    ) -> tuple[list[NotSafe], list[dict[str, Any]]]:
        records: list[dict[str, Any]] = []

        def record(device: str, point: str, **fields: Any) -> None:
            records.append({"device": device, "point": point, **fields})

        keys: dict[str, Any] = {"host": "127.0.0.1", "port": raw_device.port, "unit": 1,
                                "timeout_s": 0.1, "heartbeat_s": 1.0}  # fmt: skip
        work = Rescue("test", record, take_over, lambda name: None)
        work.add([SafeWrites("d", writes=list(writes), **keys | plan)])
        return asyncio.run(asyncio.wait_for(work.run(), 60)), records

    return run


def test_a_late_reply_counts_and_the_connection_stays(raw_device: Any, rescue: Any) -> None:
    def slow_at_first(tid: int, unit: int, pdu: bytes, honest: bytes) -> list[Any]:
        answer = frame(tid, unit, honest)
        return [0.5, answer] if len(raw_device.requests) == 1 else [answer]

    raw_device.behaviour = slow_at_first
    failed, records = rescue(WRITE)
    assert failed == []
    assert raw_device.holding[10] == SAFE
    assert raw_device.connections == 1
    assert [r["verdict"] for r in records] == ["failed", "safe"]


def test_a_device_that_answers_some_time_after_it_was_connected(
    raw_device: Any, rescue: Any
) -> None:
    began_s: list[float] = []

    def deaf_at_first(tid: int, unit: int, pdu: bytes, honest: bytes) -> list[Any]:
        began_s.append(time.monotonic())
        return [frame(tid, unit, honest)] if began_s[-1] - began_s[0] > 0.6 else []

    raw_device.behaviour = deaf_at_first
    assert rescue(WRITE)[0] == []
    assert raw_device.connections == 1
    assert len(raw_device.requests) <= 5  # the waits grow


def test_a_refused_point_does_not_stop_the_others_and_is_tried_again(
    raw_device: Any, rescue: Any
) -> None:
    def busy(tid: int, unit: int, pdu: bytes, honest: bytes) -> list[Any]:
        wrong = pdu[1:3] == b"\0\x0a" and len(raw_device.requests) < 4
        return [frame(tid, unit, bytes([pdu[0] | 0x80, 6]) if wrong else honest)]

    raw_device.behaviour = busy
    failed, records = rescue(WRITE, OTHER)
    assert failed == []
    assert raw_device.written(20) == [7]  # once: only what failed is written again
    assert [r["point"] for r in records if r["verdict"] == "safe"] == ["mode", "set_c"]
    assert "refused with exception 6" in records[0]["why"]


def test_pauses_between_failures_grow_and_giving_up_names_the_point(
    raw_device: Any, rescue: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog_rescue, "GIVE_UP_S", 1.0)
    raw_device.behaviour = lambda tid, unit, pdu, honest: [frame(tid, unit, bytes([0x86, 4]))]
    failed, records = rescue(WRITE)
    assert failed == [("d", "set_c", 20.0)]
    assert len(raw_device.requests) <= 5  # at 0, 0.1, 0.3, 0.7 s
    assert [r["verdict"] for r in records] == ["failed", "failed"]  # the same failure once
    assert "given up" in records[-1]["why"]
    assert records[-1]["point"] == "set_c"


def test_a_write_of_bits_keeps_the_others(raw_device: Any, rescue: Any) -> None:
    raw_device.holding[10] = 0xABCD
    rescue(WRITE | {"registers": [0x0120], "mask": 0x0FF0})
    assert raw_device.holding[10] == 0xA12D


def test_what_reads_back_wrong_is_written_again_and_not_once_it_is_right(
    raw_device: Any, rescue: Any
) -> None:
    def stubborn(tid: int, unit: int, pdu: bytes, honest: bytes) -> list[Any]:
        if len(raw_device.requests) in (2, 3):
            honest = struct.pack(">BBh", 3, 2, 260)
        return [frame(tid, unit, honest)]

    raw_device.behaviour = stubborn
    failed, records = rescue(WRITE | {"check": CHECK})
    assert failed == []
    assert "reads back raw 260, not 200 to 200" in records[0]["why"]
    # write, read (wrong); look (wrong), write, read (right)
    assert [r[0] for r in raw_device.requests] == [6, 3, 3, 6, 3]


def test_a_device_with_a_timer_of_its_own_is_left_to_it(
    raw_device: Any, rescue: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog_rescue, "MOST_PAUSE_S", 0.1)

    def reverts_late(tid: int, unit: int, pdu: bytes, honest: bytes) -> list[Any]:
        if pdu[0] == 3 and len(raw_device.requests) < 14:
            honest = struct.pack(">BBh", 3, 2, 260)
        return [frame(tid, unit, honest)]

    raw_device.behaviour = reverts_late
    assert rescue(WRITE | {"check": CHECK | {"reversion_s": 60.0}})[0] == []
    assert raw_device.written(10) == [SAFE] * 3  # each write would start the timer anew


def test_an_adapter_that_holds_the_only_connection_is_ended(raw_device: Any, rescue: Any) -> None:
    raw_device.refuse = True
    asked: list[bool] = []

    def take_over() -> bool:
        asked.append(True)
        raw_device.refuse = False
        return len(asked) == 1

    assert rescue(WRITE, take_over=take_over)[0] == []
    assert raw_device.holding[10] == SAFE


def test_frames_that_are_not_modbus_end_the_connection(raw_device: Any, rescue: Any) -> None:
    def garbage(tid: int, unit: int, pdu: bytes, honest: bytes) -> list[Any]:
        wrong = [b"HTTP/1.1 400", frame(tid + 9, unit, honest), frame(tid, unit + 1, honest),
                 frame(tid, unit, honest[:4] + b"\x07")]  # fmt: skip
        n = len(raw_device.requests)
        return [wrong[n - 1] if n <= len(wrong) else frame(tid, unit, honest)]

    raw_device.behaviour = garbage
    failed, records = rescue(WRITE)
    assert failed == []
    assert raw_device.connections == 5
    whys = [r["why"] for r in records]
    for words in ("not a Modbus/TCP header", "never asked", "unit 2 answered", "echo"):
        assert any(words in why for why in whys), words


def test_the_checksum_of_rtu() -> None:
    # Example of "Modbus over serial line", V1.02, page 41: 02 07 is followed by 41 12.
    assert crc16(b"\x02\x07") == b"\x41\x12"
