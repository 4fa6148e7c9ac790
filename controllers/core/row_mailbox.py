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
        self._all_links = np.arange(len(row))
        self._all_rows = np.ones(rows, dtype=np.bool_)
        self._all_fresh = np.ones(len(row), dtype=np.bool_)
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
            return self._all_links
        mine = np.zeros(self._rows, dtype=np.bool_)
        mine[rows] = True
        return np.flatnonzero(mine[self._row])


class BarrierRows(RowMailbox):
    """Message n of every link belongs to the row's n-th computation; peers lead by one at most.

    Where all rows have computed equally often and the next message of every link comes at once, it
    is kept as it is: the usual step over good links.
    """

    def __init__(self, row: IntArray, rows: int, width: int) -> None:
        super().__init__(row, rows, width)
        self._values = np.empty((2, len(row), width))
        self._has = np.zeros((2, len(row)), dtype=np.bool_)
        self._used = np.zeros(rows, dtype=np.int64)
        self._even = True
        self._whole: FloatArray | None = None

    def absorb(self, link: IntArray, number: IntArray, values: FloatArray) -> None:
        """Keep messages of this round and of the next."""
        if self._even and self._is_whole(link, number):
            self.newest[:] = np.maximum(self.newest, number)
            self._whole = values.copy()
            return
        self._take_apart()
        np.maximum.at(self.newest, link, number)
        ahead = number - self._used[self._row[link]]
        new = (ahead >= 0) & (ahead <= 1)
        slot = number[new] % 2
        self._values[slot, link[new]] = values[new]
        self._has[slot, link[new]] = True

    def ready(self) -> BoolArray:
        """Return which rows have the next message of every link."""
        if self._whole is not None:
            return self._all_rows
        has = self._has[self._used[self._row] % 2, self._all_links]
        return np.asarray(np.bincount(self._row[~has], minlength=self._rows) == 0)

    def take(self, rows: IntArray) -> Taken:
        """Return this round's messages and free their places."""
        everyone = len(rows) == self._rows
        if everyone and self._whole is not None:
            values, self._whole = self._whole, None
            self._has[self._used[0] % 2] = False
            self._used += 1
            return self._all_links, values, self._all_fresh
        self._take_apart()
        link = self._links_of(rows)
        slot = self._used[self._row[link]] % 2
        values = self._values[slot, link]
        self._has[slot, link] = False
        self._used[rows] += 1
        self._even = bool((self._used == self._used[0]).all())
        return link, values, self._all_fresh[: len(link)]

    def _is_whole(self, link: IntArray, number: IntArray) -> bool:
        return (
            len(link) == len(self._row)
            and bool((number == self._used[0]).all())
            and bool((link == self._all_links).all())
        )

    def _take_apart(self) -> None:
        if self._whole is not None:
            slot = self._used[0] % 2
            self._values[slot], self._has[slot] = self._whole, True
            self._whole = None


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
        if (np.diff(link) <= 0).any():  # several of one link, or out of order
            order = np.lexsort((number, link))
            last = order[np.append(np.diff(link[order]) != 0, True)]
            link, number, values = link[last], number[last], values[last]
        new = number > self.newest[link]
        at = link[new]
        self.newest[at] = number[new]
        self._values[at] = values[new]
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
