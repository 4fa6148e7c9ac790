"""Modbus RTU framing: unit id, PDU and checksum, on a serial line or in a TCP stream.

Source: "MODBUS over Serial Line Specification and Implementation Guide V1.02" (2006), section 2.5.
A frame carries no transaction id; `hil.modbus.missing` tells a reply from a late one.
"""

from __future__ import annotations

CHECKSUM_BYTES = 2
_LARGEST = 256


def _table() -> tuple[int, ...]:
    out = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0xA001 if value & 1 else 0)
        out.append(value)
    return tuple(out)


_CRC = _table()


def checksum(data: bytes) -> bytes:
    """Return the CRC-16 of a frame, low byte first as it is sent."""
    crc = 0xFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 0xFF]
    return crc.to_bytes(CHECKSUM_BYTES, "little")


def rtu_frame(unit: int, pdu: bytes) -> bytes:
    """Return a whole frame."""
    body = bytes((unit,)) + pdu
    return body + checksum(body)


def reply_size(data: bytes | bytearray) -> int:
    """Return the size of the reply that begins in `data`; 0 while it is not known, -1 for none."""
    if len(data) < 3:
        return 0
    function = data[1]
    if function & 0x80:
        return 3 + CHECKSUM_BYTES
    if function in (1, 2, 3, 4):
        size = 3 + data[2] + CHECKSUM_BYTES
        return size if size <= _LARGEST else -1
    return 6 + CHECKSUM_BYTES if function in (5, 6, 15, 16) else -1


def silence_s(baud: int) -> float:
    """Return the silence that ends a frame: 3.5 characters of 11 bits, above 19200 baud 1.75 ms."""
    return 1.75e-3 if baud > 19200 else 38.5 / baud
