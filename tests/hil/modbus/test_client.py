"""One connection: what is written, back-off, pauses, late replies."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from hil.devices.errors import LinkError, NoReplyError, RefusedError, WrongReplyError
from hil.devices.spec import ConnectionSpec
from hil.modbus.client import ModbusClient

LIMIT_S = 60.0


def with_link(work: Callable[[ModbusClient], Awaitable[None]], **connection: Any) -> ModbusClient:
    async def run() -> ModbusClient:
        link = ModbusClient(ConnectionSpec(**connection))
        try:
            await work(link)
        finally:
            link.close()
            await asyncio.sleep(0)
        return link

    return asyncio.run(run())


def frame(tid: int, unit: int, pdu: bytes) -> bytes:
    return struct.pack(">HHHB", tid, 0, len(pdu) + 1, unit) + pdu


def test_every_function_reaches_the_device(raw_device: Any) -> None:
    async def work(link: ModbusClient) -> None:
        await link.write(1, 6, 5, [77])
        await link.write(1, 16, 6, [1, 2, 3])
        await link.write(1, 5, 9, [1])
        assert await link.read(1, "holding", 5, 4) == struct.pack(">4H", 77, 1, 2, 3)
        assert (await link.read(1, "coil", 8, 3))[0] == 0b010
        await link.write(1, 15, 10, [1, 0, 1])
        assert (await link.read(1, "coil", 8, 5))[0] == 0b10110
        raw_device.behaviour = lambda tid, unit, _, honest: [frame(tid, unit, b"\x8f\x01")]
        with pytest.raises(RefusedError, match="illegal function"):
            await link.write(1, 15, 9, [1, 0, 1])

    with_link(work, port=raw_device.port)
    assert raw_device.holding[5:9] == [77, 1, 2, 3]
    assert raw_device.coils[9] == 1


def test_requests_of_many_tasks_do_not_mix(raw_device: Any) -> None:
    raw_device.holding[:200] = list(range(200))

    async def work(link: ModbusClient) -> None:
        replies = await asyncio.gather(*(link.read(1, "holding", i, 1) for i in range(200)))
        assert [int.from_bytes(r, "big") for r in replies] == list(range(200))

    with_link(work, port=raw_device.port)
    assert raw_device.connections == 1


def test_late_reply_is_thrown_away_and_the_next_is_right(raw_device: Any) -> None:
    raw_device.holding[:2] = [111, 222]
    late = iter([True])

    def behave(tid: int, unit: int, asked: bytes, honest: bytes) -> list[Any]:
        return [0.15 if next(late, False) else 0.0, frame(tid, unit, honest)]

    raw_device.behaviour = behave

    async def work(link: ModbusClient) -> None:
        with pytest.raises(NoReplyError, match=r"no reply within 0\.1 s"):
            await link.read(1, "holding", 0, 1)
        assert await link.read(1, "holding", 1, 1) == b"\x00\xde"

    link = with_link(work, port=raw_device.port, timeout_s=0.1)
    assert link.stats.late_replies == 1
    assert raw_device.connections == 1


def test_a_late_reply_on_another_connection_is_thrown_away(raw_device: Any) -> None:
    """Transaction ids do not begin anew, so a gateway may send it there."""
    answers = iter([[b"nothing of Modbus"], [frame(1, 1, b"\x03\x02\x00\x63")]])
    raw_device.behaviour = lambda tid, unit, asked, honest: [
        *next(answers, []),
        frame(tid, unit, honest),
    ]

    async def work(link: ModbusClient) -> None:
        with pytest.raises(WrongReplyError):
            await link.read(1, "holding", 0, 1)
        assert await link.read(1, "holding", 0, 1) == b"\0\0"

    assert with_link(work, port=raw_device.port).stats.late_replies == 1


def test_silent_units_do_not_end_the_connection_of_those_that_answer(raw_device: Any) -> None:
    raw_device.behaviour = lambda tid, unit, asked, honest: (
        [frame(tid, unit, honest)] if unit == 1 else []
    )

    async def work(link: ModbusClient) -> None:
        for _ in range(2):
            await link.read(1, "holding", 0, 1)
            for unit in (2, 3):
                with pytest.raises(NoReplyError):
                    await link.read(unit, "holding", 0, 1)

    assert with_link(work, port=raw_device.port, timeout_s=0.05).stats.connects == 1


def test_a_write_goes_before_the_reads_that_wait(raw_device: Any) -> None:
    """A safe value must not wait until all devices behind a gateway were polled."""

    async def work(link: ModbusClient) -> None:
        await link.read(1, "holding", 0, 1)
        reads = [link.read(1, "holding", address, 1) for address in range(1, 6)]
        await asyncio.gather(*reads, link.write(1, 6, 40, [7]))

    with_link(work, port=raw_device.port)
    assert [pdu[0] for pdu in raw_device.requests] == [3, 3, 6, 3, 3, 3, 3]


def test_a_deadline_is_kept(raw_device: Any) -> None:
    raw_device.behaviour = lambda *_: []

    async def work(link: ModbusClient) -> None:
        start_s = time.perf_counter()
        with pytest.raises(NoReplyError, match=r"no reply within 0\.1 s"):
            await link.read(1, "holding", 0, 1)
        assert 0.1 <= time.perf_counter() - start_s < LIMIT_S

    with_link(work, port=raw_device.port, timeout_s=0.1)


def test_back_off_grows_up_to_the_cap(unused_port: int) -> None:
    """The clock is the test's. Tries at 0, 0 (no first wait), 0.1, 0.3, then every 0.3 s."""
    clock = [100.0]

    async def run() -> None:
        spec = ConnectionSpec(port=unused_port, reconnect_max_s=0.3, connect_timeout_s=60.0)
        link, tries = ModbusClient(spec, lambda: clock[0]), []
        for step in range(125):
            clock[0] = 100.0 + step / 100 + 0.001
            before = link.stats.failed_connects
            with pytest.raises(LinkError, match=r"cannot connect|next try in"):
                await link.read(1, "holding", 0, 1)
            tries += [step / 100] * (link.stats.failed_connects - before)
        assert tries == pytest.approx([0.0, 0.01, 0.11, 0.31, 0.61, 0.91, 1.21], abs=0.02)

    asyncio.run(run())


