"""Labels have the shape of the signals and tell exactly what the ground truth tells."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from federates.attacks import labels as labels_module
from federates.attacks.labels import attack_windows, write_labels
from federates.attacks.plan import AttackPlan
from federates.attacks.truth import TruthWriter, read_truth
from federates.core.signals import SignalWriter, read_signal, signal_names
from federates.errors import RunError
from federates.runs.runner import run
from federates.scenario.attack_schedule import AttackSchedule
from federates.scenario.attack_schema import AttackSpec
from federates.scenario.schema import load_scenario

ATTACK = """\
id: labels
steps:
  - id: first
    layer: signal
    target: {port: volt_var.v_pu, count: 4}
    trigger: {at_s: 25}
    duration_s: 20
    action: {kind: bias, value: 0.01}
  - id: second
    layer: signal
    target: {port: feeder.q_set_kvar, labels: ["pv_6*"]}
    trigger: {after: first, delay_s: 10}
    duration_s: 10
    probability: 0.5
    action: {kind: set, value: 0}
  - id: third
    layer: physical
    target: {elements: ["load.load_6*"]}
    trigger: {at_s: 60}
    duration_s: 15
    probability: 0.7
    action: {kind: load, kw: 10}
"""


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with three controllers under the three steps."""
    tmp_path = tmp_path_factory.mktemp("labels")
    (tmp_path / "a.yaml").write_text(ATTACK)
    scenario = load_scenario(
        "voltvar-ieee13",
        ["time.step_s=5", "time.duration_s=100", "federates.volt_var.split=3"],
        attack=str(tmp_path / "a.yaml"),
    )
    return run(scenario, out=tmp_path / "run", placement="single").folder


def test_labels_are_aligned_with_every_signal_and_count_what_was_forged(attacked: Path) -> None:
    folder = attacked
    truth = read_truth(folder)
    assert attack_windows(folder) == [
        ("first", 25.0, 45.0),
        ("second", 57.5, 67.5),
        ("third", 60.0, 75.0),
    ]
    # Beside the true values of a port, and beside what the attack made of them.
    true, seen = {1: 0, 2: 0, 3: 0}, {1: 0, 2: 0, 3: 0}
    for name in signal_names(folder / "signals"):
        time_s, labels, _ = read_signal(folder / "signals", name)
        table = pq.read_table(folder / "labels" / f"{name}.parquet")
        assert table.column_names == ["time_s", "under_attack", *labels]
        assert np.array_equal(np.asarray(table["time_s"]), time_s)
        marks = np.array([np.asarray(table[x]) for x in labels])
        counts = seen if name.startswith("attack") else true
        for k in counts:
            counts[k] += int((marks == k).sum())
    steps = truth["step"].to_pylist()
    assert seen == {1: steps.count("first"), 2: steps.count("second"), 3: steps.count("third")}
    # What the attack does to the grid is no port of the grid's that is recorded.
    assert true == {1: seen[1], 2: seen[2], 3: 0}
    assert seen[1] == 4 * 4
    assert seen[2] > 0
    assert seen[3] > 0
    assert seen[3] % 3 == 0  # each element that obeys, at 60, 65 and 70 s


def test_true_value_seen_value_and_label_stand_side_by_side(attacked: Path) -> None:
    names = signal_names(attacked / "seen")
    assert "feeder.v_pu" in names
    assert any(n.startswith("volt_var") and n.endswith(".q_set_kvar") for n in names)
    differ = 0
    for name in names:
        true, seen, label = (
            pq.read_table(attacked / folder / f"{name}.parquet")
            for folder in ("signals", "seen", "labels")
        )
        assert true.column_names == seen.column_names
        assert true["time_s"] == seen["time_s"] == label["time_s"]
        for column in true.column_names[1:]:
            other = np.asarray(true[column]) != np.asarray(seen[column])
            assert np.array_equal(other, np.asarray(label[column]) > 0), (name, column)
            differ += int(other.sum())
    rows = read_truth(attacked).to_pylist()
    assert differ == sum(r["step"] in ("first", "second") for r in rows) > 0


def test_metadata_are_attributes_in_pandas(attacked: Path) -> None:
    for folder in ("seen", "labels"):
        table = pd.read_parquet(attacked / folder / "feeder.v_pu.parquet")
        assert table.attrs == {
            "title": "OPTDIST-VC on IEEE 13, a PV-rich day",
            "seed": 1,
            "version": metadata.version("feederate"),
            "attack": "labels",
            "steps": {"0": "none", "1": "first", "2": "second", "3": "third"},
            "unit": "pu",
        }


def test_tripped_ders_are_marked_in_their_powers(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "id: trip\nsteps:\n  - {id: cut, layer: physical, trigger: {at_s: 10}, duration_s: 15,\n"
        "     target: {elements: ['der.*'], count: 2}, action: {kind: trip}}\n"
    )
    scenario = load_scenario(
        "voltvar-ieee13", ["time.start_s=43200"], attack=str(tmp_path / "a.yaml")
    )
    folder = run(scenario, out=tmp_path / "run", placement="single", steps=8).folder
    cut = {r["label"].removeprefix("der.") for r in read_truth(folder).to_pylist()}
    assert len(cut) == 2
    for port in ("p_kw", "q_kvar"):
        marks = pd.read_parquet(folder / "labels" / f"feeder.{port}.parquet").set_index("time_s")
        power = pd.read_parquet(folder / "signals" / f"feeder.{port}.parquet").set_index("time_s")
        for der in power.columns:
            times = [10.0, 15.0, 20.0] if der in cut else []
            assert list(marks.index[marks[der] == 1]) == times
            assert (power.loc[times, der] == 0.0).all()
    nodes = pd.read_parquet(folder / "labels" / "feeder.v_pu.parquet")
    assert not nodes.drop(columns=["time_s", "under_attack"]).any(axis=None)


