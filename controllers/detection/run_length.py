"""Average run length of a CUSUM: from a target for false alarms to the decision interval."""

from __future__ import annotations

import math

from controllers.core.errors import ControllerError

# What the discrete sum overshoots its boundary by, at each end 0.583 of a deviation.
_OVERSHOOT = 1.166


def average_run_length(interval: float, reference: float) -> float:
    """Return the mean number of steps to a false alarm of a two-sided CUSUM.

    Siegmund's approximation for independent standard normal values, ``b = h + 1.166``:
    ``ARL = (exp(2 k b) - 2 k b - 1) / (2 k^2)`` of one side, half of it with two (D. Siegmund,
    Sequential Analysis, Springer 1985; D. C. Montgomery, Introduction to Statistical Quality
    Control, eq. 9.6-9.7).

    Parameters
    ----------
    interval : Decision interval h, in standard deviations.
    reference : Reference value k, in standard deviations; positive.
    """
    x = 2.0 * reference * (interval + _OVERSHOOT)
    if x > 700.0:
        return math.inf
    return (math.expm1(x) - x) / (4.0 * reference**2)


def decision_interval(run_length: float, reference: float) -> float:
    """Return the decision interval h of a two-sided CUSUM with this average run length.

    Raises ControllerError: The run length is shorter than that of an interval of zero.
    """
    shortest = average_run_length(0.0, reference)
    if not shortest < run_length < math.inf:
        raise ControllerError(
            f"{run_length:g} steps between false alarms",
            expected=f"more than {shortest:.3g} at a reference value of {reference:g}",
        )
    low, high = 0.0, 1.0
    while average_run_length(high, reference) < run_length:
        low, high = high, 2.0 * high
    for _ in range(60):  # halving: exact to the last bits, and monotonic
        middle = 0.5 * (low + high)
        if average_run_length(middle, reference) < run_length:
            low = middle
        else:
            high = middle
    return high
