"""Projection onto a line's cone, with or without a limit of its current, for many lines at once.

Only sums, products, quotients and square roots of the same element: the bits of one line do not
depend on which other lines are in the arrays.
"""

from __future__ import annotations

import numpy as np

from controllers.core.mail import FloatArray

_HALF = np.sqrt(0.5)
_NEWTON_STEPS = 24


def project_line(
    p: FloatArray, q: FloatArray, l_sq: FloatArray, w: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Project points onto ``p^2 + q^2 <= 2 w l, w >= 0, l >= 0`` (a rotated second-order cone).

    With ``a = (w + l)/sqrt(2)`` and ``b = (w - l)/sqrt(2)`` the set is ``|(p, q, b)| <= a``, whose
    projection is known (N. Parikh and S. Boyd, "Proximal Algorithms", 2014, sec. 6.3.2).

    Parameters
    ----------
    p, q, l_sq, w : (m,)

    Returns
    -------
    tuple of ndarray, shape (m,). The nearest points, in the same order.
    """
    a = (w + l_sq) * _HALF
    b = (w - l_sq) * _HALF
    length = np.sqrt(p * p + q * q + b * b)
    # Inside: a >= length, nothing moves. In the polar cone: a <= -length, all is zero.
    top = np.where(length <= a, a, np.maximum(0.5 * (a + length), 0.0))
    share = np.minimum(top / np.maximum(length, 1e-300), 1.0)
    b *= share
    return p * share, q * share, (top - b) * _HALF, (top + b) * _HALF


def project_limited_line(
    p: FloatArray, q: FloatArray, l_sq: FloatArray, w: FloatArray, l_max: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Project onto the cone of `project_line` cut by ``l <= l_max``.

    Where the cone's own projection keeps the limit it is the answer; elsewhere the limit binds and
    the nearest point of ``p^2 + q^2 <= 2 w l_max`` is the root of a cubic, found by Newton's method
    from above (monotone, a fixed number of steps).
    """
    near = project_line(p, q, l_sq, w)
    over = near[2] > l_max
    if not over.any():
        return near
    top = l_max[over]
    out = tuple(part.copy() for part in near)
    shrink = _shrinkage(p[over] ** 2 + q[over] ** 2, w[over], top)
    out[0][over] = p[over] / shrink
    out[1][over] = q[over] / shrink
    out[2][over] = top
    out[3][over] = np.maximum(w[over] + (shrink - 1.0) * top, 0.0)
    return out[0], out[1], out[2], out[3]


def _shrinkage(r_sq: FloatArray, w: FloatArray, top: FloatArray) -> FloatArray:
    """Return t >= 1 with ``r^2 = 2 top t^2 (w + (t - 1) top)``; 1 where the point is inside."""
    top = np.maximum(top, 1e-12)
    # At this t the right side exceeds r^2: its last factor is at least top, or t is large enough.
    t = 2.0 + np.maximum(-w, 0.0) / top + np.sqrt(r_sq) / top
    for _ in range(_NEWTON_STEPS):
        rest = w + (t - 1.0) * top
        value = 2.0 * top * t * t * rest - r_sq
        slope = 2.0 * top * t * (2.0 * rest + t * top)
        t = np.maximum(t - value / slope, 1.0)
    return np.asarray(t, dtype=np.float64)
