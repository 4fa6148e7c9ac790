"""Mailboxes of many agents at once; the policies are those of `controllers.core.waiting`."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from controllers.core.mail import FloatArray, IntArray
from controllers.core.waiting import Asynchronous, Waiting

BoolArray = NDArray[np.bool_]
Taken = tuple[IntArray, FloatArray, BoolArray]
"""Links (l,), their values (l, width) and whether they are fresh (l,), ordered by link."""


class RowMailbox(ABC):
    """The incoming links of rows of agents.

    Parameters
    ----------
    row : (links,). The row that each link ends at, rising.
    rows, width : Number of rows; numbers per message.

    Attributes
    ----------
    newest : (links,). Highest number heard, -1 before the first.
    """

    def __init__(self, row: IntArray, rows: int, width: int) -> None:
        self._row, self._rows, self._width = row, rows, width
        self.newest: IntArray = np.full(len(row), -1, dtype=np.int64)

    @abstractmethod
    def absorb(self, link: IntArray, number: IntArray, values: FloatArray) -> None:
        """Take messages in; old and repeated ones change nothing."""

    @abstractmethod
    def ready(self) -> BoolArray:
        """Return which rows may compute, (rows,)."""

    @abstractmethod
    def take(self, rows: IntArray) -> Taken:
        """Return what these rows compute with and count it as used."""

    def _links_of(self, rows: IntArray) -> IntArray:
        if len(rows) == self._rows:
            return np.arange(len(self._row))
        mine = np.zeros(self._rows, dtype=np.bool_)
        mine[rows] = True
        return np.flatnonzero(mine[self._row])


class BarrierRows(RowMailbox):
    """Message n of every link belongs to the row's n-th computation; peers lead by one at most."""

    def __init__(self, row: IntArray, rows: int, width: int) -> None:
        super().__init__(row, rows, width)
        self._values = np.empty((2, len(row), width))
        self._has = np.zeros((2, len(row)), dtype=np.bool_)
        self._used = np.zeros(rows, dtype=np.int64)

    def absorb(self, link: IntArray, number: IntArray, values: FloatArray) -> None:
        """Keep messages of this round and of the next."""
        np.maximum.at(self.newest, link, number)
        ahead = number - self._used[self._row[link]]
        new = (ahead >= 0) & (ahead <= 1)
        slot = number[new] % 2
        self._values[slot, link[new]] = values[new]
        self._has[slot, link[new]] = True

    def ready(self) -> BoolArray:
        """Return which rows have the next message of every link."""
        has = self._has[self._used[self._row] % 2, np.arange(len(self._row))]
        return np.asarray(np.bincount(self._row[~has], minlength=self._rows) == 0)

    def take(self, rows: IntArray) -> Taken:
        """Return this round's messages and free their places."""
        link = self._links_of(rows)
        slot = self._used[self._row[link]] % 2
        values = self._values[slot, link]
        self._has[slot, link] = False
        self._used[rows] += 1
        return link, values, np.ones(len(link), dtype=np.bool_)


class LatestRows(RowMailbox):
    """Only the newest message of every link; see `controllers.core.waiting.Asynchronous`."""

    def __init__(self, row: IntArray, rows: int, width: int, policy: Asynchronous) -> None:
        super().__init__(row, rows, width)
        self._values = np.empty((len(row), width))
        self._fresh = np.zeros(len(row), dtype=np.bool_)
        self._age = np.zeros(len(row), dtype=np.int64)
        peers = np.bincount(row, minlength=rows)
        self._needed = np.ceil(policy.fraction * peers - 1e-9)
        self._max_age = np.iinfo(np.int64).max if policy.max_age is None else policy.max_age

    def absorb(self, link: IntArray, number: IntArray, values: FloatArray) -> None:
        """Keep the newest message of each link."""
        order = np.lexsort((number, link))
        last = order[np.append(np.diff(link[order]) != 0, True)]
        last = last[number[last] > self.newest[link[last]]]
        at = link[last]
        self.newest[at] = number[last]
        self._values[at] = values[last]
        self._fresh[at] = True
        self._age[at] = 0

    def ready(self) -> BoolArray:
        """Return which rows have heard all peers, enough of them lately, and none too long ago."""
        bad = (self.newest < 0) | (self._age >= self._max_age)
        fresh = np.bincount(self._row[self._fresh], minlength=self._rows)
        none_bad = np.bincount(self._row[bad], minlength=self._rows) == 0
        return np.asarray(none_bad & (fresh >= self._needed))

    def take(self, rows: IntArray) -> Taken:
        """Return the newest messages; from now on they are used."""
        link = self._links_of(rows)
        fresh = self._fresh[link]
        self._fresh[link] = False
        self._age[link] += 1
        return link, self._values[link], fresh


def row_mailbox(row: IntArray, rows: int, width: int, policy: Waiting) -> RowMailbox:
    """Return the mailbox that a policy needs."""
    if isinstance(policy, Asynchronous):
        return LatestRows(row, rows, width, policy)
    return BarrierRows(row, rows, width)
