"""Data sets: what the tables hold, that they are made again byte for byte, and what is refused."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federates.cli import call
from federates.errors import RunError, ScenarioError, WiringError
from federates.runs.dataset import Dataset, dataset
from federates.runs.dataset_plan import begin_overrides, lead_steps, plan_dataset
from federates.runs.options import RunOptions
from federates.scenario.attack_schema import AttackSpec
from grid_models.base.errors import FeederateError

ROOT = Path(__file__).parents[3]
STEPS, STEP_S = 40, 5
LEAD = 12  # the attack may have lasted a minute before the first row
LIE = """\
id: lie
title: Six voltages lie
seed: 3
techniques: [T0856]
steps:
  - {id: bias, layer: signal, trigger: {at_s: 43200}, duration_s: 60,
     target: {port: feeder.v_pu, count: 6}, action: {kind: bias, value: 0.05}}
  - {id: secret, layer: signal, trigger: {at_s: 43230}, duration_s: 30,
     target: {port: volt_var.v_pu, labels: ["675.1"]}, action: {kind: bias, value: -0.5}}
"""
NOON = {"time.start_s": 43200, "grid.load_diversity": 0.1}


@pytest.fixture(scope="module")
def attack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("attack") / "lie.yaml"
    path.write_text(LIE)
    return path


@pytest.fixture(scope="module")
def made(attack: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Two seeds of IEEE 13, the second is the test."""
    out = tmp_path_factory.mktemp("dataset") / "lies"
    return dataset("voltvar-ieee13", attack, seeds=2, out=out, steps=STEPS, set=NOON)


def tables(made: Dataset) -> dict[str, pd.DataFrame]:
    return {r["run"]: pd.read_parquet(made.folder / r["table"]) for r in made.runs}


def test_a_run_per_seed_and_attack_split_by_seed(made: Dataset) -> None:
    rows = pd.read_csv(made.folder / "runs.csv", keep_default_na=False)
    assert list(rows["run"]) == ["clean-1", "lie-1", "clean-2", "lie-2"]
    assert list(rows["split"]) == ["train"] * 2 + ["test"] * 2
    assert not made.warnings
    begins = [float(b) for b in rows["begin_s"] if b]
    assert len(set(begins)) == 2  # a model cannot learn the clock
    assert (rows["rows"] == STEPS - LEAD).all()
    assert [n > 0 for n in rows["rows_under_attack"]] == [False, True, False, True]
    assert not (made.folder / ".runs").exists()


def test_a_table_holds_what_the_operator_read_and_when_it_was_forged(made: Dataset) -> None:
    found = tables(made)
    untouched = 0
    for seed in (1, 2):
        clean, lie = found[f"clean-{seed}"], found[f"lie-{seed}"]
        assert list(clean) == list(lie)
        assert list(lie["time_s"]) == [STEP_S * k for k in range(LEAD, STEPS)]
        truth = pd.read_parquet(made.folder / "truth" / f"lie-{seed}.parquet")
        forged = truth[truth["port"].eq("v_pu") & truth["step"].eq("bias")]
        assert sorted(forged["time_s"].unique()) == list(lie["time_s"][lie["step"] > 0])
        for label, rows in forged.groupby("label", observed=True):
            read = lie.set_index("time_s").loc[rows["time_s"], f"feeder.v_pu:{label}"]
            noise = read.to_numpy() - rows["seen_value"].to_numpy()
            assert np.abs(noise).max() < 5 * 0.001
            assert (noise != 0.0).all()
        before = lie["time_s"] < lie["time_s"][lie["under_attack"] == 1].min()
        untouched += before.sum()
        # Before the attack both runs are the same, to the last bit of the sensors' noise.
        pd.testing.assert_frame_equal(clean[before], lie[before], check_exact=True)
        # What only the controller was shown did not reach the operator.
        assert lie["feeder.v_pu:675.1"].min() > 0.8
        assert (truth["port"] != "q_set_kvar").all()
    assert untouched


