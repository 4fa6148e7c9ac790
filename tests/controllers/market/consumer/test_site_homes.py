"""Homes from DERs: what the feeder's models draw is what homes plan with."""

from __future__ import annotations

import pytest

from controllers.core.errors import ControllerError
from controllers.core.sample_site import sample_site
from controllers.market.consumer.site_homes import site_homes
from grid_models.ders.houses import houses_of_ders
from grid_models.ders.vehicles import VehicleParameters
from grid_models.feeder.model import Der, VehicleUse

HOUSE = Der("house_a", "house", "a", (1,), 7.0, 0.0, -7.0)
PV = Der("pv_a", "pv", "a", (1,), 5.0, 4.0)
MORE_PV = Der("pv_a2", "pv", "a", (1,), 2.0, 1.0)
BATTERY = Der("battery_b", "battery", "b", (1,), 5.0, 5.0, -5.0, 13.0)
CAR = Der(
    "vehicle_a", "vehicle", "a", (1,), 7.0, 0.0, -7.0, 50.0,
    vehicle=VehicleUse(leave_h=8.0, return_h=17.0, trip_kwh=9.0, soc_target=0.9),
)  # fmt: skip


def test_devices_come_with_their_home_and_its_house() -> None:
    ders = (HOUSE, PV, BATTERY, CAR, MORE_PV)
    found = site_homes(ders, 3, "test")
    assert found.table.home.tolist() == [0, 0, 1, 0, 0]
    assert found.homes.pv_kw.tolist() == [5.0, 0.0]
    assert found.share.tolist() == [1.0, 0.8, 1.0, 1.0, 0.2]
    assert found.rating_kw.tolist() == [19.0, 5.0]
    assert found.homes.battery.energy_kwh.tolist() == [0.0, 13.0]
    drawn, _ = houses_of_ders([HOUSE], 3)
    assert found.homes.houses.hvac_kw.tolist() == [drawn.hvac_kw[0], 0.0]
    assert found.base_kw.tolist() == [drawn.base_kw[0], 0.0]
    trips, use = found.homes.trips, VehicleParameters.of_ders([CAR], 3)
    assert (trips.leave_h[0], trips.return_h[0], trips.trip_kwh[0]) == (8.0, 17.0, 9.0)
    assert trips.target_soc[0] * 50.0 == pytest.approx(use.target_kwh[0])
    assert trips.target_soc[1] == 0.0


def test_several_houses_of_a_row_are_one() -> None:
    row = Der("house_a", "house", "a", (1,), 21.0, 0.0, -21.0, count=3)
    found, (drawn, _) = site_homes((row,), 1, "test"), houses_of_ders([row], 1)
    houses = found.homes.houses
    assert houses.hvac_kw[0] == pytest.approx(drawn.hvac_kw.sum())
    assert houses.c_kwh_per_k[0] == pytest.approx(drawn.c_kwh_per_k.sum())
    assert 1.0 / houses.r_k_per_kw[0] == pytest.approx((1.0 / drawn.r_k_per_kw).sum())


def test_a_der_that_no_home_plans_is_refused() -> None:
    with pytest.raises(ControllerError, match=r"'inverter_a'.*kind inverter"):
        site_homes((Der("inverter_a", "inverter", "a", (1,), 5.0, 5.0, -5.0),), 1, "test")


def test_a_site_without_a_house() -> None:
    found = site_homes(sample_site().ders, 1, "test")
    assert not found.homes.houses.hvac_kw.any()
    assert found.homes.pv_kw.tolist() == [100.0, 300.0, 200.0, 0.0, 170.0]
