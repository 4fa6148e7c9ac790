"""An inbox under attack: what stands between the senders and the link model of one federate.

The attack acts first, on all messages of one instant together; then each link does to them what it
does without an attack, with the same random numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from controllers.core.mail import FloatArray, IntArray, Link, Mail
from federates.attacks.link.action import CHANCE, Batch, LinkAction, LinkDraws, LinkTable
from federates.clock import to_s
from federates.core.links import Bundle, LinkInbox, LinkQuality, message_streams
from federates.core.wiring import Feed, LatestValues
from federates.scenario.attack_schedule import LATE_S, AttackSchedule

if TYPE_CHECKING:
    from federates.attacks.truth import TruthWriter
    from federates.core.run_store import RunStore

BEGAN, ENDED = "attack_began", "attack_ended"
Announce = Callable[[str, float, str], None]
"""Reports an event: its word in ``events.jsonl``, the time in s, the step's id."""


TRUTH_PORT = "mail"
"""What the ground truth calls the mail of a federate; one label per number: ``a>b:kind[0]``."""


@dataclass(frozen=True)
class LinkStep:
    """What one step does to the mail of one federate.

    Attributes
    ----------
    step : Position in the attack.
    links : Keys of the attacked links.
    donors : By link key, the link whose numbers the action takes.
    """

    step: int
    id: str
    action: LinkAction
    probability: float
    links: tuple[str, ...]
    donors: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class MailAttack:
    """What an attack does to the mail of one federate; plain data, and the federate's inbox.

    Attributes
    ----------
    steps : In the order of the file, in which they act on a message.
    announces : Positions of the steps whose begin and end this federate reports for all.
    reads : The director's output, where steps wait for a signal.
    """

    seed: int
    schedule: AttackSchedule
    steps: tuple[LinkStep, ...]
    announces: tuple[int, ...]
    reads: tuple[Feed, ...] = ()

    def open(
        self,
        federate: str,
        links_in: Sequence[Link],
        quality: Mapping[str, LinkQuality],
        seed: int,
        store: RunStore,
    ) -> LinkInbox:
        """Return the attacked inbox; see `federates.core.wiring.InboxFactory`."""
        from federates.attacks.truth import TruthWriter

        labels = tuple(f"{link.key}[{i}]" for link in links_in for i in range(link.width))
        channel = (federate, TRUTH_PORT, labels)
        truth = TruthWriter(store.folder, federate, [channel], self.schedule.ids)

        def announce(event: str, time_s: float, step: str) -> None:
            store.event(federate, event, time_s, step=step)

        return AttackedInbox(links_in, quality, seed, self, truth, announce)


