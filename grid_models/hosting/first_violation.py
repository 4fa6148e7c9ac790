"""The first unit of a sequence that passes a limit, where a later one may repair it.

A unit on one phase lowers the voltages of the others through the mutual impedances of lines. So a
placement may pass the upper voltage with some units and keep it with more, and bisection may end at
a number of units above the first violation.
"""

from __future__ import annotations

import numpy as np

from grid_models.current_injection.model import FloatArray
from grid_models.hosting.placed_units import PlacedUnits
from grid_models.hosting.placements import IntArray

_APART = 8
"""Units between two tested numbers; what lies between is bounded."""
_SLOPES_GROW, _ROUNDING_PU = 1.1, 2e-5
"""How much larger a slope may be than that of the base case, and what curvature may add."""
_ROWS_AT_ONCE = 500


def before_first_violation(
    placed: PlacedUnits, rows: IntArray, units: IntArray, steps: IntArray
) -> IntArray:
    """Return the units before the first that passes a limit, (n,), `units` at most.

    Voltages are solved at every eighth unit. Between them no voltage can rise by more than the sum
    of the rises that the units cause one by one. Each unit is solved where this sum could reach a
    limit, and everywhere if unbalance is limited. Where no unit lowers any voltage there is nothing
    to find.

    `rows`, `units`: (n,). Placements, and how many of their units are feasible. `steps`: (T',).
    """
    rise, fall = _slopes(placed)
    if not rows.size or not fall.any() or not rise.any():
        return units
    found = units.copy()
    for first in range(0, len(rows), _ROWS_AT_ONCE):
        at = slice(first, first + _ROWS_AT_ONCE)
        found[at] = _before(placed, rows[at], units[at], steps, (rise, fall))
    return found


def _before(
    placed: PlacedUnits,
    rows: IntArray,
    units: IntArray,
    steps: IntArray,
    slopes: tuple[FloatArray, FloatArray],
) -> IntArray:
    model, check = placed.model, placed.model.check
    nodes, limits = check.held_nodes, model.limits
    found = units.copy()
    for start in range(0, int(units.max(initial=0)), _APART):
        going = np.flatnonzero(found > start)
        if not going.size:
            break
        here, end = rows[going], np.minimum(found[going], start + _APART)
        at = np.full(len(going), start)
        load = None if placed.load_kva is None else placed.load_kva[np.ix_(here, steps)]
        v_pu = model.flow(placed.site_kva(here, at, steps), steps, load).v_pu[:, nodes]
        v_pu = v_pu.reshape(len(going), len(steps), -1)
        placements = placed.placements.rows(here)
        more_kw = placements.site_kw(end) - placements.site_kw(at)
        output = np.broadcast_to(
            placed.outputs(here, steps).max(axis=2, keepdims=True), (*v_pu.shape[:2], 1)
        )
        high = v_pu + output * (more_kw @ slopes[0])[:, None]
        low = v_pu + output * (more_kw @ slopes[1])[:, None]
        near = (high > limits.v_max_pu - _ROUNDING_PU) | (low < limits.v_min_pu + _ROUNDING_PU)
        doubtful = np.flatnonzero(near.any(axis=(1, 2)) | (limits.unbalance_pct is not None))
        if doubtful.size:
            last = _one_by_one(placed, here[doubtful], start, end[doubtful], steps)
            found[going[doubtful]] = np.where(last < end[doubtful], last, found[going[doubtful]])
    return found


def _one_by_one(
    placed: PlacedUnits, rows: IntArray, start: int, end: IntArray, steps: IntArray
) -> IntArray:
    """Return the last number of units from `start` to `end` (n,) before a limit is passed."""
    units = np.broadcast_to(start + 1 + np.arange(_APART), (len(rows), _APART))
    asked = units <= end[:, None]
    passed = np.zeros(asked.shape, dtype=bool)
    each = np.broadcast_to(rows[:, None], asked.shape)[asked]
    passed[asked] = ~placed.feasible(each, units[asked], steps)
    return np.where(passed.any(axis=1), start + passed.argmax(axis=1), end)


def _slopes(placed: PlacedUnits) -> tuple[FloatArray, FloatArray]:
    """Return bounds on rise and fall of voltages per kW at each site at full output, (S, n)."""
    model = placed.model
    sunniest = placed.steps[placed.output_pu.mean(axis=(0, 2))[placed.steps].argmax()]
    base = model.flow(0.0, np.array([sunniest]))
    by_p, by_q = model.feeder.der_slopes(base, 0)
    slope = placed.per_kw.real * by_p + placed.per_kw.imag * by_q
    slope = slope[model.check.held_nodes, -len(model.sites) :].T / model.watt_scale
    slope[np.abs(slope) < 1e-12] = 0.0
    return _SLOPES_GROW * np.maximum(slope, 0.0), _SLOPES_GROW * np.minimum(slope, 0.0)
