"""An inbox under attack: what stands between the senders and the link model of one federate.

The attack acts first, on all messages of one instant together; then each link does to them what it
does without an attack, with the same random numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import numpy as np

from controllers.core.mail import FloatArray, IntArray, Link, Mail
from federates.attacks.link import LinkAttackPlan, LinkStepPlan
from federates.attacks.link_actions import CHANCE, Batch, Draws, LinkTable, effect_of
from federates.clock import to_s
from federates.core.links import Bundle, Inbox, LinkQuality, message_streams
from federates.scenario.attack_schedule import LATE_S

TRUTH_PORT = "mail"
BEGAN, ENDED = "attack_began", "attack_ended"


class TruthSink(Protocol):
    """Where affected values go: `federates.attacks.truth.TruthWriter`."""

    def add(
        self,
        time_s: float,
        channel: int,
        element: IntArray,
        true: FloatArray,
        seen: FloatArray,
        step: int,
    ) -> None:
        """Keep affected values."""
        ...


@dataclass(frozen=True, slots=True)
class Transition:
    """A step began or ended; `event` is the word in ``events.jsonl``."""

    event: str
    time_s: float
    step: str


def mail_channel(federate: str, links_in: Sequence[Link]) -> tuple[str, str, tuple[str, ...]]:
    """Return federate, port and labels of its mail in the ground truth: one label per number."""
    labels = tuple(f"{link.key}[{i}]" for link in links_in for i in range(link.width))
    return federate, TRUTH_PORT, labels


class LinkAttack:
    """An attack on the mail of one federate, at work.

    Parameters
    ----------
    plan : LinkAttackPlan
    links_in : sequence of Link
    truth : TruthSink
        Gets every number that was changed, delayed or dropped: as it was sent, and as it left the
        attack (NaN: dropped), before the link itself loses or disturbs it. A message that several
        steps act on has a row for each of them. Elements are those of `mail_channel`, the channel
        is 0.
    """

    def __init__(self, plan: LinkAttackPlan, links_in: Sequence[Link], truth: TruthSink) -> None:
        self._table = LinkTable(tuple(links_in))
        self._steps = [_Step(step, plan.seed, self._table) for step in plan.steps]
        self._listeners = [s for s in self._steps if hasattr(s.effect, "hear")]
        self._clock = plan.schedule.clock()
        self._truth = truth
        self._transitions = _Transitions(plan)

    def hear(self, begins_s: FloatArray | None, now_s: float) -> list[Transition]:
        """Take the director's word of which steps have begun; return what there is to report."""
        if begins_s is not None:
            self._clock.hear(begins_s)
            self._transitions.hear(begins_s)
        return self._transitions.until(now_s)

    def act(self, mail: Mail, sent_ns: int) -> Batch | None:
        """Act on all mail of one instant; times must not decrease. None: nothing was touched."""
        time_s = to_s(sent_ns)
        elapsed_s = self._clock.elapsed(time_s)
        active = [step for step in self._steps if not np.isnan(elapsed_s[step.plan.step])]
        if not active and not self._listeners:
            return None
        batch = Batch(mail, sent_ns, self._table)
        for step in self._listeners:
            step.effect.hear(batch)  # type: ignore[attr-defined]
        touched = [(step.plan.step, at) for step in active if (at := step.act(batch)).size]
        for number, at in touched:
            self._tell(time_s, mail, batch, number, at)
        return batch if touched else None

    def _tell(self, time_s: float, mail: Mail, batch: Batch, step: int, at: IntArray) -> None:
        numbers, width = batch.numbers(at), batch.width(at)
        true, seen = mail.values[numbers], batch.values[numbers]
        # Bits, not values: -0.0 for 0.0 is a change, and NaN for the same NaN is none.
        changed = true.view(np.int64) != seen.view(np.int64)
        dropped = np.repeat(~batch.kept[at], width)
        changed |= dropped | np.repeat(batch.late_ns[at] != 0, width)
        if not changed.any():
            return
        seen = np.where(dropped, np.nan, seen)[changed]
        element = self._table.elements(batch.link[at])[changed]
        self._truth.add(time_s, 0, element, true[changed], seen, step)


