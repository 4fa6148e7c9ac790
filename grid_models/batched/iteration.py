"""The iterations that solve a block of cases."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from grid_models.batched.demand import Demand, OwnDemand, current_slope
from grid_models.batched.linear import PortAnswer, RealArray, fed_back

TOLERANCE_PU = 2e-10
_ROUNDING_PU = 1e-13
_ROUGH_PU, _SLOPE_PU = 2e-6, 2e-6
_ITERATIONS, _ROUGH_ITERATIONS, _NEWTON_ITERATIONS = 50, 10, 25
_LEAST_RATE = 0.05
_FEW_CASES = 16


def iterate(
    answer: PortAnswer,
    demand: Demand,
    source: RealArray,
    start: RealArray,
    *,
    tolerance_pu: float = TOLERANCE_PU,
    most: int = _ITERATIONS,
) -> tuple[RealArray, NDArray[np.bool_], int]:
    """Return voltages (2, m, N), in which cases demand and feeder agree on them, and the steps.

    The error that is left is estimated from the rate at which the changes shrink. The iteration
    converges only to solutions at which the determinant of the Jacobian has the sign that it has at
    the linearisation. On the other side of the nose of the P-V curve it has the other sign; such a
    solution repels the iteration.

    Parameters
    ----------
    source : (N,). Factor on the source's voltage.
    start : (2, m, N). Voltages to start from.
    tolerance_pu, most : Error at which a case is solved, and the largest number of steps.
    """
    found, converged = np.array(start), np.zeros(source.size, dtype=bool)
    cases, u = np.arange(source.size), start
    rest = _rest_of(source, start)
    before = np.full(source.size, np.inf)
    count = 0
    with np.errstate(all="ignore"):  # a case that diverges leaves the iteration as not converged
        while cases.size and count < most:
            count += 1
            last, u = u, _step(answer, demand, u, rest)
            change = np.abs(u - last).max(axis=(0, 1), initial=0.0)
            rate = np.maximum(change / before, _LEAST_RATE)
            before = change
            done = (rate < 1.0) & (change * rate < tolerance_pu * (1.0 - rate))
            done |= change < _ROUNDING_PU
            ended = done | ~np.isfinite(change)
            if count == most or 2 * np.count_nonzero(ended) > ended.size:
                found[..., cases], converged[cases] = u, done
                going = np.flatnonzero(~ended)
                cases, u, before = cases[going], u[..., going], before[going]
                demand, rest = demand.take(going), _rest_of(rest[-1, going], u)
    return found, converged, count


def rough(
    answer: PortAnswer, demand: OwnDemand, source: RealArray, start: RealArray
) -> tuple[RealArray, int]:
    """Return better voltages to start from, and the steps: iterated in half the precision."""
    if source.size < _FEW_CASES:
        return start, 0
    half = [x.astype(np.float32) for x in (source, start)]
    u, _, count = iterate(
        answer.single,
        demand.single(),
        *half,
        tolerance_pu=_ROUGH_PU,
        most=_ROUGH_ITERATIONS,
    )
    finite = np.isfinite(u).all(axis=(0, 1))
    return np.where(finite, u, start), count


def _rest_of(source: RealArray, u: RealArray) -> RealArray:
    """Return the array for what `PortAnswer.gain` is multiplied with, (2 m + 1, N)."""
    rest = np.empty((2 * u.shape[1] + 1, u.shape[2]), dtype=u.dtype)
    rest[-1] = source
    return rest


def _step(answer: PortAnswer, demand: Demand, u: RealArray, rest: RealArray) -> RealArray:
    """Return the voltages (2, m, N) that answer to the currents at voltages `u`."""
    g, b = demand.admittance(u)
    m, slope = u.shape[1], answer.slope
    np.multiply(g - slope[0, 0], u[0], out=rest[:m])
    rest[:m] += (b - slope[0, 1]) * u[1]
    np.multiply(g - slope[1, 1], u[1], out=rest[m:-1])
    rest[m:-1] -= (b + slope[1, 0]) * u[0]
    return np.asarray(answer.gain @ rest).reshape(u.shape)


def newton(
    unloaded: PortAnswer, demand: Demand, source: RealArray, start: RealArray
) -> tuple[RealArray, NDArray[np.bool_]]:
    """Return voltages (2, m, N) and which cases are solved, by Newton's method for each case.

    A solution counts only where the Jacobian's determinant has the sign of the feeder without load.

    `unloaded`: The answer without linearisation; else as `iterate`.
    """
    m, n = start.shape[1:]
    u, solved = np.array(start), np.zeros(n, dtype=bool)
    gain = unloaded.gain[:, :-1]
    one = np.eye(2 * m)
    for c in range(n):
        case, at = demand.take(np.array([c])), u[..., c : c + 1]
        rest = _rest_of(source[c : c + 1], at)
        with np.errstate(all="ignore"):
            for _ in range(_NEWTON_ITERATIONS):
                miss = at - _step(unloaded, case, at, rest)
                slope = current_slope(case, at)[..., 0]
                matrix = one - fed_back(gain, slope)
                if not np.isfinite(matrix).all():
                    break
                if np.abs(miss).max() < TOLERANCE_PU:
                    solved[c] = np.linalg.slogdet(matrix)[0] > 0.0
                    break
                try:
                    at = at - np.linalg.solve(matrix, miss.ravel()).reshape(at.shape)
                except np.linalg.LinAlgError:
                    break
        u[..., c] = at[..., 0]
    return u, solved


def linear_response(answer: PortAnswer, slope: RealArray) -> RealArray:
    """Return the derivative of the voltages by the source's factor, (2, m, N).

    `slope`: (2, 2, m, N). Of the currents by the voltages, of each case.
    """
    m, n = slope.shape[2:]
    more = slope - answer.slope
    u = np.broadcast_to(answer.gain[:, -1].reshape(2, m, 1), (2, m, n))
    rest = _rest_of(np.ones(n), u)
    rise = rest[:-1].reshape(2, m, n)
    for _ in range(_ITERATIONS):
        last = u
        np.multiply(more[:, 0], u[0], out=rise)
        rise += more[:, 1] * u[1]
        u = (answer.gain @ rest).reshape(u.shape)
        if not np.abs(u - last).max(initial=0.0) > _SLOPE_PU:
            break
    return u
