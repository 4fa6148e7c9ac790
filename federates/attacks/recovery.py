"""How a run under attack fares beside the same run without: out of band, and time to recover."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controllers.mail import FloatArray
from federates.report_data import RunData
from federates.signals import signal_batches

TOLERANCE_PU = 0.005
"""By how much the voltages may still lie outside the baseline's and count as recovered."""
_DEAD_PU = 0.05
_LATE_S = 1e-6


@dataclass(frozen=True)
class VoltageTrack:
    """A feeder's voltages over time, live nodes only; each (n,).

    Attributes
    ----------
    time_s
    out : number of nodes outside the voltage band
    dead : number of nodes without voltage
    low, high : lowest and highest voltage, pu
    """

    time_s: FloatArray
    out: FloatArray
    dead: FloatArray
    low: FloatArray
    high: FloatArray


def voltage_track(run: RunData) -> VoltageTrack | None:
    """Read the voltages of a run; None where they were not recorded."""
    if not run.has("v_pu"):
        return None
    v_min, v_max = run.band
    parts: list[tuple[FloatArray, ...]] = []
    for time_s, v_pu in signal_batches(run.signals, f"{run.feeder}.v_pu"):
        live = v_pu >= _DEAD_PU
        out = live & ((v_pu < v_min) | (v_pu > v_max))
        low = np.where(live, v_pu, np.inf).min(axis=1)
        high = np.where(live, v_pu, -np.inf).max(axis=1)
        parts.append((time_s, out.sum(axis=1), (~live).sum(axis=1), low, high))
    if not parts:
        return None
    return VoltageTrack(
        *(np.concatenate(column).astype(np.float64) for column in zip(*parts, strict=True))
    )


def out_of_band_node_hours(track: VoltageTrack, begin_s: float, end_s: float) -> float:
    """Return node-hours outside the band in ``begin_s <= t < end_s``; each sample lasts a step."""
    if len(track.time_s) < 2:
        return 0.0
    step_h = float(track.time_s[1] - track.time_s[0]) / 3600.0
    inside = (track.time_s >= begin_s - _LATE_S) & (track.time_s < end_s - _LATE_S)
    return float(track.out[inside].sum()) * step_h


def recovery_s(baseline: VoltageTrack, other: VoltageTrack, end_s: float) -> float | None:
    """Return the time from the attack's end until the voltages are as good as the baseline's.

    As good means, from then on to the end of the run: no more nodes outside the band or without
    voltage than in the baseline at the same time, and the lowest and the highest voltage not more
    than `TOLERANCE_PU` outside the baseline's. It is a settling time, so a run that is never
    disturbed has 0. None: not recovered within the run, or nothing recorded after the end.

    Parameters
    ----------
    baseline, other : VoltageTrack
    end_s : float
        When the last step of the attack ended.
    """
    common, a, b = np.intersect1d(baseline.time_s, other.time_s, return_indices=True)
    after = common >= end_s - _LATE_S
    if not after.any():
        return None
    a, b, common = a[after], b[after], common[after]
    good = (
        (other.out[b] <= baseline.out[a])
        & (other.dead[b] <= baseline.dead[a])
        & (other.low[b] >= baseline.low[a] - TOLERANCE_PU)
        & (other.high[b] <= baseline.high[a] + TOLERANCE_PU)
    )
    bad = np.flatnonzero(~good)
    if not bad.size:
        return 0.0
    first = int(bad[-1]) + 1
    return None if first >= len(common) else float(common[first] - end_s)
