"""Mail of several widths sorted by what it is about, and written from tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from controllers.core.mail import FloatArray, IntArray, Link, Mail


class Sorter:
    """Takes the messages of chosen incoming links, all of one width, out of an inbox.

    Parameters
    ----------
    links : sequence of Link. All incoming links of an instance.
    kind : str. Which to take.
    """

    def __init__(self, links: Sequence[Link], kind: str) -> None:
        self._widths = np.array([link.width for link in links], dtype=np.int64)
        self._place: IntArray = np.full(len(links), -1, dtype=np.int64)
        mine = [i for i, link in enumerate(links) if link.kind == kind]
        self._place[mine] = np.arange(len(mine))
        self.links = tuple(links[i] for i in mine)
        self.width = self.links[0].width if mine else 1

    def rows(self, mail: Mail) -> tuple[IntArray, IntArray, FloatArray]:
        """Return (position in `links`, sender's round, values (m, width)) of the messages."""
        widths = self._widths[mail.link]
        start = np.cumsum(widths) - widths
        at = np.flatnonzero(self._place[mail.link] >= 0)
        values = mail.values[start[at][:, None] + np.arange(self.width)]
        return self._place[mail.link[at]], mail.round[at], values.reshape(at.size, self.width)


class Latest:
    """The newest message of each of `n` senders, by the sender's round.

    Attributes
    ----------
    values : ndarray (n, width). Zero before the first message.
    round : int64 (n,). -1 before the first message.
    heard : int64 (n,). The owner's step at which mail last came; -1 before the first message.
    """

    def __init__(self, n: int, width: int) -> None:
        self.values: FloatArray = np.zeros((n, width))
        self.round: IntArray = np.full(n, -1, dtype=np.int64)
        self.heard: IntArray = np.full(n, -1, dtype=np.int64)

    def absorb(self, sender: IntArray, rounds: IntArray, values: FloatArray, step: int) -> None:
        """Take messages in; one with a number that is not finite is passed over.

        A sender counts as heard even when what it sends is older than what is known, or nonsense:
        that is for `scores` and `bid_book` to judge.
        """
        self.heard[sender] = step
        use = np.isfinite(values).all(axis=1) & (rounds > self.round[sender])
        order = np.flatnonzero(use)
        # Oldest first: of several messages of one sender the newest is written last.
        order = order[np.argsort(rounds[order], kind="stable")]
        self.round[sender[order]] = rounds[order]
        self.values[sender[order]] = values[order]


def messages(links: Sequence[int], step: int, values: FloatArray) -> Mail:
    """Return one message over each of `links` (positions in `links_out`) from a table of rows."""
    table = np.atleast_2d(values)
    return Mail(
        np.array(links, dtype=np.int64),
        np.full(len(links), step, dtype=np.int64),
        table.ravel().astype(np.float64),
    )


def joined(parts: Sequence[Mail]) -> Mail:
    """Return the mail of several writers as one."""
    full = [part for part in parts if len(part)]
    if not full:
        return Mail.empty()
    return Mail(
        np.concatenate([part.link for part in full]),
        np.concatenate([part.round for part in full]),
        np.concatenate([part.values for part in full]),
    )
