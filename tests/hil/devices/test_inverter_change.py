"""Changes of settings: what IEEE 1547-2018 allows, and what has to be said to go beyond it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hil.devices.inverter_change import TRIP_RANGES, InverterChange

CURVE = {"v_pu": [0.92, 0.98, 1.02, 1.08], "q_pct": [44, 0, 0, -44], "response_s": 5}
WATT = {"v_pu": [1.06, 1.10], "p_pct": [100, 20]}


@pytest.mark.parametrize(
    "change",
    [
        {"volt_var": CURVE},
        {"volt_var": {}},
        # The steepest: dead band closed, 44 % within 0.02 pu, 1 s.
        {"volt_var": {**CURVE, "v_pu": [0.9795, 0.9995, 1.0005, 1.0205], "response_s": 1}},
        {"volt_var": {"v_ref_pu": 1.05, "v_ref_auto_s": 300}},
        {"volt_watt": WATT},
        {"power_factor": -0.9},
        {"trips": {"over_voltage_1": {"limit": 1.1, "clear_s": 1.0}}},
    ],
)
def test_what_the_standard_allows_is_allowed(change: dict[str, Any]) -> None:
    assert list(InverterChange.model_validate(change).beyond()) == []


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"volt_var": {**CURVE, "v_pu": [0.97, 0.98, 1.02, 1.08]}}, "volt_var.v_pu[0] = 0.97"),
        ({"volt_var": {**CURVE, "v_pu": [0.92, 0.98, 1.04, 1.08]}}, "volt_var.v_pu[2] = 1.04"),
        ({"volt_var": {**CURVE, "q_pct": [60, 0, 0, -44]}}, "volt_var.q_pct[0] = 60"),
        ({"volt_var": {**CURVE, "q_pct": [-44, 0, 0, 44]}}, "volt_var.q_pct[0] = -44"),
        ({"volt_var": {**CURVE, "response_s": 0.5}}, "volt_var.response_s = 0.5"),
        ({"volt_var": {"v_ref_pu": 1.06}}, "volt_var.v_ref_pu = 1.06"),
        ({"volt_var": {"v_ref_auto_s": 10}}, "volt_var.v_ref_auto_s = 10"),
        ({"volt_var": {"v_pu": [0.9, 1.1], "q_pct": [44, -44]}}, "the standard has 4"),
        ({"volt_watt": {**WATT, "v_pu": [1.0, 1.1]}}, "volt_watt.v_pu[0] = 1"),
        ({"volt_watt": {**WATT, "response_s": 0.1}}, "volt_watt.response_s = 0.1"),
        ({"power_factor": 0.5}, "power_factor = 0.5 (allowed: 0.898 to 1)"),
        ({"trips": {"over_voltage_1": {"limit": 1.05}}}, "trips.over_voltage_1.limit = 1.05"),
        ({"trips": {"under_voltage_1": {"clear_s": 0.1}}}, "under_voltage_1.clear_s = 0.1"),
    ],
)
def test_what_it_does_not_allow_has_to_be_said(change: dict[str, Any], key: str) -> None:
    with pytest.raises(ValidationError) as caught:
        InverterChange.model_validate(change)
    assert key in str(caught.value)
    assert "beyond_standard: true" in str(caught.value)
    assert list(InverterChange.model_validate({**change, "beyond_standard": True}).beyond())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "at least one of volt_var"),
        ({"volt_var": {"v_pu": [0.9, 1.1]}}, "v_pu and q_pct together"),
        ({"volt_var": {"v_pu": [0.9, 1.1], "q_pct": [1, 2, 3]}}, "as many values"),
        ({"volt_var": {"v_pu": [1.1, 0.9], "q_pct": [1, 2]}}, "rising values"),
        ({"volt_watt": {"v_pu": [1.0, 1.0], "p_pct": [1, 2]}}, "rising values"),
        ({"power_factor": 0.0}, "power_factor of 0.01 to 1"),
        ({"power_factor": 0.9, "volt_var": {"response_s": 5}}, "one of volt_var and power_factor"),
        ({"trips": {"over_voltage_3": {"limit": 1.2}}}, "over_voltage_2"),
    ],
)
def test_what_is_no_change_is_refused_in_any_case(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        InverterChange.model_validate({**change, "beyond_standard": True})


@given(name=st.sampled_from(sorted(TRIP_RANGES)), share=st.floats(0.0, 1.0))
def test_trips_are_allowed_exactly_within_their_ranges(name: str, share: float) -> None:
    (low, high), (fast, slow) = TRIP_RANGES[name]
    trip = {"limit": low + share * (high - low), "clear_s": fast + share * (slow - fast)}
    assert not list(InverterChange.model_validate({"trips": {name: trip}}).beyond())
    if high < 100.0:
        with pytest.raises(ValidationError):
            InverterChange.model_validate({"trips": {name: {"limit": high * 1.01 + share}}})