def test_the_recovery_is_neither_attacked_nor_clean(made: Dataset) -> None:
    for row in made.runs:
        table = pd.read_parquet(made.folder / row["table"])
        end_s = float(row["end_s"] or np.inf)
        assert list(table["recovering"]) == list((table["time_s"] >= end_s).astype(int))
        assert not (table["recovering"] & table["under_attack"]).any()


def test_metadata_name_units_steps_and_seed(made: Dataset) -> None:
    attrs = tables(made)["lie-2"].attrs
    assert attrs["steps"] == {"0": "none", "1": "bias", "2": "secret"}
    assert (attrs["seed"], attrs["attack"], attrs["split"]) == (2, "lie", "test")
    assert attrs["units"]["feeder.import_kw"] == "kW"
    assert tables(made)["clean-2"].attrs["attack"] is None


def test_the_command_of_the_card_makes_the_same_bytes(
    made: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = json.loads((made.folder / "manifest.json").read_text())
    card = (made.folder / "README.md").read_text()
    assert manifest["command"] in card
    assert "CC-BY-4.0" in card
    assert "| train | lie | 1 | 28 | " in card
    words = shlex.split(manifest["command"])[1:]
    words[words.index("DIR")] = str(tmp_path / "again")
    assert call([*words, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [r["run"] for r in said["runs"]] == [r["run"] for r in made.runs]
    again = tmp_path / "again"
    assert json.loads((again / "manifest.json").read_text()) == manifest
    assert manifest["not_reproducible"] == []
    files = {p.relative_to(again).as_posix() for p in again.rglob("*") if p.is_file()}
    assert files == {*manifest["files"], "manifest.json"}
    for name in files:
        assert (again / name).read_bytes() == (made.folder / name).read_bytes(), name


def test_a_classifier_learns_from_it(made: Dataset) -> None:
    """The script of the docs; it may print no warning."""
    script = ROOT / "docs" / "examples" / "python" / "train_on_dataset.py"
    lines = [line for line in script.read_text().splitlines()[1:] if line.strip()]
    assert len(lines) <= 15
    done = subprocess.run(
        [sys.executable, "-W", "error", script, made.folder],
        capture_output=True, text=True, check=True, timeout=120,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert "weighted avg" in done.stdout
    assert done.stderr == ""


DEVICE = """\
time: {start_s: 43200, duration_s: 60, step_s: 5}
grid: {model: ieee13, ders: [{kind: pv, at: load_phases, total_kw: 900}]}
federates:
  feeder: {kind: feeder}
  bench: {kind: device, devices: {pv_671_1: emulated}}
connections:
  - feeder.v_pu -> bench.v_pu
  - bench.p_kw -> feeder.p_meas_kw
  - bench.q_kvar -> feeder.q_meas_kvar
"""
MITM = """\
id: view
steps:
  - {id: view, layer: modbus, trigger: {at_s: 10}, duration_s: 20, target: {devices: ["*"]},
     action: {kind: rewrite, point: p_w, value: 1000}}
"""


def test_of_a_device_the_operator_reads_what_its_adapter_reads(tmp_path: Path) -> None:
    (tmp_path / "bench.yaml").write_text(DEVICE)
    (tmp_path / "view.yaml").write_text(MITM)
    made = dataset(
        tmp_path / "bench.yaml", tmp_path / "view.yaml", seeds=2, out=tmp_path / "out", workers=1
    )
    found = tables(made)
    for seed in (0, 1):
        # The label is that of the reading, although a device is read between the plant's steps.
        read, step = (found[f"view-{seed}"][c] for c in ("bench.p_kw:pv_671_1", "step"))
        assert list(read.between(-1, 3)) == list(step == 1)
        assert (step == 1).any()
    assert (found["clean-1"]["bench.p_kw:pv_671_1"] > 10).all()
    for table in found.values():
        # The plant knows the truth of the device; of other DERs it is what their meters say.
        assert "feeder.p_kw:pv_671_1" not in table
        assert "feeder.p_kw:pv_671_2" in table
    names = json.loads((made.folder / "manifest.json").read_text())["not_reproducible"]
    assert names == [f"pcap/{r}/pv_671_1.pcapng" for r in sorted(found)]
    assert all((made.folder / name).stat().st_size > 1000 for name in names)
    assert "captures excepted" in (made.folder / "README.md").read_text()


# -- the plan ------------------------------------------------------------------------------------


def test_an_attack_can_be_kept_from_training(attack: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(LIE.replace("id: lie", "id: other"))
    options = RunOptions("voltvar-ieee13", steps=STEPS)
    plan = plan_dataset(options, [str(attack), str(other)], [4, 9, 2], 0.3, ["other"], {})
    assert [(r.split, r.name) for r in plan.runs] == [
        ("train", "clean-4"), ("train", "lie-4"), ("train", "clean-9"), ("train", "lie-9"),
        ("test", "clean-2"), ("test", "lie-2"), ("test", "other-2"),
    ]  # fmt: skip


def test_sensors_can_be_added_and_changed(attack: Path) -> None:
    options = RunOptions("voltvar-ieee13", steps=STEPS)
    noise = {"v_pu": 0.01, "volt_var.q_set_kvar": 0.0}
    plan = plan_dataset(options, [str(attack)], 2, 0.5, [], noise)
    found = {s.source: s.noise for s in plan.sensors}
    assert found["feeder.v_pu"] == 0.01
    assert found["feeder.import_kw"] == 5.0
    assert found["volt_var.q_set_kvar"] == 0.0


def spec_of(begin_s: float, length_s: float, wait_s: float) -> AttackSpec:
    step = {
        "layer": "signal",
        "target": {"port": "feeder.v_pu"},
        "action": {"kind": "drop"},
        "duration_s": length_s,
    }
    times = (begin_s, begin_s + wait_s)
    steps = [step | {"id": f"s{k}", "trigger": {"at_s": t}} for k, t in enumerate(times)]
    return AttackSpec.model_validate({"id": "a", "seed": 5, "steps": steps})


def begins_of(spec: AttackSpec, seed: int) -> list[float]:
    lead = lead_steps({"a": spec}, 200, 5.0)
    words = dict(w.split("=") for w in begin_overrides(spec, lead, 200, 5.0, seed))
    assert words.pop("attack.seed") == str(5 + seed)
    return [float(words[f"attack.steps.{k}.trigger.at_s"]) for k in (0, 1)]


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10_000),
    begin_s=st.floats(0, 1e5),
    length_s=st.floats(1, 300),
    wait_s=st.floats(0, 200),
)
def test_attacks_are_active_in_a_row_and_keep_their_shape(
    seed: int, begin_s: float, length_s: float, wait_s: float
) -> None:
    spec = spec_of(begin_s, length_s, wait_s)
    lead_s = 5.0 * lead_steps({"a": spec}, 200, 5.0)
    first_s, second_s = begins_of(spec, seed)
    assert lead_s - 5.0 < length_s + wait_s <= lead_s + 1e-6
    assert first_s >= -1e-6
    assert second_s < 1000.0
    assert second_s + length_s > lead_s  # the last row before the end, or any before
    assert second_s - first_s == pytest.approx(wait_s, abs=1e-6)
    assert first_s / 5.0 == pytest.approx(round(first_s / 5.0), abs=1e-6)


def test_no_time_of_a_run_is_attacked_more_often_than_another() -> None:
    spec, rows = spec_of(43200.0, 250.0, 0.0), np.arange(50, 200) * 5.0
    begins = np.array([begins_of(spec, seed)[0] for seed in range(200)])[:, None]
    share = ((rows >= begins) & (rows < begins + 250.0)).mean(axis=0)
    assert np.allclose(share, 50 / 199, atol=0.02)
    share = ((rows >= begins[3:11]) & (rows < begins[3:11] + 250.0)).mean(axis=0)
    assert np.allclose(share, 0.25, atol=0.13)  # of eight seeds two each, or one, or three


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attacks", "changes", "words"),
    [
        ("lie", {"seeds": 1}, "seeds: 1: too few to split; expected at least 2"),
        ("lie", {"seeds": [3, 3]}, "a seed twice"),
        ("lie", {"test_share": 1.5}, "test share: 1.5; expected above 0 and below 1"),
        ("lie", {"steps": 10}, "expected at least 24 steps"),
        ("lie", {"noise": {"v_pv": 1.0}}, "no output is called 'v_pv'.*'v_pu'"),
        ("lie", {"noise": {"v_pu": -1.0}}, "noise v_pu: -1; expected 0 or more"),
        ("lie", {"unseen": ["lies"]}, "'lies' is none of the attacks.*'lie'"),
        ("lie", {"unseen": ["lie"]}, "no attack is left to train with"),
        ("lie lie", {}, "two attacks are called 'lie'"),
        ("", {}, "no attack is named"),
        ("lyingagent", {}, "no shipped attack.*'lying-agent'"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_started(
    attack: Path, tmp_path: Path, attacks: str, changes: dict[str, object], words: str
) -> None:
    files = [str(attack) if word == "lie" else word for word in attacks.split()]
    given = {"seeds": 2, "steps": STEPS, "out": tmp_path / "out"} | changes
    with pytest.raises(ScenarioError) as error:
        dataset("voltvar-ieee13", files, **given)  # type: ignore[arg-type]
    assert re.search(words, str(error.value), re.DOTALL), str(error.value)
    assert not (tmp_path / "out").exists()


def test_an_attack_that_does_not_fit_is_refused_with_its_line(tmp_path: Path) -> None:
    changes = {"attack.steps.0.duration_s": 60}
    with pytest.raises(WiringError, match=r"lying-agent.yaml:\d+.*pv_76_1"):
        dataset(
            "voltvar-ieee13", "lying-agent", seeds=2, steps=STEPS, out=tmp_path / "o", set=changes
        )
    assert not (tmp_path / "o").exists()


def test_nested_overrides_change_single_keys(tmp_path: Path) -> None:
    changes = {"time": {"start_s": 43200}}
    with pytest.raises(ScenarioError, match="the runs last 300 s"):  # 60 steps of 5 s
        dataset("voltvar-ieee13", "false-voltage", seeds=2, steps=60, out=tmp_path, set=changes)


def test_a_folder_that_is_not_empty_is_kept(
    made: Dataset, attack: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["dataset", "voltvar-ieee13", str(attack), "--seeds", "2", "--out", str(made.folder)]
    assert call(words) == 2
    assert "exists already; expected the path of a new or empty folder" in capsys.readouterr().err
    assert call(words[:-2]) == 2
    assert "--out" in capsys.readouterr().err


def test_a_disk_without_room_is_seen_before_the_first_run(
    attack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(ScenarioError, match=r"no room: 4 runs of 40 steps, .* 0 MB free"):
        dataset("voltvar-ieee13", attack, seeds=2, steps=STEPS, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_that_fails_ends_the_data_set(tmp_path: Path) -> None:
    (tmp_path / "dataset_crash.py").write_text(
        "class Crash:\n"
        "    def __init__(self, site):\n        pass\n"
        "    def decide(self, time_s, elapsed_s, true, seen):\n        raise ValueError('ends')\n"
    )
    (tmp_path / "crash.yaml").write_text(
        "id: crash\nsteps:\n  - {id: s, layer: signal, trigger: {at_s: 0}, duration_s: 20, "
        "target: {port: volt_var.v_pu},\n     "
        "action: {kind: adaptive, attacker: 'dataset_crash:Crash'}}\n"
    )
    with pytest.raises(RunError, match="ends") as error:
        dataset(
            "voltvar-ieee13", tmp_path / "crash.yaml", seeds=2, steps=10, out=tmp_path / "out",
            workers=1,
        )  # fmt: skip
    assert isinstance(error.value, FeederateError)
    assert error.value.federate == "crash-1"
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert not (tmp_path / "out" / ".runs").exists()
