"""How the dynamic hosting capacity moves with the penetration of two kinds of devices.

Paper 003, "2-SSP enables rapid sensitivity studies": PV over batteries and heat pumps, with slopes
as marginal values. Here the slopes are duals of the devices' limits at a vertex
(`RayResult.marginal_kw`); full solutions at both sides of the middle of the grid check them. Two
kinds are complements where the cross difference

    f(a2, b2) - f(a2, b1) - f(a1, b2) + f(a1, b1)

is positive, and substitutes where it is negative.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from grid_models.base.errors import FeederError
from grid_models.current_injection.model import FloatArray
from grid_models.hosting.devices import KINDS, DeviceModel, DeviceOptions
from grid_models.hosting.dynamic import checked_sizes, devices_of
from grid_models.hosting.model import HostingModel
from grid_models.hosting.ray import RayOptions, RayProgram, RayResult

_EXCESS = 2e-6
"""Slopes are differences: plans are solved further than where one of them is the answer."""
_STEP = 0.05


@dataclass(frozen=True)
class Sensitivity:
    """Hosting capacity over a grid of the sizes of two kinds of devices.

    Attributes
    ----------
    kinds : The two kinds.
    size_kw : (A,), (B,). Their power in all.
    hc_kw : (A, B). NaN where there is no plan.
    by_dual : (2, A, B). PV gained per kW of each kind, from duals.
    by_solution : (2,). The same in the middle of the grid, from solutions 5 % of the size to both
        sides of it.
    """

    kinds: tuple[str, str]
    size_kw: tuple[FloatArray, FloatArray]
    hc_kw: FloatArray
    by_dual: FloatArray
    by_solution: FloatArray

    @property
    def cross_kw(self) -> float:
        """Cross difference between the corners of the grid; below 0: substitutes."""
        f = self.hc_kw
        return float(f[-1, -1] - f[-1, 0] - f[0, -1] + f[0, 0])

    @property
    def middle(self) -> tuple[int, int]:
        """Position of the grid's middle."""
        return len(self.size_kw[0]) // 2, len(self.size_kw[1]) // 2


def sensitivity(
    model: HostingModel,
    pattern: FloatArray,
    size_kw: Mapping[str, FloatArray],
    share: FloatArray,
    devices: DeviceOptions,
    options: RayOptions | None = None,
    other_kw: Mapping[str, FloatArray] | None = None,
    seed: int = 0,
) -> Sensitivity:
    """Return the hosting capacity over the sizes of two kinds of devices.

    Parameters
    ----------
    pattern : (S,). PV at the sites, of any scale.
    size_kw : Of two kinds, the power in all, two values or more; growing.
    share : (S,). Part of it at each site.
    other_kw : (S,) by kind. Devices of other kinds.

    Raises FeederError: There are not two kinds, or sizes cannot be used.
    """
    if len(size_kw) != 2:
        raise FeederError(
            f"{len(size_kw)} kinds of devices",
            where="hosting, sensitivity",
            expected="sizes of two of " + ", ".join(KINDS[1:]),
        )
    for kind, sizes in size_kw.items():
        if len(sizes) < 2 or not (np.diff(sizes) > 0.0).all():
            raise FeederError(
                f"{', '.join(f'{kw:g}' for kw in sizes)} kW",
                where=f"hosting, sensitivity, sizes of '{kind}'",
                expected="two or more sizes, each larger than the one before",
            )
    kinds = tuple(size_kw)
    others = {} if other_kw is None else dict(other_kw)
    largest = {kind: max(sizes) * share for kind, sizes in size_kw.items()}
    there = checked_sizes(model, {**others, **largest})
    planned = devices_of(model, devices, ("pv", *there), seed)
    grid = _Grid(model, planned, pattern, options or RayOptions(), there, kinds, share)
    a, b = (np.asarray(sizes, dtype=np.float64) for sizes in size_kw.values())
    found = [[grid.at(x, y) for y in b] for x in a]
    by_dual = [[[grid.gain(r, kind) for r in row] for row in found] for kind in kinds]
    x, y = a[len(a) // 2], b[len(b) // 2]
    dx, dy = _STEP * x, _STEP * y
    by_solution = [
        (grid.at(x + dx, y).pv_kw - grid.at(x - dx, y).pv_kw) / (2.0 * dx),
        (grid.at(x, y + dy).pv_kw - grid.at(x, y - dy).pv_kw) / (2.0 * dy),
    ]
    hc_kw = np.array([[r.pv_kw for r in row] for row in found])
    names = kinds[0], kinds[1]
    return Sensitivity(names, (a, b), hc_kw, np.array(by_dual), np.array(by_solution))


class _Grid:
    """One programme, solved for many sizes of two kinds."""

    def __init__(
        self,
        model: HostingModel,
        devices: DeviceModel,
        pattern: FloatArray,
        options: RayOptions,
        sizes: Mapping[str, FloatArray],
        kinds: tuple[str, ...],
        share: FloatArray,
    ) -> None:
        self._sizes, self._kinds, self._share = dict(sizes), kinds, share
        exact = replace(options, excess=min(options.excess, _EXCESS))
        self._ray = RayProgram(model, devices, pattern, self._capacity(), exact)

    def at(self, *total_kw: float) -> RayResult:
        """Return the solution with these sizes of the two kinds."""
        for kind, kw in zip(self._kinds, total_kw, strict=True):
            self._sizes[kind] = kw * self._share
        self._ray.set_capacity(self._capacity())
        return self._ray.solve()

    def gain(self, found: RayResult, kind: str) -> float:
        """Return PV gained per kW of a kind, by duals."""
        first = (1 + list(self._sizes).index(kind)) * len(self._share)
        if not len(found.marginal_kw):
            return float("nan")
        return float(found.marginal_kw[first : first + len(self._share)] @ self._share)

    def _capacity(self) -> FloatArray:
        return np.concatenate([np.zeros(len(self._share)), *self._sizes.values()])
