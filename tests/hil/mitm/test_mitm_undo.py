"""What an attack has written is given back, also to a device that is busy, slow or silent."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyModbusTCP.client import ModbusClient

from federates.attacks.modbus.layer import ModbusPlan
from federates.attacks.modbus.wire import ModbusWire
from federates.cli import call
from federates.commands.mitm import mitm_command
from federates.core.run_store import RunStore
from federates.errors import RunError
from federates.scenario.attack_schedule import AttackSchedule
from federates.scenario.sections import Record
from grid_models.base.yaml_lines import yaml_text
from hil.devices.places import Place
from hil.devices.spec import DeviceSpec
from hil.mitm.attack import Conversation, DeviceAttack
from hil.mitm.proxy import MitmProxy, MitmTarget
from hil.mitm.rules import DelayRule, FrameRule, RewriteRule, Unrestored, WirePoint, WriteRule
from hil.modbus.frames import frame

OFF = float("nan")
AT = 10
POINT = WirePoint(Place("holding", AT, "uint16", 1, "big", 1.0, 0.0, None), function=6)
LIMIT = WriteRule(0, name="limit", point="p", value=20.0)


@contextmanager
def standing_before(port: int, rules: Sequence[FrameRule]) -> Iterator[MitmProxy]:
    n_steps = max(rule.step for rule in rules) + 1
    with MitmProxy([MitmTarget("d", "127.0.0.1", port, 1, rules)], n_steps=n_steps) as proxy:
        proxy.learn("d", {"p": POINT})
        yield proxy


def on(proxy: MitmProxy, *steps: int) -> None:
    elapsed = np.full(len(proxy._active), OFF)
    elapsed[list(steps)] = 0.0
    proxy.set_active(elapsed, 0.0)


def busy(tid: int, unit: int, pdu: bytes, honest: bytes) -> list[Any]:
    return [frame(tid, unit, bytes([pdu[0] | 0x80, 6]))]


def mute(tid: int, unit: int, pdu: bytes, honest: bytes) -> list[Any]:
    return []


class Unwilling:
    """Answers honestly, but does not write while `behaviour` is set."""

    def __init__(self, device: Any) -> None:
        self.device = device
        honest = device.answer

        def answer(pdu: bytes) -> bytes:
            refuses = device.behaviour in (busy, mute) and pdu[0] in (5, 6, 15, 16)
            return b"" if refuses else bytes(honest(pdu))

        device.answer = answer


@pytest.fixture
def short_last_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that never takes a value back is asked for half a second when the proxy closes."""
    monkeypatch.setattr("hil.mitm.target._LAST_TRIES_S", 0.5)


@pytest.mark.parametrize("trouble", [busy, mute])
def test_it_is_tried_again_until_the_device_has_it_back(
    raw_device: Any, until: Callable[..., bool], trouble: Any
) -> None:
    Unwilling(raw_device)
    raw_device.holding[AT] = 100
    with standing_before(raw_device.port, [LIMIT]) as proxy:
        on(proxy, 0)
        assert raw_device.holding[AT] == 20
        assert proxy.unrestored() == []
        raw_device.behaviour = trouble
        on(proxy)
        assert raw_device.holding[AT] == 20
        assert proxy.unrestored() == [Unrestored("d", "p", 100.0, 0)]
        raw_device.behaviour = None
        assert until(lambda: raw_device.holding[AT] == 100)
        assert until(lambda: proxy.unrestored() == [])


@pytest.mark.parametrize("trouble", [busy, mute])
def test_closing_waits_a_while_for_it(raw_device: Any, trouble: Any) -> None:
    Unwilling(raw_device)
    raw_device.holding[AT] = 100
    with standing_before(raw_device.port, [LIMIT]) as proxy:
        on(proxy, 0)
        raw_device.behaviour = trouble
        on(proxy)
        raw_device.behaviour = None
    assert raw_device.holding[AT] == 100
    assert proxy.unrestored() == []


