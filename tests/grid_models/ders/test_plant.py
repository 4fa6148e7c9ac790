"""The DER plant: limits, energy, reactive headroom, held set-points."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grid_models.ders.batteries import BatteryFleet, BatteryParameters
from grid_models.ders.plant import DerFleet
from grid_models.ders.rules import DerError
from grid_models.feeder.model import Der

PV = Der("pv", "pv", "1", (1,), 11.0, 10.0)
BATTERY = Der("bat", "battery", "2", (1,), 5.0, 5.0, -5.0, 10.0)
INVERTER = Der("inv", "inverter", "3", (1,), 6.0, 5.0, -5.0)
FLEX = Der("flex", "flexible_load", "4", (1,), 10.0, -6.0, -10.0)
TANK = Der("tank", "flexible_load", "5", (1,), 9.0, 0.0, -9.0, 2.4, 2)
HOUSE = Der("house", "house", "6", (1,), 70.0, 0.0, -70.0, 0.0, 10)
# Kinds alternate, so that index arrays and not only slices are used.
ALL = (HOUSE, PV, BATTERY, FLEX, INVERTER, TANK)
HOUSE_I, PV_I, BAT_I, FLEX_I, INV_I, TANK_I = range(6)
NAN, INF = float("nan"), float("inf")


def one(der, p_set=None, q_set=None, sun=1.0, dt=60.0, fleet=None, **options):
    fleet = fleet or DerFleet([der], **options)
    p = None if p_set is None else np.array([p_set])
    q = None if q_set is None else np.array([q_set])
    p_kw, q_kvar = fleet.step(dt, sun, 20.0, p, q)
    return float(p_kw[0]), float(q_kvar[0])


# --- PV and reactive power ----------------------------------------------------------------------


def test_pv_follows_the_sun_through_a_night():
    fleet = DerFleet([PV])
    seen = [one(PV, sun=s, fleet=fleet)[0] for s in (0.5, 0.0, 0.8, 1.2, 0.25)]
    assert seen == [5.0, 0.0, 8.0, 10.0, 2.5]
    assert fleet.p_high_kw.tolist() == [2.5]


def test_a_set_point_curtails_and_nan_frees():
    fleet = DerFleet([PV])
    seen = [one(PV, p_set=p, fleet=fleet)[0] for p in (4.0, 40.0, -3.0, NAN, 4.0, INF, -INF)]
    assert seen == [4.0, 10.0, 0.0, 10.0, 4.0, 4.0, 4.0]
    assert one(PV, fleet=fleet)[0] == 4.0


def test_each_unit_has_its_own_sun_and_temperature_costs_power_when_asked():
    fleet = DerFleet([PV, Der("b", "pv", "2", (1,), 11.0, 10.0)], pv_temp_coeff_per_k=-0.004)
    p, _ = fleet.step(1.0, np.array([0.5, 1.0]), 35.0)
    # 10 K above 25 degrees C at -0.4 %/K leaves 96 %.
    np.testing.assert_allclose(p, [4.8, 9.6])


def test_watt_priority_keeps_p_and_var_priority_keeps_q():
    # 11 kVA, 10 kW: sqrt(121 - 100) = 4.583 kvar left; and sqrt(121 - 64) = 7.550 kW beside 8 kvar.
    assert one(PV, q_set=8.0) == pytest.approx((10.0, 4.582576), abs=1e-6)
    assert one(PV, q_set=-8.0) == pytest.approx((10.0, -4.582576), abs=1e-6)
    assert one(PV, q_set=8.0, priority="var") == pytest.approx((7.549834, 8.0), abs=1e-6)
    assert one(PV, q_set=99.0, sun=0.0, q_limit_pu=0.44)[1] == pytest.approx(4.84)


def test_bad_reactive_set_points_hold_the_last_good_one():
    fleet = DerFleet([PV])
    seen = [one(PV, q_set=q, fleet=fleet)[1] for q in (NAN, 3.0, NAN, INF, -INF, 1.0)]
    assert seen == [0.0, 3.0, 3.0, 3.0, 3.0, 1.0]


@settings(max_examples=100, deadline=None)
@given(
    p_set=st.lists(st.floats(-1e6, 1e6) | st.just(NAN) | st.just(INF), min_size=6, max_size=6),
    q_set=st.lists(st.floats(-1e6, 1e6) | st.just(NAN) | st.just(-INF), min_size=6, max_size=6),
    sun=st.floats(0.0, 1.3),
    priority=st.sampled_from(["watt", "var"]),
    dt=st.sampled_from([1.0, 60.0, 900.0]),
)
def test_no_set_point_takes_an_inverter_past_its_rating(p_set, q_set, sun, priority, dt):
    fleet = DerFleet(ALL, priority=priority)
    for _ in range(3):
        p, q = fleet.step(dt, sun, 30.0, np.array(p_set), np.array(q_set))
        assert np.isfinite(p).all()
        assert np.isfinite(q).all()
        for i in (PV_I, BAT_I, INV_I):
            der = ALL[i]
            assert np.hypot(p[i], q[i]) <= der.kva * (1 + 1e-12)
            assert der.p_min_kw <= p[i] <= der.p_max_kw
            # Rounding only: the headroom after the step covers the q that was given.
            assert abs(q[i]) <= fleet.headroom_kvar[i] + 1e-6 or priority == "watt"
        assert 0.0 <= p[PV_I] <= 10.0 * min(sun, 1.0)
        assert -10.0 <= p[FLEX_I] <= -6.0
        assert p[HOUSE_I] <= 0.0
        assert -9.0 <= p[TANK_I] <= 0.0
        assert (fleet.headroom_kvar[[HOUSE_I, FLEX_I, TANK_I]] == 0.0).all()


def test_the_result_belongs_to_the_caller():
    fleet = DerFleet([PV])
    p, q = fleet.step(1.0, 1.0, 20.0)
    p[:], q[:] = 0.0, 99.0
    assert fleet.headroom_kvar[0] == pytest.approx(4.582576, abs=1e-6)
    assert one(PV, fleet=fleet) == (10.0, 0.0)


# --- batteries ----------------------------------------------------------------------------------


def test_battery_by_hand():
    # 10 kWh at 50 %: one hour at -2 kW stores 2 * 0.95; one hour at 3 kW takes 3 / 0.95.
    fleet = DerFleet([BATTERY])
    assert one(BATTERY, p_set=-2.0, dt=3600.0, fleet=fleet)[0] == -2.0
    assert fleet.soc_kwh[0] == pytest.approx(6.9)
    assert one(BATTERY, p_set=3.0, dt=3600.0, fleet=fleet)[0] == 3.0
    assert fleet.soc_kwh[0] == pytest.approx(6.9 - 3.0 / 0.95)
    # 10 % is kept: (3.742 - 1) * 0.95 = 2.605 kWh can still come out.
    assert one(BATTERY, p_set=5.0, dt=3600.0, fleet=fleet)[0] == pytest.approx(2.605)
    assert one(BATTERY, p_set=5.0, dt=3600.0, fleet=fleet)[0] == pytest.approx(0.0, abs=1e-12)
    assert fleet.storage_names == ("bat",)


def test_battery_set_points_hold_and_start_idle():
    fleet = DerFleet([BATTERY])
    seen = [one(BATTERY, p_set=p, dt=1.0, fleet=fleet)[0] for p in (NAN, 2.0, NAN, INF)]
    assert seen == [0.0, 2.0, 2.0, 2.0]


@settings(max_examples=100, deadline=None)
@given(
    plan=st.lists(
        st.tuples(st.floats(-20.0, 20.0), st.sampled_from([0.5, 1.0, 60.0, 900.0, 7200.0])),
        min_size=1,
        max_size=60,
    ),
    eta=st.tuples(st.floats(0.5, 1.0), st.floats(0.5, 1.0)),
)
def test_charge_stays_inside_its_limits_and_energy_is_kept(plan, eta):
    params = BatteryParameters(eta[0], eta[1], soc_min=0.2, soc_max=0.9, soc_start=0.6)
    fleet = DerFleet([BATTERY], battery=params)
    stored, charged, discharged = 6.0, 0.0, 0.0
    for p_set, dt in plan:
        p = one(BATTERY, p_set=p_set, dt=dt, fleet=fleet)[0]
        assert 2.0 <= fleet.soc_kwh[0] <= 9.0
        assert p * p_set >= 0.0 or abs(p) < 1e-12
        charged += max(-p, 0.0) * dt / 3600.0
        discharged += max(p, 0.0) * dt / 3600.0
    stored += eta[0] * charged - discharged / eta[1]
    assert fleet.soc_kwh[0] == pytest.approx(stored, abs=1e-9)


def test_a_round_trip_loses_what_the_efficiencies_say():
    fleet = BatteryFleet([BATTERY], BatteryParameters())
    for p in (-2.0, 2.0 * 0.95 * 0.95):
        fleet.advance(3600.0, np.array([p]))
    assert fleet.soc_kwh[0] == pytest.approx(5.0, abs=1e-12)


# --- loads --------------------------------------------------------------------------------------


def test_flexible_load_by_hand():
    fleet = DerFleet([FLEX])
    seen = [one(FLEX, p_set=p, fleet=fleet)[0] for p in (NAN, -8.0, -3.0, -30.0, NAN)]
    assert seen == [-10.0, -8.0, -6.0, -10.0, -10.0]
    p, q = fleet.step(60.0, 0.0, 20.0, load_pu=0.5)
    assert p[0] == -5.0
    # Power factor 0.95 lagging: tan(acos(0.95)) = 0.32868.
    assert q[0] == pytest.approx(-5.0 * 0.328684, abs=1e-5)


def test_houses_and_tanks_give_way_to_a_cap_and_come_back():
    fleet = DerFleet([HOUSE, TANK], seed=2)
    for _ in range(120):
        fleet.step(60.0, 0.0, 38.0)
    before, _ = fleet.step(60.0, 0.0, 38.0)
    base = fleet.houses.base_kw.sum()
    warm = fleet.temp_c.copy()
    for _ in range(30):
        p, q = fleet.step(60.0, 0.0, 38.0, np.array([-base, 0.0]))
        assert p == pytest.approx([-base, 0.0], abs=1e-9)
    assert q[0] == pytest.approx(0.328684 * p[0], rel=1e-5)
    assert fleet.temp_c[0] > warm[0] + 0.5
    p, _ = fleet.step(60.0, 0.0, 38.0, np.array([NAN, NAN]))
    assert p[0] < before[0] <= -base
    assert p[1] < 0.0
    assert fleet.house_names == ("house",)


def test_each_der_sees_its_own_load():
    twins = [HOUSE, Der("other", "house", "7", (1,), 70.0, 0.0, -70.0, 0.0, 10)]
    fleet = DerFleet(twins)
    fleet.step(60.0, 0.0, 20.0, load_pu=np.array([0.0, 1.0]))
    base = np.bincount(np.repeat([0, 1], 10), fleet.houses.base_kw)
    assert base[0] == 0.0
    assert 14.0 <= base[1] <= 21.0


def test_order_of_the_ders_does_not_matter():
    order = [3, 0, 5, 1, 4, 2]
    a, b = DerFleet(ALL, seed=7), DerFleet([ALL[i] for i in order], seed=7)
    p_set = np.array([NAN, 7.0, -2.0, -8.0, 1.0, NAN])
    for k in range(50):
        pa, qa = a.step(300.0, 0.02 * k, 30.0, p_set)
        pb, qb = b.step(300.0, 0.02 * k, 30.0, p_set[order])
        np.testing.assert_array_equal(pa[order], pb)
        np.testing.assert_array_equal(qa[order], qb)


def test_an_empty_fleet_steps():
    p, q = DerFleet([]).step(1.0, 1.0, 20.0, np.zeros(0), np.zeros(0))
    assert p.shape == q.shape == (0,)


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ders", "message"),
    [
        ([PV, PV], "DER 'pv'.*unique"),
        ([Der("x", "pv", "1", (1,), NAN, 1.0)], "DER 'x'.*finite"),
        ([Der("x", "pv", "1", (1,), -1.0, 1.0)], "not negative"),
        ([Der("x", "inverter", "1", (1,), 5.0, -1.0, 1.0)], "p_min_kw <= p_max_kw"),
        ([Der("x", "battery", "1", (1,), 5.0, 5.0, -5.0)], "energy_kwh > 0"),
        ([Der("x", "battery", "1", (1,), 5.0, -1.0, -5.0, 9.0)], "p_min_kw <= 0 <= p_max_kw"),
        ([Der("x", "house", "1", (1,), 5.0, 5.0, 0.0)], "a load"),
        ([Der("x", "pv", "1", (1,), 5.0, 5.0, -1.0)], "p_min_kw = 0 <= p_max_kw for PV"),
    ],
)
def test_impossible_ders_are_refused(ders, message):
    with pytest.raises(DerError, match=message):
        DerFleet(ders)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"priority": "vars"}, "did you mean 'var'"),
        ({"q_limit_pu": 0.0}, "q_limit_pu"),
        ({"power_factor": 1.1}, "power_factor"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(DerError, match=message):
        DerFleet([PV], **options)


@pytest.mark.parametrize(
    "bad", [{"soc_min": 0.6}, {"soc_max": 1.1}, {"charge_efficiency": 0.0}, {"soc_start": NAN}]
)
def test_impossible_batteries_are_refused(bad):
    with pytest.raises(DerError, match=r"battery parameters|option 'charge_efficiency'"):
        BatteryParameters(**bad)


def test_bad_step_arguments_are_refused():
    fleet = DerFleet([PV])
    with pytest.raises(DerError, match=r"p_set_kw has shape \(2,\)"):
        fleet.step(1.0, 1.0, 20.0, np.zeros(2))
    with pytest.raises(DerError, match="option 'dt_s'"):
        fleet.step(0.0, 1.0, 20.0)
    with pytest.raises(DerError, match="irradiance_pu is NaN"):
        fleet.step(1.0, NAN, 20.0)
