"""The central form: one programme with all measurements and all set-points per step.

    min |x - x0|^2 / 2 + 200 sum(slack)
    s.t. v_low - slack <= v + A (x - x_measured) <= v_high + slack,   |x| <= room

with x the reactive powers over their ratings and v half the squared voltages of all nodes. What
reactive power leaves above the band, the active power of PV takes away by the same programme,
with half of the margin: so it is not curtailed for what the margin is there for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from controllers.core.mail import FloatArray, Link, Mail
from controllers.safety.projection import Limits, Projected, Projection

PENALTY = 200.0
"""Cost of 1 pu of voltage outside of the band, where a whole rating of reactive power costs 1/2."""
TOLERANCE = 1e-4
_ITERATIONS = 20


@dataclass(frozen=True)
class Seen:
    """Measurements of a step, per unit; powers are over ratings.

    Attributes
    ----------
    v : (m,). Half the squared voltages; NaN where a node has none.
    x, p : (n,). Reactive and active power.
    p_next : (n,). Active power to be expected in the next step without new limits.
    room : (n,). Largest reactive power.
    frozen : (n,). DERs that do not follow their set-points.
    """

    v: FloatArray
    x: FloatArray
    p: FloatArray
    p_next: FloatArray
    room: FloatArray
    frozen: NDArray[np.bool_]


@dataclass(frozen=True)
class Filtered:
    """What the layer lets pass: reactive and active power (n,), worst slack left, mail."""

    x: FloatArray
    p: FloatArray
    slack_pu: float
    mail: Mail


class CentralFilter:
    """The programme, warm from step to step.

    Parameters
    ----------
    by_q, by_p : (m, n). Sensitivities of `Seen.v`.
    limited : (k,). Positions of the DERs whose active power can be limited.
    band : Of `Seen.v`.
    margin : By which the band is tighter than what must be kept.
    """

    links_in: tuple[Link, ...] = ()
    links_out: tuple[Link, ...] = ()

    def __init__(
        self,
        by_q: FloatArray,
        by_p: FloatArray,
        limited: NDArray[np.int64],
        band: tuple[float, float],
        margin: float,
    ) -> None:
        self._q, self._p = Projection(by_q, PENALTY), Projection(by_p[:, limited], PENALTY)
        self._by_p, self._limited, self._spare = by_p, limited, 0.5 * margin
        self._ends = (band[0], -np.inf), (band[1], np.inf)
        self._q_start: Projected | None = None
        self._p_start: Projected | None = None

    def absorb(self, mail: Mail) -> None:
        """There is no mail."""

    def step(self, x0: FloatArray, seen: Seen) -> Filtered:
        """Return the set-points nearest to `x0` that keep the band."""
        v = seen.v + self._by_p @ (seen.p_next - seen.p) - self._q.a @ seen.x
        # A node without voltage has no limits.
        low, high = (np.nan_to_num(end - v, nan=none) for end, none in self._ends)
        free = Limits(
            np.where(seen.frozen, seen.x, -seen.room),
            np.where(seen.frozen, seen.x, seen.room),
            low,
            high,
        )
        found = self._q_start = self._q.solve(
            x0, free, self._q_start, iterations=_ITERATIONS, tolerance=TOLERANCE
        )
        p, slack = seen.p_next, found.slack
        if self._limited.size and (slack > self._spare + TOLERANCE).any():
            p = p.copy()
            most = p[self._limited]
            moved = self._q.a @ found.x - self._p.a @ most
            left = Limits(
                np.zeros_like(most),
                most,
                low - moved - self._spare,
                high - moved + self._spare,
            )
            cut = self._p_start = self._p.solve(
                most, left, self._p_start, iterations=_ITERATIONS, tolerance=TOLERANCE
            )
            p[self._limited], slack = cut.x, cut.slack
        else:
            self._p_start = None
        # One that is frozen is asked for what its price says, so that it shows when it follows.
        priced = np.clip(x0 - found.price @ self._q.a, -seen.room, seen.room)
        x = np.where(seen.frozen, priced, found.x)
        return Filtered(x, p, float(np.abs(slack).max(initial=0.0)), Mail.empty())
