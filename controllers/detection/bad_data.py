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
5.7), solved for the measurements rather than for the states by the matrix inversion lemma. So one
factorisation of S serves every step, and nothing is iterated.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.special import chdtri, ndtri

from controllers.mail import FloatArray

_UNSEEN = 1e-12


class BadDataTest:
    """The tests of one set of measurements.

    Parameters
    ----------
    sensitivity : ndarray, (m, n)
        H.
    state_var : ndarray, (n,)
        Diagonal of P.
    noise_var : ndarray, (m,)
        Diagonal of R; positive.
    """

    def __init__(
        self, sensitivity: FloatArray, state_var: FloatArray, noise_var: FloatArray
    ) -> None:
        h = np.asarray(sensitivity, dtype=np.float64)
        covariance = (h * state_var) @ h.T
        covariance[np.diag_indices_from(covariance)] += noise_var
        self._h = h
        self._weight: FloatArray = cho_solve(cho_factor(covariance), np.eye(len(h)))
        self._measured_std = np.sqrt(np.diag(self._weight))
        information = np.einsum("ij,ij->j", h, self._weight @ h)
        # A state that no measurement sees has no residual: its pseudo-measurement is all there is.
        seen = information * state_var > _UNSEEN
        self._state_gain = np.where(seen, 1.0 / np.sqrt(np.where(seen, information, 1.0)), 0.0)

    @property
    def degrees_of_freedom(self) -> int:
        """Measurements beyond the states, whose pseudo-measurements make them all known."""
        return len(self._h)

    def statistics(self, innovation: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return J (k,) and the normalised residuals (k, m), (k, n) of innovations (k, m)."""
        w = innovation @ self._weight
        j = np.einsum("ki,ki->k", w, innovation)
        return j, w / self._measured_std, (w @ self._h) * self._state_gain


def chi_square_threshold(probability: float, degrees_of_freedom: float) -> float:
    """Return what a chi-square variable exceeds with `probability`."""
    return float(chdtri(degrees_of_freedom, probability))


def normal_threshold(probability: float, tests: int) -> float:
    """Return what the largest of `tests` standard normal sizes exceeds with `probability` at most.

    By Bonferroni's inequality, so correlation between the tests makes it safer, never worse.
    """
    return float(-ndtri(probability / (2.0 * max(tests, 1))))
