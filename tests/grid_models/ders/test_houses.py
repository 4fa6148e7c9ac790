"""Laws of the RC house and the water tank: exactness, comfort, energy, demand response."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from grid_models.base.errors import GridModelError
from grid_models.ders.houses import HouseFleet, HouseParameters, houses_of_ders
from grid_models.ders.tanks import TankFleet, TankParameters, tanks_of_ders
from grid_models.feeder.model import Der

LABELS = [f"h{i}" for i in range(20)]


def houses(n=20, **changes):
    drawn = HouseParameters.draw(LABELS[:n], seed=1)
    return replace(drawn, **{k: np.full(n, float(v)) for k, v in changes.items()})


def in_band(fleet):
    p = fleet.parameters
    low, high = p.heat_set_c - 0.5 * p.band_k, p.cool_set_c + 0.5 * p.band_k
    return (fleet.temp_in_c >= low - 1e-9) & (fleet.temp_in_c <= high + 1e-9)


@pytest.mark.parametrize(("out_c", "start_c", "sign"), [(38.0, 26.0, -1.0), (-5.0, 16.0, 1.0)])
def test_one_step_solves_the_differential_equation(out_c, start_c, sign):
    # C dT/dt = (T_out - T)/R -+ eta P, integrated by scipy to 1e-10; HVAC at full power.
    params = houses(n=1, start_c=start_c, hvac_kw=2.0, r_k_per_kw=2.0, c_kwh_per_k=2.0, cop=3.0)
    fleet = HouseFleet(params)
    used = fleet.step(900.0, out_c, load_pu=0.0)
    assert used[0] == 2.0
    slope = lambda _, temp: ((out_c - temp) / 2.0 + sign * 3.0 * 2.0) / 2.0  # noqa: E731
    exact = solve_ivp(slope, (0.0, 0.25), [start_c], rtol=1e-11, atol=1e-11).y[0, -1]
    assert fleet.temp_in_c[0] == pytest.approx(exact, abs=1e-8)


def test_steady_state_is_outdoors_less_rho_times_power():
    # Thesis: the fixed point of the cooling equation, T_out - R eta P = 45 - 2 * 3 * 2 = 33.
    params = houses(n=1, start_c=30.0, hvac_kw=2.0, r_k_per_kw=2.0, c_kwh_per_k=2.0, cop=3.0)
    fleet = HouseFleet(params)
    for _ in range(400):
        fleet.step(900.0, 45.0)
    assert fleet.temp_in_c[0] == pytest.approx(33.0, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(dt=st.floats(1.0, 3600.0), out_c=st.floats(-20.0, 45.0))
def test_two_half_steps_are_one_step_while_nothing_switches(dt, out_c):
    params = houses(hvac_kw=0.0)
    whole, halves = HouseFleet(params), HouseFleet(params)
    whole.step(dt, out_c)
    halves.step(dt / 2, out_c)
    halves.step(dt / 2, out_c)
    np.testing.assert_allclose(halves.temp_in_c, whole.temp_in_c, rtol=1e-12)


@settings(max_examples=40, deadline=None)
@given(dt=st.sampled_from([1.0, 10.0, 60.0, 300.0, 900.0]), seed=st.integers(0, 999))
def test_comfort_holds_at_every_step_length_when_the_unit_is_large_enough(dt, seed):
    rng = np.random.default_rng(seed)
    fleet = HouseFleet(houses(hvac_kw=15.0))
    for _ in range(60):
        out_c = rng.uniform(-5.0, 40.0)
        used = fleet.step(dt, out_c, load_pu=0.0)
        assert in_band(fleet).all()
        assert (used >= 0.0).all()
        assert (used <= 15.0).all()


def test_thermostat_has_hysteresis():
    # A house that has just reached the switching-off temperature stays off until the other edge.
    params = houses(n=1, start_c=24.0, cool_set_c=23.0, heat_set_c=18.0, band_k=1.0, hvac_kw=5.0)
    fleet = HouseFleet(params)
    states = []
    for _ in range(4 * 3600):
        fleet.step(1.0, 35.0, load_pu=0.0)
        states.append((fleet.hvac_kw[0] > 0.0, fleet.temp_in_c[0]))
    switched = [b[1] for a, b in pairwise(states) if a[0] != b[0]]
    assert len(switched) > 4
    # Switching happens at 22.5 and 23.5 within what a second can move the temperature.
    assert all(min(abs(t - 22.5), abs(t - 23.5)) < 0.01 for t in switched)


def test_heating_and_cooling_never_together_and_mild_days_cost_nothing():
    fleet = HouseFleet(houses())
    for _ in range(200):
        fleet.step(300.0, 20.5, load_pu=0.0)
    assert (fleet.hvac_kw == 0.0).all()
    hot, cold = HouseFleet(houses()), HouseFleet(houses())
    energy = [0.0, 0.0]
    for _ in range(200):
        energy[0] += hot.step(300.0, 35.0, load_pu=0.0).sum()
        energy[1] += cold.step(300.0, 5.0, load_pu=0.0).sum()
    assert min(energy) > 0.0


@pytest.mark.parametrize("dt", [10.0, 60.0, 900.0])
def test_energy_of_a_hot_day_is_what_the_walls_let_in(dt):
    # Indoors stays in the band, so each house needs (T_out - T_in)/(R eta) for some T_in in the
    # band, plus the change of what its mass stores. Long steps switch on early and so sit low in
    # the band; the bounds hold at every step length.
    params = houses(hvac_kw=8.0)
    params = replace(params, start_c=params.cool_set_c)
    fleet = HouseFleet(params)
    kwh = sum(fleet.step(dt, 34.0, 0.0) for _ in range(int(86_400 / dt))) * dt / 3600.0
    stored = params.c_kwh_per_k * (fleet.temp_in_c - params.start_c) / params.cop
    per_k = 24.0 / (params.r_k_per_kw * params.cop)
    least = (34.0 - params.cool_set_c - 0.5 * params.band_k) * per_k
    most = (34.0 - params.cool_set_c + 0.5 * params.band_k) * per_k
    assert (kwh >= least - stored - 1e-9).all()
    assert (kwh <= most - stored + 1e-9).all()
    assert (most < 1.3 * least).all()


@settings(max_examples=30, deadline=None)
@given(limit=st.lists(st.floats(0.0, 40.0), min_size=4, max_size=4))
def test_a_cap_is_met_unless_other_consumption_alone_is_above_it(limit):
    group = np.arange(20) % 4
    fleet = HouseFleet(houses(start_c=30.0))
    used = fleet.step(60.0, 38.0, 1.0, np.array(limit), group)
    total = np.bincount(group, used)
    base = np.bincount(group, fleet.base_kw)
    assert (total <= np.maximum(limit, base) + 1e-9).all()
    free = HouseFleet(houses(start_c=30.0)).step(60.0, 38.0, 1.0)
    wanted = np.bincount(group, free)
    np.testing.assert_allclose(total, np.clip(limit, base, wanted), rtol=1e-9)


def test_a_house_does_not_depend_on_its_neighbours():
    few, many = HouseFleet(houses(n=5)), HouseFleet(houses(n=20))
    for k in range(100):
        a, b = few.step(60.0, 33.0 + k % 3), many.step(60.0, 33.0 + k % 3)
        np.testing.assert_array_equal(a, b[:5])


def test_a_tank_keeps_its_band_and_its_energy_balance():
    params = TankParameters.draw(LABELS, seed=3)
    fleet = TankFleet(params, ambient_c=20.0)
    start, heat = fleet.temp_c.copy(), np.zeros(20)
    loss = np.zeros(20)
    for _ in range(86_400 // 10):
        before = fleet.temp_c
        p_kw = fleet.wanted_kw(10.0, 1.0)
        fleet.advance(p_kw)
        heat += p_kw / 360.0
        loss += (0.5 * (before + fleet.temp_c) - 20.0) / params.r_k_per_kw / 360.0
        low, high = params.set_c - 0.5 * params.band_k, params.set_c + 0.5 * params.band_k
        assert ((fleet.temp_c >= low - 1e-9) & (fleet.temp_c <= high + 1e-9)).all()
    stored = params.c_kwh_per_k * (fleet.temp_c - start)
    # Loss by the trapezium rule at 10 s: the curvature left out is below 1e-4 kWh a day.
    np.testing.assert_allclose(heat - loss - 24.0 * params.draw_kw, stored, atol=1e-3)


def test_houses_of_a_der_share_its_rating_and_keep_the_thesis_range():
    ders = [
        Der("a", "house", "1", (1,), 70.0, 0.0, -70.0, 0.0, 10),
        Der("b", "house", "2", (2,), 7.0, 0.0, -7.0, 0.0, 1),
    ]
    params, group = houses_of_ders(ders, seed=5)
    rated = params.hvac_kw + params.base_kw
    np.testing.assert_allclose(np.bincount(group, rated), [70.0, 7.0])
    critical = params.base_kw / rated
    assert ((critical >= 0.2) & (critical <= 0.3)).all()
    assert rated.max() / rated.min() < 2.5
    again, _ = houses_of_ders(ders[1:], seed=5)
    assert again.r_k_per_kw[0] == params.r_k_per_kw[10]
    tank = Der("t", "flexible_load", "1", (1,), 9.0, 0.0, -9.0, 2.4, 2)
    heaters, owner = tanks_of_ders([tank], seed=5)
    assert heaters.heater_kw.tolist() == [4.5, 4.5]
    assert owner.tolist() == [0, 0]


@pytest.mark.parametrize(
    "change",
    [{"cop": 0.0}, {"r_k_per_kw": -1.0}, {"hvac_kw": float("nan")}, {"heat_set_c": 30.0}],
)
def test_impossible_houses_are_refused(change):
    with pytest.raises(GridModelError, match="house parameters"):
        houses(**change)


def test_impossible_fleets_and_steps_are_refused():
    with pytest.raises(GridModelError, match="power_factor"):
        HouseFleet(houses(n=3), power_factor=0.0)
    with pytest.raises(GridModelError, match="dt_s"):
        HouseFleet(houses(n=3)).step(0.0, 20.0)
