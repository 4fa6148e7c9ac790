"""Requests without a reply on a line whose frames carry no transaction id.

A reply that comes late could be taken for the reply to a later request of the same form. A unit
answers in order, so a reply of another form shows that nothing of before is still to come. A read
whose reply could be a late one is therefore preceded by a read of another size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from hil.modbus.pdu import MAX_READ, data_size, read_request, read_span, reply_problem

LATEST_REPLY_S = 10.0
"""From the end of its deadline; after that a reply does not come any more, s."""

Form = tuple[int, int]
"""Function and data bytes: replies to reads of one form cannot be told apart."""


@dataclass(slots=True)
class Asked:
    """A request and the unit ids that its reply may carry."""

    unit: int
    request: bytes
    reply_unit: int | str | None = None

    def is_from(self, unit: int) -> bool:
        """Tell whether a reply with this unit id may answer the request."""
        return unit == self.unit or self.reply_unit in (unit, "any")

    def fits(self, unit: int, reply: bytes) -> bool:
        """Tell whether a reply may be the one to this request."""
        return self.is_from(unit) and not reply_problem(self.request, reply)


class MissingReplies:
    """The requests of one line that were not answered, in the order they were sent."""

    def __init__(self) -> None:
        self._missing: list[tuple[Asked, float]] = []
        self._answered: dict[int, dict[Form, bytes]] = {}

    def __bool__(self) -> bool:
        return bool(self._missing)

    def add(self, asked: Asked, now_s: float) -> None:
        """Remember a request that was given up at `now_s`."""
        self._missing.append((asked, now_s))

    def forget(self, now_s: float) -> None:
        """Forget the requests whose replies do not come any more."""
        limit_s = now_s - LATEST_REPLY_S
        self._missing = [(asked, end_s) for asked, end_s in self._missing if end_s > limit_s]

    def fits(self, unit: int, reply: bytes) -> bool:
        """Tell whether a reply may be a late one to a missing request."""
        return any(asked.fits(unit, reply) for asked, _ in self._missing)

    def answered(self, asked: Asked, unit: int, reply: bytes, now_s: float) -> None:
        """Take the reply to a request: what its unit was asked before is over.

        Where it may as well be a late one, what was asked after that is missing, as is its own.
        """
        mine = [m for m in self._missing if m[0].unit == asked.unit]
        first = next((i for i, m in enumerate(mine) if m[0].fits(unit, reply)), len(mine))
        over = {id(m) for m in mine[: first + 1]}
        self._missing = [m for m in self._missing if id(m) not in over]
        if first < len(mine):
            self.add(asked, now_s)
        elif form := form_of(asked.request):
            self._answered.setdefault(asked.unit, {})[form] = asked.request

    def probe(self, asked: Asked) -> Asked | None:
        """Return a read to send before `asked`, so that no late reply can be taken for its own.

        None where no reply that is missing could be. `asked` where there is no such read.
        """
        form = form_of(asked.request)
        forms = [form_of(a.request) for a, _ in self._missing if a.unit == asked.unit]
        if form is None or form not in forms:
            return None
        before = forms[: len(forms) - forms[::-1].index(form)]
        known = self._answered.get(asked.unit, {}).values()
        reads = (read for read in _reads(asked.request, known) if form_of(read) not in before)
        return replace(asked, request=next(reads, asked.request))


def form_of(request: bytes) -> Form | None:
    """Return the form of the reply to a read; None for a write, whose reply names the register."""
    span = read_span(request)
    return None if span is None else (request[0], data_size(span.table, span.count))


def _reads(request: bytes, known: Iterable[bytes]) -> Iterator[bytes]:
    """Yield reads that the unit should answer: those it has answered, then other lengths."""
    yield from known
    span = read_span(request)
    assert span is not None
    for count in (*range(span.count - 1, 0, -1), *range(span.count + 1, MAX_READ[span.table] + 1)):
        if span.address + count <= 1 << 16:
            yield read_request(span.table, span.address, count)
