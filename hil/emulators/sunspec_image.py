"""A SunSpec map in registers: layout from the model definitions, values, and what may be written.

Rules: SunSpec Device Information Model Specification V1.1 (2022): "SunS" at the base address, then
the models, length without ID and L, the end model 0xFFFF; a value that is not implemented
has a reserved pattern; a point of several registers is written as a whole.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from hil.devices.places import STRUCT_CODES, raw_range
from hil.devices.sunspec_models import ModelPoint, layout
from hil.modbus.pdu import ExceptionCode, Table
from hil.servers.pdu import Refused

BASE = 40000
_SUNS = (0x5375, 0x6E53)
_END = (0xFFFF, 0)
_PAD = 0x8000


@dataclass
class SunSpecImage:
    """Registers of one device. It is a `hil.servers.pdu.Bank` in the holding table.

    Parameters
    ----------
    models : sequence of (int, mapping)
        Model number and the counts of its repeating groups (``{"NPt": 4, "NCrv": 3}``).
    base : Zero-based address of "SunS".
    refresh : Called before each read.
    padded : Whether model 1 ends with its pad register; in many older devices it does not.
    written : Called with the names of what was written, as ``(model, point)``.

    Attributes
    ----------
    limits : ``(model, point)`` to lowest and highest value that may be written, scaled.
    """

    models: Sequence[tuple[int, Mapping[str, int]]]
    base: int = BASE
    refresh: Callable[[], None] = lambda: None
    written: Callable[[Sequence[tuple[int, str]]], None] = lambda _names: None
    limits: dict[tuple[int, str], tuple[float, float]] = field(default_factory=dict)
    padded: bool = True
    words: list[int] = field(init=False)
    points: dict[tuple[int, str], ModelPoint] = field(init=False)

    def __post_init__(self) -> None:
        self.words, self.points = list(_SUNS), {}
        self._at: dict[int, tuple[int, str, ModelPoint]] = {}
        for model, counts in self.models:
            self._lay_out(model, counts)
        self.words += _END

    def _lay_out(self, model: int, counts: Mapping[str, int]) -> None:
        start = len(self.words)
        points, size = layout(model, self.base + start, tuple(counts.items()))
        size -= model == 1 and not self.padded
        self.words += [_PAD] * size
        for point in points:
            name = point.name.partition(".")[2]
            self.points[model, name] = point
            for address in range(point.place.address, point.place.end):
                self._at[address] = model, name, point
            self.put(model, name, None)
        self.put(model, "ID", model)
        self.put(model, "L", size - 2)
        for name, count in counts.items():
            self.put(model, name, count)

    def has(self, model: int, name: str) -> bool:
        """Tell whether the map holds the point and it is implemented."""
        point = self.points.get((model, name))
        return point is not None and self._raw(point) is not None

    def scale_of(self, point: ModelPoint) -> float:
        """Return the factor between the register and the value."""
        power = point.place.sf
        if isinstance(power, str):
            model, _, name = power.partition(".")
            power = self._raw(self.points[int(model), name])
        return 1.0 if power is None else float(10.0**power)

    def get(self, model: int, name: str) -> float:
        """Return the scaled value of a point; nan where it is not implemented."""
        point = self.points[model, name]
        raw = self._raw(point)
        return float("nan") if raw is None else raw * self.scale_of(point)

    def put(self, model: int, name: str, value: float | str | None) -> None:
        """Set the scaled value of a point, clamped to what it can hold; None: not implemented."""
        point = self.points[model, name]
        at = point.place.address - self.base
        self.words[at : at + point.place.words] = self._encoded(point, value)

    def _encoded(self, point: ModelPoint, value: float | str | None) -> Sequence[int]:
        size = point.place.words
        if value is None or value != value:
            return _missing(point)
        if isinstance(value, str):
            data = value.encode("ascii", "replace")[: 2 * size].ljust(2 * size, b"\0")
            return struct.unpack(f">{size}H", data)
        scaled = point.place.sf is not None
        raw = round(value / self.scale_of(point)) if scaled else int(value)
        low, high = raw_range(point.place.kind)
        # The end of the range that means "not implemented" is not used.
        raw = int(min(max(raw, low + (low < 0)), high - (low == 0)))
        data = struct.pack(">" + STRUCT_CODES[point.place.kind], raw)
        return struct.unpack(f">{size}H", data)

    def _raw(self, point: ModelPoint) -> int | None:
        at = point.place.address - self.base
        return _decoded(point, self.words[at : at + point.place.words])

    def read(self, table: Table, start: int, count: int) -> Sequence[int]:
        """Return registers; see `hil.servers.pdu.Bank`."""
        at = start - self.base
        if table is not Table.holding or at < 0 or at + count > len(self.words):
            raise Refused(ExceptionCode.illegal_address)
        self.refresh()
        return self.words[at : at + count]

    def write(self, table: Table, start: int, values: Sequence[int]) -> None:
        """Write registers, all or none; see `hil.servers.pdu.Bank`."""
        if table is not Table.holding:
            raise Refused(ExceptionCode.illegal_address)
        names: list[tuple[int, str]] = []
        at = 0
        while at < len(values):
            model, name, point = self._at.get(start + at, (0, "", None))
            end = at if point is None else at + point.place.words
            whole = point is not None and point.place.address == start + at and end <= len(values)
            if point is None or not whole or not self.may_write(model, name):
                raise Refused(ExceptionCode.illegal_address)
            self._check(model, name, values[at:end])
            names.append((model, name))
            at = end
        first = start - self.base
        self.words[first : first + len(values)] = values
        self.written(names)

    def may_write(self, model: int, name: str) -> bool:
        """Tell whether a point is writable: by its model, implemented, not in a read-only curve."""
        point = self.points[model, name]
        if point.access != "RW" or self._raw(point) is None:
            return False
        curve, bracket, _ = name.partition("].")
        return not bracket or self.get(model, f"{curve}].ReadOnly") != 1

    def _check(self, model: int, name: str, words: Sequence[int]) -> None:
        point = self.points[model, name]
        raw = _decoded(point, words)
        if raw is None or (point.symbols and raw not in point.symbols.values()):
            raise Refused(ExceptionCode.illegal_value)
        low, high = self.limits.get((model, name), (None, None))
        value, tiny = raw * self.scale_of(point), 1e-9
        if (low is not None and value < low - tiny) or (high is not None and value > high + tiny):
            raise Refused(ExceptionCode.illegal_value)


def _missing(point: ModelPoint) -> Sequence[int]:
    """Return the registers that say "not implemented"; those of text and accumulators are 0."""
    place = point.place
    sentinel = place.sentinel
    if sentinel is None:
        return [0] * place.words
    data = struct.pack(">" + STRUCT_CODES[place.kind], sentinel)
    return struct.unpack(f">{place.words}H", data)


def _decoded(point: ModelPoint, words: Sequence[int]) -> int | None:
    """Return the raw number; None where not implemented. A string counts as its first register."""
    if point.place.kind == "string":
        return words[0] or None
    data = struct.pack(f">{len(words)}H", *words)
    (raw,) = struct.unpack(">" + STRUCT_CODES[point.place.kind], data)
    return None if raw == point.place.sentinel else int(raw)
