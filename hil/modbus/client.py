"""A Modbus/TCP client on asyncio that checks every reply before it is used.

A reply that is not exactly the answer to its request fails the request at once, and the connection
is dropped, because what follows on it cannot be trusted either. Why it is not pymodbus' client: see
"The client" in docs/hil.md.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from grid_models.base.errors import reason_of
from hil.devices.errors import (
    DeviceError,
    ExchangeError,
    LinkError,
    NoReplyError,
    RefusedError,
    WrongReplyError,
)
from hil.devices.spec import ConnectionSpec
from hil.modbus.frames import Splitter, frame, parts
from hil.modbus.pdu import is_exception, read_request, reply_problem, write_request
from hil.modbus.tls import client_context

_SILENT_LIMIT = 2
"""Requests without a reply after which the connection is taken for half open and made anew."""


@dataclass
class ClientStats:
    """Counters of one client."""

    requests: int = 0
    replies: int = 0
    timeouts: int = 0
    wrong_replies: int = 0
    refused: int = 0
    late_replies: int = 0
    connects: int = 0
    failed_connects: int = 0
    lost: int = 0
    last_error: str = ""


@dataclass
class _Waiting:
    """The request that waits for its reply."""

    tid: int
    unit: int
    request: bytes
    future: asyncio.Future[bytes]


class _Connection(asyncio.Protocol):
    """One TCP or TLS connection; one request at a time."""

    transport: asyncio.Transport | None = None

    def __init__(self, stats: ClientStats) -> None:
        self.stats = stats
        self._splitter = Splitter()
        self._lock = asyncio.Lock()
        self._waiting: _Waiting | None = None
        self._tid = 0
        self._silent = 0

    @property
    def usable(self) -> bool:
        return self.transport is not None and not self.transport.is_closing()

    async def exchange(self, unit: int, request: bytes, timeout_s: float) -> bytes:
        """Send a request and return the reply to it."""
        async with self._lock:
            if self.transport is None or self.transport.is_closing():
                raise LinkError("not connected")
            loop = asyncio.get_running_loop()
            self._tid = self._tid % 0xFFFF + 1
            self._waiting = waiting = _Waiting(self._tid, unit, request, loop.create_future())
            timer = loop.call_later(timeout_s, self._expire, waiting, timeout_s)
            try:
                self.transport.write(frame(self._tid, unit, request))
                return await waiting.future
            finally:
                timer.cancel()
                self._waiting = None

    def _expire(self, waiting: _Waiting, timeout_s: float) -> None:
        self.stats.timeouts += 1
        self._silent += 1
        part = self._splitter.pending
        if not waiting.future.done():
            text = f"no reply within {timeout_s:g} s"
            error = NoReplyError(f"{text} ({part} bytes of one)" if part else text)
            waiting.future.set_exception(error)
        if part or self._silent >= _SILENT_LIMIT:
            self.drop("no whole reply")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        for piece in self._splitter.feed(data):
            if self.transport is None:  # dropped, because of an earlier piece
                return
            if self._splitter.opaque:
                self._wrong(f"not a Modbus/TCP header: {piece[:7].hex(' ')}")
            else:
                self._take(*parts(piece))

    def _take(self, tid: int, unit: int, reply: bytes) -> None:
        waiting = self._waiting
        if waiting is None or waiting.future.done() or tid != waiting.tid:
            if 0 < tid <= self._tid and not (waiting and tid == waiting.tid):
                self.stats.late_replies += 1  # to a request given up, or a second reply
            else:
                self._wrong(f"transaction {tid} was never asked (last was {self._tid})")
            return
        self._silent = 0
        problem = reply_problem(waiting.request, reply)
        if unit != waiting.unit:
            problem = f"unit {unit} answered, asked was {waiting.unit}"
        if problem:
            self._wrong(problem)
        elif is_exception(reply):
            self.stats.refused += 1
            waiting.future.set_exception(RefusedError(reply[1]))
        else:
            self.stats.replies += 1
            waiting.future.set_result(reply)

    def _wrong(self, what: str) -> None:
        self.stats.wrong_replies += 1
        self._fail(WrongReplyError(what))
        self.drop(what)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.transport is None:  # by `drop`
            return
        self.transport = None
        self.stats.lost += 1
        self.stats.last_error = reason = reason_of(exc) if exc else "closed by the device"
        self._fail(LinkError(f"connection lost: {reason}"))

    def drop(self, why: str) -> None:
        """Abort the connection from this side."""
        self.stats.last_error = why
        transport, self.transport = self.transport, None
        if transport is not None:
            transport.abort()
        self._fail(LinkError(f"connection dropped: {why}"))

    def _fail(self, error: ExchangeError) -> None:
        if self._waiting and not self._waiting.future.done():
            self._waiting.future.set_exception(error)


class ModbusClient:
    """A connection to one address, made when needed and made again when lost.

    Devices behind one address (unit ids of a gateway) share it.

    Parameters
    ----------
    spec : Address, TLS and deadlines; the unit id is given with each request.
    now : Monotonic clock of back-off and pauses, s.
    """

    def __init__(self, spec: ConnectionSpec, now: Callable[[], float] = time.monotonic) -> None:
        self.spec, self._now = spec, now
        self.stats = ClientStats()
        self._connection: _Connection | None = None
        self._context: ssl.SSLContext | None = None
        self._connecting = asyncio.Lock()
        self._next_try_s = 0.0
        self._backoff_s = 0.0
        self._next_request_s = 0.0

    @property
    def connected(self) -> bool:
        """Return True while there is a connection."""
        return self._connection is not None and self._connection.usable

    async def read(self, unit: int, table: str, address: int, count: int) -> bytes:
        """Return the data bytes of one read (registers: two bytes each; bits: packed).

        Raises NoReplyError, LinkError, WrongReplyError, RefusedError.
        """
        return (await self._exchange(unit, read_request(table, address, count)))[2:]

    async def write(self, unit: int, function: int, address: int, values: Sequence[int]) -> None:
        """Write registers (functions 6, 16) or bits (5, 15); the echo is checked."""
        await self._exchange(unit, write_request(function, address, values))

    async def _exchange(self, unit: int, request: bytes) -> bytes:
        connection = self._connection
        if connection is None or not connection.usable:
            connection = await self._connect()
        if self.spec.pause_s:
            now = self._now()
            start = max(now, self._next_request_s)
            self._next_request_s = start + self.spec.pause_s
            await asyncio.sleep(start - now)
        self.stats.requests += 1
        try:
            reply = await connection.exchange(unit, request, self.spec.timeout_s)
        except ExchangeError as error:
            self.stats.last_error = error.what
            if isinstance(error, (LinkError, WrongReplyError)):
                self._postpone()
            raise
        self._backoff_s = 0.0
        return reply

    async def _connect(self) -> _Connection:
        async with self._connecting:
            if self._connection is not None and self._connection.usable:
                return self._connection
            wait_s = self._next_try_s - self._now()
            if wait_s > 0:
                reason = self.stats.last_error
                raise LinkError(f"not connected; next try in {wait_s:.1f} s ({reason})")
            try:
                self._connection = await self._open()
            except OSError as error:  # TimeoutError and ssl.SSLError as well
                reason = reason_of(error) or f"no answer within {self.spec.connect_timeout_s:g} s"
                self.stats.last_error = reason
                self.stats.failed_connects += 1
                self._postpone()
                where = f"{self.spec.host}:{self.spec.port}"
                raise LinkError(f"cannot connect to {where}: {reason}") from None
            self.stats.connects += 1
            return self._connection

    async def _open(self) -> _Connection:
        spec, name = self.spec, None
        if spec.tls is not None:
            name = spec.tls.server_name or spec.host
            try:
                self._context = self._context or client_context(
                    spec.tls.ca, spec.tls.cert, spec.tls.key
                )
            except DeviceError as error:
                raise LinkError(str(error)) from None
        # A protocol object per connection: what an old one still receives is ignored.
        async with asyncio.timeout(spec.connect_timeout_s):
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: _Connection(self.stats), spec.host, spec.port,
                ssl=self._context, server_hostname=name,
            )  # fmt: skip
        return connection

    def _postpone(self) -> None:
        """Wait before the next connection: at once, then 0.1 s, doubling up to the limit."""
        self._next_try_s = self._now() + self._backoff_s
        limit = self.spec.reconnect_max_s
        self._backoff_s = min(2 * self._backoff_s, limit) if self._backoff_s else min(0.1, limit)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.drop("closed by us")
