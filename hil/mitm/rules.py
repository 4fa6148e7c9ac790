"""What a man in the middle does to one device: rules as plain data, places of points, payloads.

A rule belongs to a step of an attack, by its position; the caller says which steps are active.
"""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from hil.adapter.sunspec import SunSpecMap
from hil.devices.codec import BlockCodec, encode, merged, sf_factor
from hil.devices.errors import DeviceError
from hil.devices.places import Place, as_in_file, place_of, raw_range
from hil.devices.points import PointSpec
from hil.devices.spec import DeviceSpec
from hil.modbus.pdu import Span, data_size, write_span


@dataclass(frozen=True)
class FrameRule:
    """Base of all rules.

    Parameters
    ----------
    step : Position of the step in the attack.
    probability : That it acts, for each frame it could act on.
    name : Id of the step, for notes in captures.
    """

    step: int
    probability: float = 1.0
    name: str = ""

    @property
    def label(self) -> str:
        """What notes call the step."""
        return f"step {self.name or self.step}"


@dataclass(frozen=True)
class RewriteRule(FrameRule):
    """Puts ``value``, or ``factor * true + bias``, in the place of a point's value.

    Parameters
    ----------
    direction : In replies to reads, or in requests that write.
    value : In the point's unit.
    hide : Writes only: replies to later reads of the point show what the writer wrote.
    low, high : float
        What is seen stays within; for devices that must not be driven beyond their file's limits.
    """

    point: str = ""
    direction: Literal["read", "write"] = "read"
    value: float | None = None
    factor: float = 1.0
    bias: float = 0.0
    hide: bool = False
    low: float = -math.inf
    high: float = math.inf

    def wanted(self, true: float) -> float:
        """Return the value to be seen in the place of `true`; nan where there is none."""
        wanted = self.factor * true + self.bias if self.value is None else self.value
        return wanted if math.isnan(wanted) else min(max(wanted, self.low), self.high)

    @property
    def is_idle(self) -> bool:
        """Return True where it changes nothing."""
        return self.value is None and self.factor == 1.0 and self.bias == 0.0


@dataclass(frozen=True)
class ExceptionRule(FrameRule):
    """Answers requests with a Modbus exception; the device never sees them."""

    code: int = 4


@dataclass(frozen=True)
class DelayRule(FrameRule):
    """Holds requests back, in wall-clock time; those behind them wait as well."""

    delay_s: float = 0.0


@dataclass(frozen=True)
class DropRule(FrameRule):
    """Drops requests and replies; a connection that is not Modbus is closed."""


@dataclass(frozen=True)
class FloodRule(FrameRule):
    """Sends reads to the device, on a connection of its own, in wall-clock time."""

    requests_per_s: float = 100.0


@dataclass(frozen=True)
class WriteRule(FrameRule):
    """Writes a point itself when the step begins, on a connection of its own."""

    point: str = ""
    value: float = 0.0


class Forged(NamedTuple):
    """One value that was changed on its way.

    Parameters
    ----------
    time_s : As last said by `set_active`.
    true, seen : In the point's unit; nan where it stood for nothing.
    """

    time_s: float
    device: str
    point: str
    true: float
    seen: float
    step: int


class Unrestored(NamedTuple):
    """A point that a step wrote and that is not restored to `value` (in its unit) yet."""

    device: str
    point: str
    value: float
    step: int


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


