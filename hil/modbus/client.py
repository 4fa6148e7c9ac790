"""One Modbus/TCP connection whose every reply is checked before anybody sees it.

pymodbus' asynchronous client gives connection, TLS and requests; what it accepts without an error
(fewer registers than asked, another function, transaction 0, a write echo with another value) is
checked here. A reply that is not exactly the answer to the request fails the request at once, and
the connection is dropped, because what follows on it cannot be trusted either.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pymodbus.client import AsyncModbusTcpClient
from pymodbus.framer import FramerSocket, FramerType
from pymodbus.pdu import DecodePDU, ModbusPDU
from pymodbus.pdu.bit_message import (
    ReadCoilsRequest,
    ReadDiscreteInputsRequest,
    WriteMultipleCoilsRequest,
    WriteSingleCoilRequest,
)
from pymodbus.pdu.register_message import (
    ReadHoldingRegistersRequest,
    ReadInputRegistersRequest,
    WriteMultipleRegistersRequest,
    WriteSingleRegisterRequest,
)
from pymodbus.transaction import TransactionManager
from pymodbus.transport import CommParams, CommType

from hil.devices.errors import (
    DeviceError,
    ExchangeError,
    LinkError,
    NoReplyError,
    RefusedError,
    WrongReplyError,
)
from hil.devices.file import Connection
from hil.modbus.tls import client_context

# pymodbus speaks through the root logger's last resort where nobody configured logging; what it
# has to say is in our errors and counters.
logging.getLogger("pymodbus").addHandler(logging.NullHandler())

_READS: dict[str, type[ModbusPDU]] = {
    "coil": ReadCoilsRequest,
    "discrete": ReadDiscreteInputsRequest,
    "input": ReadInputRegistersRequest,
    "holding": ReadHoldingRegistersRequest,
}
_MAX_BYTES = 260
_SILENT_LIMIT = 2
"""Requests without any reply after which the connection is thought half open and made anew."""


@dataclass
class LinkStats:
    """What happened on a connection."""

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
    pdu: bytes
    data_bytes: int  # of a read; -1 for a write
    future: asyncio.Future[bytes]


class CheckedTransactions(TransactionManager):
    """pymodbus' connection with our own, strict reading of replies and our own deadlines."""

    def __init__(self, params: CommParams, server_name: str | None, stats: LinkStats) -> None:
        super().__init__(params, FramerSocket(DecodePDU(False)), 0, False, None, None, None)
        self.max_buffer_size = 1 << 16  # garbage is judged here, not silently thrown away
        self.link_stats = stats
        self._waiting: _Waiting | None = None
        self._silent = 0
        if params.sslctx is not None:
            self.call_create = partial(
                self.loop.create_connection,
                self.handle_new_connection,
                params.host,
                params.port,
                ssl=params.sslctx,
                server_hostname=server_name or params.host,
            )

    @property
    def usable(self) -> bool:
        """Return True while there is a connection that is not going down."""
        transport = self.transport
        return transport is not None and not transport.is_closing()

    async def exchange(self, request: ModbusPDU, timeout_s: float, data_bytes: int) -> bytes:
        """Send a request and return its reply's data; one at a time."""
        async with self._lock:
            if not self.usable:
                raise LinkError("not connected")
            request.transaction_id = tid = self.getNextTID()
            pdu = bytes([request.function_code]) + request.encode()
            future: asyncio.Future[bytes] = self.loop.create_future()
            self._waiting = _Waiting(tid, request.dev_id, pdu, data_bytes, future)
            timer = self.loop.call_later(timeout_s, self._expire, future, timeout_s)
            try:
                self.send(self.framer.encode(pdu, request.dev_id, tid))
                return await future
            finally:
                timer.cancel()
                self._waiting = None

    def _expire(self, future: asyncio.Future[bytes], timeout_s: float) -> None:
        self.link_stats.timeouts += 1
        self._silent += 1
        part = len(self.recv_buffer)
        if not future.done():
            text = f"no reply within {timeout_s:g} s"
            future.set_exception(NoReplyError(f"{text} ({part} bytes of one)" if part else text))
        if part or self._silent >= _SILENT_LIMIT:
            self.drop("no whole reply")

    def callback_data(self, data: bytes, addr: tuple[Any, ...] | None = None) -> int:
        """Take whole frames from the buffer; return how many bytes were used."""
        used = 0
        while len(data) - used >= 7:
            tid, protocol, length = struct.unpack_from(">HHH", data, used)
            if protocol != 0 or not 2 <= length <= _MAX_BYTES - 6:
                self._wrong(f"not a Modbus/TCP header: {data[used : used + 7].hex(' ')}")
                return len(data)
            end = used + 6 + length
            if len(data) < end:
                break
            self._frame(tid, data[used + 6], data[used + 7 : end])
            used = end
        return used

    def _frame(self, tid: int, unit: int, pdu: bytes) -> None:
        waiting = self._waiting
        if waiting is None or waiting.future.done() or tid != waiting.tid:
            newest = self.next_tid
            if 0 < tid <= newest and not (waiting and tid == waiting.tid):
                self.link_stats.late_replies += 1  # to a request given up, or said twice
                return
            self._wrong(f"transaction {tid} was never asked (last was {newest})")
            return
        self._silent = 0
        problem = _problem(waiting, unit, pdu)
        if problem:
            self._wrong(problem)
        elif pdu[0] & 0x80:
            self.link_stats.refused += 1
            waiting.future.set_exception(RefusedError(pdu[1]))
        else:
            self.link_stats.replies += 1
            waiting.future.set_result(pdu[2:])

    def _wrong(self, what: str) -> None:
        self.link_stats.wrong_replies += 1
        if self._waiting and not self._waiting.future.done():
            self._waiting.future.set_exception(WrongReplyError(what))
        self.drop(what)

    def callback_disconnected(self, exc: Exception | None) -> None:
        """Fail the request that waits: its reply cannot come any more."""
        self.link_stats.lost += 1
        reason = str(exc) if exc else "closed by the device"
        self.link_stats.last_error = reason
        self._fail(f"connection lost: {reason}")

    def drop(self, why: str) -> None:
        """Close the connection from our side."""
        self.link_stats.last_error = why
        transport = self.transport
        self.is_closing = False  # pymodbus' close() does nothing at all while this is set
        self.close()
        if transport is not None:
            transport.abort()  # type: ignore[attr-defined]
        self._fail(f"connection dropped: {why}")
        self._silent = 0

    def _fail(self, what: str) -> None:
        if self._waiting and not self._waiting.future.done():
            self._waiting.future.set_exception(LinkError(what))


