"""A hosting study of a scenario: figures, replay by OpenDSS, tables, page, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import feederate
from federates.cli import call
from federates.errors import ScenarioError
from federates.hosting.case import hosting_case
from federates.hosting.study import HostingStudy
from federates.scenario.schema import load_scenario
from grid_models.base.errors import FeederateError

SCENARIO = "hosting-ieee123"
RELIED_ON = ("hc_kw", "hc_pct", "limits", "assumptions", "seconds")
SUNNY = {"time": {"start_s": 36000, "duration_s": 14400}}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> HostingStudy:
    out = tmp_path_factory.mktemp("hosting") / "out"
    return feederate.hosting(SCENARIO, placements=8, seed=3, set=SUNNY, out=out)


def test_the_command_prints_what_others_rely_on(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--method", "static", "--placements", "3", "--seed", "3", "--json"]
    words += ["--set", "time.start_s=36000", "--set", "time.duration_s=14400"]
    assert call(["hosting", SCENARIO, *words]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(RELIED_ON) <= set(found)
    assert set(found["hc_kw"]) >= {"mean", "sd", "min", "max"}
    assert found["hc_kw"]["min"] <= found["hc_kw"]["mean"] <= found["hc_kw"]["max"]
    assert found["hc_pct"]["mean"] == pytest.approx(
        100.0 * found["hc_kw"]["mean"] / found["assumptions"]["peak_kva"]
    )
    assert found["designs"] == 3
    assert found["seconds"] > 0.0


def test_everything_that_decides_the_result_is_said(study: HostingStudy) -> None:
    said = study.summary()["assumptions"]
    assert said["source_v_pu"] == 1.025
    assert set(said["taps"].values()) == {0}
    assert sum(said["capacitors_kvar"].values()) == 750.0
    assert said["ratings"].startswith("ieee123-assumed: 530, 230 and 155 A")
    assert said["power_factor"] == 1.0
    assert "noise" in said
    assert study.summary()["limits"]["v_max_pu"] == 1.05
    assert study.summary()["base_case"]["v_max_pu"] < 1.05


def test_opendss_finds_every_design_within_the_limits(study: HostingStudy) -> None:
    (replay,) = study.replays
    assert (len(replay.designs), replay.of, replay.cases) == (8, 8, 32)
    assert replay.passed == ()
    assert replay.v_error_pu is not None
    assert replay.v_error_pu < 1e-6
    assert list(study.tables["replay"]["cases"]) == [0] * 8


def test_a_design_beyond_its_capacity_is_found_out(study: HostingStudy) -> None:
    case, result = study.case, study.result
    found = case.findings(case.solve_again(1.2 * result.site_kva[0]))
    binding = result.binding[0]
    assert (found[0].kind, found[0].element, found[0].hour) == (
        binding.kind, binding.element, binding.hour,
    )  # fmt: skip
    model = case.whole
    excess = model.check.excess(model.flow(1.2 * result.site_kva[0])).value[:, 0].max()
    assert found[0].excess == pytest.approx(excess, abs=1e-6)


def test_tables_and_page_are_in_the_folder(study: HostingStudy, tmp_path: Path) -> None:
    out = tmp_path / "out"
    again = feederate.hosting(SCENARIO, "alone", set={**SUNNY, "hosting.at": ["6*"]}, out=out)
    names = {path.stem for path in out.glob("*.parquet")}
    assert names == set(again.tables) == {"nodes", "limiting", "replay"}
    nodes = pq.read_table(out / "nodes.parquet").to_pandas()
    assert nodes["hc_kw"].tolist() == again.tables["nodes"]["hc_kw"].tolist()
    assert {"limit", "element", "hour"} <= set(nodes)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["hc_kw"]["nodes"] == dict(zip(nodes["node"], nodes["hc_kw"], strict=True))
    page = (out / "report.html").read_text()
    assert page.count('class="chart feeder-map"') == 1
    assert "Each bus in the colour of the PV that it hosts alone" in page
    of_static = study.tables
    assert {"nodes", "limiting", "day", "replay", "placements", "curve", "hours"} == set(of_static)
    assert of_static["nodes"]["pv_kw_mean"].sum() == pytest.approx(study.result.hc_kw.mean())


def test_switching_a_plant_off_is_tried_in_opendss() -> None:
    """The search's change of voltage, and OpenDSS' own, when the site goes off."""
    changes = {**SUNNY, "hosting.limits.deviation_pu": 0.004}
    found = feederate.hosting(SCENARIO, "alone", set={**changes, "hosting.at": ["65*", "66*"]})
    assert {b.kind for b in found.result.binding} == {"deviation"}
    assert found.replays[0].passed == ()
    case, kva = found.case, 1.1 * found.result.site_kva[0]
    (beyond,) = case.switched_off(kva, None, case.solve_again(kva))
    excess = case.whole.check.excess(case.whole.flow(kva)).value
    at = case.whole.check.kinds.index("deviation")
    assert beyond.excess == pytest.approx(excess[:, at].max(), abs=1e-6)


def test_regulators_that_act_are_held_for_the_search_and_act_in_a_replay() -> None:
    changes = {**SUNNY, "grid.regulators": "auto", "grid.taps": {}}
    with pytest.warns(UserWarning, match="regulators of the scenario act"):
        found = feederate.hosting(SCENARIO, placements=2, set=changes)
    fixed, acting = found.replays
    assert (fixed.how, acting.how) == ("model", "regulators acting")
    assert fixed.passed == ()
    assert fixed.tap_changes == 0
    assert acting.tap_changes > 0
    case = found.case
    assert case.acting is not None
    # The taps of the search are those that the regulators choose in one of the hours.
    assert case.held_h in case.whole.hours
    said = found.summary()["assumptions"]["regulators"]
    assert said.startswith(f"fixed at the base case of {case.held_h:g} h")
    at = int(np.flatnonzero(case.whole.hours == case.held_h)[0])
    nothing = np.zeros((4, len(case.whole.sites)), dtype=np.complex128)
    held = case.solve_again(nothing).v_pu[at]
    controlled = case.solve_again(nothing, acting=True).v_pu[at]
    assert np.abs(held - controlled).max() < 0.00625 * 1.1


def test_switched_capacitors_are_held_for_the_search(tmp_path: Path) -> None:
    (tmp_path / "bank.dss").write_text(
        """Clear
