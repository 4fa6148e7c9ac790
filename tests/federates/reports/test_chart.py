"""Charts: the data that the page's script draws."""

from __future__ import annotations

import base64
import json
import re
from importlib import resources
from typing import Any

import numpy as np
import pytest

from federates.reports.blocks import Page, PageSection
from federates.reports.chart import Chart, Limit, ShadedBand, float32, side_by_side
from federates.reports.format import clock, metric_name, metric_number, metric_unit
from federates.reports.page import render
from federates.runs.data import BINS, Shade, Spread

TEMPLATES = resources.files("federates.reports") / "templates"


def spread(time_s: np.ndarray, *rows: np.ndarray) -> Spread:
    low, mid, high = rows if len(rows) == 3 else rows * 3
    return Spread(time_s, low, mid, high)


def decoded(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype="<f4")


def columns(band: dict[str, Any]) -> dict[str, np.ndarray]:
    return {part["name"]: decoded(part["data"]) for part in band["parts"]}


def test_numbers_are_little_endian_float32_and_gaps_are_nan() -> None:
    values = np.array([1.0634, np.nan, -4e10])
    assert decoded(float32(values)) == pytest.approx(values, rel=1e-7, nan_ok=True)
    assert base64.b64decode(float32(np.array([1.0]))) == b"\x00\x00\x80\x3f"


def test_a_day_at_one_second_is_small_and_keeps_a_spike_of_one_step() -> None:
    high = np.full(86400, 1.01)
    high[54321] = 1.234
    day = spread(np.arange(86400.0), high - 0.02, high - 0.01, high)
    data = Chart("V", "Voltage, pu", [ShadedBand("v", day, "s1")]).drawing().data

    (band,) = data["bands"]
    assert columns(band)["highest"].max() == pytest.approx(1.234)
    assert band["time"]["count"] <= BINS
    assert len(json.dumps(data)) < 30_000


def test_times_are_times_of_day_and_even_ones_are_three_numbers() -> None:
    even, uneven = np.arange(0.0, 50.0, 5.0), np.array([0.0, 5.0, 20.0])
    flat = [spread(t, np.ones(len(t))) for t in (even, uneven)]
    data = Chart("x", "y", [ShadedBand("a", s, "s1") for s in flat], start_s=3600.0).drawing().data
    assert data["bands"][0]["time"] == {"start": 3600.0, "step": 5.0, "count": 10}
    assert data["bands"][1]["time"] == {"values": [3600.0, 3605.0, 3620.0]}
    # A sample counts until the next one, at most for the usual time between two.
    assert [band["hold_s"] for band in data["bands"]] == [5.0, 10.0]


def test_a_single_value_is_one_column_until_points_are_merged() -> None:
    few, many = (spread(np.arange(float(n)), np.arange(float(n))) for n in (100, 2 * BINS))
    one, merged = (
        Chart("x", "y", [ShadedBand("b", s, "s1", fill=False)]).drawing().data for s in (few, many)
    )
    assert list(columns(one["bands"][0])) == ["value"]
    values = columns(merged["bands"][0])
    assert list(values) == ["lowest", "mean", "highest"]
    assert values["lowest"][:3].tolist() == [0.0, 2.0, 4.0]
    assert values["mean"][:3].tolist() == [0.5, 2.5, 4.5]
    assert values["highest"][:3].tolist() == [1.0, 3.0, 5.0]


@pytest.mark.parametrize(
    ("window", "expected"),
    [((25.0, 50.0), [3625.0, 3650.0]), ((90.0, float("inf")), [3690.0, None])],
)
def test_windows_are_times_of_day_and_may_be_open(
    window: tuple[float, float], expected: list[float | None]
) -> None:
    band = ShadedBand("b", spread(np.arange(101.0), np.ones(101)), "s1")
    chart = Chart("t", "y", [band], start_s=3600.0, shade=Shade("attack", (window,)))
    assert chart.drawing().data["windows"] == [expected]
    assert [key.name for key in chart.drawing().legend] == ["b", "attack"]


def test_digits_follow_the_largest_value() -> None:
    for value, digits in ((0.5, 2), (7.0, 1), (1200.0, 0)):
        band = ShadedBand("b", spread(np.arange(2.0), np.array([value, np.nan])), "s1", fill=False)
        assert Chart("t", "Power, kW", [band]).drawing().data["digits"] == digits


def test_charts_side_by_side_share_their_axis_and_every_name_is_escaped() -> None:
    time_s = np.arange(3.0)
    charts = [
        Chart(f"<b>{i}", "Voltage, pu", [ShadedBand("</script>", spread(time_s, np.ones(3)), "s1")],
              [Limit(1.05, "upper <limit>")])
        for i in range(4)
    ]  # fmt: skip
    page = render(Page("T", [PageSection("S", [side_by_side(charts)])]))
    assert page.count("data-shared-axis>") == 1
    assert '<div class="grid-2" data-shared-axis>' in page
    assert "<b>" not in page
    assert page.count("</script>") == 2 + len(charts)
    data = [json.loads(text) for text in re.findall(r'application/json">(.*?)</script>', page)]
    assert [d["title"] for d in data] == ["<b>0", "<b>1", "<b>2", "<b>3"]
    assert data[0]["limits"] == [{"value": 1.05, "name": "upper <limit>"}]
    assert data[0]["unit"] == "pu"
    assert "NaN" not in json.dumps(data)


def test_what_the_templates_name_is_there() -> None:
    names = ("tables.js", "time_charts.js", "traces.js", "feeder.js")
    scripts = [(TEMPLATES / name).read_text() for name in names]
    script = "".join(scripts)
    page, style = ((TEMPLATES / name).read_text() for name in ("page.html", "page.css"))
    actions = re.search(r"const actions = \{(.*?)\};", script, re.DOTALL)
    assert actions
    asked = set(re.findall(r'\("(\w+)", "[^"]+", "[^"]+"\)', page)) | {"attack", "reset"}
    assert asked == set(re.findall(r"(\w+): \(\) =>", actions[1]))
    for kind in ("time-chart", "feeder-map", "voltage-profile", "element-traces", "table"):
        assert f'".{kind}"' in script
    colours = set(re.findall(r"--([a-z0-9-]+):", style))
    assert {"phase-a", "phase-b", "phase-c", "phase-other", "s1", "s2", "s3", "s4"} <= colours
    assert set(re.findall(r'css\("(\w+)"\)', script)) <= colours
    assert max(len(text.splitlines()) for text in scripts) < 300


def test_bins_with_a_gap_keep_what_was_seen() -> None:
    value = np.full(960, np.nan)
    value[::4] = 1.5
    small = spread(np.arange(960.0), value).decimated(480)
    assert np.isnan(small.mid[1::2]).all()
    for series in (small.low, small.mid, small.high):
        assert (series[::2] == 1.5).all()


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
        ("settle_ms", 20.25, "Settle: 20.2 ms"),
        ("north.v_max_pu", 1.09643, "north: Highest voltage: 1.0964 pu"),
    ],
)
def test_metrics_are_said_in_words_with_their_unit(
    key: str, value: float | None, text: str
) -> None:
    said = f"{metric_name(key)}: {metric_number(key, value)} {metric_unit(key)}".rstrip()
    assert said == text
