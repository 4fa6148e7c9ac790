"""Devices that misbehave: every one ends in good data, or in bad quality and the safe state.

All of them run beside each other under one adapter, so a hang of one would show in the others.
The true temperature is 19.8 and never changes; a forged register is 0x0101 (25.7).
"""

from __future__ import annotations

import logging
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hil.adapter.adapter import Adapter, Event
from hil.adapter.audit import read_audit
from hil.devices.points import Quality
from hil.devices.spec import DeviceSpec

TRUE_C, SAFE_C, TIMEOUT_S = 19.8, 20.0, 0.15


def mbap(tid: int, unit: int, pdu: bytes, *, length: int | None = None, protocol: int = 0) -> bytes:
    return struct.pack(">HHHB", tid, protocol, (length or len(pdu) + 1), unit) + pdu


def forge(pdu: bytes) -> bytes:
    """The same reply with other register values."""
    return pdu[:2] + b"\x01" * (len(pdu) - 2) if pdu[0] in (3, 4) else pdu


def is_read(pdu: bytes) -> bool:
    return pdu[0] in (3, 4)


def silent(tid: int, unit: int, asked: bytes, honest: bytes) -> list[Any]:
    return []


def late(tid: int, unit: int, asked: bytes, honest: bytes) -> list[Any]:
    return [1.6 * TIMEOUT_S, mbap(tid, unit, forge(honest))]


def short(tid: int, unit: int, asked: bytes, honest: bytes) -> list[Any]:
    data = forge(honest)[2:-2]
    return [mbap(tid, unit, bytes([honest[0], len(data)]) + data)]


def long(tid: int, unit: int, asked: bytes, honest: bytes) -> list[Any]:
    data = forge(honest)[2:] + b"\1\1"
    return [mbap(tid, unit, bytes([honest[0], len(data)]) + data)]


def other_function(tid: int, unit: int, asked: bytes, honest: bytes) -> list[Any]:
    return [mbap(tid, unit, bytes([7 - honest[0] if is_read(honest) else 4]) + forge(honest)[1:])]


def transaction_zero(tid: int, unit: int, asked: bytes, honest: bytes) -> list[Any]:
    return [mbap(0, unit, forge(honest))]


def wrong_unit(tid: int, unit: int, asked: bytes, honest: bytes) -> list[Any]:
    return [mbap(tid, unit + 1, forge(honest))]


def wrong_transaction(tid: int, unit: int, asked: bytes, honest: bytes) -> list[Any]:
    return [mbap(tid + 7, unit, forge(honest))]


def previous_transaction(tid: int, unit: int, asked: bytes, honest: bytes) -> list[Any]:
    return [mbap(max(tid - 1, 1), unit, forge(honest))] if tid > 1 else []


def garbage(tid: int, unit: int, asked: bytes, honest: bytes) -> list[Any]:
    return [b"HTTP/1.1 400 Bad Request\r\n\r\n"]


def flood(tid: int, unit: int, asked: bytes, honest: bytes) -> list[Any]:
    return [b"\x00\x01" * 60_000]


def bad_exception(tid: int, unit: int, asked: bytes, honest: bytes) -> list[Any]:
    return [mbap(tid, unit, bytes([honest[0] | 0x80, 0, 7]))]


def plain_0x80(tid: int, unit: int, asked: bytes, honest: bytes) -> list[Any]:
    return [mbap(tid, unit, b"\x80\x01")]


def device_failure(tid: int, unit: int, asked: bytes, honest: bytes) -> list[Any]:
    return [mbap(tid, unit, bytes([honest[0] | 0x80, 4]))]


def busy(tid: int, unit: int, asked: bytes, honest: bytes) -> list[Any]:
    return [mbap(tid, unit, bytes([honest[0] | 0x80, 6]))]


def bad_length(tid: int, unit: int, asked: bytes, honest: bytes) -> list[Any]:
    return [mbap(tid, unit, forge(honest), length=len(honest) + 9)]


def length_too_small(tid: int, unit: int, asked: bytes, honest: bytes) -> list[Any]:
    return [mbap(tid, unit, forge(honest), length=len(honest) - 1)]


def huge_length(tid: int, unit: int, asked: bytes, honest: bytes) -> list[Any]:
    return [mbap(tid, unit, forge(honest), length=65535)]


def bad_byte_count(tid: int, unit: int, asked: bytes, honest: bytes) -> list[Any]:
    return [mbap(tid, unit, honest[:1] + bytes([honest[1] + 2]) + forge(honest)[2:])]


def other_protocol(tid: int, unit: int, asked: bytes, honest: bytes) -> list[Any]:
    return [mbap(tid, unit, forge(honest), protocol=1)]


def dripping(tid: int, unit: int, asked: bytes, honest: bytes) -> list[Any]:
    actions: list[Any] = []
    for byte in mbap(tid, unit, forge(honest)):
        actions += [bytes([byte]), TIMEOUT_S / 5]
    return actions


