"""Late replies without transaction ids: none is taken for the reply to another request."""

from __future__ import annotations

import random
from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from hil.modbus.missing import LATEST_REPLY_S, Asked, MissingReplies, form_of
from hil.modbus.pdu import exception_reply, read_reply, read_request, read_span, write_request


def read(address: int, count: int = 1, unit: int = 1) -> Asked:
    return Asked(unit, read_request("holding", address, count))


def reply_to(asked: Asked) -> bytes:
    """Each register holds the address that was asked for."""
    span = read_span(asked.request)
    assert span is not None
    return read_reply(asked.request[0], span.address.to_bytes(2, "big") * span.count)


class Line:
    """Units that answer in order, at last, or not at all; and what is made of their replies."""

    def __init__(self, seed: int) -> None:
        self.missing = MissingReplies()
        self.random = random.Random(seed)
        self.taken = 0
        self.coming: dict[int, deque[bytes]] = {1: deque(), 2: deque()}

    def read(self, asked: Asked) -> None:
        probe = self.missing.probe(asked)
        if probe is not None:
            self.exchange(probe, used=False)
            if self.missing.probe(asked) is not None:
                return
        self.exchange(asked)

    def exchange(self, asked: Asked, *, used: bool = True) -> None:
        fate = self.random.choice(["answered", "answered", "refused", "lost"])
        if fate != "lost":
            refusal = exception_reply(asked.request[0], 2)
            self.coming[asked.unit].append(refusal if fate == "refused" else reply_to(asked))
        for unit in self.random.choices([1, 1, 1, 2], k=self.random.randrange(4)):
            if not self.coming[unit]:
                continue
            reply = self.coming[unit].popleft()
            if asked.fits(unit, reply):
                assert not used or len(reply) == 2 or reply == reply_to(asked)
                self.taken += used
                self.missing.answered(asked, unit, reply, 0.0)
                return
            if not self.missing.fits(unit, reply):
                break  # wrong: the connection is dropped
        self.missing.add(asked, 0.0)

    def idle(self, unit: int) -> None:
        """A reply comes while nobody waits, and is thrown away."""
        if self.coming[unit]:
            self.coming[unit].popleft()


@given(st.integers(0, 1 << 32))
def test_data_of_another_address_are_never_taken(seed: int) -> None:
    line = Line(seed)
    for _ in range(100):
        unit = line.random.choice([1, 1, 1, 2])
        if line.random.random() < 0.1:
            line.idle(unit)
        else:
            line.read(read(line.random.randint(1, 2), line.random.randint(1, 3), unit))
    assert line.taken > 3


def test_a_read_that_the_unit_has_answered_is_sent_first() -> None:
    missing = MissingReplies()
    known = read(50, 7)
    missing.answered(known, 1, reply_to(known), 0.0)
    missing.add(read(10), 0.0)
    assert missing.probe(read(20)) == known
    assert missing.probe(read(20, 2)) is None
    assert missing.probe(read(20, unit=2)) is None
    assert missing.probe(Asked(1, write_request(6, 20, [1]))) is None


def test_without_one_it_is_of_another_length() -> None:
    missing = MissingReplies()
    for count in (1, 2):
        missing.add(read(10, count), 0.0)
    probe = missing.probe(read(0xFFFD, 2))
    assert probe is not None
    assert form_of(probe.request) == (3, 6)
    assert missing.probe(read(0xFFFE, 2)) == read(0xFFFE, 2)  # no other length fits: none is sent


def test_a_reply_of_another_form_ends_the_doubt_and_so_does_time() -> None:
    missing = MissingReplies()
    missing.add(read(10), 0.0)
    missing.answered(read(30, 2), 1, reply_to(read(30, 2)), 1.0)
    assert not missing
    missing.add(read(10), 5.0)
    missing.forget(5.0 + LATEST_REPLY_S - 0.1)
    assert missing
    missing.forget(5.0 + LATEST_REPLY_S)
    assert not missing
