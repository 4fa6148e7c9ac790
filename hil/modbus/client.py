"""A Modbus client on asyncio that checks every reply before it is used: TCP, RTU, serial lines.

A reply that is not exactly the answer to its request fails the request at once, and the connection
is dropped, because what follows on it cannot be trusted either. Why it is not pymodbus' client: see
"The client" in docs/hil.md.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Sequence

from grid_models.base.errors import reason_of
from hil.devices.errors import DeviceError, ExchangeError, LinkError, WrongReplyError
from hil.devices.spec import ConnectionSpec
from hil.modbus.connection import ClientStats, Connection
from hil.modbus.pdu import read_request, write_request
from hil.modbus.rtu import silence_s
from hil.modbus.serial_line import open_serial
from hil.modbus.tls import client_context

__all__ = ["ClientStats", "ModbusClient"]


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
        self._connection: Connection | None = None
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

    async def _connect(self) -> Connection:
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

    async def _open(self) -> Connection:
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
        connection = Connection(
            self.stats,
            self._now,
            rtu=spec.framing != "tcp",
            pause_s=self._pause_s,
            after=self._connection,
        )
        if spec.serial is not None:
            open_serial(spec.serial, connection)
        else:
            async with asyncio.timeout(spec.connect_timeout_s):
                await asyncio.get_running_loop().create_connection(
                    lambda: connection, spec.host, spec.port,
                    ssl=self._context, server_hostname=name,
                )  # fmt: skip
        # A line on which something went wrong is left quiet until what is on it has passed.
        quiet_s = spec.timeout_s if connection.missing else 0.0
        try:
            await asyncio.sleep(max(spec.connect_delay_s, quiet_s))
        except asyncio.CancelledError:
            connection.drop("given up before the first request")
            raise
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
