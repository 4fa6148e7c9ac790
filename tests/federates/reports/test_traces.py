"""Curves of single elements: what the page holds of a signal."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

from federates.reports.traces import _halved, _packed, _thinned, trace_sections
from federates.runs.data import RunData

NUMBERS = st.floats(-1e6, 1e6).filter(lambda x: x == 0.0 or abs(x) > 1e-6) | st.just(np.nan)
TABLES = st.tuples(st.integers(1, 40), st.integers(1, 5)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=NUMBERS)
)


def unpacked(packed: bytes, step: float, offset: int, labels: int) -> np.ndarray:
    """Return the values as ``traces.js`` reads them."""
    planes = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(2, -1)
    whole = np.ascontiguousarray(planes.T).view("<i2").reshape(labels, -1)
    rows = np.cumsum(whole, axis=1, dtype=np.int16)
    return np.where(rows == -(2**15), np.nan, (rows.astype(np.float64) + offset) * step).T


@given(TABLES)
def test_values_come_back_within_half_a_step_and_gaps_stay(values: np.ndarray) -> None:
    packed, step, offset = _packed(values)

    found = unpacked(packed, step, offset, values.shape[1])

    assert found == pytest.approx(values, abs=0.5001 * step, nan_ok=True)
    known = values[np.isfinite(values)]
    if np.ptp(known) if known.size else False:
        assert step <= np.ptp(known) / 500


@given(TABLES, st.integers(1, 4))
def test_shortened_curves_keep_the_extremes_and_the_times(values: np.ndarray, times: int) -> None:
    time_s, found = np.arange(float(len(values))), values
    for _ in range(times):
        time_s, found = _halved(time_s, found)

    with np.errstate(invalid="ignore"):
        for reduce in (np.fmin.reduce, np.fmax.reduce):
            assert reduce(found) == pytest.approx(reduce(values), nan_ok=True)
    assert len(time_s) == len(found) <= len(values) / 2**times + 2
    assert (np.diff(time_s) == np.diff(time_s)[:1]).all()


def _run_with(folder: Path, values: np.ndarray) -> RunData:
    (folder / "signals").mkdir()
    columns = {"time_s": np.arange(float(len(values)))}
    columns |= {f"{k}.1": values[:, k] for k in range(values.shape[1])}
    pq.write_table(pa.table(columns), folder / "signals" / "feeder.v_pu.parquet")
    run = object.__new__(RunData)
    run.folder, run.signals, run.manifest = folder, folder / "signals", {}
    run.scenario = {
        "federates": {"feeder": {"kind": "feeder"}},
        "time": {"start_s": 3600.0, "step_s": 1.0},
        "band": {"v_min_pu": 0.95, "v_max_pu": 1.05},
    }
    return run


def test_a_large_noisy_signal_stays_small_keeps_its_spike_and_says_what_is_missing(
    tmp_path: Path,
) -> None:
    values = np.random.default_rng(1).normal(1.0, 0.01, (3_000, 620))
    values[2_345, 610] = 1.9
    run = _run_with(tmp_path, values)

    (section,) = trace_sections(run)

    (signal,) = section.blocks[1].figures[0].data["signals"]
    assert len(signal["data"]) < 100_000
    assert signal["first"][0] == signal["labels"].index("610.1")
    assert "600 of 620 elements" in signal["note"]
    every = int(re.findall(r"(\d+) steps", signal["note"])[0])
    assert signal["time"]["step"] == every / 2
    assert signal["time"]["start"] == 3600.0
    assert _thinned(run, "feeder.v_pu")[1].max() == 1.9
