"""What each action of an attack does to mail: all messages of one instant at once.

An action gets the positions of the messages it may act on and returns those it did act on.
Random numbers are keyed by (attack seed, step, link, time of sending).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from controllers.core.mail import FloatArray, IntArray, Link, Mail
from federates.attacks.link import LinkStepPlan
from federates.clock import to_ns
from federates.core.links import BoolArray, element_index, message_streams, number_streams
from federates.scenario.attack_schema import (
    Delay,
    Drop,
    Impersonate,
    Jam,
    Partition,
    ReplayMail,
    Tamper,
)
from grid_models.base import counter_rng

CHANCE, _LOSS, _LATE, _NOISE = 0, 1, 2, 3  # channels; the noise takes two


class LinkTable:
    """A federate's incoming links, and where the numbers of each stand in one long array."""

    def __init__(self, links_in: tuple[Link, ...]) -> None:
        self.keys = tuple(link.key for link in links_in)
        self.position: Mapping[str, int] = {key: i for i, key in enumerate(self.keys)}
        self.width: IntArray = np.array([link.width for link in links_in], dtype=np.int64)
        self._start = np.cumsum(self.width) - self.width
        self.size = int(self.width.sum())
        self.scalar = bool((self.width == 1).all())

    def elements(self, link: IntArray) -> IntArray:
        """Return where the numbers of these links stand."""
        if self.scalar:
            return link
        return element_index(self._start[link], self.width[link])

    def mask(self, keys: tuple[str, ...]) -> BoolArray:
        """Return which links have one of these keys."""
        out = np.zeros(len(self.keys), dtype=np.bool_)
        out[[self.position[key] for key in keys]] = True
        return out


class Batch:
    """All mail of one instant to one federate, and what an attack makes of it.

    Attributes
    ----------
    link : int64 (m,)
    sent_ns : int
    values : float64 (sum of widths,)
    kept : bool (m,)
        Whether a message is still on its way.
    late_ns : int64 (m,)
        How much later than by its link a message arrives.
    scalar : bool
        Whether every message is one number.
    """

    def __init__(self, mail: Mail, sent_ns: int, table: LinkTable) -> None:
        self.link = mail.link
        self.sent_ns = sent_ns
        self.values = mail.values
        self.kept: BoolArray = np.ones(mail.link.size, dtype=np.bool_)
        self.late_ns: IntArray = np.zeros(mail.link.size, dtype=np.int64)
        self.scalar = table.scalar
        self._table = table
        self._sent = mail.values

    @cached_property
    def once(self) -> bool:
        """Whether no link carries two of the messages, and all stand in the links' order."""
        return bool((self.link[1:] > self.link[:-1]).all())

    @cached_property
    def _start(self) -> IntArray:
        width = self._table.width[self.link]
        start: IntArray = np.cumsum(width) - width
        return start

    def numbers(self, at: IntArray) -> IntArray:
        """Return where the numbers of these messages stand in `values`."""
        if self.scalar:
            return at
        return element_index(self._start[at], self.width(at))

    def width(self, at: IntArray) -> IntArray:
        """Return how many numbers these messages have."""
        width: IntArray = self._table.width[self.link[at]]
        return width

    def write(self, where: IntArray, values: FloatArray | float) -> None:
        """Put numbers in place of those sent; the sender's own array stays as it is."""
        if self.values is self._sent:
            self.values = self.values.copy()
        self.values[where] = values


@dataclass(frozen=True)
class Draws:
    """The random numbers of one step: of each link a stream of its own."""

    seed: int
    streams: counter_rng.UIntArray

    @classmethod
    def of(cls, seed: int, step: str, table: LinkTable) -> Draws:
        """Key the streams by the step's id and the links."""
        return cls(seed, counter_rng.stream_ids(f"attack {step}:{key}" for key in table.keys))

    def uniform(self, batch: Batch, at: IntArray, channel: int) -> FloatArray:
        """Return one number in (0, 1) per message."""
        return counter_rng.uniform(self.seed, self._of(batch, at), batch.sent_ns, channel)

    def normal(self, batch: Batch, at: IntArray, channel: int) -> FloatArray:
        """Return one standard normal number per number of these messages."""
        each = self._of(batch, at)
        if not batch.scalar:
            each = number_streams(each, batch.width(at))
        return counter_rng.normal(self.seed, each, batch.sent_ns, channel)

    def _of(self, batch: Batch, at: IntArray) -> counter_rng.UIntArray:
        if batch.once:
            own: counter_rng.UIntArray = self.streams[batch.link[at]]
            return own
        return message_streams(self.streams, batch.link)[at]


class Effect(Protocol):
    """One action at work."""

    def act(self, batch: Batch, at: IntArray, draws: Draws) -> IntArray:
        """Act on the messages `at`; return those that were acted on."""
        ...


class Listener(Effect, Protocol):
    """An action that needs to know what was sent before, also while it is not active."""

    def hear(self, batch: Batch) -> None:
        """Listen to the messages as they were sent."""
        ...


class Dropped:
    """Never delivered."""

    def act(self, batch: Batch, at: IntArray, draws: Draws) -> IntArray:
        """Drop."""
        batch.kept[at] = False
        return at


