"""What the man in the middle does to messages: registers by address, rules by point."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hil.devices.places import Place
from hil.mitm.attack import Conversation, DeviceAttack
from hil.mitm.rules import DropRule, Payload, RewriteRule, WirePoint, read_payload, write_payload
from hil.modbus.frames import frame
from hil.modbus.pdu import Span, Table, read_span, write_request


@given(st.integers(0, 10), st.integers(1, 20), st.integers(0, 30), st.sampled_from([1, 2, 4]))
def test_registers_are_found_where_they_lie(address: int, count: int, at: int, words: int) -> None:
    data = bytearray(struct.pack(f">BB{count}H", 3, 2 * count, *range(address, address + count)))
    payload = Payload(Span(Table.holding, address, count), data)
    place = Place("holding", at, "uint16", words)
    inside = [address <= a < address + count for a in range(at, at + words)]
    assert payload.touches(place) == any(inside)
    assert payload.holds(place) == all(inside)
    assert not payload.touches(Place("input", at, "uint16", words))
    if payload.holds(place):
        assert payload.get(place) == list(range(at, at + words))
    payload.put(place, [0xFFFF] * words)
    seen = struct.unpack_from(f">{count}H", data, 2)
    assert seen == tuple(
        0xFFFF if at <= a < at + words else a for a in range(address, address + count)
    )


@given(st.integers(0, 9), st.integers(1, 16), st.integers(0, 30), st.booleans())
def test_bits_are_found_where_they_lie(address: int, count: int, at: int, on: bool) -> None:
    size = (count + 7) // 8
    payload = Payload(Span(Table.coil, address, count), bytearray([1, size, *([0x55] * size)]))
    place = Place("coil", at, "bool")
    if payload.holds(place):
        assert payload.get(place) == [1 - (at - address) % 2]
        payload.put(place, [int(on)])
        assert payload.get(place) == [int(on)]
    others = [a for a in range(address, address + count) if a != at]
    assert all(payload.get(Place("coil", a, "bool")) == [1 - (a - address) % 2] for a in others)


@pytest.mark.parametrize(
    ("function", "words"), [(6, [7]), (16, [7]), (16, [7, 8]), (5, [1]), (5, [0]), (15, [1])]
)
def test_a_request_that_writes_says_what_it_writes(function: int, words: list[int]) -> None:
    table = "coil" if function in (5, 15) else "holding"
    place = Place(table, 40, "bool" if table == "coil" else "uint16", len(words))
    payload = write_payload(write_request(function, 40, words))
    assert payload is not None
    assert payload.get(place) == words


@given(st.binary(max_size=30))
def test_malformed_messages_carry_nothing_and_raise_nothing(pdu: bytes) -> None:
    write_payload(pdu)
    span = read_span(pdu)
    if span is not None:
        read_payload(span, pdu)


def test_read_and_write_in_one_request_is_both() -> None:
    pdu = struct.pack(">BHHHHBHH", 23, 10, 3, 20, 2, 4, 5, 6)
    assert read_span(pdu) == Span(Table.holding, 10, 3)
    payload = write_payload(pdu)
    assert payload is not None
    assert payload.get(Place("holding", 20, "uint16", 2)) == [5, 6]


def attack_of(*rules: RewriteRule | DropRule, seed: int = 0) -> DeviceAttack:
    attack = DeviceAttack("d", 1, rules, seed)
    attack.active = frozenset(range(len(rules)))
    return attack


def read_through(
    conversation: Conversation, address: int, words: list[int], tid: int = 1
) -> list[int]:
    n = len(words)
    conversation.from_client(frame(tid, 1, struct.pack(">BHH", 3, address, n)))
    reply = frame(tid, 1, struct.pack(f">BB{n}H", 3, 2 * n, *words))
    return list(struct.unpack_from(f">{n}H", conversation.from_device(reply)[0].data, 9))


POINTS = {
    "power": WirePoint(Place("holding", 10, "int32", 2, "little", scale=0.1)),
    "set": WirePoint(Place("holding", 20, "int16", 1, sentinel=-0x8000), sf=-2, sf_address=21),
}


@given(st.floats(-1e9, 1e9), st.integers(0, 10), st.integers(12, 30))
def test_every_block_that_covers_a_point_shows_the_forged_value(
    value: float, first: int, end: int
) -> None:
    attack = attack_of(RewriteRule(0, point="power", value=value))
    attack.points = POINTS
    honest = [0x1234] * (end - first)
    seen = read_through(Conversation(attack), first, honest)
    at = 10 - first
    low, high = seen[at], seen[at + 1]
    raw = struct.unpack(">i", struct.pack(">HH", high, low))[0]
    assert raw == max(min(round(value / 0.1), 2**31 - 1), -(2**31))
    assert seen[:at] + seen[at + 2 :] == [0x1234] * (len(honest) - 2)
    (record,) = attack.records
    assert record.seen == pytest.approx(0.1 * raw)
    assert record.true == pytest.approx(0.1 * 0x12341234)


def test_half_a_point_is_forged_where_the_value_does_not_need_the_rest() -> None:
    attack = attack_of(RewriteRule(0, point="power", value=6553.6))  # raw 0x00010000
    attack.points = POINTS
    talk = Conversation(attack)
    assert read_through(talk, 10, [9]) == [0]
    assert read_through(talk, 11, [9]) == [1]
    attack = attack_of(RewriteRule(0, point="power", factor=2.0))
    attack.points = POINTS
    assert read_through(Conversation(attack), 10, [9]) == [9]


def test_the_scale_factor_in_the_same_reply_counts() -> None:
    attack = attack_of(RewriteRule(0, point="set", bias=1.0))
    attack.points = POINTS
    talk = Conversation(attack)
    assert read_through(talk, 20, [500]) == [600]  # 5.00 + 1 in hundredths, as known before
    assert read_through(talk, 20, [500, 0xFFFF]) == [510, 0xFFFF]  # in tenths, as it says
    assert [r.true for r in attack.records] == [5.0, 50.0]


def test_what_is_not_there_stays_not_there_unless_a_value_is_given() -> None:
    attack = attack_of(RewriteRule(0, point="set", factor=2.0))
    attack.points = POINTS
    assert read_through(Conversation(attack), 20, [0x8000]) == [0x8000]
    attack = attack_of(RewriteRule(0, point="set", value=-1e9))
    attack.points = POINTS
    assert read_through(Conversation(attack), 20, [0x8000]) == [0x8001]  # not the sentinel
    assert math.isnan(attack.records[0].true)


def test_nothing_happens_without_an_active_step_or_a_known_place() -> None:
    idle = attack_of(RewriteRule(0, point="power", factor=1.0), RewriteRule(1, point="?", value=1))
    idle.points = POINTS
    assert read_through(Conversation(idle), 10, [1, 2]) == [1, 2]
    off = attack_of(RewriteRule(0, point="power", value=1.0))
    off.points, off.active = POINTS, frozenset()
    assert read_through(Conversation(off), 10, [1, 2]) == [1, 2]
    assert not idle.records
    assert not off.records


def test_pipelined_replies_are_told_apart_by_transaction_and_unit() -> None:
    attack = attack_of(RewriteRule(0, point="power", value=0.0))
    attack.points = POINTS
    talk = Conversation(attack)
    talk.from_client(frame(7, 1, struct.pack(">BHH", 3, 10, 2)))
    talk.from_client(frame(7, 2, struct.pack(">BHH", 3, 10, 2)))
    talk.from_client(frame(8, 1, struct.pack(">BHH", 3, 30, 2)))
    reply = struct.pack(">BBHH", 3, 4, 5, 6)
    other = talk.from_device(frame(7, 2, reply))[0].data
    later = talk.from_device(frame(8, 1, reply))[0].data
    forged = talk.from_device(frame(7, 1, reply))[0].data
    unasked = talk.from_device(frame(7, 1, reply))[0].data
    assert [d[9:] for d in (other, later, forged, unasked)] == [
        reply[2:], reply[2:], bytes(4), reply[2:],
    ]  # fmt: skip


def test_requests_that_are_never_answered_do_not_pile_up() -> None:
    talk = Conversation(attack_of())
    for tid in range(1000):
        talk.from_client(frame(tid, 1, b"\x03\x00\x00\x00\x01"))
    assert talk._n_pending <= 256


def test_draws_are_of_seed_step_device_and_frame_alone() -> None:
    def pattern(seed: int) -> list[bool]:
        attack = attack_of(DropRule(0, probability=0.3), seed=seed)
        talk = Conversation(attack)
        ask = frame(1, 1, b"\x03\x00\x00\x00\x01")
        return [talk.from_client(ask)[0].data == b"" for _ in range(200)]

    assert pattern(1) == pattern(1)
    assert pattern(1) != pattern(2)
    assert 40 <= sum(pattern(1)) <= 80


pdus = st.one_of(
    st.binary(min_size=1, max_size=30),
    st.builds(
        lambda f, a, n, rest: struct.pack(">BHH", f, a, n) + rest,
        st.sampled_from([1, 2, 3, 4, 5, 6, 15, 16, 22, 23]),
        st.integers(0, 25),
        st.integers(0, 12),
        st.binary(max_size=30),
    ),
    st.builds(
        lambda f, body: bytes([f, len(body)]) + body,
        st.sampled_from([1, 2, 3, 4, 0x83]),
        st.binary(max_size=30),
    ),
)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3), pdus), max_size=30))
def test_no_frame_breaks_the_attack_or_changes_its_length(
    said: list[tuple[bool, int, bytes]],
) -> None:
    points = POINTS | {
        "bit": WirePoint(Place("coil", 5, "bool"), function=5),
        "in": WirePoint(Place("input", 6, "float64", 4)),
    }
    rules = [RewriteRule(i, point=name, value=1.5) for i, name in enumerate(points)]
    rules += [
        RewriteRule(9, point=name, direction="write", bias=-3.0, hide=True) for name in points
    ]
    attack = attack_of(*rules)
    attack.points = points
    talk = Conversation(attack)
    for from_client, tid, pdu in said:
        take = talk.from_client if from_client else talk.from_device
        (delivery,) = take(frame(tid, 1, pdu))
        assert delivery.to_device is from_client
        assert delivery.data[:8] == frame(tid, 1, pdu)[:8]
        assert len(delivery.data) == 7 + len(pdu)
