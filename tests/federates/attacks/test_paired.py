"""Baseline, attacked and defended in one command; recovery by hand."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from federates.cli import call
from federates.commands.paired import print_paired
from federates.core.signals import read_signal
from federates.reports.paired_runs import PairedRuns
from federates.reports.recovery import VoltageTrack, out_of_band_node_hours, recovery_s
from federates.runs.paired import clean_of
from federates.runs.parallel import at_a_time
from federates.scenario.schema import load_scenario
from grid_models.base.errors import FeederateError

SCENARIO = """\
title: small
seed: 3
time: {start_s: 43200, duration_s: 300, step_s: 15}
grid:
  model: ieee13
  ders: [{kind: pv, at: load_phases, total_kw: 3000, kva_per_kw: 1.1}]
federates:
  feeder: {kind: feeder}
  volt_var: {kind: controller, controller: volt-var-1547, options: {category: B}}
connections:
  - feeder.v_pu -> volt_var.v_pu
  - volt_var.q_set_kvar -> feeder.q_set_kvar
attack:
  id: lies
  title: All read a voltage that is too low
  steps:
    - id: bias
      layer: signal
      target: {port: volt_var.v_pu}
      trigger: {at_s: 60}
      duration_s: 120
      action: {kind: bias, value: -0.1}
    - id: waits
      layer: signal
      target: {port: volt_var.q_set_kvar}
      trigger: {when: {signal: feeder.v_pu, above: 1.9}}
      action: {kind: set, value: 0}
defences:
  other-curve:
    title: Another droop
    patch: {federates: {volt_var: {options: {category: A}}}}
"""


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(SCENARIO)
    return tmp_path


@pytest.fixture(scope="module")
def paired(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the folder of the study after one paired run, and what it printed as JSON."""
    folder = tmp_path_factory.mktemp("paired")
    (folder / "study.yaml").write_text(SCENARIO)
    words = ["attack", "run", str(folder / "study.yaml"), "--placement", "single", "--json"]
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert call([*words, "--out", str(folder / "pair")]) == 0
    return folder, said.getvalue()


def test_one_command_runs_and_compares_all_states(paired: tuple[Path, str]) -> None:
    study, said = paired
    data = json.loads(said)
    assert (data["scenario"], data["attack"]) == ("study", "lies")
    assert data["states"] == ["baseline", "attacked", "other-curve", "other-curve-clean"]
    assert set(data["status"].values()) == {"finished"}
    baseline, attacked = data["baseline"], data["attacked"]
    assert "attacked_values_count" not in baseline
    assert "recovery_s" not in baseline
    assert attacked["attacked_values_count"] > 0
    assert attacked["attack_steps_never_triggered_count"] == 1
    assert attacked["v_max_pu"] > baseline["v_max_pu"]
    assert attacked["out_of_band_node_hours"] >= baseline["out_of_band_node_hours"]
    # A droop forgets: all is as without the lies before the run ends, 120 s after them.
    assert 0 <= attacked["recovery_s"] < 120
    clean = data["other-curve-clean"]
    assert clean["recovery_s"] == 0
    assert "attacked_values_count" not in clean
    assert data["other-curve"]["attacked_values_count"] > 0
    assert data["detectors"] == {}
    time_s, _, v_pu = read_signal(study / "pair" / "baseline" / "signals", "feeder.v_pu")
    attacked_v = read_signal(study / "pair" / "attacked" / "signals", "feeder.v_pu")[2]
    np.testing.assert_array_equal(attacked_v[time_s <= 60], v_pu[time_s <= 60])
    manifest = json.loads((study / "pair" / "other-curve" / "manifest.json").read_text())
    assert manifest["scenario"]["federates"]["volt_var"]["options"] == {"category": "A"}
    page = (study / "pair" / "report.html").read_text()
    for words in ("All read a voltage", "Time to recover", "time of the attack", "waits"):
        assert words in page
    for state in data["states"]:
        assert f'href="{state}/report.html"' in page
        assert (study / "pair" / state / "report.html").is_file()


