"""The least change of set-points that keeps linear limits, for one case or many at once.

    min |x - x0|^2 / 2 + penalty sum(slack)
    s.t. y_low - slack <= A x <= y_high + slack,   low <= x <= high,   slack >= 0

by ADMM with two copies (Boyd et al., "Distributed optimization and statistical learning via the
alternating direction method of multipliers", 2011, doi:10.1561/2200000016, sections 5 and 7): one
of x, which keeps x0 and its limits, and one of A x, which keeps the soft limits. What joins them is
least squares with one matrix, so one inverse serves all cases and all steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controllers.core.mail import FloatArray

_RELAXATION = 1.8  # Boyd et al., section 3.4.3
_STIFFNESS = 100.0
"""Of the rows relative to x: the best of 0.3 to 300 after 20 iterations on IEEE 123."""


@dataclass(frozen=True)
class Limits:
    """Limits of x, (..., n), and of A x, (..., m), of one case or many."""

    low: FloatArray
    high: FloatArray
    y_low: FloatArray
    y_high: FloatArray


@dataclass(frozen=True)
class Projected:
    """A solution, and where the next one starts from.

    Attributes
    ----------
    x : (..., n). Within its limits.
    slack : (..., m). By how much A x is beyond the limits of its rows.
    price : (..., m). Multiplier of each row, positive at the upper limit.
    iterations : Of the slowest case.
    copies : Of [x, A x], and their multipliers over the stiffness.
    """

    x: FloatArray
    slack: FloatArray
    price: FloatArray
    iterations: int
    copies: tuple[FloatArray, FloatArray]


class Projection:
    """The problem of one matrix.

    Parameters
    ----------
    a : (m, n).
    penalty : Cost of a unit of slack.
    """

    def __init__(self, a: FloatArray, penalty: float) -> None:
        self.a = a
        norm = float(np.linalg.norm(a, 2)) or 1.0
        self._rho = _STIFFNESS / norm**2
        self._most = penalty / self._rho
        n = a.shape[1]
        inverse = np.linalg.inv(np.eye(n) + self._rho * a.T @ a)
        self._joined = np.hstack([inverse, self._rho * inverse @ a.T]).T  # (n + m, n)
        self._both = np.vstack([np.eye(n), a]).T

    def solve(
        self,
        x0: FloatArray,
        limits: Limits,
        start: Projected | None = None,
        *,
        iterations: int = 20,
        tolerance: float = 1e-4,
    ) -> Projected:
        """Return the solution of each case.

        Parameters
        ----------
        x0 : (..., n).
        start : A solution of as many similar cases.
        tolerance : Difference of the copies, and their change, at which a case is solved.
        """
        x = np.clip(x0, limits.low, limits.high)
        y = x @ self.a.T
        slack, z = _beyond(y, limits), np.concatenate([x, y], axis=-1)
        u = np.zeros_like(z)
        if not (np.abs(slack) > tolerance).any():
            return Projected(x, slack, np.zeros_like(slack), 0, (z, u))
        z, u = (z, u) if start is None else start.copies
        done = 0
        for _ in range(iterations):
            done += 1
            joint = ((z - u) @ self._joined) @ self._both
            w = _RELAXATION * joint + (1.0 - _RELAXATION) * z + u
            new = self._nearest(w, x0, limits)
            far = max(np.abs(joint - new).max(), np.abs(new - z).max())
            z, u = new, w - new
            if far < tolerance:
                break
        n = self.a.shape[1]
        x, price = z[..., :n], self._rho * u[..., n:]
        return Projected(x, _beyond(x @ self.a.T, limits), price, done, (z, u))

    def _nearest(self, w: FloatArray, x0: FloatArray, limits: Limits) -> FloatArray:
        """Return the copies' proximal step: x towards x0 in its limits, rows towards theirs."""
        n, out = self.a.shape[1], np.empty_like(w)
        out[..., :n] = np.clip(0.5 * (x0 + w[..., :n]), limits.low, limits.high)
        rows = w[..., n:]
        out[..., n:] = rows - np.clip(_beyond(rows, limits), -self._most, self._most)
        return out


def _beyond(y: FloatArray, limits: Limits) -> FloatArray:
    return y - np.clip(y, limits.y_low, limits.y_high)
