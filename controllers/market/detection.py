"""Has the import left its schedule? A one-sided CUSUM with a stated rate of false alarms.

With residuals r (import measured minus scheduled) of standard deviation sigma,

    S <- max(0, S + r/sigma - drift),   alarm when S > threshold                 (Page 1954)

The mean time between false alarms of independent normal residuals is, by Siegmund's approximation
(Sequential Analysis, 1985), ``(exp(2 d b) - 2 d b - 1) / (2 d^2)`` samples with d the drift and
``b = threshold + 1.166``. `threshold_for` inverts it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

DRIFT = 0.5
_SIEGMUND = 1.166


def samples_between_alarms(threshold: float, drift: float = DRIFT) -> float:
    """Return the mean number of samples between false alarms."""
    x = 2.0 * drift * (threshold + _SIEGMUND)
    return (math.exp(x) - x - 1.0) / (2.0 * drift**2)


def threshold_for(samples: float, drift: float = DRIFT) -> float:
    """Return the threshold with `samples` samples between false alarms in the mean."""
    low, high = 0.0, 500.0
    for _ in range(100):
        middle = 0.5 * (low + high)
        if samples_between_alarms(middle, drift) < samples:
            low = middle
        else:
            high = middle
    return high


@dataclass
class ImportDetector:
    """The detector's state.

    Parameters
    ----------
    sigma_kw : float
        Standard deviation of the residual when nothing is wrong.
    threshold, drift : float
        In units of sigma.
    """

    sigma_kw: float
    threshold: float
    drift: float = DRIFT
    level: float = 0.0

    def add(self, residual_kw: float) -> bool:
        """Take one sample in; return whether the alarm is raised. NaN is passed over."""
        if math.isfinite(residual_kw):
            step = residual_kw / self.sigma_kw - self.drift
            self.level = max(0.0, self.level + step)
        return self.level > self.threshold

    def reset(self) -> None:
        """Forget what was summed up."""
        self.level = 0.0
