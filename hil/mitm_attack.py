"""What a man in the middle does to the frames of one device: no sockets, no clock.

A `Conversation` sees one connection. It is told each frame of either side and returns what is sent
on, to whom, how late, and in words what was changed.
"""

from __future__ import annotations

import math
import struct
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from grid_models import counter_rng
from hil.mitm_frames import (
    HEADER_BYTES,
    Payload,
    frame,
    read_payload,
    read_span,
    write_payload,
    write_request,
)
from hil.mitm_rules import (
    DelayRule,
    DropRule,
    ExceptionRule,
    Forged,
    RewriteRule,
    Rule,
    WirePoint,
    WriteRule,
)

_CHANNEL = 48
_MOST_PENDING = 256
_R = TypeVar("_R", bound=Rule)


@dataclass(frozen=True)
class Delivery:
    """Bytes that go out.

    Parameters
    ----------
    to_device : bool
    data : bytes
    delay_s : float
    note : str
        What was done to them; '' for nothing.
    """

    to_device: bool
    data: bytes
    delay_s: float = 0.0
    note: str = ""


class DeviceAttack:
    """The rules of one device, and what they have done.

    Parameters
    ----------
    name : str
        Names the device in records, and keys the draws.
    unit : int
        Unit id; frames of other units pass untouched.
    rules : sequence of Rule
        The same kind of rule acts in this order.
    seed : int
    """

    def __init__(self, name: str, unit: int, rules: Sequence[Rule], seed: int = 0) -> None:
        self.name, self.unit, self.rules = name, unit, tuple(rules)
        self.points: dict[str, WirePoint] = {}
        self.active: frozenset[int] = frozenset()
        self.time_s = math.nan
        self.records: deque[Forged] = deque()
        self.acted: dict[int, int] = {}
        self.true: dict[str, float] = {}
        """Points whose last reply was forged, with what the device had said."""
        self.written: dict[int, tuple[WirePoint, list[int]]] = {}
        """By rule: the registers that a writer wrote, where others went to the device."""
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

    def record(self, point: str, true: float, seen: float, step: int) -> None:
        """Keep the truth of one value."""
        self.records.append(Forged(self.time_s, self.name, point, true, seen, step))


@dataclass
class _Asked:
    """A request whose reply has not come."""

    reads: tuple[str, int, int] | None
    echo: bytes = b""  # what the writer expects, where the device will say something else
    written: list[tuple[int, WirePoint, list[int]]] = field(default_factory=list)


class Conversation:
    """One connection between a client and the device.

    Parameters
    ----------
    attack : DeviceAttack
    """

    def __init__(self, attack: DeviceAttack) -> None:
        self._attack = attack
        self._pending: dict[tuple[int, int], deque[_Asked]] = {}
        self._n_pending = 0

    # -- requests ---------------------------------------------------------------------------------

    def from_client(self, data: bytes) -> list[Delivery]:
        """Return what becomes of a client's frame."""
        tid, unit, pdu = _parts(data)
        attack = self._attack
        asked = _Asked(read_span(pdu))
        if unit != attack.unit or not attack.active:
            self._expect(tid, unit, asked)
            return [Delivery(True, data)]
        for i, drop in attack.rules_of(DropRule):
            if attack.acts(i):
                return [Delivery(True, b"", 0.0, f"{drop.label}: request dropped")]
        for i, forge in attack.rules_of(ExceptionRule):
            if attack.acts(i):
                refusal = frame(tid, unit, bytes([pdu[0] | 0x80, forge.code]))
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
        own = self._attack.rules_of(WriteRule)
        payload = write_payload(pdu) if rules or own else None
        if payload is None:
            return pdu, []
        for i, _ in own:
            # What is given back at the end is what was wanted last, not what was there first.
            point = self._attack.written[i][0] if i in self._attack.written else None
            if point is not None and payload.holds(point.place):
                asked.written.append((i, point, payload.get(point.place)))
        notes = []
        for i, rule in rules:
            point = self._attack.points.get(rule.point)
            if point is None or not payload.touches(point.place):
                continue
            before = payload.get(point.place) if payload.holds(point.place) else None
            notes += self._rewrite(i, rule, point, payload)
            if before is not None:
                asked.written.append((i, point, before))
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
        true = point.value(payload.get(place), sf) if whole else math.nan
        wanted = rule.wanted(true)
        found = point.words(wanted, sf) if math.isfinite(wanted) else None
        if found is None:
            return []
        words, seen = found
        if whole and payload.get(place) == words:
            return []
        payload.put(place, words)
        attack.record(rule.point, true, seen, rule.step)
        return [f"{rule.label}: {rule.point} {true:g} -> {seen:g}"]

    def _expect(self, tid: int, unit: int, asked: _Asked) -> None:
        # What is never answered, such as a broadcast, must not pile up.
        if self._n_pending >= _MOST_PENDING:
            self._pending.clear()
            self._n_pending = 0
        self._pending.setdefault((tid, unit), deque()).append(asked)
        self._n_pending += 1

    # -- replies ----------------------------------------------------------------------------------

    def from_device(self, data: bytes) -> list[Delivery]:
        """Return what becomes of a frame of the device."""
        tid, unit, pdu = _parts(data)
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
        refused = bool(pdu[0] & 0x80)
        if not refused:
            attack.written.update({i: (point, words) for i, point, words in asked.written})
        for i, drop in attack.rules_of(DropRule):
            if attack.acts(i):
                return [Delivery(False, b"", 0.0, f"{drop.label}: reply dropped")]
        if refused:
            return [Delivery(False, data)]
        if asked.echo:
            return [Delivery(False, frame(tid, unit, asked.echo), 0.0, "echo as it was written")]
        changed, notes = self._rewrite_reply(asked, pdu)
        return [Delivery(False, frame(tid, unit, changed), 0.0, "; ".join(notes))]

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
        honest = Payload(payload.table, payload.address, payload.count, bytearray(pdu), 2)
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


def undo(point: WirePoint, words: list[int]) -> bytes:
    """Return the request that gives a point its registers back."""
    return write_request(point.place, words, point.function)


def _parts(data: bytes) -> tuple[int, int, bytes]:
    tid, _, _, unit = struct.unpack_from(">HHHB", data)
    return tid, unit, data[HEADER_BYTES:]
