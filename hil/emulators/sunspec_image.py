"""A SunSpec map in registers: layout from the model definitions, values, and what may be written.

Definitions are the JSON files of pysunspec2 (Apache-2.0), read as data. Rules: SunSpec Device
Information Model Specification V1.1 (2022): "SunS" at the base address, models one after the other,
length without ID and L, the end model 0xFFFF; a value that is not implemented has a reserved
pattern; a point of several registers is written as a whole.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hil.modbus.pdu import ExceptionCode, Table
from hil.servers.errors import ServerError
from hil.servers.pdu import Refused

BASE = 40000
_SUNS = (0x5375, 0x6E53)
_END = (0xFFFF, 0)
#: Register types: struct code, and the bytes that mean "not implemented".
_TYPES: dict[str, tuple[str, bytes]] = {
    "int16": ("h", b"\x80\x00"),
    "uint16": ("H", b"\xff\xff"),
    "count": ("H", b"\xff\xff"),
    "acc16": ("H", b"\x00\x00"),
    "enum16": ("H", b"\xff\xff"),
    "bitfield16": ("H", b"\xff\xff"),
    "pad": ("H", b"\x80\x00"),
    "int32": ("i", b"\x80\x00\x00\x00"),
    "uint32": ("I", b"\xff\xff\xff\xff"),
    "acc32": ("I", b"\x00\x00\x00\x00"),
    "enum32": ("I", b"\xff\xff\xff\xff"),
    "bitfield32": ("I", b"\xff\xff\xff\xff"),
    "int64": ("q", b"\x80" + b"\x00" * 7),
    "uint64": ("Q", b"\xff" * 8),
    "acc64": ("Q", b"\x00" * 8),
    "sunssf": ("h", b"\x80\x00"),
}


@dataclass(frozen=True)
class Slot:
    """One point of one model.

    Attributes
    ----------
    model : int
    name : str
        With its groups, counted from 1: ``Crv[2].Pt[3].V``.
    address : int
        Zero-based.
    size : int
        Registers.
    kind : str
        SunSpec type.
    scale : str or int, optional
        Name of the scale factor, or its value.
    writable : bool
    choices : frozenset of int
        Values of an enumeration; empty where any value goes.
    """

    model: int
    name: str
    address: int
    size: int
    kind: str
    scale: str | int | None
    writable: bool
    choices: frozenset[int]


@functools.cache
def _definition(model: int) -> dict[str, Any]:
    spec = importlib.util.find_spec("sunspec2")
    folder = Path(next(iter(spec.submodule_search_locations or ()))) if spec else None
    path = folder / "models" / "json" / f"model_{model}.json" if folder else None
    if path is None or not path.is_file():
        raise ServerError(
            f"no definition of SunSpec model {model}",
            where="SunSpec emulator",
            expected="a model that pysunspec2 defines, with pysunspec2 installed",
        )
    group: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["group"]
    return group


def _walk(
    group: Mapping[str, Any], counts: Mapping[str, int], prefix: str = ""
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield name and definition of each point in register order."""
    for point in group.get("points", ()):
        yield prefix + point["name"], point
    for sub in group.get("groups", ()):
        count = sub.get("count")
        if count is None:
            yield from _walk(sub, counts, f"{prefix}{sub['name']}.")
            continue
        for i in range(1, counts[count] + 1):
            yield from _walk(sub, counts, f"{prefix}{sub['name']}[{i}].")