@pytest.mark.parametrize("trouble", [busy, mute])
def test_what_is_never_given_back_is_known_after_closing(
    raw_device: Any, trouble: Any, short_last_tries: None
) -> None:
    Unwilling(raw_device)
    raw_device.holding[AT] = 100
    with standing_before(raw_device.port, [LIMIT]) as proxy:
        on(proxy, 0)
        raw_device.behaviour = trouble
    assert proxy.unrestored() == [Unrestored("d", "p", 100.0, 0)]


def test_a_silent_device_keeps_no_other_step_from_being_undone(
    make_raw_device: Callable[..., Any],
) -> None:
    """One answers nothing at the end of eight steps, the other all."""
    silent, good = make_raw_device(), make_raw_device()
    Unwilling(silent)
    rules = [WriteRule(i, point=f"p{i}", value=20.0) for i in range(8)]
    points = {
        f"p{i}": WirePoint(Place("holding", i, "uint16", 1, "big", 1.0, 0.0, None), function=6)
        for i in range(8)
    }
    targets = [
        MitmTarget(name, "127.0.0.1", device.port, 1, rules)
        for name, device in (("silent", silent), ("good", good))
    ]
    with MitmProxy(targets, n_steps=8) as proxy:
        for name in ("silent", "good"):
            proxy.learn(name, points)
        on(proxy, *range(8))
        assert silent.holding[:8] == good.holding[:8] == [20] * 8
        silent.behaviour = mute
        on(proxy)
        assert good.holding[:8] == [0] * 8
        assert len(proxy.unrestored()) == 8
        silent.behaviour = None
    assert silent.holding[:8] == [0] * 8


def test_a_write_that_nobody_confirmed_is_undone_and_recorded(
    raw_device: Any, until: Callable[..., bool]
) -> None:
    """The device writes, and says so when nobody waits for it any more."""
    raw_device.holding[AT] = 100

    def late(tid: int, unit: int, pdu: bytes, honest: bytes) -> list[Any]:
        return [1.5, frame(tid, unit, honest)] if pdu[0] == 6 else [frame(tid, unit, honest)]

    raw_device.behaviour = late
    with standing_before(raw_device.port, [LIMIT]) as proxy:
        on(proxy, 0)
        assert raw_device.holding[AT] == 20
        assert [(f.true, f.seen) for f in proxy.drain()] == [(100.0, 20.0)]
        on(proxy)
        assert until(lambda: raw_device.holding[AT] == 100)
        raw_device.behaviour = None
    assert proxy.unrestored() == []


def test_a_write_that_the_device_refused_is_not_undone(raw_device: Any) -> None:
    Unwilling(raw_device)
    raw_device.holding[AT] = 100

    def read_only(tid: int, unit: int, pdu: bytes, honest: bytes) -> list[Any]:
        refusal = bytes([pdu[0] | 0x80, 2])
        return [frame(tid, unit, refusal if pdu[0] == 6 else honest)]

    raw_device.behaviour = read_only
    answer = raw_device.answer
    raw_device.answer = lambda pdu: b"\x06" if pdu[0] == 6 else answer(pdu)
    with standing_before(raw_device.port, [LIMIT]) as proxy:
        on(proxy, 0)
        on(proxy)
        assert proxy.unrestored() == []
        assert proxy.drain() == []


def test_a_step_that_follows_gives_back_what_was_there_before_both(raw_device: Any) -> None:
    """The first is still unrestored when the second reads what is there."""
    Unwilling(raw_device)
    raw_device.holding[AT] = 100
    rules = [LIMIT, WriteRule(1, name="more", point="p", value=30.0)]
    with standing_before(raw_device.port, rules) as proxy:
        on(proxy, 0)
        refused = []

        def once(tid: int, unit: int, pdu: bytes, honest: bytes) -> list[Any]:
            if pdu[0] == 6 and not refused:
                refused.append(pdu)
                raw_device.holding[AT] = 20
                return busy(tid, unit, pdu, honest)
            return [frame(tid, unit, honest)]

        raw_device.behaviour = once
        on(proxy, 1)
        assert refused
        assert raw_device.holding[AT] == 30
        assert proxy.unrestored() == []
        on(proxy)
        assert raw_device.holding[AT] == 100


