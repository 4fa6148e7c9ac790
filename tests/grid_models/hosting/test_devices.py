from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from grid_models.base.errors import FeederError
from grid_models.ders.batteries import BatteryFleet, BatteryParameters
from grid_models.ders.vehicles import VehicleFleet
from grid_models.feeder.model import Der, VehicleUse
from grid_models.hosting.devices import KINDS, DeviceModel, DeviceOptions, device_model

HOURS = np.arange(24.0)
PV_PU = np.maximum(np.sin((HOURS - 6.0) / 12.0 * np.pi), 0.0)
TEMP_C = 22.0 + 8.0 * np.sin((HOURS - 9.0) / 12.0 * np.pi)
SITES = ("a", "b", "c")


def _model(options: DeviceOptions | None = None, kinds: tuple[str, ...] = KINDS) -> DeviceModel:
    return device_model(options or DeviceOptions(), kinds, SITES, HOURS, 1.0, PV_PU, TEMP_C)


def _random_plan(model: DeviceModel, capacity_kw: np.ndarray, seed: int) -> np.ndarray:
    """Return a vertex of the devices' limits in a random direction."""
    least, most = (
        model.least * capacity_kw[model.row_unit],
        model.most * capacity_kw[model.row_unit],
    )
    bounds = np.stack(model.limits(capacity_kw), axis=1)
    equal = least == most
    cost = np.random.default_rng(seed).normal(size=len(model.low))
    found = linprog(
        cost, A_ub=model.rows[~equal], b_ub=most[~equal], A_eq=model.rows[equal],
        b_eq=most[equal], bounds=bounds,
    )  # fmt: skip
    assert found.status == 0
    return found.x


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.5, 50.0))
def test_a_plan_is_what_the_fleets_of_the_feeder_do(seed: int, scale: float) -> None:
    options = DeviceOptions(power_factor=0.95, v2g=True)
    model = _model(options)
    capacity = scale * np.random.default_rng(seed).uniform(0.5, 1.5, len(KINDS) * len(SITES))
    y = _random_plan(model, capacity, seed)
    own = {}
    for k, kind in enumerate(KINDS):
        of_kind = np.where(model.unit // len(SITES) == k, y, 0.0)
        alone = np.where(np.arange(len(capacity)) // len(SITES) == k, capacity, 0.0)
        own[kind] = model.injection_kva(of_kind, alone)
    by_kind = capacity.reshape(len(KINDS), len(SITES))
    total = model.injection_kva(y, capacity)
    np.testing.assert_allclose(total, sum(own.values()), atol=1e-9 * scale)

    pv = own["pv"]
    available = PV_PU[:, None] * by_kind[0]
    assert (pv.real >= -1e-6 * scale).all()
    assert (pv.real <= available + 1e-6 * scale).all()
    tan = np.sqrt(1.0 / 0.95**2 - 1.0)
    assert (np.abs(pv.imag) <= tan * pv.real + 1e-6 * scale).all()

    _check_heat_pumps(model, y, own["heat_pump"].real, by_kind[3], options)
    if model.overlap_kw(y) > 1e-6 * scale:
        return  # no fleet charges and discharges at once
    energy = options.battery_h * by_kind[1]
    _check_storage(own["battery"].real, energy, by_kind[1])


def _check_storage(p_kw: np.ndarray, energy: np.ndarray, rated: np.ndarray) -> None:
    ders = [
        Der(s, "battery", s, (1,), 2 * r, r, -r, energy_kwh=e)
        for s, r, e in zip(SITES, rated, energy, strict=True)
    ]
    fleet = BatteryFleet(ders, BatteryParameters())
    # The level at the start is the plan's choice: only changes are compared.
    levels = [fleet.soc_kwh.copy()]
    for step in p_kw:
        levels.append(fleet.stored(3600.0, step))
        fleet.soc_kwh = levels[-1]
    spread = np.ptp(levels, axis=0)
    assert (spread <= 0.9 * energy * (1.0 + 1e-6)).all()
    np.testing.assert_allclose(levels[-1], levels[0], atol=1e-6 * energy.max())


def _check_heat_pumps(
    model: DeviceModel, y: np.ndarray, p_kw: np.ndarray, rated: np.ndarray, options: DeviceOptions
) -> None:
    """Integrate the room temperature in small steps, over two days of the same plan."""
    temp = np.full(len(SITES), 21.5)
    seen = []
    for _ in range(30):  # until the start no longer matters
        for hour, outdoor in enumerate(TEMP_C):
            sign = 1.0 if outdoor < 21.5 else -1.0
            lift = sign * options.full_power_k * -p_kw[hour] / rated
            kept = np.exp(-1.0 / options.time_constant_h)
            temp = kept * temp + (1.0 - kept) * (outdoor + lift)
            seen.append(temp)
    day = np.array(seen[-24:])
    assert day.min() >= 19.0 - 1e-4
    assert day.max() <= 24.0 + 1e-4


def test_vehicles_keep_the_rules_of_the_feeder() -> None:
    options = DeviceOptions()
    model = _model(options, ("vehicle",))
    capacity = np.full(3, 40.0)
    y = _random_plan(model, capacity, 3)
    p_kw = model.injection_kva(y, capacity).real
    energy = options.vehicle_h * 40.0
    unit = [
        Der(f"vehicle_{s}", "vehicle", s, (1,), 40.0, 0.0, -40.0, energy_kwh=energy,
            vehicle=VehicleUse(trip_kwh=options.trip * energy))
        for s in SITES
    ]  # fmt: skip
    fleet = VehicleFleet(unit, BatteryParameters(), seed=0)
    stored = y[~model.charged].reshape(3, -1)[:, 24:]
    fleet.soc_kwh = stored[:, -1]
    for hour, step in enumerate(p_kw):
        fleet.plug(3600.0 * hour, 3600.0)
        low, high = fleet.limits(3600.0)
        assert (step >= low - 1e-6).all()
        assert (step <= high + 1e-6).all()
        fleet.advance(3600.0, step)
        assert fleet.leaving_short_kwh.max() < 1e-6
        np.testing.assert_allclose(fleet.soc_kwh, stored[:, hour], atol=1e-6)
    assert fleet.elsewhere_kwh.max() < 1e-6


def test_without_coordination_nothing_discharges_and_vehicles_charge_on_return() -> None:
    model = _model()
    capacity = np.ones(12)
    bounds = np.stack(model.limits(capacity), axis=1)
    equal = model.least == model.most
    found = linprog(model.own_cost, A_eq=model.rows[equal], b_eq=model.most[equal], bounds=bounds)
    assert model.overlap_kw(found.x) == 0.0
    assert found.x[model.discharged].max() == 0.0
    vehicles = np.where(model.unit // 3 == 2, found.x, 0.0)
    by_hour = model.injection_kva(vehicles, 0.0 * capacity).real.sum(axis=1)
    assert by_hour[16:22].sum() == pytest.approx(by_hour.sum())


def test_a_heat_pump_that_is_too_weak_is_refused() -> None:
    with pytest.raises(FeederError, match="full_power_k"):
        device_model(DeviceOptions(), KINDS, SITES, HOURS, 1.0, PV_PU, TEMP_C - 40.0)
