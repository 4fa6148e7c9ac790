"""The iteration that solves a block of cases."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from grid_models.batched.demand import Demand
from grid_models.batched.linear import PortAnswer
from grid_models.current_injection.model import FloatArray

TOLERANCE_PU = 1e-11
_ITERATIONS = 60
_LEAST_RATE, _ROUNDING_PU = 0.05, 1e-13


def iterate(
    answer: PortAnswer, demand: Demand, source: FloatArray, start: FloatArray
) -> tuple[FloatArray, NDArray[np.bool_], int]:
    """Return voltages (2, m, N) at which `demand` and the feeder agree, where they do, and steps.

    The error that is left is estimated from the rate at which the changes shrink. The iteration
    converges only to solutions at which the determinant of the Jacobian has the sign that it has at
    the linearisation. On the other side of the nose of the P-V curve it has the other sign; such a
    solution repels the iteration.

    Parameters
    ----------
    source : (N,). Factor on the source's voltage.
    start : (2, m, N). Voltages to start from.
    """
    n = source.size
    found, converged = np.full_like(start, np.nan), np.zeros(n, dtype=bool)
    cases, u = np.arange(n), start
    before = np.full(n, np.inf)
    count = 0
    with np.errstate(all="ignore"):  # a case that diverges ends as NaN
        while cases.size and count < _ITERATIONS:
            count += 1
            last, u = u, answer.voltages(_rest(answer.slope, demand.admittance(u), u), source)
            change = np.abs(u - last).max(axis=(0, 1))
            rate = np.maximum(change / before, _LEAST_RATE)
            before = change
            done = (rate < 1.0) & (change * rate < TOLERANCE_PU * (1.0 - rate))
            done |= change < _ROUNDING_PU
            ended = done | ~np.isfinite(change)
            if ended.all() or 2 * np.count_nonzero(ended) > ended.size or count == _ITERATIONS:
                found[..., cases[done]], converged[cases[done]] = u[..., done], True
                going = np.flatnonzero(~ended)
                cases, u, before = cases[going], u[..., going], before[going]
                source, demand = source[going], demand.take(going)
    return found, converged, count


def _rest(slope: FloatArray, y: FloatArray, u: FloatArray) -> FloatArray:
    """Return what the currents ``-(G - j B) u`` are beside ``slope u``, (2, m, N)."""
    g, b = y
    rest = np.empty_like(u)
    np.multiply(g + slope[0, 0], u[0], out=rest[0])
    rest[0] += (b + slope[0, 1]) * u[1]
    np.negative(rest[0], out=rest[0])
    np.multiply(b - slope[1, 0], u[0], out=rest[1])
    rest[1] -= (g + slope[1, 1]) * u[1]
    return rest


def linear_response(answer: PortAnswer, slope: FloatArray) -> FloatArray:
    """Return the derivative of the voltages by the source's factor, (2, m, N).

    `slope`: (2, 2, m, N). Of the currents by the voltages, of each case.
    """
    rest = slope - answer.slope
    n = slope.shape[-1]
    u = np.broadcast_to(answer.unloaded.reshape(2, -1, 1), (2, slope.shape[2], n))
    one = np.ones(n)
    for _ in range(_ITERATIONS):
        last = u
        u = answer.voltages(rest[:, 0] * u[0] + rest[:, 1] * u[1], one)
        if not (np.abs(u - last).max(initial=0.0) > 1e-9):
            break
    return u