def test_a_writer_that_comes_first_settles_the_debt(raw_device: Any) -> None:
    """Its new value is not overwritten by what was there before the attack."""
    Unwilling(raw_device)
    raw_device.holding[AT] = 100
    with standing_before(raw_device.port, [LIMIT]) as proxy:
        client = ModbusClient("127.0.0.1", proxy.places["d"][1], auto_close=True)
        on(proxy, 0)
        raw_device.behaviour = mute
        on(proxy)
        raw_device.behaviour = None
        assert client.write_single_register(AT, 55)
        assert proxy.unrestored() == []
    assert raw_device.holding[AT] == 55


def test_a_forged_write_that_arrives_after_its_step_is_undone(
    raw_device: Any, until: Callable[..., bool]
) -> None:
    """Held back by the same attack until its step was over."""
    rules = [RewriteRule(0, point="p", direction="write", value=7.0), DelayRule(0, delay_s=0.4)]
    with (
        standing_before(raw_device.port, rules) as proxy,
        socket.create_connection(proxy.places["d"]) as sock,
    ):
        on(proxy, 0)
        sock.sendall(frame(1, 1, struct.pack(">BHH", 6, AT, 50)))
        time.sleep(0.1)
        on(proxy)
        assert until(lambda: 7 in raw_device.written(AT))
        assert until(lambda: raw_device.holding[AT] == 50)
        assert until(lambda: proxy.unrestored() == [])


# -- the books, without sockets ----------------------------------------------------------------


def conversation(*rules: FrameRule) -> tuple[DeviceAttack, Conversation]:
    attack = DeviceAttack("d", 1, rules)
    attack.points = {"p": POINT}
    return attack, Conversation(attack)


def write(tid: int, value: int) -> bytes:
    return frame(tid, 1, struct.pack(">BHH", 6, AT, value))


def refusal(tid: int) -> bytes:
    return frame(tid, 1, b"\x86\x06")


def test_a_forged_write_without_an_answer_is_owed() -> None:
    attack, talk = conversation(RewriteRule(0, point="p", direction="write", value=7.0))
    attack.switch(frozenset({0}))
    talk.from_client(write(1, 50))
    attack.switch(frozenset())
    assert attack.all_unrestored() == [Unrestored("d", "p", 50.0, 0)]


def test_a_refused_write_leaves_the_books_as_they_were() -> None:
    attack, talk = conversation(RewriteRule(0, point="p", direction="write", value=7.0))
    attack.switch(frozenset({0}))
    talk.from_client(write(1, 50))
    talk.from_device(write(1, 7))
    talk.from_client(write(2, 60))
    talk.from_device(refusal(2))
    attack.switch(frozenset())
    assert attack.all_unrestored() == [Unrestored("d", "p", 50.0, 0)]
    talk.from_client(write(3, 70))  # not forged any more
    talk.from_device(refusal(3))
    assert attack.all_unrestored() == [Unrestored("d", "p", 50.0, 0)]
    talk.from_client(write(4, 80))
    talk.from_device(write(4, 80))
    assert attack.all_unrestored() == []


def test_a_step_that_begins_again_takes_its_debt_with_it() -> None:
    attack, talk = conversation(RewriteRule(0, point="p", direction="write", value=7.0))
    attack.switch(frozenset({0}))
    talk.from_client(write(1, 50))
    talk.from_device(write(1, 7))
    attack.switch(frozenset())
    attack.switch(frozenset({0}))
    assert attack.all_unrestored() == []
    attack.switch(frozenset())
    assert attack.all_unrestored() == [Unrestored("d", "p", 50.0, 0)]


# -- who is told -------------------------------------------------------------------------------


def device_spec(port: int) -> DeviceSpec:
    return DeviceSpec.model_validate(spec_data(port))


