"""A Modbus client on asyncio that checks every reply before it is used: TCP, RTU, serial lines.

A reply that is not exactly the answer to its request fails the request at once, and the connection
is dropped, because what follows on it cannot be trusted either. Why it is not pymodbus' client: see
"The client" in docs/hil.md.
"""

from __future__ import annotations

import asyncio
import math
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
from hil.modbus.rtu import CHECKSUM_BYTES, checksum, reply_size, rtu_frame, silence_s
from hil.modbus.serial_line import open_serial
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
    reply_unit: int | str | None


class _Connection(asyncio.Protocol):
    """One connection; one request at a time.

    Parameters
    ----------
    rtu : Whether frames are those of a serial line, without transaction ids.
    pause_s : From a reply to the next request, s.
    """

    transport: asyncio.Transport | None = None

    def __init__(
        self, stats: ClientStats, now: Callable[[], float], *, rtu: bool, pause_s: float
    ) -> None:
        self.stats, self._now = stats, now
        self._rtu, self._pause_s = rtu, pause_s
        self._splitter = Splitter()
        self._reply = bytearray()
        self._lock = asyncio.Lock()
        self._waiting: _Waiting | None = None
        self._tid = 0
        self._silent = 0
        self._free_s = -math.inf  # when the next request may be sent

    @property
    def usable(self) -> bool:
        return self.transport is not None and not self.transport.is_closing()

    @property
    def idle(self) -> bool:
        return not self._lock.locked()

    async def exchange(self, unit: int, request: bytes, spec: ConnectionSpec) -> bytes:
        """Send a request and return the reply to it; deadlines are those of `spec`."""
        async with self._lock:
            while (left_s := self._free_s - self._now()) > 0.0:
                await asyncio.sleep(left_s)
            if self.transport is None or self.transport.is_closing():
                raise LinkError("not connected")
            loop = asyncio.get_running_loop()
            self._tid = self._tid % 0xFFFF + 1
            self._waiting = waiting = _Waiting(
                self._tid, unit, request, loop.create_future(), spec.reply_unit
            )
            timer = loop.call_later(spec.timeout_s, self._expire, waiting, spec.timeout_s)
            answered = False
            try:
                whole = rtu_frame(unit, request) if self._rtu else frame(self._tid, unit, request)
                self.transport.write(whole)
                reply = await waiting.future
                answered = True
                return reply
            except RefusedError:
                answered = True
                raise
            finally:
                timer.cancel()
                self._waiting = None
                # Without transaction ids a late reply can only be told by when it comes.
                late_s = spec.timeout_s if self._rtu and not answered else 0.0
                self._free_s = self._now() + max(self._pause_s, late_s)

    def _expire(self, waiting: _Waiting, timeout_s: float) -> None:
        self.stats.timeouts += 1
        self._silent += 1
        part = self._splitter.pending + len(self._reply)
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
        if self._rtu:
            self._take_rtu(data)
            return
        for piece in self._splitter.feed(data):
            if self.transport is None:  # dropped, because of an earlier piece
                return
            if self._splitter.opaque:
                self._wrong(f"not a Modbus/TCP header: {piece[:7].hex(' ')}")
            else:
                self._take(*parts(piece))

    def _take_rtu(self, data: bytes) -> None:
        waiting = self._waiting
        if waiting is None or waiting.future.done():
            self.stats.late_replies += 1
            self._free_s = max(self._free_s, self._now() + self._pause_s)
            return
        self._reply += data
        reply = bytes(self._reply)
        size = reply_size(reply)
        if size == 0 or len(reply) < size:
            return
        self._reply.clear()
        if len(reply) != size or checksum(reply[:-CHECKSUM_BYTES]) != reply[-CHECKSUM_BYTES:]:
            self._wrong(f"not an RTU frame: {reply[:8].hex(' ')}")
        else:
            self._take(waiting.tid, reply[0], reply[1:-CHECKSUM_BYTES])

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
        if unit != waiting.unit and waiting.reply_unit not in (unit, "any"):
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

    Devices behind one address (units of a gateway or of a serial line) share it.

    Parameters
    ----------
    spec : Address, framing, TLS and deadlines; the unit id is given with each request.
    now : Monotonic clock of back-off and pauses, s.
    """

    def __init__(self, spec: ConnectionSpec, now: Callable[[], float] = time.monotonic) -> None:
        self.spec, self._now = spec, now
        self._of_unit = {spec.unit: spec}
        self.stats = ClientStats()
        self._connection: _Connection | None = None
        self._context: ssl.SSLContext | None = None
        self._connecting = asyncio.Lock()
        self._next_try_s = 0.0
        self._backoff_s = 0.0

    def share(self, spec: ConnectionSpec) -> None:
        """Take another device at this address: its deadlines hold for the requests to its unit.

        Pause, delay and wait for a connection become the longest of all devices.

        Raises DeviceError: Its framing, line or certificates are not those of the others.
        """
        mine = self.spec
        for key in ("framing", "serial", "tls"):
            if getattr(mine, key) != getattr(spec, key):
                raise DeviceError(
                    f"two device files disagree on '{key}' of {spec.endpoint}",
                    where=f"connection.{key}",
                    expected="one connection for all units of an address",
                )
        longest = ("pause_s", "connect_delay_s", "connect_timeout_s", "close_after_poll")
        self.spec = mine.model_copy(
            update={key: max(getattr(mine, key), getattr(spec, key)) for key in longest}
        )
        self._of_unit[spec.unit] = spec

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
        self.stats.requests += 1
        try:
            reply = await connection.exchange(unit, request, self._of_unit.get(unit, self.spec))
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
                raise LinkError(f"cannot connect to {self.spec.endpoint}: {reason}") from None
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
        connection = _Connection(
            self.stats, self._now, rtu=spec.framing != "tcp", pause_s=self._pause_s
        )
        if spec.serial is not None:
            open_serial(spec.serial, connection)
        else:
            async with asyncio.timeout(spec.connect_timeout_s):
                await asyncio.get_running_loop().create_connection(
                    lambda: connection, spec.host, spec.port,
                    ssl=self._context, server_hostname=name,
                )  # fmt: skip
        # A reply of before the connection was lost may still come, and has no transaction id.
        late_s = spec.timeout_s if spec.framing != "tcp" and self.stats.connects else 0.0
        await asyncio.sleep(max(spec.connect_delay_s, late_s))
        return connection

    @property
    def _pause_s(self) -> float:
        line = self.spec.serial
        return max(self.spec.pause_s, silence_s(line.baud) if line else 0.0)

    def _postpone(self) -> None:
        """Wait before the next connection: at once, then 0.1 s, doubling up to the limit."""
        self._next_try_s = self._now() + self._backoff_s
        limit = self.spec.reconnect_max_s
        self._backoff_s = min(2 * self._backoff_s, limit) if self._backoff_s else min(0.1, limit)

    def poll_done(self) -> None:
        """Disconnect, where a device wants that after each poll and nobody waits for a reply."""
        connection = self._connection
        if self.spec.close_after_poll and connection is not None and connection.idle:
            connection.drop("closed after the poll")

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.drop("closed by us")
