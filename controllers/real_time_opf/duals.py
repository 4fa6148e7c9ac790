"""Multipliers of an area's limits: dual ascent in the metric of the sensitivities."""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

from controllers.core.mail import FloatArray, IntArray
from controllers.real_time_opf.gains import Gains

# Added to the scaled metric: neighbouring nodes have nearly the same sensitivities.
_RIDGE = 0.02


class AreaMultipliers:
    """Multipliers of the upper and lower limits of the m quantities of one area.

    With e the violation of each limit, e' = e + h (e - e before) - forget lambda, and M = A R A',
    the change of the quantities by prices (R: response of those DERs that are free to move),

        lambda <- argmin (l - lambda)' (M + ridge) (l - lambda) / 2 - gamma e'(l - lambda)
                  over 0 <= l <= cap.

    With the identity in place of the metric this is the projected gradient step
    max(lambda + gamma e', 0), which takes hundreds of steps to tell apart the nodes of a
    street. `plain`: h = forget = 0. `regularised`: forget > 0 (Dall'Anese and Simonetto, "Optimal
    power flow pursuit", IEEE Trans. Smart Grid 9(2), 2018, doi:10.1109/TSG.2016.2571982). `pi`:
    h > 0, a term in proportion to the violation.

    Parameters
    ----------
    a : (m, 2, n). Sensitivities to all DERs.
    response : (2, n). Change of a DER's p and q by a price of one.
    own : Positions of the DERs whose state the area knows.
    cap : (m,). Largest multiplier: where a limit cannot be held it would grow without end.
    """

    def __init__(
        self, a: FloatArray, response: FloatArray, own: IntArray, cap: FloatArray, gains: Gains
    ) -> None:
        self._unit = np.sqrt(np.einsum("mkn,kn->m", a * a, response))
        scaled = a * np.sqrt(response) / self._unit[:, None, None]
        self._own = scaled[:, :, own].reshape(len(a), 2 * len(own))
        rest = np.delete(scaled, own, axis=2)
        rest = rest.reshape(len(a), 2 * rest.shape[2])
        self._rest = rest @ rest.T
        self._cap, self._gains = cap * self._unit, gains
        self._value: FloatArray = np.zeros((2, len(a)))
        self._ahead: FloatArray = np.zeros((2, len(a)))
        self._before: FloatArray | None = None

    def observe(self, y: FloatArray, low: FloatArray, high: FloatArray) -> float:
        """Take in measurements; return the size of the largest violation to correct, scaled."""
        excess = np.stack([y - high, low - y]) / self._unit
        before = excess if self._before is None else self._before
        g = self._gains
        forget = g.forget / self._unit**2 * self._value
        self._before, self._ahead = excess, excess + g.ahead * (excess - before) - forget
        self._touched = (self._value > 0.0) | (self._ahead > 0.0)
        return float(np.abs(self._ahead).max(where=self._touched, initial=0.0))

    def advance(self, share: float, free: FloatArray) -> FloatArray:
        """Return the prices, (m,).

        `share` : Of the whole correction, what this area makes. `free`: (2, 2, own). How p and q of
        a DER answer, over their answer within its limits (`fleet.Fleet`).
        """
        side, row = np.nonzero(self._touched)
        if row.size:
            sign = np.where(side == 0, 1.0, -1.0)
            own = self._own[row] * sign[:, None]
            by_der = own.reshape(len(row), 2, -1)
            answer = np.einsum("abn,rbn->ran", free, by_der).reshape(own.shape)
            metric = answer @ own.T
            metric += self._rest[np.ix_(row, row)] * np.outer(sign, sign)
            metric[np.diag_indices_from(metric)] += _RIDGE
            factor = np.linalg.cholesky(metric)
            now, gain = self._value[side, row], share * self._gains.integral
            target = factor.T @ now + np.linalg.solve(factor, gain * self._ahead[side, row])
            self._value[side, row] = np.minimum(nnls(factor.T, target)[0], self._cap[row])
        return np.asarray((self._value[0] - self._value[1]) / self._unit)
