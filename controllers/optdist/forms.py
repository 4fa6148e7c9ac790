"""The two forms of OPTDIST-VC as update rules over the agents' arrays.

Both solve, by feedback and neighbour messages,

    min  sum_k q_k^2 / 2 + (d/2) q' X q
    s.t. v_lo <= v(q) <= v_hi,  q_lo <= q <= q_hi

with v the *squared* voltage magnitude, X = dv/dq and Y = inv(X)', which is sparse. One step of
an agent k needs its own state and ``coupling_k = sum_i Y_ki message_i`` over its neighbours.

Sources: (P) the paper's eqs. (7)-(8), "Optimal Distributed Feedback Voltage Control under
Limited Reactive Power", G. Qu and N. Li, IEEE Trans. Power Systems 35(1), 2020,
doi:10.1109/TPWRS.2019.2931685. Everything is per unit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from controllers.core.mail import FloatArray


@dataclass(frozen=True, slots=True)
class SquaredVoltageBand:
    """Limits of the squared voltage, per unit."""

    v_lo: float
    v_hi: float


def soft_threshold(y: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    """Return ST(y) = max(min(y - low, 0), y - high): 0 between the bounds, the excess outside."""
    return np.maximum(np.minimum(y - low, 0.0), y - high)


@dataclass(frozen=True, slots=True)
class PublishedSteps:
    """Step sizes of the published form; `c` weighs the augmentation, `d` the loss term."""

    alpha: float
    beta: float
    gamma: float
    c: float
    d: float


class PublishedForm:
    """OPTDIST-VC as published.

    The thresholds are c*q_lo and c*q_hi: the paper prints c*q_hi twice, which runs to a wrong
    fixed point. As in the original authors' code the multipliers are advanced first.

    | symbol | here |
    | --- | --- |
    | q hat, xi | `q_hat`, `xi` |
    | lambda upper, lower | `lam_up`, `lam_lo` |
    | f'(q hat) + ST(xi + c q hat) | `message` |
    """

    def __init__(self, n_agents: int, steps: PublishedSteps) -> None:
        self._s = steps
        zeros = np.zeros(n_agents)
        self.q_hat, self.xi, self.lam_up, self.lam_lo = (zeros.copy() for _ in range(4))
        self.message: FloatArray = zeros.copy()
        self._excess: FloatArray = zeros.copy()

    def advance(
        self,
        v_sq: FloatArray,
        band: SquaredVoltageBand,
        coupling: FloatArray,
        q_lo: FloatArray,
        q_hi: FloatArray,
    ) -> FloatArray:
        """Take one step, eqs. (7a)-(7d) and (8), and return q."""
        s = self._s
        self.lam_up = np.maximum(self.lam_up + s.gamma * (v_sq - band.v_hi), 0.0)
        self.lam_lo = np.maximum(self.lam_lo + s.gamma * (band.v_lo - v_sq), 0.0)
        self.xi = self.xi + (s.beta / s.c) * (self._excess - self.xi)
        self.q_hat = self.q_hat - s.alpha * (
            self.lam_up - self.lam_lo + s.d * self.q_hat + coupling
        )
        self._excess = soft_threshold(self.xi + s.c * self.q_hat, s.c * q_lo, s.c * q_hi)
        self.message = self.q_hat + self._excess
        return np.clip(self.q_hat, q_lo, q_hi)


@dataclass(frozen=True, slots=True)
class PreconditionedSteps:
    """Step sizes of the preconditioned form.

    `step` (n,) multiplies each agent's residual (it holds 1/Y_kk), `dual` the multipliers'
    integral, `proportional` (n,) the direct reaction to a violation, `momentum` the heavy ball.
    """

    step: FloatArray
    dual: float
    proportional: FloatArray
    momentum: float
    d: float

    def of(self, points: NDArray[np.int64]) -> PreconditionedSteps:
        """Return the step sizes of the chosen points."""
        return replace(self, step=self.step[points], proportional=self.proportional[points])


class PreconditionedForm:
    """OPTDIST-VC with diagonal preconditioning, a proportional path, and limits by clipping.

    The owner of each point keeps mu, its estimate of the price X'(lam_up - lam_lo), by a Jacobi
    step with heavy ball on Y mu = lam_up - lam_lo + P ([v - v_hi]+ - [v_lo - v]+) + d q. The
    multipliers stop at `lam_cap`, which no feasible case should need: while the band cannot be
    held they would otherwise wind up, and hold q at its limit long after. The message is mu; an
    agent injects q = clip(-mean(mu)), the mean over its points. At rest
    Y mu = lam_up - lam_lo + d q with complementary multipliers: the same KKT point as the
    published form's, for each phase's own voltage.
    """

    def __init__(self, steps: PreconditionedSteps, lam_cap: FloatArray) -> None:
        self._s = steps
        self._cap = lam_cap
        zeros = np.zeros_like(steps.step)
        self.lam_up, self.lam_lo, self._mu_old = (zeros.copy() for _ in range(3))
        self.message: FloatArray = zeros.copy()

    def advance(
        self, v_sq: FloatArray, band: SquaredVoltageBand, coupling: FloatArray, q_point: FloatArray
    ) -> None:
        """Take one step; `q_point` is what the agents inject at their points now."""
        s = self._s
        over, under = v_sq - band.v_hi, band.v_lo - v_sq
        self.lam_up = np.clip(self.lam_up + s.dual * over, 0.0, self._cap)
        self.lam_lo = np.clip(self.lam_lo + s.dual * under, 0.0, self._cap)
        push = np.maximum(over, 0.0) - np.maximum(under, 0.0)
        residual = coupling - (self.lam_up - self.lam_lo) - s.proportional * push - s.d * q_point
        mu = self.message
        self.message = mu - s.step * residual + s.momentum * (mu - self._mu_old)
        self._mu_old = mu
