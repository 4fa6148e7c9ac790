"""What a run's page says of an attack."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from federates.core.signals import read_signal
from federates.reports.attack import _spread, truth_charts
from federates.reports.paired import write_paired_report
from federates.reports.paired_runs import PairedRuns
from federates.reports.run import write_report
from federates.runs.data import DEAD_PU, RunData, Shade, live_voltages, stretches
from federates.runs.runner import run
from federates.scenario.schema import load_scenario

SCENARIO = """\
title: small
time: {start_s: 43200, duration_s: 300, step_s: 15}
grid:
  model: ieee13
  ders: [{kind: pv, at: load_phases, total_kw: 3000, kva_per_kw: 1.1}]
federates:
  feeder: {kind: feeder}
  volt_var: {kind: controller, controller: volt-var-1547}
connections:
  - feeder.v_pu -> volt_var.v_pu
  - volt_var.q_set_kvar -> feeder.q_set_kvar
"""
ATTACK = """\
attack:
  id: lies
  title: Lies to <some>
  description: Look at the reactive power.
  techniques: [T0856]
  steps:
    - id: bias
      layer: signal
      target: {port: volt_var.v_pu, labels: ["671.*"]}
      trigger: {at_s: 60}
      duration_s: 120
      action: {kind: bias, value: 0.02}
    - id: waits
      layer: signal
      target: {port: volt_var.q_set_kvar}
      trigger: {when: {signal: feeder.v_pu, above: 1.9}}
      action: {kind: drop}
"""


def page_of(text: str, folder: Path) -> tuple[RunData, str]:
    (folder / "study.yaml").write_text(text)
    result = run(load_scenario(folder / "study.yaml"), out=folder / "run", placement="single")
    return RunData(result.folder), write_report(result.folder).read_text()


def test_the_page_tells_steps_windows_and_what_was_seen(tmp_path: Path) -> None:
    data, page = page_of(SCENARIO + ATTACK, tmp_path)
    for words in (
        "<h2>Attack: Lies to &lt;some&gt;</h2>",
        "Look at the reactive power.",
        "T0856 Spoof Reporting Message",
        "<td>12:01 to 12:03</td>",
        "<td>never began</td>",
        "bias: 3 labels of feeder.v_pu",
        "as it was seen",
    ):
        assert words in page, words
    assert data.shade == Shade("attack", ((60.0, 180.0),))
    # Every chart over time, not the truth's own.
    assert page.count('"windows": [[43260.0, 43380.0]]') >= 8
    assert page.count('"windows": []') == 1


def test_a_run_without_an_attack_says_nothing_of_one(tmp_path: Path) -> None:
    data, page = page_of(SCENARIO, tmp_path)
    assert data.shade is None
    assert "<h2>Attack" not in page
    assert '"windows": [[' not in page


def test_overlapping_windows_are_one_stretch() -> None:
    inf = float("inf")
    assert stretches([(5.0, 9.0), (1.0, 3.0), (8.0, 12.0), (20.0, inf)]) == (
        (1.0, 3.0),
        (5.0, 12.0),
        (20.0, inf),
    )


def truth_of(seen: list[float]) -> pa.Table:
    """Return the ground truth of one link's mail, a message every 5 s from 00:00:30 on."""
    n = len(seen)
    words = {"federate": "volt_var", "port": "mail", "label": "a>b:x", "step": "late"}
    return pa.table(
        {"time_s": 30.0 + 5.0 * np.arange(n), "true_value": np.ones(n), "seen_value": seen}
        | {name: [value] * n for name, value in words.items()}
    )


def test_instants_at_which_nothing_was_seen_are_gaps(tmp_path: Path) -> None:
    # One link that loses messages: half of the true values were never seen.
    nan = float("nan")
    data, _ = page_of(SCENARIO, tmp_path)
    (chart,) = truth_charts(data, truth_of([nan, nan, 1.0, 1.0, nan, 1.0]))
    true, seen = (band.spread for band in chart.bands)
    np.testing.assert_array_equal(true.time_s, seen.time_s)
    np.testing.assert_array_equal(seen.mid, [nan, nan, 1.0, 1.0, nan, 1.0])
    assert chart.title == "late: a>b:x of volt_var.mail"


