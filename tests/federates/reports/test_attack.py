"""What a run's page says of an attack."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from federates.reports.chart import Band, Chart, time_chart
from federates.reports.data import RunData, Shade, Spread
from federates.reports.run import write_report
from federates.runner import run
from federates.scenario import load_scenario

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
    assert page.count('class="window"') >= 4  # every chart over time, not the truth's own


def test_a_run_without_an_attack_says_nothing_of_one(tmp_path: Path) -> None:
    data, page = page_of(SCENARIO, tmp_path)
    assert data.shade is None
    assert "<h2>Attack" not in page
    assert 'class="window"' not in page


@pytest.mark.parametrize(
    ("window", "x", "width"),
    [
        ((25.0, 50.0), 250, 250),
        ((-10.0, 10.0), 0, 100),  # from before the chart
        ((90.0, float("inf")), 900, 100),  # to the end of the run
        ((50.0, 50.0), 500, 3),  # an instant is seen, too
    ],
)
def test_windows_are_shaded_where_they_are(
    window: tuple[float, float], x: float, width: float
) -> None:
    time_s = np.arange(0.0, 101.0)
    flat = Spread(time_s, *(np.ones(101),) * 3)
    chart = Chart(
        "t", "y", [Band("b", flat, "s1")], start_s=3600.0, shade=Shade("attack", (window,))
    )
    figure = time_chart(chart)
    assert f'<rect class="window" x="{x:.1f}" y="0" width="{width:.1f}" height="1000"/>' in figure
    assert '<i class="key window"></i>attack' in figure


def test_numbers_that_would_not_fit_are_powers_of_ten() -> None:
    time_s = np.arange(3.0)
    wild = Spread(time_s, *(np.array([0.0, 4e10, -4e10]),) * 3)
    figure = time_chart(Chart("t", "y", [Band("b", wild, "s1", fill=False)]))
    assert "4e+10" in figure
    assert "40,000,000,000" not in figure
