"""Recorded signals: nothing flushed is lost, and the bytes do not tell how the run went."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from federates.core import signals
from federates.core.signals import SignalWriter, finalise_folder, read_signal, signal_labels

LABELS = ("65.1", "65.2", "pv_65")


def _values(n: int, width: int = 3) -> np.ndarray:
    return np.random.default_rng(n).normal(size=(n, width))


def _record(folder: Path, values: np.ndarray, flush_after: set[int], name: str = "f.p") -> Path:
    """Record in blocks that end after the given rows."""
    writer = SignalWriter(folder / name, LABELS)
    ends = sorted({k + 1 for k in flush_after if k + 1 < len(values)} | {len(values)})
    for start, end in itertools.pairwise([0, *ends]):
        writer.write(0.5 * np.arange(start, end), values[start:end])
    writer.close()
    return folder / f"{name}.parquet"


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    values = _values(10_000)  # more than one row group and than one buffer
    values[5, 1], values[6, 2] = np.nan, -0.0
    path = _record(tmp_path, values, set())
    time_s, labels, got = read_signal(tmp_path, "f.p")
    assert labels == LABELS
    assert got.tobytes() == values.tobytes()
    assert time_s.tolist() == [0.5 * k for k in range(10_000)]
    assert pq.read_schema(path).names == ["time_s", *LABELS]
    assert signals.signal_names(tmp_path) == ["f.p"]
    assert not list(tmp_path.glob("*.arrows"))


def test_any_parquet_reader_sees_plain_columns(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    values = _values(50)
    frame = pandas.read_parquet(_record(tmp_path, values, {3}))
    assert frame["pv_65"].to_numpy().tobytes() == values[:, 2].copy().tobytes()


# Around one and two row groups, where a rest or nothing is left at the end.
SIZES = [0, 1, 2, 17, signals._ROW_GROUP - 1, signals._ROW_GROUP, 2 * signals._ROW_GROUP + 3]


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sampled_from(SIZES), st.sets(st.integers(0, 2 * signals._ROW_GROUP), max_size=20))
def test_bytes_do_not_depend_on_when_it_was_flushed(
    tmp_path: Path, n: int, flush_after: set[int]
) -> None:
    values = _values(n)
    one = _record(tmp_path, values, set(), "a.p").read_bytes()
    assert _record(tmp_path, values, flush_after, "b.p").read_bytes() == one


def test_columns_are_picked_by_position(tmp_path: Path) -> None:
    writer = SignalWriter(tmp_path / "f.p", LABELS[1:], np.array([1, 2]))
    values = _values(10)
    writer.write(np.arange(10.0), values)
    writer.close()
    time_s, labels, got = read_signal(tmp_path, "f.p")
    assert (time_s.tolist(), labels) == (list(range(10)), LABELS[1:])
    assert (got == values[:, 1:]).all()


def test_a_port_without_labels_keeps_its_times(tmp_path: Path) -> None:
    writer = SignalWriter(tmp_path / "f.p", ())
    writer.write(np.array([1.5]), np.empty((1, 0)))
    writer.close()
    time_s, labels, values = read_signal(tmp_path, "f.p")
    assert (time_s.tolist(), labels, values.shape) == ([1.5], (), (1, 0))


def test_long_record_takes_at_most_eight_bytes_a_value(tmp_path: Path) -> None:
    # Noise does not compress: the worst case. 278 columns as in the 123-node feeder.
    labels = [str(i) for i in range(278)]
    writer = SignalWriter(tmp_path / "f.v_pu", labels)
    values = np.random.default_rng(0).uniform(0.95, 1.05, size=(20_000, 278))
    writer.write(15.0 * np.arange(20_000), values)
    writer.close()
    size = (tmp_path / "f.v_pu.parquet").stat().st_size
    assert size / (20_000 * 279) <= 8.0


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from federates.core.signals import SignalWriter
writer = SignalWriter(Path(sys.argv[1]) / "f.p", ["a", "b"])
for k in range(50):
    writer.write(np.array([float(k)]), np.array([[k, -k]], dtype=float))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_writer_leaves_what_it_flushed(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], timeout=600, check=False)
    assert done.returncode == -signal.SIGKILL
    time_s, labels, values = read_signal(tmp_path, "f.p")
    assert (labels, time_s.tolist()) == (("a", "b"), [float(k) for k in range(50)])
    assert finalise_folder(tmp_path) == []
    assert signals.signal_names(tmp_path) == ["f.p"]
    assert not list(tmp_path.glob("*.arrows"))
    assert (read_signal(tmp_path, "f.p")[2] == values).all()


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_a_stream_torn_anywhere_reads_as_a_prefix(tmp_path: Path, data: st.DataObject) -> None:
    stem = tmp_path / "f.p"
    writer = SignalWriter(stem, LABELS)
    values = _values(40)
    for k in range(0, 40, 10):
        writer.write(np.arange(k, k + 10.0), values[k : k + 10])
    stream = tmp_path / "f.p.arrows"
    whole = stream.read_bytes()
    stream.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    time_s, _, got = read_signal(tmp_path, "f.p")
    assert len(time_s) % 10 == 0
    assert got.tobytes() == values[: len(time_s)].tobytes()
    writer._file.close()


def test_no_space_for_the_table_leaves_the_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = SignalWriter(tmp_path / "f.p", LABELS)
    writer.write(np.zeros(1), np.ones((1, 3)))

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(signals.pq, "ParquetWriter", refuse)
    with pytest.raises(OSError, match="No space left"):
        writer.close()
    assert sorted(os.listdir(tmp_path)) == ["f.p.arrows"]
    assert read_signal(tmp_path, "f.p")[0].tolist() == [0.0]
    assert finalise_folder(tmp_path) == ["f.p.arrows: No space left on device"]


def test_missing_signal_names_what_there_is(tmp_path: Path) -> None:
    _record(tmp_path, _values(2), set())
    with pytest.raises(FileNotFoundError, match=r"have \['f\.p'\]"):
        signal_labels(tmp_path, "f.q")