def _problem(waiting: _Waiting, unit: int, pdu: bytes) -> str:
    """Say why a reply is not the answer to the request; '' where it is."""
    asked = waiting.pdu[0]
    if unit != waiting.unit:
        return f"unit {unit} answered, asked was {waiting.unit}"
    if pdu[0] == asked | 0x80:
        if len(pdu) != 2 or not 1 <= pdu[1] <= 11:
            return f"not a Modbus exception: {pdu[:8].hex(' ')}"
        return ""
    if pdu[0] != asked:
        return f"function {pdu[0]} answered, asked was {asked}"
    if waiting.data_bytes < 0:
        if pdu != waiting.pdu[:5]:
            return f"write echo {pdu[:8].hex(' ')}, sent was {waiting.pdu[:5].hex(' ')}"
        return ""
    if len(pdu) < 2 or pdu[1] != waiting.data_bytes or len(pdu) != 2 + waiting.data_bytes:
        found = f"{pdu[1] if len(pdu) > 1 else 0} said, {max(len(pdu) - 2, 0)} there"
        return f"{waiting.data_bytes} data bytes expected, {found}"
    return ""


class CheckedClient(AsyncModbusTcpClient):
    """pymodbus' client over `CheckedTransactions`; made inside the running loop."""

    def __init__(
        self, connection: Connection, context: ssl.SSLContext | None, stats: LinkStats
    ) -> None:
        tls = connection.tls
        self.comm_params = CommParams(
            comm_type=CommType.TLS if tls else CommType.TCP,
            comm_name=f"{connection.host}:{connection.port}",
            host=connection.host,
            port=connection.port,
            sslctx=context,
            reconnect_delay=0,  # reconnects are ours: pymodbus' wait grows to 300 s
            timeout_connect=connection.connect_timeout_s,
        )
        super().__init__(connection.host, framer=FramerType.SOCKET, retries=0)
        name = tls.server_name if tls else None
        self.checked = CheckedTransactions(self.comm_params, name, stats)
        self.ctx = self.checked


