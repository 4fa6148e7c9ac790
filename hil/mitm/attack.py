"""What a man in the middle does to the frames of one device: no sockets, no clock.

A `Conversation` sees one connection. It is told each frame of either side and returns what is sent
on, to whom, how late, and in words what was changed.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from grid_models.base import counter_rng
from hil.mitm.rules import (
    DelayRule,
    DropRule,
    ExceptionRule,
    Forged,
    FrameRule,
    Payload,
    RewriteRule,
    Unrestored,
    WirePoint,
    read_payload,
    write_payload,
)
from hil.modbus.frames import frame, parts
from hil.modbus.pdu import Span, exception_reply, is_exception, read_span, write_request

_CHANNEL = 48
_MOST_PENDING = 256
_R = TypeVar("_R", bound=FrameRule)
Kept = tuple[WirePoint, list[int]]
"""A point and the registers that belong there."""


@dataclass(frozen=True)
class Delivery:
    """Bytes that go out; `note` says what was done to them, '' for nothing."""

    to_device: bool
    data: bytes
    delay_s: float = 0.0
    note: str = ""


class DeviceAttack:
    """The rules of one device, and what they have done.

    Parameters
    ----------
    name : Names the device in records, and keys the draws.
    unit : Unit id; frames of other units pass untouched.
    rules : The same kind of rule acts in this order.
    """

    def __init__(self, name: str, unit: int, rules: Sequence[FrameRule], seed: int = 0) -> None:
        self.name, self.unit, self.rules = name, unit, tuple(rules)
        self.points: dict[str, WirePoint] = {}
        self.active: frozenset[int] = frozenset()
        self.time_s = math.nan
        self.records: deque[Forged] = deque()
        self.acted: dict[int, int] = {}
        self.true: dict[str, float] = {}
        """Points whose last reply was forged, with what the device had said."""
        self.written: dict[int, Kept] = {}
        """By active rule: the registers that a writer wrote, where others went to the device.

        Also where it is not known whether they arrived; restoring once too often does no harm.
        """
        self.unrestored: dict[int, Kept] = {}
        """The same by rule that has ended, until the device has acknowledged the restore."""
        self.on_unrestored: Callable[[], None] = lambda: None
        """Called when a write arrives after its rule has ended and must be restored as well."""
        self._seed = seed
        self._asked: dict[int, int] = {}
        self._streams = {
            i: counter_rng.stream_ids([f"modbus/{rule.step}/{name}/{i}"])
            for i, rule in enumerate(self.rules)
        }

    def rules_of(self, kind: type[_R]) -> list[tuple[int, _R]]:
        """Return the active rules of one kind with their positions."""
        return [(i, r) for i, r in enumerate(self.rules) if i in self.active and type(r) is kind]

    def acts(self, i: int) -> bool:
        """Draw whether rule `i` acts on the next frame that it could act on, and count it."""
        rule = self.rules[i]
        count = self._asked.get(i, 0)
        self._asked[i] = count + 1
        if rule.probability < 1.0:
            drawn = counter_rng.uniform(self._seed, self._streams[i], count, _CHANNEL)
            if drawn[0] >= rule.probability:
                return False
        self.count(rule.step)
        return True

    def count(self, step: int, n: int = 1) -> None:
        """Count frames that a step acted on."""
        self.acted[step] = self.acted.get(step, 0) + n

    def switch(self, active: frozenset[int]) -> None:
        """Let rules begin and end; what a rule that ends has written is unrestored from then on."""
        for i in sorted(self.active - active):
            if i in self.written:
                self.unrestored[i] = self.written.pop(i)
        for i in sorted(active - self.active):
            if i in self.unrestored:
                self.written[i] = self.unrestored.pop(i)
        self.active = active

    def forget(self, i: int, kept: Kept, before: Kept | None = None) -> None:
        """Put what was kept before in the place of what turned out not to have been written."""
        for book in (self.written, self.unrestored):
            if book.get(i) is kept:
                del book[i]
                book |= {} if before is None else {i: before}

    def all_unrestored(self) -> list[Unrestored]:
        """Return the points that the device has not acknowledged to be restored."""
        return [
            Unrestored(
                self.name, getattr(rule, "point", ""), point.value(words, point.sf), rule.step
            )
            for i, (point, words) in dict(self.unrestored).items()
            for rule in [self.rules[i]]
        ]

    def record(self, point: str, true: float, seen: float, step: int) -> None:
        """Keep the truth of one value."""
        self.records.append(Forged(self.time_s, self.name, point, true, seen, step))


@dataclass
class _Asked:
    """A request whose reply has not come."""

    reads: Span | None
    echo: bytes = b""  # what the writer expects, where the device will say something else
    written: dict[int, Kept] = field(default_factory=dict)  # by rule, what its writer wants
    before: dict[int, Kept] = field(default_factory=dict)  # by rule, what it wanted until then
    forged: set[int] = field(default_factory=set)  # rules that wrote something else instead


class Conversation:
    """One connection between a client and the device."""

    def __init__(self, attack: DeviceAttack) -> None:
        self._attack = attack
        self._pending: dict[tuple[int, int], deque[_Asked]] = {}
        self._n_pending = 0

    # -- requests ---------------------------------------------------------------------------------

    def from_client(self, data: bytes) -> list[Delivery]:
        """Return what becomes of a client's frame."""
        tid, unit, pdu = parts(data)
        attack = self._attack
        asked = _Asked(read_span(pdu))
        if unit != attack.unit or not (attack.active or attack.unrestored):
            self._expect(tid, unit, asked)
            return [Delivery(True, data)]
        for i, drop in attack.rules_of(DropRule):
            if attack.acts(i):
                return [Delivery(True, b"", 0.0, f"{drop.label}: request dropped")]
        for i, forge in attack.rules_of(ExceptionRule):
            if attack.acts(i):
                refusal = frame(tid, unit, exception_reply(pdu[0], forge.code))
                return [Delivery(False, refusal, 0.0, f"{forge.label}: forged exception")]
        changed, notes = self._rewrite_request(pdu, asked)
        delay_s = 0.0
        for i, delay in attack.rules_of(DelayRule):
            if attack.acts(i):
                delay_s += delay.delay_s
                notes.append(f"{delay.label}: {delay.delay_s:g} s late")
        self._expect(tid, unit, asked)
        return [Delivery(True, frame(tid, unit, changed), delay_s, "; ".join(notes))]

    def _rewrite_request(self, pdu: bytes, asked: _Asked) -> tuple[bytes, list[str]]:
        rules = [(i, r) for i, r in self._attack.rules_of(RewriteRule) if r.direction == "write"]
        attack = self._attack
        payload = write_payload(pdu) if rules or attack.written or attack.unrestored else None
        if payload is None:
            return pdu, []
        # What is restored at the end is what was written last, not what was there first.
        rewriting = {i for i, _ in rules}
        for book in (attack.written, attack.unrestored):
            for i, (at, _) in list(book.items()):
                if i not in rewriting and payload.holds(at.place):
                    _keep(asked, book, i, (at, payload.get(at.place)))
        notes = []
        for i, rule in rules:
            point = attack.points.get(rule.point)
            if point is None or not payload.touches(point.place):
                continue
            before = payload.get(point.place) if payload.holds(point.place) else None
            notes += self._rewrite(i, rule, point, payload)
            if before is not None:
                _keep(asked, attack.written, i, (point, before))
                asked.forged.add(i)
        if pdu[0] in (5, 6) and bytes(payload.data) != pdu:
            asked.echo = pdu
        return bytes(payload.data), notes

    def _rewrite(self, i: int, rule: RewriteRule, point: WirePoint, payload: Payload) -> list[str]:
        """Change one point in a message; return a note where something was changed."""
        attack, place = self._attack, point.place
        if rule.is_idle or not attack.acts(i):
            return []
        sf = point.factor(payload)
        whole = payload.holds(place)
        now = payload.get(place) if whole else None
        true = math.nan if now is None else point.value(now, sf)
        wanted = rule.wanted(true)
        found = point.words(wanted, sf, now) if math.isfinite(wanted) else None
        if found is None:
            return []
        words, seen = found
        if now == words:
            return []
        payload.put(place, words)
        attack.record(rule.point, true, seen, rule.step)
        return [f"{rule.label}: {rule.point} {true:g} -> {seen:g}"]

    def _expect(self, tid: int, unit: int, asked: _Asked) -> None:
        # Requests that are never answered, such as broadcasts, must not accumulate.
        if self._n_pending >= _MOST_PENDING:
            self._pending.clear()
            self._n_pending = 0
        self._pending.setdefault((tid, unit), deque()).append(asked)
        self._n_pending += 1

    # -- replies ----------------------------------------------------------------------------------

    def from_device(self, data: bytes) -> list[Delivery]:
        """Return what becomes of a frame of the device."""
        tid, unit, pdu = parts(data)
        attack = self._attack
        waiting = self._pending.get((tid, unit))
        if not waiting:
            return [Delivery(False, data)]
        asked = waiting.popleft()
        self._n_pending -= 1
        if not waiting:
            del self._pending[tid, unit]
        if unit != attack.unit:
            return [Delivery(False, data)]
        refused = is_exception(pdu)
        self._settle(asked, refused)
        for i, drop in attack.rules_of(DropRule):
            if attack.acts(i):
                return [Delivery(False, b"", 0.0, f"{drop.label}: reply dropped")]
        if refused:
            return [Delivery(False, data)]
        if asked.echo:
            return [Delivery(False, frame(tid, unit, asked.echo), 0.0, "echo as it was written")]
        changed, notes = self._rewrite_reply(asked, pdu)
        return [Delivery(False, frame(tid, unit, changed), 0.0, "; ".join(notes))]

    def _settle(self, asked: _Asked, refused: bool) -> None:
        """Update the record of what was written, now that the device has answered."""
        attack = self._attack
        for i, kept in asked.written.items():
            if refused:
                attack.forget(i, kept, asked.before.get(i))
            elif i not in asked.forged:
                if attack.unrestored.get(i) is kept:  # the writer has restored the point itself
                    del attack.unrestored[i]
            elif i not in attack.active:
                # It arrived when its step was over, perhaps after the registers were restored.
                attack.unrestored.setdefault(i, kept)
                attack.on_unrestored()

    def _rewrite_reply(self, asked: _Asked, pdu: bytes) -> tuple[bytes, list[str]]:
        attack = self._attack
        span = asked.reads
        payload = read_payload(span, pdu) if span is not None else None
        if payload is None or not (attack.active or attack.true):
            return pdu, []
        for name, point in attack.points.items():
            if payload.holds(point.place):
                attack.true.pop(name, None)
        notes: list[str] = []
        honest = Payload(payload.span, bytearray(pdu))
        for i, rule in attack.rules_of(RewriteRule):
            at = attack.points.get(rule.point)
            if at is None or not payload.touches(at.place):
                continue
            if rule.direction == "write":
                notes += self._show_written(i, rule, payload)
            else:
                notes += self._rewrite(i, rule, at, payload)
            if payload.holds(at.place) and payload.get(at.place) != honest.get(at.place):
                attack.true[rule.point] = at.value(honest.get(at.place), at.factor(honest))
        return bytes(payload.data), notes

    def _show_written(self, i: int, rule: RewriteRule, payload: Payload) -> list[str]:
        """Show a reader what the writer believes to have written."""
        attack = self._attack
        if not rule.hide or i not in attack.written:
            return []
        point, words = attack.written[i]
        sf = point.factor(payload)
        true = point.value(payload.get(point.place), sf) if payload.holds(point.place) else math.nan
        seen = point.value(words, sf)
        payload.put(point.place, words)
        if true == seen:
            return []
        attack.record(rule.point, true, seen, rule.step)
        return [f"{rule.label}: {rule.point} {true:g} shown as {seen:g}"]


def _keep(asked: _Asked, book: dict[int, Kept], i: int, kept: Kept) -> None:
    """Keep what a writer asks for at once: the answer may never come."""
    if i in book:
        asked.before[i] = book[i]
    book[i] = asked.written[i] = kept


def undo(point: WirePoint, words: list[int]) -> bytes:
    """Return the request that gives a point its registers back."""
    return write_request(point.function, point.place.address, words)
