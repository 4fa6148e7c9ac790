"""Captures as pcapng files, made from what went over our own sockets.

Ethernet, IPv4 and TCP headers are made up so that a capture tool sees whole conversations: right
sequence numbers, lengths and checksums. Addresses are those of the sockets; the server's port is
always 502, so that Wireshark knows Modbus without being told. Blocks after "PCAP Next Generation
Capture File Format" (draft-ietf-opsawg-pcapng).
"""

from __future__ import annotations

import ipaddress
import itertools
import struct
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from hil.devices.errors import DeviceError

MODBUS_PORT = 502
_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_ETHERNET, _NANOSECONDS = 1, 9
_COMMENT, _IF_NAME, _IF_TSRESOL = 1, 2, 9
_FIN, _SYN, _RST, _PSH, _ACK = 1, 2, 4, 8, 16
_MTU_DATA = 1400
_NOWHERE = ipaddress.IPv4Address("192.0.2.1")

Address = tuple[str, int]


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + _padded(value)


def _block(kind: int, body: bytes) -> bytes:
    size = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + size + body + size


def checksum(data: bytes) -> int:
    """Return the checksum of RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Capture:
    """A pcapng file that is being written; may be used from several threads.

    Parameters
    ----------
    interfaces : Names of the places where packets were seen.

    Raises DeviceError: The file cannot be written.
    """

    def __init__(self, path: Path, interfaces: Sequence[str]) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "wb")  # noqa: SIM115
        except OSError as error:
            raise DeviceError(
                f"the capture cannot be written: {error.strerror}", where=str(path)
            ) from None
        self._lock = threading.Lock()
        self.idents = itertools.count(1)  # of IPv4 packets
        head = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)
        self._file.write(_block(_SECTION, head))
        for name in interfaces:
            options = _option(_IF_NAME, name.encode()) + _option(_IF_TSRESOL, bytes([_NANOSECONDS]))
            body = struct.pack("<HHI", _ETHERNET, 0, 0) + options + _option(0, b"")
            self._file.write(_block(_INTERFACE, body))
        self._file.flush()

    def stream(self, interface: int, client: Address, server: Address) -> TcpStream:
        """Return a conversation to be recorded; it begins with a handshake."""
        return TcpStream(self, interface, client, server)

    def packet(self, interface: int, ip: bytes, note: str) -> None:
        """Write one IPv4 packet with the time now."""
        # Locally administered addresses: not those of real hardware.
        data = bytes.fromhex("020000000002020000000001") + b"\x08\x00" + ip
        stamp = time.time_ns()
        options = _option(_COMMENT, note.encode()) + _option(0, b"") if note else b""
        head = struct.pack(
            "<IIIII", interface, stamp >> 32, stamp & 0xFFFFFFFF, len(data), len(data)
        )
        block = _block(_PACKET, head + _padded(data) + options)
        with self._lock:
            if not self._file.closed:
                self._file.write(block)

    def flush(self) -> None:
        """Hand what was written to the operating system."""
        with self._lock:
            if not self._file.closed:
                self._file.flush()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class TcpStream:
    """One TCP conversation in a capture."""

    def __init__(self, capture: Capture, interface: int, client: Address, server: Address) -> None:
        self._capture, self._interface = capture, interface
        self._ends = ((_ipv4(client[0]).packed, client[1]), (_ipv4(server[0]).packed, MODBUS_PORT))
        self._next = [1000, 2000]  # sequence numbers of client and server
        self._ended = False
        self._send(0, _SYN)
        self._send(1, _SYN | _ACK)
        self._send(0, _ACK)

    def data(self, from_client: bool, payload: bytes, note: str = "") -> None:
        """Record bytes that went over the connection."""
        who = 0 if from_client else 1
        for at in range(0, len(payload), _MTU_DATA):
            self._send(who, _PSH | _ACK, payload[at : at + _MTU_DATA], note)
            self._send(1 - who, _ACK)

    def close(self, *, reset: bool = False) -> None:
        """Record the end of the connection."""
        if self._ended:
            return
        self._ended = True
        if reset:
            self._send(0, _RST | _ACK)
            return
        for who in (0, 1):
            self._send(who, _FIN | _ACK)
        self._send(0, _ACK)

    def _send(self, who: int, flags: int, payload: bytes = b"", note: str = "") -> None:
        (source, source_port), (target, target_port) = self._ends[who], self._ends[1 - who]
        acknowledged = self._next[1 - who] if flags & _ACK else 0
        head = struct.pack(
            ">HHIIBBHHH",
            source_port, target_port, self._next[who], acknowledged, 0x50, flags, 65535, 0, 0,
        )  # fmt: skip
        pseudo = source + target + struct.pack(">BBH", 0, 6, len(head) + len(payload))
        total = checksum(pseudo + head + payload)
        segment = head[:16] + struct.pack(">H", total) + head[18:] + payload
        ident = next(self._capture.idents) & 0xFFFF
        ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(segment), ident, 0x4000, 64, 6, 0)
        ip += source + target
        ip = ip[:10] + struct.pack(">H", checksum(ip)) + ip[12:]
        self._capture.packet(self._interface, ip + segment, note)
        step = len(payload) + bool(flags & (_SYN | _FIN))
        self._next[who] = (self._next[who] + step) & 0xFFFFFFFF


def _ipv4(host: str) -> ipaddress.IPv4Address:
    """Return the address to show: that of an IPv6 peer has no place in an IPv4 header."""
    try:
        return ipaddress.IPv4Address(host)
    except ValueError:
        return _NOWHERE
