"""The whole writer in virtual time: a device ends where it should, or the adapter says why.

The event loop jumps from timer to timer, so a minute of a device takes milliseconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from hil.adapter.guard import Guard
from hil.adapter.reader import DeviceReader
from hil.adapter.writer import DeviceWriter
from hil.devices.errors import GuardError, LinkError, NoReplyError, RefusedError
from hil.devices.spec import DeviceSpec

MODE, SET, ON = 0, 1, 2
COMMAND, SAFE = 60, 5
POLL_S, QUIET_S = 2.0, 90.0


class VirtualLoop(asyncio.SelectorEventLoop):
    """Waits for nothing: where only timers are left, its clock moves to the next one."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0
        select = self._selector.select  # type: ignore[attr-defined]

        def jump(timeout: float | None = None) -> Any:
            self.now_s += timeout or 0.0
            return select(0)

        self._selector.select = jump  # type: ignore[attr-defined]

    def time(self) -> float:
        return self.now_s


class Device:
    """Registers behind a link that can be told to refuse, to be silent, to be away."""

    def __init__(self) -> None:
        self.holding = [0, 0, 0]
        self.errors: list[Exception] = []
        self.stats = SimpleNamespace(connects=1, last_error="")

    async def read(self, unit: int, table: str, address: int, count: int) -> bytes:
        await asyncio.sleep(0.01)
        return b"".join((w & 0xFFFF).to_bytes(2) for w in self.holding[address : address + count])

    async def write(self, unit: int, function: int, address: int, values: Sequence[int]) -> None:
        await asyncio.sleep(0.01)
        if self.errors:
            raise self.errors.pop(0)
        self.holding[address : address + len(values)] = values


def spec_of(on_change: str, around: bool) -> DeviceSpec:
    register = {"table": "holding", "type": "int16"}
    point: dict[str, Any] = {
        **register, "address": SET, "access": "rw", "min": -100, "max": 100, "safe_value": SAFE,
        "on_change": on_change,
    }  # fmt: skip
    if around:
        point["before"] = [{"point": "mode", "value": 2}]
        point["enable"] = [{"point": "on", "value": 1}]
    return DeviceSpec.model_validate(
        {
            "name": "d", "poll_s": POLL_S, "guard": {"heartbeat_s": 4.0},
            "points": {
                "mode": {**register, "address": MODE, "access": "guard"},
                "set_w": point,
                "on": {**register, "address": ON, "access": "guard"},
            },
        }
    )  # fmt: skip


WHAT = st.one_of(
    st.tuples(st.just("reboot"), st.just(0)),
    st.tuples(st.just("operator"), st.integers(-100, 100)),
    st.tuples(st.just("disabled"), st.just(0)),
    st.tuples(st.just("busy"), st.integers(1, 3)),
    st.tuples(st.just("refuse"), st.integers(1, 3)),
    st.tuples(st.just("silent"), st.integers(1, 3)),
    st.tuples(st.just("away"), st.integers(1, 3)),
    st.tuples(st.just("safe"), st.just(0)),
)
ERRORS = {
    "busy": RefusedError(6), "refuse": RefusedError(4), "silent": NoReplyError("no reply"),
    "away": LinkError("not connected"),
}  # fmt: skip


def happen(device: Device, writer: DeviceWriter, what: str, number: int) -> None:
    if what == "reboot":
        device.holding[:] = [0, 0, 0]
    elif what == "operator":
        device.holding[SET] = number
    elif what == "disabled":
        device.holding[ON] = 0
    elif what == "safe":
        writer.go_safe("a test")
    else:
        device.errors += [ERRORS[what]] * number


async def live(
    spec: DeviceSpec, events: list[tuple[float, tuple[str, int]]], *, commands_to_the_end: bool
) -> tuple[Device, DeviceWriter, list[str]]:
    device, said = Device(), []
    reader = DeviceReader(spec, device)  # type: ignore[arg-type]
    guard = Guard(spec, armed=True)
    audit = SimpleNamespace(record=lambda *_, **__: None)
    writer = DeviceWriter(
        reader, guard, audit, lambda _, kind, text: said.append(f"{kind}: {text}"), lambda: ""
    )  # type: ignore[arg-type]

    async def polling() -> None:
        while True:
            asked_s = time.monotonic()
            await reader.poll()
            writer.compare(asked_s)
            writer.upkeep(time.monotonic())
            await asyncio.sleep(POLL_S)

    async def commanding() -> None:
        while True:
            try:
                writer.put("set_w", guard.admit("set_w", COMMAND))
            except GuardError as error:
                said.append(f"refused: {error}")
            await asyncio.sleep(1.3)

    commands = asyncio.create_task(commanding())
    tasks = [commands, asyncio.create_task(polling()), asyncio.create_task(writer.run())]
    await asyncio.sleep(5.0)
    for pause_s, (what, number) in events:
        await asyncio.sleep(pause_s)
        happen(device, writer, what, number)
    if not commands_to_the_end:
        commands.cancel()
        writer.go_safe("the federation is gone")
    await asyncio.sleep(QUIET_S)
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(r, asyncio.CancelledError) for r in results), results
    return device, writer, said


@settings(max_examples=40)
@given(
    on_change=st.sampled_from(["rewrite", "hand_over", "fault"]),
    around=st.booleans(),
    events=st.lists(st.tuples(st.floats(0.0, 15.0), WHAT), max_size=6),
    commands_to_the_end=st.booleans(),
)
def test_law_a_device_ends_at_its_command_or_safe_or_handed_over_and_that_is_said(
    on_change: str,
    around: bool,
    events: list[tuple[float, tuple[str, int]]],
    commands_to_the_end: bool,
) -> None:
    loop = VirtualLoop()
    with patch("time.monotonic", loop.time):
        try:
            device, writer, said = loop.run_until_complete(
                live(spec_of(on_change, around), events, commands_to_the_end=commands_to_the_end)
            )
        finally:
            loop.close()
    wrong = f"{device.holding} {said[-6:]}"
    if writer.guard.handed_over:
        assert on_change == "hand_over"
        assert any("handed over" in text for text in said), wrong
        return
    if writer.guard.fault or not commands_to_the_end:
        assert device.holding[SET] == SAFE, wrong
        assert writer.is_safe, wrong
        assert not writer.guard.fault or any(t.startswith("fault: ") for t in said), wrong
    else:
        assert device.holding[SET] == COMMAND, wrong
        assert writer.not_commanded() == {}, wrong
    if around:
        assert device.holding[MODE] == 2, wrong
        assert device.holding[ON] == 1, wrong