class _Step:
    def __init__(self, plan: LinkStepPlan, seed: int, table: LinkTable) -> None:
        self.plan = plan
        self.effect = effect_of(plan, table)
        self._attacked = table.mask(plan.links)
        self._draws = Draws.of(seed, plan.id, table)

    def act(self, batch: Batch) -> IntArray:
        """Act on those messages that the step is for and that an earlier step has left."""
        at = np.flatnonzero(self._attacked[batch.link] & batch.kept)
        if at.size and self.plan.probability < 1.0:
            at = at[self._draws.uniform(batch, at, CHANCE) < self.plan.probability]
        return self.effect.act(batch, at, self._draws) if at.size else at


class _Transitions:
    """Begin and end of the steps that one federate reports for all."""

    def __init__(self, plan: LinkAttackPlan) -> None:
        schedule = plan.schedule
        self._ids = schedule.ids
        self._begin_s = np.array(schedule.begin_s)
        # What a step leaves behind has no end.
        self._length_s = np.where(schedule.stays, np.inf, schedule.length_s)
        self._directed = np.array(schedule.directed, dtype=np.intp)
        self._open = [(i, event) for i in plan.announces for event in (BEGAN, ENDED)]

    def hear(self, begins_s: FloatArray) -> None:
        self._begin_s[self._directed] = begins_s

    def until(self, now_s: float) -> list[Transition]:
        """Return what happened by now and is not yet told, in its order."""
        out, later = [], []
        for i, event in self._open:
            at_s = float(self._begin_s[i] + (self._length_s[i] if event == ENDED else 0.0))
            if at_s <= now_s + LATE_S:
                out.append(Transition(event, round(at_s, 9), self._ids[i]))
            else:
                later.append((i, event))
        self._open = later
        return sorted(out, key=lambda change: change.time_s)


class AttackedInbox(Inbox):
    """An inbox whose mail an attack meets before its links do.

    Parameters
    ----------
    links_in, quality, seed
        As of an `Inbox`.
    attack : LinkAttack
    """

    def __init__(
        self,
        links_in: Sequence[Link],
        quality: Mapping[str, LinkQuality],
        seed: int,
        attack: LinkAttack,
    ) -> None:
        super().__init__(links_in, quality, seed)
        self.attack = attack
        self._staged: list[Bundle] = []

    def accept(self, bundle: Bundle) -> None:
        """Take a bundle in; the attack waits until all mail of its instant is there."""
        self._staged.append(bundle)

    def deliver(self, now_ns: int) -> Mail:
        """Return the mail that arrived by `now_ns`, as an `Inbox` does."""
        if self._staged:
            staged, self._staged = sorted(self._staged, key=_sent_ns), []
            for sent_ns, bundles in groupby(staged, key=_sent_ns):
                self._attacked(self._together([b.mail for b in bundles]), sent_ns)
        return super().deliver(now_ns)

    def _attacked(self, mail: Mail, sent_ns: int) -> None:
        batch = self.attack.act(mail, sent_ns)
        if batch is None:
            super().accept(Bundle(sent_ns, mail))
            return
        if self._perfect:
            forged = Mail(mail.link, mail.round, batch.values)
            self._queue(forged, batch.kept, sent_ns + batch.late_ns)
            return
        streams = message_streams(self._streams, mail.link)
        kept, arrival = self._fate(mail.link, streams, sent_ns)
        forged = self._with_noise(Mail(mail.link, mail.round, batch.values), streams, sent_ns)
        self._queue(forged, kept & batch.kept, arrival + batch.late_ns)

    def _together(self, parts: list[Mail]) -> Mail:
        """Return the mail of one instant as one; within a link the order stays."""
        if len(parts) == 1:
            return parts[0]
        link = np.concatenate([m.link for m in parts])
        rounds = np.concatenate([m.round for m in parts])
        values = np.concatenate([m.values for m in parts])
        return self._take(Mail(link, rounds, values), np.argsort(link, kind="stable"))


def _sent_ns(bundle: Bundle) -> int:
    return bundle.sent_ns
