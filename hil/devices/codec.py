"""Registers to values and back.

A `BlockCodec` turns the payload of one read into an array of values with one `struct` call and a
few array operations; what is not implemented, not finite or has no scale factor becomes nan.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from hil.devices.errors import DeviceError

if TYPE_CHECKING:
    from hil.devices.points import PointSpec

STRUCT_CODES = {
    "int16": "h", "uint16": "H", "int32": "i", "uint32": "I", "int64": "q", "uint64": "Q",
    "float32": "f", "float64": "d",
}  # fmt: skip
TYPE_WORDS = {"bool": 1, "string": 1} | {
    kind: struct.calcsize(">" + code) // 2 for kind, code in STRUCT_CODES.items()
}
_SF_LIMIT = 10
"""SunSpec allows scale factors from -10 to 10; anything else is invalid."""


def raw_range(kind: str) -> tuple[float, float]:
    """Return the lowest and highest raw value of a type."""
    if kind == "bool":
        return 0, 1
    if kind in ("float32", "float64"):
        limit = float(np.finfo(kind).max)
        return -limit, limit
    bits = 16 * TYPE_WORDS[kind]
    return (0, 2**bits - 1) if kind[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


@dataclass(frozen=True)
class Place:
    """Where a point is and how its raw value becomes a value.

    Parameters
    ----------
    address : Zero-based address of the first register or bit.
    kind : Raw type (`hil.devices.points.RawType`).
    words : Registers (bits: 1).
    scale, offset : ``value = raw * 10**sf * scale + offset``.
    sentinel : Raw value that means "not implemented".
    sf : SunSpec scale factor: a number, or the name of the point that holds it.
    """

    table: Literal["coil", "discrete", "input", "holding"]
    address: int
    kind: str
    words: int = 1
    word_order: str = "big"
    scale: float = 1.0
    offset: float = 0.0
    sentinel: int | None = None
    sf: int | str | None = None

    @property
    def end(self) -> int:
        """Address behind the last register."""
        return self.address + self.words

    @property
    def is_bit(self) -> bool:
        """Return True for coils and discrete inputs."""
        return self.table in ("coil", "discrete")


def place_of(point: PointSpec) -> Place | None:
    """Return where a point with table, address and type is; None for a SunSpec point."""
    if point.table is None or point.address is None or point.type is None:
        return None
    words = 1 if point.table in ("coil", "discrete") else TYPE_WORDS[point.type]
    return Place(
        point.table, point.address, point.type, words, point.word_order, point.scale,
        point.offset, point.not_implemented,
    )  # fmt: skip


def sf_factor(sf: float) -> float:
    """Return 10**sf, or nan where the scale factor is not implemented or not believable."""
    if not -_SF_LIMIT <= sf <= _SF_LIMIT:
        return math.nan
    return 10.0 ** int(sf)


def encode(
    place: Place, value: float, *, sf: float = 0.0, low: float = -math.inf, high: float = math.inf
) -> tuple[list[int], float]:
    """Return the registers for `value`, and the value that they stand for.

    Rounds to the nearest raw value; where that would be outside `low` to `high`, to the next one
    inside.

    Raises DeviceError: The value is not finite, does not fit the type, means "not implemented", or
    the scale factor is not there.
    """
    factor = sf_factor(sf) * place.scale
    if not math.isfinite(value) or not math.isfinite(factor):
        raise DeviceError(f"{value} cannot be encoded", expected="a finite value and scale factor")
    exact = (value - place.offset) / factor
    if place.kind in ("float32", "float64"):
        return _encode_float(place, exact, factor)
    raw = round(exact)
    for step in (0, -1, 1):
        stands_for = _stands_for(raw + step, sf, place)
        if low <= stands_for <= high:
            raw += step
            break
    lowest, highest = raw_range(place.kind)
    if not lowest <= raw <= highest or raw == place.sentinel:
        raise DeviceError(
            f"{value:g} does not fit {place.kind}", expected=f"raw {lowest} to {highest}"
        )
    if place.is_bit:
        return [raw], float(raw)
    words = _words(struct.pack(">" + STRUCT_CODES[place.kind], raw), place.word_order)
    return words, _stands_for(raw, sf, place)


def _stands_for(raw: int, sf: float, place: Place) -> float:
    # 334 / 10 is 33.4; 334 * 0.1 is 33.400000000000006
    scaled = raw / 10.0 ** -int(sf) if sf < 0 else raw * 10.0 ** int(sf)
    return scaled * place.scale + place.offset


def _encode_float(place: Place, exact: float, factor: float) -> tuple[list[int], float]:
    try:
        data = struct.pack(">" + STRUCT_CODES[place.kind], exact)
    except OverflowError:
        raise DeviceError(f"{exact:g} does not fit {place.kind}") from None
    raw = struct.unpack(">" + STRUCT_CODES[place.kind], data)[0]
    return _words(data, place.word_order), raw * factor + place.offset


def _words(data: bytes, order: str) -> list[int]:
    words = list(struct.unpack(f">{len(data) // 2}H", data))
    return words if order == "big" else words[::-1]


def decode_one(place: Place, registers: Sequence[int], *, sf: float = 0.0) -> float:
    """Return the value of one point from its registers (or bits); nan if it is not implemented."""
    if place.is_bit:
        return float(registers[0])
    codec = BlockCodec([place], place.address, place.words)
    data = struct.pack(f">{place.words}H", *registers)
    return float(codec.decode(data, np.array([sf]))[0])


class BlockCodec:
    """Decodes the payload of one read of registers.

    Parameters
    ----------
    places : Points inside the block, without text; sorted by address.
    address, count : First register and number of registers of the block.
    """

    def __init__(self, places: Sequence[Place], address: int, count: int) -> None:
        layout, at = ">", address
        self._swapped: list[tuple[int, struct.Struct]] = []
        seen: dict[tuple[int, str, str], int] = {}
        self._order: list[int] = []
        for place in places:
            # Two names for the same registers share a field.
            key = (place.address, place.kind, place.word_order)
            index = seen.setdefault(key, len(seen))
            self._order.append(index)
            if index != len(seen) - 1 or self._order.count(index) > 1:
                continue
            if place.address < at:
                raise DeviceError("points overlap", where=f"address {place.address}")
            layout += f"{2 * (place.address - at)}x"
            if place.word_order == "little" and place.words > 1:
                self._swapped.append((index, struct.Struct(">" + STRUCT_CODES[place.kind])))
                layout += f"{2 * place.words}s"
            else:
                layout += STRUCT_CODES[place.kind]
            at = place.end
        self._struct = struct.Struct(layout + f"{2 * (address + count - at)}x")
        self._plain = self._order == list(range(len(self._order)))
        self._scale = np.array([p.scale for p in places])
        self._offset = np.array([p.offset for p in places])
        self._sentinel = np.array(
            [math.nan if p.sentinel is None else float(p.sentinel) for p in places]
        )
        self._has_offset = bool(np.any(self._offset))

    def raw(self, payload: bytes) -> npt.NDArray[np.float64]:
        """Return the raw values, one per place; nan where not implemented."""
        fields = self._struct.unpack(payload)
        if self._swapped:
            mutable = list(fields)
            for index, reader in self._swapped:
                data = mutable[index]
                words = [data[i : i + 2] for i in range(0, len(data), 2)]
                mutable[index] = reader.unpack(b"".join(reversed(words)))[0]
            fields = tuple(mutable)
        if not self._plain:
            fields = tuple(fields[i] for i in self._order)
        raw = np.array(fields, dtype=np.float64)
        raw[raw == self._sentinel] = np.nan
        raw[~np.isfinite(raw)] = np.nan
        return raw

    def decode(
        self, payload: bytes, sf: npt.NDArray[np.float64] | None = None
    ) -> npt.NDArray[np.float64]:
        """Return the values, one per place; nan where there is none or the scale factor is nan."""
        raw = self.raw(payload)
        if sf is not None:
            believable = np.abs(sf) <= _SF_LIMIT
            power = 10.0 ** np.where(believable, np.abs(sf), 0.0)
            raw = np.where(believable, np.where(sf < 0, raw / power, raw * power), np.nan)
        values: npt.NDArray[np.float64] = raw * self._scale
        return values + self._offset if self._has_offset else values


@dataclass(frozen=True)
class Request:
    """One read that fetches several points.

    Parameters
    ----------
    address, count : First register (or bit) and how many.
    members : Indices of the places it fetches.
    """

    table: str
    address: int
    count: int
    members: tuple[int, ...]


def plan_requests(
    places: Sequence[Place], *, max_registers: int = 125, max_gap: int = 0
) -> list[Request]:
    """Return the fewest reads that fetch all places.

    A place is never split. Greedy from the lowest address is optimal for intervals that may
    only grow to the right (each read starts where the first unread place starts).

    Parameters
    ----------
    max_registers : Most registers of one read.
    max_gap : Most registers between two wanted ones that may be read as well.
    """
    requests: list[Request] = []
    for table in ("coil", "discrete", "input", "holding"):
        members = sorted(
            (i for i, p in enumerate(places) if p.table == table), key=lambda i: places[i].address
        )
        current: list[int] = []
        start = end = 0
        for i in members:
            place = places[i]
            fits = place.end - start <= max_registers and place.address - end <= max_gap
            if current and not fits:
                requests.append(Request(table, start, end - start, tuple(current)))
                current = []
            if not current:
                start, end = place.address, place.address
            current.append(i)
            end = max(end, place.end)
        if current:
            requests.append(Request(table, start, end - start, tuple(current)))
    return requests
