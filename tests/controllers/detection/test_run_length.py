"""From false alarms accepted to the decision interval of a CUSUM."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.core.errors import ControllerError
from controllers.detection.run_length import average_run_length, decision_interval
from grid_models.base.counter_rng import normal, stream_ids


@pytest.mark.parametrize(("interval", "steps"), [(4.0, 168.0), (5.0, 465.0)])
def test_the_run_length_is_that_of_the_textbook(interval: float, steps: float) -> None:
    # Montgomery, Introduction to Statistical Quality Control, table 9.3: k = 1/2, no shift; exact
    # values, from which Siegmund's approximation is known to be a few per cent away.
    assert average_run_length(interval, 0.5) == pytest.approx(steps, rel=0.03)


def test_simulated_run_lengths_agree() -> None:
    k, h = 0.5, decision_interval(100.0, 0.5)
    streams = stream_ids(f"run {i}" for i in range(4000))
    plus = minus = np.zeros(4000)
    length = np.zeros(4000)
    for step in range(1, 1500):
        z = normal(5, streams, step, 0)
        plus, minus = np.maximum(0.0, plus + z - k), np.maximum(0.0, minus - z - k)
        first = (length == 0) & (np.maximum(plus, minus) >= h)
        length[first] = step
    assert (length > 0).all()
    # 4000 runs: the mean is known to 1.6 %; the approximation itself to a few per cent.
    assert length.mean() == pytest.approx(100.0, rel=0.06)


@given(st.floats(30.0, 1e9), st.floats(0.1, 3.0))
def test_the_interval_is_the_inverse_of_the_run_length(steps: float, reference: float) -> None:
    if average_run_length(0.0, reference) >= steps:
        with pytest.raises(ControllerError, match="steps between false alarms"):
            decision_interval(steps, reference)
        return
    interval = decision_interval(steps, reference)
    assert average_run_length(interval, reference) == pytest.approx(steps, rel=1e-9)
    assert decision_interval(2.0 * steps, reference) > interval
