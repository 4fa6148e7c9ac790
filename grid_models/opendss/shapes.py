"""Load shapes of a compiled OpenDSS file, as the means that a profile table holds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from grid_models.opendss.engine import Engine
from grid_models.opendss.file_ders import SHAPES, elements_of

_SHAPE_OF_MODE = {"daily": "daily", "yearly": "yearly", "dutycycle": "duty"}


def mean_shapes(engine: Engine, times_s: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Return ``load_pu`` and ``irradiance_pu`` of the file's elements in the present mode.

    They are the means over the loads, weighted by their kW, and over the PVSystems, weighted by
    their rated power, at each of `times_s`; elements without a shape count as constant. Without a
    load or a PVSystem its column is left out.
    """
    mode = str(engine.dss.Solution.ModeID()).lower()
    wanted = _SHAPE_OF_MODE.get(mode, SHAPES[0])
    out = {}
    for column, kind, size in (("load_pu", "load", "kw"), ("irradiance_pu", "pvsystem", "pmpp")):
        weights: dict[str, float] = {}
        for full in elements_of(engine, (kind,)):
            shape = engine.value(full, wanted).strip("[] ").lower()
            weights[shape] = weights.get(shape, 0.0) + float(engine.value(full, size))
        total = sum(weights.values())
        if total > 0.0:
            parts = (w * _multiplier(engine, name, times_s) for name, w in weights.items())
            out[column] = np.asarray(sum(parts) / total, dtype=np.float64)
    return out


def _multiplier(engine: Engine, name: str, times_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a shape at given times, as the engine reads it; of actual powers the shape alone."""
    shapes = engine.dss.LoadShape
    if not name:
        return np.ones(len(times_s))
    shapes.Name(name)
    values = np.asarray(shapes.PMult(), dtype=np.float64)
    if shapes.UseActual():
        values = values / max(float(np.abs(values).max()), 1e-9)
    hours = times_s / 3600.0
    interval = float(shapes.HrInterval())
    if interval > 0.0:
        # Point 1 is the value after one interval; the shape starts over at its end.
        return np.asarray(values[(np.rint(hours / interval).astype(np.int64) - 1) % len(values)])
    at = np.asarray(shapes.TimeArray(), dtype=np.float64)
    return np.asarray(np.interp(np.mod(hours, at[-1]) if at[-1] > 0.0 else hours, at, values))