class Link:
    """A connection to one address, made when needed and made again when lost.

    Devices behind one address (unit ids of a gateway) share it.

    Parameters
    ----------
    connection : Connection
        Address, TLS and deadlines; the unit id is given with each request.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.stats = LinkStats()
        self._client: CheckedClient | None = None
        self._context: ssl.SSLContext | None = None
        self._connecting = asyncio.Lock()
        self._next_try_s = 0.0
        self._backoff_s = 0.0
        self._next_request_s = 0.0

    @property
    def connected(self) -> bool:
        """Return True while there is a connection."""
        return self._client is not None and self._client.checked.usable

    async def read(self, unit: int, table: str, address: int, count: int) -> bytes:
        """Return the data bytes of one read (registers: two bytes each; bits: packed).

        Raises
        ------
        NoReplyError, LinkError, WrongReplyError, RefusedError
        """
        request = _READS[table](address=address, count=count, dev_id=unit)
        size = (count + 7) // 8 if table in ("coil", "discrete") else 2 * count
        return await self._exchange(request, size)

    async def write(self, unit: int, function: int, address: int, values: Sequence[int]) -> None:
        """Write registers (functions 6, 16) or bits (5, 15); the echo is checked."""
        request: ModbusPDU
        if function == 6:
            request = WriteSingleRegisterRequest(
                address=address, registers=[values[0]], dev_id=unit
            )
        elif function == 16:
            request = WriteMultipleRegistersRequest(
                address=address, registers=list(values), dev_id=unit
            )
        elif function == 5:
            request = WriteSingleCoilRequest(address=address, bits=[bool(values[0])], dev_id=unit)
        else:
            bits = [bool(v) for v in values]
            request = WriteMultipleCoilsRequest(address=address, bits=bits, dev_id=unit)
        await self._exchange(request, -1)

    async def _exchange(self, request: ModbusPDU, data_bytes: int) -> bytes:
        client = self._client
        if client is None or not client.checked.usable:
            client = await self._connect()
        if self.connection.pause_s:
            now = time.monotonic()
            start = max(now, self._next_request_s)
            self._next_request_s = start + self.connection.pause_s
            await asyncio.sleep(start - now)
        self.stats.requests += 1
        try:
            data = await client.checked.exchange(request, self.connection.timeout_s, data_bytes)
        except ExchangeError as error:
            self.stats.last_error = error.what
            if isinstance(error, (LinkError, WrongReplyError)):
                self._postpone()
            raise
        self._backoff_s = 0.0
        return data

    async def _connect(self) -> CheckedClient:
        async with self._connecting:
            if self._client is not None and self._client.checked.usable:
                return self._client
            wait_s = self._next_try_s - time.monotonic()
            if wait_s > 0:
                raise LinkError(f"not connected; next try in {wait_s:.1f} s")
            if self._client is not None:
                self._client.checked.drop("connected anew")
            tls = self.connection.tls
            if tls is not None and self._context is None:
                try:
                    self._context = client_context(tls.ca, tls.cert, tls.key)
                except DeviceError as error:
                    raise LinkError(str(error)) from None
            # A protocol object per connection: what an old one still has to say goes nowhere.
            self._client = client = CheckedClient(self.connection, self._context, self.stats)
            if await self._try(client):
                self.stats.connects += 1
                return client
            client.checked.drop("not connected")
            self.stats.failed_connects += 1
            self._postpone()
            raise LinkError(f"cannot connect to {self.connection.host}:{self.connection.port}")

    async def _try(self, client: CheckedClient) -> bool:
        try:
            return bool(await client.connect())
        except (ssl.SSLError, ssl.CertificateError, OSError) as error:
            self.stats.last_error = str(error)
            return False

    def _postpone(self) -> None:
        """Wait before the next connection: at once, then 0.1 s, doubling up to the cap."""
        self._next_try_s = time.monotonic() + self._backoff_s
        cap = self.connection.reconnect_max_s
        self._backoff_s = min(2 * self._backoff_s, cap) if self._backoff_s else min(0.1, cap)

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.checked.drop("closed by us")
