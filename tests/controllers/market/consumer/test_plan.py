"""Plans of homes: the laws of their devices, the same to the bit in every batch, the optimum."""

from dataclasses import replace

import numpy as np
import pytest
from _home_cases import mixed_homes, starts, summer_day
from _home_reference import home_reference
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.market.consumer.homes import HomeForecast
from controllers.market.consumer.plan import KINDS, HomePlan, PlanOptions, plan_homes
from controllers.market.model.errors import MarketError

HOMES = mixed_homes(24)
FORECAST = summer_day(HOMES)
START = starts(HOMES)
PLAN = plan_homes(HOMES, FORECAST, *START)
LINEAR = PlanOptions(ramp_per_kw2=0.0, own_pv_per_kwh=0.0, tracking_per_k2_h=0.0)
EVERYTHING = mixed_homes(4, seed=3, share=1.0)
seeds = st.integers(0, 10_000)


def planned(
    homes=EVERYTHING,
    forecast: HomeForecast | None = None,
    start=None,
    options: PlanOptions | None = None,
) -> HomePlan:
    return plan_homes(
        homes, forecast or summer_day(homes), *(start or starts(homes)), options=options
    )


def random_case(seed):
    """Return prices of any sign, weather of any season and starts inside and outside limits."""
    rng = np.random.default_rng(seed)
    homes = mixed_homes(4, seed=seed, share=1.0)
    forecast = replace(
        summer_day(homes, seed),
        price_per_kwh=rng.normal(0.1, 0.1, (4, 48)),
        temp_c=rng.uniform(-10.0, 30.0) + rng.normal(0.0, 4.0, 48),
    )
    battery, vehicle, temp = starts(homes)
    outside = rng.uniform(0.0, 2.5, 4)
    return homes, forecast, (outside * battery, outside[::-1] * vehicle, temp + 2.0 * outside - 2.0)


@settings(max_examples=8, deadline=None)
@given(some=st.lists(st.integers(0, 23), min_size=1, max_size=6, unique=True))
def test_a_plan_does_not_depend_on_the_other_homes(some):
    part = plan_homes(HOMES.take(some), FORECAST.take(some), *(x[some] for x in START))
    for kind in KINDS:
        assert np.array_equal(part.p_kw[kind], PLAN.p_kw[kind][some])
        assert np.array_equal(part.delta_kw[kind], PLAN.delta_kw[kind][some])
    assert np.array_equal(part.temp_c, PLAN.temp_c[some])
    assert np.array_equal(part.objective, PLAN.objective[some])
    assert set(part.events) == {e for e in PLAN.events if e.home in {HOMES.names[i] for i in some}}


@settings(max_examples=15, deadline=None)
@given(seed=seeds)
def test_every_plan_keeps_the_laws_of_its_devices(seed):
    homes, forecast, start = random_case(seed)
    plan = planned(homes, forecast, start)
    assert plan.converged.all()
    assert plan.exact.all()
    assert plan.overlap_kw.max() <= 1e-6
    hours = forecast.step_s / 3600.0
    away = homes.trips.away(forecast.start_s, forecast.step_s, 48) > 0.0
    for kind, unit in (("battery", homes.battery), ("vehicle", homes.vehicle)):
        p, delta, soc = plan.p_kw[kind], plan.delta_kw[kind], plan.soc_kwh[kind]
        assert (p - delta >= unit.p_min_kw[:, None] - 1e-9).all()
        assert (p + delta <= unit.p_max_kw[:, None] + 1e-9).all()
        gain = np.where(p < 0.0, 0.95 * p, p / 0.95)
        used = -np.diff(soc, axis=1) - hours * gain
        if kind == "battery":
            assert np.abs(used).max() < 1e-9
        else:
            assert (used >= -1e-9).all()
            assert np.abs(used[~away]).max() < 1e-9
            assert (p[away] == 0.0).all()
            assert (delta[away] == 0.0).all()
            assert (used.sum(axis=1) <= homes.trips.trip_kwh + 1e-9).all()
        # Inside the limits, or on the way back from where it started.
        high = np.maximum(unit.soc_max * unit.energy_kwh, soc[:, 0])[:, None]
        assert (soc <= high + 1e-4).all()
        assert (soc >= -1e-4).all()
    for kind in KINDS:
        share = plan.delta_kw[kind] / np.maximum(np.abs(plan.p_kw[kind]), 1e-9)
        held = np.abs(plan.p_kw[kind]) > 1e-3
        assert (share[held] <= 0.3 + 1e-4).all()
        if kind != "pv":
            assert (share[held] >= 0.05 - 1e-4).all()
    assert (plan.p_kw["pv"] + plan.delta_kw["pv"] <= homes.pv_kw[:, None] + 1e-9).all()
    assert (plan.p_kw["heat_pump"] <= 0.0).all()
    assert (plan.p_kw["heat_pump"] >= -homes.houses.hvac_kw[:, None]).all()


