"""Registers to values and back.

A `BlockCodec` turns the payload of one read into an array of values with one `struct` call and a
few array operations; what is not implemented, not finite or has no scale factor becomes nan.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hil.devices.errors import DeviceError
from hil.devices.places import STRUCT_CODES, Place, raw_range
from hil.devices.registers import WordDecoder

_SF_LIMIT = 10
"""SunSpec allows scale factors from -10 to 10; anything else is invalid."""


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

    Raises DeviceError: The value is not finite, does not fit the type, means "not implemented", has
    no raw value inside the limits, or the scale factor is not there.
    """
    factor = sf_factor(sf) * place.scale
    if not math.isfinite(value) or not math.isfinite(factor):
        raise DeviceError(f"{value} cannot be encoded", expected="a finite value and scale factor")
    exact = (value - place.offset) / factor
    # 7 * 0.1 is a little more than 0.7, which is still a limit of 0.7
    slack = 1e-12 * max(abs(value), abs(place.offset)) if place.is_float else 1e-9 * abs(factor)
    for raw in _near(place, exact):
        stands_for = _stands_for(raw, sf, place)
        if low - slack <= stands_for <= high + slack:
            break
    else:
        text = f"no value near {value:g} that the register can hold is inside"
        raise DeviceError(text, expected=f"{low:g} to {high:g}")
    lowest, highest = raw_range(place.kind, place.mask)
    if not lowest <= raw <= highest or raw == place.sentinel:
        raise DeviceError(
            f"{value:g} does not fit {place.kind}", expected=f"raw {lowest:g} to {highest:g}"
        )
    if place.is_bit:
        return [int(raw)], float(raw)
    words = place.in_order(place.split(place.pattern_of(raw) << place.shift))
    return words, stands_for


def _near(place: Place, exact: float) -> Sequence[float]:
    """Return the raw value nearest to `exact` and its neighbours."""
    if not place.is_float:
        raw = round(exact)
        return raw, raw - 1, raw + 1
    kind = np.dtype(place.kind).type
    with np.errstate(over="ignore"):
        number = kind(exact)
        others = np.nextafter(number, kind(-math.inf)), np.nextafter(number, kind(math.inf))
    return float(number), float(others[0]), float(others[1])


def merged(place: Place, registers: Sequence[int], words: Sequence[int]) -> list[int]:
    """Return the registers of a place with `words` in them and every other bit as it is.

    Parameters
    ----------
    registers : What the place has now, from its first to its last register.
    words : As `encode` gives them.
    """
    whole = list(registers)
    masks = place.wire_mask or [0xFFFF] * len(words)
    at = place.word_addresses or range(place.address, place.end)
    for address, word, mask in zip(at, words, masks, strict=True):
        i = address - place.address
        whole[i] = whole[i] & ~mask | word & mask
    return whole


