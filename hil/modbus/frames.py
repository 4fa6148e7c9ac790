"""Modbus/TCP as it lies on the wire: where a frame ends, and which registers it carries.

Framing follows "MODBUS Messaging on TCP/IP Implementation Guide V1.0b" (2006), functions "MODBUS
Application Protocol Specification V1.1b3" (2012).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from hil.devices.codec import Place

HEADER_BYTES = 7
_MAX_LENGTH = 254  # unit id and a PDU of at most 253 bytes
_READS = {1: "coil", 2: "discrete", 3: "holding", 4: "input"}
_READ_WRITE = 23


def frame(tid: int, unit: int, pdu: bytes) -> bytes:
    """Return a whole frame."""
    return struct.pack(">HHHB", tid, 0, len(pdu) + 1, unit) + pdu


class Splitter:
    """Cuts one direction of a connection into frames.

    What cannot be a frame makes the direction opaque for good: the start of the next frame is then
    unknown, and TLS looks like this from its first byte.
    """

    def __init__(self) -> None:
        self.opaque = False
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Return what is complete: whole frames, and once it is opaque all bytes as they came."""
        if self.opaque:
            return [data]
        self._buffer += data
        out: list[bytes] = []
        while self._buffer:
            size = _frame_size(self._buffer)
            if size < 0:
                self.opaque = True
                break
            if size == 0 or len(self._buffer) < size:
                return out
            out.append(bytes(self._buffer[:size]))
            del self._buffer[:size]
        return [*out, self.rest()] if self._buffer else out

    def rest(self) -> bytes:
        """Return and forget the bytes of a frame that was begun."""
        left = bytes(self._buffer)
        self._buffer.clear()
        return left


def _frame_size(data: bytearray) -> int:
    """Return the size of the frame at the start; 0 while it is not known, -1 where it is none."""
    if len(data) >= 4 and (data[2] or data[3]):
        return -1
    if len(data) < 6:
        return 0
    length = data[4] << 8 | data[5]
    return 6 + length if 2 <= length <= _MAX_LENGTH else -1


@dataclass
class Payload:
    """Registers or bits inside one message, by address; changed in place.

    Parameters
    ----------
    table : {'coil', 'discrete', 'input', 'holding'}
    address, count : int
        First register or bit and how many.
    data : bytearray
        The whole message.
    start : int
        Where the registers or bits begin in it.
    single_coil : bool
        Function 5 says FF00 and 0000 instead of bits.
    """

    table: str
    address: int
    count: int
    data: bytearray
    start: int
    single_coil: bool = False

    def touches(self, place: Place) -> bool:
        """Return True where at least a part of the point is in here."""
        inside = place.address < self.address + self.count and self.address < place.end
        return inside and place.table == self.table

    def holds(self, place: Place) -> bool:
        """Return True where the whole point is in here."""
        inside = self.address <= place.address and place.end <= self.address + self.count
        return inside and place.table == self.table

    def get(self, place: Place) -> list[int]:
        """Return the registers (or the bit) of a point that is wholly in here."""
        at = place.address - self.address
        if self.single_coil:
            return [int(self.data[self.start] == 0xFF)]
        if place.is_bit:
            return [self.data[self.start + at // 8] >> at % 8 & 1]
        return list(struct.unpack_from(f">{place.words}H", self.data, self.start + 2 * at))

    def word(self, address: int) -> int | None:
        """Return one register; None where it is not in here."""
        at = address - self.address
        if not 0 <= at < self.count:
            return None
        return int(struct.unpack_from(">H", self.data, self.start + 2 * at)[0])

    def put(self, place: Place, words: list[int]) -> None:
        """Replace those registers (or the bit) of a point that are in here."""
        for i, word in enumerate(words):
            at = place.address + i - self.address
            if not 0 <= at < self.count:
                continue
            if self.single_coil:
                struct.pack_into(">H", self.data, self.start, 0xFF00 if word else 0)
            elif place.is_bit:
                mask = 1 << at % 8
                byte = self.data[self.start + at // 8]
                self.data[self.start + at // 8] = byte | mask if word else byte & ~mask
            else:
                struct.pack_into(">H", self.data, self.start + 2 * at, word)


def read_span(pdu: bytes) -> tuple[str, int, int] | None:
    """Return (table, address, count) of what a request reads; None where it reads nothing."""
    if len(pdu) >= 5 and (pdu[0] in _READS or pdu[0] == _READ_WRITE):
        address, count = struct.unpack_from(">HH", pdu, 1)
        return _READS.get(pdu[0], "holding"), address, count
    return None


def read_payload(span: tuple[str, int, int], pdu: bytes) -> Payload | None:
    """Return what the reply to a read carries; None where it is not the answer to it."""
    table, address, count = span
    size = (count + 7) // 8 if table in ("coil", "discrete") else 2 * count
    if len(pdu) != 2 + size or pdu[1] != size:
        return None
    return Payload(table, address, count, bytearray(pdu), 2)


def write_payload(pdu: bytes) -> Payload | None:
    """Return what a request writes; None where it writes nothing, or is malformed."""
    data = bytearray(pdu)
    if len(pdu) == 5 and pdu[0] in (5, 6):
        table = "coil" if pdu[0] == 5 else "holding"
        return Payload(table, struct.unpack_from(">H", pdu, 1)[0], 1, data, 3, pdu[0] == 5)
    at = {15: 1, 16: 1, _READ_WRITE: 5}.get(pdu[0] if pdu else 0)
    if at is None or len(pdu) < at + 5:
        return None
    address, count, size = struct.unpack_from(">HHB", pdu, at)
    wanted = (count + 7) // 8 if pdu[0] == 15 else 2 * count
    if size != wanted or len(pdu) != at + 5 + size:
        return None
    return Payload("coil" if pdu[0] == 15 else "holding", address, count, data, at + 5)


def write_request(place: Place, words: list[int], function: int) -> bytes:
    """Return the PDU that writes one point with function 5, 6, 15 or 16."""
    n = len(words)
    if place.is_bit:
        if function == 15:
            return struct.pack(">BHHBB", 15, place.address, 1, 1, words[0])
        return struct.pack(">BHH", 5, place.address, 0xFF00 if words[0] else 0)
    if function == 6 and n == 1:
        return struct.pack(">BHH", 6, place.address, words[0])
    return struct.pack(f">BHHB{n}H", 16, place.address, n, 2 * n, *words)
