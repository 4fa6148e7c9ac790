"""A case of optimal power flow as arrays: buses, generators, branches and costs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from grid_models.transmission.model import ComplexArray, FloatArray
from grid_models.transmission.system import as_complex

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class CaseBuses:
    """Buses, each array (n_buses,).

    Attributes
    ----------
    names, labels : Number of the bus as text; its name in words, '' without one.
    slack : Index of the bus that holds its `angle_deg`.
    load_mw, load_mvar : Constant power.
    shunt_mw, shunt_mvar : At 1 pu: power consumed by the conductance, and injected by the
        susceptance (capacitors positive).
    areas : Name of the area, ``0``: none.
    v_pu, angle_deg : Voltage that the case gives, a start of the iteration.
    base_kv : 0 where the case has none.
    v_min_pu, v_max_pu : Limits.
    """

    names: tuple[str, ...]
    labels: tuple[str, ...]
    slack: int
    load_mw: FloatArray
    load_mvar: FloatArray
    shunt_mw: FloatArray
    shunt_mvar: FloatArray
    areas: tuple[str, ...]
    v_pu: FloatArray
    angle_deg: FloatArray
    base_kv: FloatArray
    v_min_pu: FloatArray
    v_max_pu: FloatArray


@dataclass(frozen=True)
class CaseGenerators:
    """Generators in service, each array (n_generators,); injections are positive.

    `names`: ``30-2`` is the second generator of bus 30. `bus`: Index of its bus. `p_mw`,
    `q_mvar`, `v_setpoint_pu`: Operating point of the case. Limits may be infinite.
    """

    names: tuple[str, ...]
    bus: IntArray
    p_mw: FloatArray
    q_mvar: FloatArray
    v_setpoint_pu: FloatArray
    p_min_mw: FloatArray
    p_max_mw: FloatArray
    q_min_mvar: FloatArray
    q_max_mvar: FloatArray


@dataclass(frozen=True)
class CaseBranches:
    """Branches in service, each array (n_branches,); impedances per unit on `base_mva`.

    Attributes
    ----------
    names : ``7-8-2`` is the second branch between bus 7 and bus 8, named by its ends.
    from_bus, to_bus : Indices of the ends.
    r_pu, x_pu, b_pu : Pi equivalent; `b_pu` is the total charging.
    rate_mva : Limit of the apparent power at both ends, infinite without one.
    tap_ratio, shift_deg : Of the ideal transformer at the first end.
    angle_min_deg, angle_max_deg : Limits of the angle from the first to the second end, infinite
        without one.
    """

    names: tuple[str, ...]
    from_bus: IntArray
    to_bus: IntArray
    r_pu: FloatArray
    x_pu: FloatArray
    b_pu: FloatArray
    rate_mva: FloatArray
    tap_ratio: FloatArray
    shift_deg: FloatArray
    angle_min_deg: FloatArray
    angle_max_deg: FloatArray

    def admittances(self) -> tuple[ComplexArray, ComplexArray, ComplexArray, ComplexArray]:
        """Return the four entries of each branch's admittance matrix, each (n_branches,), pu.

        In the order from-from, from-to, to-from, to-to.
        """
        series = 1.0 / as_complex(self.r_pu, self.x_pu)
        end = as_complex(series.real, series.imag + 0.5 * self.b_pu)
        tap = self.tap_ratio * np.exp(1j * np.radians(self.shift_deg))
        return end / self.tap_ratio**2, -series / tap.conj(), -series / tap, end


@dataclass(frozen=True)
class Costs:
    """Cost of each generator in USD per hour of its power in MW (or of its reactive power in Mvar).

    A generator has a polynomial or a convex piecewise linear cost; the other one is zero.

    Attributes
    ----------
    coefficients : (n_generators, degree + 1). Column k: USD/h per MW^k.
    points_mw, points_usd_per_h : (n_generators, n_points). Corners of the piecewise linear costs
        in ascending order, NaN past the last one and where there is none.
    """

    coefficients: FloatArray
    points_mw: FloatArray
    points_usd_per_h: FloatArray

    @property
    def piecewise(self) -> NDArray[np.bool_]:
        """Generators with a piecewise linear cost, (n_generators,)."""
        return np.asarray(np.isfinite(self.points_mw[:, :1]).any(axis=1))

    @property
    def zero(self) -> bool:
        """Whether no power of any generator changes the cost."""
        return not self.coefficients[:, 1:].any() and not self.piecewise.any()

    def rows(self, which: NDArray[np.bool_]) -> Costs:
        """Return the costs of some generators, (n_generators,) bool."""
        parts = (self.coefficients, self.points_mw, self.points_usd_per_h)
        return Costs(*(part[which] for part in parts))

    def usd_per_h(self, p_mw: FloatArray) -> FloatArray:
        """Return the cost of each generator, (n_generators,), at powers (n_generators,)."""
        cost = np.zeros(len(self.coefficients))
        for column in self.coefficients.T[::-1]:
            cost = cost * p_mw + column
        for at in np.flatnonzero(self.piecewise):
            slope, intercept = self.segments(int(at))
            cost[at] += (slope * p_mw[at] + intercept).max()
        return cost

    def segments(self, generator: int) -> tuple[FloatArray, FloatArray]:
        """Return slopes and intercepts, each (n_points - 1,): the cost is the largest of the lines.

        `generator`: Index of a generator with a piecewise linear cost. Slopes in USD/MWh.
        """
        given = np.isfinite(self.points_mw[generator])
        x, y = self.points_mw[generator, given], self.points_usd_per_h[generator, given]
        slope = np.diff(y) / np.diff(x)
        return slope, y[:-1] - slope * x[:-1]


@dataclass(frozen=True)
class OpfCase:
    """An AC optimal power flow: what is in service, on one connected network.

    Attributes
    ----------
    name : Of the shipped case or the file.
    base_mva : Base of every value per unit.
    costs, reactive_costs : Of active and, where the case has them, of reactive power.
    notes : What the source holds that the arrays do not, one sentence each.
    """

    name: str
    base_mva: float
    buses: CaseBuses
    generators: CaseGenerators
    branches: CaseBranches
    costs: Costs
    reactive_costs: Costs | None = None
    notes: tuple[str, ...] = ()
