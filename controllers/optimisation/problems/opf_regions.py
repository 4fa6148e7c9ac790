"""AC optimal power flow as a problem of regions.

Every bus belongs to a region. A region knows its buses, their generators, the branches that end at
them, and the voltage (angle and magnitude) of the far ends of its ties: both regions of a tie hold
both of its ends. A voltage that several regions hold is *shared*; their copies must agree. Balances
and limits are those of the bus's own region (`RegionNlp`), so that

    min  sum_k f_k(x_k)   s.t.  g_k(x_k) = 0,  h_k(x_k) <= 0,  x_k[border_k] = z[shared_k]

is the central problem (survey of distributed optimal power flow, section III, eq. 1). As coupling
rows ``sum_k A_k x_k = 0``: each holder's copy minus the owner's (`Border.owned`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, IntArray
from controllers.optimisation.interior_point import InteriorPoint
from controllers.optimisation.problems.opf_region_nlp import RegionNlp
from controllers.optimisation.problems.result import Measure, Reference, relative_gap
from grid_models.transmission.opf_case import OpfCase


@dataclass(frozen=True)
class Border:
    """Variables of a region that other regions hold too, each (n_border,), ascending by `shared`.

    `column`: Position in the region's x. `shared`: Number of the shared variable, the same in all
    regions that hold it. `owned`: Whether it belongs to a bus of this region.
    """

    column: IntArray
    shared: IntArray
    owned: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class RegionOpf:
    """An AC optimal power flow whose agents are regions.

    Attributes
    ----------
    case : The case.
    region_of : (n_buses,). Name of each bus's region.

    Raises ControllerError: There is not one name per bus.
    """

    kind: ClassVar[str] = "regions"

    case: OpfCase
    region_of: Sequence[str]

    def __post_init__(self) -> None:
        if len(self.region_of) != len(self.case.buses.names):
            raise ControllerError(
                f"{len(self.region_of)} buses have a region",
                where=f"regions of case '{self.case.name}'",
                expected=f"{len(self.case.buses.names)}",
            )

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the regions, in the order of their first bus."""
        return tuple(dict.fromkeys(self.region_of))

    @cached_property
    def regions(self) -> tuple[RegionNlp, ...]:
        """The program of each region."""
        of = np.array(self.region_of)
        return tuple(RegionNlp(self.case, np.flatnonzero(of == name)) for name in self.names)

    @cached_property
    def borders(self) -> tuple[Border, ...]:
        """What each region shares. Shared variables: angles and then magnitudes, by bus."""
        n = len(self.case.buses.names)
        holders = np.bincount(np.concatenate([r.buses for r in self.regions]), minlength=n)
        number = np.cumsum(holders > 1) - 1
        borders = []
        for region in self.regions:
            at = np.flatnonzero(holders[region.buses] > 1)
            at = at[np.argsort(region.buses[at])]
            shared, owned = number[region.buses[at]], at < region.n_own
            borders.append(
                Border(
                    np.concatenate((region.turn.start + at, region.v.start + at)),
                    np.concatenate((shared, int(number[-1]) + 1 + shared)),
                    np.tile(owned, 2),
                )
            )
        return tuple(borders)

    @property
    def n_shared(self) -> int:
        """Number of shared variables."""
        return 1 + max((int(b.shared[-1]) for b in self.borders if len(b.shared)), default=-1)

    @cached_property
    def reference(self) -> Reference:
        """The central optimum in USD/h, with x of all regions, one after the other.

        Raises ControllerError: The interior point ends without one.
        """
        whole = RegionNlp(self.case, np.arange(len(self.case.buses.names)))
        for tolerance in (1e-10, 1e-8):  # rounding allows the first one in most cases
            found = InteriorPoint(whole, tolerance=tolerance).solve()
            if found.converged:
                break
        else:
            raise ControllerError(
                f"the central interior point ends without an optimum: {found.status}, with "
                f"constraints violated by {found.primal:.2g}",
                where=f"case '{self.case.name}'",
                expected="a case with a feasible point",
            )
        x = np.concatenate([region.part_of(whole, found.x) for region in self.regions])
        return Reference(self.objective(x), x, np.empty(0))

    def objective(self, x: FloatArray) -> float:
        """Return the cost in USD/h of the powers of all regions' x, one after the other."""
        parts = self.split(x, [region.n for region in self.regions])
        return sum(r.usd_per_h(part) for r, part in zip(self.regions, parts, strict=True))

    @staticmethod
    def split(values: FloatArray, sizes: Sequence[int]) -> list[FloatArray]:
        """Return the parts of an array that holds those of all regions one after the other."""
        ends = np.cumsum([0, *sizes]).tolist()
        return [values[a:b] for a, b in pairwise(ends)]

    def consistent(self, x: FloatArray | None = None) -> list[FloatArray]:
        """Return x of each region with the owners' values in all copies; default: the starts."""
        if x is None:
            parts = [region.start for region in self.regions]
        else:
            parts = [p.copy() for p in self.split(x, [region.n for region in self.regions])]
        shared = np.empty(self.n_shared)
        for border, part in zip(self.borders, parts, strict=True):
            shared[border.shared[border.owned]] = part[border.column[border.owned]]
        for border, part in zip(self.borders, parts, strict=True):
            part[border.column] = shared[border.shared]
        return parts

    def mismatch(self, x: FloatArray) -> float:
        """Return the largest difference between two copies of a shared variable (rad or pu)."""
        parts = self.split(x, [region.n for region in self.regions])
        low, high = np.full((2, self.n_shared), [[np.inf], [-np.inf]])
        for border, part in zip(self.borders, parts, strict=True):
            np.minimum.at(low, border.shared, part[border.column])
            np.maximum.at(high, border.shared, part[border.column])
        return float(np.max(high - low, initial=0.0))

    def measure(self, answer: Mapping[str, FloatArray]) -> Measure:
        """Return the worth of an answer.

        Parameters
        ----------
        answer : Arrays of all regions, one after the other. `x`; and for the dual residual also
            the multipliers `equality`, `inequality` and `bound` of each region's program
            (`controllers.optimisation.interior_point.Solution`) and the `price` of each region's
            border (n_border,): prices of a shared variable add to 0 over its holders.

        Infeasibility is the largest violation of a balance (per unit), of a limit (per unit, rad,
        or the share above 1 of a squared rating) or of the agreement of copies.
        """
        x = answer["x"]
        parts = self.split(x, [region.n for region in self.regions])
        violations = [r.violation(part) for r, part in zip(self.regions, parts, strict=True)]
        infeasibility = max(self.mismatch(x), *violations)
        objective = self.objective(x)
        return Measure(
            objective=objective,
            gap=relative_gap(objective, self.reference.objective),
            infeasibility=infeasibility,
            primal=infeasibility,
            dual=self._dual(parts, answer) if "price" in answer else np.nan,
            bound=None,
        )

    def _dual(self, parts: Sequence[FloatArray], answer: Mapping[str, FloatArray]) -> float:
        """Return the largest entry of the Lagrangian's gradient, by x and by shared variables.

        Relative to 1 + the largest multiplier; includes multipliers of inequalities below 0.
        """
        sizes = {
            "equality": [r.equality_pattern.shape[0] for r in self.regions],
            "inequality": [r.inequality_pattern.shape[0] for r in self.regions],
            "bound": [r.n for r in self.regions],
            "price": [len(b.column) for b in self.borders],
        }
        rows = {name: self.split(answer[name], size) for name, size in sizes.items()}
        total, worst = np.zeros(self.n_shared), [float(np.max(-answer["inequality"], initial=0.0))]
        for k, (region, border) in enumerate(zip(self.regions, self.borders, strict=True)):
            y, z, bound, price = (rows[name][k] for name in sizes)
            slope = region.lagrangian_slope(parts[k], y, z) + bound
            slope[border.column] += price
            total[border.shared] += price
            worst.append(float(np.max(np.abs(slope))))
        largest = max(float(np.max(np.abs(answer[name]), initial=0.0)) for name in sizes)
        return max(*worst, float(np.max(np.abs(total), initial=0.0))) / (1.0 + largest)
