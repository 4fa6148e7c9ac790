"""Homes with mixed devices and a summer day, for tests and benchmarks."""

import numpy as np

from controllers.market.consumer.homes import HomeForecast, Homes, Storages, Trips
from grid_models.base.counter_rng import stream_ids
from grid_models.ders.houses import HouseParameters
from grid_models.ders.thermal import uniform_between

STEPS, STEP_S = 48, 1800.0


def mixed_homes(count, seed=1, share=0.5):
    """Return homes, each device with the probability `share`; each depends on its own name only."""
    names = tuple(f"home_{i}" for i in range(count))
    keys = stream_ids(f"{seed}/{name}" for name in names)

    def drawn(counter, low, high):
        return uniform_between(keys, 100 + counter, low, high)

    def has(counter):
        return (drawn(counter, 0.0, 1.0) < share).astype(float)

    houses = HouseParameters.draw(names, seed)
    houses.hvac_kw[:] *= has(0)
    battery, vehicle = has(1), has(2)
    battery_kw = drawn(3, 3.0, 7.0) * battery
    return Homes(
        names,
        houses,
        pv_kw=drawn(4, 2.0, 8.0) * has(5),
        battery=Storages.alike(drawn(6, 6.0, 14.0) * battery, -battery_kw, battery_kw),
        vehicle=Storages.alike(60.0 * vehicle, -7.4 * vehicle, 7.4 * vehicle * has(7)),
        trips=Trips(
            leave_h=drawn(8, 7.0, 9.5),
            return_h=drawn(9, 16.0, 19.0),
            trip_kwh=drawn(10, 4.0, 16.0) * vehicle,
            target_soc=0.8 * vehicle,
            target_h=drawn(11, 6.0, 7.0),
        ),
    )


def starts(homes):
    """Return the stored energy of batteries and vehicles and the temperature at midnight."""
    return (
        0.4 * homes.battery.energy_kwh,
        0.5 * homes.vehicle.energy_kwh,
        homes.houses.start_c.copy(),
    )


def summer_day(homes, seed=1, step_s=STEP_S, steps=STEPS):
    """Return a forecast: sun from 6 to 19 h, 14 to 30 deg C, the price highest at 19:30."""
    hour = step_s / 3600.0 * (np.arange(steps) + 0.5)
    keys = stream_ids(f"{seed}/{name}" for name in homes.names)
    evening = np.exp(-(((hour - 19.5) / 1.5) ** 2))
    return HomeForecast(
        step_s=step_s,
        start_s=0.0,
        irradiance_pu=0.9 * np.clip(np.sin(np.pi * (hour - 6.0) / 13.0), 0.0, None),
        temp_c=22.0 + 8.0 * np.sin(2.0 * np.pi * (hour - 9.0) / 24.0),
        base_kw=uniform_between(keys, 200, 0.3, 0.9)[:, None] * (1.0 + evening),
        price_per_kwh=0.09 + 0.03 * np.cos(4.0 * np.pi * (hour - 7.5) / 24.0) + 0.15 * evening,
    )
