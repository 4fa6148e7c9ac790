"""Registers or bits inside one message, found and replaced by address."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from hil.devices.codec import Place
from hil.modbus.pdu import Span, data_size, write_span


@dataclass
class Payload:
    """Registers or bits inside one message; changed in place.

    Parameters
    ----------
    span : Table, first address, count, and where the data begin in the message.
    data : The whole message.
    single_coil : Function 5: FF00 and 0000 instead of bits.
    """

    span: Span
    data: bytearray
    single_coil: bool = False

    def touches(self, place: Place) -> bool:
        """Tell whether at least a part of the point is in the message."""
        first, end = self.span.address, self.span.address + self.span.count
        return place.table == self.span.table and place.address < end and first < place.end

    def holds(self, place: Place) -> bool:
        """Tell whether the whole point is in the message."""
        first, end = self.span.address, self.span.address + self.span.count
        return place.table == self.span.table and first <= place.address and place.end <= end

    def get(self, place: Place) -> list[int]:
        """Return the registers (or the bit) of a point that is wholly in the message."""
        at, start = place.address - self.span.address, self.span.start
        if self.single_coil:
            return [int(self.data[start] == 0xFF)]
        if place.is_bit:
            return [self.data[start + at // 8] >> at % 8 & 1]
        return list(struct.unpack_from(f">{place.words}H", self.data, start + 2 * at))

    def word(self, address: int) -> int | None:
        """Return one register; None where it is not in the message."""
        at = address - self.span.address
        if not 0 <= at < self.span.count:
            return None
        return int(struct.unpack_from(">H", self.data, self.span.start + 2 * at)[0])

    def put(self, place: Place, words: Sequence[int]) -> None:
        """Replace those registers (or the bit) of a point that are in the message."""
        start = self.span.start
        for at, word in enumerate(words, place.address - self.span.address):
            if not 0 <= at < self.span.count:
                continue
            if self.single_coil:
                struct.pack_into(">H", self.data, start, 0xFF00 if word else 0)
            elif place.is_bit:
                mask = 1 << at % 8
                byte = self.data[start + at // 8]
                self.data[start + at // 8] = byte | mask if word else byte & ~mask
            else:
                struct.pack_into(">H", self.data, start + 2 * at, word)


def read_payload(span: Span, reply: bytes) -> Payload | None:
    """Return what the reply to a read carries; None where it does not answer the read."""
    size = data_size(span.table, span.count)
    if len(reply) != 2 + size or reply[1] != size:
        return None
    return Payload(span, bytearray(reply))


def write_payload(request: bytes) -> Payload | None:
    """Return what a request writes; None where it writes nothing, or is malformed."""
    span = write_span(request)
    return None if span is None else Payload(span, bytearray(request), request[0] == 5)
