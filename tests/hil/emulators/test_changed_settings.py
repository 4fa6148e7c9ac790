"""Changed settings act, come back exactly, and oscillate where the loop gain says so."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hil.devices.inverter_change import InverterChange
from hil.emulators.changed_settings import ChangedSettings
from hil.emulators.inverter import InverterFleet

CHANGES = [
    {"volt_var": {"v_pu": [0.99, 1.01], "q_pct": [100, -100], "v_ref_pu": 1.02, "response_s": 1}},
    {"volt_var": {"v_ref_auto_s": 50}},
    {"volt_watt": {"v_pu": [1.0, 1.01], "p_pct": [100, 0], "response_s": 0.1}},
    {"power_factor": -0.6},
    {"trips": {"over_voltage_1": {"limit": 1.0, "clear_s": 0.0}, "under_frequency_2": {}}},
]


def change(number: int) -> InverterChange:
    return InverterChange.model_validate({**CHANGES[number], "beyond_standard": True})


def state(fleet: InverterFleet) -> list[bytes]:
    """Return every array that belongs to the settings."""
    s = fleet.settings
    arrays = [value for value in vars(s).values() if isinstance(value, np.ndarray)]
    for curve in (s.volt_var, s.volt_watt, s.watt_var):
        arrays += curve.arrays
    return [array.tobytes() for array in (*arrays, fleet.relay.limit, fleet.relay.clear_s)]


@given(
    st.lists(
        st.tuples(
            st.integers(0, len(CHANGES) - 1), st.sets(st.integers(0, 3), min_size=1, max_size=4)
        ),
        min_size=1,
        max_size=4,
    )
)
def test_what_was_before_the_first_change_comes_back_exactly(
    steps: list[tuple[int, set[int]]],
) -> None:
    fleet = InverterFleet(np.array([3.0, 5.0, 8.0, 8.0]))
    fleet.settings.volt_var_on[1] = True
    fleet.settings.volt_var.set_row(2, (0.9, 1.1), (30.0, -30.0))
    before, changed = state(fleet), ChangedSettings(fleet)
    touched = set()
    for number, rows in steps:
        changed.change(np.array(sorted(rows), dtype=np.intp), change(number))
        touched |= rows
    assert state(fleet) != before
    changed.restore(np.array(sorted(touched), dtype=np.intp))
    assert state(fleet) == before


def test_each_setting_acts_on_its_rows_alone() -> None:
    rows = np.array([1])
    got = []
    for number in range(len(CHANGES)):
        fleet = InverterFleet(np.full(2, 10.0), np.full(2, 12.0))
        ChangedSettings(fleet).change(rows, change(number))
        for _ in range(40):
            p_kw, q_kvar = fleet.step(1.0, 1.03)
        assert (p_kw[0], q_kvar[0]) == (10.0, 0.0)
        got.append((round(p_kw[1], 3), round(q_kvar[1], 3)))
    sin = math.sqrt(1.0 - 0.36)
    assert got[0] == (pytest.approx(10.0, rel=0.1), pytest.approx(-0.44 * 12.0, rel=0.3))
    assert got[2] == (0.0, 0.0)
    assert got[3][1] == pytest.approx(-min(0.44 * 12.0, 12.0 * sin), rel=0.1)
    assert got[4] == (0.0, 0.0)  # tripped at once


@settings(max_examples=40, deadline=None)
@given(
    response_s=st.floats(0.2, 20.0),
    ratio=st.floats(0.05, 3.0).filter(lambda r: abs(r - 1.0) > 0.05),
)
def test_the_voltage_oscillates_beyond_the_limit_of_the_loop_gain_and_only_there(
    response_s: float, ratio: float
) -> None:
    """One inverter behind a reactance: v = v0 + x q, q <- q + a (q_curve(v) - q).

    With a = 1 - 10^(-h/T) and L the curve's slope times x, the deviation is multiplied by
    1 - a (1 + L) in each step of h: it grows exactly where L > 2 / a - 1. For the ratios drawn it
    grows by 5 % a step or more, which is a thousandfold in 150 steps.
    """
    fleet, kva = InverterFleet(np.array([10.0]), np.array([20.0])), 20.0
    a = 1.0 - 10.0 ** (-1.0 / response_s)
    limit = 2.0 / a - 1.0
    x_pu_per_kvar = 1e-3
    slope_pu = ratio * limit / (x_pu_per_kvar * kva)  # q over the rating, per pu of voltage
    half_pu = 0.4 / slope_pu
    curve = {"v_pu": [1.0 - half_pu, 1.0 + half_pu], "q_pct": [40.0, -40.0]}
    given_curve = {**curve, "v_ref_pu": 1.0, "response_s": response_s}
    changed = InverterChange.model_validate({"volt_var": given_curve, "beyond_standard": True})
    ChangedSettings(fleet).change(np.array([0]), changed)
    fleet.step(1.0, 1.0, 0.0)
    q, first, worst = 0.0, 0.0, 0.0
    for k in range(150):
        v = 1.0 + 1e-4 * half_pu * (k == 0) + x_pu_per_kvar * q
        q = float(fleet.step(1.0, v, 0.0)[1][0])
        first, worst = (abs(q) if k == 0 else first), abs(q)
    if ratio < 1.0:
        assert worst < first
    else:
        assert worst > 100.0 * first
