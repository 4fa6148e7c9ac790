"""The emulated inverter against IEEE 1547-2018; figures by hand from the clauses named."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hil.emulators.inverter import BatterySource, InverterFleet
from hil.emulators.inverter_settings import Curve, Priority, VarRef


def one(**options: object) -> InverterFleet:
    return InverterFleet([10.0], [12.0], **options)  # type: ignore[arg-type]


def test_full_sun_at_nominal_voltage_is_rated_power() -> None:
    p, q = one().step(1.0)
    assert (p[0], q[0]) == (10.0, 0.0)


@pytest.mark.parametrize(
    ("v_pu", "share"),  # table 8, category B: 0.92, 0.98, 1.02, 1.08; 44 % of the nameplate kVA
    [
        (0.90, 0.44),
        (0.92, 0.44),
        (0.95, 0.22),
        (0.98, 0.0),
        (1.02, 0.0),
        (1.05, -0.22),
        (1.09, -0.44),
    ],
)
def test_volt_var_curve(v_pu: float, share: float) -> None:
    fleet = one()
    fleet.settings.volt_var_on[:] = True
    _, q = fleet.step(1.0, v_pu=v_pu)
    assert q[0] == pytest.approx(12.0 * share)


def test_open_loop_response_is_90_percent_at_its_time() -> None:
    fleet = one()
    fleet.settings.volt_var_on[:] = True
    fleet.step(1.0)
    _, q = fleet.step(5.0, v_pu=1.05)
    assert q[0] == pytest.approx(0.9 * -0.22 * 12.0, rel=1e-9)


def test_volt_watt_curve_and_its_response() -> None:
    fleet = one()
    fleet.settings.volt_watt_on[:] = True
    fleet.step(1.0)
    p, _ = fleet.step(10.0, v_pu=1.08)  # table 10: half way from 1.06 (all) to 1.10 (nothing)
    assert p[0] == pytest.approx(10.0 - 0.9 * 5.0)
    p, _ = fleet.step(1e4, v_pu=1.08)
    assert p[0] == pytest.approx(5.0)


@pytest.mark.parametrize(("sign", "priority"), [(1.0, 0), (-1.0, 1)])
def test_constant_power_factor_keeps_it_at_the_rating(sign: float, priority: int) -> None:
    fleet = InverterFleet([10.0], [10.0])
    s = fleet.settings
    s.pf_on[:], s.pf[:], s.pf_sign[:] = True, 0.95, sign
    p, q = fleet.step(1.0)
    assert p[0] == pytest.approx(9.5)
    assert q[0] == pytest.approx(sign * np.sqrt(100 - 9.5**2))


@pytest.mark.parametrize(
    ("ref", "kvar"), [(VarRef.w_max, 4.0), (VarRef.var_max, 2.112), (VarRef.va_max, 4.8)]
)
def test_constant_var_by_reference(ref: VarRef, kvar: float) -> None:
    fleet = one()
    s = fleet.settings
    s.var_on[:], s.var_pct[:], s.var_ref[:] = True, 40.0, ref
    _, q = fleet.step(1.0)
    assert q[0] == pytest.approx(kvar)


def test_priority_decides_what_gives_way() -> None:
    fleet = InverterFleet([10.0, 10.0])
    s = fleet.settings
    s.var_on[:], s.var_pct[:] = True, 100.0  # 4.4 kvar of 10 kVA
    s.var_priority[:] = [Priority.active, Priority.reactive]
    p, q = fleet.step(1.0)
    np.testing.assert_allclose(p, [10.0, np.sqrt(100 - 4.4**2)])
    np.testing.assert_allclose(q, [0.0, 4.4], atol=1e-9)


def test_watt_var_absorbs_above_half_power() -> None:
    fleet = one()
    fleet.settings.watt_var_on[:] = True
    _, q = fleet.step(1.0, irradiance_pu=0.75)  # half way from 50 % (0) to 100 % (-44 % of 12 kVA)
    assert q[0] == pytest.approx(-2.64)


def test_watt_limit_ramps() -> None:
    fleet = one()
    s = fleet.settings
    fleet.step(1.0)
    s.limit_on[:], s.limit_pct[:], s.ramp_pct_per_s[:] = True, 40.0, 20.0
    powers = [fleet.step(1.0)[0][0] for _ in range(4)]
    assert powers == pytest.approx([8.0, 6.0, 4.0, 4.0])


def test_enter_service_waits_and_ramps() -> None:
    """Clause 4.10.3: 300 s in range, then at most linear over 300 s."""
    fleet = one(running=False)
    assert fleet.step(299.0)[0][0] == 0.0
    assert fleet.step(0.5, v_pu=1.06)[0][0] == 0.0  # out of range: waits anew
    assert fleet.step(299.9)[0][0] == 0.0
    assert fleet.step(30.1)[0][0] == pytest.approx(1.0)  # 30 s into the ramp
    assert fleet.step(120.0)[0][0] == pytest.approx(5.0)
    assert fleet.step(1000.0)[0][0] == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("inputs", "holds_s", "clears_s"),  # tables 12 and 18, category II
    [
        ({"v_pu": 1.21}, 0.15, 0.16),
        ({"v_pu": 1.15}, 1.9, 2.0),
        ({"v_pu": 0.69}, 9.9, 10.0),
        ({"v_pu": 0.44}, 0.15, 0.16),
        ({"hz": 62.1}, 0.15, 0.16),
        ({"hz": 61.5}, 299.0, 300.0),
        ({"hz": 58.4}, 299.0, 300.0),
        ({"hz": 56.0}, 0.15, 0.16),
    ],
)
def test_trips_clear_in_time_and_service_is_entered_again(
    inputs: dict[str, float], holds_s: float, clears_s: float
) -> None:
    fleet = one()
    assert fleet.step(holds_s, **inputs)[0][0] > 0
    assert fleet.step(clears_s - holds_s, **inputs)[0][0] == 0.0
    assert fleet.tripped.any()
    assert fleet.step(299.0)[0][0] == 0.0
    assert fleet.step(31.0)[0][0] == pytest.approx(1.0)
    fleet.reset_alarms(0)
    assert not fleet.tripped.any()


def test_a_short_excursion_does_not_trip() -> None:
    fleet = one()
    for _ in range(10):
        fleet.step(1.5, v_pu=1.15)
        p, _ = fleet.step(0.1)
    assert p[0] == 10.0


def test_stop_and_start() -> None:
    fleet = one()
    fleet.settings.started[:] = False
    assert fleet.step(1.0)[0][0] == 0.0
    fleet.settings.started[:] = True
    assert fleet.step(299.0)[0][0] == 0.0
    assert fleet.step(301.0)[0][0] == pytest.approx(10.0)


def test_reference_voltage_follows_by_itself() -> None:
    fleet = one()
    s = fleet.settings
    s.volt_var_on[:], s.v_ref_auto[:] = True, True
    fleet.step(1.0)
    _, at_first = fleet.step(20.0, v_pu=1.05)
    _, later = fleet.step(1e5, v_pu=1.05)
    _, settled = fleet.step(1e3, v_pu=1.05)
    assert at_first[0] < -2.0  # hardly moved yet
    assert settled[0] == pytest.approx(0.0, abs=1e-6)
    assert later[0] == pytest.approx(0.0, abs=1e-6)


step_inputs = st.tuples(
    st.floats(0.2, 5.0), st.floats(0.4, 1.25), st.floats(0.0, 1.2), st.floats(58.0, 62.0)
)


@given(st.lists(step_inputs, min_size=1, max_size=12), st.integers(0, 15), st.integers(2, 7))
def test_ratings_hold_and_cutting_steps_changes_nothing(
    steps: list[tuple[float, float, float, float]], modes: int, parts: int
) -> None:
    whole, cut = one(), one()
    for fleet in (whole, cut):
        s = fleet.settings
        s.service_delay_s[:], s.service_ramp_s[:] = 3.0, 4.0
        for bit, flag in enumerate((s.volt_var_on, s.volt_watt_on, s.pf_on, s.limit_on)):
            flag[:] = bool(modes >> bit & 1)
        s.pf[:], s.limit_pct[:], s.ramp_pct_per_s[:] = 0.9, 30.0, 15.0
    for dt_s, v_pu, sun, hz in steps:
        # Clearing and waiting times are counted in whole parts, so these may end on another side
        # of a limit by rounding; keep them a hair away from it.
        dt_s = round(dt_s, 3) + 0.00037
        p, q = whole.step(dt_s, v_pu, sun, hz)
        for _ in range(parts):
            p_cut, q_cut = cut.step(dt_s / parts, v_pu, sun, hz)
        assert np.hypot(p, q)[0] <= 12.0 + 1e-9
        assert 0.0 <= p[0] <= 10.0 * min(sun, 1.0) + 1e-9
        np.testing.assert_allclose(p_cut, p, atol=1e-6)
        np.testing.assert_allclose(q_cut, q, atol=1e-6)


@given(st.lists(st.floats(0, 10), min_size=2, max_size=8, unique=True), st.floats(-1, 11))
def test_curves_interpolate_like_numpy(x: list[float], at: float) -> None:
    x = sorted(x)
    if min(np.diff(x)) < 1e-6:
        return
    y = [(7 * i) % 5 - 2.0 for i in range(len(x))]
    curve = Curve(1, x, y)
    assert curve.at(np.array([at]))[0] == pytest.approx(np.interp(at, x, y), abs=1e-9)


def test_battery_follows_its_set_point_until_it_is_empty() -> None:
    source = BatterySource(np.array([5.0]), np.array([10.0]))
    fleet = InverterFleet([5.0], source=source)
    assert fleet.step(60.0)[0][0] == 0.0  # idle without a set-point
    fleet.settings.wset_on[:], fleet.settings.wset_kw[:] = True, 4.0
    assert fleet.step(360.0)[0][0] == pytest.approx(4.0)
    # 0.1 h at 4 kW and 95 %: 0.4 / 0.95 kWh out of 5 kWh.
    assert source.soc_kwh[0] == pytest.approx(5.0 - 0.4 / 0.95)
    for _ in range(20):
        p, _ = fleet.step(360.0)
    assert p[0] == pytest.approx(0.0, abs=1e-9)
    assert source.soc_kwh[0] == pytest.approx(1.0)  # 10 % are kept
    fleet.settings.wset_kw[:] = -5.0
    assert fleet.step(360.0)[0][0] == pytest.approx(-5.0)
    assert source.soc_kwh[0] == pytest.approx(1.0 + 0.5 * 0.95)


def opender_case(mode: str) -> InverterFleet:
    fleet = one()
    s = fleet.settings
    s.volt_var_on[:] = mode in ("volt_var", "both", "limit")
    s.volt_watt_on[:] = mode in ("volt_watt", "both")
    s.watt_var_on[:] = mode == "watt_var"
    s.limit_on[:], s.limit_pct[:] = mode == "limit", 40.0
    s.pf_on[:], s.pf[:], s.pf_sign[:] = mode == "pf_absorb", 0.92, -1.0
    s.var_on[:], s.var_pct[:], s.var_ref[:] = mode == "var_inject", 30.0, VarRef.va_max
    return fleet


REFERENCE = Path(__file__).parents[1] / "data" / "opender" / "reference.csv"


def test_powers_are_those_of_opender() -> None:
    """EPRI's OpenDER 2.2.0, by data/opender/make_reference.py.

    Steady states agree to its printed digits. It steps 0.1 s at a time with Euler's method, so its
    step responses lie between ours of the same time and of 0.1 s before; 2 W for the rest.
    """
    kinds = set()
    with REFERENCE.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            kinds.add((row["kind"], row["mode"]))
            v_pu, sun, t_s = (float(row[k]) for k in ("v_pu", "sun", "t_s"))
            expected = np.array([float(row["p_kw"]), float(row["q_kvar"])])
            fleet = opender_case(row["mode"])
            if row["kind"] == "steady":
                np.testing.assert_allclose(
                    np.hstack(fleet.step(1.0, v_pu, sun)), expected, atol=2e-5, err_msg=str(row)
                )
                continue
            fleet.step(1.0)
            before = np.hstack(fleet.step(t_s - 0.1, v_pu, sun))
            now = np.hstack(fleet.step(0.1, v_pu, sun))
            assert (expected >= np.minimum(before, now) - 2e-3).all(), row
            assert (expected <= np.maximum(before, now) + 2e-3).all(), row
    assert len(kinds) == 9


def droop(**settings: float) -> InverterFleet:
    fleet = one()
    fleet.settings.droop_on[:] = True
    fleet.settings.droop_response_s[:] = settings.pop("response_s", 1.0)
    fleet.step(1.0)
    return fleet


def test_frequency_droop_and_its_response() -> None:
    fleet = droop()
    share = (61.0 - 60.036) / (60.0 * 0.05)  # table 23
    p, _ = fleet.step(1.0, hz=61.0)
    assert p[0] == pytest.approx(10.0 * (1.0 - 0.9 * share))
    p, _ = fleet.step(100.0, hz=61.0)
    assert p[0] == pytest.approx(10.0 * (1.0 - share))
    p, _ = fleet.step(100.0)
    p, _ = fleet.step(1.0)
    assert p[0] == 10.0
    assert not fleet.droop.active.any()


def test_frequency_droop_counts_from_the_power_before_and_passes_the_limit() -> None:
    """Tables 38 and 39 of IEEE 1547.1: a limit of 50 % is left upwards, volt-watt is not."""
    fleet = droop()
    s = fleet.settings
    s.limit_on[:], s.limit_pct[:], s.volt_watt_on[:] = True, 50.0, True
    s.volt_watt.set_row(0, (1.06, 1.10), (100.0, 20.0))
    s.volt_watt_response_s[:] = 0.5
    powers = [
        fleet.step(100.0, v_pu=v, hz=hz)[0][0] / 10.0
        for v, hz in ((1.0, 60.0), (1.09, 60.0), (1.09, 59.36), (1.0, 59.36), (1.0, 60.0))
    ]
    # The over-voltage trip (1.10 pu) is not reached; 0.201 is the share of 59.36 Hz.
    assert powers == pytest.approx([0.5, 0.4, 0.4, 0.4 + 0.604 / 3.0, 0.4], abs=2e-3)


@given(st.floats(0.05, 5.0), st.integers(1, 20))
def test_frequency_droop_does_not_depend_on_the_step(seconds: float, parts: int) -> None:
    whole, split = droop(), droop()
    expected = whole.step(seconds, hz=60.5)[0]
    for _ in range(parts):
        found = split.step(seconds / parts, hz=60.5)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_a_ramp_that_is_over_does_not_begin_anew() -> None:
    fleet = one(running=False)
    s = fleet.settings
    s.service_delay_s[:], s.service_ramp_s[:] = 1.0, 1.0
    for _ in range(4):
        fleet.step(1.0)
    s.service_ramp_s[:] = 300.0
    assert fleet.step(1.0)[0][0] == 10.0
