"""Homes, their forecasts and the errors of these: times of trips, refusals, what is drawn."""

from dataclasses import replace

import numpy as np
import pytest
from _home_cases import mixed_homes, summer_day
from hypothesis import given
from hypothesis import strategies as st

from controllers.market.consumer.forecast_errors import ForecastErrors, with_errors
from controllers.market.consumer.homes import Storages, Trips
from controllers.market.model.errors import MarketError

HOMES = mixed_homes(6, share=1.0)
FORECAST = summer_day(HOMES)
hours = st.floats(0.0, 24.0)
ERRORS = ForecastErrors(irradiance_std=0.2, base_std=0.3, price_std=0.1, temp_std_k=1.5)


def trips(leave_h, return_h, target_h=7.0):
    one = np.ones(1)
    return Trips(leave_h * one, return_h * one, 10.0 * one, 0.8 * one, target_h * one)


def test_a_trip_of_the_day_and_one_past_midnight():
    day = trips(8.25, 17.0).away(0.0, 1800.0, 48)[0]
    assert np.flatnonzero(day).tolist() == list(range(16, 34))  # the step of 8:00 counts as away
    assert day[16] == pytest.approx(0.25 / 8.75)
    night = trips(22.0, 6.0).away(0.0, 3600.0, 24)[0]
    assert np.flatnonzero(night).tolist() == [0, 1, 2, 3, 4, 5, 22, 23]
    assert not trips(9.0, 9.0).away(0.0, 3600.0, 24).any()


@given(leave_h=hours, return_h=hours, start_h=hours, step_h=st.sampled_from([0.25, 0.5, 1.0]))
def test_every_day_has_one_whole_trip_and_one_target(leave_h, return_h, start_h, step_h):
    one = trips(leave_h, return_h)
    steps = int(24 / step_h)
    share = one.away(3600.0 * start_h, 3600.0 * step_h, steps).sum()
    length = (return_h - leave_h) % 24.0
    assert share == pytest.approx(1.0 if length > 1e-9 else share, abs=1e-6)
    assert one.due(3600.0 * start_h, 3600.0 * step_h, steps).sum() == 1


def test_a_target_is_due_at_the_last_end_of_a_step_before_it():
    due = trips(8.0, 17.0, target_h=7.25).due(0.0, 1800.0, 48)[0]
    assert np.flatnonzero(due).tolist() == [13]  # the step ends at 7:00


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"p_min_kw": np.array([1.0])}, "p_min_kw.*at most 0 kW"),
        ({"energy_kwh": np.array([np.nan])}, "energy_kwh"),
        ({"soc_min": np.array([1.1])}, "soc_min"),
        ({"charge_efficiency": np.array([0.0])}, "charge_efficiency.*above 0"),
        ({"p_max_kw": np.zeros(2)}, "p_max_kw.*one number per home"),
    ],
)
def test_storages_that_are_none_are_refused(change, message):
    one = np.ones(1)
    with pytest.raises(MarketError, match=f"(?s){message}"):
        replace(Storages.alike(10.0 * one, -5.0 * one, 5.0 * one), **change)


def test_homes_and_forecasts_of_wrong_shapes_are_refused():
    with pytest.raises(MarketError, match="6 homes"):
        replace(HOMES, pv_kw=np.zeros(5))
    with pytest.raises(MarketError, match="irradiance_pu"):
        replace(FORECAST, irradiance_pu=np.zeros(47))
    with pytest.raises(MarketError, match="an hour, 0 to 24"):
        trips(8.0, 25.0)


def test_a_part_of_the_homes_keeps_its_numbers():
    part, own = HOMES.take([4, 1]), FORECAST.take([4, 1])
    assert part.names == ("home_4", "home_1")
    assert part.houses.hvac_kw.tolist() == HOMES.houses.hvac_kw[[4, 1]].tolist()
    assert part.trips.leave_h.tolist() == HOMES.trips.leave_h[[4, 1]].tolist()
    assert np.array_equal(own.base_kw, FORECAST.base_kw[[4, 1]])
    assert np.array_equal(own.price_per_kwh, FORECAST.price_per_kwh)


def test_errors_are_those_of_the_home_and_the_seed():
    believed = with_errors(FORECAST, HOMES.names, 7, 0, ERRORS)
    part = with_errors(FORECAST.take([3]), HOMES.names[3:4], 7, 0, ERRORS)
    other = with_errors(FORECAST, HOMES.names, 8, 0, ERRORS)
    for name in ("irradiance_pu", "base_kw", "price_per_kwh", "temp_c"):
        series = getattr(believed, name)
        assert np.array_equal(series[3], getattr(part, name)[0])
        assert not np.array_equal(series[0], series[1])
        assert not np.array_equal(series, getattr(other, name))
    assert believed.irradiance_pu.min() >= 0.0
    assert believed.irradiance_pu.max() <= 1.0


def test_errors_of_size_zero_change_nothing():
    believed = with_errors(FORECAST, HOMES.names, 7, 0, ForecastErrors())
    for name in ("irradiance_pu", "base_kw", "price_per_kwh", "temp_c"):
        assert np.array_equal(getattr(believed, name), FORECAST.wide(name))


def test_errors_have_the_deviation_and_persistence_that_are_asked():
    homes = mixed_homes(500)
    flat = replace(summer_day(homes), temp_c=np.zeros(48))
    off = with_errors(flat, homes.names, 1, 3, ForecastErrors(temp_std_k=2.0, persistence=0.8))
    assert off.temp_c.std() == pytest.approx(2.0, rel=0.05)
    assert off.temp_c.std(axis=0)[-1] == pytest.approx(2.0, rel=0.1)
    a, b = off.temp_c[:, :-1].ravel(), off.temp_c[:, 1:].ravel()
    assert np.corrcoef(a, b)[0, 1] == pytest.approx(0.8, abs=0.02)
