"""Levels 2 to 4 of the secondary market, each reduced to a search over one or two multipliers.

- `minimise_within_bound`: levels 2 and 3, ``f1 + w f`` with the largest weight w that the bound of
  level 1 allows. While the set of agents at a limit stays the same, the schedule is linear in w, so
  the step to the bound is the root of a quadratic.
- `least_disutility`: level 4 under the bounds of levels 1 and 3. Its Lagrangian
  ``f4 + y1 f1 + y3 f3`` is strictly convex, so f1 falls with y1 and, along the y1 that keeps the
  first bound, f3 falls with y3.

All searches are monotone and bracketed, so they end. The values of a solved operator are frozen:
the others of the batch must not change them. Intermediate divisions by 0 are expected; the caller
suppresses their warnings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from controllers.core.mail import FloatArray
from controllers.market.secondary.pools import ROUNDS, Cells, Point, over_pools, respond

_ENOUGH = 1e-10  # of the room that a bound leaves
_ROUNDING = 1e-14  # of the sum that is bounded
_TOLERATED = 1e3  # times that, where a bracket has no number between its ends
_STEP_GROWTH = 16.0


@dataclass
class _Search:
    """A bracketed search for the least multiplier that satisfies a bound, of each operator."""

    at: FloatArray
    ceiling: FloatArray
    done: NDArray[np.bool_]
    low: FloatArray
    high: FloatArray
    last_shortfall: FloatArray
    ok: NDArray[np.bool_]

    @classmethod
    def begin(cls, at: FloatArray, ceiling: FloatArray) -> _Search:
        """Begin at `at`; neither 0 nor `ceiling` has been tried."""
        n = len(at)
        done, low, last_shortfall = np.zeros(n, bool), np.full(n, -1.0), np.full(n, np.inf)
        return cls(at, ceiling, done, low, 2 * ceiling + 1, last_shortfall, done)

    def move(
        self, shortfall: FloatArray, near: FloatArray, step: FloatArray, unit: FloatArray
    ) -> FloatArray:
        """Change the multipliers where `shortfall` is not near 0; return the changes, (n,).

        A positive shortfall means that the multiplier is too small.
        """
        at = self.at
        self.low = np.where(shortfall > 0, at, self.low)
        self.high = np.where(shortfall <= 0, at, self.high)
        ends = ((at == 0) & (shortfall <= 0)) | ((at == self.ceiling) & (shortfall >= 0))
        closed = self.high - self.low < 4e-16 * self.high
        self.done = self.done | (np.abs(shortfall) <= near) | ends | closed
        self.ok = self.done & (ends | (np.abs(shortfall) <= _TOLERATED * near))
        # Growth per step is limited: where the shortfall is nearly flat the step has no bound.
        # Where a step did not halve the shortfall, or leaves the bracket, the bracket is bisected.
        new = np.clip(at + step, 0, np.minimum(self.ceiling, _STEP_GROWTH * (at + unit)))
        good = (
            (new > self.low) & (new < self.high) & (np.abs(shortfall) <= 0.5 * self.last_shortfall)
        )
        good |= np.isposinf(step) & (self.high > self.ceiling)
        self.last_shortfall = np.abs(shortfall)
        middle = np.sqrt(np.maximum(self.low, 1e-3 * self.high) * self.high)
        middle = np.where(np.isfinite(self.high), middle, 4 * at + unit)
        new = np.where(good, new, np.where((self.low < 0) & (shortfall <= 0), 0.0, middle))
        by = np.where(self.done, 0.0, new - at)
        self.at = np.where(self.done, at, new)
        return by


def minimise_within_bound(
    cells: Cells, bound: FloatArray, nu: FloatArray, gains: FloatArray | None = None
) -> tuple[Point, NDArray[np.bool_]]:
    """Minimise a level under ``f1 <= bound`` and the sums of the pools.

    Parameters
    ----------
    bound : ndarray (n,). At least the smallest f1 that the sums allow.
    nu : ndarray (3, n). Where to begin.
    gains : ndarray (w, 3, n) or None
        Level 2: maximise ``sum(gains x)``. None is level 3: minimise ``sum |x - middle|``.

    Returns the point, and which operators are solved, (n,).
    """
    far = np.maximum(np.abs(cells.low - cells.x0), np.abs(cells.high - cells.x0))
    ceiling = 1 + 4 * (cells.inverse_score * far).max(axis=(0, 1))
    search = _Search.begin(np.zeros(len(bound)), ceiling)
    near = np.zeros(0)
    for _ in range(ROUNDS):
        w = search.at
        kink, push = (w, 0.0) if gains is None else (0.0, -w * gains)
        point = respond(cells, cells.inverse_score, nu, kink=kink, push=push)
        f1 = cells.deviation_cost(point.x)
        if not near.size:
            near = _ENOUGH * np.maximum(bound - f1, 0) + _ROUNDING * bound
        drive = -np.sign(point.x - cells.middle) if gains is None else gains
        dx, dnu = point.moves(drive)
        quadratic = over_pools(cells.inverse_score * dx * dx)
        linear = over_pools(2 * cells.inverse_score * (point.x - cells.x0) * dx)
        room = bound - f1
        root = np.sqrt(np.maximum(linear * linear + 4 * quadratic * room, 0))
        step = 2 * room / (linear + root)
        by = search.move(room, near, step, ceiling)
        if search.done.all():
            break
        nu = point.nu + dnu * by
    return point, search.ok & point.ok


@dataclass(frozen=True)
class _OnLevel1Bound:
    """A point at which the bound of level 1 holds, with its multiplier `y1` (n,)."""

    y1: FloatArray
    point: Point
    away: FloatArray  # df1/dx
    f1_y1: FloatArray  # df1/dy1, (n,)
    x_y1: tuple[FloatArray, FloatArray]  # dx/dy1, dnu/dy1
    ok: NDArray[np.bool_]


@dataclass(frozen=True)
class Bounds:
    """Of levels 1 and 3, (n,): what f may be, and the least that it can be (None: not known)."""

    f1: FloatArray
    f3: FloatArray
    least_f1: FloatArray
    least_f3: FloatArray

    def take(self, operators: NDArray[np.int64]) -> Bounds:
        """Return some operators' bounds."""
        return Bounds(*(getattr(self, name)[operators] for name in self.__dataclass_fields__))


