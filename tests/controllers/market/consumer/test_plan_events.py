"""Bad input of one home is an event of the plan; the other homes' plans stay as they are."""

from dataclasses import replace

import numpy as np
import pytest
from _home_cases import mixed_homes, starts, summer_day

from controllers.market.consumer.plan import KINDS, plan_homes

HOMES = mixed_homes(3, seed=3, share=1.0)
FORECAST = summer_day(HOMES)
GOOD = plan_homes(HOMES, FORECAST, *starts(HOMES))


def changed(parameters, **values):
    """Return parameters with home 1's value replaced."""
    arrays = {}
    for name, value in values.items():
        arrays[name] = getattr(parameters, name).copy()
        arrays[name][1] = value
    return replace(parameters, **arrays)


def plan(homes=HOMES, forecast=FORECAST, start=None):
    """Return the plan, after a look at the other homes."""
    found = plan_homes(homes, forecast, *(start or starts(homes)))
    for kind in KINDS:
        assert np.array_equal(found.p_kw[kind][[0, 2]], GOOD.p_kw[kind][[0, 2]])
    assert {event.home for event in found.events} <= {"home_1"}
    assert found.converged.all()
    assert np.isfinite(found.net_kw).all()
    return found


def kinds(found):
    return [event.kind for event in found.events]


def test_nothing_to_tell_where_all_is_as_asked():
    assert GOOD.events == ()


def test_a_home_without_devices():
    bare = replace(
        HOMES,
        houses=changed(HOMES.houses, hvac_kw=0.0),
        pv_kw=HOMES.pv_kw * [1.0, 0.0, 1.0],
        battery=changed(HOMES.battery, energy_kwh=0.0),
        vehicle=changed(HOMES.vehicle, energy_kwh=0.0),
        trips=changed(HOMES.trips, target_soc=0.0, trip_kwh=0.0),
    )
    found = plan(bare, start=(*(x * [1, 0, 1] for x in starts(HOMES)[:2]), HOMES.houses.start_c))
    assert found.events == ()
    assert np.array_equal(found.net_kw[1], -FORECAST.base_kw[1])
    assert (found.flex_kw[1] == 0.0).all()


def test_a_vehicle_that_cannot_reach_its_target():
    homes = replace(HOMES, vehicle=changed(HOMES.vehicle, p_min_kw=-1.0))
    found = plan(homes)
    (event,) = found.events
    assert event.kind == "target"
    assert "48.00 kWh is missed by" in event.text
    charging = found.p_kw["vehicle"][1, :12]
    assert charging == pytest.approx(-1.0 / 1.05, abs=1e-5)  # as fast as it can


def test_a_vehicle_whose_trip_needs_more_than_it_holds():
    homes = replace(HOMES, trips=changed(HOMES.trips, trip_kwh=90.0))
    found = plan(homes)
    assert kinds(found)[0] == "trip"
    assert found.soc_kwh["vehicle"][1].min() > -1e-3


@pytest.mark.parametrize(("share", "side"), [(1.3, 1.0), (0.0, -1.0)])
def test_a_battery_outside_its_limits_is_brought_back_as_fast_as_it_can(share, side):
    battery, vehicle, temp = starts(HOMES)
    battery[1] = share * HOMES.battery.energy_kwh[1]
    weak = replace(HOMES, battery=changed(HOMES.battery, p_min_kw=-0.3, p_max_kw=0.3))
    found = plan(weak, start=(battery, vehicle, temp))
    (event,) = found.events
    assert event.kind == "limits"
    assert "outside" in event.text
    steps = int(event.text.split()[-2])
    back = found.p_kw["battery"][1, : steps - 1]
    assert len(back) > 2
    assert back == pytest.approx(side * 0.3 / 1.05, abs=1e-4)


def test_numbers_that_are_missing():
    irradiance = np.tile(FORECAST.irradiance_pu, (3, 1))
    irradiance[1, 20:24] = np.nan
    base = FORECAST.base_kw.copy()
    base[1] = np.inf
    forecast = replace(FORECAST, irradiance_pu=irradiance, base_kw=base)
    battery, vehicle, temp = starts(HOMES)
    battery[1] = vehicle[1] = temp[1] = np.nan
    found = plan(HOMES, forecast, (battery, vehicle, temp))
    assert kinds(found)[:5] == ["forecast", "forecast", "start", "start", "start"]
    assert "4 of 48 values of irradiance_pu" in found.events[0].text
    assert (found.base_kw[1] == 0.0).all()
    sun = HOMES.pv_kw[1] * irradiance[1, 19]
    assert found.p_kw["pv"][1, 20:24] == pytest.approx(sun, abs=1e-5)


def test_a_price_that_is_missing_concerns_all_homes():
    price = FORECAST.price_per_kwh.copy()
    price[:3] = np.nan
    found = plan_homes(HOMES, replace(FORECAST, price_per_kwh=price), *starts(HOMES))
    assert kinds(found) == ["forecast"] * 3
    assert found.converged.all()


def test_a_house_out_of_its_band():
    battery, vehicle, temp = starts(HOMES)
    temp[1] += 12.0
    found = plan(start=(battery, vehicle, temp))
    assert kinds(found) == ["comfort"]
