"""Streams that a killed run left become tables; those of a run that goes on are left alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from federates.attacks.truth import TruthWriter, read_truth
from federates.core.signals import SignalWriter, read_signal
from federates.runs.killed import convert_streams


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """Return the folder of a run whose writers have died: copies of what they had flushed."""
    run, copy = tmp_path / "run", tmp_path / "copy"
    (run / "signals").mkdir(parents=True)
    (run / "manifest.json").write_text(json.dumps({"status": "running"}))
    signal = SignalWriter(run / "signals" / "f.v", ("a", "b"))
    truth = TruthWriter(run, "attack", [("f", "v", ["a", "b"])], ["s"])
    times = np.arange(3.0)
    signal.write(times, np.outer(times, [1.0, 2.0]))
    truth.add(times, 0, np.zeros(3, dtype=np.int64), np.ones(3), np.zeros(3), 0)
    truth.flush()
    shutil.copytree(run, copy)
    assert convert_streams(run) == [f"{run}: the run goes on; its streams are left as they are"]
    assert list(run.glob("*/*.arrows"))
    signal.close()
    truth.close()
    return copy


@pytest.mark.parametrize("paired", [False, True])
def test_streams_become_tables(killed: Path, paired: bool) -> None:
    folder = killed.parent if paired else killed
    said = convert_streams(folder)
    assert f"{killed}: the run was killed; 2 streams are Parquet tables now" in said
    assert not list(killed.glob("*/*.arrows"))
    time_s, labels, values = read_signal(killed / "signals", "f.v")
    assert (time_s.tolist(), labels) == ([0.0, 1.0, 2.0], ("a", "b"))
    assert values[:, 1].tolist() == [0.0, 2.0, 4.0]
    assert read_truth(killed).num_rows == 3
    assert convert_streams(folder) == []