class AttackedInbox(LinkInbox):
    """An inbox whose mail is attacked before it passes its links.

    Parameters
    ----------
    links_in, quality, seed
        As of a `LinkInbox`.
    truth : Gets every number that was changed, delayed or dropped: as it was sent, and as it left
        the attack (NaN: dropped), before the link itself loses or disturbs it. A message that
        several steps act on has a row for each of them. The channel is 0; its elements are the
        numbers of all links in order.
    announce : Reports begin and end of the steps that this federate reports for all.
    """

    def __init__(
        self,
        links_in: Sequence[Link],
        quality: Mapping[str, LinkQuality],
        seed: int,
        plan: MailAttack,
        truth: TruthWriter,
        announce: Announce,
    ) -> None:
        super().__init__(links_in, quality, seed)
        self._table = LinkTable(tuple(links_in))
        self._steps = [_ActiveStep(step, plan.seed, self._table) for step in plan.steps]
        self._listeners = [step.action for step in self._steps if step.action.listens]
        self._clock = plan.schedule.clock()
        self._truth, self._reads = truth, plan.reads
        self._transitions = _Transitions(plan, announce)
        self._staged: list[Bundle] = []

    def read(self, latest: LatestValues, now_ns: int) -> None:
        """Read from the director which steps have begun; report what began or ended by now."""
        for feed in self._reads:
            begins_s = latest(feed.source, feed.port)
            if begins_s is not None:
                self._clock.set_begins(begins_s)
                self._transitions.set_begins(begins_s)
        self._transitions.report(to_s(now_ns))

    def accept(self, bundle: Bundle) -> None:
        """Take a bundle in; the attack waits until all mail of its instant is there."""
        self._staged.append(bundle)

    def deliver(self, now_ns: int) -> Mail:
        """Return the mail that arrived by `now_ns`, as an `LinkInbox` does."""
        if self._staged:
            staged, self._staged = sorted(self._staged, key=_sent_ns), []
            for sent_ns, bundles in groupby(staged, key=_sent_ns):
                self._attack(self._merged([b.mail for b in bundles]), sent_ns)
        return super().deliver(now_ns)

    def summary(self) -> dict[str, float]:
        """Return the counts of an `LinkInbox`, and how many numbers were attacked."""
        return super().summary() | {"attacked_values_count": float(self._truth.count)}

    def close(self) -> None:
        """Close the ground truth."""
        self._truth.close()

    def _attack(self, mail: Mail, sent_ns: int) -> None:
        """Act on all mail of one instant; instants must not decrease."""
        batch = self._acted_on(mail, sent_ns)
        if batch is None:
            super().accept(Bundle(sent_ns, mail))
            return
        forged = Mail(mail.link, mail.round, batch.values)
        if self._perfect:
            self._queue(forged, batch.kept, sent_ns + batch.late_ns)
            return
        streams = message_streams(self._streams, mail.link)
        kept, arrival = self._fate(mail.link, streams, sent_ns)
        forged = self._values.applied(forged, streams, sent_ns)
        self._queue(forged, kept & batch.kept, arrival + batch.late_ns)

    def _acted_on(self, mail: Mail, sent_ns: int) -> Batch | None:
        """Return what the active steps made of the mail; None where they touched nothing."""
        time_s = to_s(sent_ns)
        elapsed_s = self._clock.elapsed(time_s)
        active = [step for step in self._steps if not np.isnan(elapsed_s[step.plan.step])]
        if not active and not self._listeners:
            return None
        batch = Batch(mail, sent_ns, self._table)
        for action in self._listeners:
            action.observe(batch)
        touched = [(step.plan.step, at) for step in active if (at := step.act(batch)).size]
        for number, at in touched:
            self._note(time_s, mail, batch, number, at)
        return batch if touched else None

    def _note(self, time_s: float, mail: Mail, batch: Batch, step: int, at: IntArray) -> None:
        """Write the numbers that a step changed, delayed or dropped into the ground truth."""
        numbers, width = batch.numbers(at), batch.width(at)
        true, seen = mail.values[numbers], batch.values[numbers]
        # Bits, not values: -0.0 for 0.0 is a change, and NaN for the same NaN is none.
        changed = true.view(np.int64) != seen.view(np.int64)
        dropped = np.repeat(~batch.kept[at], width)
        changed |= dropped | np.repeat(batch.late_ns[at] != 0, width)
        if changed.any():
            seen = np.where(dropped, np.nan, seen)[changed]
            element = self._table.elements(batch.link[at])[changed]
            self._truth.add(time_s, 0, element, true[changed], seen, step)

    def _merged(self, parts: list[Mail]) -> Mail:
        """Return the mail of one instant as one; within a link the order stays."""
        if len(parts) == 1:
            return parts[0]
        link = np.concatenate([m.link for m in parts])
        rounds = np.concatenate([m.round for m in parts])
        values = np.concatenate([m.values for m in parts])
        return self._take(Mail(link, rounds, values), np.argsort(link, kind="stable"))


class _ActiveStep:
    """One step on the mail of one federate."""

    def __init__(self, plan: LinkStep, seed: int, table: LinkTable) -> None:
        self.plan = plan
        self.action = plan.action.begin(table, plan.links, plan.donors)
        self._attacked = table.mask(plan.links)
        self._draws = LinkDraws.of(seed, plan.id, table)

    def act(self, batch: Batch) -> IntArray:
        """Act on those messages that the step is for and that an earlier step has left."""
        at = np.flatnonzero(self._attacked[batch.link] & batch.kept)
        if at.size and self.plan.probability < 1.0:
            at = at[self._draws.uniform(batch, at, CHANCE) < self.plan.probability]
        return self.action.act(batch, at, self._draws) if at.size else at


class _Transitions:
    """Begin and end of the steps that one federate reports for all."""

    def __init__(self, plan: MailAttack, announce: Announce) -> None:
        schedule = plan.schedule
        self._ids, self._announce = schedule.ids, announce
        self._begin_s = np.array(schedule.begin_s)
        # A step that leaves its changes behind has no end.
        self._length_s = np.where(schedule.stays, np.inf, schedule.length_s)
        self._directed = np.array(schedule.directed, dtype=np.intp)
        self._open = [(i, event) for i in plan.announces for event in (BEGAN, ENDED)]

    def set_begins(self, begins_s: FloatArray) -> None:
        self._begin_s[self._directed] = begins_s

    def report(self, now_s: float) -> None:
        """Report what happened by now and is not yet reported, in its order."""
        due, later = [], []
        for i, event in self._open:
            at_s = float(self._begin_s[i] + (self._length_s[i] if event == ENDED else 0.0))
            if at_s <= now_s + LATE_S:
                due.append((event, round(at_s, 9), self._ids[i]))
            else:
                later.append((i, event))
        self._open = later
        for change in sorted(due, key=lambda change: change[1]):
            self._announce(*change)


def _sent_ns(bundle: Bundle) -> int:
    return bundle.sent_ns
