"""``feederate market certify``: the certificate of a run's dispatch, and what has none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from federates.cli import call
from federates.errors import ScenarioError
from federates.reports.market_certificate import certified_interval
from federates.runs.runner import run
from federates.scenario.schema import load_scenario

SCENARIO = """
time: {duration_s: 80, step_s: 4}
grid:
  model: ieee13
  taps: {rg1a: 5, rg1b: 3, rg1c: 5}
  load_scale: 0.8
  der_table: ders.csv
federates:
  feeder: {kind: feeder}
  market:
    kind: controller
    controller: market
    period_s: 4
    offset_s: 1
    options:
      clearing: three-phase
      interval_s: 20
      generator_cost: {"*": 72.0}
      load_cost: [150.0, 400.0]
      fixed_load_pu: 0.8
connections:
  - feeder.p_kw -> market.p_kw
  - market.p_set_kw -> feeder.p_set_kw
  - market.q_set_kvar -> feeder.q_set_kvar
"""

DERS = """name,kind,bus,phases,kva,p_max_kw,p_min_kw,energy_kwh,count
gen,inverter,675,123,500,400,0,0,1
load_a,flexible_load,680,123,60,-20,-50,0,1
load_b,flexible_load,692,1,60,-20,-50,0,1
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certify")
    (folder / "small.yaml").write_text(SCENARIO)
    (folder / "ders.csv").write_text(DERS)
    run(load_scenario(str(folder / "small.yaml")), out=folder / "run", placement="single")
    return folder / "run"


def test_a_runs_dispatch_is_certified(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["market", "certify", str(finished), "--time", "45", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["interval"] == 2
    assert found["lower_bound"] <= found["cost"] <= found["set_points_cost"]
    # Loads of constant current are bounded, and cost most of the gap.
    assert 0.0 <= found["gap"] < 2e-3
    assert any("constant current" in note for note in found["notes"])
    assert found["import_kw"] == pytest.approx(found["recorded_import_kw"], abs=1e-3)
    assert found["replay_pu"] < 1e-9


def test_what_cannot_be_certified_is_said(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"no interval 9 .* 0 to 3, of 20 s"):
        certified_interval(finished, 9)
    assert call(["market", "certify", str(finished), "--time", "1", "--interval", "1"]) == 2
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    next((copy / "signals").glob("market.scheduled_import_kw*")).unlink()
    with pytest.raises(ScenarioError, match=r"no signal 'market.scheduled_import_kw'"):
        certified_interval(copy, 0)
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "status": "interrupted"}))
    with pytest.raises(ScenarioError, match="the run is interrupted"):
        certified_interval(copy)
    manifest["scenario"]["federates"]["market"]["options"]["clearing"] = "central"
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ScenarioError, match="'market' clears 'central'"):
        certified_interval(copy)
