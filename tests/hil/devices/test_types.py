"""Types of real register maps: masks, orders, decimal digits, words apart, 64 bits exactly."""

from __future__ import annotations

import math
import struct
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hil.devices.codec import BlockCodec, Multipliers, decode_one, encode, merged, times_power
from hil.devices.errors import DeviceError
from hil.devices.places import TYPE_WORDS, Place, place_of, raw_range, sentinel_of
from hil.devices.points import PointSpec, RawType
from hil.devices.registers import WordDecoder

NUMBERS = [k for k in get_args(RawType) if k not in ("bool", "string")]
INTEGERS = [k for k in NUMBERS if "int" in k]
ORDERS = st.sampled_from(["big", "little"])


@st.composite
def masks(draw: st.DrawFn, kind: str) -> int | None:
    """Return a run of bits of the type, or None."""
    if kind not in INTEGERS:
        return None
    size = 16 * TYPE_WORDS[kind]
    low = draw(st.integers(0, size - 1))
    bits = draw(st.integers(1, size - low))
    return draw(st.sampled_from([None, ((1 << bits) - 1) << low]))


@st.composite
def places(draw: st.DrawFn) -> Place:
    """Return any place of a number."""
    kind = draw(st.sampled_from(NUMBERS))
    words = TYPE_WORDS[kind]
    place = Place(
        "holding", 7, kind, words, draw(ORDERS), byte_order=draw(ORDERS), mask=draw(masks(kind))
    )
    if draw(st.booleans()):
        apart = draw(st.lists(st.integers(0, 60), min_size=words, max_size=words, unique=True))
        span = max(apart) + 1 - min(apart)
        place = replace(place, address=min(apart), words=span, word_addresses=tuple(apart))
    return place


def raw_of(place: Place, part: float) -> float:
    low, high = raw_range(place.kind, place.mask)
    if place.is_float:
        return float(np.dtype(place.kind).type(part * 1e6))
    return min(max(round(low + part * (high - low)), int(low)), int(high))


@given(place=places(), part=st.floats(0, 1), other=st.sampled_from([0, 0xFFFF, 0x1234]))
def test_every_type_mask_and_order_is_decoded_as_it_was_encoded(
    place: Place, part: float, other: int
) -> None:
    raw = raw_of(place, part)
    try:
        words, sent = encode(place, raw)
    except DeviceError:
        assert abs(raw) > 2**53  # float64 rounds it to a number that the type does not have
        return
    assert len(words) == TYPE_WORDS[place.kind]
    kept = merged(place, [other] * place.words, words)
    reply = struct.pack(f">{place.words}H", *kept)
    got = BlockCodec([place], place.address, place.words).decode(reply)
    assert got.tolist() == [sent] == [float(raw)]
    assert WordDecoder([place], place.address, place.words).raw(reply).tolist() == [sent]


@given(place=places(), part=st.floats(0, 1), other=st.integers(0, 0xFFFF))
def test_a_masked_write_keeps_every_other_bit(place: Place, part: float, other: int) -> None:
    if not place.is_masked or place.bits > 48:
        return
    words, _ = encode(place, raw_of(place, part))
    kept = merged(place, [other] * place.words, words)
    opposite = merged(place, [other ^ 0xFFFF] * place.words, words)
    pairs = list(zip(kept, opposite, strict=True))
    # The bits of the value do not depend on what was there; all others are as they were.
    assert sum(16 - (a ^ b).bit_count() for a, b in pairs) == place.bits
    assert all((a ^ other) & (a ^ b) == 0 for a, b in pairs)


@given(st.binary(min_size=2 * 40, max_size=2 * 40), st.lists(places(), min_size=1, max_size=12))
def test_a_block_gives_what_its_places_give_alone(data: bytes, found: list[Place]) -> None:
    inside = sorted((p for p in found if p.end <= 40), key=lambda p: p.address)
    if not inside:
        return
    together = BlockCodec(inside, 0, 40).raw(data)
    registers = struct.unpack(">40H", data)
    alone = [decode_one(p, registers[p.address : p.end]) for p in inside]
    np.testing.assert_array_equal(together, alone)


