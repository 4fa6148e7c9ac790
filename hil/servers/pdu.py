"""Modbus application protocol, server side: one request PDU in, one response PDU out.

Source: "MODBUS Application Protocol Specification V1.1b3", Modbus Organization, 2012: section 6
for the function codes and their limits, section 7 for the exception codes. Bytes in, bytes out; no
sockets, no clocks.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Sequence
from enum import IntEnum, StrEnum
from typing import Protocol

log = logging.getLogger(__name__)


class Table(StrEnum):
    """The four tables of the Modbus data model."""

    coil = "coil"
    discrete = "discrete"
    input = "input"
    holding = "holding"


class Refusal(IntEnum):
    """Exception codes (section 7)."""

    illegal_function = 1
    illegal_address = 2
    illegal_value = 3
    device_failure = 4
    busy = 6
    gateway_no_response = 0x0B


class Refused(Exception):  # noqa: N818 - an answer of the protocol, not a failure of the program
    """The server answers with an exception response.

    Parameters
    ----------
    code : Refusal
        The exception code sent to the client.
    """

    def __init__(self, code: Refusal) -> None:
        self.code = code
        super().__init__(code.name)


class Bank(Protocol):
    """The registers behind one unit id. Addresses are zero-based, as on the wire."""

    def read(self, table: Table, start: int, count: int) -> Sequence[int]:
        """Return `count` registers of 0..65535 (or bits of 0..1); raise `Refused`."""
        ...

    def write(self, table: Table, start: int, values: Sequence[int]) -> None:
        """Write all values or none; raise `Refused`."""
        ...


MAX_READ_REGISTERS = 125
MAX_WRITE_REGISTERS = 123
MAX_READ_BITS = 2000
MAX_WRITE_BITS = 1968
MAX_READ_WRITE_REGISTERS = 121


def answer(request: bytes, bank: Bank, *, may_read: bool = True, may_write: bool = True) -> bytes:
    """Return the response to one request; never raises.

    Parameters
    ----------
    request : bytes
        PDU: function code and data, at least one byte.
    bank : Bank
        The registers.
    may_read, may_write : bool
        What the client's role allows. A role that does not is told so with exception 1, as
        "MODBUS/TCP Security" (Modbus Organization, 2018), section 8.3, asks.
    """
    function = request[0]
    try:
        if function not in _HANDLERS:
            raise Refused(Refusal.illegal_function)
        if not (may_write if function in WRITING else may_read):
            raise Refused(Refusal.illegal_function)
        return _HANDLERS[function](request, bank)
    except Refused as refused:
        return refusal(function, refused.code)
    except Exception:
        # A defect in a device's model must not take the server down with it.
        log.exception("unit failed on request %s", request.hex())
        return refusal(function, Refusal.device_failure)


def refusal(function: int, code: Refusal) -> bytes:
    """Return an exception response: the function code with its highest bit set, and the code."""
    return bytes((function | 0x80, code))


def _unpack(layout: str, request: bytes) -> tuple[int, ...]:
    """Return the fields after the function code of a request of fixed length."""
    if len(request) != 1 + struct.calcsize(layout):
        raise Refused(Refusal.illegal_value)
    return struct.unpack_from(layout, request, 1)


def _check_range(start: int, count: int, most: int) -> None:
    if not 1 <= count <= most:
        raise Refused(Refusal.illegal_value)
    if start + count > 0x10000:
        raise Refused(Refusal.illegal_address)


def _pack_bits(bits: Sequence[int]) -> bytes:
    packed = bytearray((len(bits) + 7) // 8)
    for i, bit in enumerate(bits):
        if bit:
            packed[i // 8] |= 1 << (i % 8)
    return bytes(packed)


def _read_bits(table: Table) -> Callable[[bytes, Bank], bytes]:
    def handle(request: bytes, bank: Bank) -> bytes:
        start, count = _unpack(">HH", request)
        _check_range(start, count, MAX_READ_BITS)
        data = _pack_bits(bank.read(table, start, count))
        return bytes((request[0], len(data))) + data

    return handle


def _read_registers(table: Table) -> Callable[[bytes, Bank], bytes]:
    def handle(request: bytes, bank: Bank) -> bytes:
        start, count = _unpack(">HH", request)
        _check_range(start, count, MAX_READ_REGISTERS)
        values = bank.read(table, start, count)
        return struct.pack(f">BB{count}H", request[0], 2 * count, *values)

    return handle


def _write_coil(request: bytes, bank: Bank) -> bytes:
    start, value = _unpack(">HH", request)
    if value not in (0x0000, 0xFF00):
        raise Refused(Refusal.illegal_value)
    bank.write(Table.coil, start, [int(value == 0xFF00)])
    return request


def _write_register(request: bytes, bank: Bank) -> bytes:
    start, value = _unpack(">HH", request)
    bank.write(Table.holding, start, [value])
    return request


def _counted(request: bytes, at: int, size: int) -> bytes:
    """Return the data behind the byte count at `at`; both must agree with `size`."""
    if len(request) != at + 1 + size or request[at] != size:
        raise Refused(Refusal.illegal_value)
    return request[at + 1 :]


def _write_coils(request: bytes, bank: Bank) -> bytes:
    if len(request) < 6:
        raise Refused(Refusal.illegal_value)
    start, count = struct.unpack_from(">HH", request, 1)
    _check_range(start, count, MAX_WRITE_BITS)
    data = _counted(request, 5, (count + 7) // 8)
    bank.write(Table.coil, start, [data[i // 8] >> (i % 8) & 1 for i in range(count)])
    return request[:5]


def _write_registers(request: bytes, bank: Bank) -> bytes:
    if len(request) < 6:
        raise Refused(Refusal.illegal_value)
    start, count = struct.unpack_from(">HH", request, 1)
    _check_range(start, count, MAX_WRITE_REGISTERS)
    data = _counted(request, 5, 2 * count)
    bank.write(Table.holding, start, struct.unpack(f">{count}H", data))
    return request[:5]


def _mask_write(request: bytes, bank: Bank) -> bytes:
    start, and_mask, or_mask = _unpack(">HHH", request)
    (old,) = bank.read(Table.holding, start, 1)
    bank.write(Table.holding, start, [(old & and_mask) | (or_mask & ~and_mask & 0xFFFF)])
    return request


def _read_write_registers(request: bytes, bank: Bank) -> bytes:
    if len(request) < 10:
        raise Refused(Refusal.illegal_value)
    start, count, write_start, write_count = struct.unpack_from(">HHHH", request, 1)
    _check_range(start, count, MAX_READ_REGISTERS)
    _check_range(write_start, write_count, MAX_READ_WRITE_REGISTERS)
    data = _counted(request, 9, 2 * write_count)
    bank.read(Table.holding, start, count)  # refused before anything is written
    bank.write(Table.holding, write_start, struct.unpack(f">{write_count}H", data))
    values = bank.read(Table.holding, start, count)
    return struct.pack(f">BB{count}H", request[0], 2 * count, *values)


_HANDLERS: dict[int, Callable[[bytes, Bank], bytes]] = {
    1: _read_bits(Table.coil),
    2: _read_bits(Table.discrete),
    3: _read_registers(Table.holding),
    4: _read_registers(Table.input),
    5: _write_coil,
    6: _write_register,
    15: _write_coils,
    16: _write_registers,
    22: _mask_write,
    23: _read_write_registers,
}
#: Function codes that change something; 23 reads too, and is refused to readers as a whole.
WRITING = frozenset((5, 6, 15, 16, 22, 23))
READING_BITS, READING_REGISTERS = frozenset((1, 2)), frozenset((3, 4, 23))