def test_pause_between_requests(raw_device: Any) -> None:
    async def work(link: ModbusClient) -> None:
        start_s = time.monotonic()
        for _ in range(5):
            await link.read(1, "holding", 0, 1)
        assert time.monotonic() - start_s >= 4 * 0.03

    with_link(work, port=raw_device.port, pause_s=0.03)


def test_the_pause_begins_with_the_reply(raw_device: Any) -> None:
    """The device is silent for 30 ms after each of its replies, which take 50 ms."""
    ends: list[float] = []

    def behave(tid: int, unit: int, asked: bytes, honest: bytes) -> list[Any]:
        early = bool(ends) and time.monotonic() - ends[-1] < 0.03
        ends.append(time.monotonic() + 0.05)
        return [] if early else [0.05, frame(tid, unit, honest)]

    raw_device.behaviour = behave

    async def work(link: ModbusClient) -> None:
        await asyncio.gather(*(link.read(1, "holding", i, 1) for i in range(4)))

    assert with_link(work, port=raw_device.port, pause_s=0.035).stats.replies == 4


def test_the_first_request_waits_for_the_device(raw_device: Any) -> None:
    async def work(link: ModbusClient) -> None:
        start_s = time.monotonic()
        await link.read(1, "holding", 0, 1)
        assert time.monotonic() - start_s >= 0.1

    with_link(work, port=raw_device.port, connect_delay_s=0.1)


def test_a_connection_that_is_given_up_before_its_first_request_is_closed(
    raw_device: Any,
) -> None:
    async def work(link: ModbusClient) -> None:
        task = asyncio.create_task(link.read(1, "holding", 0, 1))
        while not raw_device.connections:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        async with asyncio.timeout(LIMIT_S):
            while raw_device._writers:
                await asyncio.sleep(0.01)

    with_link(work, port=raw_device.port, connect_delay_s=60.0)
    assert (raw_device.connections, raw_device.requests) == (1, [])


@pytest.mark.parametrize("code", [0, 7, 0x80, 0xFF])
def test_an_unknown_exception_code_is_a_refusal_and_keeps_the_link(
    raw_device: Any, code: int
) -> None:
    raw_device.behaviour = lambda tid, unit, asked, _: [frame(tid, unit, bytes((0x83, code)))]

    async def work(link: ModbusClient) -> None:
        for _ in range(2):
            with pytest.raises(RefusedError, match=f"exception {code} "):
                await link.read(1, "holding", 0, 1)
        assert link.connected

    assert with_link(work, port=raw_device.port).stats.connects == 1


@pytest.mark.parametrize(
    ("allowed", "fits"), [(None, False), (255, True), (7, False), ("any", True)]
)
def test_a_tolerated_unit_in_replies(raw_device: Any, allowed: Any, fits: bool) -> None:
    raw_device.behaviour = lambda tid, unit, asked, honest: [frame(tid, 255, honest)]

    async def work(link: ModbusClient) -> None:
        if fits:
            assert await link.read(1, "holding", 0, 1) == b"\0\0"
        else:
            with pytest.raises(WrongReplyError, match="unit 255 answered"):
                await link.read(1, "holding", 0, 1)

    with_link(work, port=raw_device.port, reply_unit=allowed)


def test_a_connection_that_is_closed_after_each_poll(raw_device: Any) -> None:
    async def work(link: ModbusClient) -> None:
        for _ in range(2):
            await link.read(1, "holding", 0, 1)
            link.poll_done()
            assert not link.connected

    with_link(work, port=raw_device.port, close_after_poll=True)
    assert raw_device.connections == 2


def test_after_a_wrong_reply_the_connection_is_made_anew(raw_device: Any) -> None:
    wrong = iter([True])

    def behave(tid: int, unit: int, asked: bytes, honest: bytes) -> list[Any]:
        return [frame(0 if next(wrong, False) else tid, unit, honest)]

    raw_device.behaviour = behave

    async def work(link: ModbusClient) -> None:
        with pytest.raises(WrongReplyError, match="transaction 0 was never asked"):
            await link.read(1, "holding", 0, 1)
        assert not link.connected
        assert await link.read(1, "holding", 0, 1) == b"\0\0"

    link = with_link(work, port=raw_device.port)
    assert (link.stats.wrong_replies, raw_device.connections) == (1, 2)


def test_a_cancelled_request_leaves_the_link_usable(raw_device: Any) -> None:
    async def work(link: ModbusClient) -> None:
        await link.read(1, "holding", 0, 1)
        raw_device.behaviour = lambda *_: []
        task = asyncio.create_task(link.read(1, "holding", 0, 1))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        raw_device.behaviour = None
        assert await link.read(1, "holding", 0, 1) == b"\0\0"

    with_link(work, port=raw_device.port)
