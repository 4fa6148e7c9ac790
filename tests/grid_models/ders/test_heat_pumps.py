"""A house under a cap against the plan's model of a variable-speed heat pump, in both seasons.

Plan model (thesis, heat pumps): T(k+1) = theta T(k) + (1 - theta) (T_out -+ rho P(k)) with
0 <= P <= rating, T inside the comfort band. It is written out here on its own.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grid_models.ders.disturbances import DerDisturbance
from grid_models.ders.houses import HouseFleet, HouseParameters
from grid_models.ders.plant import DerFleet
from grid_models.ders.rules import DerError
from grid_models.feeder.model import Der

LABELS = [f"h{i}" for i in range(12)]
SEASONS = [("summer", 37.0, -1.0), ("winter", 8.0, 1.0)]


def comfort(p):
    return p.heat_set_c - 0.5 * p.band_k, p.cool_set_c + 0.5 * p.band_k


def holding_kw(p, out_c, sign):
    """Return the power that holds the end of the band at which the season leaves it."""
    low, high = comfort(p)
    end = high if sign < 0.0 else low
    return np.abs(out_c - end) / (p.r_k_per_kw * p.cop)


def planned(p, temp_c, out_c, sign, dt_s, power_kw):
    theta = np.exp(-dt_s / 3600.0 / (p.r_k_per_kw * p.c_kwh_per_k))
    return theta * temp_c + (1.0 - theta) * (out_c + sign * p.r_k_per_kw * p.cop * power_kw)


@pytest.mark.parametrize(("season", "out_c", "sign"), SEASONS)
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 99),
    dt_s=st.sampled_from([60.0, 300.0, 1800.0]),
    wishes=st.lists(st.floats(0.0, 1.0), min_size=5, max_size=40),
    load_pu=st.floats(0.0, 1.5),
)
def test_a_plan_inside_the_band_is_followed_to_the_bit_of_rounding(
    season, out_c, sign, seed, dt_s, wishes, load_pu
):
    p = HouseParameters.draw(LABELS, seed)
    fleet = HouseFleet(p, variable_speed=True)
    low, high = comfort(p)
    theta = np.exp(-dt_s / 3600.0 / (p.r_k_per_kw * p.c_kwh_per_k))
    gain, temp = (1.0 - theta) * p.r_k_per_kw * p.cop, p.start_c
    for wish in wishes:
        # A feasible plan: any power that keeps the planned temperature inside the band.
        drift = planned(p, temp, out_c, sign, dt_s, 0.0)
        ends = np.array([low - drift, high - drift]) * sign / gain
        least, most = np.clip(np.sort(ends, axis=0), 0.0, p.hvac_kw)
        power = least + wish * (most - least)
        temp = planned(p, temp, out_c, sign, dt_s, power)
        used = fleet.step(dt_s, out_c, load_pu, limit_kw=power + p.base_kw * load_pu)
        np.testing.assert_allclose(fleet.hvac_kw, power, atol=1e-9)
        np.testing.assert_allclose(used, power + p.base_kw * load_pu, atol=1e-9)
        np.testing.assert_allclose(fleet.temp_in_c, temp, atol=1e-8)


@pytest.mark.parametrize(("season", "out_c", "sign"), SEASONS)
@pytest.mark.parametrize("variable_speed", [False, True])
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 99),
    dt_s=st.sampled_from([60.0, 900.0]),
    shares=st.lists(st.floats(0.0, 2.0), min_size=10, max_size=60),
)
def test_caps_that_can_hold_the_band_hold_it_and_no_cap_is_passed(
    variable_speed, season, out_c, sign, seed, dt_s, shares
):
    p = HouseParameters.draw(LABELS, seed)
    fleet = HouseFleet(p, variable_speed=variable_speed)
    low, high = comfort(p)
    need = holding_kw(p, out_c, sign)
    assert (need < p.hvac_kw).all(), "the season must be one that the units can master"
    for share in shares:
        cap = p.base_kw + need * (1.0 + share)
        used = fleet.step(dt_s, out_c, limit_kw=cap)
        assert (used <= cap + 1e-9).all()
        assert (fleet.hvac_kw <= p.hvac_kw + 1e-9).all()
        assert (fleet.temp_in_c >= low - 1e-9).all()
        assert (fleet.temp_in_c <= high + 1e-9).all()


@pytest.mark.parametrize(("season", "out_c", "sign"), SEASONS)
def test_a_large_set_point_stops_at_the_end_of_the_band_and_a_small_one_is_no_less_a_cap(
    season, out_c, sign
):
    p = HouseParameters.draw(LABELS, 1)
    low, high = comfort(p)
    stored, starved = (HouseFleet(p, variable_speed=True) for _ in range(2))
    for _ in range(600):
        stored.step(60.0, out_c, limit_kw=np.full(12, 1e3))
        starved.step(60.0, out_c, limit_kw=p.base_kw)
    np.testing.assert_allclose(stored.temp_in_c, low if sign < 0.0 else high)
    assert (starved.hvac_kw == 0.0).all()
    assert ((starved.temp_in_c - (high if sign < 0.0 else low)) * -sign > 1.0).all()


def test_without_a_set_point_the_thermostat_decides_again():
    p = HouseParameters.draw(LABELS, 1)
    both = HouseFleet(p, variable_speed=True)
    plain = HouseFleet(p)
    nothing = np.full(12, np.inf)
    for _ in range(100):
        np.testing.assert_array_equal(
            both.step(60.0, 35.0, limit_kw=nothing), plain.step(60.0, 35.0)
        )
    for _ in range(100):
        both.step(60.0, 35.0, limit_kw=np.full(12, 1e3))
    for _ in range(300):
        both.step(60.0, 35.0, limit_kw=nothing)
        assert (both.temp_in_c < comfort(p)[1] + 1e-9).all()
    assert (both.temp_in_c > p.cool_set_c - 0.5 * p.band_k - 1e-9).all()


def test_houses_of_a_row_share_a_set_point_by_their_ratings_and_attacks_come_on_top():
    row = Der("house", "house", "6", (1,), 70.0, 0.0, -70.0, 0.0, 10)
    fleet = DerFleet([row], heat_pumps="variable_speed")
    p, _ = fleet.step(60.0, 0.0, 35.0, np.array([-40.0]))
    assert p == pytest.approx([-40.0])
    houses = fleet.houses
    share = houses.hvac_kw / houses.parameters.hvac_kw
    assert share == pytest.approx(np.full(10, share[0]))
    none = DerDisturbance.none(1)
    forced = DerDisturbance(none.connected, np.array([5.0]), none.factor, none.thermostat_k)
    p, _ = fleet.step(60.0, 0.0, 35.0, np.array([-40.0]), disturbance=forced)
    assert p == pytest.approx([-45.0])
    with pytest.raises(DerError, match="variable_speed"):
        DerFleet([row], heat_pumps="variable")
