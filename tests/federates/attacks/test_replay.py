"""Runs again from their folders, and traces played into scenarios."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from federates.attacks.signal.trace_attack import trace_attack
from federates.attacks.signal.trace_file import read_trace
from federates.attacks.truth import read_truth
from federates.cli import call
from federates.core.signals import read_signal
from federates.errors import ScenarioError
from federates.runs.replay import compare_runs

SCENARIO = """\
title: small
seed: 3
time: {start_s: 43200, duration_s: 300, step_s: 15}
grid:
  model: ieee13
  ders: [{kind: pv, at: load_phases, total_kw: 3000, kva_per_kw: 1.1}]
  profiles: {kind: cloudy}
federates:
  feeder: {kind: feeder}
  volt_var: {kind: controller, controller: volt-var-1547}
connections:
  - {source: feeder.v_pu, target: volt_var.v_pu, noise: 0.001}
  - volt_var.q_set_kvar -> feeder.q_set_kvar
attack:
  id: rattle
  steps:
    - id: noise
      layer: signal
      target: {port: volt_var.v_pu, fraction: 0.5}
      trigger: {at_s: 60}
      duration_s: 120
      action: {kind: adaptive, attacker: "rattler:Rattler"}
      probability: 0.7
"""
# A user's own attacker, which must be found again beside the scenario.
RATTLER = """\
class Rattler:
    def __init__(self, site):
        pass

    def decide(self, time_s, elapsed_s, true, seen):
        return true + 0.01
