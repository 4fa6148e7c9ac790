"""Gains that keep the loop of measurement, price, mail and set-point stable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

MODEL_ERROR = 0.25
"""Largest error of the linear model's sensitivities, as a share of them."""


@dataclass(frozen=True, slots=True)
class Gains:
    """Gains of a loop whose strength is scaled to one.

    Attributes
    ----------
    integral : Share of a violation that one step corrects.
    ahead : Steps by which the violation is extrapolated: proportional over integral gain.
    forget : What a multiplier takes off its own violation.
    primal : Share of the way to a DER's best response that one step takes.
    """

    integral: float
    ahead: float
    forget: float
    primal: float


def choose_gains(
    mail_steps: int,
    measurement_steps: int,
    *,
    stiffness: float,
    primal: float | None,
    ahead: float | None,
    share: float,
    forget: float,
) -> Gains:
    """Return gains with `share` of those at which the loop would oscillate.

    A step corrects at most the whole violation: the integral gain is at most 1.

    A mode of strength one whose price acts d steps late obeys, with x its injection and s the
    primal step,

        x(k+1) = (1 - s) x(k) - s lambda(k-d),
        lambda(k) = lambda(k-1) + gamma (x(k) + h (x(k) - x(k-1)))

    with the characteristic polynomial (z - 1)(z - 1 + s) z^d + s gamma ((1 + h) z - h). Weaker
    modes are stable where the strongest is. An objective term in measured voltages of `stiffness` r
    alone gives (z - 1 + s) z^d + s r. Of late measurements the model makes up for the known moves
    since; the loop sees them with the share `MODEL_ERROR` only.

    Parameters
    ----------
    mail_steps, measurement_steps : How late prices act, and how old measurements are.
    primal, ahead : None: the largest s, at most 1, and h such that
        its zero cancels the lag of s and a quarter of the delay, which damps best.
    """
    # Steps late, and the strength that is seen so late: all of it, and what the model leaves.
    loops = ((mail_steps, 1.0), (mail_steps + measurement_steps, MODEL_ERROR))

    def voltage_loop(late: int, strength: float) -> float:
        return _largest(lambda s: _sum([1.0, s - 1.0, *[0.0] * late], [s * strength * stiffness]))

    def price_loop(late: int, strength: float, s: float, h: float) -> float:
        open_loop = [*np.polymul([1.0, -1.0], [1.0, s - 1.0]), *[0.0] * late]
        feedback = s * strength * np.array([1.0 + h, -h])
        return _largest(lambda gamma: _sum(open_loop, list(gamma * feedback)))

    if primal is None:
        primal = 1.0
        if stiffness:
            primal = min(1.0, share * min(voltage_loop(*loop) for loop in loops))
    if ahead is None:
        ahead = (1.0 - primal) / primal + 0.25 * mail_steps
    integral = min(price_loop(*loop, primal, ahead) for loop in loops)
    return Gains(min(1.0, share * integral), ahead, forget, primal)


def _sum(long: list[float], short: list[float]) -> list[float]:
    return list(np.polyadd(long, short))


def _largest(polynomial: Callable[[float], list[float]]) -> float:
    """Return the largest number for which all roots lie in the unit circle."""

    def stable(number: float) -> bool:
        return bool(np.abs(np.roots(polynomial(number))).max() < 1.0)

    low, high = 0.0, 1.0
    while stable(high):
        high *= 2.0
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if stable(middle) else (low, middle)
    return low
