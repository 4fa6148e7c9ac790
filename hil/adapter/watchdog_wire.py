"""The watchdog's own Modbus connection: TCP, TLS, RTU over TCP and serial RTU.

It shares no code with the adapter's client on purpose: what broke the adapter must not break it.
"""

from __future__ import annotations

import asyncio
import os
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hil.modbus.tls import client_context

WRITES = (5, 6, 15, 16)
_CHARACTER_BITS = 11


class WireError(Exception):
    """What was received cannot be trusted, or nothing was: the connection is made anew."""


@dataclass
class SafeWrites:
    """How one device is made safe.

    Parameters
    ----------
    tls : ca, cert, key, server_name.
    serial : port, baud, parity, stop_bits, data_bits.
    reply_unit : Unit id that replies may have besides `unit`; 'any' for every one.
    writes : In the order of writing, as `hil.adapter.safe.SafeState.plan` gives them.
    lock_fd : Open file that holds the device's lock; -1 for none.
    """

    name: str
    host: str
    port: int
    unit: int
    timeout_s: float
    heartbeat_s: float
    writes: list[dict[str, Any]]
    tls: dict[str, Any] | None = None
    framing: str = "tcp"
    serial: dict[str, Any] | None = None
    connect_timeout_s: float = 1.0
    connect_delay_s: float = 0.0
    pause_s: float = 0.0
    one_connection: bool = False
    reply_unit: int | str | None = None
    lock_fd: int = -1
    fired: bool = False

    @property
    def endpoint(self) -> tuple[str, int]:
        """Address; devices that share it share one connection."""
        return (self.serial["port"], 0) if self.serial else (self.host, self.port)


@dataclass
class Wire:
    """One connection; one request at a time.

    A request that got no reply in time does not end it. A late reply is found by its transaction
    id, and counts for the same write when that is asked again.
    """

    plan: SafeWrites
    reader: asyncio.StreamReader
    send: Callable[[bytes], None]
    close: Callable[[], None]
    _buffer: bytearray = field(default_factory=bytearray)
    _tid: int = 0
    _asked: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    _late: dict[tuple[int, bytes], bytes] = field(default_factory=dict)
    heard_s: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        # The adapter's last request may have been answered just now.
        self._free_s = self.heard_s + self.plan.pause_s

    @property
    def _is_rtu(self) -> bool:
        return self.plan.framing != "tcp"

    async def ask(self, unit: int, request: bytes, wait_s: float) -> bytes:
        """Send a request and return the reply to it.

        Raises TimeoutError: No reply in time; the connection stays. Raises WireError, OSError.
        """
        await asyncio.sleep(self._free_s - time.monotonic())
        self._scan()
        if (reply := self._late.pop((unit, request), None)) is not None:
            return reply
        self._tid = self._tid % 0xFFFF + 1
        if self._is_rtu:  # no transaction id: what is still in the buffer answers nothing of ours
            await self._discard()
            frame = bytes([unit]) + request
            self.send(frame + crc16(frame))
        else:
            self.send(struct.pack(">HHHB", self._tid, 0, len(request) + 1, unit) + request)
        self._asked[self._tid] = unit, request
        try:
            async with asyncio.timeout(wait_s):
                while True:
                    for answered, reply in self._scan():
                        if answered == (unit, request):
                            self._late.pop(answered, None)
                            return reply
                    await self._receive()
        finally:
            self._free_s = time.monotonic() + self.plan.pause_s

    def settle(self) -> None:
        """Forget what is still awaited; its replies mean nothing any more."""
        self._asked.clear()
        self._late.clear()

    async def listen(self, wait_s: float) -> bool:
        """Wait for late replies; return True at once when one came."""
        try:
            async with asyncio.timeout(wait_s):
                while not self._late:
                    await self._receive()
                    if not self._is_rtu:
                        self._scan()
        except TimeoutError:
            return False
        return True

    async def _receive(self) -> None:
        data = await self.reader.read(4096)
        if not data:
            raise WireError("closed by the device")
        self.heard_s = time.monotonic()
        self._buffer += data

    async def _discard(self) -> None:
        """Forget what came too late to be told from a reply to the next request."""
        self._buffer.clear()
        self._asked.clear()
        try:
            async with asyncio.timeout(0.002):
                while True:
                    await self._receive()
        except TimeoutError:
            self._buffer.clear()

    def _scan(self) -> list[tuple[tuple[int, bytes], bytes]]:
        """Take whole replies out of the buffer; return (unit, request) and reply of each."""
        found = []
        while (piece := self._rtu_reply() if self._is_rtu else self._tcp_reply()) is not None:
            tid, unit, reply = piece
            asked = self._asked.pop(tid, None)
            if asked is None:
                continue  # the second reply to one request
            if unit != asked[0] and self.plan.reply_unit not in ("any", unit):
                raise WireError(f"unit {unit} answered, asked was {asked[0]}")
            found.append((asked, reply))
            if asked[1][0] in WRITES:
                self._late[asked] = reply
        return found

    def _tcp_reply(self) -> tuple[int, int, bytes] | None:
        if len(self._buffer) < 7:
            return None
        tid, protocol, length, unit = struct.unpack_from(">HHHB", self._buffer)
        if protocol != 0 or not 3 <= length <= 254:
            raise WireError(f"not a Modbus/TCP header: {self._buffer[:7].hex(' ')}")
        if tid != 0 and tid > self._tid and self._tid < 0x8000:
            raise WireError(f"transaction {tid} was never asked")
        if len(self._buffer) < 6 + length:
            return None
        reply = bytes(self._buffer[7 : 6 + length])
        del self._buffer[: 6 + length]
        return tid, unit, reply

    def _rtu_reply(self) -> tuple[int, int, bytes] | None:
        if len(self._buffer) < 5:
            return None
        unit, function, third = self._buffer[:3]
        if function & 0x80:
            length = 5
        elif function in (1, 2, 3, 4):
            length = 5 + third
        elif function in WRITES:
            length = 8
        else:
            raise WireError(f"not a Modbus RTU frame: {self._buffer[:5].hex(' ')}")
        if len(self._buffer) < length:
            return None
        frame = bytes(self._buffer[:length])
        del self._buffer[:length]
        if crc16(frame[:-2]) != frame[-2:]:
            raise WireError(f"wrong checksum of {frame.hex(' ')}")
        return self._tid, unit, frame[1:-2]


