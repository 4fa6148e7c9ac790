"""The link model: latency, jitter, loss and changed numbers of mail between agents; its delivery.

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
from federates.core.link_values import HEADER_BYTES, LinkQuality, LinkValues, element_index
from grid_models.base import counter_rng

BoolArray = NDArray[np.bool_]

__all__ = ["Bundle", "LinkInbox", "LinkQuality", "Outbox", "message_streams"]

_LOSS, _JITTER = 0, 1
# Sets the messages apart that one link carries at one instant; odd, so it visits every stream.
_NTH = np.uint64(0xD6E8FEB86659FD93)
_HEADER = struct.Struct("<qqq")


@dataclass(frozen=True, slots=True)
class Bundle:
    """All mail of one federate to one peer at one time; links are numbered as the receiver does."""

    sent_ns: int
    mail: Mail

    HEAD_BYTES: ClassVar[int] = _HEADER.size
    LINK_BYTES: ClassVar[int] = HEADER_BYTES
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
        self._values = LinkValues(links_in, each, seed)
        self._bytes: IntArray | None = None
        if any(q.bits is not None for q in each):
            size = [q.message_bytes(link) for q, link in zip(each, links_in, strict=True)]
            self._bytes = np.array(size, dtype=np.int64)
        self._streams = counter_rng.stream_ids(keys)
        self._pending: list[tuple[IntArray | None, Mail]] = []
        self.delivered = 0
        self.lost = 0
        self._numbers = 0
        self._quantised_bytes = 0

    def read(self, latest: Callable[[str, str], FloatArray | None], now_ns: int) -> None:
        """Read outputs of other federates before mail is delivered; an ordinary inbox reads none.

        Parameters
        ----------
        latest : Returns what a federate published last on a port, None for nothing.
        """

    def summary(self) -> dict[str, float]:
        """Return how many messages and bytes were delivered, and how many messages were lost."""
        n_bytes = HEADER_BYTES * self.delivered + 8 * self._numbers
        return {
            "mail_delivered_count": float(self.delivered),
            "mail_bytes_count": float(n_bytes if self._bytes is None else self._quantised_bytes),
            "mail_lost_count": float(self.lost),
        }

    def close(self) -> None:
        """Release what the inbox holds; an ordinary one holds nothing."""

    def accept(self, bundle: Bundle) -> None:
        """Take a bundle in: draw its losses, delays and what becomes of its numbers."""
        mail = bundle.mail
        if self._perfect:
            self._pending.append((None, mail))
            return
        streams, sent = message_streams(self._streams, mail.link), bundle.sent_ns
        mail = self._values.applied(mail, streams, sent)
        self._queue(mail, *self._fate(mail.link, streams, sent))

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
        if self._bytes is None:
            self._numbers += out.values.size
        else:
            self._quantised_bytes += int(self._bytes[out.link].sum())
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