def spec_data(port: int) -> dict[str, Any]:
    point = {"table": "holding", "address": AT, "type": "uint16", "access": "rw"}
    return {
        "name": "d",
        "connection": {"port": port, "timeout_s": 0.4},
        "poll_s": 60,
        "guard": {"input_timeout_s": 60},
        "points": {"p": {**point, "min": 0, "max": 1000, "safe_value": 0}},
    }


@pytest.mark.parametrize("comes_back", [True, False])
def test_a_run_tells_what_waits_and_what_remains(
    raw_device: Any, tmp_path: Path, until: Callable[..., bool], comes_back: bool,
    short_last_tries: None,
) -> None:  # fmt: skip
    Unwilling(raw_device)
    raw_device.holding[AT] = 100
    schedule = AttackSchedule(("limit",), (0.0,), (10.0,), (False,), ())
    store = RunStore(tmp_path, Record())
    wire = ModbusWire("bench", ModbusPlan(schedule, 0, {"d": [LIMIT]}, announces=(0,)), store)
    wire.start_proxies([device_spec(raw_device.port)])
    (proxy, _) = wire._proxies[0]
    proxy.learn("d", {"p": POINT})
    wire.begin_step(0.0, {})
    wire.end_step(0.0)
    raw_device.behaviour = mute
    wire.begin_step(10.0, {})
    wire.end_step(10.0)
    if comes_back:
        raw_device.behaviour = None
        assert until(lambda: proxy.unrestored() == [])
    wire.begin_step(20.0, {})
    wire.end_step(20.0)
    wire.stop()
    wire.close()
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    told = [(e["event"], e["time_s"]) for e in events if "und" in e["event"]]
    last = ("attack_undone", 20.0) if comes_back else ("attack_not_undone", None)
    assert told == [("attack_undo_waits", 10.0), last]
    (waits,) = (e for e in events if e["event"] == "attack_undo_waits")
    assert {k: waits[k] for k in ("step", "device", "point", "value")} == {
        "step": "limit", "device": "d", "point": "p", "value": 100.0,
    }  # fmt: skip


def attack_files(tmp_path: Path, port: int) -> dict[str, str]:
    device, attack = tmp_path / "d.yaml", tmp_path / "attack.yaml"
    device.write_text(yaml_text(spec_data(port)))
    step = {
        "id": "limit",
        "layer": "modbus",
        "trigger": {"at_s": 0},
        "target": {"devices": ["d", "another"]},
        "action": {"kind": "write", "point": "p", "value": 20},
    }
    attack.write_text(yaml_text({"id": "bench", "steps": [step]}))
    return {"file": str(attack), "device": str(device)}


def test_the_command_says_that_something_is_left_behind(
    raw_device: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], short_last_tries: None
) -> None:
    Unwilling(raw_device)
    raw_device.holding[AT] = 100
    words = attack_files(tmp_path, raw_device.port)

    def silent_once_written(tid: int, unit: int, pdu: bytes, honest: bytes) -> list[Any]:
        if pdu[0] == 6:
            raw_device.behaviour = busy
        return [frame(tid, unit, honest)]

    raw_device.behaviour = silent_once_written
    with pytest.raises(RunError) as caught:
        mitm_command(words["file"], listen="127.0.0.1:0", device=words["device"], duration_s=0.3)
    assert str(caught.value) == (
        "device 'd': what the attack wrote is not undone, the device did not acknowledge it: "
        "p should be 100 again"
    )
    assert "undone" not in capsys.readouterr().out
    assert raw_device.holding[AT] == 20
    raw_device.holding[AT], raw_device.behaviour = 100, silent_once_written
    arguments = ["attack", "mitm", words["file"], "--device", words["device"], "--duration", "0.3"]
    assert call(arguments) == 3


def test_an_attack_on_several_devices_is_carried_out_on_the_one_that_is_there(
    raw_device: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = attack_files(tmp_path, raw_device.port)
    mitm_command(words["file"], listen="127.0.0.1:0", device=words["device"], duration_s=0.2)
    assert "over; what the attack wrote itself is undone" in capsys.readouterr().out
    assert raw_device.written(AT) == [20, 0]
