"""Charts: axes, ticks and curves."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federates.reports.chart import (
    Band,
    Chart,
    Limit,
    axis_range,
    nice_ticks,
    same_axis,
    tick_digits,
    time_chart,
    time_ticks,
)
from federates.reports.format import clock, metric_name, metric_number, metric_unit
from federates.runs.data import Spread


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_lie_inside_and_are_even(low: float, span: float) -> None:
    ticks = nice_ticks(low, low + span)

    assert 2 <= len(ticks) <= 8
    assert all(low - 1e-6 * span <= t <= low + span * (1 + 1e-6) for t in ticks)
    assert np.allclose(np.diff(ticks), ticks[1] - ticks[0])


@given(st.floats(-1e3, 1e3), st.floats(1e-4, 1e6))
def test_labels_of_ticks_differ(low: float, span: float) -> None:
    digits = tick_digits(low, low + span)
    labels = [f"{tick:.{digits}f}" for tick in nice_ticks(low, low + span)]
    assert len(set(labels)) == len(labels)


def test_charts_side_by_side_share_their_axis() -> None:
    charts = [Chart("a", "pu", [Band("a", _day(1.1), "s1")])]
    charts.append(Chart("b", "pu", [Band("b", _day(1.3), "s1")], [Limit(0.9, "limit")]))

    one, other = (axis_range(chart) for chart in same_axis(charts))

    assert one == other
    assert one[0] < 0.9
    assert one[1] > 1.3


def test_a_day_has_ticks_every_four_hours() -> None:
    assert [clock(t) for t in time_ticks(0.0, 86399.0)] == [
        "00:00",
        "04:00",
        "08:00",
        "12:00",
        "16:00",
        "20:00",
    ]


def _day(spike: float) -> Spread:
    time_s = np.arange(86400.0)
    mid = np.ones(86400)
    high = mid + 0.01
    high[54321] = spike
    return Spread(time_s, mid - 0.01, mid, high)


def test_a_day_at_one_second_is_small_and_keeps_a_spike_of_one_step() -> None:
    page = time_chart(Chart("V", "Voltage, pu", [Band("v", _day(1.234), "s1")], digits=3))

    data = json.loads(re.search(r'application/json">(.*?)</script>', page)[1])
    assert max(data["series"][0]["high"]) == 1.234
    assert len(page) < 60_000


def test_the_curve_is_where_the_axis_says() -> None:
    # From 1.0 at the left to 1.1 at the right; 6 % of air on both sides of the 0.1 in between.
    spread = Spread(*(np.array(x) for x in ([0.0, 60.0], [1.0, 1.1], [1.0, 1.1], [1.0, 1.1])))
    page = time_chart(Chart("V", "pu", [Band("v", spread, "s1", fill=False)], digits=2))

    assert f'd="M0.0 {1000 * 0.106 / 0.112:.1f}L1000.0 {1000 * 0.006 / 0.112:.1f}"' in page


def test_a_flat_single_step_and_a_gap_can_be_drawn() -> None:
    one = Spread(*(np.array([x]) for x in (0.0, 1.0, 1.0, 1.0)))
    gap = Spread(np.arange(3.0), *(np.array([1.0, np.nan, 2.0]) for _ in range(3)))

    for spread in (one, gap):
        page = time_chart(Chart("V", "pu", [Band("v", spread, "s1")], [Limit(1.05, "limit")]))
        curves = "".join(re.findall(r' d="([^"]*)"', page))
        assert "nan" not in curves
        assert "inf" not in curves


@pytest.mark.parametrize(
    ("time_s", "text"),
    [(0, "00:00"), (47100, "13:05"), (47130, "13:05:30"), (86400 + 3600, "d1 01:00")],
)
def test_clock(time_s: float, text: str) -> None:
    assert clock(time_s) == text


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("v_max_pu", 1.09643, "Highest voltage: 1.0964 pu"),
        ("out_of_band_node_hours", 1360.04, "Out of the voltage band: 1,360.0 node-h"),
        ("abs_q_kvarh", 12.0, "Reactive energy of DERs, sum of |q|: 12.0 kvarh"),
        ("settling_time_s", 2.5, "Settling time: 2.50 s"),
        ("objective", 0.00123456, "Objective: 0.001235"),
        ("losses_kwh", None, "Losses: - kWh"),
        ("mail_lost_count", 3.0, "Messages lost: 3"),
    ],
)
def test_metrics_are_said_in_words_with_their_unit(
    key: str, value: float | None, text: str
) -> None:
    said = f"{metric_name(key)}: {metric_number(key, value)} {metric_unit(key)}".rstrip()
    assert said == text


def _flat(time_s: np.ndarray, value: float = 1.0) -> Spread:
    return Spread(time_s, *(np.full(len(time_s), value),) * 3)


def _readout(page: str) -> dict[str, Any]:
    found = re.search(r'application/json">(.*?)</script>', page)
    assert found is not None
    return json.loads(found[1])


def _line(page: str, style: str) -> str:
    found = re.search(rf'<path class="line {style}" d="([^"]*)"', page)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("n", [120, 1440])  # below and above what a picture shows
def test_each_band_is_drawn_at_its_own_times(n: int) -> None:
    time_s = np.linspace(0.0, 7200.0, n, endpoint=False)
    value = time_s / 7200.0
    late = time_s >= 3600.0  # seen in the second half only
    bands = [
        Band("true", Spread(time_s, value, value, value), "s4"),
        Band("seen", Spread(time_s[late], *(value[late],) * 3), "s2"),
    ]
    page = time_chart(Chart("x", "y", bands, digits=3))

    data = _readout(page)
    true, seen = (np.array(s["mid"], dtype=float) for s in data["series"])
    assert len(true) == len(seen) == len(data["t"])
    first = data["t"].index("01:00")
    assert np.isnan(seen[:first]).all()
    assert seen[first:] == pytest.approx(true[first:], abs=2e-3)
    # The curve of the second half begins in the middle of the picture, at half of the height.
    x, y = map(float, re.findall(r"[\d.]+", _line(page, "s2"))[:2])
    assert x == pytest.approx(500.0, abs=5.0)
    assert y == pytest.approx(500.0, abs=5.0)


def test_bands_of_other_periods_share_one_read_out() -> None:
    fine, coarse = np.arange(0.0, 61.0, 4.0), np.arange(1.0, 61.0, 30.0)
    page = time_chart(
        Chart("x", "y", [Band("a", _flat(fine), "s1"), Band("b", _flat(coarse), "s2")])
    )

    data = _readout(page)
    assert data["t"][:3] == ["00:00", "00:00:01", "00:00:04"]
    a, b = (series["mid"] for series in data["series"])
    assert None not in a  # a sample counts until the next
    assert b[0] is None
    assert None not in b[1:]
    # Points are not evenly spaced, so the pointer is told where they are.
    assert data["x"] == [round(1e4 * t / 60.0) for t in np.union1d(fine, coarse)]
    assert "x" not in _readout(time_chart(Chart("x", "y", [Band("a", _flat(fine), "s1")])))


def test_a_line_is_broken_where_nothing_was_seen_and_lone_points_are_dots() -> None:
    value = np.array([1.0, 2.0, np.nan, 1.0, np.nan, 2.0, 1.0])
    spread = Spread(np.arange(7.0), value, value, value)
    page = time_chart(Chart("x", "y", [Band("b", spread, "s2", fill=False)]))

    assert _line(page, "s2").count("M") == 2
    (dots,) = re.findall(r'<path class="dot s2" d="([^"]*)"', page)
    assert dots.startswith("M500.0 ")
    assert dots.count("M") == 1


def test_bins_with_a_gap_keep_what_was_seen() -> None:
    value = np.full(960, np.nan)
    value[::4] = 1.5
    spread = Spread(np.arange(960.0), value, value, value).decimated(480)
    assert np.isnan(spread.mid[1::2]).all()
    for series in (spread.low, spread.mid, spread.high):
        assert (series[::2] == 1.5).all()
