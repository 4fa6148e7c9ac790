"""Frames come out whole, in any pieces; what is no frame is passed on as it came."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from hil.modbus.frames import Splitter, frame

frames = st.lists(
    st.builds(
        frame, st.integers(0, 65535), st.integers(0, 255), st.binary(min_size=1, max_size=253)
    ),
    max_size=5,
)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({0, len(data), *(c % (len(data) + 1) for c in cuts)})
    return [data[a:b] for a, b in pairwise(at)]


@given(frames, st.lists(st.integers(0, 2000), max_size=8))
def test_frames_come_out_whole_however_they_were_cut(sent: list[bytes], cuts: list[int]) -> None:
    splitter = Splitter()
    assert [f for p in pieces(b"".join(sent), cuts) for f in splitter.feed(p)] == sent
    assert not splitter.opaque
    assert splitter.rest() == b""


@given(st.binary(max_size=600), st.lists(st.integers(0, 600), max_size=8))
def test_no_byte_of_anything_is_lost_or_changed(data: bytes, cuts: list[int]) -> None:
    splitter = Splitter()
    out = [f for p in pieces(data, cuts) for f in splitter.feed(p)]
    assert b"".join(out) + splitter.rest() == data


def test_what_is_not_modbus_is_seen_from_its_first_bytes() -> None:
    for first in (b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1", frame(1, 1, bytes(254))):
        splitter = Splitter()
        assert splitter.feed(first) == [first]
        assert splitter.opaque
        assert splitter.feed(frame(1, 1, b"\x03")) == [frame(1, 1, b"\x03")]
