"""One block of a primal-dual interior point: its iterate, Newton matrix, steps and their lengths.

Of ``min f(x), g(x) = 0, h(x) + s = 0`` with the barrier ``-mu sum log s`` a Newton step solves,
after elimination of the slacks s,

    [ W     g_x'   h_x'   ] [ dx ]     [ f_x + g_x' y + h_x' z ]
    [ g_x   0      0      ] [ dy ] = - [ g                     ]
    [ h_x   0     -s / z  ] [ dz ]     [ h + mu / z            ]

where W is the Hessian of the Lagrangian (H. Wang, C. Murillo-Sanchez, R. Zimmerman and R. Thomas,
"On Computational Issues of Market-Based Optimal Power Flow", IEEE Trans. Power Systems 22(3),
2007; the algorithm of MATPOWER's MIPS, which also eliminates z. Near a solution that adds entries
z / s of 1e10 and more to W; a region's part of the inverse would lose its digits). Bounds are rows
of h; fixed variables are rows of g.

A central solver has one block, a distributed one has a block in each region.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from controllers.core.mail import FloatArray, IntArray
from controllers.optimisation.nlp import Nlp
from controllers.optimisation.sparse_pattern import Pattern, SquarePattern

_STEP_SHARE = 0.99995
"""Share of the way to the nearest bound that a step may go."""


@dataclass(frozen=True)
class Terms:
    """Added to an objective: ``linear' x + sum_i weight_i (x_i - target_i)^2 / 2``, each (n,)."""

    linear: FloatArray
    weight: FloatArray
    target: FloatArray

    def value(self, x: FloatArray) -> float:
        """Return the terms at x (n,)."""
        off = x - self.target
        return float(np.sum(self.linear * x + 0.5 * self.weight * off * off))

    def gradient(self, x: FloatArray) -> FloatArray:
        """Return their gradient, (n,)."""
        return self.linear + self.weight * (x - self.target)


@dataclass(frozen=True)
class Iterate:
    """A point of the iteration.

    Attributes
    ----------
    x : (n,)
    equality : (n_equalities,). Multipliers of g, and after them those of the fixed variables.
    slack, inequality : (n_rows,). Slacks and multipliers of h, upper bounds and lower bounds.
    """

    x: FloatArray
    equality: FloatArray
    slack: FloatArray
    inequality: FloatArray

    def moved(self, step: Iterate, primal: float, dual: float) -> Iterate:
        """Return the point after a step of these lengths."""
        return Iterate(
            self.x + primal * step.x,
            self.equality + dual * step.equality,
            self.slack + primal * step.slack,
            self.inequality + dual * step.inequality,
        )

    def lengths(self, step: Iterate) -> tuple[float, float]:
        """Return the longest primal and dual step, at most 1, that leave s and z positive."""
        return _length(self.slack, step.slack), _length(self.inequality, step.inequality)

    @property
    def finite(self) -> bool:
        """Whether all numbers are finite."""
        return all(np.isfinite(v).all() for v in (self.x, self.equality, self.inequality))


def _length(value: FloatArray, step: FloatArray) -> float:
    shrinks = step < 0.0
    nearest = float(np.min(value[shrinks] / -step[shrinks], initial=np.inf))
    return min(1.0, _STEP_SHARE * nearest)


class Residuals(NamedTuple):
    """How far an iterate is from a solution.

    `primal`: Largest violation of g = 0 and h <= 0. `slope`: Largest entry of the Lagrangian's
    gradient. `multiplier`: Largest one. `product`: s' z. `objective`: f(x), without terms.
    """

    primal: float
    slope: float
    multiplier: float
    product: float
    objective: float

    @property
    def relative(self) -> tuple[float, float, float]:
        """Primal residual, slope relative to 1 + multiplier, and product to 1 + objective."""
        gap = self.product / (1.0 + abs(self.objective))
        return self.primal, self.slope / (1.0 + self.multiplier), gap