def test_known_registers() -> None:
    """Worked by hand: 1.0 is 0x3F800000; 12345678 as BCD and as words of four digits."""
    one = {"big": [0x3F80, 0], "little": [0, 0x3F80]}
    for order, words in one.items():
        place = Place("holding", 0, "float32", 2, order)
        assert encode(place, 1.0)[0] == words
        swapped = replace(place, byte_order="little")
        assert encode(swapped, 1.0)[0] == [w >> 8 | (w & 255) << 8 for w in words]
    assert encode(Place("holding", 0, "bcd32", 2), 12345678)[0] == [0x1234, 0x5678]
    assert encode(Place("holding", 0, "mod10k_32", 2), 12345678)[0] == [1234, 5678]
    assert encode(Place("holding", 0, "int8"), -2)[0] == [0x00FE]
    assert encode(Place("holding", 0, "int8", mask=0xFF00), -2)[0] == [0xFE00]
    assert decode_one(Place("input", 0, "uint16", mask=0x00F0), [0xABCD]) == 0xC
    assert decode_one(Place("input", 0, "int16", mask=0x00F0), [0xABCD]) == 0xC - 16
    apart = Place("input", 10, "uint32", 6, word_addresses=(15, 10))
    assert decode_one(apart, [2, 9, 9, 9, 9, 1]) == 0x10002


@pytest.mark.parametrize(
    ("kind", "words"), [("bcd16", [0x12A4]), ("bcd32", [0x1234, 0xF000]), ("mod10k_32", [1, 10000])]
)
def test_what_has_no_decimal_digits_is_no_value(kind: str, words: list[int]) -> None:
    assert math.isnan(decode_one(Place("input", 0, kind, len(words)), words))


@pytest.mark.parametrize(
    ("kind", "given", "words"),
    [
        ("int32", 0x80000000, [0x8000, 0]),
        ("int32", -0x80000000, [0x8000, 0]),
        ("int16", 0x8000, [0x8000]),
        ("uint16", -1, [0xFFFF]),
        ("int8", 0x80, [0x1280]),
        ("uint64", 0xFFFFFFFFFFFFFFFF, [0xFFFF] * 4),
        ("int64", 0x8000000000000000, [0x8000, 0, 0, 0]),
        ("float32", -9999, [0xC61C, 0x3C00]),
        ("float32", 0x7FC00000, [0x7FC0, 0]),
        ("bcd16", 0xFFFF, [0xFFFF]),
        ("bcd16", 9999, [0x9999]),
        ("mod10k_64", 0xFFFFFFFFFFFFFFFF, [0xFFFF] * 4),
    ],
)
def test_not_implemented_is_a_raw_value_or_a_pattern(
    kind: Any, given: int, words: list[int]
) -> None:
    point = PointSpec(table="input", address=3, type=kind, not_implemented=given)
    place = place_of(point)
    assert place is not None
    assert math.isnan(decode_one(place, words))
    near = [*words[:-1], words[-1] ^ 1] if kind != "bcd16" else [0x1234]
    if kind not in ("float32", "mod10k_64"):
        assert math.isfinite(decode_one(place, near))


@pytest.mark.parametrize(
    ("kind", "given", "mask"),
    [
        ("uint16", 0x10000, None), ("int16", -40000, None), ("uint16", 256, 0x00FF),
        ("float32", 16777217, None), ("bcd16", -1, None), ("bcd16", 0x1999F, None),
    ],
)  # fmt: skip
def test_not_implemented_must_fit_its_type(kind: str, given: int, mask: int | None) -> None:
    with pytest.raises(DeviceError):
        sentinel_of(kind, given, mask)


def test_64_bits_are_compared_exactly() -> None:
    """2^64 - 2 and 2^64 - 1 are one number in float64."""
    place = Place("input", 0, "uint64", 4, sentinel=2**64 - 1)
    assert math.isnan(decode_one(place, [0xFFFF] * 4))
    assert decode_one(place, [0xFFFF] * 3 + [0xFFFE]) == 2.0**64


def test_signs_and_factors_come_from_other_points() -> None:
    places = [
        Place("input", 0, "uint16", scale=0.01, factor_from="rated"),
        Place("input", 1, "uint16", sign_from=("direction", (1, 3))),
        Place("input", 2, "uint16"),
        Place("input", 3, "uint16", scale=10.0),
    ]
    times = Multipliers(places, {"pct": 0, "p_w": 1, "direction": 2, "rated": 3})
    assert times
    raw = np.array([50.0, 7.0, 3.0, 500.0])
    value = raw * [0.01, 1, 1, 10]
    assert times.of(raw, value).tolist() == [5000.0, -1.0, 1.0, 1.0]
    raw[2] = 2.0
    assert times.of(raw, value).tolist() == [5000.0, 1.0, 1.0, 1.0]
    raw[2] = value[3] = np.nan
    assert np.isnan(times.of(raw, value)).tolist() == [True, True, False, False]
    assert not Multipliers(places[2:], {})


def test_an_exponent_that_is_not_believable_gives_no_value() -> None:
    raw = np.array([334.0, 334.0, 334.0, 334.0])
    got = times_power(raw, np.array([-1.0, 2.0, -32768.0, np.nan]))
    assert got[:2].tolist() == [33.4, 33400.0]
    assert np.isnan(got[2:]).all()
