"""Labels have the shape of the signals and tell exactly what the ground truth tells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from federates.attacks.labels import attack_windows
from federates.attacks.truth import read_truth
from federates.runner import run
from federates.scenario import load_scenario
from federates.signals import read_signal, signal_names

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
"""


def test_labels_are_aligned_with_every_signal_and_count_what_was_forged(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(ATTACK)
    scenario = load_scenario(
        "voltvar-ieee13",
        ["time.step_s=5", "time.duration_s=100", "federates.volt_var.split=3"],
        attack=str(tmp_path / "a.yaml"),
    )
    folder = run(scenario, out=tmp_path / "run", placement="single").folder
    truth = read_truth(folder)
    assert attack_windows(folder) == [("first", 25.0, 45.0), ("second", 57.5, 67.5)]
    counts = {1: 0, 2: 0}
    for name in signal_names(folder / "signals"):
        time_s, labels, _ = read_signal(folder / "signals", name)
        table = pq.read_table(folder / "labels" / f"{name}.parquet")
        assert table.column_names == ["time_s", "under_attack", *labels]
        assert np.array_equal(np.asarray(table["time_s"]), time_s)
        if not name.startswith("attack"):
            marks = np.array([np.asarray(table[x]) for x in labels])
            for k in counts:
                counts[k] += int((marks == k).sum())
    steps = truth["step"].to_pylist()
    assert counts == {1: steps.count("first"), 2: steps.count("second")}
    assert counts[1] == 4 * 4
    assert counts[2] > 0
