"""A hosting study on IEEE 123 over a day of six steps, made without a scenario."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from grid_models.batched.power_flow import BatchedFeeder
from grid_models.catalog import load_feeder, open_circuit
from grid_models.ders.rules import DerRule, place
from grid_models.feeder.ratings import ratings_file, with_ratings
from grid_models.hosting.balanced import PHASES, balanced_feeder
from grid_models.hosting.limits import Limits
from grid_models.hosting.model import HostingModel

HOURS = np.arange(0.0, 24.0, 4.0)
LOAD_PU = np.array([0.35, 0.4, 0.5, 0.45, 0.7, 0.5])
PV_PU = np.array([0.0, 0.0, 0.6, 1.0, 0.5, 0.0])
TEMP_C = np.array([16.0, 16.0, 21.0, 28.0, 28.0, 22.0])


@cache
def study(
    balanced: bool, limits: Limits | None = None, source_v_pu: float = 1.025, load_pu: float = 1.0
) -> HostingModel:
    """Return the study with a site at each load bus (balanced), or at each phase with load.

    The last site is behind the feeder's transformer.
    """
    feeder = with_ratings(load_feeder("ieee123"), ratings_file("ieee123-assumed"))
    neutral = tuple(replace(r, tap_step=0) for r in feeder.regulators)
    at = "load_buses" if balanced else "load_phases"
    rules = [DerRule(kind="pv", at=where, kw=1.0) for where in (at, ["610"])]
    sites = [site for rule in rules for site in place(feeder, rule)]
    feeder = replace(feeder, regulators=neutral).with_ders(sites)
    feeder = balanced_feeder(feeder) if balanced else feeder
    batched = BatchedFeeder(open_circuit(feeder, feeder.ders, source_v_pu=source_v_pu))
    scale = float(PHASES) if balanced else 1.0
    return HostingModel(
        feeder=batched,
        sites=tuple(sites),
        load_kva=scale * load_pu * LOAD_PU[:, None] * batched.nominal_kva,
        der_kva=np.zeros((len(HOURS), 0), dtype=np.complex128),
        hours=HOURS,
        step_h=4.0,
        pv_pu=PV_PU,
        temp_c=TEMP_C,
        limits=Limits() if limits is None else limits,
        watt_scale=scale,
    )
