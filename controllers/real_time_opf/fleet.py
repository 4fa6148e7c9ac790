"""The DERs of hosted areas: what they are commanded, and how they answer a toll."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from controllers.core.mail import FloatArray
from controllers.real_time_opf.capability import project
from controllers.real_time_opf.objectives import S_BASE_KW, Weights, own_gradient
from grid_models.feeder.model import Der

# What a DER at a limit counts for, so that a loop of which all DERs are there keeps a gain.
_AT_LIMIT = 0.1
_TOLERANCE = 1e-9


class Fleet:
    """Set-points of n DERs, per unit.

    Parameters
    ----------
    period_s : Time between two commands.
    step : Share of a DER's best response that a step takes, where its curvature is largest.

    Attributes
    ----------
    rating, p_min, p_max : (n,). Limits.
    set_point : (2, n). P and Q as commanded.
    free : (2, 2, n). How P and Q of a DER answer a toll on them, over what they answer within
        their limits: the identity there, less at a limit. On the circle of the rating P and Q move
        together, along the tangent.
    """

    def __init__(self, ders: Sequence[Der], weights: Weights, step: float, period_s: float) -> None:
        self._weights = weights
        self.rating: FloatArray = np.array([d.kva for d in ders]) / S_BASE_KW
        self.p_min = np.maximum(np.array([d.p_min_kw for d in ders]) / S_BASE_KW, -self.rating)
        self.p_max = np.minimum(np.array([d.p_max_kw for d in ders]) / S_BASE_KW, self.rating)
        self._pv: FloatArray = np.array([d.kind == "pv" for d in ders], dtype=np.float64)
        self._alpha = step * self.rating / max(weights.curvatures)
        self._curvature = np.array(weights.curvatures)[:, None] / self.rating
        self._mean_share = -math.expm1(-period_s / weights.damping_s)
        self._q_mean: FloatArray = np.zeros(len(ders))
        self.set_point = np.stack([self._pv * self.p_max, np.zeros(len(ders))])
        self.free: FloatArray = np.repeat(np.eye(2)[:, :, None], len(ders), axis=2)
        self._wanted = self.set_point[0]

    def command(self, toll: FloatArray, p_high: FloatArray) -> None:
        """Move the set-points; see `answer`.

        Where a DER would give more than is available, its set-point is that, at most its rating:
        what comes with the sun need not wait for the next command.
        """
        p, q = self.answer(toll, p_high)
        more = np.clip(self._wanted, p, self.p_max)
        self.set_point = np.stack([np.where(p < p_high, p, more), q])
        self._q_mean = self._q_mean + self._mean_share * (q - self._q_mean)

    def injected(self, p_high: FloatArray) -> FloatArray:
        """Return what the DERs inject under their set-points, (2, n)."""
        return np.stack([np.minimum(self.set_point[0], p_high), self.set_point[1]])

    def answer(self, toll: FloatArray, p_high: FloatArray) -> FloatArray:
        """Return x <- P(x - alpha (df/dx + toll)), (2, n); the set-points stay.

        `toll`: (2, n). A' mu. `p_high`: (n,). Available power.
        """
        p, q = self.injected(p_high)
        p_ref = np.where(self._pv > 0.0, p_high, 0.0)
        own = own_gradient(p, q, p_ref, self._q_mean, self.rating, self._pv, self._weights)
        p, q = p - self._alpha * (own[0] + toll[0]), q - self._alpha * (own[1] + toll[1])
        new_p, new_q = project(p, q, self.p_min, p_high, self.rating)
        # A negative toll asks for what is lacking now, not for all that may come.
        self._wanted = p + self._alpha * np.minimum(toll[0], 0.0)
        self.free = self._freedom(p, q, new_p, new_q, p_high)
        return np.stack([new_p, new_q])

    def _freedom(
        self, p: FloatArray, q: FloatArray, new_p: FloatArray, new_q: FloatArray, p_high: FloatArray
    ) -> FloatArray:
        """Return `free` at points (new_p, new_q), the projections of (p, q).

        On the circle, the limit's multiplier nu adds to the curvature H of the own terms:
        dx = -t t' d(toll) / (t' H t + nu), with t the tangent and nu = (|x| / S - 1) / alpha.
        """
        slack, rating, scale = _TOLERANCE * self.rating, self.rating, np.sqrt(self._curvature)
        inside = (new_p > self.p_min + slack) & (new_p < p_high - slack)
        moves = np.stack([(new_p > self.p_min + slack) & (p <= p_high + slack), new_q == q])
        free = np.eye(2)[:, :, None] * np.where(moves, 1.0, _AT_LIMIT)
        on_circle = inside & (new_q != q)
        tangent = np.stack([-new_q, new_p]) / rating
        nu = (np.hypot(p, q) / rating - 1.0) / self._alpha
        answer = 1.0 / ((self._curvature * tangent**2).sum(axis=0) + nu)
        along = scale * tangent
        on_tangent = along[:, None] * along[None] * answer + _AT_LIMIT * np.eye(2)[:, :, None]
        return np.where(on_circle, on_tangent, free)