@dataclass(frozen=True)
class WirePoint:
    """Where a point lies on the wire.

    Parameters
    ----------
    sf : Scale factor as it is known.
    sf_address : Register of the scale factor; where a frame carries it, that one counts.
    function : Modbus function that writes the point: 5, 6, 15 or 16.
    """

    place: Place
    sf: float = 0.0
    sf_address: int | None = None
    function: int = 16

    def factor(self, payload: Payload | None) -> float:
        """Return the scale factor that holds for a message."""
        word = None
        if self.sf_address is not None and payload is not None:
            word = payload.word(self.sf_address)
        return self.sf if word is None else float(word - 0x10000 * (word >> 15))

    def value(self, words: list[int], sf: float) -> float:
        """Return the value that registers stand for; nan for none."""
        if self.place.is_bit:
            return float(words[0])
        data = struct.pack(f">{self.place.words}H", *words)
        return float(_codec(self.place).decode(data, np.array([sf]))[0])

    def words(
        self, value: float, sf: float, now: list[int] | None
    ) -> tuple[list[int], float] | None:
        """Return the registers nearest to `value` and what they stand for; None for none.

        `now` are the registers as they are, None where not known; a part of them may be kept.
        """
        low, high = self._ends(sf)
        parts = self.place.is_masked or self.place.word_addresses
        try:
            words, stands_for = encode(self.place, min(max(value, low), high), sf=sf)
        except DeviceError:
            return None
        if not parts:
            return words, stands_for
        return None if now is None else (merged(self.place, now, words), stands_for)

    def _ends(self, sf: float) -> tuple[float, float]:
        """Return the lowest and highest value that the registers can hold."""
        place = self.place
        low, high = raw_range(place.kind, place.mask)
        if place.kind not in ("float32", "float64", "bool"):
            low, high = low + (low == place.sentinel), high - (high == place.sentinel)
        factor = sf_factor(sf) * place.scale
        ends = (low * factor + place.offset, high * factor + place.offset)
        return min(ends), max(ends)


@functools.lru_cache(maxsize=4096)
def _codec(place: Place) -> BlockCodec:
    return BlockCodec([place], place.address, place.words)


def wire_points(
    spec: DeviceSpec, names: Iterable[str], found: SunSpecMap | None = None
) -> dict[str, WirePoint]:
    """Return the points whose place is known; SunSpec points only with a scan of the device."""
    out = {}
    for name in names:
        point = spec.points[name]
        if point.sunspec is not None:
            known = found.points.get(point.sunspec) if found is not None else None
            if found is not None and known is not None:
                out[name] = _sunspec_point(known.place, point, found)
        elif (place := place_of(point)) is not None:
            function = point.function(bits=place.is_bit, words=place.words)
            # A factor or sign in another register is not known here: such a value is left alone.
            elsewhere = place.sf is not None or place.factor_from or place.sign_from
            out[name] = WirePoint(place, math.nan if elsewhere else 0.0, None, function)
    return out


def _sunspec_point(place: Place, point: PointSpec, found: SunSpecMap) -> WirePoint:
    placed = as_in_file(place, point)
    function = point.function(bits=False, words=place.words)
    if not isinstance(place.sf, str):
        return WirePoint(placed, float(place.sf or 0), None, function)
    sf = found.factors.get(place.sf, math.nan)
    return WirePoint(placed, sf, found.points[place.sf].place.address, function)


def limits_of(spec: DeviceSpec, point: str) -> tuple[float, float] | None:
    """Return between which values a point may be driven by the device file; None for no limits.

    A point that only the guard writes, without limits of its own, may have what the file has the
    guard write to it.
    """
    at = spec.points[point]
    names = list((at.enum or {}).values())
    values = [float(v) for v in names if at.min is None or at.max is None]
    for other in spec.points.values():
        values += [w.value for w in other.enable if w.point == point]
        if other.reversion is not None:
            values += [w.value for w in other.reversion.before if w.point == point]
            values += [other.reversion.seconds] if other.reversion.point == point else []
    low = at.min if at.min is not None else min(values, default=None)
    high = at.max if at.max is not None else max(values, default=None)
    return None if low is None or high is None else (float(low), float(high))


def points_of(rules: Iterable[FrameRule]) -> list[str]:
    """Return the points that rules name, each once."""
    named = [r.point for r in rules if isinstance(r, RewriteRule | WriteRule)]
    return list(dict.fromkeys(named))