New Circuit.bank bus1=a basekv=4.16 pu=1.0
New Linecode.c nphases=3 r1=0.3 x1=0.6 r0=0.9 x0=1.8 normamps=200 emergamps=250
New Line.ab bus1=a bus2=b linecode=c length=1
New Load.l bus1=b kv=4.16 kw=600 kvar=200
New Capacitor.bank bus1=b phases=3 kvar=150 kv=4.16
New CapControl.c capacitor=bank element=line.ab terminal=1 type=kvar ONsetting=120 OFFsetting=-80
Set voltagebases=[4.16]
Calcvoltagebases
"""
    )
    changes = {"grid.model": tmp_path / "bank.dss", "grid.source_v_pu": None}
    with pytest.warns(UserWarning, match="capacitors that act|most_pct"):
        found = feederate.hosting(SCENARIO, placements=2, set={**SUNNY, **changes})
    held, acting = found.replays
    assert (held.how, acting.how) == ("model", "regulators acting")
    assert held.passed == ()
    assert (held.v_error_pu or 1.0) < 1e-6


def test_a_balanced_study_is_replayed_phase_by_phase_too() -> None:
    changes = {**SUNNY, "hosting.model": "balanced"}
    found = feederate.hosting(SCENARIO, placements=2, set=changes)
    model, three_phase = found.replays
    assert model.passed == ()
    assert (model.v_error_pu or 1.0) < 1e-6
    # What the equivalent spreads over three phases, one phase has to carry.
    assert three_phase.how == "three-phase"
    assert three_phase.v_error_pu is None
    assert found.summary()["other_replays"][0]["designs_beyond"] == len(
        {k for k, _ in three_phase.passed}
    )


def test_noise_is_replayed_on_the_days_of_the_search_and_on_fresh_ones() -> None:
    changes = {**SUNNY, "hosting.noise": {"load_pct": 20.0, "pv_pct": 10.0}}
    with pytest.warns(UserWarning, match="noise: 20 % on demand and 10 % on PV, one draw a day"):
        found = feederate.hosting(SCENARIO, placements=12, set=changes)
    own, fresh = found.replays
    assert (own.how, fresh.how) == ("model", "fresh days")
    assert own.passed == ()
    assert (own.v_error_pu or 1.0) < 1e-6
    # A design that is at its limit on its own day is beyond it on every other day with less load.
    assert fresh.passed
    assert found.summary()["assumptions"]["noise"]["load_pct"] == 20.0


def test_coordinated_devices_are_replayed_and_each_lever_is_shown() -> None:
    # Vehicles are away at these hours.
    sizes = {"hosting.battery_pct": 10.0, "hosting.vehicle_pct": 0.0}
    changes = {"hosting.power_factor": 0.98, **sizes}
    found = feederate.hosting(SCENARIO, "dynamic", placements=1, set={**SUNNY, **changes})
    (replay,) = found.replays
    assert replay.passed == ()
    assert (replay.v_error_pu or 1.0) < 2e-5
    said = found.summary()["assumptions"]
    assert said["penetration_pct"] == {"battery": 10.0, "vehicle": 0.0, "heat_pump": 5.7}
    assert said["curtailment"] == 0.001
    levers = found.tables["levers"].set_index("levers")["hc_kw"]
    assert levers["nothing"] < min(levers["devices"], levers["power factor"])
    assert levers["all"] > max(levers["devices"], levers["power factor"])
    assert found.result.hc_kw[0] == pytest.approx(levers["all"], rel=1e-3)
    assert {"dynamic", "limits", "levers", "day"} <= set(found.tables)


def test_two_penetrations_give_a_grid_with_marginal_values() -> None:
    grid = {"battery": [5.0, 0.0], "heat_pump": [0.0, 10.0]}
    changes = {**SUNNY, "hosting.sensitivity": grid, "hosting.vehicle_pct": 0.0}
    with pytest.warns(UserWarning, match="cross difference of battery and heat_pump"):
        found = feederate.hosting(SCENARIO, "dynamic", placements=1, set=changes)
    table = found.tables["sensitivity"]
    assert table["battery_pct"].tolist() == [0.0, 0.0, 5.0, 5.0]
    assert table["heat_pump_pct"].tolist() == [0.0, 10.0, 0.0, 10.0]
    none, heat, battery, both = table["hc_kw"]
    assert none < min(heat, battery) <= max(heat, battery) < both
    # The slope between two points lies between the marginal values at both.
    step_kw = 0.05 * found.case.whole.base_kva
    gains = table["kw_per_kw_battery"][[0, 2]]
    assert 0.9 * gains.min() < (battery - none) / step_kw < 1.1 * gains.max()


def test_one_design_for_many_days_is_replayed_on_fresh_ones() -> None:
    changes = {**SUNNY, "hosting.vehicle_pct": 0.0, "hosting.stochastic": {"fresh": 2, "groups": 3}}
    with pytest.warns(UserWarning, match="days|noise|storages"):
        found = feederate.hosting(SCENARIO, "stochastic", placements=2, set=changes)
    assert found.notes[0].startswith("one design for 2 days")
    assert found.result.names == ("own day", "fresh day 1", "fresh day 2")
    assert found.summary()["hc_kw"]["sd"] == pytest.approx(0.0, abs=1e-6)
    (replay,) = found.replays
    assert (replay.designs, replay.passed) == ((0, 1, 2), ())
    assert (replay.v_error_pu or 1.0) < 1e-6
    said = found.summary()["assumptions"]
    assert said["penetration_pct"] == {"battery": 10.0, "vehicle": 0.0, "heat_pump": 11.4}
    assert said["noise"]["day_noise"] == 0.05


def test_ders_that_are_there_stay_and_are_counted_apart() -> None:
    rules = [{"kind": "pv", "at": "load_buses", "total_kw": 500.0}]
    with pytest.warns(UserWarning, match="85 DERs are on the feeder already"):
        found = feederate.hosting(SCENARIO, placements=2, set={**SUNNY, "grid.ders": rules})
    bare = feederate.hosting(SCENARIO, placements=2, set=SUNNY)
    there = found.summary()["assumptions"]["ders_already"]
    assert there["pv"]["count"] == 85
    assert found.case.whole.der_kva.real.sum(axis=1).max() == pytest.approx(
        500.0 * found.case.whole.pv_pu.max()
    )
    assert found.result.hc_kw.mean() < bare.result.hc_kw.mean()


def test_a_feeder_of_houses_has_percentages_of_their_demand() -> None:
    changes = {"time": SUNNY["time"], "hosting.at": ["6*"], "hosting.limits.line_pu": None}
    with pytest.warns(UserWarning, match="1736 DERs are on the feeder already"):
        found = feederate.hosting("market-day-ieee123", placements=1, set=changes)
    model = found.case.whole
    assert not model.load_kva.any()
    drawn = -np.where(model.der_kva.real < 0.0, model.der_kva, 0.0).sum(axis=1)
    assert found.summary()["assumptions"]["peak_kva"] == pytest.approx(np.abs(drawn).max())
    assert found.summary()["hc_kw"]["mean"] > 100.0


def test_percentages_are_of_the_whole_day_where_the_search_leaves_steps_out(
    study: HostingStudy,
) -> None:
    case = study.case
    peak = np.abs(case.whole.load_kva.sum(axis=1)).argmax()
    some = replace(case, kept=np.arange(len(case.kept)) != peak)
    assert len(some.model.hours) == len(case.whole.hours) - 1
    assert some.model.base_kva == case.whole.base_kva


def test_all_designs_can_be_infeasible_under_noise_and_all_be_replayed() -> None:
    """Noise of 80 % takes some day beyond a limit; such designs have no capacity."""
    changes = {**SUNNY, "hosting.noise": {"load_pct": 80.0}, "hosting.replay": "all"}
    changes["hosting.limits"] = {"v_min_pu": 0.99}
    with pytest.warns(UserWarning, match="noise: 80 %|1 of 1 designs pass a limit"):
        found = feederate.hosting(SCENARIO, placements=1, seed=2, set=changes)
    assert found.summary()["infeasible"] == 1
    assert found.summary()["hc_kw"]["mean"] is None
    assert str(found.replays[0]).endswith("no design to solve")
    assert found.case.section.replay == "all"


def test_volt_var_curves_of_a_file_that_do_not_act_are_said(tmp_path: Path) -> None:
    (tmp_path / "pv.dss").write_text(
        """Clear
