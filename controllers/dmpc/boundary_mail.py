"""How a cluster treats its neighbours' mail: ageing, plausibility checks, and local operation.

A cluster receives on one link per boundary the neighbour's rows of the moment. A message of an
earlier sample is shifted by the samples that passed. A boundary becomes *local* (no agreement; the
far end is taken as measured) when its neighbour is silent for more than `patience` samples or is
not plausible: it sends numbers that are not finite or out of range, or the agreed far voltage
differs by more than `trust` from the own measurement in `_STRIKES` samples in a row. It leaves
local mode after `patience` samples of good mail; a neighbour that was not plausible needs four
times as many, doubled at every further failure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from controllers.core.mail import FloatArray, IntArray, LatestMail, Link, Mail

_STRIKES = 3
# Probation of a neighbour that was not believed: first in units of `patience`, longest in samples.
_FIRST, _LONGEST = 4, 100_000


@dataclass(frozen=True, slots=True)
class Judgement:
    """Limits of plausible mail: `patience` in samples, `trust` in the unit of the rows, lowest and
    highest plausible value, and the age in samples from which a message is not used.
    """

    patience: int
    trust: float
    low: float
    high: float
    max_age: int


class BoundaryMail:
    """The incoming boundary mail of one instance; all its links have one width.

    Parameters
    ----------
    calls : Controller steps per sample; a message's round counts steps.
    horizon : Steps of each trajectory in a message, by which an old one is moved on; 1: not moved.
    """

    def __init__(
        self, links: Sequence[Link], calls: int, horizon: int, judgement: Judgement
    ) -> None:
        self._inbox = LatestMail(links)
        self._calls, self._horizon, self._judge = calls, horizon, judgement
        n = len(links)
        self._width = links[0].width if n else horizon
        self._used: IntArray = np.full(n, -1, dtype=np.int64)
        self._usable: IntArray = np.full(n, -1, dtype=np.int64)
        self._strikes: IntArray = np.zeros(n, dtype=np.int64)
        self._absurd = np.zeros(n, dtype=bool)
        self._probation: IntArray = np.full(n, _FIRST * judgement.patience, dtype=np.int64)
        self._served: IntArray = np.full(n, judgement.patience, dtype=np.int64)
        self._good: IntArray = self._served.copy()
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
            self._absurd[mail.link[~good]] = True
            mail = Mail(mail.link[good], mail.round[good], rows[good].ravel())
        self._inbox.absorb(mail)

    @property
    def rows(self) -> FloatArray:
        """Newest message of every link, (links, width)."""
        return self._inbox.values.reshape(-1, self._width)

    def begin_sample(self, sample: int, agreed: FloatArray, measured: FloatArray) -> None:
        """Judge every link once per sample.

        Parameters
        ----------
        agreed : (links,). What the last plan says of the far end now; NaN when there is none.
        measured : (links,)
        """
        if not len(self.local):
            return
        heard = self._inbox.round // self._calls
        usable = (heard >= 0) & (sample - heard <= self._judge.max_age)
        self._usable[usable] = sample
        silent = sample - self._usable > self._judge.patience
        # In local mode nothing was agreed, so there is nothing to contradict.
        wrong = (np.abs(agreed - measured) > self._judge.trust) & ~self.local & (heard >= 0)
        self._strikes = np.where(wrong, self._strikes + 1, np.maximum(self._strikes - 1, 0))
        self._strikes = np.where(self._absurd, _STRIKES, self._strikes)
        liar = self._strikes >= _STRIKES
        fell = liar & ~self.local
        self._served = np.where(fell, self._probation, self._served)
        self._probation[fell] = np.minimum(2 * self._probation[fell], _LONGEST)
        self._good = np.where(liar | silent, 0, self._good + 1)
        self.local = self._good < self._served
        self._absurd[:] = False
        self.local_samples += int(np.count_nonzero(self.local))

    def fresh(self, sample: int) -> tuple[IntArray, FloatArray]:
        """Return the links with a message not used before, and the messages moved on to now."""
        recent = sample - self._inbox.round // self._calls <= self._judge.max_age
        at = np.flatnonzero((self._inbox.round > self._used) & recent & ~self.local)
        self._used[:] = self._inbox.round
        rows = self.rows[at]
        late = np.maximum(sample - self._inbox.round[at] // self._calls, 0)
        if late.any():
            steps = np.minimum(np.arange(self._horizon) + late[:, None], self._horizon - 1)
            blocks = rows.reshape(len(at), -1, self._horizon)
            rows = np.take_along_axis(blocks, steps[:, None, :], axis=2).reshape(rows.shape)
        return at, rows
