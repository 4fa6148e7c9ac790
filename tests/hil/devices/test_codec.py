"""Registers to values and back; the plan of the reads."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hil.devices.codec import BlockCodec, decode_one, encode, plan_requests
from hil.devices.errors import DeviceError
from hil.devices.places import TYPE_WORDS, Place, raw_range

INTEGERS = ["int16", "uint16", "int32", "uint32"]


@given(
    kind=st.sampled_from(INTEGERS),
    order=st.sampled_from(["big", "little"]),
    scale=st.sampled_from([1.0, 0.1, 0.01, 10.0, -1.0]),
    offset=st.sampled_from([0.0, -40.0]),
    part=st.floats(0, 1),
)
def test_what_is_encoded_is_decoded(
    kind: str, order: str, scale: float, offset: float, part: float
) -> None:
    low, high = raw_range(kind)
    raw = round(low + part * (high - low))
    place = Place("holding", 7, kind, TYPE_WORDS[kind], order, scale, offset)
    words, value = encode(place, raw * scale + offset)
    assert value == pytest.approx(raw * scale + offset)
    assert decode_one(place, words) == pytest.approx(value, rel=1e-12, abs=1e-9)


@given(value=st.floats(-(2.0**99), 2.0**99, width=32))
def test_floats_survive_both_word_orders(value: float) -> None:
    for order in ("big", "little"):
        place = Place("holding", 0, "float32", 2, order)
        words, sent = encode(place, value)
        assert decode_one(place, words) == sent == value


def test_known_registers() -> None:
    # -21.5 degC x10 is 0xFF29; 123456.0 as IEEE 754 single is 0x47F12000 (calculated by hand)
    assert encode(Place("holding", 0, "int16", scale=0.1), -21.5)[0] == [0xFF29]
    assert encode(Place("holding", 0, "float32", 2), 123456.0)[0] == [0x47F1, 0x2000]
    assert encode(Place("holding", 0, "float32", 2, "little"), 123456.0)[0] == [0x2000, 0x47F1]


def test_scale_factor_gives_the_decimal_that_was_meant() -> None:
    place = Place("holding", 0, "uint16", sf="x")
    assert encode(place, 33.37, sf=-1) == ([334], 33.4)
    assert decode_one(place, [334], sf=-1) == 33.4


def test_rounding_does_not_cross_a_limit() -> None:
    place = Place("holding", 0, "uint16")
    assert encode(place, 33.37, sf=-1, high=33.37) == ([333], 33.3)
    assert encode(place, 33.33, sf=-1, low=33.33) == ([334], 33.4)


@pytest.mark.parametrize("sf", [-32768, 11, -11, math.nan])
def test_a_scale_factor_that_is_not_there_gives_no_value(sf: float) -> None:
    place = Place("holding", 0, "uint16", sf="x")
    assert math.isnan(decode_one(place, [334], sf=sf))
    with pytest.raises(DeviceError):
        encode(place, 33.4, sf=sf)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 40000.0, -40000.0, -32768.0])
def test_what_does_not_fit_is_not_sent(value: float) -> None:
    with pytest.raises(DeviceError):
        encode(Place("holding", 0, "int16", sentinel=-0x8000), value)


def test_sentinels_and_float_nan_are_not_values() -> None:
    assert math.isnan(decode_one(Place("input", 0, "int16", sentinel=-0x8000), [0x8000]))
    assert math.isnan(decode_one(Place("input", 0, "uint32", 2, sentinel=0xFFFFFFFF), [65535] * 2))
    assert math.isnan(decode_one(Place("input", 0, "float32", 2), [0x7FC0, 0]))
    assert decode_one(Place("input", 0, "uint32", 2), [0, 0]) == 0  # an accumulator of nothing


def test_two_names_for_the_same_registers() -> None:
    places = [
        Place("holding", 4, "int16"),
        Place("holding", 4, "int16", scale=0.1),
        Place("holding", 6, "uint16"),
    ]
    payload = struct.pack(">hHH", -215, 9, 7)
    assert BlockCodec(places, 4, 3).decode(payload).tolist() == pytest.approx([-215, -21.5, 7])


@given(
    st.lists(st.tuples(st.integers(0, 400), st.sampled_from([1, 2, 4])), min_size=1, max_size=40),
    st.integers(4, 125),
    st.integers(0, 124),
)
def test_plan_covers_everything_within_the_limits(
    spots: list[tuple[int, int]], most: int, gap: int
) -> None:
    kinds = {1: "uint16", 2: "uint32", 4: "uint64"}
    places = [Place("holding", a, kinds[n], n) for a, n in spots]
    requests = plan_requests(places, max_registers=most, max_gap=gap)
    fetched = [i for r in requests for i in r.members]
    assert sorted(fetched) == list(range(len(places)))
    for request in requests:
        assert request.count <= most
        inside = [places[i] for i in request.members]
        assert all(request.address <= p.address for p in inside)
        assert max(p.end for p in inside) <= request.address + request.count
        wanted = {a for p in inside for a in range(p.address, p.end)}
        unwanted = np.diff(sorted(wanted)) - 1
        assert not unwanted.size or unwanted.max() <= gap


def test_701_is_read_in_two_requests() -> None:
    """Model 701 has 155 registers with its header; a read may have 125."""
    places = [Place("holding", 40070 + i, "uint16") for i in range(155)]
    requests = plan_requests(places, max_registers=125, max_gap=124)
    assert [(r.address, r.count) for r in requests] == [(40070, 125), (40195, 30)]


def test_gaps_are_read_only_where_allowed() -> None:
    places = [Place("input", a, "uint16") for a in (0, 1, 5)] + [Place("coil", 0, "bool")]
    assert [(r.table, r.count) for r in plan_requests(places)] == [
        ("coil", 1), ("input", 2), ("input", 1),
    ]  # fmt: skip
    assert len(plan_requests(places, max_gap=3)) == 2


def test_a_limit_is_reached_and_not_exceeded_by_rounding() -> None:
    # 7 * 0.1 is a little more than 0.7; -32.768 as a single, times 1000, is a little below -32768
    assert encode(Place("holding", 0, "uint16", scale=0.1), 0.7, high=0.7)[0] == [7]
    single = Place("holding", 0, "float32", 2, scale=1000.0)
    assert encode(single, -32768.0)[1] < -32768.0
    assert -32768.0 <= encode(single, -32768.0, low=-32768.0)[1] < -32767.9
    with pytest.raises(DeviceError, match="no value near 5"):
        encode(Place("holding", 0, "uint16", scale=10.0), 5.0, low=3.0, high=8.0)


def test_what_is_too_large_is_infinite_without_a_warning() -> None:
    words = list(struct.unpack(">4H", struct.pack(">d", 1e308)))
    assert math.isinf(decode_one(Place("holding", 0, "float64", 4, sf="x"), words, sf=9))