def _stands_for(raw: float, sf: float, place: Place) -> float:
    # 334 / 10 is 33.4; 334 * 0.1 is 33.400000000000006
    scaled = raw / 10.0 ** -int(sf) if sf < 0 else raw * 10.0 ** int(sf)
    return scaled * place.scale + place.offset


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
        seen: dict[tuple[int, str], int] = {}
        order: list[int] = []
        others: list[int] = []
        for slot, place in enumerate(places):
            # Two names for the same registers share a field.
            key = (place.address, place.kind)
            if not place.is_plain or (key not in seen and place.address < at):
                others.append(slot)
                order.append(0)
                continue
            if key not in seen:
                seen[key] = len(seen)
                layout += f"{2 * (place.address - at)}x{STRUCT_CODES[place.kind]}"
                at = place.end
            order.append(seen[key])
        self._struct = struct.Struct(layout + f"{2 * (address + count - at)}x") if seen else None
        self._in_order = order == list(range(len(order)))
        self._order = np.array(order, dtype=np.intp)
        self._others = np.array(others, dtype=np.intp)
        self._words = WordDecoder([places[i] for i in others], address, count) if others else None
        self._scale = np.array([p.scale for p in places])
        self._offset = np.array([p.offset for p in places])
        plain = [None if i in others else p.sentinel for i, p in enumerate(places)]
        self._sentinel = np.array([math.nan if s is None else float(s) for s in plain])
        self._has_offset = bool(np.any(self._offset))

    def raw(self, payload: bytes) -> npt.NDArray[np.float64]:
        """Return the raw values, one per place; nan where not implemented."""
        if self._struct is None:
            raw = np.empty(self._order.size)
        else:
            raw = np.array(self._struct.unpack(payload), dtype=np.float64)
            raw = raw if self._in_order else raw[self._order]
        if self._words is not None:
            raw[self._others] = self._words.raw(payload)
        raw[raw == self._sentinel] = np.nan
        raw[~np.isfinite(raw)] = np.nan
        return raw

    def decode(
        self, payload: bytes, sf: npt.NDArray[np.float64] | None = None
    ) -> npt.NDArray[np.float64]:
        """Return the values, one per place; nan where there is none or the scale factor is nan."""
        raw = self.raw(payload)
        if sf is not None:
            raw = times_power(raw, sf)
        values: npt.NDArray[np.float64] = raw * self._scale
        return values + self._offset if self._has_offset else values


def times_power(
    raw: npt.NDArray[np.float64], exponent: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return ``raw * 10**exponent``; nan where the exponent is not there or not believable."""
    believable = np.abs(exponent) <= _SF_LIMIT
    power = 10.0 ** np.where(believable, np.abs(exponent), 0.0)
    with np.errstate(over="ignore"):
        return np.where(believable, np.where(exponent < 0, raw / power, raw * power), np.nan)


class Multipliers:
    """Factors and signs that places take from other points of the device.

    Parameters
    ----------
    places : One per slot.
    slot : Slot of each point by its name.
    """

    def __init__(self, places: Sequence[Place], slot: Mapping[str, int]) -> None:
        factor = [(i, slot[p.factor_from]) for i, p in enumerate(places) if p.factor_from]
        sign = [
            (i, slot[p.sign_from[0]], p.sign_from[1]) for i, p in enumerate(places) if p.sign_from
        ]
        self._n = len(places)
        self._factor = np.array(factor, dtype=np.intp).reshape(-1, 2)
        self._sign = np.array([s[:2] for s in sign], dtype=np.intp).reshape(-1, 2)
        most = max((len(s[2]) for s in sign), default=0)
        self._minus = np.array([[*s[2], *[math.nan] * (most - len(s[2]))] for s in sign])

    def __bool__(self) -> bool:
        return bool(self._factor.size or self._sign.size)

    def of(
        self, raw: npt.NDArray[np.float64], value: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        """Return what ``raw * scale`` of each slot is multiplied with; nan where it is not known.

        Parameters
        ----------
        raw, value : Of all slots, as last read; nan where there is none.
        """
        times = np.ones(self._n)
        at, source = self._factor.T
        times[at] *= value[source]
        if self._sign.size:
            at, source = self._sign.T
            told = raw[source]
            minus = np.any(told[:, None] == self._minus, axis=1)
            times[at] *= np.where(np.isnan(told), np.nan, np.where(minus, -1.0, 1.0))
        return times


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
    places: Sequence[Place],
    *,
    max_registers: int = 125,
    max_gap: int = 0,
    borders: Sequence[int] = (),
) -> list[Request]:
    """Return the fewest reads that fetch all places.

    A place is never split. Greedy from the lowest address is optimal for intervals that may
    only grow to the right (each read starts where the first unread place starts).

    Parameters
    ----------
    max_registers : Most registers of one read.
    max_gap : Most registers between two wanted ones that may be read as well.
    borders : Addresses that no read crosses; each is the first of what lies behind it.
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
            fits = fits and not any(start < b < place.end for b in borders)
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
