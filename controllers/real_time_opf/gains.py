"""Gains that keep the loop of measurement, price, mail and set-point stable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


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
    delay_steps: int,
    *,
    stiffness: float,
    primal: float | None,
    ahead: float | None,
    share: float,
    forget: float,
) -> Gains:
    """Return gains with `share` of those at which the loop would oscillate.

    A mode of strength one whose price acts d steps late obeys, with x its injection and s the
    primal step,

        x(k+1) = (1 - s) x(k) - s lambda(k-d),
        lambda(k) = lambda(k-1) + gamma (x(k) + h (x(k) - x(k-1)))

    with the characteristic polynomial (z - 1)(z - 1 + s) z^d + s gamma ((1 + h) z - h). Weaker
    modes are stable where the strongest is. An objective term in measured voltages of `stiffness` r
    alone gives (z - 1 + s) z^d + s r.

    Parameters
    ----------
    primal, ahead : None: the largest s, at most 1; and h such that its zero cancels the lag of s.
    """
    late = np.zeros(delay_steps)

    def of_primal(s: float) -> list[float]:
        return _sum([1.0, s - 1.0, *late], [s * stiffness])

    if primal is None:
        primal = min(1.0, share * _largest(of_primal)) if stiffness else 1.0
    if ahead is None:
        ahead = (1.0 - primal) / primal + 0.5 * delay_steps
    open_loop = [*np.polymul([1.0, -1.0], [1.0, primal - 1.0]), *late]
    feedback = primal * np.array([1.0 + ahead, -ahead])
    integral = _largest(lambda gamma: _sum(open_loop, list(gamma * feedback)))
    return Gains(share * integral, ahead, forget, primal)


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