New Circuit.short bus1=a basekv=4.16 pu=1.0
New Linecode.c nphases=3 r1=0.1 x1=0.2 r0=0.3 x0=0.6 normamps=200 emergamps=250
New Line.ab bus1=a bus2=b linecode=c length=1
New Load.l bus1=b kv=4.16 kw=100 kvar=20
New PVSystem.p bus1=b kv=4.16 kva=30 pmpp=30
New XYCurve.vv npts=4 xarray=[0.5 0.95 1.05 1.5] yarray=[1 1 -1 -1]
New InvControl.i mode=voltvar vvc_curve1=vv derlist=[pvsystem.p]
Set voltagebases=[4.16]
Calcvoltagebases
"""
    )
    changes = {**SUNNY, "grid.model": tmp_path / "pv.dss", "grid.load_scale": 1.0}
    changes |= {"grid.source_v_pu": None, "grid.file_ders": "ours"}
    with pytest.warns(UserWarning, match="volt-var curves of 1 DERs|reach most_pct|1 DERs are on"):
        found = feederate.hosting(SCENARIO, placements=1, set=changes)
    assert any(note.startswith("volt-var curves of 1 DERs") for note in found.notes)
    assert not found.case.whole.der_kva.imag.any()


def test_lines_without_a_rating_are_named() -> None:
    """OpenDSS' own default of 400 A is no rating; the shipped IEEE 13 has none."""
    with pytest.raises(ScenarioError, match=r"none of the 11 lines has a rating.*line,normal_a"):
        hosting_case(load_scenario(SCENARIO, ["grid.model=ieee13"]))


