"""Costs of generators per unit, with derivatives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controllers.core.mail import FloatArray, IntArray
from grid_models.transmission.opf_case import Costs

COST_SCALE = 1e-3
"""Units of the objective per USD/h: it is in thousands of USD per hour."""


@dataclass(frozen=True)
class UnitCosts:
    """Costs of generators in thousands of USD per hour, of powers per unit.

    Attributes
    ----------
    coefficients : (n_units, degree + 1). Column k: of the power to the k.
    units : (n_piecewise,). Units with a piecewise linear cost.
    line_of : (n_lines,). Which of `units` a line belongs to.
    slope, intercept : (n_lines,). The cost is the largest of a unit's lines.
    """

    coefficients: FloatArray
    units: IntArray
    line_of: IntArray
    slope: FloatArray
    intercept: FloatArray

    @classmethod
    def of(cls, costs: Costs | None, units: IntArray, base_mva: float) -> UnitCosts:
        """Return the costs of some generators of a case; None: all zero."""
        if costs is None:
            empty = np.empty(0)
            none = np.empty(0, np.int64)
            return cls(np.zeros((len(units), 1)), none, none, empty, empty)
        coefficients = costs.coefficients[units]
        powers = float(base_mva) ** np.arange(coefficients.shape[1])
        piecewise = np.flatnonzero(costs.piecewise[units])
        lines = [costs.segments(int(unit)) for unit in units[piecewise]]
        slope = np.concatenate([np.empty(0), *(a for a, _ in lines)])
        intercept = np.concatenate([np.empty(0), *(b for _, b in lines)])
        return cls(
            COST_SCALE * coefficients * powers,
            piecewise,
            np.repeat(np.arange(len(lines)), [len(a) for a, _ in lines]),
            COST_SCALE * base_mva * slope,
            COST_SCALE * intercept,
        )

    def polynomial(self, power: FloatArray) -> tuple[float, FloatArray, FloatArray]:
        """Return the sum of the polynomial costs at powers (n_units,), their slopes and bends."""
        value, slope, half_bend = np.zeros((3, len(power)))
        for column in self.coefficients.T[::-1]:
            half_bend = half_bend * power + slope
            slope = slope * power + value
            value = value * power + column
        return float(np.sum(value)), slope, 2.0 * half_bend

    def lines_at(self, power: FloatArray) -> FloatArray:
        """Return the largest of the lines of each unit with a piecewise cost, (n_piecewise,)."""
        most = np.full(len(self.units), -np.inf)
        np.maximum.at(most, self.line_of, self.lines(power))
        return most

    def lines(self, power: FloatArray) -> FloatArray:
        """Return every line at its unit's power, (n_lines,); `power`: (n_units,)."""
        return self.slope * power[self.units[self.line_of]] + self.intercept