def split(tid: int, unit: int, asked: bytes, honest: bytes) -> list[Any]:
    whole = mbap(tid, unit, honest)
    return [whole[:3], 0.002, whole[3:8], 0.002, whole[8:]]


def reset(tid: int, unit: int, asked: bytes, honest: bytes) -> list[Any]:
    return ["reset"]


def close(tid: int, unit: int, asked: bytes, honest: bytes) -> list[Any]:
    return ["close"]


def close_in_the_middle(tid: int, unit: int, asked: bytes, honest: bytes) -> list[Any]:
    return [mbap(tid, unit, forge(honest))[:-1], "close"]


def twice(tid: int, unit: int, asked: bytes, honest: bytes) -> list[Any]:
    return [2 * mbap(tid, unit, honest)]


def old_first(tid: int, unit: int, asked: bytes, honest: bytes) -> list[Any]:
    return [mbap(max(tid - 1, 1), unit, forge(honest)) * (tid > 1) + mbap(tid, unit, honest)]


def lying_echo(tid: int, unit: int, asked: bytes, honest: bytes) -> list[Any]:
    return [mbap(tid, unit, honest if is_read(honest) else honest[:3] + b"\x01\x01")]


class EveryThirdLost:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self, tid: int, unit: int, asked: bytes, honest: bytes) -> list[Any]:
        self.count += 1
        return [] if self.count % 3 == 0 else [mbap(tid, unit, honest)]


class Forgetful:
    """Echoes a write as it should, and keeps the old value."""

    def __init__(self, device: Any) -> None:
        self.device = device

    def __call__(self, tid: int, unit: int, asked: bytes, honest: bytes) -> list[Any]:
        if not is_read(honest):
            self.device.holding[10] = 260
        return [mbap(tid, unit, honest)]


BAD: list[Callable[..., list[Any]]] = [
    silent, late, short, long, other_function, transaction_zero, wrong_unit, wrong_transaction,
    previous_transaction, garbage, flood, bad_exception, plain_0x80, device_failure, busy,
    bad_length, length_too_small, huge_length, bad_byte_count, other_protocol, dripping, reset,
    close, close_in_the_middle,
]  # fmt: skip
READS_GOOD: list[Callable[..., list[Any]]] = [split, twice, old_first, lying_echo]
BAD_NAMES = [f.__name__ for f in BAD]
NAMES = [*BAD_NAMES, *(f.__name__ for f in READS_GOOD), "every_third_lost", "forgetful"]
#: Values of the others must not grow old only because the machine is busy.
AGES: dict[str, dict[str, Any]] = {
    "bad": {
        "stale_after_s": 0.5, "bad_after_s": 0.9, "guard": {"heartbeat_s": 30.0, "max_bad_s": 0.9},
    },
    "good": {
        "stale_after_s": 60.0, "bad_after_s": 90.0, "guard": {"heartbeat_s": 30.0},
    },
}  # fmt: skip
LEAST_REQUESTS, LIMIT_S = 6, 60.0
LATCHES = {"lying_echo", "forgetful"}


def spec_for(name: str, port: int) -> DeviceSpec:
    return DeviceSpec.model_validate(
        {
            "name": name,
            "connection": {
                "port": port, "timeout_s": TIMEOUT_S, "reconnect_max_s": 0.3, "max_gap": 20,
            },
            "poll_s": 0.2,
            **AGES["bad" if name in BAD_NAMES else "good"],
            "points": {
                "temp_c": {"table": "input", "address": 0, "type": "int16", "scale": 0.1},
                "other": {"table": "input", "address": 5, "type": "uint16"},
                "set_c": {
                    "table": "holding", "address": 10, "type": "int16", "scale": 0.1,
                    "access": "rw", "min": 10, "max": 30, "safe_value": SAFE_C,
                },
            },
        }
    )  # fmt: skip


class Outcome:
    """What was seen of each device, from outside."""

    def __init__(self) -> None:
        self.samples: dict[str, set[tuple[float, Quality]]] = {n: set() for n in NAMES}
        self.final: dict[str, Quality] = {}
        self.events: list[Event] = []
        self.recovered: dict[str, Quality] = {}
        self.faults: dict[str, str] = {}
        self.devices: dict[str, Any] = {}
        self.register_at_end: dict[str, int] = {}
        self.first_write_ok: dict[str, int] = {}
        self.log: list[logging.LogRecord] = []
        self.close_s = 0.0
        self.all_safe = False
        self.audit: list[dict[str, Any]] = []


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory, raw_device_class: Any) -> Outcome:
    seen = Outcome()
    behaviours: dict[str, Any] = {f.__name__: f for f in (*BAD, *READS_GOOD)}
    for name in NAMES:
        device = seen.devices[name] = raw_device_class()
        device.input[0], device.holding[10] = 198, 210
    behaviours["every_third_lost"] = EveryThirdLost()
    behaviours["forgetful"] = Forgetful(seen.devices["forgetful"])
    handler = logging.Handler(logging.WARNING)
    handler.emit = seen.log.append  # type: ignore[method-assign]
    logging.getLogger("asyncio").addHandler(handler)
    audit = tmp_path_factory.mktemp("hostile") / "audit.jsonl"
    try:
        _run(seen, behaviours, audit)
    finally:
        logging.getLogger("asyncio").removeHandler(handler)
        for device in seen.devices.values():
            device.close()
    return seen


