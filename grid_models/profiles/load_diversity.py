"""Per-load diversity: seeded, time-correlated factors of mean 1, at any time, in any order.

Every value is a function of (seed, load label, time) alone: a counter-based hash gives one
standard normal number per label and lattice point, and time is interpolated between two of them.
So a subset of the loads, another order, or a run that starts at noon sees the same factors.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from grid_models.base.counter_rng import stream_ids, uniform
from grid_models.base.errors import ProfileError
from grid_models.base.options import checked_number

_WORD = 0xFFFFFFFFFFFFFFFF


class LoadDiversity:
    """Multiplicative noise per load, log-normal with mean exactly 1.

    ``factor = exp(std * z - std**2 / 2)`` where z is standard normal. Between the lattice points
    k and k+1, `tau_s` apart, ``z = cos(pi u / 2) z_k + sin(pi u / 2) z_{k+1}``, u in [0, 1): the
    weights' squares add to one, so the variance (and with it the mean of the factor) is the same
    at every instant. Values `tau_s` or less apart are correlated, values `2 tau_s` apart are not.

    Parameters
    ----------
    labels : One per load; the label keys the noise, not the position.
    seed : Seed of the whole set.
    rel_std : Standard deviation of ``log(factor)``, 0 to 2 (0 gives exactly 1).
    tau_s : Correlation time in s.

    Raises ProfileError: A parameter is out of range.
    """

    def __init__(
        self, labels: Sequence[str], seed: int, rel_std: float = 0.15, tau_s: float = 900.0
    ) -> None:
        self.labels = tuple(labels)
        self.rel_std = checked_number("rel_std", rel_std, low=0.0, high=2.0, error=ProfileError)
        self.tau_s = checked_number("tau_s", tau_s, low=0.0, open_low=True, error=ProfileError)
        self._seed = seed
        self._streams = stream_ids(self.labels)
        self._offset = -0.5 * self.rel_std**2
        self._index: int | None = None
        self._left = np.zeros(len(self.labels))
        self._right = self._left

    def _lattice(self, index: int) -> NDArray[np.float64]:
        # Imported late: placing DERs needs only the hash above, and scipy.special is slow to load.
        from scipy.special import ndtri

        normal: NDArray[np.float64] = ndtri(uniform(self._seed, self._streams, index & _WORD, 0))
        return self.rel_std * normal

    def factors(self, time_s: float) -> NDArray[np.float64]:
        """Return the factors at any finite time in s, (len(labels),); positive, of mean 1."""
        position = time_s / self.tau_s
        index = int(np.floor(position))
        if index != self._index:
            reuse = self._index is not None and index == self._index + 1
            self._left = self._right if reuse else self._lattice(index)
            self._right = self._lattice(index + 1)
            self._index = index
        angle = 0.5 * np.pi * (position - index)
        exponent = float(np.cos(angle)) * self._left
        exponent += float(np.sin(angle)) * self._right
        exponent += self._offset
        return np.exp(exponent, out=exponent)
