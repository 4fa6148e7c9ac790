"""A Modbus/TCP device with the habits of real ones, for `device_faults.py`.

It shares no code with the project, and it notes when it became safe.
"""

from __future__ import annotations

import asyncio
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

SET_POINT, ENABLE, LAMP = 10, 12, 13
SAFE_LAMP = 3


class Device:
    """A battery: set-point in W (int32) at 10, enable at 12, a lamp at 13.

    Parameters
    ----------
    connections : 'refuse', 'kick' or 'queue': what happens to a second connection.
    connect_delay_s, pause_s : Requests that come sooner are swallowed.
    latency_s : From request to reply.
    """

    def __init__(
        self,
        connections: str = "",
        connect_delay_s: float = 0.0,
        pause_s: float = 0.0,
        latency_s: float = 0.0,
    ) -> None:
        self.habits = connections, connect_delay_s, pause_s, latency_s
        self.registers = [0] * 16
        self.safe_s = -1.0  # since when it is safe; -1 where it is not
        self.writes = 0
        self.deaf_until_s = self.busy_until_s = 0.0
        self._live: list[asyncio.StreamWriter] = []
        self._replied_s = 0.0
        self.port = 0
        ready = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._main(ready)), daemon=True).start()
        ready.wait()

    async def _main(self, ready: threading.Event) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        self._server: asyncio.Server | None = None
        await self._listen()
        ready.set()
        await self._end.wait()
        self._hang_up()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._client, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def _hang_up(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in self._live:
            writer.transport.abort()

    def _soon(self, call: Callable[..., Any], *args: Any) -> None:
        self._loop.call_soon_threadsafe(call, *args)

    def close(self) -> None:
        """End the device."""
        self._soon(self._end.set)

    def away(self, seconds: float) -> None:
        """Be off for a while; the registers survive, as in a device with flash."""

        def off() -> None:
            self._hang_up()
            self._loop.call_later(seconds, lambda: asyncio.ensure_future(self._listen()))

        self._soon(off)

    def silent(self, seconds: float) -> None:
        """Swallow requests for a while."""
        self.deaf_until_s = time.monotonic() + seconds

    def busy(self, seconds: float) -> None:
        """Answer with exception 6 for a while."""
        self.busy_until_s = time.monotonic() + seconds

    @property
    def power_w(self) -> int:
        """Set-point in W."""
        high, low = self.registers[SET_POINT : SET_POINT + 2]
        return int(struct.unpack(">i", struct.pack(">HH", high, low))[0])

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections, connect_delay_s, pause_s, latency_s = self.habits
        if connections == "refuse" and self._live:
            writer.transport.abort()
            return
        if connections == "kick":
            for other in self._live:
                other.transport.abort()
        born_s = time.monotonic()
        self._live.append(writer)
        try:
            while connections == "queue" and self._live[0] is not writer:
                await asyncio.sleep(0.02)
            while True:
                tid, _, length, unit = struct.unpack(">HHHB", await reader.readexactly(7))
                pdu = await reader.readexactly(length - 1)
                now = time.monotonic()
                early = now - born_s < connect_delay_s or now - self._replied_s < pause_s
                if early or now < self.deaf_until_s:
                    continue
                await asyncio.sleep(latency_s)
                reply = self._answer(pdu)
                writer.write(struct.pack(">HHHB", tid, 0, len(reply) + 1, unit) + reply)
                self._replied_s = time.monotonic()
        except (asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
            pass
        finally:
            self._live.remove(writer)
            with suppress(RuntimeError):
                writer.close()

    def _answer(self, pdu: bytes) -> bytes:
        function, address, count = struct.unpack(">BHH", pdu[:5])
        if time.monotonic() < self.busy_until_s:
            return bytes([function | 0x80, 6])
        if address + (1 if function == 6 else count) > len(self.registers):
            return bytes([function | 0x80, 2])
        if function == 3:
            words = self.registers[address : address + count]
            return struct.pack(f">BB{count}H", 3, 2 * count, *words)
        if function not in (6, 16):
            return bytes([function | 0x80, 1])
        words = [count] if function == 6 else list(struct.unpack(f">{count}H", pdu[6:]))
        self.registers[address : address + len(words)] = words
        self.writes += 1
        safe = self.power_w == 0 and self.registers[LAMP] == SAFE_LAMP
        if not safe:
            self.safe_s = -1.0
        elif self.safe_s < 0:
            self.safe_s = time.monotonic()
        return pdu[:5]