def _run(seen: Outcome, behaviours: dict[str, Any], audit: Path) -> None:
    specs = [spec_for(n, d.port) for n, d in seen.devices.items()]
    adapter = Adapter(specs, armed=NAMES, audit=audit)
    adapter.start(wait_s=LIMIT_S)
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(0.1):
            adapter.heartbeat()

    adapter.heartbeat()
    threading.Thread(target=beat, daemon=True).start()
    for name in NAMES:
        adapter.command(name, "set_c", 26.0)
    assert adapter.flush(timeout_s=LIMIT_S)
    seen.first_write_ok = {n: d.holding[10] for n, d in seen.devices.items()}
    adapter.events()
    for name, device in seen.devices.items():
        device.behaviour = behaviours[name]
    _misbehave(seen, adapter)
    for device in seen.devices.values():
        device.behaviour = None
    deadline_s = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline_s and not (
        all(r["temp_c"].quality is Quality.GOOD for r in adapter.latest().values())
        and all(seen.devices[n].holding[10] == 10 * SAFE_C for n in (*BAD_NAMES, *LATCHES))
    ):
        time.sleep(0.02)
    seen.recovered = {n: r["temp_c"].quality for n, r in adapter.latest().items()}
    seen.register_at_end = {n: d.holding[10] for n, d in seen.devices.items()}
    seen.events += adapter.events()
    seen.faults = adapter.faults()
    stop.set()
    start_s = time.monotonic()
    seen.all_safe = adapter.close()
    seen.close_s = time.monotonic() - start_s
    seen.audit = read_audit(audit)


def _misbehave(seen: Outcome, adapter: Adapter) -> None:
    """Command one new value, then look at every device until each has shown what it does."""
    before = {name: len(device.requests) for name, device in seen.devices.items()}
    for name in NAMES:
        adapter.command(name, "set_c", 27.0)
    deadline_s = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline_s:
        for name, points in adapter.latest().items():
            reading = points["temp_c"]
            seen.samples[name].add((round(reading.value, 6), reading.quality))
            seen.final[name] = reading.quality
        time.sleep(0.02)
        seen.events += adapter.events()
        made_safe = {e.device for e in seen.events if e.kind == "safe"}
        if (
            all(seen.final[n] is Quality.BAD and n in made_safe for n in BAD_NAMES)
            and all(n in adapter.faults() for n in LATCHES)
            and all(len(d.requests) - before[n] >= LEAST_REQUESTS for n, d in seen.devices.items())
        ):
            break


@pytest.mark.parametrize("name", NAMES)
def test_wrong_data_is_never_good(outcome: Outcome, name: str) -> None:
    good = {value for value, quality in outcome.samples[name] if quality is Quality.GOOD}
    assert good <= {TRUE_C}
    assert outcome.first_write_ok[name] == 260  # the honest phase before was a real one


@pytest.mark.parametrize("name", BAD_NAMES)
def test_what_cannot_be_trusted_is_bad_and_made_safe(outcome: Outcome, name: str) -> None:
    assert outcome.final[name] is Quality.BAD
    kinds = {e.kind for e in outcome.events if e.device == name}
    assert "safe" in kinds
    assert outcome.register_at_end[name] == 10 * SAFE_C  # seen from the device side


@pytest.mark.parametrize("name", ["split", "twice", "old_first"])
def test_what_is_only_odd_stays_good_and_is_commanded(outcome: Outcome, name: str) -> None:
    assert {quality for _, quality in outcome.samples[name]} == {Quality.GOOD}
    assert 270 in outcome.devices[name].written(10)


def test_every_third_reply_lost_is_never_bad(outcome: Outcome) -> None:
    assert Quality.BAD not in {q for _, q in outcome.samples["every_third_lost"]}
    assert "every_third_lost" not in outcome.faults


@pytest.mark.parametrize("name", sorted(LATCHES))
def test_a_write_that_is_not_verified_latches_a_fault(outcome: Outcome, name: str) -> None:
    assert "set_c" in outcome.faults[name]
    assert outcome.final[name] is Quality.GOOD  # its readings are true
    assert outcome.register_at_end[name] == 10 * SAFE_C


@pytest.mark.parametrize("name", NAMES)
def test_honest_again_is_good_again(outcome: Outcome, name: str) -> None:
    assert outcome.recovered[name] is Quality.GOOD


def test_no_hang_no_traceback(outcome: Outcome) -> None:
    assert [e for e in outcome.events if e.kind == "error"] == []
    assert [r.getMessage() for r in outcome.log] == []
    assert outcome.all_safe
    assert outcome.close_s < LIMIT_S
    assert [e for d in outcome.devices.values() for e in d.errors] == []
    assert {r["verdict"] for r in outcome.audit} <= {"written", "failed", "safe", "fault"}