"""


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run under attack, with its scenario beside it."""
    folder = tmp_path_factory.mktemp("replay")
    (folder / "study.yaml").write_text(SCENARIO)
    (folder / "rattler.py").write_text(RATTLER)
    words = ["run", str(folder / "study.yaml"), "--placement", "single", "--no-report"]
    assert call([*words, "--out", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture
def copy(attacked: Path, tmp_path: Path) -> Path:
    """Return a copy of the run that a test may spoil."""
    for path in attacked.rglob("*"):
        if path.is_file():
            target = tmp_path / "was" / path.relative_to(attacked)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return tmp_path / "was"


def replay_as_json(
    folder: Path, out: Path, capsys: pytest.CaptureFixture[str], *more: str
) -> tuple[int, dict]:
    code = call(["replay", str(folder), "--out", str(out), "--json", *more])
    return code, json.loads(capsys.readouterr().out)


def test_a_run_is_repeated_to_the_last_byte_from_its_folder_alone(
    attacked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)  # not where the scenario is
    code, said = replay_as_json(attacked, tmp_path / "again", capsys, "--placement", "thread")
    assert (code, said["identical"], said["first_difference"]) == (0, True, None)
    folders = ("signals", "attack", "labels", "seen")
    assert said["files"] == sum(len(list((attacked / f).iterdir())) for f in folders)
    assert read_truth(attacked).num_rows > 10


def test_the_first_difference_is_named_by_file_time_and_label(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copy / "signals" / "feeder.v_pu.parquet"
    table = pq.read_table(path)
    values = table["671.1"].to_pylist()
    values[7] = np.nextafter(values[7], 2.0)
    column = table.column_names.index("671.1")
    pq.write_table(table.set_column(column, "671.1", pa.array(values)), path)
    code, said = replay_as_json(copy, tmp_path / "again", capsys)
    assert code == 3
    assert said["different_files"] == 1
    first = said["first_difference"]
    assert (first["file"], first["time_s"], first["label"]) == (
        "signals/feeder.v_pu.parquet",
        105.0,
        "671.1",
    )


def test_a_killed_run_is_compared_as_far_as_it_came(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in [*(copy / "labels").iterdir(), copy / "summary.json"]:
        path.unlink()
    for path in (copy / "signals").iterdir():
        table = pq.read_table(path).slice(0, 5)
        stream = path.with_suffix(".arrows")
        with pa.OSFile(str(stream), "wb") as file, pa.ipc.new_stream(file, table.schema) as out:
            out.write_table(table)
        path.unlink()
    manifest = json.loads((copy / "manifest.json").read_text()) | {"status": "running"}
    (copy / "manifest.json").write_text(json.dumps(manifest))
    for path in (copy / "attack").iterdir():
        path.unlink()
    code, said = replay_as_json(copy, tmp_path / "again", capsys)
    assert (code, said["identical"], said["whole"]) == (0, True, False)
    assert said["files"] == len(list((copy / "signals").iterdir()))


def test_other_versions_are_told_of(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["versions"]["numpy"] = "1.0"
    (copy / "manifest.json").write_text(json.dumps(manifest))
    code, said = replay_as_json(copy, tmp_path / "again", capsys)
    assert code == 0
    assert [w.startswith("numpy was 1.0, is ") for w in said["warnings"]] == [True]


def test_what_is_no_run_cannot_be_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["replay", str(tmp_path)]) == 2
    assert "not the folder of a run" in capsys.readouterr().err
    assert call(["replay", str(tmp_path), "--offset", "3"]) == 2
    assert "--offset needs --into" in capsys.readouterr().err


def test_runs_with_other_files_differ(attacked: Path, copy: Path) -> None:
    (copy / "signals" / "feeder.losses_kw.parquet").unlink()
    verdict = compare_runs(copy, attacked)
    assert str(verdict.first) == "signals/feeder.losses_kw: written again, not before"


# --- traces ----------------------------------------------------------------------------------


def write_trace(path: Path, port: str = "volt_var.v_pu", label: str = "671.1") -> Path:
    rows = [f"{t},{port},{label},{1.0 + t / 1000}" for t in range(0, 60, 15)]
    path.write_text("\n".join(["time,port,label,value", *rows]))
    return path


def play(attacked: Path, trace: Path, out: Path, *more: str) -> int:
    scenario = str(attacked.parent / "study.yaml")
    words = ["replay", str(trace), "--into", scenario, "--placement", "single", "--out", str(out)]
    return call([*words, *more])


def test_a_trace_plays_from_its_offset_at_its_speed_and_then_ends(
    attacked: Path, tmp_path: Path
) -> None:
    trace = write_trace(tmp_path / "trace.csv")
    assert play(attacked, trace, tmp_path / "run", "--offset", "120", "--speed", "0.5") == 0
    _, labels, seen = read_signal(tmp_path / "run" / "signals", "attack.feeder-v_pu")
    seen = seen[:, labels.index("671.1")]
    _, all_labels, v_pu = read_signal(tmp_path / "run" / "signals", "feeder.v_pu")
    true = v_pu[:, all_labels.index("671.1")]
    # Half the speed: each of the four rows lasts two steps of 15 s, from 120 s to 240 s.
    expected = np.repeat([1.0, 1.015, 1.03, 1.045], 2)
    np.testing.assert_array_equal(seen[8:16], expected)
    np.testing.assert_array_equal(seen[:8], true[:8])
    np.testing.assert_array_equal(seen[16:], true[16:])
    assert call(["replay", str(tmp_path / "run"), "--out", str(tmp_path / "again")]) == 0


def test_a_disturbance_is_not_called_an_attack(attacked: Path, tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "trace.csv")
    assert play(attacked, trace, tmp_path / "run", "--as", "disturbance") == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Disturbance: The trace trace.csv" in page
    assert "Attack:" not in page
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["command"].startswith(f"feederate replay {trace} --into ")
    assert "--as disturbance" in manifest["command"]
    assert not (tmp_path / "run" / "labels").exists()


def test_what_was_seen_in_an_attacked_run_is_a_trace(attacked: Path, tmp_path: Path) -> None:
    times, ports, labels, values = read_trace(attacked)
    truth = read_truth(attacked)
    assert len(times) == truth.num_rows
    assert set(ports) == {"feeder.v_pu"}
    assert labels == truth["label"].to_pylist()
    np.testing.assert_array_equal(values, truth["seen_value"].to_pylist())
    # Played into the same scenario it shows the same, without the attacker.
    assert play(attacked, attacked, tmp_path / "run") == 0
    time_s, names, seen = read_signal(tmp_path / "run" / "signals", "attack.feeder-v_pu")
    rows = np.searchsorted(time_s, times)
    np.testing.assert_array_equal(seen[rows, [names.index(x) for x in labels]], values)


def test_rows_that_are_no_signal_are_left_out_and_said(
    attacked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = read_truth(attacked)
    mail = pa.table(
        {
            "time_s": [60.0, 75.0],
            "federate": ["volt_var"] * 2,
            "port": ["mail", "attack_connected"],
            "label": ["a>b:x[0]", "der.pv"],
            "true_value": [0.0, 0.0],
            "seen_value": [1.0, 1.0],
            "step": ["noise"] * 2,
        }
    )
    both = pa.concat_tables([truth.cast(mail.schema), mail])
    pq.write_table(both, tmp_path / "truth.parquet")

    assert play(attacked, tmp_path / "truth.parquet", tmp_path / "run") == 0

    said = capsys.readouterr().err
    assert "1 rows of mail are not played; a trace plays signals only" in said
    assert "1 rows of states of grid elements are not played" in said
    _, _, seen = read_signal(tmp_path / "run" / "signals", "attack.feeder-v_pu")
    assert np.isin(truth["seen_value"].to_pylist(), seen).all()
    pq.write_table(mail, tmp_path / "mail.parquet")
    assert play(attacked, tmp_path / "mail.parquet", tmp_path / "none") == 2
    assert "mail.parquet: holds no value of a signal" in capsys.readouterr().err


def test_a_recorded_signal_is_a_trace_of_its_port(attacked: Path) -> None:
    path = attacked / "signals" / "feeder.v_pu.parquet"
    times, ports, labels, values = read_trace(path)
    time_s, names, v_pu = read_signal(attacked / "signals", "feeder.v_pu")
    assert set(ports) == {"feeder.v_pu"}
    chosen = np.array([label == "671.1" for label in labels])
    np.testing.assert_array_equal(times[chosen], time_s)
    np.testing.assert_array_equal(values[chosen], v_pu[:, names.index("671.1")])
    spec = trace_attack(path, "attack", 0.0, 1.0, 300.0, 15.0)
    assert spec.steps[0].target.labels == ["*"]  # nobody reads some of its nodes


@pytest.mark.parametrize(
    ("port", "label", "more", "words"),
    [
        ("volt_var.v_p", "671.1", (), "did you mean 'volt_var.v_pu'?"),
        ("volt_var.v_pu", "671.4", (), "no label of volt_var.v_pu matches '671.4'"),
        ("volt_var.v_pu", "671.1", ("--offset", "900"), "would play from 900 to 960 s"),
        ("volt_var.v_pu", "671.1", ("--speed", "0"), "the speed above 0"),
        ("volt_var.v_pu", "671.1", ("--speed", "1e9"), "at least 1e-06 s of the run"),
        ("volt_var.v_pu", "671.1", ("--offset", "1e308", "--speed", "1e-308"), "0 to 300 s"),
    ],
)
def test_a_trace_that_does_not_fit_is_exit_code_2(
    attacked: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    port: str,
    label: str,
    more: tuple[str, ...],
    words: str,
) -> None:
    trace = write_trace(tmp_path / "trace.csv", port, label)
    assert play(attacked, trace, tmp_path / "run", *more) == 2
    said = capsys.readouterr().err
    assert words in said
    assert "trace.csv" in said
    assert not (tmp_path / "run").exists()


def test_a_table_without_the_columns_says_which(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("time,ports,label,value\n0,a,b,1\n")
    with pytest.raises(ScenarioError, match="no column 'port'"):
        trace_attack(path, "attack", 0.0, 1.0, 300.0, 15.0)
    path.write_text("time,port,label,value\n0,a,b,\n")
    with pytest.raises(ScenarioError, match="holds no value"):
        trace_attack(path, "attack", 0.0, 1.0, 300.0, 15.0)


def test_a_trace_that_goes_on_after_the_run_is_played_as_far_as_it_goes(
    attacked: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text(
        "time_s,port,label,value\n60,volt_var.v_pu,671.1,1.01\n5e9,volt_var.v_pu,671.1,1.02\n"
    )
    assert play(attacked, trace, tmp_path / "run") == 0
    rows = read_truth(tmp_path / "run").to_pylist()
    assert [r["time_s"] for r in rows] == list(np.arange(60.0, 300.0, 15.0))
    assert {r["seen_value"] for r in rows} == {1.01}


def test_a_trace_at_next_to_no_speed_shows_its_first_row_throughout(
    attacked: Path, tmp_path: Path
) -> None:
    trace = write_trace(tmp_path / "trace.csv")
    assert play(attacked, trace, tmp_path / "run", "--speed", "1e-300") == 0
    rows = read_truth(tmp_path / "run").to_pylist()
    assert [r["seen_value"] for r in rows] == [1.0] * 20


def test_the_offset_that_a_message_gives_is_the_one_to_give(
    attacked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seconds since 1970: six digits are not enough to say when."""
    trace = tmp_path / "trace.csv"
    rows = [f"{1704067215.25 + t},volt_var.v_pu,671.1,{1.0 + t / 1000}" for t in (0, 15, 30)]
    trace.write_text("\n".join(["time,port,label,value", *rows]))
    assert play(attacked, trace, tmp_path / "run") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "would play from 1704067215 to" in said
    offset = said.partition("--offset ")[2].split()[0]
    assert offset == "-1704067215.25"
    assert play(attacked, trace, tmp_path / "run", "--offset", offset) == 0
    seen = [r["seen_value"] for r in read_truth(tmp_path / "run").to_pylist()]
    assert seen == [1.0, 1.015, 1.03]
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert f"--offset {offset} --speed 1 " in manifest["command"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.csv", "time_s,port,label,value\n0,f.v,a,abc\n", "is not of numbers: found 'abc'"),
        ("t.csv", "time_s,port,label,value\n0,a\n", "as many fields in every row"),
        ("t.csv", "", "cannot be read as a table"),
        ("t.parquet", "PAR1", "expected a complete Parquet file"),
    ],
)
def test_a_file_that_is_no_trace_is_said_in_our_words(
    tmp_path: Path, name: str, content: str, words: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ScenarioError) as caught:
        read_trace(tmp_path / name)
    assert words in str(caught.value)
    assert not any(
        raw in str(caught.value) for raw in ("cast_", "Errno", "Arrow", "scalar", "CSV p")
    )
