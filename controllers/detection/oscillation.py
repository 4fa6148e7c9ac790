"""Detection of oscillating voltages: the smoothed square of how they alternate.

For every node by itself, with v the voltage of step k,

    w = (v[k] - 2 v[k-1] + v[k-2]) / 4,   y <- y + (1 - exp(-h / smooth_s)) (w^2 - y)

w is the amplitude of an alternation from step to step, 0 for a ramp, and ``sin^2(pi f h)`` times
the amplitude at a frequency f, h the period of the detector. High-pass, square and low-pass are the
observer of the adaptive controller in https://github.com/lbnl-cybersecurity/ceds-cigar, see
`controllers.baselines.adaptive_volt_var`; the second difference in place of its high-pass leaves
nothing of a ramp, such as a cloud's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray
from controllers.core.options import ControllerOptions, option, parse_options
from controllers.core.ports import Port
from controllers.detection.peak_threshold import BLOCKS, block_maxima, level
from controllers.detection.protocol import LEAST_HISTORY, DetectionSite, History

NAME = "oscillation"
_DAY_S = 86400.0
_LEAST_PU2 = 1e-16


@dataclass(frozen=True)
class OscillationOptions(ControllerOptions):
    """Options of the oscillation detector."""

    labels: Sequence[str] = option(("*",), "Globs over the nodes that are watched.")
    smooth_s: float = option(10.0, "Time constant that the square is smoothed with.", above=0.0)
    threshold_pu: float = option(
        0.003, "Amplitude (rms) of the alarm where there are no clean data.", above=0.0
    )
    false_alarms_per_day: float = option(
        1.0, "Target of the whole detector with clean data.", above=0.0
    )


class Oscillation:
    """The detector ``oscillation``; see the module's docstring. Labels: ``v_pu:NODE``.

    A value that was not measured leaves a node's state as it is.

    Parameters
    ----------
    **options : See `OscillationOptions`.
    """

    least_history = LEAST_HISTORY + 2

    def __init__(self, site: DetectionSite, **options: Any) -> None:
        self._options = parse_options(OscillationOptions, options, NAME)
        self._port = site.port("v_pu", self._options.labels)
        self.inputs: tuple[Port, ...] = (self._port,)
        self.labels: tuple[str, ...] = tuple(f"v_pu:{label}" for label in self._port.labels)
        if not self.labels:
            raise ControllerError("the grid has nothing to watch", where=f"{NAME}: labels")
        n = len(self.labels)
        self._share = -math.expm1(-site.period_s / self._options.smooth_s)
        self._block_s = site.period_s / BLOCKS
        self._last: FloatArray = np.full((2, n), np.nan)
        self._y: FloatArray = np.zeros(n)
        self._limit: FloatArray = np.full(n, self._options.threshold_pu**2)

    def step(self, time_s: float, inputs: Mapping[str, FloatArray]) -> FloatArray:
        """Return the scores of one step: the smoothed square over its limit."""
        return np.asarray(self._smoothed(inputs[self._port.name]) / self._limit)

    def calibrate(self, history: History) -> None:
        """Learn each node's usual level, and from the peaks of the largest ratio the limit.

        Raises ControllerError: The history is too short.
        """
        values = history.inputs[self._port.name]
        if len(values) < max(self.least_history, BLOCKS):
            raise ControllerError(f"{len(values)} steps of clean data", where=NAME)
        kept = self._last, self._y
        self._last, self._y = np.full_like(self._last, np.nan), np.zeros_like(self._y)
        smoothed = np.array([self._smoothed(row) for row in values])
        self._last, self._y = kept
        usual = np.maximum(smoothed[2:].mean(axis=0), _LEAST_PU2)
        largest = (smoothed[2:] / usual).max(axis=1)
        expected = self._options.false_alarms_per_day * len(values) * self._block_s / _DAY_S
        self._limit = usual * max(level(block_maxima(largest), expected), 1.0)

    def _smoothed(self, v_pu: FloatArray) -> FloatArray:
        w = (v_pu - 2.0 * self._last[1] + self._last[0]) / 4.0
        self._last = np.stack([self._last[1], v_pu])
        self._y = np.where(np.isfinite(w), self._y + self._share * (w**2 - self._y), self._y)
        return self._y