async def open_wire(plan: SafeWrites) -> Wire:
    """Connect to a device and wait as long as it needs before the first request."""
    if plan.serial:
        wire = await _open_serial(plan, plan.serial)
    else:
        context = name = None
        if plan.tls:
            context = client_context(*(Path(plan.tls[k]) for k in ("ca", "cert", "key")))
            name = plan.tls.get("server_name") or plan.host
        async with asyncio.timeout(max(plan.connect_timeout_s, 0.2)):
            reader, writer = await asyncio.open_connection(
                plan.host, plan.port, ssl=context, server_hostname=name
            )
        wire = Wire(plan, reader, writer.write, writer.transport.abort)
    await asyncio.sleep(plan.connect_delay_s)
    return wire


async def _open_serial(plan: SafeWrites, serial: dict[str, Any]) -> Wire:
    import termios

    fd = os.open(serial["port"], os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    baud = int(serial.get("baud", 9600))
    flags = termios.CREAD | termios.CLOCAL
    flags |= termios.CS7 if serial.get("data_bits") == 7 else termios.CS8
    flags |= termios.CSTOPB if serial.get("stop_bits") == 2 else 0
    parity = {"even": termios.PARENB, "odd": termios.PARENB | termios.PARODD}
    flags |= parity.get(serial.get("parity", "none"), 0)
    try:
        speed = getattr(termios, f"B{baud}")
        controls = termios.tcgetattr(fd)[6]
        controls[termios.VMIN], controls[termios.VTIME] = 1, 0
        termios.tcsetattr(fd, termios.TCSANOW, [0, 0, flags, 0, speed, speed, controls])
        termios.tcflush(fd, termios.TCIOFLUSH)
    except (termios.error, AttributeError) as error:
        os.close(fd)
        raise WireError(f"cannot set up {serial['port']}: {error}") from None
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb", buffering=0)
    )
    plan.pause_s = max(plan.pause_s, 3.5 * _CHARACTER_BITS / baud)  # ends a frame
    return Wire(plan, reader, lambda data: _write_all(fd, data), transport.close)


def _write_all(fd: int, data: bytes) -> None:
    if os.write(fd, data) != len(data):
        raise WireError("the serial line does not take a whole request")


def crc16(data: bytes) -> bytes:
    """Return the checksum of a Modbus RTU frame."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc.to_bytes(2, "little")


def write_pdu(function: int, address: int, values: list[int]) -> bytes:
    """Return the request that writes registers (6, 16) or bits (5, 15)."""
    if function == 5:
        return struct.pack(">BHH", 5, address, 0xFF00 if values[0] else 0)
    if function == 6:
        return struct.pack(">BHH", 6, address, values[0])
    n = len(values)
    if function == 15:
        packed = sum(1 << i for i, v in enumerate(values) if v).to_bytes((n + 7) // 8, "little")
        return struct.pack(">BHHB", 15, address, n, len(packed)) + packed
    return struct.pack(f">BHHB{n}H", 16, address, n, 2 * n, *values)
