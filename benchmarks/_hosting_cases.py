"""IEEE 123 as the studies of hosting capacity use it, without a scenario."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from grid_models.batched.power_flow import BatchedFeeder
from grid_models.catalog import load_feeder
from grid_models.current_injection.model import ComplexArray, FloatArray
from grid_models.ders.rules import DerRule, place
from grid_models.feeder.model import Der, Feeder
from grid_models.feeder.ratings import ratings_file, with_ratings
from grid_models.hosting.balanced import balanced_feeder
from grid_models.hosting.devices import DeviceOptions, device_model
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
    electrified: bool = False,
) -> tuple[HostingModel, Circuit]:
    """Return the study of a feeder on a clear day, and the circuit that it is made from.

    `noon_load_pu`: Demand over the day's peak when PV is largest; the profile's own is 0.59.
    `ders`: Already there, and idle. `electrified`: With `slides_devices`, batteries idle.
    """
    feeder = ieee123() if feeder is None else feeder
    hours = np.arange(0.0, 24.0, step_h)
    day = Profiles.generate("clear").sample(3600.0 * hours)
    there = np.zeros((len(hours), len(ders)), dtype=np.complex128)
    if electrified:
        ders, there = slides_devices(feeder, hours, day["irradiance_pu"], day["temp_c"])
    sites = place(feeder, DerRule(kind="pv", at=at, kw=1.0, prefix="site"))
    feeder = feeder.with_ders((*ders, *sites))
    circuit = Circuit.from_feeder(
        balanced_feeder(feeder) if balanced else feeder, tolerance_pu=1e-9
    )
    load_pu, pv_pu = day["load_pu"], day["irradiance_pu"]
    if noon_load_pu is not None:
        noon = load_pu[pv_pu.argmax()] / load_pu.max()
        load_pu = load_pu * (1.0 - (1.0 - noon_load_pu / noon) * pv_pu / pv_pu.max())
    nominal = np.array([complex(x.kw, x.kvar) for x in feeder.all_loads])
    load_kva = LOAD_SCALE * load_pu[:, None] * nominal
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


def slides_devices(
    feeder: Feeder, hours: FloatArray, pv_pu: FloatArray, temp_c: FloatArray
) -> tuple[tuple[Der, ...], ComplexArray]:
    """Return the slides' devices at 5 % of peak load and of homes, and what they inject, (T, n).

    147 kW and 441 kWh of batteries, idle; 396 kW of vehicles that charge on return; 168 kW of heat
    pumps as they run without coordination. All are divided by load.
    """
    from scipy.optimize import linprog
    from scipy.sparse import vstack

    battery = DerRule(kind="battery", at="load_phases", total_kw=147.0, hours=3.0)
    vehicle = DerRule(kind="vehicle", at="load_phases", total_kw=396.0)
    batteries, vehicles = place(feeder, battery), place(feeder, vehicle)
    share = np.array([-der.p_min_kw for der in vehicles]) / 396.0
    capacity_kw = np.concatenate([396.0 * share, 168.0 * share])
    names, step_h = [der.name for der in vehicles], float(hours[1] - hours[0])
    devices = device_model(
        DeviceOptions(), ("vehicle", "heat_pump"), names, hours, step_h, pv_pu, temp_c
    )
    of_row = capacity_kw[devices.row_unit]
    found = linprog(  # type: ignore[call-overload]  # its stubs know no sparse arrays
        devices.own_cost,
        A_ub=vstack([devices.rows, -devices.rows], format="csr"),
        b_ub=np.concatenate([devices.most * of_row, -devices.least * of_row]),
        bounds=np.stack(devices.limits(capacity_kw), axis=1),
    )
    # A site's heat pumps stand beside its vehicles: one injection for both.
    there = devices.injection_kva(found.x, capacity_kw)
    return (*batteries, *vehicles), np.concatenate([np.zeros_like(there), there], axis=1)


def print_tables(found: Mapping[str, Sequence[Mapping[str, Any]]], *, as_json: bool) -> None:
    """Print tables by name, a row a line, or as JSON."""
    if as_json:
        print(json.dumps(found))
        return
    for name, rows in found.items():
        print(f"\n{name}")
        for row in rows:
            shown = {k: f"{v:.4g}" if isinstance(v, float) else str(v) for k, v in row.items()}
            print("  ".join(f"{k} {v}" for k, v in shown.items()))
