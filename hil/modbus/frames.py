"""Modbus/TCP framing: the MBAP header and the cut of a byte stream into frames.

Source: "MODBUS Messaging on TCP/IP Implementation Guide V1.0b" (2006): transaction id, protocol id
0, length, unit id, then the PDU. Client, server and man in the middle use it. No numpy.
"""

from __future__ import annotations

import struct

_HEADER = struct.Struct(">HHHB")
_LENGTHS = range(2, 255)  # unit id and a PDU of 1 to 253 bytes


def frame(tid: int, unit: int, pdu: bytes) -> bytes:
    """Return a whole frame."""
    return _HEADER.pack(tid, 0, len(pdu) + 1, unit) + pdu


def parts(data: bytes) -> tuple[int, int, bytes]:
    """Return transaction id, unit id and PDU of a whole frame."""
    tid, _, _, unit = _HEADER.unpack_from(data)
    return tid, unit, data[_HEADER.size :]


class Splitter:
    """Cuts one direction of a connection into frames.

    Bytes that cannot be a frame make the direction opaque for good: the start of the next frame is
    then unknown. TLS is opaque from its first byte.
    """

    def __init__(self) -> None:
        self.opaque = False
        self._buffer = bytearray()

    @property
    def pending(self) -> int:
        """Bytes of a frame that has begun."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """Return the complete frames; once the direction is opaque, all bytes as they came."""
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
        """Return and forget the bytes of a frame that has begun."""
        left = bytes(self._buffer)
        self._buffer.clear()
        return left


def _frame_size(data: bytearray) -> int:
    """Return the size of the first frame; 0 while it is not known, -1 where there is none."""
    if any(data[2:4]):
        return -1
    if len(data) < 6:
        return 0
    length = data[4] << 8 | data[5]
    return 6 + length if length in _LENGTHS else -1
