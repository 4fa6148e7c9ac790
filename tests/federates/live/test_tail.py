"""Files that grow are read as far as they are whole, and no further."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federates.core.signals import SignalWriter
from federates.live import tail as module
from federates.live.tail import EventTail, SignalTail

LABELS = ("1.1", "1.2")


def written(folder: Path, name: str, batches: list[np.ndarray]) -> SignalWriter:
    """Write batches of rows; row k is at k seconds."""
    writer, k = SignalWriter(folder / name, LABELS), 0
    for values in batches:
        writer.write(k + np.arange(len(values), dtype=np.float64), values)
        k += len(values)
    return writer


@settings(max_examples=20)
@given(cuts=st.lists(st.floats(0.0, 1.0), max_size=6).map(sorted))
def test_a_stream_cut_at_any_byte_is_read_up_to_its_last_whole_batch(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[float]
) -> None:
    source, grown = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("grown")
    values = np.arange(24.0).reshape(12, 2)
    writer = written(source, "f.p_kw", [values[:5], values[5:6], values[6:]])
    data = (source / "f.p_kw.arrows").read_bytes()
    tail = SignalTail(grown, "f.p_kw")
    curve = tail.curve(None)
    for cut in (*cuts, 1.0):
        (grown / "f.p_kw.arrows").write_bytes(data[: int(cut * len(data))])
        tail.look()
        curve = tail.curve(None)
        assert len(curve.time_s) in (0, 5, 6, 12)
        assert np.array_equal(curve.low, values[: len(curve.low), 0])
    assert len(curve.time_s) == 12
    assert tail.labels == LABELS
    assert tail.latest.tolist() == values[-1].tolist()
    writer.close()


@settings(max_examples=30)
@given(sizes=st.lists(st.integers(1, 90), min_size=1, max_size=8), seed=st.integers(0, 99))
def test_a_curve_keeps_its_extremes_and_stays_short(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], seed: int
) -> None:
    folder = tmp_path_factory.mktemp("run")
    values = np.random.default_rng(seed).normal(size=(sum(sizes), 2))
    parts = np.split(values, np.cumsum(sizes)[:-1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "POINTS", 20)
        tail = SignalTail(folder, "f.p_kw")
        written(folder, "f.p_kw", parts).close()  # a table by now, as of a federate that has ended
        curve = tail.curve("1.2")
    assert len(curve.time_s) <= 40
    assert (curve.low.min(), curve.high.max()) == (values[:, 1].min(), values[:, 1].max())
    assert (np.diff(curve.time_s) > 0).all()
    if len(values) <= 40:
        assert np.array_equal(curve.mid, values[:, 1])


def test_a_curve_asked_for_later_has_the_whole_past(tmp_path: Path) -> None:
    writer = written(tmp_path, "f.p_kw", [np.ones((4, 2)), np.full((3, 2), 2.0)])
    tail = SignalTail(tmp_path, "f.p_kw")
    tail.look()
    assert len(tail.curve("1.1").time_s) == len(tail.curve(None).time_s) == 7
    writer.close()


def test_a_dead_node_is_a_gap(tmp_path: Path) -> None:
    writer = written(tmp_path, "f.v_pu", [np.array([[1.0, 0.0]])])
    tail = SignalTail(tmp_path, "f.v_pu")
    tail.look()
    assert np.isnan(tail.latest[1])
    assert tail.curve(None).low.tolist() == [1.0]
    writer.close()


def test_quality_tells_when_a_device_was_last_good(tmp_path: Path) -> None:
    writer = written(tmp_path, "d.quality", [np.array([[0.0, 2.0], [0.0, 2.0], [1.0, 2.0]])])
    tail = SignalTail(tmp_path, "d.quality")
    tail.look()
    assert tail.time_s - tail.last_good_s[0] == 1.0
    assert np.isnan(tail.last_good_s[1])
    writer.close()


def test_events_are_read_line_by_line_and_windows_open_and_close(tmp_path: Path) -> None:
    lines = [
        {"event": "started", "time_s": None},
        {"event": "attack_began", "step": "a", "time_s": 3.0},
        {"event": "attack_began", "step": "a", "time_s": 3.0},  # of a second attack federate
        {"event": "attack_began", "step": "b", "time_s": 4.0},
        {"event": "attack_ended", "step": "a", "time_s": 5.0},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    path, tail = tmp_path / "events.jsonl", EventTail(tmp_path)
    tail.look()
    for end in (10, 60, len(text) - 3, len(text)):
        path.write_text(text[:end])
        tail.look()
    assert tail.count == len(tail.last) == 5
    assert tail.windows == [["a", 3.0, 5.0], ["b", 4.0, None]]
