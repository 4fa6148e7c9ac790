"""Oscillation and unbalance of voltages that are known."""

from __future__ import annotations

import numpy as np
import pytest

from federates.reports.voltage_quality import oscillation_pu, unbalance_pct


def test_an_alternation_counts_and_a_ramp_does_not() -> None:
    inside = np.zeros(400, dtype=bool)
    inside[100:300] = True
    swing = 0.01 * (-1.0) ** np.arange(400)
    ramp = np.linspace(0.95, 1.05, 400)
    v_pu = np.stack([1.0 + swing, ramp, np.zeros(400)], axis=1)  # the last node is dead
    assert oscillation_pu(v_pu[:, :1], 1.0, inside) == pytest.approx(0.01, rel=0.1)
    assert oscillation_pu(v_pu[:, 1:2], 1.0, inside) < 1e-12
    both = oscillation_pu(v_pu, 1.0, inside)
    assert both == pytest.approx(oscillation_pu(v_pu[:, :1], 1.0, inside) / np.sqrt(2.0))
    assert oscillation_pu(v_pu[:, 2:], 1.0, inside) == 0.0


def test_unbalance_is_the_largest_deviation_from_the_mean_of_a_three_phase_bus() -> None:
    labels = ("1.1", "1.2", "1.3", "2.1", "3.1", "3.3", "3.2")
    v_pu = np.array([[1.0, 1.0, 1.0, 0.5, 1.03, 0.99, 0.98], [0.97, 1.0, 1.03, 0.5, 1, 1, 1]])
    found = unbalance_pct(labels, v_pu)
    assert found is not None
    np.testing.assert_allclose(found, [3.0, 3.0])
    assert unbalance_pct(("1.1", "1.2"), v_pu[:, :2]) is None
