"""What a DER can inject, and the nearest such point."""

from __future__ import annotations

import numpy as np

from controllers.core.mail import FloatArray


def project(
    p: FloatArray, q: FloatArray, p_low: FloatArray, p_high: FloatArray, rating: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the nearest points of {p_low <= p <= p_high, p^2 + q^2 <= rating^2}, each (n,).

    The nearest point lies on a side of the strip, on the circle, or where both meet. All in one
    unit, `p_low` and `p_high` within the rating.
    """
    side = np.clip(p, p_low, p_high)
    outside = side * side + q * q > rating * rating
    size = np.maximum(np.hypot(p, q), np.finfo(np.float64).tiny)
    on_arc = np.clip(p * (rating / size), p_low, p_high)
    new_p = np.where(outside, on_arc, side)
    room = np.sqrt(np.maximum(rating * rating - new_p * new_p, 0.0))
    return new_p, np.where(outside, np.copysign(room, q), q)
