"""Electric vehicles: times away, energy, V1G and V2G, targets, and where rules place them."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grid_models.catalog import load_feeder
from grid_models.ders.homes import homes_of
from grid_models.ders.plant import DerFleet
from grid_models.ders.rich_feeder import COLUMNS, USE_COLUMNS, ders_from_table
from grid_models.ders.rules import DerError, DerRule, place
from grid_models.ders.vehicles import VehicleParameters
from grid_models.feeder.model import Der, VehicleUse

NAN = float("nan")
COMMUTER = VehicleUse(leave_h=8.0, return_h=17.0, trip_kwh=6.0)
V1G = Der("v1g", "vehicle", "1", (1,), 8.0, 0.0, -7.2, 60.0, vehicle=COMMUTER)
V2G = Der("v2g", "vehicle", "1", (1,), 8.0, 7.2, -7.2, 60.0, vehicle=COMMUTER)


def day(der, p_set=NAN, dt_s=900.0, q_set=0.0, **options):
    """Return injections, reactive power and energy of a day from midnight, each (n,)."""
    fleet = DerFleet([der], **options)
    rows = []
    for k in range(round(86400 / dt_s)):
        p, q = fleet.step(dt_s, 0.0, 20.0, np.array([p_set]), np.array([q_set]), time_s=k * dt_s)
        rows.append((p[0], q[0], fleet.soc_kwh[0]))
    return np.array(rows).T


def test_a_day_without_control_by_hand():
    p, q, soc = day(V1G, q_set=2.0)
    hours = np.arange(96) / 4.0
    away = (hours >= 8.0) & (hours < 17.0)
    assert (p[away] == 0.0).all()
    assert (q[away] == 0.0).all()
    assert (q[~away] != 0.0).all()
    assert soc[hours < 8.0] == pytest.approx(60.0)
    assert soc[hours == 16.75] == pytest.approx(54.0)
    # 6 kWh at 95 % of 7.2 kW: three quarters of an hour, and a part of the fourth.
    assert p[68:72] == pytest.approx([-7.2, -7.2, -7.2, -(6.0 / 0.95 - 5.4) * 4.0])
    assert p[72:] == pytest.approx(0.0, abs=1e-9)
    assert soc[-1] == pytest.approx(60.0)


def test_only_v2g_feeds_the_grid_and_no_further_than_the_least_charge():
    p, _, soc = day(V1G, p_set=5.0)
    assert p.max() == 0.0 == p.min()
    assert soc[-1] == pytest.approx(54.0)
    p, _, soc = day(V2G, p_set=5.0)
    assert p[0] == 5.0
    assert soc[31] == pytest.approx(60.0 - 8 * 5.0 / 0.95)
    # It returns with 17.9 - 6 kWh and stops at 10 % of 60 kWh.
    assert p.sum() / 4.0 == pytest.approx((60.0 - 6.0 - 6.0) * 0.95)
    assert soc[-1] == pytest.approx(6.0)


def test_reactive_power_as_of_a_battery():
    p, q, _ = day(V2G, p_set=7.2, q_set=-9.0)
    assert (p[0], q[0]) == pytest.approx((7.2, -np.sqrt(8.0**2 - 7.2**2)))
    p, q, _ = day(V2G, p_set=7.2, q_set=-9.0, priority="var", q_limit_pu=0.5)
    assert (p[0], q[0]) == pytest.approx((np.sqrt(8.0**2 - 4.0**2), -4.0))
    assert q[40] == p[40] == 0.0


def test_a_vehicle_that_leaves_below_its_target_says_what_it_lacks():
    use = VehicleUse(8.0, 17.0, 6.0, soc_target=0.9, soc_start=0.5)
    fleet = DerFleet([Der("v", "vehicle", "1", (1,), 8.0, 0.0, -7.2, 60.0, vehicle=use)])
    for time_s, p_set, short in ((25200.0, 0.0, 0.0), (28800.0, 0.0, 24.0), (32400.0, 0.0, 0.0)):
        fleet.step(3600.0, 0.0, 20.0, np.array([p_set]), time_s=time_s)
        assert fleet.vehicles.leaving_short_kwh == pytest.approx([short])


def test_a_trip_longer_than_the_charge_is_charged_elsewhere_and_the_way_back_is_free():
    use = VehicleUse(8.0, 9.0, 40.0, soc_start=0.5)
    fleet = DerFleet([Der("v", "vehicle", "1", (1,), 8.0, 7.2, -7.2, 60.0, vehicle=use)])
    fleet.step(3600.0, 0.0, 20.0, time_s=28800.0)
    assert fleet.soc_kwh == pytest.approx([0.0])
    assert fleet.vehicles.elsewhere_kwh == pytest.approx([10.0])
    # Below its least charge it neither feeds the grid nor is forced to charge.
    p, _ = fleet.step(3600.0, 0.0, 20.0, np.array([5.0]), time_s=32400.0)
    assert p == [0.0]
    p, _ = fleet.step(3600.0, 0.0, 20.0, np.array([-1.0]), time_s=36000.0)
    assert p == [-1.0]


@settings(max_examples=60, deadline=None)
@given(
    plan=st.lists(st.floats(-20.0, 20.0) | st.just(NAN), min_size=1, max_size=60),
    dt_s=st.sampled_from([1.0, 60.0, 900.0, 7200.0]),
    start_h=st.floats(0.0, 24.0),
    uses=st.lists(
        st.builds(
            VehicleUse,
            leave_h=st.floats(0.0, 11.0),
            return_h=st.floats(12.0, 23.0),
            trip_kwh=st.floats(0.0, 60.0),
            soc_start=st.floats(0.1, 1.0),
        ),
        min_size=4,
        max_size=4,
    ),
    turned=st.booleans(),
)
def test_limits_hold_and_energy_is_kept(plan, dt_s, start_h, uses, turned):
    if turned:  # away over midnight
        uses = [VehicleUse(u.return_h, u.leave_h, u.trip_kwh, None, u.soc_start) for u in uses]
    ders = [
        Der(f"v{k}", "vehicle", "1", (1,), 6.0, 7.2 * (k % 2), -7.2, 60.0, vehicle=use)
        for k, use in enumerate(uses)
    ]
    pv = Der("pv", "pv", "1", (1,), 6.0, 5.0)
    # Another kind between them, so that the vehicles are an index array.
    fleet = DerFleet([*ders[:2], pv, *ders[2:]])
    mine = [0, 1, 3, 4]
    balance = fleet.soc_kwh.copy()
    window_h = (fleet.vehicles.use.return_h - fleet.vehicles.use.leave_h) % 24.0
    for k, p_set in enumerate(plan):
        time_s = start_h * 3600.0 + k * dt_s
        away_h = fleet.vehicles.use.hours_away(time_s, dt_s)
        p, q = fleet.step(dt_s, 0.5, 20.0, np.full(5, p_set), np.full(5, 3.0), time_s=time_s)
        p, q = p[mine], q[mine]
        assert (p[away_h > 0.0] == 0.0).all()
        assert (q[away_h > 0.0] == 0.0).all()
        assert (fleet.headroom_kvar[mine][away_h > 0.0] == 0.0).all()
        assert (p[::2] <= 0.0).all(), "V1G never discharges"
        assert (np.hypot(p, q) <= 6.0 * (1 + 1e-12)).all()
        balance += dt_s / 3600.0 * np.where(p < 0.0, -0.95 * p, -p / 0.95)
        balance -= fleet.vehicles.use.trip_kwh * away_h / window_h
        stored = fleet.soc_kwh - fleet.vehicles.elsewhere_kwh
        np.testing.assert_allclose(stored, balance, atol=1e-8)
        assert (fleet.soc_kwh >= 0.0).all()
        assert (fleet.soc_kwh <= 60.0).all()


@given(
    leave_h=st.floats(0.0, 24.0),
    length_h=st.floats(0.25, 23.75),
    start_s=st.integers(0, 200_000),
    dt_s=st.sampled_from([1800.0, 5400.0, 86400.0]),
)
def test_every_day_has_the_hours_away_of_one_window(leave_h, length_h, start_s, dt_s):
    return_h = (leave_h + length_h) % 24.0
    use = VehicleParameters(*(np.array([x]) for x in (leave_h, return_h, 5.0, 30.0, 60.0)))
    parts = [use.hours_away(start_s + t, dt_s) for t in np.arange(0.0, 86400.0, dt_s)]
    assert np.sum(parts) == pytest.approx(length_h, abs=1e-6)


def test_what_is_not_given_is_drawn_by_name_and_fits():
    ders = [Der(f"v{k}", "vehicle", "1", (1,), 8.0, 0.0, -7.2, 60.0) for k in range(200)]
    drawn = VehicleParameters.of_ders(ders, seed=3)
    for values, low, high in ((drawn.leave_h, 6.5, 9.0), (drawn.return_h, 16.0, 19.0),
                              (drawn.trip_kwh, 5.0, 13.0)):  # fmt: skip
        assert low <= values.min() < low + 0.2 * (high - low)
        assert high - 0.2 * (high - low) < values.max() <= high
    assert (drawn.target_kwh == 48.0).all()
    assert (drawn.start_kwh == 60.0).all()
    alone = VehicleParameters.of_ders(ders[7:8], seed=3)
    assert alone.leave_h[0] == drawn.leave_h[7]
    assert VehicleParameters.of_ders(ders[:1], seed=4).leave_h[0] != drawn.leave_h[0]
    small = Der("small", "vehicle", "1", (1,), 2.0, 0.0, -2.0, 6.0)
    assert VehicleParameters.of_ders([small], 3).trip_kwh == pytest.approx([0.7 * 6.0])


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (VehicleUse(leave_h=25.0, return_h=3.0), "leave_h is 25.0; expected a number from 0 to 24"),
        (VehicleUse(leave_h=8.0), "leave_h is 8.0, return_h is None; expected two different hours"),
        (VehicleUse(leave_h=0.0, return_h=24.0), "expected two different hours"),
        (VehicleUse(trip_kwh=61.0), "trip_kwh is 61.0; expected a number from 0 to 60"),
        (VehicleUse(soc_target=0.05), "soc_target is 0.05; expected a number from 0.1 to 1"),
        (VehicleUse(soc_start=NAN), "soc_start is nan"),
    ],
)
def test_an_impossible_use_is_refused_by_name(use, message):
    with pytest.raises(DerError, match=f"'v'.*{re.escape(message)}"):
        DerFleet([Der("v", "vehicle", "1", (1,), 8.0, 0.0, -7.2, 60.0, vehicle=use)])


def test_ratings_of_a_vehicle_are_those_of_a_battery():
    with pytest.raises(DerError, match="a vehicle with energy_kwh > 0"):
        DerFleet([Der("v", "vehicle", "1", (1,), 8.0, 0.0, -7.2)])


def test_a_rule_places_vehicles_at_houses_and_each_is_in_the_home_of_its_house():
    feeder = load_feeder("ieee123-der-rich-homes")
    rule = DerRule(kind="vehicle", at="houses", fraction=0.05, kw=7.2, v2g=True, trip_kwh=9.0)
    vehicles = place(feeder, rule)
    assert len(vehicles) == 50
    assert {d.energy_kwh for d in vehicles} == {8 * 7.2}
    assert {(d.p_min_kw, d.p_max_kw) for d in vehicles} == {(-7.2, 7.2)}
    assert {d.vehicle for d in vehicles} == {VehicleUse(trip_kwh=9.0)}
    houses = {d.name: d for d in feeder.ders if d.kind == "house"}
    for d in vehicles:
        house = houses[d.name.replace("vehicle", "house", 1)]
        assert (d.bus, d.phases) == (house.bus, house.phases)
    table = homes_of((*feeder.ders, *vehicles))
    homes = [table.names[k] for k in table.home[-50:]]
    assert homes == [d.name.replace("vehicle", "house", 1) for d in vehicles]
    v1g = place(feeder, DerRule(kind="vehicle", at="houses", kw=3.7, hours=10.0))
    assert len(v1g) == 1008
    assert {(d.p_min_kw, d.p_max_kw, d.energy_kwh) for d in v1g} == {(-3.7, 0.0, 37.0)}


def test_houses_of_a_rule_before_are_places_too():
    feeder = load_feeder("ieee13")
    rules = [
        DerRule(kind="house", at="load_phases", kw_per_load_kw=1.0),
        DerRule(kind="vehicle", at="houses", kw=7.2),
    ]
    ders = place(feeder, rules)
    half = len(ders) // 2
    assert [d.bus for d in ders[:half]] == [d.bus for d in ders[half:]]
    with pytest.raises(DerError, match=r"no house for at: houses.*a rule of them before"):
        place(feeder, rules[::-1])


def test_keys_of_vehicles_are_refused_for_other_kinds():
    for key, value in (("v2g", True), ("trip_kwh", 3.0), ("soc_start", 0.5)):
        with pytest.raises(DerError, match=f"{key} is given; expected kind: vehicle"):
            DerRule(kind="battery", kw=5.0, **{key: value})


def test_a_table_may_say_how_vehicles_are_used(tmp_path):
    head = ",".join((*COLUMNS, *USE_COLUMNS))
    file = tmp_path / "mine.csv"
    file.write_text(
        f"{head}\n"
        "car,vehicle,65,1,8,0,-7.2,60,1,7.5,18,,0.9,\n"
        "van,vehicle,65,2,8,7.2,-7.2,60,1,,,,,\n"
        "pv,pv,65,2,5,4,0,0,1,,,,,\n"
    )
    car, van, pv = ders_from_table(file)
    assert car.vehicle == VehicleUse(7.5, 18.0, None, 0.9, None)
    assert van.vehicle == VehicleUse()
    assert pv.vehicle is None
    file.write_text(f"{head}\npv,pv,65,2,5,4,0,0,1,,,3,,\n")
    with pytest.raises(DerError, match=r"row 2, column 'trip_kwh'.*a pv does not use it"):
        ders_from_table(file)
    file.write_text(f"{','.join(COLUMNS)}\nvan,vehicle,65,2,8,7.2,-7.2,60,1\n")
    assert ders_from_table(file)[0].vehicle == VehicleUse()
