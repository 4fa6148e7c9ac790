"""What devices meet over the horizon: trips, limits that can be kept, targets, temperatures.

Arrays are (H, n): steps first, homes last.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from controllers.market.consumer.batch_qp import Array
from controllers.market.consumer.homes import HomeForecast, Homes, Storages, Trips
from controllers.market.consumer.plan_model import HeatCase, PlanOptions, StorageCase
from grid_models.ders.houses import HouseParameters


def storage_cases(
    homes: Homes, forecast: HomeForecast, starts: Mapping[str, Array], options: PlanOptions
) -> dict[str, StorageCase]:
    """Return the cases of batteries and vehicles of all homes."""
    day = (forecast.start_s, forecast.step_s, forecast.shape[1])
    price = forecast.wide("price_per_kwh").T
    cases = {}
    for name, trips in (("battery", None), ("vehicle", homes.trips)):
        units: Storages = getattr(homes, name)
        throughput = _throughput_per_kwh(homes, units, price, options)
        cases[name] = _storage_case(units, trips, starts[name], day, throughput, options)
    return cases


def _throughput_per_kwh(homes: Homes, units: Storages, price: Array, options: PlanOptions) -> Array:
    """Return the cost of |P| from which charging and discharging at once does not pay, (n,).

    1 kW of both at once adds 2 kW to |P|, so 2 eps2 to the flexibility, and loses 1/eta_d - eta_c
    of stored power, whose worth is at least the least price less the steepest slope of the use of
    own PV.
    """
    pv, discharge = homes.pv_kw, homes.battery.p_max_kw + homes.vehicle.p_max_kw
    slope = 1.0 + np.divide(discharge, pv, out=np.zeros_like(pv), where=pv > 0.0)
    least = price.min(axis=0) - 2.0 * options.own_pv_per_kwh * np.where(pv > 0.0, slope, 0.0)
    least = least - options.price_rise_per_kw * (pv + discharge)
    loss = 1.0 / units.discharge_efficiency - units.charge_efficiency
    exact = options.delta_high * options.flex_per_kwh + 0.5 * loss * np.maximum(-least, 0.0)
    return np.asarray(options.throughput_factor * exact)


def _storage_case(
    units: Storages,
    trips: Trips | None,
    start_kwh: Array,
    day: tuple[float, float, int],
    throughput: Array,
    options: PlanOptions,
) -> StorageCase:
    """Return the case of n storages.

    A start above the limit moves the limit to what the fastest discharge leaves. A trip takes at
    most what the fastest charging could have stored. At the end of the horizon the storage shall
    hold what it holds at the start (the paper's SOC(0) = SOC(T), as a cost of what is missing).

    Parameters
    ----------
    trips : None for batteries.
    day : Time of the day of the first step, s; length of a step, s; steps.
    throughput : (n,). Cost of |P|, per kWh.
    """
    hours, steps, n = day[1] / 3600.0, day[2], len(start_kwh)
    window = np.zeros((steps, n)) if trips is None else trips.away(*day).T
    wanted = window if trips is None else window * trips.trip_kwh
    away = window > 0.0
    low, high = units.soc_min * units.energy_kwh, units.soc_max * units.energy_kwh
    fast = hours / (1.0 + options.delta_low)  # the rest of the power is flexibility
    charge = -units.p_min_kw * units.charge_efficiency * fast
    drain = units.p_max_kw / units.discharge_efficiency * fast
    room = hours * units.charge_efficiency * options.delta_high
    room = room * np.maximum(-units.p_min_kw, units.p_max_kw)
    trip, high_kwh, reserve_high = (np.empty_like(window) for _ in range(3))
    most, least = start_kwh, start_kwh
    for k in range(steps):
        most = np.maximum(np.minimum(most + np.where(away[k], 0.0, charge), high), most)
        trip[k] = np.minimum(wanted[k], most)
        most = most - trip[k]
        least = np.maximum(least - np.where(away[k], 0.0, drain) - trip[k], 0.0)
        high_kwh[k] = np.maximum(high, least)
        reserve_high[k] = (start_kwh <= high) | (least + room <= high)
    low_kwh = np.broadcast_to(low, window.shape).copy()
    low_kwh[-1] = np.maximum(low, np.minimum(start_kwh, high))
    due = np.zeros(window.shape, dtype=bool) if trips is None else trips.due(*day).T
    if trips is not None:
        target = np.minimum(trips.target_soc * units.energy_kwh, high)
        low_kwh = np.where(due, np.maximum(low_kwh, target), low_kwh)
    raised = low_kwh > low
    return StorageCase(
        start_kwh=start_kwh,
        trip_kwh=trip,
        wanted_kwh=wanted,
        away=away,
        low_kwh=low_kwh,
        high_kwh=high_kwh,
        low_price=np.where(raised, options.target_per_kwh, options.limit_per_kwh),
        reserve_low=np.where(raised, 0.0, 1.0),
        reserve_high=reserve_high,
        due=due,
        throughput=throughput,
    )


def heat_case(houses: HouseParameters, forecast: HomeForecast, start_c: Array) -> HeatCase:
    """Return the equations of all houses.

    A pump cools in steps that are warmer than the middle of the set-points, else it heats. The
    set-point that it tracks is the outdoor temperature, held between the two: what asks least of
    the pump.
    """
    outdoor = forecast.wide("temp_c").T
    theta = np.exp(-forecast.step_s / 3600.0 / (houses.r_k_per_kw * houses.c_kwh_per_k))
    gain = (1.0 - theta) * houses.r_k_per_kw * houses.cop
    cools = outdoor > 0.5 * (houses.heat_set_c + houses.cool_set_c)
    return HeatCase(
        start_c=start_c,
        theta=theta,
        gain_k_per_kw=np.where(cools, -gain, gain),
        outdoor_c=outdoor,
        set_c=np.clip(outdoor, houses.heat_set_c, houses.cool_set_c),
        low_c=houses.heat_set_c - 0.5 * houses.band_k,
        high_c=houses.cool_set_c + 0.5 * houses.band_k,
        rated_kw=houses.hvac_kw,
    )


def stored_kwh(
    units: Storages, start_kwh: Array, trip_kwh: Array, p_kw: Array, hours: float
) -> Array:
    """Return the energy at the start and after each step, (H + 1, n), of injections (H, n)."""
    out = np.minimum(p_kw, 0.0) * units.charge_efficiency
    out = (out + np.maximum(p_kw, 0.0) / units.discharge_efficiency) * hours + trip_kwh
    return np.cumsum(np.concatenate([start_kwh[None], -out]), axis=0)