def test_a_grid_of_another_name_is_called_by_it(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(
        "time: {duration_s: 40, step_s: 5}\ngrid: {model: ieee13}\n"
        "federates: {net: {kind: feeder}}\n"
        "attack:\n  id: a\n  steps:\n    - {id: s, layer: physical, trigger: {at_s: 10},\n"
        "       duration_s: 15, target: {elements: ['load.load_634a']}, "
        "action: {kind: load, kw: 5}}\n"
    )
    scenario = load_scenario(tmp_path / "study.yaml")
    folder = run(scenario, out=tmp_path / "run", placement="single").folder
    rows = read_truth(folder).to_pylist()
    assert [(r["federate"], r["port"], r["time_s"]) for r in rows] == [
        ("net", "attack_load_kw", t) for t in (10.0, 15.0, 20.0)
    ]
    name = "attack.attack_load_kw"
    values = read_signal(folder / "signals", name)[2][:, 0]
    marks = np.asarray(pq.read_table(folder / "labels" / f"{name}.parquet")["load.load_634a"])
    assert (values != 0.0).sum() == 3
    assert np.array_equal(marks, values != 0.0)


def _many_steps(n: int) -> AttackPlan:
    step = {
        "layer": "signal",
        "trigger": {"at_s": 0.0},
        "target": {"port": "feeder.v_pu"},
        "action": {"kind": "drop"},
    }
    steps = [step | {"id": f"s{i}"} for i in range(n)]
    return AttackPlan(AttackSchedule.of(AttackSpec.model_validate({"id": "a", "steps": steps})), {})


@pytest.mark.parametrize(("n", "bits"), [(1, 8), (127, 8), (128, 16), (300, 16)])
def test_the_number_of_the_last_step_of_many_fits(tmp_path: Path, n: int, bits: int) -> None:
    plan = _many_steps(n)
    (tmp_path / "signals").mkdir()
    writer = SignalWriter(tmp_path / "signals" / "feeder.v_pu", ("a", "b"))
    writer.write(np.array([0.0, 1.0]), np.ones((2, 2)))
    writer.close()
    truth = TruthWriter(tmp_path, "attack", [("feeder", "v_pu", ("a", "b"))], plan.schedule.ids)
    truth.add(1.0, 0, np.array([1]), np.ones(1), np.zeros(1), n - 1)
    truth.close()
    write_labels(tmp_path, plan, {})
    table = pq.read_table(tmp_path / "labels" / "feeder.v_pu.parquet")
    assert [table[x].to_pylist() for x in ("a", "b")] == [[0, 0], [0, n]]
    assert {table.schema.field(x).type.bit_width for x in ("a", "b")} == {bits}


# -- runs that do not end well ---------------------------------------------------------------------

NAN = """\
import numpy as np

class Nan:
    def __init__(self, site):
        self.n = len(site.targets)

    def decide(self, time_s, elapsed_s, true, seen):
        return np.full(self.n, np.nan)
"""


def test_a_value_refused_at_the_first_step_is_the_cause_of_the_failure(tmp_path: Path) -> None:
    """Of the port that was forged not a row is recorded, while the truth has some."""
    (tmp_path / "labels_nan.py").write_text(NAN)
    (tmp_path / "a.yaml").write_text(
        "id: a\nsteps:\n  - {id: s, layer: signal, trigger: {at_s: 0}, "
        "target: {port: volt_var.v_pu},\n     "
        "action: {kind: adaptive, attacker: 'labels_nan:Nan'}}\n"
    )
    scenario = load_scenario("voltvar-ieee13", attack=str(tmp_path / "a.yaml"))
    with pytest.raises(RunError, match="gave nan for"):
        run(scenario, out=tmp_path / "run", placement="single", steps=3)
    folder = tmp_path / "run"
    summary = json.loads((folder / "summary.json").read_text())
    manifest = json.loads((folder / "manifest.json").read_text())
    events = (folder / "events.jsonl").read_text()
    for book in (summary, manifest):
        assert book["status"] == "failed"
        assert "gave nan for" in book["reason"]
    assert '"event": "failed"' in events
    assert "labels_not_written" not in events
    assert read_truth(folder).num_rows > 0
    table = pq.read_table(folder / "labels" / "attack.feeder-v_pu.parquet")
    assert table.num_rows == 0
    assert table.num_columns > 2


def test_labels_that_cannot_be_written_do_not_fail_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("a table out of joint")

    monkeypatch.setattr(labels_module, "write_labels", broken)
    (tmp_path / "a.yaml").write_text(ATTACK)
    scenario = load_scenario("voltvar-ieee13", attack=str(tmp_path / "a.yaml"))
    result = run(scenario, out=tmp_path / "run", placement="single", steps=3)
    assert result.summary["status"] == "finished"
    events = [json.loads(x) for x in (result.folder / "events.jsonl").read_text().splitlines()]
    assert [e["reason"] for e in events if e["event"] == "labels_not_written"] == [
        "ValueError: a table out of joint"
    ]
