"""What the adapter does about a device that does not keep, or does not take, what it was sent."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from hil.adapter.adapter import Adapter
from hil.adapter.audit import read_audit
from hil.devices.errors import GuardError
from hil.devices.spec import DeviceSpec

SET, MODE, TIMER, ON, OTHER, BITS = 10, 9, 20, 11, 12, 30
POINTS: dict[str, Any] = {
    "set_w": {
        "table": "holding", "address": SET, "type": "int16", "access": "rw",
        "min": -100, "max": 100, "safe_value": 0,
    },
    "mode": {"table": "holding", "address": MODE, "type": "uint16", "access": "guard"},
    "timer": {"table": "holding", "address": TIMER, "type": "uint16", "access": "guard"},
    "on": {"table": "holding", "address": ON, "type": "uint16", "access": "guard"},
}  # fmt: skip
AROUND = {
    "before": [{"point": "mode", "value": 2}],
    "enable": [{"point": "on", "value": 1}],
    "reversion": {"point": "timer", "seconds": 60},
}


class Bench:
    """An armed adapter on the raw device, and what it said."""

    def __init__(self, device: Any, folder: Path, until: Callable[..., bool]) -> None:
        self.device, self.audit, self.until = device, folder / "audit.jsonl", until
        self.said: list[Any] = []

    def start(self, guard: dict[str, Any] | None = None, **points: Any) -> Adapter:
        set_w = POINTS["set_w"] | points.pop("set_w", {})
        spec = DeviceSpec.model_validate(
            {
                "name": "d", "poll_s": 0.05, "points": POINTS | {"set_w": set_w} | points,
                "connection": {"port": self.device.port, "timeout_s": 2.0},
                "guard": {"heartbeat_s": 60.0} | (guard or {}),
            }
        )  # fmt: skip
        self.adapter = Adapter([spec], armed={"d"}, audit=self.audit, watchdog=False)
        self.adapter.start(wait_s=60.0)
        self.adapter.heartbeat()
        return self.adapter

    def command(self, value: float, point: str = "set_w") -> None:
        self.adapter.command("d", point, value)
        assert self.adapter.flush(timeout_s=60.0)

    def kinds(self) -> list[str]:
        self.said += self.adapter.events()
        return [event.kind for event in self.said]

    def texts(self, kind: str) -> list[str]:
        self.kinds()
        return [event.text for event in self.said if event.kind == kind]

    def wait(self, kind: str, times: int = 1) -> None:
        assert self.until(lambda: self.kinds().count(kind) >= times), self.said


@pytest.fixture
def bench(raw_device: Any, tmp_path: Path, until: Callable[..., bool]) -> Iterator[Bench]:
    bench = Bench(raw_device, tmp_path, until)
    yield bench
    bench.adapter.close()


def test_after_a_reboot_the_whole_set_point_is_written_again(bench: Bench) -> None:
    bench.start(set_w=AROUND)
    bench.command(60)
    bench.device.holding[MODE : ON + 1] = [0, 0, 0]
    assert bench.until(lambda: bench.device.holding[MODE : ON + 1] == [2, 60, 1])
    order = [address for _, _, address, _ in bench.device.writes]
    assert order == [TIMER, MODE, SET, ON] * 2
    assert bench.texts("changed") == ["set_w reads 0, sent was 60: written again"]
    (line,) = [r for r in read_audit(bench.audit) if r["verdict"] == "changed"]
    assert (line["point"], line["sent"], line["read_back"]) == ("set_w", 60.0, 0.0)
    assert bench.adapter.faults() == {}


def test_a_lost_enable_is_a_lost_set_point(bench: Bench) -> None:
    """What a SunSpec device does when its timer ends: the set-point stays, its enable falls."""
    adapter = bench.start(set_w=AROUND)
    bench.command(60)
    adapter.poll(timeout_s=60.0)  # it was seen
    bench.device.holding[ON] = 0
    assert bench.until(lambda: bench.device.holding[ON] == 1)
    assert bench.texts("changed") == ["on (of set_w) reads 0, sent was 1: written again"]


def test_a_point_that_is_handed_over_is_left_to_its_new_master(bench: Bench) -> None:
    adapter = bench.start(set_w={"on_change": "hand_over"})
    bench.command(60)
    bench.device.holding[SET] = 7
    bench.wait("changed")
    with pytest.raises(GuardError, match="handed over: set_w reads 7, sent was 60"):
        adapter.command("d", "set_w", 50)
    assert list(adapter.not_commanded()) == [("d", "set_w")]
    adapter.safe_state("a test")
    assert bench.until(lambda: adapter.safe_devices()["d"])
    assert bench.device.holding[SET] == 7
    assert "left" in {r["verdict"] for r in read_audit(bench.audit)}
    adapter.reset_fault("d")
    assert bench.until(lambda: not adapter.not_commanded())
    bench.command(50)
    assert bench.device.holding[SET] == 50


def test_a_change_can_latch_a_fault(bench: Bench) -> None:
    adapter = bench.start(set_w={"on_change": "fault"})
    bench.command(60)
    bench.device.holding[SET] = 7
    bench.wait("fault")
    assert bench.until(lambda: bench.device.holding[SET] == 0)
    assert "set_w reads 7, sent was 60" in adapter.faults()["d"]


def test_a_second_master_latches_a_fault_and_the_safe_value_is_kept_up(bench: Bench) -> None:
    adapter = bench.start(set_w={"poll_s": 0.05})
    bench.command(60)
    master = 7

    def fight() -> bool:
        # Only after the adapter has read its own value back, or it is that which fails.
        read_back = bench.device.requests[-1][:1] == b"\x03"
        if read_back and bench.device.holding[SET] == 60:
            bench.device.holding[SET] = master
        return bool(adapter.faults())

    assert bench.until(fight)
    assert "a second master commands it" in adapter.faults()["d"]
    assert bench.until(lambda: bench.device.holding[SET] == 0)
    assert bench.until(lambda: adapter.safe_devices()["d"])
    bench.device.holding[SET] = master
    assert bench.until(lambda: bench.device.holding[SET] == 0)
    assert "set_w reads 7, sent was 0: made safe again" in bench.texts("changed")


def test_a_refused_command_and_the_end_write_nothing_at_all(bench: Bench) -> None:
    adapter = bench.start(set_w={"on_limit": "refuse"})
    bench.device.holding[SET] = 33
    bench.command(1000)
    with pytest.raises(GuardError):
        adapter.command("d", "mode", 1)
    assert adapter.close()
    assert bench.device.writes == []
    assert bench.device.holding[SET] == 33
    assert [t for t in bench.texts("left") if "never commanded, left as it is" in t]
    assert {r["verdict"] for r in read_audit(bench.audit)} == {"refused", "left"}


def refusing(code: int, count: int) -> Callable[..., list[Any]]:
    """Refuse the next writes."""
    left = [count]

    def answer(tid: int, unit: int, asked: bytes, honest: bytes) -> list[Any]:
        if asked[0] in (6, 16) and left[0] > 0:
            left[0] -= 1
            honest = bytes([asked[0] | 0x80, code])
        return [struct.pack(">HHHB", tid, 0, len(honest) + 1, unit) + honest]

    return answer


@pytest.mark.parametrize("code", [5, 6])
def test_not_now_puts_a_command_off_and_latches_nothing(bench: Bench, code: int) -> None:
    adapter = bench.start()
    bench.device.behaviour = refusing(code, 2)  # two wrong answers would latch
    adapter.command("d", "set_w", 60)
    bench.wait("delayed")
    assert list(adapter.not_commanded()) == [("d", "set_w")]
    assert adapter.flush(timeout_s=60.0)
    assert adapter.not_commanded() == {}
    assert bench.device.written(SET)[-1] == 60
    assert adapter.faults() == {}
    first, last = bench.texts("delayed")
    assert "set_w is not at its set-point 60: the device refused with exception" in first
    assert "set_w = 60: written after" in last
    verdicts = [r["verdict"] for r in read_audit(bench.audit)]
    assert verdicts == ["failed"] * 2 + ["written"]


def test_no_for_good_still_latches(bench: Bench) -> None:
    adapter = bench.start()
    bench.device.behaviour = refusing(4, 2)
    bench.command(60)
    assert "exception 4" in adapter.faults()["d"]


def test_safe_writes_back_off_and_never_end(bench: Bench) -> None:
    adapter = bench.start()
    bench.command(60)
    bench.device.behaviour = refusing(4, 2)
    adapter.safe_state("a test")
    assert bench.until(lambda: adapter.safe_devices()["d"])
    times = [t for t, _, a, v in bench.device.writes if (a, v) == (SET, [0])]
    first, second = (b - a for a, b in pairwise(times))
    assert first > 0.24
    assert second > 0.49


def test_a_set_point_is_refreshed_though_nothing_changed(bench: Bench) -> None:
    bench.start(set_w={"rewrite_s": 0.1}, guard={"heartbeat_s": 0.8, "input_timeout_s": 600})
    bench.command(60)

    def refreshed() -> bool:
        bench.adapter.heartbeat()
        return len(bench.device.written(SET)) >= 4

    assert bench.until(refreshed)
    assert set(bench.device.written(SET)) == {60}
    refreshes = [r for r in read_audit(bench.audit) if r["why"] == "refresh"]
    assert {r["verdict"] for r in refreshes} == {"written"}


@pytest.mark.parametrize("point", [{"readback": False}, {"write_only": True}])
def test_without_a_read_back_the_echo_counts_and_the_audit_log_says_so(
    bench: Bench, point: dict[str, Any]
) -> None:
    adapter = bench.start(set_w=point | {"poll_s": 1000})
    bench.device.requests.clear()
    bench.command(60)
    assert not [r for r in bench.device.requests if r[:3] == struct.pack(">BH", 3, SET)]
    assert adapter.close()
    written, safe = (r for r in read_audit(bench.audit) if r["point"] == "set_w")
    assert written["why"] == "command, verified by the echo only"
    assert safe["why"] == "safe state (the adapter closes, verified by the echo only)"


def test_bits_of_a_register_leave_the_others_alone(bench: Bench) -> None:
    bits = {"table": "holding", "address": BITS, "type": "uint16"}
    adapter = bench.start(
        pair={**bits, "mask": 0x00F0, "access": "rw", "min": 0, "max": 15, "safe_value": 1},
        flag={**bits, "mask": 0x0001, "access": "guard"},
        guard={"heartbeat_s": 0.8, "heartbeat_point": "flag"},
    )
    bench.device.holding[BITS] = 0xA00A
    bench.command(9, "pair")
    assert bench.device.holding[BITS] | 1 == 0xA09B
    plan = adapter._core.writers["d"].safe_plan()
    assert plan[-1] == {
        "function": 6, "address": BITS, "registers": [0x0010], "mask": 0x00F0,
        "point": "pair", "value": 1.0, "of": "pair", "check": None,
    }  # fmt: skip

    def toggled() -> bool:
        adapter.heartbeat()
        return len({value & 1 for value in bench.device.written(BITS)}) == 2

    assert bench.until(toggled)
    assert {value & ~1 for value in bench.device.written(BITS)[1:]} <= {0xA09A, 0xA00A}
    assert adapter.close()
    assert bench.device.holding[BITS] & ~1 == 0xA01A


def test_one_request_holds_mode_set_point_and_enable(bench: Bench) -> None:
    adapter = bench.start(set_w={**AROUND, "reversion": None, "one_request": True})
    bench.command(-60)
    assert [w[1:] for w in bench.device.writes] == [(16, MODE, [2, 0x10000 - 60, 1])]
    assert adapter._core.writers["d"].safe_plan() == [
        {
            "function": 16, "address": MODE, "registers": [2, 0, 1], "mask": None,
            "point": "set_w", "value": 0.0, "of": "set_w",
            "check": {
                "function": 3, "address": MODE + 1, "count": 1, "format": ">h",
                "low": pytest.approx(0, abs=1e-6), "high": pytest.approx(0, abs=1e-6),
                "delay_s": 0.0, "reversion_s": 0.0,
            },
        }
    ]  # fmt: skip
    assert adapter.close()
    assert bench.device.holding[MODE : ON + 1] == [2, 0, 1]


def test_coils_go_out_in_one_request_too(bench: Bench) -> None:
    coil = {"table": "coil", "type": "bool"}
    bench.start(
        relay={
            **coil, "address": 5, "access": "rw", "min": 0, "max": 1, "safe_value": 0,
            "before": [{"point": "key", "value": 1}], "one_request": True,
        },
        key={**coil, "address": 4, "access": "guard"},
    )  # fmt: skip
    bench.command(1, "relay")
    assert [w[1:] for w in bench.device.writes] == [(15, 4, [1, 1])]


def test_the_safe_state_can_hand_control_back(bench: Bench) -> None:
    release = {"safe_value": None, "release": [{"point": "mode", "value": 0}]}
    adapter = bench.start(set_w={**AROUND, **release})
    bench.command(60)
    assert adapter._core.writers["d"].safe_plan() == [
        {
            "function": 6, "address": MODE, "registers": [0], "mask": None,
            "point": "mode", "value": 0.0, "of": "set_w",
            "check": {
                "function": 3, "address": MODE, "count": 1, "format": ">H",
                "low": pytest.approx(0, abs=1e-6), "high": pytest.approx(0, abs=1e-6),
                "delay_s": 0.0, "reversion_s": 0.0,
            },
        }
    ]  # fmt: skip
    assert adapter.close()
    assert bench.device.holding[MODE : ON + 1] == [0, 60, 1]
    assert "control handed back to the device" in read_audit(bench.audit)[-1]["why"]


def test_words_that_are_apart_are_written_one_by_one(bench: Bench) -> None:
    bench.start(
        wide={
            "table": "holding", "word_addresses": [40, 45], "type": "int32", "access": "rw",
            "min": -1e5, "max": 1e5, "safe_value": 0,
        }
    )  # fmt: skip
    bench.command(70_000, "wide")
    assert [w[2:] for w in bench.device.writes] == [(40, [1]), (45, [70_000 - 65_536])]


@pytest.mark.parametrize(
    ("point", "given", "expected"),
    [
        ({"table": "coil", "type": "bool"}, None, [0, 1, 0, 1]),
        ({"type": "uint16", "min": 1, "max": 3}, None, [1, 2, 3, 1]),
        ({"type": "int16"}, [32766, 32767], [32766, 32767, 32766]),
        ({"type": "uint8", "mask": 0xFF00}, [254, 255], [0xFE00, 0xFF00, 0xFE00]),
    ],
)
def test_the_heartbeat_stays_in_its_range(
    bench: Bench, point: dict[str, Any], given: Any, expected: list[int]
) -> None:
    adapter = bench.start(
        hb={"table": "holding", "address": BITS, "access": "guard", **point},
        guard={"heartbeat_s": 0.4, "heartbeat_point": "hb", "heartbeat_range": given},
    )

    def beaten() -> bool:
        adapter.heartbeat()
        return len(bench.device.written(BITS)) >= len(expected)

    assert bench.until(beaten)
    assert bench.device.written(BITS)[: len(expected)] == expected
    assert bench.texts("failed") == []
