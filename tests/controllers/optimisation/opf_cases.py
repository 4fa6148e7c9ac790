"""Cases of the tests: shipped ones, and one with every element that a case may have."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from grid_models.transmission.matpower import load_case
from grid_models.transmission.opf_case import Costs, OpfCase


def case_with_everything() -> OpfCase:
    """39 buses with phase shifters, shunts, limits of angles, and piecewise linear costs."""
    case = load_case("case39")
    rng = np.random.default_rng(5)
    n, m, units = len(case.buses.names), len(case.branches.names), len(case.generators.names)
    buses = replace(
        case.buses, shunt_mw=rng.uniform(0.0, 5.0, n), shunt_mvar=rng.uniform(-20.0, 20.0, n)
    )
    limited = rng.random(m) < 0.5
    branches = replace(
        case.branches,
        shift_deg=rng.uniform(-1.0, 1.0, m),
        angle_max_deg=np.where(limited, 30.0, np.inf),
        angle_min_deg=np.where(rng.random(m) < 0.5, -25.0, -np.inf),
    )
    lines = rng.random(units) < 0.5
    corners = np.array([0.0, 400.0, 1200.0])
    steep = np.cumsum(rng.uniform(1.0, 8.0, (units, 2)), axis=1)
    height = np.cumsum(np.column_stack((np.full(units, 5.0), steep * np.diff(corners))), axis=1)
    costs = Costs(
        np.where(lines[:, None], 0.0, case.costs.coefficients),
        np.where(lines[:, None], corners, np.nan),
        np.where(lines[:, None], height, np.nan),
    )
    none = np.full((units, 3), np.nan)
    none[1], heights = [-300.0, 0.0, 300.0], none.copy()
    heights[1] = [150.0, 0.0, 240.0]
    bent = np.zeros((units, 4))
    bent[2:] = [0.0, 0.02, 1e-4, 1e-7]
    return replace(
        case, buses=buses, branches=branches, costs=costs, reactive_costs=Costs(bent, none, heights)
    )
