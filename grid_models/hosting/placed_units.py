"""What the first units of placements inject, and whether they keep the limits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from grid_models.current_injection.model import ComplexArray, FloatArray
from grid_models.hosting.limits import Excess
from grid_models.hosting.model import HostingModel, refuse_darkness
from grid_models.hosting.placements import IntArray, Placements


@dataclass(frozen=True)
class PlacedUnits:
    """K placements, and how their units inject.

    Attributes
    ----------
    placements : Sequences of units.
    per_kw : What a unit injects per kW of rating at full output; negative for a load.
    output_pu : (K or 1, T, S or 1). Output of units over their rating.
    load_kva : complex (K, T, n_loads). Demand of each placement; None: the model's, for all.
    """

    model: HostingModel
    placements: Placements
    per_kw: complex
    output_pu: FloatArray
    load_kva: ComplexArray | None = None

    @cached_property
    def steps(self) -> IntArray:
        """Steps at which units inject, and those that share a mean current with one of them.

        Raises FeederError: They never inject.
        """
        refuse_darkness(self.output_pu)
        injects = (self.output_pu.max(axis=(0, 2)) > 0.0).astype(float)
        shared = np.ones(2 * self.model.check.window - 1)
        return np.flatnonzero(
            np.convolve(injects, shared)[self.model.check.window - 1 :][: len(injects)]
        )

    def feasible(self, rows: IntArray, units: IntArray, steps: IntArray) -> NDArray[np.bool_]:
        """Return whether the first `units` of some placements keep the limits at all of `steps`."""
        excess = self.excess(rows, units, steps)
        return np.asarray(excess.feasible.reshape(-1, len(steps)).all(axis=1))

    def excess(self, rows: IntArray, units: IntArray, steps: IntArray) -> Excess:
        """Return how far the first `units` of some placements are beyond the limits."""
        load = None if self.load_kva is None else self.load_kva[np.ix_(rows, steps)]
        return self.model.excess(self.site_kva(rows, units, steps), steps, load)

    def site_kva(self, rows: IntArray, units: IntArray, steps: IntArray) -> ComplexArray:
        """Return what the first `units` of some placements inject, complex (n, T', S)."""
        kw = self.placements.rows(rows).site_kw(units)
        return np.asarray(self.per_kw * kw[:, None, :] * self.outputs(rows, steps))

    def outputs(self, rows: IntArray, steps: IntArray) -> FloatArray:
        """Return the output of units over their rating, (n or 1, T', S or 1)."""
        output = self.output_pu[:, steps]
        return output[rows] if len(output) > 1 else output