@dataclass
class SunSpecImage:
    """Registers of one device. It is a `hil.servers.pdu.Bank` in the holding table.

    Parameters
    ----------
    models : sequence of (int, mapping)
        Model number and the counts of its repeating groups (``{"NPt": 4, "NCrv": 3}``).
    base : int
        Zero-based address of "SunS".
    refresh : callable
        Called before each read.
    written : callable
        Called with the names of what was written, as ``(model, point)``.

    Attributes
    ----------
    limits : dict
        ``(model, point)`` to lowest and highest value that may be written, scaled.
    """

    models: Sequence[tuple[int, Mapping[str, int]]]
    base: int = BASE
    refresh: Callable[[], None] = lambda: None
    written: Callable[[Sequence[tuple[int, str]]], None] = lambda _names: None
    limits: dict[tuple[int, str], tuple[float, float]] = field(default_factory=dict)
    words: list[int] = field(init=False)
    slots: dict[tuple[int, str], Slot] = field(init=False)

    def __post_init__(self) -> None:
        self.words, self.slots = list(_SUNS), {}
        self._at: dict[int, tuple[Slot, int]] = {}
        for model, counts in self.models:
            self._lay_out(model, counts)
        self.words += _END

    def _lay_out(self, model: int, counts: Mapping[str, int]) -> None:
        start = len(self.words)
        for slot in _slots(model, tuple(counts.items()), self.base + start):
            self.slots[model, slot.name] = slot
            for i in range(slot.size):
                self._at[slot.address + i] = (slot, i)
            self.words += _not_implemented(slot)
        self.put(model, "ID", model)
        self.put(model, "L", len(self.words) - start - 2)
        for name, count in counts.items():
            self.put(model, name, count)

    @property
    def length(self) -> int:
        """Registers in the map, with "SunS" and the end."""
        return len(self.words)

    def has(self, model: int, name: str) -> bool:
        """Tell whether the map holds the point and it is implemented."""
        slot = self.slots.get((model, name))
        return slot is not None and self._raw(slot) is not None

    def scale_of(self, slot: Slot) -> float:
        """Return the factor between the register and the value."""
        if slot.scale is None:
            return 1.0
        if isinstance(slot.scale, int):
            return float(10.0**slot.scale)
        power = self._raw(self.slots[slot.model, slot.scale])
        return 1.0 if power is None else float(10.0**power)

    def get(self, model: int, name: str) -> float:
        """Return the scaled value of a point; nan where it is not implemented."""
        slot = self.slots[model, name]
        raw = self._raw(slot)
        return float("nan") if raw is None else raw * self.scale_of(slot)

    def put(self, model: int, name: str, value: float | str | None) -> None:
        """Set the scaled value of a point, clamped to what it can hold; None: not implemented."""
        slot = self.slots[model, name]
        at = slot.address - self.base
        self.words[at : at + slot.size] = self._encoded(slot, value)

    def _encoded(self, slot: Slot, value: float | str | None) -> Sequence[int]:
        if value is None or value != value:
            return _not_implemented(slot)
        if isinstance(value, str):
            data = value.encode("ascii", "replace")[: 2 * slot.size].ljust(2 * slot.size, b"\0")
            return struct.unpack(f">{slot.size}H", data)
        code, _ = _TYPES[slot.kind]
        raw = round(value / self.scale_of(slot)) if slot.scale is not None else int(value)
        bits = 16 * slot.size
        if code.islower():  # the lowest value means "not implemented"
            raw = min(max(raw, 1 - (1 << (bits - 1))), (1 << (bits - 1)) - 1)
        else:
            raw = min(max(raw, 0), (1 << bits) - 2)
        return struct.unpack(f">{slot.size}H", struct.pack(f">{code}", raw))

    def _raw(self, slot: Slot) -> int | None:
        at = slot.address - self.base
        return _decoded(slot, self.words[at : at + slot.size])

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
            slot, part = self._at.get(start + at, (None, 0))
            if slot is None or part or at + slot.size > len(values) or not self.may_write(slot):
                raise Refused(ExceptionCode.illegal_address)
            self._check(slot, values[at : at + slot.size])
            names.append((slot.model, slot.name))
            at += slot.size
        first = start - self.base
        self.words[first : first + len(values)] = values
        self.written(names)

    def may_write(self, slot: Slot) -> bool:
        """Tell whether a point is writable: by its model, implemented, not in a read-only curve."""
        if not slot.writable or self._raw(slot) is None:
            return False
        curve, bracket, _ = slot.name.partition("].")
        return not bracket or self.get(slot.model, f"{curve}].ReadOnly") != 1

    def _check(self, slot: Slot, words: Sequence[int]) -> None:
        raw = _decoded(slot, words)
        if raw is None or (slot.choices and raw not in slot.choices):
            raise Refused(ExceptionCode.illegal_value)
        low, high = self.limits.get((slot.model, slot.name), (None, None))
        value, tiny = raw * self.scale_of(slot), 1e-9
        if (low is not None and value < low - tiny) or (high is not None and value > high + tiny):
            raise Refused(ExceptionCode.illegal_value)


@functools.cache
def _slots(model: int, counts: tuple[tuple[str, int], ...], address: int) -> tuple[Slot, ...]:
    """Return the points of a model; equal devices share them."""
    slots = []
    for name, point in _walk(_definition(model), dict(counts)):
        slots.append(_slot(model, name, point, address))
        address += slots[-1].size
    return tuple(slots)


def _slot(model: int, name: str, point: Mapping[str, Any], address: int) -> Slot:
    named = point.get("sf")
    fixed = named is not None and str(named).lstrip("-").isdigit()
    kind = str(point["type"])
    choices = point.get("symbols", ()) if kind.startswith("enum") else ()
    return Slot(
        model=model,
        name=name,
        address=address,
        size=int(point["size"]),
        kind=kind,
        scale=int(named) if named is not None and fixed else named,
        writable=point.get("access") == "RW",
        choices=frozenset(int(s["value"]) for s in choices),
    )


def _not_implemented(slot: Slot) -> Sequence[int]:
    if slot.kind == "string":
        return [0] * slot.size
    return struct.unpack(f">{slot.size}H", _TYPES[slot.kind][1])


def _decoded(slot: Slot, words: Sequence[int]) -> int | None:
    """Return the raw number; None where not implemented. A string counts as its first register."""
    data = struct.pack(f">{len(words)}H", *words)
    if slot.kind == "string":
        return words[0] or None
    code, missing = _TYPES[slot.kind]
    if data == missing and not slot.kind.startswith("acc"):
        return None
    (raw,) = struct.unpack(f">{code}", data)
    return int(raw)
