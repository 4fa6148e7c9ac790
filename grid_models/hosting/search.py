"""The search for the number of units that placements take, all of them in one batch.

A step of the bisection is one batch of power flows. The first pass looks at the steps that an even
design finds critical, and `before_first_violation` for violations with fewer units. What it accepts
is then verified at every step at which units inject, and placements that fail are searched over all
of these steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from grid_models.current_injection.model import FloatArray
from grid_models.hosting.first_violation import before_first_violation
from grid_models.hosting.limits import Excess
from grid_models.hosting.placed_units import PlacedUnits
from grid_models.hosting.placements import IntArray, most_units
from grid_models.hosting.result import Binding, HostingResult, bindings

_UNLIMITED = Binding("", "", np.nan)
_EVEN_LEVELS = 0.25, 0.5, 1.0, 2.0, 4.0


def power_per_kw(power_factor: float) -> complex:
    """Return kVA per kW of a unit that absorbs reactive power at a power factor."""
    return complex(1.0, -float(np.tan(np.arccos(power_factor))))


@dataclass(frozen=True)
class PlacementSearch(PlacedUnits):
    """K placements, and what they host.

    Attributes
    ----------
    critical : Steps of the first pass; 0: every step at which units inject.
    """

    critical: int = 3

    def result(
        self,
        names: tuple[str, ...],
        tables: Callable[[PlacementSearch, Found], Mapping[str, Mapping[str, Any]]],
    ) -> HostingResult:
        """Return what each placement hosts, and the tables that are made from it."""
        found = self.found()
        n = len(self.placements)
        every = np.arange(len(self.model.hours))
        kva = self.site_kva(np.arange(n), found.units, every)
        made = tables(self, found)
        return HostingResult(
            names, found.hc_kw, found.binding, found.site_kw, kva, self._notes(found), made
        )

    def found(self) -> Found:
        """Return what each placement hosts, and what ends it."""
        model, n = self.model, len(self.placements)
        base = self._base()
        every = np.arange(len(model.hours))
        feasible = base.feasible.reshape(-1, len(every)).all(axis=1)
        rows = np.flatnonzero(np.broadcast_to(feasible, (n,)))
        units = np.zeros(n, dtype=np.intp)
        if rows.size:
            units[rows] = self._units(rows)
        site_kw = self.placements.site_kw(units)
        hc_kw = np.full(n, np.nan)
        hc_kw[rows] = site_kw[rows].sum(axis=1)
        binding = np.empty(n, dtype=object)
        binding[:] = bindings(model, base, every)
        binding[rows] = _UNLIMITED
        ended = rows[units[rows] < self.placements.n_units]
        if ended.size:
            beyond = self.excess(ended, units[ended] + 1, self.steps)
            binding[ended] = bindings(model, beyond, self.steps)
        return Found(units, hc_kw, site_kw, tuple(binding.tolist()), rows)

    def _base(self) -> Excess:
        """Return the excess without units at all steps, of one design where all have one demand."""
        n = 1 if self.load_kva is None else len(self.placements)
        shape = n, len(self.model.hours), len(self.model.sites)
        return self.model.excess(np.zeros(shape, dtype=np.complex128), load_kva=self.load_kva)

    def _units(self, rows: IntArray) -> IntArray:
        """Return how many units of some placements are hosted, all feasible without any."""
        steps = self._critical_steps()
        found = self._most_units(rows, steps)
        if len(steps) < len(self.steps):
            left = np.flatnonzero(~self.feasible(rows, found, self.steps))
            if left.size:
                found[left] = self._most_units(rows[left], self.steps)
        return found

    def _most_units(self, rows: IntArray, steps: IntArray) -> IntArray:
        most = self.placements.n_units
        units = most_units(lambda n: self.feasible(rows, n, steps), len(rows), most)
        return before_first_violation(self, rows, units, steps)

    def _critical_steps(self) -> IntArray:
        """Return the steps that pass the limits furthest when all sites have equally much."""
        model, steps = self.model, self.steps
        if not 0 < self.critical < len(steps) or model.check.window > 1:
            return steps
        n_sites = len(model.sites)
        kw = model.base_kva * np.array(_EVEN_LEVELS) / n_sites
        output = self.output_pu.mean(axis=(0, 2))[steps]
        even = self.per_kw * kw[:, None, None] * output[:, None] * np.ones(n_sites)
        worst = model.excess(even, steps).relative.max(axis=1).reshape(len(kw), -1)
        passed = (worst > 0.0).any(axis=1)
        level = int(passed.argmax()) if passed.any() else len(kw) - 1
        return np.sort(steps[np.argsort(-worst[level], kind="stable")[: self.critical]])

    def _notes(self, found: Found) -> tuple[str, ...]:
        n, rows, notes = len(found.units), found.rows.tolist(), []
        if len(rows) < n:
            bad = min(set(range(n)) - set(rows))
            notes.append(
                f"{n - len(rows)} of {n} designs pass a limit without any unit, the first by "
                f"{found.binding[bad]}; they have no hosting capacity and count in no figure"
            )
        free = sum(found.binding[k] is _UNLIMITED for k in rows)
        if free:
            notes.append(
                f"{free} of {n} designs reach most_pct, the end of the search, within all limits; "
                "their hosting capacity is larger"
            )
        return tuple(notes)


@dataclass(frozen=True)
class Found:
    """What K placements host.

    Attributes
    ----------
    units : (K,). Number of units.
    hc_kw : (K,). Their power; NaN where the placement is infeasible without any.
    site_kw : (K, S). Their power by site.
    binding : (K,). What one unit more would pass.
    rows : Placements that are feasible without units.
    """

    units: IntArray
    hc_kw: FloatArray
    site_kw: FloatArray
    binding: tuple[Binding, ...]
    rows: IntArray
