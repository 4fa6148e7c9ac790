"""The resilience manager's law: prices bent until the import is what it was (thesis, eqs. 1-4).

The manager has no direct control. It multiplies the coefficients of the market's objective

    sum_i alpha_i/2 P_Gi^2 + beta_i (P_Li - P_Li0)^2  +  xi losses  +  price * import       (1)

by factors, so that the market buys more of what is trustworthy. Reading of the equations with
which they work (symbol: name here):

    Delta   : delta, import now minus import before the attack, positive when too much comes in (2)
    Z_i     = max(0.2, 1 + RS_i Delta / (mu sum RS)),   gamma_i = 1/Z_i                         (3)
    alpha_i <- gamma_i alpha_i,  beta_i <- gamma_i beta_i,  xi <- xi / mean(gamma)              (4)

with the sum over the market operators that still answer, and the import price untouched. Factors
accumulate from round to round. mu has the unit of Delta; a fixed one is fragile, so after a
clearing that took Delta to Delta' it becomes ``clip((Delta - Delta') mu / Delta, mu/8, 8 mu)``:
the secant through the last two clearings.

Factors never pass 1 (xi's never falls below 1): with a negative Delta, after an attack, the same
law walks back to the original coefficients and stops there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from controllers.core.mail import FloatArray
from controllers.market.model.problem import AnyProblem

Z_MIN = 0.2
"""Smallest Z: a step back multiplies no coefficient by more than five."""
FACTOR_MIN = 1e-4
"""Least factor: what costs a ten-thousandth is used to its limit; less only hurts the solver."""
_MU_STEP = 8.0
_TINY = 1e-12


@dataclass(frozen=True)
class Weights:
    """Factors on the objective's coefficients; `alpha`, `beta` of shape (n,), one per SMO."""

    alpha: FloatArray
    beta: FloatArray
    xi: float = 1.0

    @staticmethod
    def neutral(n: int) -> Weights:
        """Return the factors that change nothing."""
        return Weights(np.ones(n), np.ones(n))

    @property
    def strength(self) -> float:
        """How far they are from neutral: 0 for neutral, towards 1 as the factors vanish."""
        return float(1.0 - 0.5 * (self.alpha.mean() + self.beta.mean()))


def reweigh(
    weights: Weights,
    scores: FloatArray,
    delta: float,
    mu: float,
    answering: NDArray[np.bool_] | None = None,
) -> Weights:
    """Return the weights after one application of eqs. (2)-(4).

    Parameters
    ----------
    weights : Weights. Those in force.
    scores : ndarray (n,). Resilience score of each SMO, 0 to 1.
    delta : float. Import now minus import wanted.
    mu : float. Positive, in delta's unit.
    answering : (n,); SMOs that still answer; the others keep their factors. Default: all.
    """
    there = np.ones(scores.size, dtype=bool) if answering is None else answering
    total = float(scores[there].sum())
    if total <= 0.0:
        return weights
    z = np.maximum(Z_MIN, 1.0 + scores * (delta / (mu * total)))
    gamma = np.where(there, 1.0 / z, 1.0)
    alpha = np.clip(weights.alpha * gamma, FACTOR_MIN, 1.0)
    beta = np.clip(weights.beta * gamma, FACTOR_MIN, 1.0)
    # Means over those who answer, of both alpha's and beta's factors, which are equal here.
    mean = float(gamma[there].mean())
    return Weights(alpha, beta, float(np.clip(weights.xi / mean, 1.0, 1.0 / FACTOR_MIN)))


def next_mu(mu: float, before: float, after: float) -> float:
    """Return mu after a clearing that took Delta from `before` to `after`."""
    if abs(before) < _TINY:
        return mu
    return float(np.clip((before - after) * mu / before, mu / _MU_STEP, mu * _MU_STEP))


@dataclass(frozen=True)
class Search:
    """The iteration as a value: what was tried last, and what comes next.

    Attributes
    ----------
    weights : Weights. To be cleared next (or in force, when done).
    delta : float. The Delta that led to `weights`.
    clearings : int. How many answers were used.
    """

    weights: Weights
    mu: float
    delta: float = 0.0
    clearings: int = 0

    def begin(
        self, delta: float, scores: FloatArray, answering: NDArray[np.bool_] | None = None
    ) -> Search:
        """Return the search with its first step for a Delta that was seen.

        A mu so small that the first step would more than halve a coefficient is raised: what such
        a leap breaks, the order of the scores in what is used, later steps do not mend.
        """
        there = scores if answering is None else scores[answering]
        total = float(there.sum())
        mu = max(self.mu, abs(delta) * float(there.max()) / total) if total > 0.0 else self.mu
        weights = reweigh(self.weights, scores, delta, mu, answering)
        return Search(weights, mu, delta)

    def answer(
        self, delta: float, scores: FloatArray, answering: NDArray[np.bool_] | None = None
    ) -> Search:
        """Return the search after a clearing with `weights` gave `delta`."""
        mu = next_mu(self.mu, self.delta, delta)
        weights = reweigh(self.weights, scores, delta, mu, answering)
        return Search(weights, mu, delta, self.clearings + 1)


Problem = TypeVar("Problem", bound=AnyProblem)


def weighted(problem: Problem, weights: Weights) -> Problem:
    """Return the problem with the objective's coefficients multiplied by `weights`, one per bus."""
    bids = problem.bids
    bent = replace(bids, alpha_p=bids.alpha_p * weights.alpha, beta=bids.beta * weights.beta)
    return replace(problem, bids=bent, xi=problem.xi * weights.xi)


def floor_weights(n: int) -> Weights:
    """Return the factors under which the cheapest dispatch is that of the least import."""
    return Weights(np.full(n, FACTOR_MIN), np.full(n, FACTOR_MIN), 1.0)


def stalled(before: float, after: float, target: float, limit: float) -> bool:
    """Whether a clearing brought the import less than a fifth of the way that was left."""
    left = before - target
    return left > limit and after - target > 0.8 * left
