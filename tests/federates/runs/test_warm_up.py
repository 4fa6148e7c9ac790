"""What metrics leave out at the begin of a run, and how federates' metrics become the run's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from federates.assembly.federation import Assembly
from federates.core.signals import read_signal
from federates.reports.run import write_report
from federates.runs.data import RunData
from federates.runs.replay import compare_runs
from federates.runs.runner import RunResult, _alike, _metrics, run
from federates.scenario.schema import load_scenario, shipped_scenarios

DEFAULTS_S = {
    "voltvar-ieee123-published": 500.0,
    "attack-1c-": 180.0,
    "attack-": 60.0,
    "consumer-market": 1800.0,
    "curtailment-ieee123": 60.0,
    "cvr-ieee123": 300.0,
    "der-rich-ieee123": 100.0,
    "dmpc-circuit24": 0.0,
    "dmpc-ieee123": 120.0,
    "device-maps": 2.0,
    "hil-inverter-voltvar": 50.0,
    "hil-market-ieee123": 180.0,
    "market-day-": 180.0,
    "hil-settings-attack": 5.0,
    "hil-thermostats-ieee123": 0.0,
    "hosting-ieee123": 0.0,
    "ieee39-": 0.0,
    "kundur-550": 20.0,
    "kundur-feeder": 0.0,
    "line-outage-ieee123": 0.0,
    "loss-minimisation-ieee123": 300.0,
    "optimise-dispatch": 0.0,
    "rt-opf-ieee123": 60.0,
    "settings-attack-ieee123": 60.0,
    "two-feeders-ieee13-ieee123": 600.0,
    "voltvar-": 50.0,
    "vpp-ieee123": 60.0,
}
"""Warm-up of the shipped scenarios whose names begin so; the first that fits."""
STEPS = 30


def small(tmp_path: Path, name: str, *overrides: str, steps: int = STEPS) -> RunResult:
    noon = ["time.start_s=43200", "grid.ders.0.kw_per_load_kw=2", *overrides]
    scenario = load_scenario("voltvar-ieee13", noon)
    return run(scenario, out=tmp_path / name, placement="single", steps=steps)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunResult]:
    folder = tmp_path_factory.mktemp("runs")
    return {
        "default": small(folder, "default"),
        "none": small(folder, "none", "time.warm_up_s=0"),
        "short": small(folder, "short", steps=8),
    }


@pytest.mark.parametrize("name", shipped_scenarios())
def test_every_shipped_scenario_has_a_warm_up_well_inside_its_run(name: str) -> None:
    scenario = load_scenario(name)
    assembly = Assembly(scenario)
    expected = next(value for begin, value in DEFAULTS_S.items() if name.startswith(begin))
    assert assembly.warm_up_s == assembly.wanted_warm_up_s == expected
    assert expected <= scenario.time.duration_s / 10
    assert not assembly.attack_warnings, "no attack begins in it"


def test_metrics_are_those_of_the_steps_after_the_warm_up(runs: dict[str, RunResult]) -> None:
    for name, warm_up_s in (("default", 50.0), ("none", 0.0)):
        result = runs[name]
        assert result.summary["warm_up_s"] == warm_up_s
        time_s, _, v_pu = read_signal(result.folder / "signals", "feeder.v_pu")
        counts = time_s >= warm_up_s
        out = (v_pu[counts] < 0.95) | (v_pu[counts] > 1.05)
        metrics = result.metrics
        assert metrics["v_max_pu"] == v_pu[counts].max()
        assert metrics["v_min_pu"] == v_pu[counts].min()
        assert metrics["out_of_band_node_hours"] == pytest.approx(out.sum() * 5 / 3600)
        assert metrics["v_std_pu"] == pytest.approx(v_pu[counts].std())
        imports_kw = read_signal(result.folder / "signals", "feeder.import_kw")[2][counts]
        assert metrics["import_peak_kw"] == imports_kw.max()
        for port, key in (("losses_kw", "losses_kwh"), ("import_kw", "import_kwh")):
            values = read_signal(result.folder / "signals", f"feeder.{port}")[2][counts]
            assert metrics[key] == pytest.approx(values.sum() * 5 / 3600)
        both = metrics["line_losses_kwh"] + metrics["transformer_losses_kwh"]
        assert both == pytest.approx(metrics["losses_kwh"])
    more = runs["none"].metrics["abs_q_kvarh"] - runs["default"].metrics["abs_q_kvarh"]
    assert more > 0.0


def test_recorded_signals_do_not_know_of_a_warm_up(runs: dict[str, RunResult]) -> None:
    verdict = compare_runs(runs["default"].folder, runs["none"].folder)
    assert (verdict.differences, verdict.files > 5) == ((), True)


def test_the_worst_instant_and_the_extremes_of_nodes_lie_after_it(
    runs: dict[str, RunResult],
) -> None:
    voltages = RunData(runs["default"].folder).plants[0].voltages
    assert voltages is not None
    time_s, _, v_pu = read_signal(runs["default"].folder / "signals", "feeder.v_pu")
    assert voltages.worst_s >= 50.0
    assert len(voltages.total.time_s) == len(time_s), "curves begin with the first step"
    np.testing.assert_array_equal(voltages.node_high, v_pu[time_s >= 50.0].max(axis=0))
    assert voltages.extreme(highest=True)[2] >= 50.0


def test_a_run_within_its_warm_up_has_metrics_and_says_so(runs: dict[str, RunResult]) -> None:
    short = runs["short"]
    assert short.summary["warm_up_s"] == 0.0
    words = "The run ends within its warm-up of 50 s (time.warm_up_s): nothing is left out"
    assert short.summary["warm_up_note"].startswith(words)
    v_pu = read_signal(short.folder / "signals", "feeder.v_pu")[2]
    assert short.metrics["v_max_pu"] == v_pu.max()
    assert words in write_report(short.folder).read_text()


def test_a_killed_run_shows_what_it_has_even_within_the_warm_up(
    runs: dict[str, RunResult], tmp_path: Path
) -> None:
    manifest = json.loads((runs["short"].folder / "manifest.json").read_text())
    folder = tmp_path / "killed"
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps(manifest | {"warm_up_s": 50.0}))
    (folder / "signals").symlink_to(runs["short"].folder / "signals")
    voltages = RunData(folder).plants[0].voltages
    assert voltages is not None
    assert voltages.extreme(highest=True)[1] == runs["short"].metrics["v_max_pu"]


def test_an_attack_within_the_warm_up_is_a_warning() -> None:
    attack = (
        "attack={id: early, steps: [{id: s, layer: signal, target: {port: feeder.q_set_kvar}, "
        "trigger: {at_s: 20}, action: {kind: set, value: 0}}]}"
    )
    (said,) = Assembly(load_scenario("voltvar-ieee13", [attack])).attack_warnings
    assert said.startswith("an attack begins at 20 s, and metrics leave out the first 50 s")


def test_an_attack_after_the_end_of_a_short_run_is_a_warning() -> None:
    scenario = load_scenario("voltvar-ieee13", attack="false-voltage")
    (said,) = Assembly(scenario, 5).attack_warnings
    assert said == "step 'bias' of the attack begins at 43200 s, and the run ends at 25 s"
    assert Assembly(scenario).attack_warnings == []


def test_only_plants_of_one_sort_give_their_names_to_all_their_metrics() -> None:
    feeders = load_scenario("two-feeders-ieee13-ieee123")
    assert _alike(feeders, ("upper", "lower")) == ["upper", "lower"]
    assert _alike(load_scenario("kundur-feeder"), ("grid", "feeder")) == []


def test_metrics_of_several_federates_are_summed_only_where_that_means_something() -> None:
    summaries = {
        "upper": {"v_max_pu": 1.05, "losses_kwh": 2.0},
        "lower": {"v_max_pu": 1.1, "losses_kwh": 3.0},
        "one": {"mail_lost_count": 1.0, "gap_pu": 0.1, "throughput_kwh": 4.0},
        "two": {"mail_lost_count": 2.0, "gap_pu": 0.3, "throughput_kwh": np.inf, "own_s": 5.0},
    }
    assert _metrics(summaries, ("upper", "lower")) == {
        "upper.v_max_pu": 1.05,
        "upper.losses_kwh": 2.0,
        "lower.v_max_pu": 1.1,
        "lower.losses_kwh": 3.0,
        "mail_lost_count": 3.0,
        "one.gap_pu": 0.1,
        "two.gap_pu": 0.3,
        "throughput_kwh": None,
        "own_s": 5.0,
    }
    # What only a user's own class knows to be a plant is not added up, either.
    assert _metrics({k: summaries[k] for k in ("upper", "lower")}, ()) == {
        "upper.v_max_pu": 1.05,
        "lower.v_max_pu": 1.1,
        "losses_kwh": 5.0,
    }
