"""Mail between agents, as arrays.

A *link* is a directed channel from one agent to another that carries vectors of a fixed width.
All mail of one step travels as one `Mail`: parallel arrays, one entry per message, so that a
controller of hundreds of agents handles its inbox without a Python loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Link:
    """A directed channel `source` -> `target` for messages of `kind` with `width` numbers each.

    counters : How many of the last numbers are whole numbers of the protocol, not data: noise and
        quantisation of a link leave them.
    """

    source: str
    target: str
    kind: str = "state"
    width: int = 1
    counters: int = 0

    @property
    def key(self) -> str:
        """Stable name; randomness and faults of a link are keyed by it, not by its position."""
        return f"{self.source}>{self.target}:{self.kind}"


@dataclass(frozen=True, slots=True)
class Mail:
    """Messages as parallel arrays.

    Attributes
    ----------
    link : int64 (m,)
        Position in the owner's link table (`links_in` for an inbox, `links_out` for an outbox).
    round : (m,). The sender's round (its step counter) when it wrote the message.
    values : (sum of widths,). The messages' numbers, one after the other.
    """

    link: IntArray
    round: IntArray
    values: FloatArray

    @staticmethod
    def empty() -> Mail:
        """Return mail without a message."""
        return _EMPTY

    def __len__(self) -> int:
        return int(self.link.size)


_EMPTY = Mail(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float64))


class LatestMail:
    """The newest accepted message of every incoming link ("latest wins" by the sender's round).

    An older message that overtakes nothing is dropped, so reordering by jitter is harmless.

    Parameters
    ----------
    links : The incoming links; row i of `values` belongs to ``links[i]``.
    initial : What a link reads before its first message.
    """

    def __init__(self, links: Sequence[Link], initial: float = 0.0) -> None:
        widths = np.array([link.width for link in links], dtype=np.int64)
        self._start = np.concatenate([[0], np.cumsum(widths)]).astype(np.int64)
        self._widths = widths
        self._uniform = bool((widths == 1).all())
        self.values: FloatArray = np.full(int(self._start[-1]), initial)
        self.round: IntArray = np.full(len(links), -1, dtype=np.int64)

    def of(self, link: int) -> FloatArray:
        """Return a view of the newest values of one link."""
        return self.values[self._start[link] : self._start[link + 1]]

    def absorb(self, mail: Mail) -> None:
        """Take the messages in; for each link the one with the highest round stays."""
        if not len(mail):
            return
        if self._uniform and (mail.link.size == 1 or bool((np.diff(mail.link) > 0).all())):
            fresh = mail.round > self.round[mail.link]
            if not fresh.all():
                mail = Mail(mail.link[fresh], mail.round[fresh], mail.values[fresh])
            self.values[mail.link] = mail.values
            self.round[mail.link] = mail.round
            return
        self._absorb_any(mail)

    def _absorb_any(self, mail: Mail) -> None:
        """Any order, any widths, several messages for one link; the first of equal rounds stays."""
        stop = np.cumsum(self._widths[mail.link])
        position = np.arange(mail.link.size)
        order = np.lexsort((-position, mail.round, mail.link))
        last_of_link = np.append(np.diff(mail.link[order]) != 0, True)
        taken = order[last_of_link]
        taken = taken[mail.round[taken] > self.round[mail.link[taken]]]
        if not taken.size:
            return
        link = mail.link[taken]
        width = self._widths[link]
        within = np.arange(int(width.sum())) - np.repeat(np.cumsum(width) - width, width)
        source = np.repeat(stop[taken] - width, width) + within
        self.values[np.repeat(self._start[link], width) + within] = mail.values[source]
        self.round[link] = mail.round[taken]