def test_the_table_says_what_changed_and_what_never_began(
    paired: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    study, said = paired
    data = json.loads(said)
    spec = load_scenario(study / "study.yaml").attack_spec
    assert spec is not None
    console = Console(width=100, highlight=False)
    print_paired(PairedRuns(study / "pair", "study", spec, data["states"]), console)
    printed = capsys.readouterr().out
    assert "attacked: steps that never began: waits" in printed
    more = data["attacked"]["losses_kwh"] - data["baseline"]["losses_kwh"]
    assert f"{more:+.1f}" in printed
    words = ["attack", "run", str(study / "study.yaml"), "--out", str(study / "pair")]
    assert call(words) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """Return the folder of a pair under an attack of no size, whose page cannot be made.

    With it what the command wrote to standard output and to standard error.
    """

    def fail(runs: object) -> Path:
        raise IndexError("boolean index did not match")

    folder = tmp_path_factory.mktemp("idle")
    (folder / "study.yaml").write_text(SCENARIO.replace("value: -0.1", "value: 0.0"))
    words = ["attack", "run", str(folder / "study.yaml"), "--placement", "single", "--steps", "16"]
    words += ["--defence", "other-curve", "--json", "--out", str(folder / "pair")]
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("federates.commands.paired.write_paired_report", fail)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            assert call(words) == 0
    return folder / "pair", out.getvalue(), err.getvalue()


def test_an_attack_of_no_size_changes_no_metric_and_leaves_nothing_to_recover_from(
    idle: tuple[Path, str, str],
) -> None:
    pair, said, _ = idle
    data = json.loads(said)
    runs = PairedRuns.read(pair)
    assert list(runs.names) == data["states"]
    for name, clean in (("attacked", "baseline"), ("other-curve", "other-curve-clean")):
        assert clean_of(name) == clean
        assert data[name]["recovery_s"] == 0
        assert {key: data[name][key] for key in data[clean]} == data[clean] | (
            {"recovery_s": 0} if "recovery_s" in data[clean] else {}
        )
        assert [runs.change(key, name) for key in runs.keys] == [""] * len(runs.keys)
    # What the defence itself costs is the change from the baseline to the defence without attack.
    assert clean_of("other-curve-clean") == "baseline"
    assert runs.change("abs_q_kvarh", "other-curve-clean")


def test_the_page_of_paired_runs_is_made_again(
    paired: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "pair"
    shutil.copytree(paired[0] / "pair", folder)
    page = (folder / "report.html").read_text()
    (folder / "report.html").unlink()
    assert call(["report", str(folder)]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "report.html")
    assert (folder / "report.html").read_text() == page
    shutil.rmtree(folder / "attacked")
    shutil.rmtree(folder / "other-curve")
    shutil.rmtree(folder / "other-curve-clean")
    assert call(["report", str(folder)]) == 2
    assert "holds no attacked run" in capsys.readouterr().err


def test_a_page_that_cannot_be_made_costs_no_result(idle: tuple[Path, str, str]) -> None:
    _, said, warned = idle
    states = ["baseline", "attacked", "other-curve", "other-curve-clean"]
    assert json.loads(said)["states"] == states
    assert "warning: no report: IndexError: boolean index did not match" in warned


@pytest.mark.parametrize(
    ("found", "instead", "words"),
    [
        ("category: A", "categorie: A", "categorie"),
        ("other-curve:", "other-clean:", "a defence cannot be called 'other-clean'"),
        ("other-curve:", "baseline:", "a defence cannot be called 'baseline'"),
        ("volt_var.v_pu}", "volt_var.v_p}", "did you mean 'volt_var.v_pu'?"),
        ("at_s: 60", "at_s: 600", "the run ends at 300 s"),
    ],
)
def test_wrong_input_is_exit_code_2(
    study: Path, capsys: pytest.CaptureFixture[str], found: str, instead: str, words: str
) -> None:
    (study / "study.yaml").write_text(SCENARIO.replace(found, instead))
    assert call(["attack", "run", "study.yaml", "--placement", "single"]) == 2
    assert words in capsys.readouterr().err


def test_an_unknown_defence_names_the_nearest(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["attack", "run", "study.yaml", "--defence", "other-curv"]) == 2
    assert "did you mean 'other-curve'?" in capsys.readouterr().err
    assert not (study / "runs").exists()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "killed"])