class BarrierBlock:
    """Newton steps of one nonlinear program, or of one region of a larger one.

    Parameters
    ----------
    nlp : The program.
    terms : Added to its objective.
    """

    def __init__(self, nlp: Nlp, terms: Terms | None = None) -> None:
        self.nlp = nlp
        self.terms = terms
        self.n = len(nlp.start)
        free = nlp.lower < nlp.upper
        self._fixed = np.flatnonzero(~free)
        self._upper = np.flatnonzero(free & np.isfinite(nlp.upper))
        self._lower = np.flatnonzero(free & np.isfinite(nlp.lower))
        bounded = np.concatenate((self._upper, self._lower))
        self._sign = np.repeat([1.0, -1.0], [len(self._upper), len(self._lower)])
        self._equal = _with_rows(nlp.equality_pattern, self._fixed)
        self._limit = _with_rows(nlp.inequality_pattern, bounded)
        self._matrix = self._newton_pattern()

    @property
    def rows(self) -> int:
        """Number of inequality rows, bounds included."""
        return self._limit.shape[0]

    @property
    def unknowns(self) -> int:
        """Number of unknowns of the Newton equations: of x and of all multipliers."""
        return self._matrix.shape[0]

    def _newton_pattern(self) -> SquarePattern:
        equal, limit, hessian = self._equal, self._limit, self.nlp.hessian_pattern
        equal_rows = self.n + equal.rows
        limit_rows = self.n + equal.shape[0] + limit.rows
        every = np.arange(self.n + equal.shape[0] + limit.shape[0])
        lower = hessian.rows, every, equal_rows, limit_rows, equal.columns, limit.columns
        upper = hessian.columns, every, equal.columns, limit.columns, equal_rows, limit_rows
        return SquarePattern(np.concatenate(lower), np.concatenate(upper), len(every))

    def start(self, x: FloatArray, mu: float) -> Iterate:
        """Return an interior iterate at x (n,), moved into its bounds."""
        nlp = self.nlp
        x = np.clip(x, nlp.lower, nlp.upper)
        _, h = self._rows_at(x)
        slack = np.maximum(-h, 1.0)
        return Iterate(x, np.zeros(self._equal.shape[0]), slack, np.maximum(mu / slack, 1.0))

    def restart(self, at: Iterate, mu: float) -> Iterate:
        """Return an interior iterate near one that solved another program of the same kind."""
        _, h = self._rows_at(at.x)
        slack = np.maximum(-h, np.sqrt(mu))
        return replace(at, slack=slack, inequality=np.maximum(at.inequality, mu / slack))

    def multipliers(self, at: Iterate) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the multipliers of g, of h, and of the bounds, (n,): positive at upper ones."""
        k, m = self.nlp.equality_pattern.shape[0], self.nlp.inequality_pattern.shape[0]
        bound = np.zeros(self.n)
        bound[self._fixed] = at.equality[k:]
        signed = self._sign * at.inequality[m:]
        bound[self._upper] += signed[: len(self._upper)]
        bound[self._lower] += signed[len(self._upper) :]
        return at.equality[:k], at.inequality[:m], bound

    def _rows_at(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Evaluate the program at x; return g and h with fixed variables and bounds."""
        nlp = self.nlp
        self.point = nlp.at(x)
        g = np.concatenate((self.point.equalities, x[self._fixed] - nlp.lower[self._fixed]))
        h = np.concatenate(
            (
                self.point.inequalities,
                x[self._upper] - nlp.upper[self._upper],
                nlp.lower[self._lower] - x[self._lower],
            )
        )
        return g, h

    def look(self, at: Iterate) -> Residuals:
        """Evaluate the program at an iterate and return its residuals."""
        self.iterate = at
        self._g, self._h = self._rows_at(at.x)
        self._equal_slopes = np.append(self.point.equality_slopes, np.ones(len(self._fixed)))
        self._limit_slopes = np.append(self.point.inequality_slopes, self._sign)
        self._slope = (
            self.point.gradient
            + self._equal.transposed_times(self._equal_slopes, at.equality)
            + self._limit.transposed_times(self._limit_slopes, at.inequality)
        )
        if self.terms is not None:
            self._slope += self.terms.gradient(at.x)
        return Residuals(
            max(_largest(self._g), float(np.max(self._h, initial=0.0))),
            _largest(self._slope),
            max(_largest(at.equality), _largest(at.inequality)),
            float(np.sum(at.slack * at.inequality)),
            self.point.objective,
        )

    def factor(self, shift: float = 0.0) -> Callable[[FloatArray], FloatArray]:
        """Factor the Newton matrix of the iterate last looked at.

        shift : Added to the diagonal of the Hessian.

        Raises RuntimeError: The matrix is singular.
        """
        at = self.iterate
        k, m = self.nlp.equality_pattern.shape[0], self.nlp.inequality_pattern.shape[0]
        hessian = self.nlp.hessian(at.x, at.equality[:k], at.inequality[:m])
        weight = np.full(self.n, shift)
        if self.terms is not None:
            weight += self.terms.weight
        diagonal = weight, np.zeros(self._equal.shape[0]), -at.slack / at.inequality
        slopes = self._equal_slopes, self._limit_slopes
        return self._matrix.factor(np.concatenate((hessian, *diagonal, *slopes, *slopes)))

    def right_side(self, mu: float) -> FloatArray:
        """Return minus the residuals that the Newton step removes, (unknowns,)."""
        return -np.concatenate((self._slope, self._g, self._h + mu / self.iterate.inequality))

    def step(self, solution: FloatArray) -> Iterate:
        """Return the whole step of a solution (unknowns,) of the Newton equations."""
        ends = self.n, self.n + self._equal.shape[0]
        dx, equality, inequality = np.split(solution, ends)
        slack = -self._h - self.iterate.slack - self._limit.times(self._limit_slopes, dx)
        return Iterate(dx, equality, slack, inequality)


def _with_rows(pattern: Pattern, columns: IntArray) -> Pattern:
    """Return a pattern with more rows that have one entry each."""
    m, more = pattern.shape[0], len(columns)
    return Pattern(
        np.concatenate((pattern.rows, m + np.arange(more))),
        np.concatenate((pattern.columns, columns)),
        (m + more, pattern.shape[1]),
    )


def _largest(values: FloatArray) -> float:
    return float(np.max(np.abs(values), initial=0.0))
