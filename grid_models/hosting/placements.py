"""Random sequences of units at sites, and how many units of each a feeder takes.

Unit j of placement k depends on the seed, k and j only: a longer sequence keeps the shorter one,
and a placement is the same however many others there are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from grid_models.base.counter_rng import stream_ids, uniform
from grid_models.base.errors import FeederError
from grid_models.current_injection.model import FloatArray

_SITE, _SIZE = 0, 1
_FIRST_UNITS = 16
_MOST_UNITS = 10**8

IntArray = NDArray[np.intp]


@dataclass(frozen=True)
class Placements:
    """K sequences of up to L units at S sites.

    Attributes
    ----------
    site : (K, L). Site of each unit, all equally likely.
    kw : (K, L). Rating of each unit, of the whole unit where it has several phases.
    n_sites : S
    """

    site: IntArray
    kw: FloatArray
    n_sites: int

    @classmethod
    def random(
        cls, n: int, n_sites: int, n_units: int, unit_kw: tuple[float, float], seed: int
    ) -> Placements:
        """Return `n` sequences of `n_units` units with sizes uniform over `unit_kw`.

        Raises FeederError: They are too many for the memory.
        """
        if n * n_units > _MOST_UNITS:
            raise FeederError(
                f"{n} placements of up to {n_units} units",
                where="hosting capacity",
                expected=f"at most {_MOST_UNITS:g} units in all: fewer placements, larger units, "
                "or a smaller most_pct",
            )
        streams = stream_ids(f"placement {k}" for k in range(n))[:, None]
        counter = np.arange(n_units, dtype=np.uint64)
        site, size = uniform(seed, streams, counter, (_SITE, _SIZE))
        low, high = unit_kw
        return cls((site * n_sites).astype(np.intp), low + (high - low) * size, n_sites)

    def __len__(self) -> int:
        return len(self.site)

    @property
    def n_units(self) -> int:
        """Units of each placement, L."""
        return int(self.site.shape[1])

    def rows(self, rows: IntArray) -> Placements:
        """Return some of the placements, in any order and any number of times."""
        return Placements(self.site[rows], self.kw[rows], self.n_sites)

    def site_kw(self, units: IntArray) -> FloatArray:
        """Return the power at each site, (K, S), when each placement has its first `units` (K,)."""
        most = int(units.max(initial=0))
        used = np.arange(most) < units[:, None]
        at = (np.arange(len(self))[:, None] * self.n_sites + self.site[:, :most])[used]
        total = np.bincount(at, self.kw[:, :most][used], len(self) * self.n_sites)
        return np.asarray(total, dtype=np.float64).reshape(len(self), self.n_sites)

    def units_within(self, kw: float) -> IntArray:
        """Return how many units of each placement stay within a total power, (K,)."""
        return np.asarray((np.cumsum(self.kw, axis=1) <= kw).sum(axis=1))


def most_units(feasible: Callable[[IntArray], NDArray[np.bool_]], n: int, most: int) -> IntArray:
    """Return for each of `n` designs the number of units, up to `most`, that it just takes.

    One unit more is infeasible. The number is doubled until it is, then the interval is halved; all
    designs are tested together.

    `feasible`: Of so many units of each design, (n,); no unit is taken as feasible.
    """
    low, high = np.zeros(n, dtype=np.intp), np.full(n, most + 1)
    while (high - low > 1).any():
        grown = np.minimum(np.maximum(2 * low, _FIRST_UNITS), most)
        test = np.where(high <= most, (low + high) // 2, grown)
        ok = feasible(test) | (test <= low)
        low, high = np.where(ok, test, low), np.where(ok, high, test)
    return low