@pytest.mark.parametrize("seen", [[float("nan")] * 6, [1.0] + [float("nan")] * 5])
def test_what_was_never_seen_twice_is_no_picture(tmp_path: Path, seen: list[float]) -> None:
    data, _ = page_of(SCENARIO, tmp_path)
    assert truth_charts(data, truth_of(seen)) == []


def test_the_spread_at_each_time_by_hand() -> None:
    nan = float("nan")
    time_s = np.array([10.0, 5.0, 10.0, 10.0, 15.0, 5.0])
    spread = _spread(time_s, np.array([3.0, 7.0, 1.0, 2.0, nan, nan]))
    np.testing.assert_array_equal(spread.time_s, [5.0, 10.0, 15.0])
    np.testing.assert_array_equal(spread.low, [7.0, 1.0, nan])
    np.testing.assert_array_equal(spread.mid, [7.0, 2.0, nan])
    np.testing.assert_array_equal(spread.high, [7.0, 3.0, nan])


ISLAND = """\
attack:
  id: island
  steps:
    - id: cut
      layer: physical
      target: {elements: [line.line_632_645]}
      trigger: {at_s: 60}
      duration_s: 120
      action: {kind: trip}
"""


def test_dead_nodes_are_no_part_of_what_is_said_of_voltages(tmp_path: Path) -> None:
    data, page = page_of(SCENARIO + ISLAND, tmp_path)
    _, labels, v_pu = read_signal(data.signals, "feeder.v_pu")
    dead = v_pu == 0.0
    assert dead.any(), "the case must have nodes without voltage"
    live = np.where(dead, np.nan, v_pu)
    voltages = data.plants[0].voltages
    assert voltages is not None
    lowest = float(np.nanmin(live))
    assert lowest > 0.9
    node, low_pu, _ = voltages.extreme(highest=False)
    assert low_pu == lowest == data.metrics["v_min_pu"]
    assert np.nanmin(live[:, labels.index(node)]) == lowest
    np.testing.assert_array_equal(voltages.total.low, np.nanmin(live, axis=1))
    np.testing.assert_array_equal(voltages.total.high, np.nanmax(live, axis=1))
    np.testing.assert_array_equal(voltages.total.mid, np.nanmedian(live, axis=1))
    assert f'hint">node {node} at ' in page
    assert ": 0.0000 pu" not in page  # on the map, each bus's worst is one that it had


def test_a_node_at_the_limit_is_alive_and_one_below_is_dead() -> None:
    np.testing.assert_array_equal(
        live_voltages(np.array([0.0, DEAD_PU, 1.0])), [np.nan, DEAD_PU, 1.0]
    )


def test_paired_runs_show_the_same_without_attack_behind(tmp_path: Path) -> None:
    for name, text in (("baseline", SCENARIO), ("attacked", SCENARIO + ATTACK)):
        (tmp_path / "study.yaml").write_text(text)
        run(load_scenario(tmp_path / "study.yaml"), out=tmp_path / name, placement="single")
        write_report(tmp_path / name)

    page = write_paired_report(PairedRuns.read(tmp_path))

    found = re.findall(r'time-chart">.*?application/json">(.*?)</script>', page.read_text(), re.S)
    charts = [json.loads(text) for text in found]
    (seen,) = [chart for chart in charts if chart["title"].startswith("bias: ")]
    clean, true, forged = seen["bands"]
    assert [band["name"] for band in seen["bands"]] == [
        *("without attack", "as it was", "as it was seen"),
    ]
    _, labels, v_pu = read_signal(tmp_path / "baseline" / "signals", "feeder.v_pu")
    own = v_pu[:, [i for i, label in enumerate(labels) if label.startswith("671.")]]
    highest = np.frombuffer(base64.b64decode(clean["parts"][2]["data"]), "<f4")
    assert highest == pytest.approx(own.max(axis=1), rel=1e-6)
    assert (true["time"]["count"], forged["time"]["count"]) == (8, 8)
    pairs = [c for c in charts if c["title"] == "attacked"]
    assert len(pairs) > 3
    assert all(chart["bands"][0]["name"] == "baseline" for chart in pairs)
    for name in ("baseline", "attacked"):
        assert 'href="../report.html">All states: ' in (tmp_path / name / "report.html").read_text()
