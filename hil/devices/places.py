"""Where points lie in the tables of a device, and which bits there are their value."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from hil.devices.errors import DeviceError

if TYPE_CHECKING:
    from hil.devices.points import PointSpec

STRUCT_CODES = {
    "int16": "h", "uint16": "H", "int32": "i", "uint32": "I", "int64": "q", "uint64": "Q",
    "float32": "f", "float64": "d",
}  # fmt: skip
TYPE_WORDS = {
    "bool": 1, "string": 1, "int8": 1, "uint8": 1, "bcd16": 1, "bcd32": 2,
    "mod10k_32": 2, "mod10k_48": 3, "mod10k_64": 4,
} | {kind: struct.calcsize(">" + code) // 2 for kind, code in STRUCT_CODES.items()}  # fmt: skip


def mask_bits(kind: str, mask: int | None = None) -> int:
    """Return how many bits of its registers a value has; an int8 has those of a byte."""
    if mask is not None:
        return mask.bit_count()
    return 8 if kind in ("int8", "uint8") else 16 * TYPE_WORDS[kind]


def raw_range(kind: str, mask: int | None = None) -> tuple[float, float]:
    """Return the lowest and highest raw value of a type, or of the bits of it in `mask`."""
    if kind == "bool":
        return 0, 1
    if kind in ("float32", "float64"):
        limit = float(np.finfo(kind).max)
        return -limit, limit
    if kind.startswith("bcd"):
        return 0, 10 ** (4 * TYPE_WORDS[kind]) - 1
    if kind.startswith("mod10k"):
        return 0, 10_000 ** TYPE_WORDS[kind] - 1
    bits = mask_bits(kind, mask)
    return (0, 2**bits - 1) if kind[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def sentinel_of(kind: str, given: int, mask: int | None = None) -> int | None:
    """Return the raw value that `given`, a raw value or a bit pattern of the type, stands for.

    None for a pattern that is no value anyway: a NaN, or no decimal digits.

    Raises DeviceError: The type, or the bits in `mask`, cannot hold it.
    """
    low, high = raw_range(kind, mask)
    bits = mask_bits(kind, mask)
    is_pattern = 0 <= given < 2**bits
    if kind in ("float32", "float64"):
        number = np.dtype(kind)
        pattern = given.to_bytes(bits // 8, "little") if is_pattern else b""
        if not bool(np.isfinite(np.frombuffer(pattern, number.newbyteorder("<"))).all()):
            return None
        if abs(given) <= high and int(number.type(given)) == given:
            return given
    elif low <= given <= high:
        return given
    elif kind.startswith(("bcd", "mod10k")):
        # Every digit, or group of four, that a pattern has must be one.
        size = 4 if kind.startswith("bcd") else 16
        digits = [given >> k & (1 << size) - 1 for k in range(0, bits, size)]
        if is_pattern and max(digits) > 10 ** (size // 4) - 1:
            return None
    elif kind != "bool" and -(2 ** (bits - 1)) <= given < 2**bits:
        return given + (1 << bits) if kind[0] == "u" else given - (1 << bits)
    raise DeviceError(f"{given} does not fit {kind}", expected=f"{low:.16g} to {high:.16g}")


def in_order(words: Sequence[int], word_order: str, byte_order: str) -> list[int]:
    """Return words, the most significant first, as registers hold them, or the reverse."""
    ordered = list(words) if word_order == "big" else list(words)[::-1]
    return [(w & 0xFF) << 8 | w >> 8 for w in ordered] if byte_order == "little" else ordered


@dataclass(frozen=True)
class Place:
    """Where a point is and how its raw value becomes a value.

    Parameters
    ----------
    address : Zero-based address of the first register or bit.
    kind : Raw type (`hil.devices.points.RawType`).
    words : Registers from the first to the last (bits: 1).
    scale, offset : ``value = raw * 10**sf * scale + offset``.
    sentinel : Raw value that means "not implemented".
    sf : Decimal exponent (SunSpec scale factor): a number, or the name of the point that holds it.
    byte_order : Order of the bytes in each word.
    mask : Bits of the integer that are the value; the topmost is the sign of a signed type.
    word_addresses : One address per word where they are not adjacent, in word order.
    factor_from : Point whose value is a further factor of the scale.
    sign_from : Point that holds the sign, and its raw values that mean minus.
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
    byte_order: str = "big"
    mask: int | None = None
    word_addresses: tuple[int, ...] = ()
    factor_from: str | None = None
    sign_from: tuple[str, tuple[int, ...]] | None = None

    @property
    def end(self) -> int:
        """Address behind the last register."""
        return self.address + self.words

    @property
    def is_bit(self) -> bool:
        """Return True for coils and discrete inputs."""
        return self.table in ("coil", "discrete")

    @property
    def is_float(self) -> bool:
        """Return True for IEEE 754 numbers."""
        return self.kind in ("float32", "float64")

    @property
    def is_mod10k(self) -> bool:
        """Return True where each word holds four decimal digits, 0 to 9999."""
        return self.kind.startswith("mod10k")

    @property
    def is_signed(self) -> bool:
        """Return True where the topmost bit is a sign."""
        return self.kind.startswith("int")

    @property
    def is_masked(self) -> bool:
        """Return True where a write must keep other bits of the registers."""
        return self.mask is not None or self.kind in ("int8", "uint8")

    @property
    def bits(self) -> int:
        """Bits of the raw value."""
        return mask_bits(self.kind, self.mask)

    @property
    def pattern_mask(self) -> int:
        """Bits of the registers, taken as one integer, that are the value."""
        return (1 << self.bits) - 1 if self.mask is None else self.mask

    @property
    def shift(self) -> int:
        """How far the value is shifted up in its registers."""
        return (self.pattern_mask & -self.pattern_mask).bit_length() - 1

    @property
    def words_at(self) -> tuple[int, ...]:
        """Addresses of the words, the most significant one first."""
        at = self.word_addresses or tuple(range(self.address, self.end))
        return at if self.word_order == "big" else at[::-1]

    @property
    def is_plain(self) -> bool:
        """Return True where a code of `struct` decodes it, exactly."""
        odd = self.is_masked or self.word_addresses or self.byte_order != "big"
        long = self.words == 4 and not self.is_float and self.sentinel is not None
        little = self.word_order != "big" and self.words > 1
        return not (odd or long or little) and self.kind in STRUCT_CODES

    def pattern_of(self, raw: float) -> int:
        """Return the bits of a raw value, not shifted; decimal digits where the type has them."""
        if self.is_float:
            return int.from_bytes(struct.pack(">" + STRUCT_CODES[self.kind], raw), "big")
        if self.kind.startswith("bcd"):
            return int(str(raw), 16)
        return int(raw) if self.is_mod10k else int(raw) % (1 << self.bits)

    def split(self, pattern: int) -> list[int]:
        """Return the words of a pattern, the most significant first."""
        base = 10_000 if self.is_mod10k else 0x10000
        return [pattern // base**k % base for k in reversed(range(TYPE_WORDS[self.kind]))]

    def in_order(self, words: Sequence[int]) -> list[int]:
        """Return words, the most significant first, as its registers hold them, or the reverse."""
        return in_order(words, self.word_order, self.byte_order)

    @property
    def wire_mask(self) -> list[int] | None:
        """Bits of each register that a write may change; None where it may change all."""
        return self.in_order(self.split(self.pattern_mask)) if self.is_masked else None


def place_of(point: PointSpec) -> Place | None:
    """Return where a point with table, address and type is; None for a SunSpec point."""
    apart = tuple(point.word_addresses or ())
    address = min(apart) if apart else point.address
    if point.table is None or address is None or point.type is None:
        return None
    words = 1 if point.table in ("coil", "discrete") else TYPE_WORDS[point.type]
    if apart:
        words = max(apart) + 1 - address
    place = Place(
        point.table, address, point.type, words, point.word_order, byte_order=point.byte_order,
        word_addresses=apart,
    )  # fmt: skip
    return as_in_file(place, point)


def as_in_file(place: Place, point: PointSpec) -> Place:
    """Return a place (of a SunSpec model, too) with what the device file says of its value."""
    sf, factor_from, sentinel = place.sf, None, place.sentinel
    if point.scale_from is not None and point.scale_from.kind == "exponent":
        sf = point.scale_from.point
    elif point.scale_from is not None:
        factor_from = point.scale_from.point
    sign = point.sign_from
    if point.not_implemented is not None:
        sentinel = sentinel_of(place.kind, point.not_implemented, point.mask)
    return replace(
        place,
        scale=point.scale,
        offset=point.offset,
        mask=point.mask,
        sentinel=sentinel,
        sf=sf,
        factor_from=factor_from,
        sign_from=None if sign is None else (sign.point, tuple(sign.negative)),
    )
