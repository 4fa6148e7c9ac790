"""Which inverters do what they are told."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from controllers.core.mail import FloatArray

_TOLERANCE = 0.05
"""Accuracy of reactive power over rating that IEEE Std 1547-2018 asks for in its Table 3."""
_STEPS = 3


class Following:
    """Compares measured reactive powers with the last set-points, over rating, (n,).

    An inverter is *frozen* after three steps in a row that are more than 5 % of its rating away
    from its set-point, until three steps in a row are within it.
    """

    def __init__(self, n: int) -> None:
        self.frozen: NDArray[np.bool_] = np.zeros(n, dtype=np.bool_)
        self._odd = np.zeros(n, dtype=np.int64)

    def update(self, asked: FloatArray, measured: FloatArray) -> NDArray[np.bool_]:
        """Take in a step; return which inverters changed between following and frozen."""
        odd = (np.abs(measured - asked) > _TOLERANCE) != self.frozen
        self._odd = np.where(odd, self._odd + 1, 0)
        changed: NDArray[np.bool_] = self._odd == _STEPS
        self.frozen = self.frozen ^ changed
        self._odd[changed] = 0
        return changed
