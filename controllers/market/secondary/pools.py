"""Agents of all operators as padded arrays, and their powers at given multipliers.

Every level of the secondary market minimises a sum over agents, subject to sums of their powers and
bounds on such sums. Given the multipliers of the bounds, each agent has a problem of its own::

    minimise  quad (x - x0)^2 + push x + kink |x - middle| - nu x,   low <= x <= high

with a closed form, and nu is fixed by the sum of a *pool*: an operator's generation, its
loads, and its reactive power. Agents are on the first axis. Sums over it add row after row, so a
blank row of padding changes no bit, and neither do the other operators of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from controllers.core.mail import FloatArray
from controllers.market.secondary.problem import SCORE_FLOOR, SecondaryBids

POOLS = 3
ROUNDS = 80
_ROUNDING = 2e-14  # of the sum of the ranges
_EPS = 1e-15
_BETA_FLOOR = 1e-6  # of the operator's largest: a choice without a cost falls near the plan


@dataclass(frozen=True)
class Cells:
    """One number per agent slot, pool and operator, (w, 3, n); blank where there is no agent.

    `inverse_score` is 1/RS; `middle` the middle of the bid's range, clipped to `low` and `high`;
    `total` (3, n) is the sum of each pool, `size` (3, n) the largest that it could be.
    """

    x0: FloatArray
    low: FloatArray
    high: FloatArray
    middle: FloatArray
    inverse_score: FloatArray
    beta: FloatArray
    total: FloatArray
    size: FloatArray

    def take(self, operators: NDArray[np.int64]) -> Cells:
        """Return some operators' cells."""
        return Cells(**{f.name: getattr(self, f.name)[..., operators].copy() for f in fields(self)})

    def deviation_cost(self, x: FloatArray) -> FloatArray:
        """Level 1: ``sum (x - x0)^2 / RS`` of each operator, (n,)."""
        away = x - self.x0
        return over_pools(self.inverse_score * away * away)

    def inflexibility(self, x: FloatArray) -> FloatArray:
        """Level 3 but for a constant: ``sum |x - middle|`` of each operator, (n,)."""
        return over_pools(np.abs(x - self.middle))


def over_pools(values: FloatArray) -> FloatArray:
    """Sum cells (w, 3, n) over agents and pools, in an order that padding does not change."""
    sums: FloatArray = values.sum(axis=0)
    return np.asarray(sums[0] + sums[1] + sums[2])


