"""The law of an island: the unit within its limits, flexible before critical, nothing in excess."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from grid_models.base.errors import PowerFlowError
from grid_models.ders.shedding import Cuts, GridFormingUnit

POWERS = st.floats(0.0, 500.0)


@st.composite
def islands(draw: st.DrawFn) -> tuple[Cuts, np.ndarray, np.ndarray]:
    """What can be cut, what DERs inject, and the feeder's own loads; a watt and more or nothing."""
    sizes = st.integers(1, 6)
    n, m = draw(sizes), draw(sizes)
    p_kw = np.round(draw(arrays(float, n, elements=st.floats(-500.0, 500.0))), 3)
    least = np.round(draw(arrays(float, n, elements=POWERS)), 3)
    own = np.round(draw(arrays(float, m, elements=POWERS)), 3)
    return Cuts.of(p_kw, least, own), p_kw, own


@given(islands(), st.floats(0.0, 800.0), st.floats(10.0, 2000.0), st.floats(0.0, 1e-4))
def test_the_unit_is_within_its_limits_and_no_more_is_cut(
    case: tuple[Cuts, np.ndarray, np.ndarray], low: float, span: float, r: float
) -> None:
    cuts, p_kw, own = case
    unit = GridFormingUnit(low, low + span)
    calls: list[float] = []

    def power(cut: float) -> float:
        """Losses rise with the square of what comes from the unit; at most a quarter of it."""
        calls.append(cut)
        flexible, critical, _ = cuts.shares(cut)
        p, _ = cuts.after(cut, p_kw, np.zeros_like(p_kw))
        net = own.sum() * (1.0 - critical) - p.sum()
        if cut > 0.0:  # energy balance, and flexible load first
            gone = own.sum() - p_kw.sum() - net
            assert gone == pytest.approx(cut)
            assert critical == 0.0 or flexible == 1.0 or not cuts.flexible_kw.any()
        return float(net + r * abs(net) * net)

    most = power(cuts.range_kw[0])
    if not (power(0.0) > unit.p_max_kw or most >= unit.p_min_kw):
        with pytest.raises(PowerFlowError, match="cannot hold the island"):
            unit.cut(power, cuts.range_kw, 0.0)
        return
    free = power(0.0)
    cut = unit.cut(power, cuts.range_kw, 0.0)
    assert calls[-1] == cut
    held = power(cut)
    assert unit.p_min_kw <= held <= unit.p_max_kw
    if cut == 0.0:
        return
    assert (free > unit.p_max_kw) == (cut > 0.0)
    near = unit.p_max_kw if cut > 0.0 else unit.p_min_kw
    assert abs(held - near) <= 2.001e-4 * span


def test_equal_shares_and_power_factor() -> None:
    cuts = Cuts.of(np.array([-100.0, -50.0, 30.0]), np.array([60.0, 50.0, 0.0]), np.array([40.0]))
    p, q = cuts.after(20.0, np.array([-100.0, -50.0, 30.0]), np.array([-30.0, -10.0, 5.0]))
    np.testing.assert_allclose(p, [-80.0, -50.0, 30.0])
    np.testing.assert_allclose(q, [-24.0, -10.0, 5.0])
    assert cuts.shares(115.0) == (1.0, 0.5, 0.0)
    np.testing.assert_allclose(cuts.after(115.0, p, q)[0] - p, [40.0 + 30.0, 25.0, 0.0])
    p, q = cuts.after(-15.0, np.array([-100.0, -50.0, 30.0]), np.array([-30.0, -10.0, 5.0]))
    np.testing.assert_allclose((p[2], q[2]), (15.0, 5.0))


def test_a_guess_saves_power_flows() -> None:
    unit, calls = GridFormingUnit(0.0, 1000.0), []

    def power(cut: float) -> float:
        calls.append(cut)
        return 1500.0 - 1.04 * cut

    cold = unit.cut(power, (0.0, 2000.0), 0.0)
    assert len(calls) <= 3
    calls.clear()
    assert unit.cut(power, (0.0, 2000.0), cold) == cold
    assert calls == [cold]
