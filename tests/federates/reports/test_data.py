"""What a report reads from a run's folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federates.errors import ScenarioError
from federates.reports.recovery import voltage_tracks
from federates.runs.data import RunData, Spread
from federates.scenario.schema import Scenario

SCENARIO = {"title": "Two nodes", "federates": {"grid": {"kind": "feeder"}}}


def make_run(folder: Path, v_pu: np.ndarray, labels: list[str], *, closed: bool = True) -> Path:
    """Write a run with hand-made voltages; not closed is what kill -9 leaves."""
    (folder / "signals").mkdir(parents=True)
    scenario = Scenario.model_validate(SCENARIO).resolved()
    status = "finished" if closed else "running"
    manifest = {"status": status, "name": "two", "seed": 3, "scenario": scenario}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    columns = {"time_s": 60.0 * np.arange(len(v_pu)), **dict(zip(labels, v_pu.T, strict=True))}
    table = pa.table(columns)
    if closed:
        pq.write_table(table, folder / "signals" / "grid.v_pu.parquet")
        return folder
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table, max_chunksize=1)
    # Without the mark of the end (8 bytes), and with the head of a batch that never came.
    torn = sink.getvalue().to_pybytes()[:-8] + b"\xff\xff\xff\xff\x40"
    (folder / "signals" / "grid.v_pu.arrows").write_bytes(torn)
    return folder


@pytest.mark.parametrize("closed", [True, False])
def test_voltages_of_a_run_worked_by_hand(tmp_path: Path, closed: bool) -> None:
    v_pu = np.array([[1.00, 1.01, 0.99], [1.02, 1.07, 0.98], [1.01, 1.03, 0.91]])
    run = RunData(make_run(tmp_path / "r", v_pu, ["1.1", "2.1", "2.3"], closed=closed))

    voltages = run.plants[0].voltages

    assert voltages is not None
    # 0.91 is 0.04 below the band, 1.07 only 0.02 above it.
    assert voltages.worst_s == 120.0
    assert voltages.worst.tolist() == [1.01, 1.03, 0.91]
    assert voltages.extreme(highest=True) == ("2.1", 1.07, 60.0)
    assert voltages.extreme(highest=False) == ("2.3", 0.91, 120.0)
    assert list(voltages.phases) == ["A", "C"]
    assert voltages.phases["A"].high.tolist() == [1.01, 1.07, 1.03]
    assert voltages.phases["C"].mid.tolist() == [0.99, 0.98, 0.91]
    assert voltages.total.mid.tolist() == [1.00, 1.02, 1.01]
    assert run.status == ("finished" if closed else "not finished")


def test_labels_that_name_no_phase_are_one_group(tmp_path: Path) -> None:
    run = RunData(make_run(tmp_path / "r", np.ones((2, 3)), ["house", "1.2", "shop"]))

    assert run.plants[0].voltages is not None
    assert list(run.plants[0].voltages.phases) == ["B", "other"]


def test_a_run_without_steps_has_no_voltages(tmp_path: Path) -> None:
    run = RunData(make_run(tmp_path / "r", np.empty((0, 1)), ["1.1"], closed=False))

    assert run.plants[0].voltages is None
    assert run.plants[0].total("v_pu") is None


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="not the folder of a run"):
        RunData(tmp_path)


def test_a_torn_last_event_is_left_out(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "r", np.ones((1, 1)), ["1.1"])
    (folder / "events.jsonl").write_text('{"event": "started"}\n{"event": "fini')

    assert RunData(folder).events() == [{"event": "started"}]


@given(
    st.lists(st.floats(0.5, 1.5), min_size=1, max_size=300),
    st.integers(1, 50),
)
@settings(deadline=None)
def test_decimation_keeps_the_extremes_and_the_mean(values: list[float], bins: int) -> None:
    series = np.array(values)
    time_s = np.arange(len(series), dtype=np.float64)

    small = Spread(time_s, series, series, series).decimated(bins)

    assert len(small.time_s) == -(-len(series) // -(-len(series) // bins)) <= bins
    assert small.high.max() == series.max()
    assert small.low.min() == series.min()
    assert (np.diff(small.time_s) > 0).all()
    assert ((small.low <= small.mid + 1e-12) & (small.mid <= small.high + 1e-12)).all()


def test_voltages_of_dead_nodes_are_left_out_by_hand(tmp_path: Path) -> None:
    # Node 2.3 is cut off in the second sample, 2.1 in the second and the third.
    v_pu = np.array([[1.00, 1.01, 0.99], [1.02, 0.0, 0.0], [1.01, 0.0, 0.97]])
    run = RunData(make_run(tmp_path / "r", v_pu, ["1.1", "2.1", "2.3"]))

    voltages = run.plants[0].voltages

    assert voltages is not None
    assert voltages.total.low.tolist() == [0.99, 1.02, 0.97]
    assert voltages.total.mid.tolist() == [1.00, 1.02, 0.99]
    assert voltages.phases["A"].mid.tolist() == [1.005, 1.02, 1.01]
    np.testing.assert_array_equal(voltages.phases["C"].high, [0.99, np.nan, 0.97])
    assert voltages.node_low.tolist() == [1.00, 1.01, 0.97]
    assert voltages.extreme(highest=False) == ("2.3", 0.97, 120.0)
    assert voltages.worst_s == 120.0
    np.testing.assert_array_equal(voltages.worst, [1.01, np.nan, 0.97])


def test_a_run_of_dead_nodes_only_has_no_voltages(tmp_path: Path) -> None:
    run = RunData(make_run(tmp_path / "r", np.zeros((2, 2)), ["1.1", "2.1"]))

    assert run.plants[0].voltages is None


def test_two_plants_have_a_track_each(tmp_path: Path) -> None:
    folder = make_run(
        tmp_path / "r", np.array([[1.0, 1.06], [1.0, 1.0], [0.0, 1.0]]), ["1.1", "2.1"]
    )
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["scenario"]["federates"]["south"] = {"kind": "feeder"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    south = pa.table({"time_s": [30.0, 90.0], "9.1": [0.9, 1.02]})
    pq.write_table(south, folder / "signals" / "south.v_pu.parquet")

    north, low = voltage_tracks(RunData(folder)).values()

    assert north.time_s.tolist() == [0.0, 60.0, 120.0]
    assert north.out.tolist() == [1.0, 0.0, 0.0]
    assert north.dead.tolist() == [0.0, 0.0, 1.0]
    assert north.low.tolist() == [1.0, 1.0, 1.0]
    assert north.high.tolist() == [1.06, 1.0, 1.0]
    assert low.time_s.tolist() == [30.0, 90.0]
    assert low.out.tolist() == [1.0, 0.0]


GONE = object()


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("scenario", {}, "scenario.time.start_s is missing; expected a number"),
        ("scenario.time", GONE, "scenario.time.start_s is missing"),
        ("scenario.time.step_s", "5", 'scenario.time.step_s is "5"; expected a number'),
        ("scenario.time.step_s", 0, "scenario.time.step_s is not above 0"),
        ("scenario.time.start_s", float("nan"), "scenario.time.start_s is NaN"),
        ("scenario.band", [0.95, 1.05], "scenario.band.v_min_pu is missing"),
        ("scenario.federates", ["grid"], "scenario.federates is .*; expected a mapping"),
        ("scenario.federates.grid", "feeder", "scenario.federates.grid is .*; expected a mapping"),
        ("scenario.grid", 7, "scenario.grid is 7; expected a mapping"),
        ("steps", "many", 'steps is "many"; expected a whole number'),
        ("base_dir", ["a"], "base_dir is .*; expected text"),
        ("versions", ["1"], "versions is .*; expected a mapping"),
        ("scenario", [1], "not the folder of a run"),
    ],
)
def test_a_manifest_that_is_not_ours_is_refused_by_its_key(
    tmp_path: Path, key: str, value: object, words: str
) -> None:
    folder = make_run(tmp_path / "r", np.ones((1, 1)), ["1.1"])
    manifest = json.loads((folder / "manifest.json").read_text())
    *path, last = key.split(".")
    at = manifest
    for part in path:
        at = at[part]
    at[last] = value
    if value is GONE:
        del at[last]
    (folder / "manifest.json").write_text(json.dumps(manifest))

    with pytest.raises(ScenarioError, match=words):
        RunData(folder)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("finished", "finished"),
        ("running", "not finished"),
        ('"><script>alert(1)</script>', "unknown"),
        ("", "unknown"),
        (["finished"], "unknown"),
        (None, "not finished"),
    ],
)
def test_only_known_ends_are_said_of_a_run(tmp_path: Path, status: object, said: str) -> None:
    folder = make_run(tmp_path / "r", np.ones((1, 1)), ["1.1"])
    manifest = json.loads((folder / "manifest.json").read_text()) | {"status": status}
    (folder / "manifest.json").write_text(json.dumps(manifest))

    assert RunData(folder).status == said


def test_what_is_no_number_in_a_summary_is_not_told(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "r", np.ones((1, 1)), ["1.1"])
    summary = {"wall_s": "fast", "steps": True, "metrics": {"a": 1.5, "b": "x", "c": None}}
    (folder / "summary.json").write_text(json.dumps(summary))

    run = RunData(folder)

    assert run.metrics == {"a": 1.5, "b": None, "c": None}
    assert "wall_s" not in run.summary
    assert "steps" not in run.summary
