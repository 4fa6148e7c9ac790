"""A Modbus/TCP device made of a raw asyncio socket, which can be told to misbehave."""

from __future__ import annotations

import asyncio
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hil.modbus.tls import peer_role

Action = bytes | float | str
Behaviour = Callable[[int, int, bytes, bytes], list[Action]]
"""(tid, unit, request pdu, honest reply pdu) -> bytes to send, seconds to wait, or 'reset',
'close'."""


def frame(tid: int, unit: int, pdu: bytes) -> bytes:
    return struct.pack(">HHHB", tid, 0, len(pdu) + 1, unit) + pdu


class RawDevice:
    """Holds registers, answers honestly unless `behaviour` says otherwise."""

    def __init__(self, ssl_context: Any = None) -> None:
        self.holding = [0] * 65536
        self.input = [0] * 65536
        self.coils = [0] * 65536
        self.behaviour: Behaviour | None = None
        self.writes: list[tuple[float, int, int, list[int]]] = []
        self.requests: list[bytes] = []
        self.connections = 0
        self.peers: list[str | None] = []
        self.errors: list[str] = []
        self.valid = 1 << 16
        self._ssl = ssl_context
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(lambda _, c: self.errors.append(str(c.get("message"))))
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._client, "127.0.0.1", 0, ssl=self._ssl)
        self.port = server.sockets[0].getsockname()[1]
        self._server = server
        self._writers: set[asyncio.StreamWriter] = set()
        self._ready.set()
        await self._stop.wait()
        server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0.01)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self._ssl is not None:
            self.peers.append(peer_role(writer.get_extra_info("ssl_object")))
        self._writers.add(writer)
        try:
            while True:
                head = await reader.readexactly(7)
                tid, _, length, unit = struct.unpack(">HHHB", head)
                pdu = await reader.readexactly(length - 1)
                self.requests.append(pdu)
                honest = self.answer(pdu)
                actions: list[Action] = [frame(tid, unit, honest)]
                if self.behaviour is not None:
                    actions = self.behaviour(tid, unit, pdu, honest)
                for action in actions:
                    if isinstance(action, float):
                        await asyncio.sleep(action)
                    elif isinstance(action, bytes):
                        writer.write(action)
                        await writer.drain()
                    elif action == "reset":
                        writer.transport.abort()
                        return
                    else:
                        writer.close()
                        return
        except (asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    def answer(self, pdu: bytes) -> bytes:
        function, address, count = struct.unpack_from(">BHH", pdu)
        bank = {3: self.holding, 4: self.input}.get(function)
        if bank is not None:
            if address + count > self.valid:
                return bytes([function | 0x80, 2])
            return struct.pack(
                f">BB{count}H", function, 2 * count, *bank[address : address + count]
            )
        if function in (1, 2):
            bits = self.coils[address : address + count]
            packed = sum(b << i for i, b in enumerate(bits)).to_bytes((count + 7) // 8, "little")
            return bytes([function, len(packed)]) + packed
        if function == 5:
            self.coils[address] = int(count == 0xFF00)
            self._note(function, address, [self.coils[address]])
        elif function == 6:
            self.holding[address] = count
            self._note(function, address, [count])
        elif function == 16:
            values = list(struct.unpack_from(f">{count}H", pdu, 6))
            self.holding[address : address + count] = values
            self._note(function, address, values)
        else:
            return bytes([function | 0x80, 1])
        return pdu[:5]

    def _note(self, function: int, address: int, values: list[int]) -> None:
        self.writes.append((time.monotonic(), function, address, values))

    def written(self, address: int) -> list[int]:
        return [values[0] for _, _, a, values in self.writes if a == address]

    def drop_connections(self) -> None:
        def drop() -> None:
            for writer in list(self._writers):
                writer.transport.abort()

        self._loop.call_soon_threadsafe(drop)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)


@pytest.fixture
def raw_device() -> Iterator[RawDevice]:
    device = RawDevice()
    yield device
    device.close()


@pytest.fixture
def make_raw_device() -> Iterator[Callable[..., RawDevice]]:
    made: list[RawDevice] = []

    def make(**options: Any) -> RawDevice:
        made.append(RawDevice(**options))
        return made[-1]

    yield make
    for device in made:
        device.close()


@pytest.fixture(scope="session")
def raw_device_class() -> type[RawDevice]:
    return RawDevice


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
