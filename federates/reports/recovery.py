"""How a run under attack fares beside the same run without: out of band, and time to recover.

A defended run is compared with the defended run without the attack: what the defence itself costs
is no disturbance to recover from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controllers.core.mail import FloatArray
from federates.core.signals import signal_batches
from federates.runs.data import DEAD_PU, RunData

TOLERANCE_PU = 0.005
"""By how much the voltages may still lie outside those without the attack."""
ABOUT_S = 300.0
"""The run without attack is taken at its worst this long about, for clouds and oscillations."""
_LATE_S = 1e-6


@dataclass(frozen=True)
class VoltageTrack:
    """A feeder's voltages over time, live nodes only; each (n,).

    Attributes
    ----------
    time_s
    """

    time_s: FloatArray
    out: FloatArray
    far_out: FloatArray
    dead: FloatArray
    low: FloatArray
    high: FloatArray


def voltage_tracks(run: RunData) -> dict[str, VoltageTrack]:
    """Return the voltages of each plant of a run by its name, as far as they were recorded."""
    names = {plant.name: f"{plant.name}.v_pu" for plant in run.plants}
    return {plant: _track(run, name) for plant, name in names.items() if run.has(name)}


def _track(run: RunData, name: str) -> VoltageTrack:
    v_min, v_max = run.band
    parts: list[tuple[FloatArray, ...]] = []
    for time_s, v_pu in signal_batches(run.signals, name):
        live = v_pu >= DEAD_PU
        excess = np.where(live, np.maximum(v_min - v_pu, v_pu - v_max), -np.inf)
        out, far = (excess > 0.0).sum(axis=1), (excess > TOLERANCE_PU).sum(axis=1)
        low = np.where(live, v_pu, np.inf).min(axis=1)
        high = np.where(live, v_pu, -np.inf).max(axis=1)
        parts.append((time_s, out, far, (~live).sum(axis=1), low, high))
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


def recovery_s(clean: VoltageTrack, other: VoltageTrack, end_s: float) -> float | None:
    """Return the time from the attack's end until the voltages are as good as without it.

    As good means, from then on to the end of the run, against the worst of the clean run within
    `ABOUT_S` of the same time: no more nodes outside the band by more than `TOLERANCE_PU` than that
    has outside it, no more nodes without voltage, and the lowest and the highest voltage not more
    than `TOLERANCE_PU` outside its. The tolerance is there so that nodes at the band's very edge do
    not decide. It is a settling time, so a run that is never disturbed has 0. None: not recovered
    within the run, or nothing recorded after the end.

    Parameters
    ----------
    clean : The same run without the attack.
    end_s : When the last step of the attack ended.
    """
    common, a, b = np.intersect1d(clean.time_s, other.time_s, return_indices=True)
    after = common >= end_s - _LATE_S
    if not after.any():
        return None
    usual = _worst_about(clean)
    a, b, common = a[after], b[after], common[after]
    good = (
        (other.far_out[b] <= usual.out[a])
        & (other.dead[b] <= usual.dead[a])
        & (other.low[b] >= usual.low[a] - TOLERANCE_PU)
        & (other.high[b] <= usual.high[a] + TOLERANCE_PU)
    )
    bad = np.flatnonzero(~good)
    if not bad.size:
        return 0.0
    first = int(bad[-1]) + 1
    return None if first >= len(common) else float(common[first] - end_s)


def _worst_about(track: VoltageTrack) -> VoltageTrack:
    """Return at each time the worst within `ABOUT_S` before and after."""
    from scipy.ndimage import maximum_filter1d, minimum_filter1d

    step_s = float(track.time_s[1] - track.time_s[0]) if len(track.time_s) > 1 else ABOUT_S
    size = 2 * round(ABOUT_S / step_s) + 1

    def highest(values: FloatArray) -> FloatArray:
        return np.asarray(maximum_filter1d(values, size, mode="nearest"), dtype=np.float64)

    return VoltageTrack(
        track.time_s,
        highest(track.out),
        highest(track.far_out),
        highest(track.dead),
        np.asarray(minimum_filter1d(track.low, size, mode="nearest"), dtype=np.float64),
        highest(track.high),
    )