@settings(max_examples=6, deadline=None)
@given(seed=seeds)
def test_flexibility_of_one_step_has_its_energy(seed):
    homes = mixed_homes(4, seed=seed, share=1.0)
    plan = planned(homes)
    unit, soc, delta = homes.battery, plan.soc_kwh["battery"], plan.delta_kw["battery"]
    low, high = unit.soc_min * unit.energy_kwh, unit.soc_max * unit.energy_kwh
    assert (soc[:, 1:-1] - 0.5 / 0.95 * delta[:, :-1] >= low[:, None] - 1e-4).all()
    assert (soc[:, 1:-1] + 0.5 * 0.95 * delta[:, :-1] <= high[:, None] + 1e-4).all()


def test_comfort_is_held_where_the_pump_can():
    heated = HOMES.houses.hvac_kw > 0.0
    half = 0.5 * HOMES.houses.band_k
    low, high = HOMES.houses.heat_set_c - half, HOMES.houses.cool_set_c + half
    assert heated.any()
    assert (PLAN.temp_c[heated, 1:] >= low[heated, None] - 1e-4).all()
    assert (PLAN.temp_c[heated, 1:] <= high[heated, None] + 1e-4).all()
    cold = planned(forecast=replace(summer_day(EVERYTHING), temp_c=np.full(48, -60.0)))
    assert [e.home for e in cold.events if e.kind == "comfort"] == list(EVERYTHING.names)
    assert (cold.p_kw["heat_pump"][:, 10] < -0.9 * EVERYTHING.houses.hvac_kw).all()


def test_a_plan_makes_economic_sense():
    plan, price = planned(), summer_day(EVERYTHING).price_per_kwh
    battery = plan.p_kw["battery"]
    assert (battery[:, 36:42].sum(axis=1) > 0.0).all()  # 18 to 21 h, when the price is highest
    charged = np.where(battery < 0.0, -battery, 0.0)
    assert ((charged * price).sum(axis=1) < 0.1 * charged.sum(axis=1)).all()
    sun = EVERYTHING.pv_kw[:, None] * summer_day(EVERYTHING).irradiance_pu
    np.testing.assert_allclose(plan.p_kw["pv"], sun, atol=1e-6)  # nothing is curtailed
    v1g = EVERYTHING.vehicle.p_max_kw == 0.0
    assert (plan.p_kw["vehicle"][v1g] <= 0.0).all()
    assert (plan.p_kw["vehicle"][~v1g].max(axis=1) > 1.0).all()
    assert plan.events == ()


def test_a_price_that_rises_with_the_load_flattens_it():
    flat = planned(options=PlanOptions(price_rise_per_kw=0.04))
    assert flat.exact.all()
    assert (flat.net_kw.std(axis=1) < 0.8 * planned().net_kw.std(axis=1)).all()


