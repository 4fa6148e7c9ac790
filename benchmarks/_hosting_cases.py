"""IEEE 123 as the studies of hosting capacity use it, without a scenario."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from grid_models.batched.power_flow import BatchedFeeder
from grid_models.catalog import load_feeder
from grid_models.current_injection.model import ComplexArray
from grid_models.ders.rules import DerRule, place
from grid_models.feeder.model import Der, Feeder
from grid_models.feeder.ratings import ratings_file, with_ratings
from grid_models.hosting.balanced import balanced_feeder
from grid_models.hosting.limits import Limits
from grid_models.hosting.model import HostingModel
from grid_models.opendss.circuit import Circuit
from grid_models.profiles.table import Profiles

LOAD_SCALE = 0.7338  # coincident peak of 2930 kVA


def ieee123(source_v_pu: float = 1.025, *, capacitors: bool = True) -> Feeder:
    """Return the feeder with neutral taps and the assumed ratings."""
    feeder = with_ratings(load_feeder("ieee123"), ratings_file("ieee123-assumed"))
    return replace(
        feeder,
        source=replace(feeder.source, v_pu=source_v_pu),
        regulators=tuple(replace(unit, tap_step=0) for unit in feeder.regulators),
        capacitors=feeder.capacitors if capacitors else (),
    )


def hosting_case(
    feeder: Feeder | None = None,
    *,
    balanced: bool = False,
    at: str = "load_phases",
    noon_load_pu: float | None = None,
    step_h: float = 1.0,
    limits: Limits | None = None,
    ders: Sequence[Der] = (),
    der_kva: ComplexArray | None = None,
) -> tuple[HostingModel, Circuit]:
    """Return the study of a feeder on a clear day, and the circuit that it is made from.

    `noon_load_pu`: Demand over the day's peak when PV is largest; the profile's own is 0.59.
    `ders`, `der_kva`: DERs already there, and complex (T, n) what they inject; default nothing.
    """
    feeder = ieee123() if feeder is None else feeder
    sites = place(feeder, DerRule(kind="pv", at=at, kw=1.0, prefix="site"))
    feeder = feeder.with_ders((*ders, *sites))
    circuit = Circuit.from_feeder(
        balanced_feeder(feeder) if balanced else feeder, tolerance_pu=1e-9
    )
    hours = np.arange(0.0, 24.0, step_h)
    day = Profiles.generate("clear").sample(3600.0 * hours)
    load_pu, pv_pu = day["load_pu"], day["irradiance_pu"]
    if noon_load_pu is not None:
        noon = load_pu[pv_pu.argmax()] / load_pu.max()
        load_pu = load_pu * (1.0 - (1.0 - noon_load_pu / noon) * pv_pu / pv_pu.max())
    nominal = np.array([complex(x.kw, x.kvar) for x in feeder.all_loads])
    load_kva = LOAD_SCALE * load_pu[:, None] * nominal
    there = np.zeros((len(load_pu), len(ders)), dtype=np.complex128) if der_kva is None else der_kva
    model = HostingModel(
        BatchedFeeder(circuit),
        sites,
        load_kva,
        there,
        hours,
        step_h,
        pv_pu,
        day["temp_c"],
        limits or Limits(),
        3.0 if balanced else 1.0,
    )
    return model, circuit