def test_some_ratings_are_used_and_the_other_lines_are_said(tmp_path: Path) -> None:
    table = tmp_path / "ratings.csv"
    table.write_text("line,normal_a\nline_650r_632,700\n")
    band = {"v_min_pu": 0.9, "v_max_pu": 1.1}
    changes = {**SUNNY, "grid.model": "ieee13", "grid.ratings": table, "hosting.limits": band}
    changes |= {"grid.source_v_pu": 1.0}
    with pytest.warns(UserWarning, match=r"lines without a row in ratings.csv \(10\)"):
        found = feederate.hosting(SCENARIO, placements=2, set=changes)
    assert found.summary()["assumptions"]["unrated_lines"] == 10


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--method", "statik"], "did you mean 'static'"),
        (["--placements", "0"], "placements: found 0; expected a whole number"),
        (["--set", "hosting.limits.v_min_pu=1.06"], "v_min_pu 1.06 is not below v_max_pu 1.05"),
        (["--set", "hosting.limits.v_max=1.06"], "did you mean 'v_max_pu'"),
        (["--set", "hosting.att=load_buses"], "did you mean 'at'"),
        (["--set", "hosting.at=['9999']"], "9999"),
        (["--set", "hosting.unit_kw=[5, 3]"], "is no range above 0"),
        (["--set", "hosting.static.seed=3"], "--seed, or the scenario's seed"),
        (["--set", "hosting.static.critical=3"], "did you mean 'critical_hours'"),
        (["--set", "hosting.plant=feder"], "did you mean 'feeder'"),
        (["--set", "hosting.sensitivity.battery=[0, 5]"], "hosting.sensitivity"),
        (["--set", "hosting.sensitivity={batery: [0, 5], vehicle: [0, 5]}"], "batery"),
        (["--set", "grid.source_v_pu=1.06"], "passes limits before any unit is added: overvoltage"),
        (["--set", "grid.load_scale=2"], "undervoltage at"),
        (["--set", "hosting.limits.reverse_kw=-1"], "reverse_kw"),
        (["--set", "hosting.dynamic.curtailment=2"], "option 'curtailment': 2 is not accepted"),
        (["--placements", "1000000000"], "1000000000 placements of up to"),
        (["--method", "alone", "--set", "hosting.alone.step_kw=1e-6"], "steps of step_kw"),
        (
            ["--set", "grid.load_scale=0", "--set", "hosting.limits.v_max_pu=1.1"],
            "nothing draws power in any step",
        ),
        (["--method", "dynamic", "--set", "time.duration_s=7200"], "the sun does not shine"),
        (["--method", "stochastic", "--set", "time.duration_s=7200"], "the sun does not shine"),
    ],
)
def test_wrong_input_is_named(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["hosting", SCENARIO, *words]) == 2
    assert says in capsys.readouterr().err


