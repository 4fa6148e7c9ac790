"""The server's side of the Modbus application protocol: one request in, one reply out.

No sockets, no clocks. Messages are built and taken apart by `hil.modbus.pdu`.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Sequence
from typing import Protocol

from hil.modbus.pdu import (
    MAX_READ,
    MAX_WRITE,
    READ_TABLES,
    READ_WRITE,
    WRITE_FUNCTIONS,
    ExceptionCode,
    Span,
    Table,
    exception_reply,
    pack,
    read_reply,
    read_span,
    unpack,
    write_span,
)

__all__ = ["Bank", "ExceptionCode", "Refused", "Table", "answer"]
log = logging.getLogger(__name__)


class Refused(Exception):  # noqa: N818 - an answer of the protocol, not a failure of the program
    """The server answers with an exception reply."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(f"exception {code}")


class Bank(Protocol):
    """The registers behind one unit id. Addresses are zero-based, as on the wire."""

    def read(self, table: Table, start: int, count: int) -> Sequence[int]:
        """Return `count` registers of 0..65535 (or bits of 0..1); raise `Refused`."""
        ...

    def write(self, table: Table, start: int, values: Sequence[int]) -> None:
        """Write all values or none; raise `Refused`."""
        ...


def answer(request: bytes, bank: Bank, *, may_read: bool = True, may_write: bool = True) -> bytes:
    """Return the reply to one request; never raises.

    Parameters
    ----------
    request : PDU: function code and data, at least one byte.
    may_read, may_write : What the client's role allows. What it does not allow is answered with
        exception 1, as "MODBUS/TCP Security" (Modbus Organization, 2018), section 8.3, asks.
        Function 23 counts as a write.
    """
    function = request[0]
    try:
        known = function in READ_TABLES or function in WRITE_FUNCTIONS
        if not known or not (may_write if function in WRITE_FUNCTIONS else may_read):
            raise Refused(ExceptionCode.illegal_function)
        if function in READ_TABLES:
            return _read(request, bank)
        return {22: _mask_write, READ_WRITE: _read_write}.get(function, _write)(request, bank)
    except Refused as refused:
        return exception_reply(function, refused.code)
    except Exception:
        # A defect in a device's model must not end the server.
        log.exception("unit failed on request %s", request.hex())
        return exception_reply(function, ExceptionCode.device_failure)


def _checked(span: Span | None, most: int) -> Span:
    """Return a well-formed span within the limits of the function."""
    if span is None or not 1 <= span.count <= most:
        raise Refused(ExceptionCode.illegal_value)
    if span.address + span.count > 0x10000:
        raise Refused(ExceptionCode.illegal_address)
    return span


def _read(request: bytes, bank: Bank) -> bytes:
    span = _checked(read_span(request), MAX_READ[READ_TABLES.get(request[0], Table.holding)])
    values = bank.read(span.table, span.address, span.count)
    return read_reply(request[0], pack(span.table, values))


def _write(request: bytes, bank: Bank) -> bytes:
    """Answer functions 5, 6, 15, 16 and the write of 23 with the echo of 15 and 16."""
    span = _checked(write_span(request), MAX_WRITE.get(request[0], 1))
    data = request[span.start :]
    if request[0] == 5:
        if data not in (b"\xff\x00", b"\x00\x00"):
            raise Refused(ExceptionCode.illegal_value)
        data = bytes((data[0] & 1,))
    bank.write(span.table, span.address, unpack(span.table, span.count, data))
    return request[:5]


def _mask_write(request: bytes, bank: Bank) -> bytes:
    if len(request) != 7:
        raise Refused(ExceptionCode.illegal_value)
    address, and_mask, or_mask = struct.unpack_from(">HHH", request, 1)
    (old,) = bank.read(Table.holding, address, 1)
    bank.write(Table.holding, address, [(old & and_mask) | (or_mask & ~and_mask & 0xFFFF)])
    return request


def _read_write(request: bytes, bank: Bank) -> bytes:
    _checked(write_span(request), MAX_WRITE[READ_WRITE])
    _read(request, bank)  # refused before anything is written
    _write(request, bank)
    return _read(request, bank)
