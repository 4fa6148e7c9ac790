"""Tables of a study of random placements."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from grid_models.current_injection.model import FloatArray
from grid_models.hosting.limits import Excess
from grid_models.hosting.placements import IntArray, most_units

if TYPE_CHECKING:
    from grid_models.hosting.search import Found, PlacementSearch

_LEVELS = 16
_CURVE_PLACEMENTS = 100
_PROFILE_PLACEMENTS = 20

Table = dict[str, Any]


def placement_tables(search: PlacementSearch, found: Found) -> dict[str, Table]:
    """Return the tables `placements`, `curve` and `hours`; see `static_capacity`."""
    tables = {"placements": _placement_table(search, found)}
    if found.rows.size:
        tables |= {"curve": _curve_table(search, found), "hours": _hour_table(search, found.rows)}
    return tables


def _placement_table(search: PlacementSearch, found: Found) -> Table:
    """Return per placement what it hosts, the share of buses that have some, and what ends it."""
    model = search.model
    buses = [site.bus for site in model.sites]
    column = {bus: k for k, bus in enumerate(dict.fromkeys(buses))}
    has_pv = np.zeros((len(found.units), len(column)), dtype=bool)
    for s, bus in enumerate(buses):
        has_pv[:, column[bus]] |= found.site_kw[:, s] > 0.0
    return {
        "placement": np.arange(len(found.units)),
        "hc_kw": found.hc_kw,
        "hc_pct": 100.0 * found.hc_kw / model.base_kva,
        "units": found.units,
        "buses_with_pv": has_pv.sum(axis=1),
        "buses_with_pv_pct": 100.0 * has_pv.sum(axis=1) / model.n_buses,
        "limit": [b.kind for b in found.binding],
        "element": [b.element for b in found.binding],
        "hour": [b.hour for b in found.binding],
    }


def _curve_table(search: PlacementSearch, found: Found) -> Table:
    """Return min, median and max over some placements of what each limit is about, by PV."""
    model, check, rows = search.model, search.model.check, found.rows[:_CURVE_PLACEMENTS]
    hc_kw = found.hc_kw[found.rows]
    level_kw = np.linspace(0.0, 1.2 * float(hc_kw.max()), _LEVELS + 1)
    placements, every = search.placements.rows(rows), np.arange(len(model.hours))
    none = np.zeros(len(rows), dtype=np.intp)
    dark = np.setdiff1d(every, search.steps)
    rest = _worst(search.excess(rows, none, dark), len(rows)) if dark.size else -np.inf
    by_level = []
    for kw in level_kw.tolist():
        units = placements.units_within(kw)
        by_level.append(
            np.maximum(rest, _worst(search.excess(rows, units, search.steps), len(rows)))
        )
    value = np.array(by_level)
    table: Table = {"pv_kw": level_kw, "pv_pct": 100.0 * level_kw / model.base_kva}
    for k, kind in enumerate(check.kinds):
        quantity = check.quantity(kind, value[..., k])
        for name, of in (("min", np.min), ("median", np.median), ("max", np.max)):
            table[f"{kind} {name}"] = of(quantity, axis=1)
    return table | {"kept": (hc_kw >= level_kw[:, None]).mean(axis=1)}


def _worst(excess: Excess, n: int) -> FloatArray:
    """Return the largest excess of each of `n` designs over its steps, (n, K)."""
    by_step = excess.value.reshape(n, -1, excess.value.shape[1])
    return np.asarray(by_step.max(axis=1, initial=-np.inf))


def _hour_table(search: PlacementSearch, rows: IntArray) -> Table:
    """Return the output of PV that each hour would take if it were the only one."""
    limits = replace(search.model.limits, average_h=search.model.step_h)
    model = replace(search.model, limits=limits)
    rows = rows[:_PROFILE_PLACEMENTS]
    steps = np.arange(len(model.hours))
    placements = search.placements.rows(np.repeat(rows, len(steps)))
    load = None if search.load_kva is None else search.load_kva[rows]

    def feasible(units: IntArray) -> np.ndarray[Any, Any]:
        kw = placements.site_kw(units).reshape(len(rows), len(steps), -1)
        return model.excess(np.asarray(search.per_kw * kw), steps, load).feasible

    units = most_units(feasible, len(placements), placements.n_units)
    kw = placements.site_kw(units).sum(axis=1).reshape(len(rows), -1)
    return {
        "hour": model.hours,
        "pv_pu": model.pv_pu,
        "min_kw": kw.min(axis=0),
        "median_kw": np.median(kw, axis=0),
        "max_kw": kw.max(axis=0),
    }
