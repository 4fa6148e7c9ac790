"""Modbus application protocol: requests, replies and the registers or bits that they carry.

Source: "MODBUS Application Protocol Specification V1.1b3" (Modbus Organization, 2012), section 6
for functions and their limits, section 7 for exception codes. Bytes in, bytes out; client, server
and man in the middle use it. No numpy.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum

MAX_WRITE_REGISTERS = 123


class Table(StrEnum):
    """The four tables of the Modbus data model."""

    coil = "coil"
    discrete = "discrete"
    input = "input"
    holding = "holding"


class ExceptionCode(IntEnum):
    """Exception codes (section 7) that our servers answer with."""

    illegal_function = 1
    illegal_address = 2
    illegal_value = 3
    device_failure = 4
    busy = 6
    gateway_no_response = 0x0B


#: Read functions by table.
READ_FUNCTIONS = {Table.coil: 1, Table.discrete: 2, Table.holding: 3, Table.input: 4}
READ_TABLES = {function: table for table, function in READ_FUNCTIONS.items()}
READ_WRITE = 23
#: Functions that change something; 23 also reads.
WRITE_FUNCTIONS = frozenset((5, 6, 15, 16, 22, READ_WRITE))
#: Largest count of one read by table, and of one multiple write by function.
MAX_READ = {Table.coil: 2000, Table.discrete: 2000, Table.holding: 125, Table.input: 125}
MAX_WRITE = {15: 1968, 16: MAX_WRITE_REGISTERS, READ_WRITE: 121}


@dataclass(frozen=True)
class Span:
    """Registers or bits of one table; `start` is the offset of their data in the message."""

    table: Table
    address: int
    count: int
    start: int = 2


def is_bits(table: str) -> bool:
    """Tell whether a table holds bits."""
    return table in ("coil", "discrete")


def data_size(table: str, count: int) -> int:
    """Return the bytes of `count` registers or packed bits."""
    return (count + 7) // 8 if is_bits(table) else 2 * count


def pack(table: str, values: Sequence[int]) -> bytes:
    """Return registers (two bytes each) or packed bits as they stand in a message."""
    if not is_bits(table):
        return struct.pack(f">{len(values)}H", *values)
    bits = sum(1 << i for i, value in enumerate(values) if value)
    return bits.to_bytes(data_size(table, len(values)), "little")


def unpack(table: str, count: int, data: bytes) -> list[int]:
    """Return the registers or bits of a message's data."""
    if not is_bits(table):
        return list(struct.unpack_from(f">{count}H", data))
    return [data[i // 8] >> i % 8 & 1 for i in range(count)]


def read_request(table: str, address: int, count: int) -> bytes:
    """Return the request that reads registers or bits."""
    return struct.pack(">BHH", READ_FUNCTIONS[Table(table)], address, count)


def write_request(function: int, address: int, values: Sequence[int]) -> bytes:
    """Return the request that writes one value (functions 5, 6) or several (15, 16)."""
    if function == 5:
        return struct.pack(">BHH", 5, address, 0xFF00 if values[0] else 0)
    if function == 6:
        return struct.pack(">BHH", 6, address, values[0])
    data = pack("coil" if function == 15 else "holding", values)
    return struct.pack(">BHHB", function, address, len(values), len(data)) + data


def read_span(pdu: bytes) -> Span | None:
    """Return what a request reads; None where it reads nothing or is malformed."""
    if (len(pdu) == 5 and pdu[0] in READ_TABLES) or (len(pdu) >= 10 and pdu[0] == READ_WRITE):
        address, count = struct.unpack_from(">HH", pdu, 1)
        return Span(READ_TABLES.get(pdu[0], Table.holding), address, count)
    return None


def write_span(pdu: bytes) -> Span | None:
    """Return what a request writes; None where it writes nothing or is malformed.

    The data of function 5 is FF00 or 0000, all others carry registers or packed bits.
    """
    if len(pdu) == 5 and pdu[0] in (5, 6):
        table = Table.coil if pdu[0] == 5 else Table.holding
        return Span(table, struct.unpack_from(">H", pdu, 1)[0], 1, 3)
    at = {15: 1, 16: 1, READ_WRITE: 5}.get(pdu[0] if pdu else 0)
    if at is None or len(pdu) < at + 5:
        return None
    table = Table.coil if pdu[0] == 15 else Table.holding
    address, count, size = struct.unpack_from(">HHB", pdu, at)
    if size != data_size(table, count) or len(pdu) != at + 5 + size:
        return None
    return Span(table, address, count, at + 5)


def read_reply(function: int, data: bytes) -> bytes:
    """Return the reply to a read."""
    return bytes((function, len(data))) + data


def exception_reply(function: int, code: int) -> bytes:
    """Return an exception reply: the function code with its highest bit set, and the code."""
    return bytes((function | 0x80, code))


def is_exception(reply: bytes) -> bool:
    """Tell whether a reply is an exception."""
    return bool(reply) and bool(reply[0] & 0x80)


def reply_problem(request: bytes, reply: bytes) -> str:
    """Return why a reply does not answer a request of functions 1 to 6, 15 or 16; '' if it does."""
    asked, answered = request[0], reply[0]
    if answered == asked | 0x80:
        # Codes that the specification does not know are refusals, too: devices have their own.
        return "" if len(reply) == 2 else f"not a Modbus exception: {reply[:8].hex(' ')}"
    if answered != asked:
        return f"function {answered} answered, asked was {asked}"
    span = read_span(request)
    if span is None:
        if reply == request[:5]:
            return ""
        return f"write echo {reply[:8].hex(' ')}, sent was {request[:5].hex(' ')}"
    size = data_size(span.table, span.count)
    if len(reply) == 2 + size and reply[1] == size:
        return ""
    declared, there = reply[1] if len(reply) > 1 else 0, max(len(reply) - 2, 0)
    return f"{size} data bytes expected, {declared} declared, {there} received"
