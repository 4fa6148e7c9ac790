"""A register map as a table of points, and the bank that serves it.

The same table gives the server, its checks and the documentation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from hil.modbus.pdu import ExceptionCode, Table
from hil.servers.pdu import Refused

Kind = Literal["bool", "int16", "uint16", "uint32"]
_RANGE: dict[Kind, tuple[int, int]] = {
    "bool": (0, 1),
    "int16": (-0x8000, 0x7FFF),
    "uint16": (0, 0xFFFF),
    "uint32": (0, 0xFFFFFFFF),
}


@dataclass(frozen=True)
class MapPoint:
    """One value in a register map; engineering value = raw * `scale`.

    Attributes
    ----------
    table : Coils and holding registers may be written, the others may not.
    address : Zero-based, as on the wire; manuals that count from 1 print one more.
    kind : 32 bits take two registers, the high word first.
    about : One line for the documentation.
    low, high : What may be written, engineering value.
    choices : Names of the values, where it is an enumeration; no other may be written.
    start : Value before anything is known.
    """

    name: str
    table: Table
    address: int
    kind: Kind
    about: str
    scale: float = 1.0
    unit: str = ""
    low: float | None = None
    high: float | None = None
    choices: Mapping[str, int] = field(default_factory=dict)
    start: float = 0.0

    @property
    def size(self) -> int:
        """Registers (or bits) taken."""
        return 2 if self.kind == "uint32" else 1

    def encode(self, value: float) -> list[int]:
        """Return the registers of an engineering value, clamped to what they can hold."""
        low, high = _RANGE[self.kind]
        raw = min(max(round(value / self.scale), low), high)
        return [raw >> 16 & 0xFFFF, raw & 0xFFFF] if self.size == 2 else [raw & 0xFFFF]

    def decode(self, words: Sequence[int]) -> float:
        """Return the engineering value of registers; raise `Refused` if it may not be written."""
        raw = words[0] << 16 | words[1] if self.size == 2 else words[0]
        if self.kind == "int16" and raw & 0x8000:
            raw -= 0x10000
        value = raw * self.scale
        tiny = 1e-9 * self.scale
        low_ok = self.low is None or value >= self.low - tiny
        high_ok = self.high is None or value <= self.high + tiny
        if not (low_ok and high_ok) or (self.choices and raw not in self.choices.values()):
            raise Refused(ExceptionCode.illegal_value)
        return value


class MapBank:
    """Serves a table of points.

    Parameters
    ----------
    check : Called with all values as a write would leave them; raises `Refused` to prevent it.
    written : Called with the names after a write.

    Attributes
    ----------
    values : Engineering values by name.
    """

    def __init__(
        self,
        points: Iterable[MapPoint],
        *,
        check: Callable[[Mapping[str, float]], None] = lambda _values: None,
        written: Callable[[Sequence[str]], None] = lambda _names: None,
    ) -> None:
        self.points = {p.name: p for p in points}
        self.values = {p.name: p.start for p in self.points.values()}
        self._check, self._written = check, written
        self._at: dict[tuple[Table, int], tuple[MapPoint, int]] = {
            (p.table, p.address + i): (p, i) for p in self.points.values() for i in range(p.size)
        }

    def read(self, table: Table, start: int, count: int) -> Sequence[int]:
        """Return registers; see `hil.servers.pdu.Bank`."""
        try:
            found = [self._at[table, start + i] for i in range(count)]
        except KeyError:
            raise Refused(ExceptionCode.illegal_address) from None
        return [point.encode(self.values[point.name])[part] for point, part in found]

    def write(self, table: Table, start: int, values: Sequence[int]) -> None:
        """Write registers, all or none; see `hil.servers.pdu.Bank`."""
        staged: dict[str, float] = {}
        at = 0
        while at < len(values):
            point, part = self._at.get((table, start + at), (None, 0))
            # Half of a 32-bit value cannot be written.
            if point is None or part or at + point.size > len(values):
                raise Refused(ExceptionCode.illegal_address)
            staged[point.name] = point.decode(values[at : at + point.size])
            at += point.size
        self._check({**self.values, **staged})
        self.values.update(staged)
        self._written(list(staged))


def markdown_table(points: Iterable[MapPoint]) -> str:
    """Return the documentation of a register map."""
    lines = [
        "| table | address | name | type | scale | unit | range | meaning |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for p in points:
        span = ", ".join(f"{v} {k}" for k, v in p.choices.items())
        if p.low is not None or p.high is not None:
            span = f"{p.low:g} to {p.high:g}"
        cells = (p.table, p.address, f"`{p.name}`", p.kind, f"{p.scale:g}", p.unit, span, p.about)
        lines.append("| " + " | ".join(str(c) for c in cells) + " |")
    return "\n".join(lines)
