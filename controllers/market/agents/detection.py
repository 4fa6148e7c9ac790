"""Has the import left its schedule? Two one-sided tests with a stated rate of false alarms.

The residual r is import measured minus scheduled (and minus the constant error that was learnt).
What makes it noisy when nothing is wrong is mostly that devices do not do exactly what they were
awarded; that error is drawn anew with every award and stays for the interval. So samples within an
interval are no independent evidence, intervals are:

* *leap*: a single sample above ``z sigma``. Finds large attacks at once.
* *drift*: a CUSUM over the means of intervals, ``S <- max(0, S + r/sigma - d)`` with the alarm at
  ``S > h`` (Page, Continuous inspection schemes, 1954). Finds small attacks that stay.

Each gets half of the false alarms. For normal residuals the leap has ``1/(1 - Phi(z))`` samples
between false alarms, at least, and the CUSUM ``(exp(2 d b) - 2 d b - 1) / (2 d^2)`` intervals with
``b = h + 1.166`` (Siegmund, Sequential Analysis, 1985); both are inverted here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

DRIFT = 0.5
_SIEGMUND = 1.166

Finding = Literal["leap", "drift"]


def intervals_between_alarms(threshold: float, drift: float = DRIFT) -> float:
    """Return the mean number of intervals between false alarms of the CUSUM."""
    x = 2.0 * drift * (threshold + _SIEGMUND)
    return (math.exp(x) - x - 1.0) / (2.0 * drift**2)


def drift_threshold(intervals: float, drift: float = DRIFT) -> float:
    """Return the CUSUM's threshold with `intervals` between false alarms in the mean."""
    low, high = 0.0, 500.0
    for _ in range(100):
        middle = 0.5 * (low + high)
        if intervals_between_alarms(middle, drift) < intervals:
            low = middle
        else:
            high = middle
    return high


def leap_threshold(samples: float) -> float:
    """Return the z that one in `samples` normal samples passes."""
    return NormalDist().inv_cdf(1.0 - 1.0 / max(samples, 2.0))


@dataclass(frozen=True)
class Thresholds:
    """Of both tests, in units of sigma."""

    leap: float
    drift: float

    @staticmethod
    def for_rate(days: float, sample_s: float, interval_s: float) -> Thresholds:
        """Return thresholds with `days` between false alarms of any kind in the mean."""
        seconds = 2.0 * days * 86_400.0
        return Thresholds(leap_threshold(seconds / sample_s), drift_threshold(seconds / interval_s))


class ImportDetector:
    """The detector's state.

    Parameters
    ----------
    sigma_kw : float. Standard deviation of the residual when nothing is wrong.
    thresholds : Thresholds

    Attributes
    ----------
    level : float. The CUSUM, in units of sigma.
    """

    def __init__(self, sigma_kw: float, thresholds: Thresholds) -> None:
        self.sigma_kw, self.thresholds = sigma_kw, thresholds
        self.level = 0.0
        self._sum, self._count = 0.0, 0

    def add(self, residual_kw: float) -> Finding | None:
        """Take one sample in; return 'leap' when it is too large by itself. NaN is passed over."""
        if not math.isfinite(residual_kw):
            return None
        self._sum += residual_kw
        self._count += 1
        return "leap" if residual_kw > self.thresholds.leap * self.sigma_kw else None

    def end_interval(self) -> Finding | None:
        """Add the interval's mean to the CUSUM; return 'drift' when that is too large."""
        if self._count:
            mean = self._sum / self._count / self.sigma_kw
            self.level = max(0.0, self.level + mean - DRIFT)
        self._sum, self._count = 0.0, 0
        return "drift" if self.level > self.thresholds.drift else None

    def reset(self) -> None:
        """Forget what was summed up."""
        self.level, self._sum, self._count = 0.0, 0.0, 0
