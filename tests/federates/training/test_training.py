"""`feederate train`: the closed loop is that of a run, and what its file and JSON hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import feederate
from controllers.core.protocol import ControlSite
from controllers.learned_droop.training import Schedule
from federates.cli import call
from federates.core.sites import GridSite
from federates.errors import ScenarioError
from federates.kinds.controller import inverters
from federates.runs.results import RunFolder
from federates.runs.runner import run
from federates.scenario.schema import load_scenario
from federates.training.closed_loop import Row, simulate
from federates.training.days import altered, day_of, grid_day, training_cases
from federates.training.study import HELD_OUT_SEEDS, train

SHORT_SCHEDULE = Schedule(updates=4, batch=8)
SHORT = ["time.duration_s=600", "time.start_s=43200", "time.step_s=5"]
FED = (
    "connections=[feeder.v_pu -> volt_var.v_pu, feeder.p_kw -> volt_var.p_kw, "
    "volt_var.q_set_kvar -> feeder.q_set_kvar]"
)
LEARNED = Path(__file__).parents[3] / "co-sim-configs" / "voltvar-ieee123-learned.yaml"


def test_closed_loop_gives_the_figures_of_a_run(tmp_path: Path) -> None:
    scenario = load_scenario(LEARNED, SHORT, seed=103)
    found = RunFolder(run(scenario, out=tmp_path / "run", placement="single").folder).metrics
    grid = grid_day(scenario)
    text = (LEARNED.parent / "policies" / "voltvar-ieee123.csv").read_text("utf-8")
    site = ControlSite(grid.site.feeder, inverters(GridSite(scenario)), 5.0, text_of=lambda _: text)
    rows = [Row(day_of(scenario), name, options) for name, options in
            (("learned-droop", {"policy": "p"}), ("none", {}))]  # fmt: skip
    learned, none = simulate(grid.feeder, site, rows)
    for name in ("out_of_band_node_hours", "losses_kwh", "abs_q_kvarh", "v_min_pu", "v_max_pu"):
        assert learned[name] == pytest.approx(found[name], rel=1e-5), name
    assert none["out_of_band_node_hours"] > 1.0 > learned["out_of_band_node_hours"]


def test_a_day_in_pieces_is_the_day(monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = load_scenario(LEARNED, SHORT)
    grid = grid_day(scenario)
    text = (LEARNED.parent / "policies" / "voltvar-ieee123.csv").read_text("utf-8")
    site = ControlSite(grid.site.feeder, inverters(GridSite(scenario)), 5.0, text_of=lambda _: text)
    row = Row(day_of(scenario), "learned-droop", {"policy": "p"})
    whole = simulate(grid.feeder, site, [row, row])
    monkeypatch.setattr("federates.training.closed_loop._PIECE_STEPS", 40)
    monkeypatch.setattr("federates.training.closed_loop._LEAD_STEPS", 65)
    # 120 steps in three pieces of 84, of which 84, 19 and 17 are new.
    for metrics in simulate(grid.feeder, site, [row, row]):
        assert metrics == pytest.approx(whole[0], rel=1e-5)


def test_optdist_mail_in_the_closed_loop_is_that_of_a_run(tmp_path: Path) -> None:
    changes = ["time.duration_s=300", "time.start_s=43200", FED]
    scenario = load_scenario("voltvar-ieee13", changes)
    found = RunFolder(run(scenario, out=tmp_path / "run", placement="single").folder).metrics
    grid = grid_day(scenario)
    site = ControlSite(grid.site.feeder, inverters(GridSite(scenario)), 5.0)
    row = Row(day_of(scenario), "optdist-vc", {"margin_pu": 0.006})
    metrics = simulate(grid.feeder, site, [row])[0]
    assert metrics["losses_kwh"] == pytest.approx(found["losses_kwh"], rel=1e-5)
    assert metrics["abs_q_kvarh"] == pytest.approx(found["abs_q_kvarh"], rel=1e-5)


def test_train_writes_a_policy_that_a_run_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("federates.training.study.Schedule", lambda: SHORT_SCHEDULE)
    out = tmp_path / "policy.csv"
    words = ["train", "voltvar-ieee13", "--set", "time.duration_s=200", "--seed", "2", "--json"]
    assert call([*words, "--set", "time.start_s=43200", "--out", str(out)]) == 0
    record = json.loads(capsys.readouterr().out)
    days = record["held_out"]["days"]
    assert [day["seed"] for day in days] == list(HELD_OUT_SEEDS)
    mean = sum(day["out_of_band_node_hours"] for day in days) / len(days)
    assert record["held_out"]["out_of_band_node_hours"] == pytest.approx(mean)
    assert record["held_out"]["v_min_pu"] == min(day["v_min_pu"] for day in days)
    assert record["seconds"] > record["training_seconds"] > 0.0
    shifts = {row.pop("shift"): list(row) for row in record["shifts"]}
    assert list(shifts)[:3] == ["base", "load diversity 0.3", "load x0.5"]
    laws = ["none", "droop 1547 B", "tuned droop", "learned"]
    assert all(names == laws for names in shifts.values())
    page = Path(record["page"]).read_text("utf-8")
    assert all(f">{name}<" in page for name in (*shifts, *laws))
    head = [line for line in out.read_text("utf-8").splitlines() if line.startswith("#")]
    for key in ("scenario: voltvar-ieee13", "seed: 2", "updates: 4", "load_factor: 0.5 to 1.35"):
        assert f"# {key}" in head
    use = [
        "federates.volt_var.controller=learned-droop",
        f"federates.volt_var.options={{policy: {out}}}",
        *("time.duration_s=100", "time.start_s=43200"),
        FED,
    ]
    split = [*use, "federates.volt_var.split=agents"]
    folders = [
        run(load_scenario("voltvar-ieee13", made), out=tmp_path / name, placement="single").folder
        for name, made in (("one", use), ("split", split))
    ]
    signals = [(folder / "signals" / "feeder.q_kvar.parquet").read_bytes() for folder in folders]
    assert signals[0] == signals[1]


def test_train_from_python_warns_of_what_training_leaves_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("federates.training.study.Schedule", lambda: SHORT_SCHEDULE)
    changes = {"time.duration_s": 60, "time.start_s": 43200, "grid.profiles.seed": 5}
    island = {"grid.grid_forming": {"p_max_kw": 5000}}
    with pytest.warns(UserWarning, match="^grid[.]") as told:
        found = feederate.train(
            "voltvar-ieee13", tmp_path / "p.csv", set={**changes, **island}, randomise=False
        )
    words = [str(one.message) for one in told]
    assert words == list(found.notes)
    assert "the source of the training has no limits" in words[0]
    assert "grid.profiles.seed gives the same day for every seed" in words[1]
    assert len({day["losses_kwh"] for day in found.days.values()}) == 1
    assert found.origin["randomised"] == "no"
    assert (tmp_path / "p.html").is_file()


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ({"minutes": 0}, "minutes: found 0; expected a number from 0.05"),
        ({"minutes": float("nan")}, "minutes: found nan; expected a number from 0.05"),
        ({"minutes": "1"}, "minutes: found '1'; expected a number from 0.05"),
        ({"seed": -1}, "seed: found -1; expected a whole number from 0"),
        ({"seed": 1.5}, "seed: found 1.5; expected a whole number from 0"),
    ],
)
def test_train_from_python_refuses_arguments(
    argument: dict[str, Any], told: str, tmp_path: Path
) -> None:
    with pytest.raises(ScenarioError, match=told):
        feederate.train("voltvar-ieee13", tmp_path / "p.csv", **argument)


def test_narrow_cases_are_instants_of_the_days() -> None:
    scenario = load_scenario("voltvar-ieee13", ["time.duration_s=60", "time.start_s=43200"])
    day = day_of(scenario)
    narrow = training_cases([day], 12, 0, randomised=False)
    assert sorted(narrow.load_kva[:, 0].real) == sorted(day.load_kva[:, 0].real)
    wide = training_cases([day], 12, 0, randomised=True)
    ratio = wide.load_kva.sum(axis=1).real / narrow.load_kva.sum(axis=1).real
    assert 0.3 < ratio.min() < 0.9
    assert 1.1 < ratio.max() < 1.7
    assert (narrow.source_pu == 1.0).all()
    assert wide.source_pu.std() > 0.001


def test_changed_grids_leave_the_scenario_alone() -> None:
    scenario = load_scenario("voltvar-ieee13")
    other = altered(scenario, 7, load_diversity=0.3)
    assert (other.seed, other.grid.load_diversity) == (7, 0.3)
    assert (scenario.seed, scenario.grid.load_diversity) == (1, 0.0)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        (["grid.regulators=auto"], "the regulators act.*expected regulators: fixed"),
        (["grid.ders=[]", "federates={feeder: {kind: feeder}}", "connections=[]"], "no inverter"),
        (["time.duration_s=50"], "the run has 10 steps, and metrics leave out the first 10"),
        (["band={v_min_pu: 1.0, v_max_pu: 1.005}"], "the voltage band is from 1 to 1.005 pu"),
    ],
)
def test_what_cannot_be_trained_is_refused(changes: list[str], match: str, tmp_path: Path) -> None:
    scenario = load_scenario("voltvar-ieee13", changes)
    with pytest.raises(ScenarioError, match=match):
        train(scenario, tmp_path / "p.csv")


def test_a_policy_file_that_cannot_be_written_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = load_scenario("voltvar-ieee13")
    with pytest.raises(ScenarioError, match="is no name of a policy file"):
        train(scenario, tmp_path / "p.yaml")
    with pytest.raises(ScenarioError, match="its folder does not exist"):
        train(scenario, tmp_path / "nowhere" / "p.csv")
    (tmp_path / "page.html").mkdir()
    with pytest.raises(ScenarioError, match=r"the report beside it, 'page\.html', is a folder"):
        train(scenario, tmp_path / "page.csv")
    (tmp_path / "load.csv").write_text("time_s,load_pu\n0,1\n")
    with pytest.raises(ScenarioError, match="exists and is no policy file"):
        train(scenario, tmp_path / "load.csv")
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(ScenarioError, match="cannot be written"):
        train(scenario, tmp_path / "p.csv")
