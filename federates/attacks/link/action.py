"""What an action of the link layer is: it changes, delays or drops messages of one instant.

Random numbers are keyed by (attack seed, step, link, time of sending).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from controllers.core.mail import FloatArray, IntArray, Link, Mail
from federates.core.link_values import element_index, number_streams
from federates.core.links import BoolArray, message_streams
from federates.scenario.attack_actions import Action
from grid_models.base import counter_rng

if TYPE_CHECKING:
    from federates.attacks.link.targets import LinkTargets

CHANCE, LOSS, LATE, NOISE = 0, 1, 2, 3  # channels of the random numbers; the noise takes two


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

    def mask(self, keys: Sequence[str]) -> BoolArray:
        """Return which links have one of these keys."""
        out = np.zeros(len(self.keys), dtype=np.bool_)
        out[[self.position[key] for key in keys]] = True
        return out


class Batch:
    """All mail of one instant to one federate, and what an attack makes of it.

    Attributes
    ----------
    link : (m,)
    values : (sum of widths,)
    kept : (m,). Whether a message is still on its way.
    late_ns : (m,). How much later than by its link a message arrives.
    scalar : Whether every message is one number.
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
class LinkDraws:
    """The random numbers of one step: of each link a stream of its own."""

    seed: int
    streams: counter_rng.UIntArray

    @classmethod
    def of(cls, seed: int, step: str, table: LinkTable) -> LinkDraws:
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


class LinkAction(Action):
    """Base of the actions on mail.

    A subclass declares its options as fields, its state as private attributes set in `prepare`,
    and implements `act`.
    """

    layer: ClassVar[str] = "link"
    listens: ClassVar[bool] = False
    """Whether `observe` must see all mail, also while the step is not active."""

    def links(self, targets: LinkTargets) -> list[Link]:
        """Return the links it acts on; `targets` takes what is wrong."""
        return targets.matched()

    def donors(self, targets: LinkTargets, chosen: Sequence[Link]) -> dict[str, str]:
        """Return by link key the link whose numbers it takes, where it takes any."""
        return {}

    def begin(self, table: LinkTable, links: Sequence[str], donors: Mapping[str, str]) -> Self:
        """Return a copy that acts on the mail of one federate.

        Parameters
        ----------
        table : The federate's incoming links.
        links : Keys of those it acts on.
        donors : By link key, the link whose numbers it takes.
        """
        active = self.model_copy()
        active.prepare(table, links, donors)
        return active

    def prepare(self, table: LinkTable, links: Sequence[str], donors: Mapping[str, str]) -> None:
        """Set the state up; called once, before the run."""

    def observe(self, batch: Batch) -> None:
        """Look at the messages as they were sent; only where `listens`."""

    @abstractmethod
    def act(self, batch: Batch, at: IntArray, draws: LinkDraws) -> IntArray:
        """Act on the messages at positions `at`; return those that were acted on."""
