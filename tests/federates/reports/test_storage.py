"""Batteries on a run's page: state of charge and the plan of a predictive controller."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from federates.core.signals import read_signal
from federates.reports.feeder import load_run_feeder
from federates.reports.run import write_report
from federates.runs.data import RunData
from federates.runs.runner import run
from federates.scenario.schema import load_scenario
from grid_models.ders.batteries import BatteryFleet, BatteryParameters

STUDY = """\
title: Batteries
time: {duration_s: 3600, step_s: 60, start_s: 43200}
grid:
  model: ieee13
  ders:
    - {kind: pv, at: load_phases, total_kw: 3000, kva_per_kw: 1.1}
    - {kind: battery, at: load_buses, kw_per_load_kw: 0.5, hours: 1, kva_per_kw: 1.1}
  profiles: {kind: clear}
federates:
  feeder: {kind: feeder}
  clusters:
    kind: controller
    controller: dmpc
    period_s: 15
    offset_s: 5
    options: {clusters: 2, sample_s: 60, iterations: 3, horizon: 3, step_s: 300, plan: true}
connections:
  - feeder.v_pu -> clusters.v_pu
  - feeder.p_kw -> clusters.p_kw
  - clusters.q_set_kvar -> feeder.q_set_kvar
  - clusters.p_set_kw -> feeder.p_set_kw
"""
STEPS = 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("storage")
    (base / "study.yaml").write_text(STUDY)
    scenario = load_scenario(base / "study.yaml")
    return run(scenario, out=base / "run", steps=STEPS, placement="single").folder


def charts(text: str) -> dict[str, dict[str, Any]]:
    """Return the data of each chart of a page by its title."""
    found = re.findall(r'time-chart">.*?application/json">(.*?)</script>', text, re.DOTALL)
    return {chart["title"]: chart for chart in map(json.loads, found)}


def curves(chart: dict[str, Any]) -> dict[str, np.ndarray]:
    return {
        f"{band['name']} {part['name']}": np.frombuffer(base64.b64decode(part["data"]), "<f4")
        for band in chart["bands"]
        for part in band["parts"]
    }


def test_the_state_of_charge_is_that_of_the_batteries_of_the_feeder(folder: Path) -> None:
    feeder = load_run_feeder(RunData(folder), "feeder")
    assert feeder is not None
    batteries = [der for der in feeder.ders if der.kind == "battery"]
    _, labels, p_kw = read_signal(folder / "signals", "feeder.p_kw")
    columns = [labels.index(der.name) for der in batteries]
    fleet = BatteryFleet(batteries, BatteryParameters())
    expected = []
    for row in p_kw[:, columns]:
        expected.append(100.0 * fleet.soc_kwh / [der.energy_kwh for der in batteries])
        fleet.advance(60.0, row)

    chart = charts(write_report(folder).read_text())["State of charge"]

    found = curves(chart)
    name = "lowest, median and highest battery"
    assert np.ptp(found[f"{name} median"]) > 0.5, "the case must charge"
    for part, reduce in (("lowest", np.min), ("median", np.median), ("highest", np.max)):
        assert found[f"{name} {part}"] == pytest.approx(reduce(expected, axis=1), rel=1e-6)
    assert [limit["value"] for limit in chart["limits"]] == [10.0, 100.0]


def test_the_plan_begins_with_the_set_points_and_is_shown_at_the_time_it_was_for(
    folder: Path,
) -> None:
    time_s, labels, plan_kw = read_signal(folder / "signals", "clusters.plan_kw")
    names, p_set = read_signal(folder / "signals", "clusters.p_set_kw")[1:]
    assert labels == tuple(f"c{k}.{ahead}s" for k in (0, 1) for ahead in (0, 300, 600))
    batteries = [i for i, name in enumerate(names) if name.startswith("battery")]
    asked = p_set[:, batteries].sum(axis=1)
    assert np.ptp(asked) > 5.0, "the case must use its batteries"
    assert plan_kw[:, [0, 3]].sum(axis=1) == pytest.approx(asked, rel=1e-6, abs=1e-9)

    chart = charts(write_report(folder).read_text())["Power of all batteries, planned and measured"]

    (band,) = [b for b in chart["bands"] if b["name"] == "planned 10 min before"]
    assert band["time"]["start"] == pytest.approx(43200 + time_s[0] + 600)
    shown = curves(chart)["planned 10 min before value"]
    total = plan_kw[:, [2, 5]].sum(axis=1)[: len(shown)]
    assert shown == pytest.approx(total, rel=1e-6)
    assert {b["name"] for b in chart["bands"]} >= {"measured", "set-point"}


def test_a_plan_that_was_not_recorded_is_said_to_be_an_option(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY.replace(", plan: true", ""))
    scenario = load_scenario(tmp_path / "study.yaml")
    folder = run(scenario, out=tmp_path / "run", steps=2, placement="single").folder

    text = write_report(folder).read_text()

    assert "--set federates.clusters.options.plan=true" in text
    assert not (folder / "signals" / "clusters.plan_kw.parquet").exists()
