"""Bills that travel down the market, in whole units of money, as cumulative amounts.

A message carries the sum that has been billed since the start, so the next message makes up for a
lost one. Books balance at any time: money that is billed above and not yet divided below is in
transit.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from controllers.core.mail import FloatArray, IntArray
from controllers.market.model.whole_units import UNIT

Units = NDArray[np.int64]
_LARGEST = 2.0**53


class Bills:
    """Divides what each of n payers is billed among those below it, `owner` (m,).

    Attributes
    ----------
    received : int64 (n,). Billed from above, since the start.
    divided : int64 (m,). Billed to those below, since the start.
    """

    def __init__(self, owner: IntArray, n: int) -> None:
        self._owner = owner
        self.received: Units = np.zeros(n, dtype=np.int64)
        self.divided: Units = np.zeros(owner.size, dtype=np.int64)

    def take(self, payer: IntArray, told: FloatArray, divide: Callable[[Units], Units]) -> None:
        """Read the cumulative bills `told` (k,) of `payer` (k,), and divide the increase.

        NaN and amounts that are too large to be exact are ignored.
        """
        ok = np.abs(told) <= _LARGEST
        total = self.received.copy()
        total[payer[ok]] = np.rint(told[ok]).astype(np.int64)
        new = total - self.received
        if new.any():
            # Who has no new bill divides nothing, whatever others do.
            self.divided += np.where(new[self._owner] != 0, divide(new), 0)
            self.received = total


def money(units: Units) -> FloatArray:
    """Return amounts in money."""
    return np.asarray(units * UNIT)