def test_no_run_outlives_the_command_and_what_was_recorded_is_readable(
    study: Path, how: signal.Signals
) -> None:
    (study / "study.yaml").write_text(SCENARIO.replace("duration_s: 300", "duration_s: 864000"))
    code = "from federates.cli import main; main()"
    words = ["attack", "run", "study.yaml", "--placement", "single", "--out", "pair"]
    parent = subprocess.Popen(
        [sys.executable, "-P", "-c", code, *words],
        cwd=study,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job ignores SIGINT, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    folders = [study / "pair" / name for name in ("baseline", "attacked")]
    n = min(2, len(os.sched_getaffinity(0)))
    try:
        wait_for(lambda: all(readable_steps(folder) for folder in folders[:n]))
        parent.send_signal(how)
        _, said = parent.communicate(timeout=600)
    finally:
        parent.kill()
        parent.communicate()
    if how is signal.SIGINT:
        assert parent.returncode == 130
        assert "interrupted; what was recorded is readable in pair" in said
    for folder in folders[:n]:
        wait_for(lambda folder=folder: '"interrupted"' in (folder / "manifest.json").read_text())
        assert len(read_signal(folder / "signals", "feeder.v_pu")[0]) > 0


def readable_steps(folder: Path) -> int:
    """Return how many steps of a run that goes on can be read."""
    try:
        return len(read_signal(folder / "signals", "feeder.v_pu")[0])
    except (OSError, ValueError, FeederateError):
        return 0  # not begun, or cut while it is being written


def wait_for(condition) -> None:
    deadline = time.monotonic() + 600  # it hangs
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_what_is_shared_outside_runs_one_after_another(study: Path) -> None:
    path = study / "study.yaml"
    assert at_a_time(load_scenario(path)) == len(os.sched_getaffinity(0))
    assert at_a_time(load_scenario(path, ["time.real_time={factor: 2.0}"])) == 1
    bench = SCENARIO.replace("federates:\n", "federates:\n  bench: {kind: device, devices: DEV}\n")
    path.write_text(bench.replace("DEV", "{pv_1: my-inverter.yaml}"))
    assert at_a_time(load_scenario(path)) == 1
    path.write_text(bench.replace("DEV", "{pv_1: simulated, pv_2: emulated}"))
    assert at_a_time(load_scenario(path)) == len(os.sched_getaffinity(0))


# --- recovery --------------------------------------------------------------------------------


def track(high: list[float], out: list[int] | None = None) -> VoltageTrack:
    n = len(high)
    return VoltageTrack(
        np.arange(n) * 10.0,
        *2 * [np.array(out or [0] * n, dtype=float)],
        np.zeros(n),
        np.full(n, 1.0),
        np.array(high),
    )


CALM = track([1.04] * 10)


@pytest.mark.parametrize(
    ("high", "end_s", "expected"),
    [
        ([1.04] * 10, 30.0, 0.0),  # never disturbed
        ([1.04, 1.08, 1.08, 1.08, 1.06, 1.05, 1.044, 1.04, 1.04, 1.04], 30.0, 30.0),
        ([1.04, 1.08, 1.08, 1.04, 1.04, 1.04, 1.04, 1.06, 1.04, 1.04], 30.0, 50.0),  # comes back
        ([1.04, 1.08, 1.08, 1.08, 1.08, 1.08, 1.08, 1.08, 1.08, 1.08], 30.0, None),
        ([1.04] * 10, 100.0, None),  # nothing recorded after the end
        ([1.02] * 10, 30.0, 0.0),  # better than the baseline is as good
    ],
)
def test_recovery_is_the_time_until_it_stays_as_good_as_the_baseline(
    high: list[float], end_s: float, expected: float | None
) -> None:
    # Hand calculation; samples every 10 s, tolerance 0.005 pu above the baseline's 1.04.
    assert recovery_s(CALM, track(high), end_s) == expected


def test_nodes_out_of_band_delay_recovery_as_long_as_there_are_more_than_without() -> None:
    base = track([1.04] * 6, [0, 0, 0, 2, 2, 2])
    assert recovery_s(base, track([1.04] * 6, [0, 3, 3, 3, 2, 1]), 20.0) == 20.0


@given(
    st.lists(st.floats(1.0, 1.1), min_size=2, max_size=30),
    st.lists(st.floats(1.0, 1.1), min_size=2, max_size=30),
    st.floats(0.0, 300.0),
)
def test_recovery_is_within_what_is_left_of_the_run(
    before: list[float], after: list[float], end_s: float
) -> None:
    found = recovery_s(track(before), track(after), end_s)
    if found is not None:
        assert 0.0 <= found <= 10.0 * min(len(before), len(after)) - end_s + 1e-3
    assert recovery_s(track(after), track(after), 0.0) == 0.0


def test_node_hours_count_each_sample_for_one_step() -> None:
    # Hand calculation: 2 nodes for 2 samples and 1 for 1 inside [10, 40): 5 x 10 s.
    counted = track([1.0] * 6, [7, 2, 2, 1, 7, 7])
    assert out_of_band_node_hours(counted, 10.0, 40.0) == pytest.approx(5 * 10 / 3600)
