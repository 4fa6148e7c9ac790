"""Habits of devices in the field that have nothing to do with what their registers hold."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from hil.modbus.pdu import READ_TABLES, ExceptionCode, Table, is_bits, read_span, write_span

#: Functions that devices in the field have; most have neither 22 nor 23.
COMMON_FUNCTIONS = frozenset((1, 2, 3, 4, 5, 6, 15, 16))


@dataclass(frozen=True)
class Habits:
    """When a device does not answer, and which requests it refuses whatever the registers hold.

    Attributes
    ----------
    pause_s : A request that comes sooner after the last reply is not answered.
    connect_delay_s : A request that comes sooner after its connection was made is not answered.
    connections : Most at once; None for the server's own limit.
    refuse_more : Whether one more is refused; otherwise it ends the one that was silent longest.
    functions : That are known; None for all that the server has.
    max_registers : Most registers of one read.
    borders : No request may cross one: its address belongs to the part that begins there.
    write_functions : The functions that may write an address, where not all may.
    """

    pause_s: float = 0.0
    connect_delay_s: float = 0.0
    connections: int | None = None
    refuse_more: bool = False
    functions: Collection[int] | None = None
    max_registers: int = 125
    borders: tuple[int, ...] = ()
    write_functions: Mapping[tuple[Table, int], Collection[int]] = field(default_factory=dict)

    def refusal(self, pdu: bytes) -> int:
        """Return the exception code of a request that is refused; 0 where it is not."""
        function = pdu[0]
        if self.functions is not None and function not in self.functions:
            return ExceptionCode.illegal_function
        for span in (read_span(pdu), write_span(pdu)):
            if span is None:
                continue
            end = span.address + span.count
            if any(span.address < border < end for border in self.borders):
                return ExceptionCode.illegal_address
            if function in READ_TABLES:
                if not is_bits(span.table) and span.count > self.max_registers:
                    return ExceptionCode.illegal_value
                continue
            for address in range(span.address, end):
                if function not in self.write_functions.get((span.table, address), (function,)):
                    return ExceptionCode.illegal_function
        return 0