def test_pv_is_curtailed_when_export_costs_money():
    forecast = replace(summer_day(EVERYTHING), price_per_kwh=np.full(48, -0.2))
    plan = planned(forecast=forecast)
    sun = EVERYTHING.pv_kw[:, None] * forecast.irradiance_pu
    assert plan.p_kw["pv"].sum() < 0.5 * sun.sum()
    assert plan.exact.all()


def test_throughput_cost_is_what_keeps_the_plan_exact():
    forecast = replace(summer_day(EVERYTHING), price_per_kwh=np.zeros(48))
    assert planned(forecast=forecast).exact.all()
    half = planned(forecast=forecast, options=PlanOptions(throughput_factor=0.5))
    assert half.exact.tolist() == (half.overlap_kw <= 1e-6).tolist()
    assert half.overlap_kw.max() > 0.1
    assert half.converged.all()


@pytest.mark.parametrize(("home", "rise"), [(0, 0.0), (1, 0.0), (2, 0.04)])
def test_a_plan_is_the_optimum_with_binaries(home, rise):
    """Without binaries a bound from below, with the plan's own directions one from above."""
    forecast, start = summer_day(EVERYTHING), starts(EVERYTHING)
    options = PlanOptions(price_rise_per_kw=rise)
    plan = planned(options=options)
    signs = {kind: plan.p_kw[kind][home] > 0.0 for kind in ("battery", "vehicle")}
    case = EVERYTHING, forecast, start, options, home
    assert home_reference(*case) == pytest.approx(plan.objective[home], abs=1e-6)
    assert home_reference(*case, signs=signs) == pytest.approx(plan.objective[home], abs=1e-6)


def test_a_plan_with_linear_weights_is_that_of_a_mixed_integer_solver():
    plan = planned(options=LINEAR)
    case = EVERYTHING, summer_day(EVERYTHING), starts(EVERYTHING), LINEAR, 1
    assert home_reference(*case, binaries=True) == pytest.approx(plan.objective[1], abs=1e-6)


def test_sums_and_reactive_power():
    total = sum(PLAN.p_kw[kind] for kind in KINDS) - PLAN.base_kw
    np.testing.assert_allclose(PLAN.net_kw, total, atol=1e-12)
    np.testing.assert_allclose(PLAN.flex_kw, sum(PLAN.delta_kw[k] for k in KINDS), atol=1e-12)
    low, high = PLAN.q_range_kvar(power_factor=0.8, inverter_power_factor=0.8)
    load = PLAN.p_kw["heat_pump"] - PLAN.base_kw
    np.testing.assert_allclose(0.5 * (low + high), 0.75 * load, atol=1e-12)
    inverters = sum(np.abs(PLAN.p_kw[kind]) for kind in ("pv", "battery", "vehicle"))
    np.testing.assert_allclose(high - low, 1.5 * inverters, atol=1e-12)


def test_any_number_of_steps_and_homes():
    homes = mixed_homes(2, seed=3, share=1.0)
    for steps, step_s in ((1, 1800.0), (13, 900.0), (25, 3600.0)):
        plan = planned(homes, summer_day(homes, step_s=step_s, steps=steps))
        assert plan.converged.all()
        assert plan.soc_kwh["battery"].shape == (2, steps + 1)
    nobody = mixed_homes(0)
    assert planned(nobody, replace(FORECAST, base_kw=np.zeros((0, 48)))).net_kw.shape == (0, 48)


def test_wrong_shapes_and_options_are_refused():
    with pytest.raises(MarketError, match="one entry for each of 4 homes"):
        plan_homes(EVERYTHING, summer_day(EVERYTHING), np.zeros(3), np.zeros(4), np.zeros(4))
    with pytest.raises(MarketError, match="one entry for each of 4 homes"):
        plan_homes(EVERYTHING, FORECAST, *starts(EVERYTHING))
    with pytest.raises(MarketError, match="less than delta_high"):
        PlanOptions(delta_low=0.4)
