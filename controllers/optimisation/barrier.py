"""One block of a primal-dual interior point: its iterate, Newton matrix, steps and their lengths.

Of ``min f(x), g(x) = 0, h(x) + s = 0`` with the barrier ``-mu sum log s`` a Newton step solves,
after elimination of the slacks s and their multipliers z,

    [ W + h_x' (z/s) h_x   g_x' ] [ dx ]     [ f_x + g_x' y + h_x' (mu + z (h + s)) / s ]
    [ g_x                  0    ] [ dy ] = - [ g                                        ]

where W is the Hessian of the Lagrangian (H. Wang, C. Murillo-Sanchez, R. Zimmerman and R. Thomas,
"On Computational Issues of Market-Based Optimal Power Flow", IEEE Trans. Power Systems 22(3),
2007; the algorithm of MATPOWER's MIPS). Bounds are rows of h; fixed variables are rows of g.

A central solver has one block, a distributed one has a block in each region.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from controllers.core.mail import FloatArray
from controllers.optimisation.nlp import Nlp
from controllers.optimisation.sparse_pattern import SquarePattern

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
        self._limits = nlp.inequality_pattern.shape[0]
        self._pairs = nlp.inequality_pattern.row_pairs()
        self._matrix = self._newton_pattern()

    @property
    def rows(self) -> int:
        """Number of inequality rows, bounds included."""
        return self._limits + len(self._upper) + len(self._lower)

    @property
    def unknowns(self) -> int:
        """Number of unknowns of the Newton equations, n + n_equalities."""
        return self._matrix.shape[0]

    def _newton_pattern(self) -> SquarePattern:
        n, hessian = self.n, self.nlp.hessian_pattern
        limit, equal = self.nlp.inequality_pattern, self.nlp.equality_pattern
        first, second = self._pairs
        m = equal.shape[0]
        fixed_rows = n + m + np.arange(len(self._fixed))
        every = np.arange(n + m + len(self._fixed))
        rows = (
            hessian.rows, limit.columns[first], every,
            equal.rows + n, equal.columns, fixed_rows, self._fixed,
        )  # fmt: skip
        columns = (
            hessian.columns, limit.columns[second], every,
            equal.columns, equal.rows + n, self._fixed, fixed_rows,
        )  # fmt: skip
        return SquarePattern(np.concatenate(rows), np.concatenate(columns), len(every))

    def start(self, x: FloatArray, mu: float) -> Iterate:
        """Return an interior iterate at x (n,), moved into its bounds."""
        nlp = self.nlp
        x = np.clip(x, nlp.lower, nlp.upper)
        _, h = self._rows_at(x)
        slack = np.maximum(-h, 1.0)
        m = nlp.equality_pattern.shape[0] + len(self._fixed)
        return Iterate(x, np.zeros(m), slack, np.maximum(mu / slack, 1.0))

    def restart(self, at: Iterate, mu: float) -> Iterate:
        """Return an interior iterate near one that solved another program of the same kind."""
        _, h = self._rows_at(at.x)
        slack = np.maximum(-h, np.sqrt(mu))
        return replace(at, slack=slack, inequality=np.maximum(at.inequality, mu / slack))

    def multipliers(self, at: Iterate) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the multipliers of g, of h, and of the bounds, (n,): positive at upper ones."""
        m, u = self._limits, self._limits + len(self._upper)
        k = self.nlp.equality_pattern.shape[0]
        bound = np.zeros(self.n)
        bound[self._fixed] = at.equality[k:]
        bound[self._upper] += at.inequality[m:u]
        bound[self._lower] -= at.inequality[u:]
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
        self._gradient = self.point.gradient.copy()
        if self.terms is not None:
            self._gradient += self.terms.gradient(at.x)
        self._gradient += self._equal_transposed(at.equality)
        dual = self._gradient + self._limits_transposed(at.inequality)
        return Residuals(
            max(_largest(self._g), float(np.max(self._h, initial=0.0))),
            _largest(dual),
            max(_largest(at.equality), _largest(at.inequality)),
            float(np.sum(at.slack * at.inequality)),
            self.point.objective,
        )

    def _equal_transposed(self, y: FloatArray) -> FloatArray:
        m = self.nlp.equality_pattern.shape[0]
        out = self.nlp.equality_pattern.transposed_times(self.point.equality_slopes, y[:m])
        out[self._fixed] += y[m:]
        return out

    def _limits_transposed(self, z: FloatArray) -> FloatArray:
        m, u = self._limits, self._limits + len(self._upper)
        out = self.nlp.inequality_pattern.transposed_times(self.point.inequality_slopes, z[:m])
        out[self._upper] += z[m:u]
        out[self._lower] -= z[u:]
        return out

    def _limits_times(self, dx: FloatArray) -> FloatArray:
        rows = self.nlp.inequality_pattern.times(self.point.inequality_slopes, dx)
        return np.concatenate((rows, dx[self._upper], -dx[self._lower]))

    def factor(self, shift: float = 0.0) -> Callable[[FloatArray], FloatArray]:
        """Factor the Newton matrix of the iterate last looked at.

        shift : Added to the diagonal of the Hessian.

        Raises RuntimeError: The matrix is singular.
        """
        at, m = self.iterate, self._limits
        u = m + len(self._upper)
        ratio = at.inequality / at.slack
        slopes, (first, second) = self.point.inequality_slopes, self._pairs
        rows = self.nlp.inequality_pattern.rows
        diagonal = np.zeros(self._matrix.shape[0])
        diagonal[: self.n] = shift if self.terms is None else shift + self.terms.weight
        diagonal[self._upper] += ratio[m:u]
        diagonal[self._lower] += ratio[u:]
        equal, ones = self.point.equality_slopes, np.ones(len(self._fixed))
        limit_multipliers = at.inequality[:m]
        hessian = self.nlp.hessian(
            at.x, at.equality[: self.nlp.equality_pattern.shape[0]], limit_multipliers
        )
        products = slopes[first] * ratio[rows[first]] * slopes[second]
        values = (hessian, products, diagonal, equal, equal, ones, ones)
        return self._matrix.factor(np.concatenate(values))

    def right_side(self, mu: float) -> FloatArray:
        """Return minus the residuals that the Newton step removes, (n + n_equalities,)."""
        at = self.iterate
        pull = (mu + at.inequality * (self._h + at.slack)) / at.slack
        return -np.concatenate((self._gradient + self._limits_transposed(pull), self._g))

    def step(self, solution: FloatArray, mu: float) -> Iterate:
        """Return the whole step of a solution (n + n_equalities,) of the Newton equations."""
        at, dx = self.iterate, solution[: self.n]
        slack = -self._h - at.slack - self._limits_times(dx)
        inequality = -at.inequality + (mu - at.inequality * slack) / at.slack
        return Iterate(dx, solution[self.n :], slack, inequality)


def _largest(values: FloatArray) -> float:
    return float(np.max(np.abs(values), initial=0.0))
