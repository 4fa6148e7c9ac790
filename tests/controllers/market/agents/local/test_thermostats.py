"""Set-points of thermostats from curtailments in kW, with the houses that they cool."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.core.errors import ControllerError
from controllers.market.agents.local.thermostats import ThermostatSetPoints, ThermostatTerms
from grid_models.ders.houses import HouseFleet, HouseParameters

OUT_C, STEP_S, MARKET_S = 32.0, 10.0, 60.0


def houses(n: int, seed: int = 1) -> HouseParameters:
    return HouseParameters.draw([f"house_{i}" for i in range(n)], seed)


def cooling_kw(asked_kw: float, begin_s: float, end_s: float, steps: int) -> np.ndarray:
    """Return the mean cooling power of 1008 houses after six hours, kW (steps,)."""
    p = houses(1008)
    fleet = HouseFleet(p)
    for _ in range(int(6 * 3600 / STEP_S)):
        fleet.step(STEP_S, OUT_C)
    points = ThermostatSetPoints(p)
    out = []
    for k in range(steps):
        time_s = k * STEP_S
        if time_s % MARKET_S == 0.0:
            asked = np.full(1008, asked_kw if begin_s <= time_s < end_s else 0.0)
            on = fleet.hvac_kw > 0.0
            cool_c = points.step(MARKET_S, fleet.temp_in_c, OUT_C, on, asked)
            cool_c = np.where(np.isnan(cool_c), p.cool_set_c, cool_c)
            fleet.retarget(p.heat_set_c, cool_c)
        fleet.step(STEP_S, OUT_C)
        out.append(float(fleet.hvac_kw.mean()))
    return np.array(out)


def test_many_houses_give_what_is_asked_within_the_minute_and_keep_it() -> None:
    quiet = cooling_kw(0.0, 0.0, 0.0, 480)
    asked = cooling_kw(0.35, 600.0, 2400.0, 480)
    saved = quiet - asked
    assert (saved[:60] == 0.0).all()
    # One of 1008 houses switching is 5 W; those that would have switched meanwhile are the noise.
    assert 0.9 * 0.35 <= saved[60:66].mean() <= 1.2 * 0.35
    over_5_min = saved[60:240].reshape(6, 30).mean(axis=1)
    assert over_5_min.min() >= 0.7 * 0.35
    assert over_5_min.max() <= 1.6 * 0.35
    assert saved[60:240].mean() == pytest.approx(0.35, rel=0.25)
    # Let go: no leap. What they draw more for half an hour is less than what they gave.
    assert saved[240:252].mean() > 0.0
    assert -saved[240:].min() < 0.35 * 1.3
    assert asked.max() < 1.2 * quiet.max()


def test_nothing_asked_nothing_said() -> None:
    p = houses(4)
    points = ThermostatSetPoints(p)
    on = np.ones(4, dtype=bool)
    for asked in ([0.0, 0.0, 0.0, 0.0], [np.nan, -1.0, -np.inf, np.inf]):
        cool_c = points.step(60.0, p.cool_set_c, OUT_C, on, np.array(asked))
        assert np.isnan(cool_c).all()


def test_only_houses_that_cool_are_switched_off_at_once() -> None:
    p = houses(2)
    points = ThermostatSetPoints(p)
    on = np.array([True, False])
    asked = 0.5 * points.mean_kw(OUT_C)
    raised = points.step(60.0, p.cool_set_c, OUT_C, on, asked) - p.cool_set_c
    assert raised[0] == pytest.approx(points.offset_k[0] + 0.5 * p.band_k[0], rel=1e-9)
    assert 0.0 < points.offset_k[1] < 0.05
    assert raised[1] == pytest.approx(points.offset_k[1], rel=1e-9)
    # The ramp is the heat that the house takes up in place of what its unit does not move.
    assert points.offset_k[1] == pytest.approx(asked[1] * p.cop[1] / p.c_kwh_per_k[1] / 60.0)


def test_the_way_back_is_slow_and_ends_at_the_own_set_point() -> None:
    p = houses(3)
    points = ThermostatSetPoints(p)
    on = np.zeros(3, dtype=bool)
    for _ in range(60):
        points.step(60.0, p.cool_set_c, OUT_C, on, np.full(3, 0.4))
    top, nothing = points.offset_k.copy(), np.zeros(3)
    rise = (OUT_C - p.cool_set_c) / (p.r_k_per_kw * p.c_kwh_per_k)
    points.step(60.0, p.cool_set_c, OUT_C, on, nothing)
    assert top - points.offset_k == pytest.approx(0.05 * rise / 60.0)
    for _ in range(1000):
        cool_c = points.step(60.0, p.cool_set_c, OUT_C, on, nothing)
    assert cool_c.tolist() == p.cool_set_c.tolist()


@settings(max_examples=40, deadline=None)
@given(
    asked=st.lists(
        st.sampled_from([0.0, 0.1, 2.0, 50.0, -3.0, np.nan, np.inf]), min_size=1, max_size=60
    ),
    limit=st.sampled_from([0.0, 0.5, 2.0]),
    out_c=st.sampled_from([-5.0, 20.0, 32.0, 45.0]),
    data=st.data(),
)
def test_whatever_is_asked_comfort_holds(
    asked: list[float], limit: float, out_c: float, data: st.DataObject
) -> None:
    p = houses(3)
    points = ThermostatSetPoints(p, ThermostatTerms(offset_max_k=limit))
    ever = False
    for kw in asked:
        temp_c = p.cool_set_c + data.draw(st.sampled_from([-3.0, 0.0, 0.4, np.nan]))
        on = np.array([True, False, True])
        cool_c = points.step(60.0, temp_c, out_c, on, np.full(3, kw))
        ever |= kw > 0.0 and kw != np.inf
        if not ever:
            assert np.isnan(cool_c).all()
            continue
        assert np.isfinite(cool_c).all(), "a thermostat takes the end of commands for a fault"
        assert (cool_c >= p.cool_set_c).all()
        assert (cool_c <= p.cool_set_c + limit + 1e-12).all()


@pytest.mark.parametrize("terms", [{"offset_max_k": -1.0}, {"release_share": 0.0}])
def test_terms_that_cannot_be_kept_are_refused(terms: dict[str, float]) -> None:
    with pytest.raises(ControllerError, match=next(iter(terms))):
        ThermostatTerms(**terms)