def test_what_a_method_does_not_use_is_a_note(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--method", "alone", "--placements", "3", "--seed", "2", "--json"]
    words += ["--set", "hosting.noise={}", "--set", "hosting.batteries=discharging"]
    words += ["--set", "hosting.at=['65']", "--set", "time.start_s=39600"]
    assert call(["hosting", SCENARIO, *words, "--set", "time.duration_s=7200"]) == 0
    printed = capsys.readouterr()
    assert "placements are not used by the method alone" in printed.err
    assert "hosting.noise is not used by the method alone, only by static" in printed.err
    assert "there is no battery on the feeder" in printed.err
    assert json.loads(printed.out)["seed"] == 2


@pytest.mark.parametrize("wrong", [{"placements": "3"}, {"placements": 2.5}, {"method": ["alone"]}])
def test_wrong_types_from_python_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(FeederateError, match=r"found|there is no method"):
        feederate.hosting(SCENARIO, **wrong)


def test_an_infeasible_base_case_names_limit_element_and_hour() -> None:
    with pytest.raises(FeederateError, match=r"undervoltage at 114\.1, 19 h, by 0\.0\d+ pu"):
        feederate.hosting(SCENARIO, set={"hosting.limits.v_min_pu": 0.98})


def test_a_scenario_without_a_feeder_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["hosting", "ieee39-alc"]) == 2
    assert "has no feeder" in capsys.readouterr().err


def test_a_feeder_with_a_loop_has_no_balanced_equivalent(tmp_path: Path) -> None:
    (tmp_path / "loop.dss").write_text(
        """Clear
New Circuit.loop bus1=a basekv=4.16 pu=1.0
New Linecode.c nphases=3 r1=0.1 x1=0.2 r0=0.3 x0=0.6 normamps=200 emergamps=250
New Line.ab bus1=a bus2=b linecode=c length=1
New Line.bc bus1=b bus2=c linecode=c length=1
New Line.ca bus1=c bus2=a linecode=c length=1
New Load.l bus1=c kv=4.16 kw=100 kvar=20
Set voltagebases=[4.16]
Calcvoltagebases
"""
    )
    changes = {**SUNNY, "grid.model": tmp_path / "loop.dss", "grid.load_scale": 1.0}
    changes |= {"grid.source_v_pu": None}
    with pytest.warns(UserWarning, match="reach most_pct"):
        found = feederate.hosting(SCENARIO, placements=2, set=changes)
    assert found.result.hc_kw.min() > 200.0
    with pytest.raises(FeederateError, match=r"hosting\.model.*[Ll]oop"):
        feederate.hosting(SCENARIO, placements=2, set={**changes, "hosting.model": "balanced"})