def _secular(
    value: FloatArray, least: FloatArray, bound: FloatArray, rate: FloatArray
) -> FloatArray:
    """Step of a multiplier for ``value = bound``; near its end, value - least falls as 1/y^2."""
    over = value - least
    step = 2 * over * (1 - np.sqrt(over / (bound - least))) / rate
    return np.where(np.isfinite(step), step, (bound - value) / rate)


def _within_level_1_bound(
    cells: Cells, bounds: Bounds, y1: FloatArray, y3: FloatArray, nu: FloatArray
) -> _OnLevel1Bound:
    """Minimise ``f4 + y3 f3`` under the bound of level 1, from a guess of `y1`."""
    unit = np.where(cells.high > cells.low, cells.beta / cells.inverse_score, 0).max(axis=(0, 1))
    search = _Search.begin(y1, np.full(len(y1), np.inf))
    near = _ENOUGH * np.maximum(bounds.f1 - bounds.least_f1, 0) + _ROUNDING * bounds.f1
    for _ in range(ROUNDS):
        y1 = search.at
        point = respond(cells, cells.beta + y1 * cells.inverse_score, nu, kink=y3)
        f1 = cells.deviation_cost(point.x)
        away = 2 * cells.inverse_score * (point.x - cells.x0)
        x_y1 = point.moves(-away)
        rate = over_pools(away * x_y1[0])
        step = _secular(f1, bounds.least_f1, bounds.f1, rate)
        by = search.move(f1 - bounds.f1, near, step, unit)
        if search.done.all():
            break
        nu = point.nu + x_y1[1] * by
    return _OnLevel1Bound(y1, point, away, rate, x_y1, search.ok & point.ok)


def least_disutility(
    cells: Cells, bounds: Bounds, nu: FloatArray
) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
    """Minimise level 4 under the bounds of levels 1 and 3 and the sums of the pools.

    Returns powers (w, 3, n), prices of the sums (3, n), and which operators are solved (n,).
    """
    n = len(bounds.f1)
    first = _within_level_1_bound(cells, bounds, np.zeros(n), np.zeros(n), nu)
    x, price, ok = first.point.x, first.point.nu, first.ok
    rows = np.flatnonzero(cells.inflexibility(x) > bounds.f3)
    if rows.size:
        point, solved = _within_both_bounds(
            cells.take(rows), bounds.take(rows), first.y1[rows], price[:, rows]
        )
        x[..., rows], price[:, rows], ok[rows] = point.x, point.nu, solved
    return x, price, ok


def _within_both_bounds(
    cells: Cells, bounds: Bounds, y1: FloatArray, nu: FloatArray
) -> tuple[Point, NDArray[np.bool_]]:
    far = np.maximum(np.abs(cells.low - cells.x0), np.abs(cells.high - cells.x0))
    unit = 2 * (cells.beta * far).max(axis=(0, 1))
    search = _Search.begin(np.zeros(len(y1)), np.full(len(y1), np.inf))
    size = over_pools(cells.high - cells.low)
    near = _ENOUGH * np.maximum(bounds.f3 - bounds.least_f3, 0) + _ROUNDING * size
    for _ in range(ROUNDS):
        at = _within_level_1_bound(cells, bounds, y1, search.at, nu)
        f3 = cells.inflexibility(at.point.x)
        side = np.sign(at.point.x - cells.middle)
        dx, dnu = at.point.moves(-side)
        rate, cross = over_pools(side * dx), over_pools(at.away * dx)
        held = (at.y1 > 0) & (at.f1_y1 < 0)
        ratio = np.divide(-cross, at.f1_y1, where=held, out=np.zeros_like(cross))  # dy1/dy3
        rate = rate + ratio * cross
        plain = (bounds.f3 - f3) / rate
        step = np.where(held, _secular(f3, bounds.least_f3, bounds.f3, rate), plain)
        by = search.move(f3 - bounds.f3, near, step, unit)
        if search.done.all():
            break
        y1 = np.clip(at.y1 + ratio * by, at.y1 / _STEP_GROWTH, at.y1 * _STEP_GROWTH)
        nu = at.point.nu + (dnu + at.x_y1[1] * ratio) * by
    return at.point, search.ok & at.ok
