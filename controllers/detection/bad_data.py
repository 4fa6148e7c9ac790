"""Weighted least squares with bad-data tests, in closed form for a linear model.

Model: ``z = H x + e`` with e ~ N(0, R), and a pseudo-measurement of every state, x ~ N(x0, P); R
and P diagonal. With the innovation ``nu = z - H x0`` and ``S = H P H' + R`` the smallest weighted
sum of squared residuals over measurements and pseudo-measurements is ``J = nu' S^-1 nu``,
chi-square with as many degrees of freedom as there are measurements, and with ``w = S^-1 nu`` the
normalised residuals are

    measurements         w_i / sqrt(S^-1_ii)
    pseudo-measurements  (H' w)_j / sqrt((H' S^-1 H)_jj)

standard normal each. It is the estimator of A. Abur and A. Gomez Exposito, Power System State
Estimation, Marcel Dekker 2004, with the tests of chapter 5 (chi-square 5.4, normalised residuals
5.7), solved for the measurements rather than for the states by the matrix inversion lemma.

The variances of some states may change by a common factor f from step to step (loads deviate in
proportion to what they draw). Then ``S = A + f B``, and with the generalised eigenvalues l and
eigenvectors V of (B, A), ``V' A V = 1``, it is ``S^-1 = V diag(1 / (1 + f l)) V'``. So one
factorisation serves every step, and nothing is iterated.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.special import chdtri, ndtri

from controllers.core.mail import FloatArray, IntArray

_UNSEEN = 1e-12


class BadDataTest:
    """The tests of one set of measurements.

    Parameters
    ----------
    sensitivity : (m, n). H.
    state_var : (n,). Diagonal of P, at a factor of 1.
    noise_var : (m,). Diagonal of R; positive.
    varying : (n,). Which states' variances are multiplied by the factor of a step; none by default.
    tested : (t,). The states whose residuals are wanted; all by default.
    """

    def __init__(
        self,
        sensitivity: FloatArray,
        state_var: FloatArray,
        noise_var: FloatArray,
        varying: NDArray[np.bool_] | None = None,
        tested: IntArray | None = None,
    ) -> None:
        h = np.asarray(sensitivity, dtype=np.float64)
        moves = np.zeros(h.shape[1], dtype=bool) if varying is None else varying
        fixed = (h * np.where(moves, 0.0, state_var)) @ h.T
        fixed[np.diag_indices_from(fixed)] += noise_var
        changing = (h * np.where(moves, state_var, 0.0)) @ h.T
        # Volts and kilowatts are far apart: in units of their own deviations the rows are alike.
        unit = 1.0 / np.sqrt(np.diag(fixed))
        values, vectors = eigh(unit[:, None] * changing * unit, unit[:, None] * fixed * unit)
        self._eigenvalues = np.maximum(values, 0.0)
        self._vectors = unit[:, None] * vectors
        columns = np.arange(h.shape[1]) if tested is None else tested
        self._by_state = self._vectors.T @ h[:, columns]
        self._vectors_2, self._by_state_2 = self._vectors.T**2, self._by_state**2
        self._state_var = np.asarray(state_var, dtype=np.float64)[columns]

    @property
    def degrees_of_freedom(self) -> int:
        """Measurements beyond the states, whose pseudo-measurements make them all known."""
        return len(self._vectors)

    def statistics(
        self, innovation: FloatArray, factor: FloatArray | float = 1.0
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return J (k,) and the normalised residuals (k, m), (k, t) of innovations (k, m).

        Parameters
        ----------
        innovation : (k, m)
        factor : (k,). Of the varying variances; not negative.
        """
        steps = np.broadcast_to(np.asarray(factor, dtype=np.float64), len(innovation))
        shrunk = 1.0 / (1.0 + steps[:, None] * self._eigenvalues)
        y = innovation @ self._vectors
        w = y * shrunk
        j = np.einsum("ki,ki->k", y, w)
        information = shrunk @ self._by_state_2
        # A state that no measurement sees has no residual: its pseudo-measurement is all there is.
        seen = information * self._state_var > _UNSEEN
        gain = np.where(seen, 1.0 / np.sqrt(np.where(seen, information, 1.0)), 0.0)
        measured = (w @ self._vectors.T) / np.sqrt(shrunk @ self._vectors_2)
        return j, measured, (w @ self._by_state) * gain


def chi_square_threshold(probability: float, degrees_of_freedom: float) -> float:
    """Return what a chi-square variable exceeds with `probability`."""
    return float(chdtri(degrees_of_freedom, probability))


def normal_threshold(probability: float, tests: int) -> float:
    """Return what the largest of `tests` standard normal sizes exceeds with `probability` at most.

    By Bonferroni's inequality, so correlation between the tests makes it safer, never worse.
    """
    return float(-ndtri(probability / (2.0 * max(tests, 1))))
