"""What the standard expects, against figures of its own tables."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hil.type_tests import tables as t
from hil.type_tests.functions import (
    Curve,
    Functions,
    Ratings,
    State,
    band_of_response,
    band_p,
    band_q,
    expected_p,
    expected_q,
)

RATINGS = Ratings(10e3, 11136.0, 4900.0, 4900.0, 480.0, "B", "II")
DROOP = t.DROOP["II"][0]


@pytest.mark.parametrize(
    ("step", "before", "p", "q"),
    # Table 39 (category B), volt-var; P before a disturbance is that of the step before it.
    [
        (1, 0.5, 0.5, 0.0), (2, 0.5, 0.4, -0.44), (3, 0.4, 0.3, -0.44), (4, 0.4, 0.4, -0.44),
        (5, 0.4, 0.4, -0.44), (6, 0.4, 0.6, 0.0), (7, 0.5, 0.5, 0.0), (8, 0.5, 0.7, 0.0),
    ],
)  # fmt: skip
def test_priorities_are_those_of_table_39(step: int, before: float, p: float, q: float) -> None:
    v, hz = t.PRIORITY[step - 1]
    on = Functions(t.VOLT_VAR["B"][0], t.VOLT_WATT_PRIORITY, limit=0.5, droop=DROOP)
    found = expected_p(on, State(v, hz, 1.0, before), RATINGS, q)
    assert found == pytest.approx(p, abs=0.003)  # the table is rounded
    assert expected_q(on, v, found, RATINGS) == pytest.approx(q)


def test_table_38_has_the_other_curves_of_category_a() -> None:
    assert t.VOLT_VAR["A"][0].at(1.09) == pytest.approx(-0.225)  # the table says 0.25
    assert t.WATT_VAR["B"].at(0.6) == pytest.approx(-0.088)
    assert t.WATT_VAR["B"].at(0.7) == pytest.approx(-0.176)
    assert t.WATT_VAR["A"].at(0.7) == pytest.approx(-0.10)


def test_power_factor_of_a_unit_without_room_shrinks_the_power() -> None:
    even = replace(RATINGS, va=10e3, var_inject=4400.0, var_absorb=4400.0)
    on = Functions(power_factor=-0.9)
    p = expected_p(on, State(1.0, 60.0, 1.0, 1.0), even, 0.0)
    assert p == pytest.approx(0.9)
    assert expected_q(on, 1.0, p, even) == pytest.approx(-0.435889894)


def test_band_widens_where_the_curve_is_steep() -> None:
    flat, steep = (
        band_q(Functions(volt_var=t.VOLT_VAR["B"][0]), State(v, 60.0, 1.0, 1.0), RATINGS, 1.0)
        for v in (1.0, 1.05)
    )
    assert (flat.low, flat.high) == pytest.approx((-0.075, 0.075))
    slope = 0.44 / 0.06
    assert steep.high - steep.target == pytest.approx(0.075 + 0.015 * slope)


@given(v=st.floats(0.5, 1.3), hz=st.floats(57.0, 62.0), before=st.floats(0.0, 1.0))
def test_a_target_is_inside_its_band(v: float, hz: float, before: float) -> None:
    on = Functions(t.VOLT_VAR["B"][1], t.VOLT_WATT[1], limit=0.7, droop=DROOP)
    state = State(v, hz, 1.0, before)
    for band, value in (
        (band_p(on, state, RATINGS, 0.1), 0.0),
        (band_q(on, state, RATINGS, 0.5), 0.0),
    ):
        assert band.low < band.target < band.high
        assert not band.holds(float("nan"))
        assert band.holds(band.target)
        assert band.error(value) == abs(band.target)


def test_response_is_90_percent_of_the_way() -> None:
    band = band_of_response(0.0, -1.0, 0.05)
    assert band.target == pytest.approx(-0.9)
    assert band.holds(-0.9)
    assert not band.holds(-0.8)  # too slow
    assert not band.holds(-1.0)  # too fast


def test_curves_have_ascending_points() -> None:
    curves = [*t.VOLT_VAR["A"], *t.VOLT_VAR["B"], *t.VOLT_WATT, t.VOLT_WATT_PRIORITY]
    for curve in curves:
        assert isinstance(curve, Curve)
        assert all(a < b for a, b in zip(curve.x, curve.x[1:], strict=False))
        assert len(curve.x) == len(curve.y)
