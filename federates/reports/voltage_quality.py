"""How much a feeder's voltages oscillate, and how unequal those of the phases are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from controllers.core.mail import FloatArray
from federates.core.signals import read_signal
from federates.runs.data import DEAD_PU, RunData

AVERAGE_S = 10.0
"""An oscillation is what deviates from the average over this long; at least three samples."""


def voltage_quality(run: RunData, plant: str, begin_s: float, end_s: float) -> dict[str, float]:
    """Return oscillation and unbalance of a plant's voltages in ``begin_s <= t < end_s``.

    Returns
    -------
    dict of str to float
        `attack_window_oscillation_pu`, see `oscillation_pu`; `attack_window_unbalance_pct`, the
        mean over time of `unbalance_pct`. Empty where no sample lies in the time.
    """
    time_s, labels, v_pu = read_signal(run.signals, f"{plant}.v_pu")
    inside = (time_s >= begin_s - 1e-6) & (time_s < end_s - 1e-6)
    if not inside.any():
        return {}
    step_s = float(time_s[1] - time_s[0]) if len(time_s) > 1 else AVERAGE_S
    unbalance = unbalance_pct(labels, v_pu[inside])
    found = {"attack_window_oscillation_pu": oscillation_pu(v_pu, step_s, inside)}
    if unbalance is not None:
        found["attack_window_unbalance_pct"] = float(unbalance.mean())
    return found


def oscillation_pu(v_pu: FloatArray, step_s: float, inside: NDArray[np.bool_]) -> float:
    """Return the rms deviation of voltages from their average over `AVERAGE_S`.

    Parameters
    ----------
    v_pu : (k, n_nodes).
    inside : (k,). Which samples count; the average also takes those about them.
    """
    from scipy.ndimage import uniform_filter1d

    size = max(3, 2 * round(AVERAGE_S / step_s / 2.0) + 1)
    live = (v_pu >= DEAD_PU).all(axis=0)
    if not live.any():
        return 0.0
    known = v_pu[:, live]
    deviation = known - uniform_filter1d(known, size, axis=0, mode="nearest")
    return float(np.sqrt(np.mean(deviation[inside] ** 2)))


def unbalance_pct(labels: tuple[str, ...], v_pu: FloatArray) -> FloatArray | None:
    """Return the phase voltage unbalance (IEEE Std 112) of the worst bus with three phases.

    It is the largest deviation of a phase's magnitude from the mean of the three, over that mean;
    it needs no angles. Of samples (k, n_nodes): (k,). None where no bus has three phases.
    """
    place = {label: i for i, label in enumerate(labels)}
    buses = dict.fromkeys(label.rpartition(".")[0] for label in labels)
    rows = [[f"{bus}.{phase}" for phase in (1, 2, 3)] for bus in buses]
    index = [[place[x] for x in row] for row in rows if all(x in place for x in row)]
    if not index:
        return None
    phases = v_pu[:, np.array(index)]
    mean = phases.mean(axis=2)
    worst: FloatArray = np.abs(phases - mean[..., None]).max(axis=2) / np.maximum(mean, DEAD_PU)
    return np.asarray(100.0 * worst.max(axis=1))
