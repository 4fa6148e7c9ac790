"""Modbus/TCP server on asyncio: many units, pipelined requests, hostile and slow clients.

A header that cannot be right ends the connection, because the next frame's start is then unknown.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from hil.devices.errors import ServerError, cannot_listen
from hil.modbus.frames import Splitter, frame, parts
from hil.modbus.pdu import ExceptionCode, exception_reply, is_exception
from hil.modbus.tls import WRITERS, peer_role
from hil.servers.faults import FaultMode, Faults, distort
from hil.servers.habits import Habits
from hil.servers.pdu import Bank, answer

#: Bytes kept of a client that pipelines faster than it reads the answers.
_MAX_WAITING = 64 * 1024


@dataclass(frozen=True)
class ServerLimits:
    """What one client may cost.

    Attributes
    ----------
    connections : At once; one more ends the connection that was silent for longest.
    frame_s : Time to finish a frame that was begun.
    unread_s : Time a client may leave its answers unread.
    """

    connections: int = 64
    frame_s: float = 5.0
    unread_s: float = 10.0


@dataclass
class Counters:
    """Counters of the server."""

    connections: int = 0
    requests: int = 0
    refused: int = 0
    malformed: int = 0
    evicted: int = 0


@dataclass
class ModbusTcpServer:
    """One listening socket with the units behind it.

    Parameters
    ----------
    units : By unit id, 0 to 255; any other unit id is answered with exception 0x0B.
    host, port : Address; port 0 takes a free one.
    tls : See `hil.modbus.tls.server_context`.
    habits : Of a device that the server stands for.
    """

    units: Mapping[int, Bank]
    host: str = "127.0.0.1"
    port: int = 0
    tls: ssl.SSLContext | None = None
    faults: Faults = field(default_factory=Faults)
    habits: Habits = field(default_factory=Habits)
    limits: ServerLimits = field(default_factory=ServerLimits)
    counters: Counters = field(default_factory=Counters)

    def __post_init__(self) -> None:
        wrong = [unit for unit in self.units if not 0 <= unit <= 255]
        if wrong or not self.units:
            raise ServerError(
                f"unit ids {wrong}", where="Modbus server", expected="at least one of 0 to 255"
            )
        self.clients: dict[_Client, None] = {}  # ordered by last activity
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self.replied_s = float("-inf")

    async def start(self) -> None:
        """Listen; `port` is the real one afterwards.

        Raises ServerError: The address is in use or not ours.
        """
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                lambda: _Client(self), self.host, self.port, ssl=self.tls
            )
        except (OSError, OverflowError) as error:
            raise cannot_listen(ServerError, error, f"{self.host}:{self.port}") from None
        self.port = self._server.sockets[0].getsockname()[1]
        self._sweeper = asyncio.create_task(self._sweep())

    async def close(self) -> None:
        """Stop listening and end all connections."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeper
        if self._server is not None:
            self._server.close()
            for client in list(self.clients):
                client.transport.abort()
            await self._server.wait_closed()

    async def _sweep(self) -> None:
        """End the connections of clients that drip or do not read."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(self.limits.frame_s, self.limits.unread_s, 1.0) / 2)
            now = loop.time()
            for client in list(self.clients):
                if client.overdue(now):
                    self.counters.evicted += 1
                    client.transport.abort()

    def admit(self, client: _Client) -> None:
        """Count a connection in, and the one that was silent for longest out."""
        self.counters.connections += 1
        most = self.habits.connections or self.limits.connections
        if self.habits.refuse_more and len(self.clients) >= most:
            self.counters.evicted += 1
            client.transport.abort()
            return
        self.clients[client] = None
        if len(self.clients) > most:
            oldest = next(iter(self.clients))
            del self.clients[oldest]
            self.counters.evicted += 1
            oldest.transport.abort()


class _Client(asyncio.Protocol):
    """One connection."""

    transport: asyncio.Transport

    def __init__(self, server: ModbusTcpServer) -> None:
        self.server = server
        self.splitter = Splitter()
        self.may_read = self.may_write = True
        self._begun_s: float | None = None
        self._paused_s: float | None = None
        self._loop = asyncio.get_running_loop()
        self._made_s = self._loop.time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=_MAX_WAITING)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None:
            role = peer_role(tls)
            self.may_read, self.may_write = role is not None, role in WRITERS
        self.server.admit(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.server.clients.pop(self, None)

    def pause_writing(self) -> None:
        # The client does not read its answers: take no more requests from it.
        self._paused_s = self._loop.time()
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self._paused_s = None
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def overdue(self, now_s: float) -> bool:
        limits = self.server.limits
        begun = self._begun_s is not None and now_s - self._begun_s > limits.frame_s
        unread = self._paused_s is not None and now_s - self._paused_s > limits.unread_s
        return begun or unread

    def data_received(self, data: bytes) -> None:
        server = self.server
        if self in server.clients:  # to the end: the most recent
            del server.clients[self]
            server.clients[self] = None
        pieces = self.splitter.feed(data)
        frames = pieces[:-1] if self.splitter.opaque else pieces
        for piece in frames:
            if not self.transport.is_closing():
                self._serve(*parts(piece))
        if self.splitter.opaque and not self.transport.is_closing():
            server.counters.malformed += 1
            self.transport.close()
        self._begun_s = self._loop.time() if self.splitter.pending else None

    def _serve(self, transaction: int, unit: int, pdu: bytes) -> None:
        server = self.server
        server.counters.requests += 1
        mode, habits, now_s = server.faults.active, server.habits, self._loop.time()
        early = now_s - self._made_s < habits.connect_delay_s
        if mode is FaultMode.silent or early or now_s - server.replied_s < habits.pause_s:
            return
        if mode is FaultMode.reset:
            # The connection ends with a RST instead of a FIN.
            sock = self.transport.get_extra_info("socket")
            if sock is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
            return
        bank = server.units.get(unit)
        if bank is None:
            response = exception_reply(pdu[0], ExceptionCode.gateway_no_response)
        elif code := habits.refusal(pdu):
            response = exception_reply(pdu[0], code)
        else:
            response = answer(pdu, bank, may_read=self.may_read, may_write=self.may_write)
        server.counters.refused += is_exception(response)
        response = distort(mode, response)
        data = frame(transaction, unit, response)
        if mode is FaultMode.late:
            self._loop.call_later(server.faults.value, self._send, data)
        else:
            self._send(data)

    def _send(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)
            self.server.replied_s = self._loop.time()