@dataclass(frozen=True)
class Agents:
    """The 2m powers of m agents (active, then reactive) and their places; arrays of shape (2m,).

    `middle` and `reach` are of the range that was bid, `low` and `high` of what is left of it.
    """

    owner: NDArray[np.int64]
    slot: NDArray[np.int64]
    size: int
    x0: FloatArray
    low: FloatArray
    high: FloatArray
    middle: FloatArray
    reach: FloatArray
    inverse_score: FloatArray
    beta: FloatArray

    @classmethod
    def of(cls, bids: SecondaryBids, n: int) -> Agents:
        """Return the agents of `n` operators."""
        owner = np.asarray(bids.owner, dtype=np.int64)
        start = np.searchsorted(owner, np.arange(n))
        low = np.concatenate((bids.p_min, bids.q_min))
        high = np.concatenate((bids.p_max, bids.q_max))
        beta = np.concatenate((bids.beta_p, bids.beta_q))
        owners = np.tile(owner, 2)
        largest = np.zeros(n)
        np.maximum.at(largest, owners, beta)
        least = np.where(largest > 0, _BETA_FLOOR * largest, 1.0)
        return cls(
            owner=owners,
            slot=np.tile(np.arange(len(owner)) - start[owner], 2),
            size=n,
            x0=np.concatenate((bids.p0, bids.q0)),
            low=low,
            high=high,
            middle=0.5 * (low + high),
            reach=0.5 * (high - low),
            inverse_score=np.tile(1 / np.maximum(bids.score, SCORE_FLOOR), 2),
            beta=np.maximum(beta, least[owners]),
        )

    def with_signs(self, generates: NDArray[np.bool_]) -> Agents:
        """Return them with active powers (m,) kept at 0 or above where `generates`, else below."""
        m = len(generates)
        low, high = self.low.copy(), self.high.copy()
        low[:m] = np.where(generates, np.maximum(low[:m], 0), low[:m])
        high[:m] = np.where(generates, high[:m], np.minimum(high[:m], 0))
        return replace(self, low=low, high=high)

    def pools(self, loads: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return the pool of each power, (2m,): 1 of `loads` (m,), 0 other active, 2 reactive."""
        return np.concatenate((loads.astype(np.int64), np.full(len(loads), 2)))

    def cells(self, pools: NDArray[np.int64], total: FloatArray) -> Cells:
        """Return padded arrays with `pools` (2m,) and their sums `total` (3, n)."""
        wide = int(self.slot.max(initial=0)) + 1
        where = (self.slot, pools, self.owner)

        def padded(values: FloatArray, blank: float) -> FloatArray:
            out = np.full((wide, POOLS, self.size), blank)
            out[where] = values
            return out

        most = np.maximum(np.abs(self.low), np.abs(self.high))
        return Cells(
            x0=padded(self.x0, 0.0),
            low=padded(self.low, 0.0),
            high=padded(self.high, 0.0),
            middle=padded(np.minimum(np.maximum(self.middle, self.low), self.high), 0.0),
            inverse_score=padded(self.inverse_score, 1.0),
            beta=padded(self.beta, 1.0),
            total=total,
            size=padded(most, 0.0).sum(axis=0),
        )

    def sums(self, values: FloatArray, pools: NDArray[np.int64]) -> FloatArray:
        """Sum flat values (2m,) by pool and operator, (3, n)."""
        where = pools * self.size + self.owner
        summed = np.bincount(where, weights=values, minlength=POOLS * self.size)
        return summed.astype(np.float64).reshape(POOLS, self.size)


@dataclass(frozen=True)
class Point:
    """Powers of all cells and how they answer to the multipliers.

    Attributes
    ----------
    x : ndarray (w, 3, n)
    nu : ndarray (3, n). Marginal price of each pool's sum.
    dx_dnu : ndarray (w, 3, n). dx/dnu of each cell: 0 at a limit and at the kink.
    dsum_dnu : ndarray (3, n). Its sum over each pool.
    ok : ndarray of bool, (n,). The sums were met to rounding.
    """

    x: FloatArray
    nu: FloatArray
    dx_dnu: FloatArray
    dsum_dnu: FloatArray
    ok: NDArray[np.bool_]

    def moves(self, drive: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return dx (w, 3, n) and dnu (3, n) under a drive of the cells that keeps all sums."""
        dnu = -(self.dx_dnu * drive).sum(axis=0) / np.where(
            self.dsum_dnu > 0, self.dsum_dnu, np.inf
        )
        return self.dx_dnu * (dnu + drive), dnu


def respond(
    cells: Cells,
    quad: FloatArray,
    nu: FloatArray,
    *,
    kink: FloatArray | float = 0.0,
    push: FloatArray | float = 0.0,
) -> Point:
    """Return the powers of least cost that have the sums of the pools.

    The sum of a pool rises with nu piecewise linearly: Newton's method is exact on a piece, and a
    bracket keeps it from cycling. A pool that has its sum is frozen. Intermediate divisions by 0
    are expected; the caller suppresses their warnings.

    Parameters
    ----------
    quad : ndarray (w, 3, n). Above 0.
    nu : ndarray (3, n). Where to begin.
    kink, push : ndarray, broadcast to (w, 3, n)
    """
    slope = 0.5 / quad
    centre = cells.x0 - push * slope
    reach = kink * slope
    falls, rises = centre - reach, centre + reach
    kinked = reach > 0
    below, above = np.full_like(nu, -np.inf), np.full_like(nu, np.inf)
    tolerance = _ROUNDING * cells.size
    for _ in range(ROUNDS):
        free = nu * slope
        x = np.minimum(np.maximum(cells.middle, falls + free), rises + free)
        x = np.minimum(np.maximum(x, cells.low), cells.high)
        shortfall = cells.total - x.sum(axis=0)
        moving = (x > cells.low) & (x < cells.high) & ((x != cells.middle) | ~kinked)
        dx_dnu = slope * moving
        dsum_dnu = dx_dnu.sum(axis=0)
        done = np.abs(shortfall) <= tolerance + _EPS * np.abs(nu) * dsum_dnu
        if done.all():
            break
        below = np.where(shortfall > 0, nu, below)
        above = np.where(shortfall < 0, nu, above)
        stuck = (dsum_dnu == 0) & ~done
        new = nu + shortfall / dsum_dnu
        if stuck.any():
            new = np.where(
                stuck, _price_of_next_move(cells, x, shortfall, slope, centre, reach), new
            )
        inside = (new > below) & (new < above)
        nu = np.where(done, nu, np.where(inside, new, 0.5 * (below + above)))
    return Point(x, nu, dx_dnu, dsum_dnu, done.all(axis=0))


def _price_of_next_move(
    cells: Cells,
    x: FloatArray,
    shortfall: FloatArray,
    slope: FloatArray,
    centre: FloatArray,
    reach: FloatArray,
) -> FloatArray:
    """Return nu (3, n) at which the first cell that can move would cover `shortfall` alone."""
    up = shortfall > 0
    sign = np.where(up, 1.0, -1.0)
    outer = np.where(up, x >= cells.middle, x <= cells.middle)
    # Seen in the direction of the step: the nu at which each cell leaves where it stands.
    begins = sign * (x - centre) / slope + np.where(outer, reach, -reach) / slope
    can = np.where(up, x < cells.high, x > cells.low)
    begins = np.where(can, begins, np.inf)
    first = np.argmin(begins, axis=0)[None]
    nu = np.take_along_axis(begins, first, axis=0)[0]
    alone = np.take_along_axis(slope, first, axis=0)[0]
    return np.asarray(sign * (nu + np.abs(shortfall) / alone))