class Delayed:
    """Delivered later by a constant."""

    def __init__(self, action: Delay) -> None:
        self._late_ns = to_ns(action.delay_s)

    def act(self, batch: Batch, at: IntArray, draws: Draws) -> IntArray:
        """Delay."""
        batch.late_ns[at] += self._late_ns
        return at


class Jammed:
    """Lost at random; what passes is late by a uniform time."""

    def __init__(self, action: Jam) -> None:
        self._loss = action.loss
        self._late_ns = float(to_ns(action.delay_s))

    def act(self, batch: Batch, at: IntArray, draws: Draws) -> IntArray:
        """Lose some, delay the others."""
        lost = draws.uniform(batch, at, _LOSS) < self._loss
        batch.kept[at[lost]] = False
        if not self._late_ns:
            return at[lost]
        late_ns = (draws.uniform(batch, at, _LATE) * self._late_ns).astype(np.int64)
        batch.late_ns[at] += late_ns
        return at[lost | (late_ns > 0)]


class Tampered:
    """Other numbers: ``factor * x + bias`` or a constant, with noise."""

    def __init__(self, action: Tamper) -> None:
        self._action = action

    def act(self, batch: Batch, at: IntArray, draws: Draws) -> IntArray:
        """Rewrite the numbers; what does nothing keeps the bits, those of -0.0 too."""
        action, where = self._action, batch.numbers(at)
        x = batch.values[where]
        if action.value is not None:
            x[:] = action.value
        else:
            if action.factor != 1.0:
                x *= action.factor
            if action.bias:
                x += action.bias
        if action.sigma:
            x += action.sigma * draws.normal(batch, at, _NOISE)
        batch.write(where, x)
        return at


class _Memory:
    """The newest numbers of each link."""

    def __init__(self, table: LinkTable) -> None:
        self._table = table
        self._values: FloatArray = np.zeros(table.size)
        self._known: BoolArray = np.zeros(len(table.keys), dtype=np.bool_)

    def keep(self, link: IntArray, values: FloatArray) -> None:
        """Remember messages; of several of one link the last stays."""
        self._values[self._table.elements(link)] = values
        self._known[link] = True

    def put(self, batch: Batch, at: IntArray, source: IntArray) -> IntArray:
        """Write what links `source` said into the messages `at`, where something was said."""
        known = self._known[source]
        at, source = at[known], source[known]
        batch.write(batch.numbers(at), self._values[self._table.elements(source)])
        return at


class Replayed:
    """The numbers that the link carried a time ago; before there are any, those of the sender.

    Memory holds the messages of the last `lag_s`, and of each link one that is older.
    """

    def __init__(self, action: ReplayMail, attacked: BoolArray, table: LinkTable) -> None:
        self._lag_ns = to_ns(action.lag_s)
        self._attacked = attacked
        self._recent: deque[tuple[int, IntArray, FloatArray]] = deque()
        self._old = _Memory(table)

    def hear(self, batch: Batch) -> None:
        """Keep what is sent, and let what is old enough become what is played."""
        at = np.flatnonzero(self._attacked[batch.link])
        if at.size:
            entry = (batch.sent_ns, batch.link[at], batch.values[batch.numbers(at)])
            self._recent.append(entry)
        while self._recent and self._recent[0][0] <= batch.sent_ns - self._lag_ns:
            _, link, values = self._recent.popleft()
            self._old.keep(link, values)

    def act(self, batch: Batch, at: IntArray, draws: Draws) -> IntArray:
        """Play the old numbers."""
        return self._old.put(batch, at, batch.link[at])


class Impersonated:
    """The numbers that another agent last wrote to the same receiver."""

    def __init__(self, plan: LinkStepPlan, table: LinkTable) -> None:
        self._heard = table.mask(plan.donors)
        self._donor: IntArray = np.full(len(table.keys), -1, dtype=np.int64)
        for key, donor in zip(plan.links, plan.donors, strict=True):
            self._donor[table.position[key]] = table.position[donor]
        self._newest = _Memory(table)

    def hear(self, batch: Batch) -> None:
        """Keep what the other agent writes."""
        at = np.flatnonzero(self._heard[batch.link])
        if at.size:
            self._newest.keep(batch.link[at], batch.values[batch.numbers(at)])

    def act(self, batch: Batch, at: IntArray, draws: Draws) -> IntArray:
        """Put them in the sender's name."""
        return self._newest.put(batch, at, self._donor[batch.link[at]])


def effect_of(plan: LinkStepPlan, table: LinkTable) -> Effect:
    """Return a step's action, ready to act on the mail of one federate."""
    action = plan.action
    match action:
        case Drop() | Partition():
            return Dropped()
        case Delay():
            return Delayed(action)
        case Jam():
            return Jammed(action)
        case Tamper():
            return Tampered(action)
        case ReplayMail():
            return Replayed(action, table.mask(plan.links), table)
        case Impersonate(value=None):
            return Impersonated(plan, table)
        case Impersonate():
            return Tampered(Tamper(kind="tamper", value=action.value))
