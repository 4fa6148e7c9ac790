"""Bounds of port voltages and currents, tightened in closed form.

Of each port the powers are known to lie in a box, its voltage in a ring and a sector. Two steps
follow from one another until they stall (thesis, "Iterative preprocessing for tight V/I bounds"):

1. A current ``i = conj(s / u)`` with ``u = |u| e^{j delta}`` has the real part
   ``(P cos(delta) + Q sin(delta)) / |u|``. It is linear in P, Q and 1/|u|, so its extremes lie at
   their ends; over delta at the ends or where the cosine of one corner is 1 or -1.
2. A voltage ``u = w + z i`` is affine in all currents, so its extremes are sums of theirs.

Coordinates are rotated at each port: 1 is the direction of its voltage at a known power flow. The
slides print the reactive term of the second step with the sign of ``R I^I - X I^R``; it is
``V^I = R I^I + X I^R``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controllers.market.three_phase.objective import P_LOAD, SHED, Devices
from grid_models.current_injection.model import ComplexArray, FloatArray

# A round that narrows no box by this part of its width is the last one.
_STALLS = 1e-3


@dataclass(frozen=True)
class Box:
    """Rectangles in the complex plane: centres, and half widths + j half heights, (m,)."""

    mid: ComplexArray
    half: ComplexArray

    @staticmethod
    def between(low: ComplexArray, high: ComplexArray) -> Box:
        """Return the boxes with these lower left and upper right corners."""
        return Box(0.5 * (low + high), 0.5 * (high - low))

    @property
    def low(self) -> ComplexArray:
        """Lower left corners."""
        return np.asarray(self.mid - self.half)

    @property
    def high(self) -> ComplexArray:
        """Upper right corners."""
        return np.asarray(self.mid + self.half)

    @property
    def is_empty(self) -> bool:
        """Whether a box has its ends the wrong way round."""
        return bool((np.minimum(self.half.real, self.half.imag) < 0.0).any())

    def affine(self, w: ComplexArray, z: ComplexArray) -> Box:
        """Return the smallest boxes of ``w + z x`` for x in these."""
        re, im, half = np.abs(z.real), np.abs(z.imag), self.half
        width = re @ half.real + im @ half.imag
        height = im @ half.real + re @ half.imag
        return Box(w + z @ self.mid, width + 1j * height)

    def common(self, other: Box) -> Box:
        """Return the intersections."""
        low, high = self.low, self.high
        return Box.between(
            np.maximum(low.real, other.low.real) + 1j * np.maximum(low.imag, other.low.imag),
            np.minimum(high.real, other.high.real) + 1j * np.minimum(high.imag, other.high.imag),
        )

    @property
    def farthest(self) -> FloatArray:
        """Largest distance of a point of each from 0."""
        return np.asarray(np.hypot(*(np.maximum(np.abs(getattr(self.low, part)),
                                                np.abs(getattr(self.high, part)))
                                     for part in ("real", "imag"))))  # fmt: skip

    def contains(self, x: ComplexArray, slack: float = 1e-9) -> bool:
        """Whether each of x (m,) lies in its box."""
        off = x - self.mid
        over = np.maximum(np.abs(off.real) - self.half.real, np.abs(off.imag) - self.half.imag)
        return bool((over <= slack).all())


@dataclass(frozen=True)
class Sectors:
    """Parts of rings: magnitudes and angles (radian) of voltages between two ends, all (m,)."""

    v_low: FloatArray
    v_high: FloatArray
    angle_low: FloatArray
    angle_high: FloatArray

    @property
    def box(self) -> Box:
        """The smallest boxes around them; angles within a right angle of 0."""
        ends = np.cos(self.angle_low), np.cos(self.angle_high)
        straight = np.where((self.angle_low <= 0.0) & (self.angle_high >= 0.0), 1.0,
                            np.maximum(*ends))  # fmt: skip
        sines = np.sin(self.angle_low), np.sin(self.angle_high)
        low = self.v_low * np.minimum(*ends) + 1j * np.minimum(
            sines[0] * self.v_low, sines[0] * self.v_high
        )
        high = self.v_high * straight + 1j * np.maximum(
            sines[1] * self.v_low, sines[1] * self.v_high
        )
        return Box.between(low, high)

    def within(self, box: Box) -> Sectors:
        """Return the smallest sectors that hold what lies in these and in `box`."""
        low, high = box.low, box.high
        near = np.clip(0.0, low.real, high.real), np.clip(0.0, low.imag, high.imag)
        corners = np.stack([low, high, low.real + 1j * high.imag, high.real + 1j * low.imag])
        angles = np.angle(corners)
        return Sectors(
            np.maximum(self.v_low, np.hypot(*near)),
            np.minimum(self.v_high, box.farthest),
            np.maximum(self.angle_low, angles.min(axis=0)),
            np.minimum(self.angle_high, angles.max(axis=0)),
        )


def power_box(devices: Devices) -> Box:
    """Return the smallest boxes of what devices in their ranges inject at terminals, (t,)."""
    most, least = devices.high.copy(), devices.low.copy()
    # The least load is the most injection.
    most[P_LOAD], most[SHED] = devices.low[P_LOAD], devices.high[SHED]
    least[P_LOAD], least[SHED] = devices.high[P_LOAD], devices.low[SHED]
    up, down = devices.injection(most), devices.injection(least)
    # Reactive load may fall where active load rises.
    mixed = most.copy(), least.copy()
    mixed[0][[P_LOAD, SHED]], mixed[1][[P_LOAD, SHED]] = (
        least[[P_LOAD, SHED]], most[[P_LOAD, SHED]],
    )  # fmt: skip
    falls = devices.tangent < 0.0
    q_up = np.where(falls, devices.injection(mixed[0]).imag, up.imag)
    q_down = np.where(falls, devices.injection(mixed[1]).imag, down.imag)
    return Box.between(down.real + 1j * q_down, up.real + 1j * q_up)


def current_box(s: Box, at: Sectors) -> Box:
    """Return the smallest boxes of ``conj(s / u)`` for powers in `s` and voltages in `at`."""
    low, high = s.low, s.high
    corners = np.stack([low, high, low.real + 1j * high.imag, high.real + 1j * low.imag])
    # Im(conj(s) e^{j delta}) is the real part for the power turned by a right angle.
    real, imaginary = _extremes(corners, at), _extremes(1j * corners, at)
    return Box.between(real[0] + 1j * imaginary[0], real[1] + 1j * imaginary[1])


def _extremes(corners: ComplexArray, at: Sectors) -> tuple[FloatArray, FloatArray]:
    """Return least and largest ``Re(conj(s) e^{j delta}) / |u|`` over corners of s, (4, m)."""
    size, angle = np.abs(corners), np.angle(corners)
    ends = np.stack([size * np.cos(d - angle) for d in (at.angle_low, at.angle_high)])
    most = np.where(_reached(angle, at), size, ends.max(axis=0)).max(axis=0)
    least = np.where(_reached(angle + np.pi, at), -size, ends.min(axis=0)).min(axis=0)
    return (
        np.where(least < 0.0, least / at.v_low, least / at.v_high),
        np.where(most > 0.0, most / at.v_low, most / at.v_high),
    )


def _reached(angle: FloatArray, at: Sectors) -> np.ndarray:
    """Return whether an angle lies in the sectors, whole turns apart."""
    return np.mod(angle - at.angle_low, 2.0 * np.pi) <= at.angle_high - at.angle_low


def tightened(
    w: ComplexArray, z: ComplexArray, s: Box, first: Sectors, rounds: int
) -> tuple[Box, Box, int]:
    """Return boxes of voltages and currents that hold every state within bounds, and the rounds.

    Parameters
    ----------
    w, z : complex (m,), (m, m). Port voltages ``u = w + z i`` in rotated coordinates.
    s : Box. Injected powers.
    first : Sectors. Of the voltages.
    rounds : int. Most rounds; 0: only the currents' boxes of `first`.
    """
    at, u = first, first.box
    i = current_box(s, at)
    done = 0
    while done < rounds:
        done += 1
        narrower = u.common(i.affine(w, z))
        if narrower.is_empty:
            return narrower, i, done
        at = at.within(narrower)
        found = current_box(s, at)
        shrink = max(_shrink(u, narrower), _shrink(i, found))
        u, i = narrower, found
        if shrink < _STALLS:
            break
    return u, i, done


def _shrink(before: Box, after: Box) -> float:
    """Return the largest part of its width or height that a box lost."""
    parts = [
        np.divide(b - a, b, out=np.zeros_like(b), where=b > 1e-12)
        for b, a in ((before.half.real, after.half.real), (before.half.imag, after.half.imag))
    ]
    return float(np.max(parts, initial=0.0))
