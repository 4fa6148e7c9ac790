"""What a storage meets over the horizon: trips, limits that can be kept, targets.

Arrays are (H, n): steps first, homes last.
"""

from __future__ import annotations

import numpy as np

from controllers.market.consumer.batch_ldl import Array
from controllers.market.consumer.homes import Storages, Trips
from controllers.market.consumer.plan_model import PlanOptions, StorageCase


def storage_case(
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
        away=away,
        low_kwh=low_kwh,
        high_kwh=high_kwh,
        low_price=np.where(raised, options.target_per_kwh, options.limit_per_kwh),
        reserve_low=np.where(raised, 0.0, 1.0),
        reserve_high=reserve_high,
        due=due,
        throughput=throughput,
    )


def stored_kwh(
    units: Storages, start_kwh: Array, trip_kwh: Array, p_kw: Array, hours: float
) -> Array:
    """Return the energy at the start and after each step, (H + 1, n), of injections (H, n)."""
    out = np.minimum(p_kw, 0.0) * units.charge_efficiency
    out = (out + np.maximum(p_kw, 0.0) / units.discharge_efficiency) * hours + trip_kwh
    return np.cumsum(np.concatenate([start_kwh[None], -out]), axis=0)
