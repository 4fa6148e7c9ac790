"""Gains: the loop that they are chosen for decays, and the bound is where it stops to."""

from __future__ import annotations

import numpy as np
import pytest

from controllers.real_time_opf.gains import MODEL_ERROR, Gains, choose_gains


def swings(delay: int, gains: Gains, stiffness: float = 0.0, strength: float = 1.0) -> float:
    """Simulate one mode from a step of its disturbance; return what is left of the violation."""
    x = multiplier = before = 0.0
    prices, violations = [0.0] * (delay + 1), []
    for _ in range(1000):
        violation = 1.0 + strength * x
        ahead = violation + gains.ahead * (violation - before)
        multiplier, before = multiplier + gains.integral / strength * ahead, violation
        prices.append(multiplier)
        x -= gains.primal * (x + prices[-1 - delay] + stiffness * (strength * x))
        violations.append(violation)
    return float(np.abs(violations[-200:]).max())


@pytest.mark.parametrize("delay", [0, 1, 10])
@pytest.mark.parametrize("primal", [1.0, 0.2])
@pytest.mark.parametrize("ahead", [0.0, None])
def test_the_loop_decays_below_the_bound_and_grows_above(
    delay: int, primal: float, ahead: float | None
) -> None:
    def gains(share: float) -> Gains:
        return choose_gains(
            delay, 0, stiffness=0.0, primal=primal, ahead=ahead, share=share, forget=0.0
        )

    assert swings(delay, gains(0.6)) < 1e-6
    assert swings(delay, gains(0.6), strength=0.3) < 1e-4
    if delay:  # else the gain ends at 1: a step corrects no more than there is
        assert not swings(delay, gains(1.1)) < 1.0  # or not a number


def test_a_stiff_voltage_term_slows_the_ders() -> None:
    slow = choose_gains(1, 0, stiffness=20.0, primal=None, ahead=0.0, share=0.5, forget=0.0)
    assert slow.primal == pytest.approx(0.5 / 20.0, rel=0.05)  # s r < 1 for one step of delay
    assert (
        choose_gains(1, 0, stiffness=0.0, primal=None, ahead=0.0, share=0.5, forget=0.0).primal == 1
    )


def test_old_measurements_lower_the_gains_less_than_late_prices() -> None:
    def integral(mail: int, measurement: int) -> float:
        return choose_gains(
            mail, measurement, stiffness=0.0, primal=1.0, ahead=0.0, share=0.6, forget=0.0
        ).integral

    # 2 sin(pi / (2 (2 d + 1))) for an integrator that acts d steps late.
    late = 1.2 * np.sin(np.pi / 42.0)
    assert integral(10, 0) == pytest.approx(late)
    assert integral(0, 10) == pytest.approx(late / MODEL_ERROR)
    assert integral(0, 1) == 1.0, "the model makes up for one step"
