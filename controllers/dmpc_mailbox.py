"""What a cluster does with its neighbours' mail: age it, judge it, and go on without it.

Each boundary of a cluster hears one link with the neighbour's rows of the moment. A message of an
earlier sample is moved on by the samples that passed. A boundary goes *local* (the agreement is
dropped, the far end is taken as measured) when its neighbour is silent for more than `patience`
samples, or when what it says is not to be believed: numbers that are not finite or absurd, or, in
`_STRIKES` samples in a row, a voltage announced for now that the own measurement contradicts by
more than `trust`. It comes back after `patience` samples of good mail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from controllers.mail import FloatArray, IntArray, LatestMail, Link, Mail

_STRIKES = 3


@dataclass(frozen=True, slots=True)
class Judgement:
    """Settings: `patience` in samples, `trust` in the unit of the rows, and the absurd."""

    patience: int
    trust: float
    low: float
    high: float


class BoundaryMail:
    """The incoming boundary mail of one instance; all its links have one width.

    Parameters
    ----------
    links : sequence of Link
    calls : int
        Controller steps per sample; a message's round counts steps.
    horizon : int
        Steps of each trajectory in a message.
    judgement : Judgement
    """

    def __init__(
        self, links: Sequence[Link], calls: int, horizon: int, judgement: Judgement
    ) -> None:
        self._inbox = LatestMail(links)
        self._calls, self._horizon, self._judge = calls, horizon, judgement
        n = len(links)
        self._width = links[0].width if n else horizon
        self._used: IntArray = np.full(n, -1, dtype=np.int64)
        self._strikes: IntArray = np.zeros(n, dtype=np.int64)
        self._good: IntArray = np.full(n, judgement.patience, dtype=np.int64)
        self.local = np.zeros(n, dtype=bool)
        self.refused = 0
        self.local_samples = 0

    def absorb(self, mail: Mail) -> None:
        """Take mail in; a message with an impossible number is refused and counts as a strike."""
        if not len(mail):
            return
        rows = mail.values.reshape(len(mail), self._width)
        good = np.isfinite(rows).all(axis=1)
        good &= ((rows >= self._judge.low) & (rows <= self._judge.high)).all(axis=1)
        if not good.all():
            self.refused += int(np.count_nonzero(~good))
            self._strikes[mail.link[~good]] = _STRIKES
            mail = Mail(mail.link[good], mail.round[good], rows[good].ravel())
        self._inbox.absorb(mail)

    @property
    def rows(self) -> FloatArray:
        """Newest message of every link, (links, width)."""
        return self._inbox.values.reshape(-1, self._width)

    def begin_sample(self, sample: int, announced: IntArray, measured: FloatArray) -> None:
        """Judge every link once per sample.

        Parameters
        ----------
        sample : int
        announced : int (links,)
            Column of the message that announces the measured quantity one sample ahead.
        measured : float (links,)
            What is measured now; NaN where it cannot be compared.
        """
        if not len(self.local):
            return
        heard = self._inbox.round // self._calls
        age = sample - heard
        said = self.rows[np.arange(len(announced)), announced]
        # Only what was said in the last sample speaks of now.
        wrong = (age == 1) & (np.abs(said - measured) > self._judge.trust)
        self._strikes = np.where(wrong, self._strikes + 1, np.maximum(self._strikes - 1, 0))
        bad = (age > self._judge.patience) | (self._strikes >= _STRIKES)
        well = ~bad & ~wrong & (age <= 1)
        self._good = np.where(well, self._good + 1, np.where(bad, 0, self._good))
        self.local = bad | (self.local & (self._good < self._judge.patience))
        self._strikes = np.minimum(self._strikes, 2 * _STRIKES)
        self.local_samples += int(np.count_nonzero(self.local))

    def fresh(self, sample: int) -> tuple[IntArray, FloatArray]:
        """Return the links with a message not used before, and the messages moved on to now."""
        at = np.flatnonzero((self._inbox.round > self._used) & ~self.local)
        self._used[:] = self._inbox.round
        rows = self.rows[at]
        late = np.maximum(sample - self._inbox.round[at] // self._calls, 0)
        if late.any():
            steps = np.minimum(np.arange(self._horizon) + late[:, None], self._horizon - 1)
            blocks = rows.reshape(len(at), -1, self._horizon)
            rows = np.take_along_axis(blocks, steps[:, None, :], axis=2).reshape(rows.shape)
        return at, rows
