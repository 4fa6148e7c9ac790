"""The link model: latency, jitter, loss and noise of mail between agents, and its delivery.

Every message passes here, even between two agents of one federate, and every random number is
keyed by (seed, link, time of sending). So trajectories do not depend on how agents are hosted.
The receiver applies the model: lost messages are dropped, late ones wait here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from controllers.core.mail import FloatArray, IntArray, Link, Mail
from federates.clock import to_ns
from grid_models.base import counter_rng

BoolArray = NDArray[np.bool_]

_LOSS, _JITTER, _NOISE = 0, 1, 2
# Sets the messages apart that one link carries at one instant; odd, so it visits every stream.
_NTH = np.uint64(0xD6E8FEB86659FD93)
_HEADER = struct.Struct("<qqq")


@dataclass(frozen=True, slots=True)
class LinkQuality:
    """Quality of one link. Times in seconds; `loss` is a probability, `noise` a deviation."""

    latency_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    noise: float = 0.0

    @property
    def perfect(self) -> bool:
        """Whether messages pass at once and unchanged."""
        return not (self.latency_s or self.jitter_s or self.loss or self.noise)


@dataclass(frozen=True, slots=True)
class Bundle:
    """All mail of one federate to one peer at one time; links are numbered as the receiver does."""

    sent_ns: int
    mail: Mail

    HEAD_BYTES: ClassVar[int] = _HEADER.size
    LINK_BYTES: ClassVar[int] = 16
    """Of a message beside its numbers."""

    def to_bytes(self) -> bytes:
        """Return the bytes that cross HELICS."""
        mail = self.mail
        head = _HEADER.pack(self.sent_ns, mail.link.size, mail.values.size)
        return b"".join((head, mail.link.tobytes(), mail.round.tobytes(), mail.values.tobytes()))

    @classmethod
    def from_bytes(cls, data: bytes) -> Bundle:
        """Read what `to_bytes` wrote."""
        sent_ns, n, _ = _HEADER.unpack_from(data)
        link = np.frombuffer(data, np.int64, n, _HEADER.size)
        rounds = np.frombuffer(data, np.int64, n, _HEADER.size + 8 * n)
        values = np.frombuffer(data, np.float64, -1, _HEADER.size + 16 * n)
        return cls(sent_ns, Mail(link, rounds, values))


class Outbox:
    """Splits a federate's outgoing mail by the peer that hosts the receiving agent.

    Parameters
    ----------
    links_out : The federate's outgoing links.
    routes : sequence of (peer name, position in the peer's links_in), one per outgoing link
    """

    def __init__(self, links_out: Sequence[Link], routes: Sequence[tuple[str, int]]) -> None:
        self.peers: tuple[str, ...] = tuple(sorted({peer for peer, _ in routes}))
        number = {peer: i for i, peer in enumerate(self.peers)}
        self._peer: IntArray = np.array([number[p] for p, _ in routes], dtype=np.int64)
        self._at_peer: IntArray = np.array([i for _, i in routes], dtype=np.int64)
        self._width: IntArray = np.array([link.width for link in links_out], dtype=np.int64)
        self._scalar = bool((self._width == 1).all())

    def bundles(self, mail: Mail, now_ns: int) -> list[tuple[str, Bundle]]:
        """Return one bundle per peer that has mail."""
        if not len(mail):
            return []
        at_peer = self._at_peer[mail.link]
        if len(self.peers) == 1:
            return [(self.peers[0], Bundle(now_ns, Mail(at_peer, mail.round, mail.values)))]
        peer = self._peer[mail.link]
        value_peer = peer if self._scalar else np.repeat(peer, self._width[mail.link])
        out = []
        for i, name in enumerate(self.peers):
            mine = peer == i
            if mine.any():
                part = Mail(at_peer[mine], mail.round[mine], mail.values[value_peer == i])
                out.append((name, Bundle(now_ns, part)))
        return out


class LinkInbox:
    """Receives bundles, applies the link model and delivers what is due.

    Parameters
    ----------
    quality : mapping of Link.key to LinkQuality, or one LinkQuality for all
    """

    def __init__(
        self,
        links_in: Sequence[Link],
        quality: Mapping[str, LinkQuality],
        seed: int,
    ) -> None:
        self._seed = seed
        self._width: IntArray = np.array([link.width for link in links_in], dtype=np.int64)
        self._scalar = bool((self._width == 1).all())
        perfect, keys = LinkQuality(), [link.key for link in links_in]
        each = [quality.get(key, perfect) for key in keys]
        self._perfect = all(q.perfect for q in each)
        self._latency = np.array([to_ns(q.latency_s) for q in each], dtype=np.int64)
        self._jitter = np.array([to_ns(q.jitter_s) for q in each], dtype=np.float64)
        self._loss = np.array([q.loss for q in each])
        self._noise = np.array([q.noise for q in each])
        self._streams = counter_rng.stream_ids(keys)
        self._pending: list[tuple[IntArray | None, Mail]] = []
        self.delivered = 0
        self.lost = 0

    def read(self, latest: Callable[[str, str], FloatArray | None], now_ns: int) -> None:
        """Read outputs of other federates before mail is delivered; an ordinary inbox reads none.

        Parameters
        ----------
        latest : Returns what a federate published last on a port, None for nothing.
        """

    def summary(self) -> dict[str, float]:
        """Return how many messages were delivered and lost."""
        return {
            "mail_delivered_count": float(self.delivered),
            "mail_lost_count": float(self.lost),
        }

    def close(self) -> None:
        """Release what the inbox holds; an ordinary one holds nothing."""

    def accept(self, bundle: Bundle) -> None:
        """Take a bundle in: draw its losses, delays and noise."""
        mail = bundle.mail
        if self._perfect:
            self._pending.append((None, mail))
            return
        streams, sent = message_streams(self._streams, mail.link), bundle.sent_ns
        self._queue(self._with_noise(mail, streams, sent), *self._fate(mail.link, streams, sent))

    def deliver(self, now_ns: int) -> Mail:
        """Return the mail that arrived by `now_ns`, ordered by link, then by the sender's round.

        Mail sent at `now_ns` itself must not be handed in yet: the host keeps it back.
        """
        if not self._pending:
            return Mail.empty()
        due: list[Mail] = []
        waiting: list[tuple[IntArray | None, Mail]] = []
        for arrival, mail in self._pending:
            if arrival is None:  # perfect links: what was sent before now is here
                due.append(mail)
                continue
            ready = arrival <= now_ns
            if ready.all():
                due.append(mail)
            elif not ready.any():
                waiting.append((arrival, mail))
            else:
                waiting.append((arrival[~ready], self._select(mail, ~ready)))
                due.append(self._select(mail, ready))
        self._pending = waiting
        out = self._ordered(due) if due else Mail.empty()
        self.delivered += len(out)
        return out

    def _fate(
        self, link: IntArray, streams: counter_rng.UIntArray, sent_ns: int
    ) -> tuple[BoolArray, IntArray]:
        """Return of each message whether the link keeps it, and when it arrives."""
        draws, jitter = counter_rng.uniform(self._seed, streams, sent_ns, (_LOSS, _JITTER))
        kept = draws >= self._loss[link]
        arrival = sent_ns + self._latency[link]
        arrival += (jitter * self._jitter[link]).astype(np.int64)
        return kept, arrival

    def _queue(self, mail: Mail, kept: BoolArray, arrival: IntArray) -> None:
        """Let what is kept wait for its arrival."""
        if not kept.all():
            self.lost += int(kept.size - kept.sum())
            mail, arrival = self._select(mail, kept), arrival[kept]
        self._pending.append((arrival, mail))

    def _ordered(self, parts: list[Mail]) -> Mail:
        if len(parts) == 1:
            mail = parts[0]
            if (mail.link[1:] > mail.link[:-1]).all():
                return mail
        link = np.concatenate([m.link for m in parts])
        rounds = np.concatenate([m.round for m in parts])
        values = np.concatenate([m.values for m in parts])
        # Parts are sorted runs as a rule, which a stable sort merges quickly.
        order = np.argsort(link, kind="stable")
        if (np.diff(link[order]) == 0).any():
            order = np.lexsort((rounds, link))
        return self._take(Mail(link, rounds, values), order)

    def _take(self, mail: Mail, order: IntArray) -> Mail:
        if self._scalar:
            return Mail(mail.link[order], mail.round[order], mail.values[order])
        width = self._width[mail.link]
        start = np.cumsum(width) - width
        index = element_index(start[order], width[order])
        return Mail(mail.link[order], mail.round[order], mail.values[index])

    def _select(self, mail: Mail, mask: BoolArray) -> Mail:
        return self._take(mail, np.flatnonzero(mask))

    def _with_noise(self, mail: Mail, streams: counter_rng.UIntArray, sent_ns: int) -> Mail:
        """Return the mail with noise on the values of noisy links; all others keep their bits."""
        noisy_link = self._noise[mail.link]
        if not noisy_link.any():
            return mail
        width = self._width[mail.link]
        sigma = np.repeat(noisy_link, width)
        at = np.flatnonzero(sigma)
        each = number_streams(streams, width)[at]
        values = mail.values.copy()
        values[at] += sigma[at] * counter_rng.normal(self._seed, each, sent_ns, _NOISE)
        return Mail(mail.link, mail.round, values)


def element_index(start: IntArray, width: IntArray) -> IntArray:
    """Return ``start[i] + 0 ... start[i] + width[i] - 1`` for every i, one after the other."""
    before = np.cumsum(width) - width
    index: IntArray = np.repeat(start - before, width) + np.arange(int(width.sum()))
    return index


def message_streams(streams: counter_rng.UIntArray, link: IntArray) -> counter_rng.UIntArray:
    """Return the random stream of each message: its link's, and how many went before it."""
    each: counter_rng.UIntArray = streams[link]
    if (link[1:] > link[:-1]).all():
        return each
    order = np.argsort(link, kind="stable")
    first = np.flatnonzero(np.diff(link[order], prepend=-1))
    nth = np.empty(link.size, dtype=np.uint64)
    nth[order] = np.arange(link.size) - np.repeat(first, np.diff(first, append=link.size))
    return each + nth * _NTH


def number_streams(streams: counter_rng.UIntArray, width: IntArray) -> counter_rng.UIntArray:
    """Return the random stream of each number of messages with the given streams and widths."""
    within = element_index(np.zeros(width.size, dtype=np.int64), width)
    return np.repeat(streams, width) + within.astype(np.uint64)
