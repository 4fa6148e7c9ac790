"""What an island takes off so that its grid-forming unit stays within its limits.

The law is that of an ideal under-frequency relay: it takes off what is needed and no more, flexible
load before critical load, each in equal shares; where too much is generated it curtails generation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from grid_models.base.errors import PowerFlowError

Array = NDArray[np.float64]

# The unit is left this far inside its limits, relative to its range: solutions have a tolerance.
_MARGIN = 1e-4
_MOST_POWER_FLOWS = 40


@dataclass(frozen=True)
class Cuts:
    """What can be taken off, by size of the cut.

    A cut is a number of kW: above 0 of load, below 0 of generation, before any change of losses.

    Attributes
    ----------
    flexible_kw, critical_kw : (n,). Parts of each DER's load, 0 or more.
    generation_kw : (n,). What each DER injects, 0 or more.
    own_kw : (m,). Demand of the feeder's own loads, which are critical.
    """

    flexible_kw: Array
    critical_kw: Array
    generation_kw: Array
    own_kw: Array

    @classmethod
    def of(cls, p_kw: Array, least_kw: Array, own_kw: Array) -> Cuts:
        """Return the cuts of DERs that inject `p_kw`; of a load `least_kw` is critical."""
        load = np.maximum(-p_kw, 0.0)
        critical = np.minimum(load, np.maximum(least_kw, 0.0))
        return cls(load - critical, critical, np.maximum(p_kw, 0.0), np.maximum(own_kw, 0.0))

    @property
    def range_kw(self) -> tuple[float, float]:
        """Least and largest cut."""
        load = self.flexible_kw.sum() + self.critical_kw.sum() + self.own_kw.sum()
        return -float(self.generation_kw.sum()), float(load)

    def shares(self, cut_kw: float) -> tuple[float, float, float]:
        """Return which shares of flexible load, critical load and generation a cut takes."""
        flexible = float(self.flexible_kw.sum())
        low, high = self.range_kw
        return (
            _share(cut_kw, flexible),
            _share(cut_kw - flexible, high - flexible),
            _share(-cut_kw, -low),
        )

    def after(self, cut_kw: float, p_kw: Array, q_kvar: Array) -> tuple[Array, Array]:
        """Return what the DERs inject after a cut; loads keep their power factor."""
        flexible, critical, generation = self.shares(cut_kw)
        shed = flexible * self.flexible_kw + critical * self.critical_kw
        load = self.flexible_kw + self.critical_kw
        kept = 1.0 - np.divide(shed, load, out=np.zeros_like(load), where=load > 0.0)
        return p_kw + shed - generation * self.generation_kw, q_kvar * kept


def _share(kw: float, of_kw: float) -> float:
    return min(kw / of_kw, 1.0) if kw > 0.0 and of_kw > 0.0 else 0.0


@dataclass(frozen=True)
class GridFormingUnit:
    """The range of a grid-forming unit's active power, kW."""

    p_min_kw: float
    p_max_kw: float

    def cut(
        self, unit_kw: Callable[[float], float], range_kw: tuple[float, float], start_kw: float
    ) -> float:
        """Return the cut with which the unit is within its range, by secant steps.

        The last call of `unit_kw` is at the cut returned. The unit ends within 2e-4 of its range
        below the upper limit where load is shed, above the lower one where generation is curtailed.

        Parameters
        ----------
        unit_kw : Power of the unit at a cut: a power flow.
        range_kw : Least and largest cut.
        start_kw : Guess of the cut.

        Raises PowerFlowError: No cut in that range is enough.
        """
        margin = _MARGIN * (self.p_max_kw - self.p_min_kw)
        # A small guess may be wrong: nothing is cut that need not be.
        cut = 0.0 if abs(start_kw) < 5.0 * margin else min(max(start_kw, range_kw[0]), range_kw[1])
        last: tuple[float, float] | None = None
        slope = 1.0
        for _ in range(_MOST_POWER_FLOWS):
            power = unit_kw(cut)
            if self.p_min_kw <= power <= self.p_max_kw and (
                cut == 0.0
                or (cut > 0.0 and power >= self.p_max_kw - 2.0 * margin)
                or (cut < 0.0 and power <= self.p_min_kw + 2.0 * margin)
            ):
                return cut
            sheds = cut > 0.0 or (cut == 0.0 and power > self.p_max_kw)
            target = self.p_max_kw - margin if sheds else self.p_min_kw + margin
            if last is not None and cut != last[0]:
                slope = min(max((last[1] - power) / (cut - last[0]), 0.5), 2.0)
            last = cut, power
            cut = min(max(cut + (power - target) / slope, range_kw[0]), range_kw[1])
            if cut * last[0] < 0.0:
                cut = 0.0
            elif cut == last[0]:
                break
        raise PowerFlowError(
            f"a grid-forming unit of {self.p_min_kw:g} to {self.p_max_kw:g} kW cannot hold the "
            f"island: it would have to give {power:.6g} kW",
            expected="load and generation that can be shed and curtailed into its range",
        )
