"""The server on real sockets: pipelining, slow and hostile clients, faults, TLS roles."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Sequence

import pytest

from hil.devices.errors import ServerError
from hil.servers.faults import Faults
from hil.servers.pdu import Table
from hil.servers.tcp import ModbusTcpServer, ServerLimits

READ = bytes.fromhex("0300000004")
WRITE = bytes.fromhex("0600010007")


class Ramp:
    """Register i holds i."""

    def __init__(self) -> None:
        self.written: list[tuple[int, list[int]]] = []

    def read(self, table: Table, start: int, count: int) -> Sequence[int]:
        return range(start, start + count)

    def write(self, table: Table, start: int, values: Sequence[int]) -> None:
        self.written.append((start, list(values)))


def frame(transaction: int, pdu: bytes, unit: int = 1) -> bytes:
    return struct.pack(">HHHB", transaction, 0, len(pdu) + 1, unit) + pdu


async def exchange(port: int, data: bytes, size: int = 4096, wait_s: float = 0.3) -> bytes:
    """Send, and return what comes until `size` bytes, the end, or a pause."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    got = b""
    try:
        while len(got) < size:
            more = await asyncio.wait_for(reader.read(4096), wait_s)
            if not more:
                return got + b"<end>"
            got += more
    except TimeoutError:
        pass
    except ConnectionResetError:
        got += b"<reset>"
    finally:
        writer.close()
    return got


def with_server(
    test: Callable[[ModbusTcpServer], Awaitable[None]],
    faults: str = "none",
    limits: ServerLimits | None = None,
) -> None:
    async def main() -> None:
        server = ModbusTcpServer(
            {1: Ramp()}, faults=Faults.parse(faults), limits=limits or ServerLimits()
        )
        await server.start()
        try:
            await test(server)
        finally:
            await server.close()

    asyncio.run(asyncio.wait_for(main(), 20))


GOOD = bytes.fromhex("03080000000100020003")


def test_pipelined_and_split_requests_are_all_answered_in_order() -> None:
    async def test(server: ModbusTcpServer) -> None:
        requests = b"".join(frame(i, READ) for i in range(50))
        expected = b"".join(frame(i, GOOD) for i in range(50))
        assert await exchange(server.port, requests, len(expected)) == expected
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for byte in frame(7, READ):
            writer.write(bytes((byte,)))
            await writer.drain()
            await asyncio.sleep(0.001)
        assert await reader.readexactly(len(frame(7, GOOD))) == frame(7, GOOD)
        writer.close()

    with_server(test)


def test_unknown_unit_is_a_gateway_exception() -> None:
    async def test(server: ModbusTcpServer) -> None:
        assert await exchange(server.port, frame(3, READ, 9), 9) == frame(3, b"\x83\x0b", 9)

    with_server(test)


@pytest.mark.parametrize(
    "header",
    [
        struct.pack(">HHHB", 1, 1, 6, 1),  # another protocol
        struct.pack(">HHHB", 1, 0, 0, 1),
        struct.pack(">HHHB", 1, 0, 1, 1),  # no function code
        struct.pack(">HHHB", 1, 0, 255, 1),  # longer than any PDU
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_a_header_that_cannot_be_right_ends_the_connection_only(header: bytes) -> None:
    async def test(server: ModbusTcpServer) -> None:
        before = frame(1, READ)
        assert await exchange(server.port, before + header) in (
            frame(1, GOOD) + b"<end>",
            frame(1, GOOD) + b"<reset>",
        )
        assert server.counters.malformed == 1
        assert await exchange(server.port, frame(2, READ), 17) == frame(2, GOOD)

    with_server(test)


def test_a_client_that_drips_or_does_not_read_is_ended() -> None:
    async def test(server: ModbusTcpServer) -> None:
        dripping = asyncio.create_task(exchange(server.port, frame(1, READ)[:5], wait_s=3))
        sock = socket.create_connection(("127.0.0.1", server.port))
        sock.setblocking(False)
        greedy = frame(1, bytes.fromhex("030000007d")) * 1000
        while len(server.clients) > 0 or server.counters.evicted < 2:
            with contextlib.suppress(BlockingIOError, ConnectionError):
                sock.send(greedy)  # never reads
            await asyncio.sleep(0.01)
        sock.close()
        assert (await dripping).endswith((b"<end>", b"<reset>"))
        # It stopped taking requests long before it was ended: 259 bytes answer 12 bytes.
        assert server.counters.requests < 400_000
        assert await exchange(server.port, frame(2, READ), 17) == frame(2, GOOD)

    with_server(test, limits=ServerLimits(frame_s=0.3, unread_s=0.3))


def test_too_many_connections_end_the_most_silent_one() -> None:
    async def test(server: ModbusTcpServer) -> None:
        silent = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(3)]
        silent[0][1].write(frame(1, READ))  # the first is busy, so the second is the most silent
        await silent[0][0].readexactly(17)
        assert await exchange(server.port, frame(2, READ), 17) == frame(2, GOOD)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(silent[1][0].readexactly(1), 2)
        silent[0][1].write(frame(3, READ))
        assert await silent[0][0].readexactly(17) == frame(3, GOOD)
        for _, writer in silent:
            writer.close()

    with_server(test, limits=ServerLimits(connections=3))


@pytest.mark.parametrize(
    ("fault", "answer"),
    [
        ("silent", b""),
        ("wrong_count", frame(1, bytes.fromhex("0306000000010002"))),
        ("wrong_echo", frame(1, GOOD)),
        ("reset", b"<reset>"),
    ],
)
def test_faults_on_the_wire(fault: str, answer: bytes) -> None:
    async def test(server: ModbusTcpServer) -> None:
        assert await exchange(server.port, frame(1, READ)) == answer
        if fault == "wrong_echo":
            assert await exchange(server.port, frame(1, WRITE)) == frame(
                1, bytes.fromhex("0600010006")
            )

    with_server(test, fault)


def test_late_answers_come_late() -> None:
    async def test(server: ModbusTcpServer) -> None:
        start = time.monotonic()
        assert await exchange(server.port, frame(1, READ), 17, wait_s=60) == frame(1, GOOD)
        assert time.monotonic() - start >= 0.25

    with_server(test, "late:0.25")


def test_an_address_in_use_is_explained() -> None:
    async def test(server: ModbusTcpServer) -> None:
        with pytest.raises(ServerError, match="expected a free port"):
            await ModbusTcpServer({1: Ramp()}, port=server.port).start()

    with_server(test)
