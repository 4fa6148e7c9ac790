"""The oscillation detector on signals of which everything is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.core.errors import ControllerError
from controllers.core.sample_site import sample_feeder
from controllers.detection.oscillation import Oscillation
from controllers.detection.protocol import DetectionSite, Forecast, History

FORECAST = Forecast(np.zeros(1), np.ones(1), np.zeros(1))
SITE = DetectionSite(sample_feeder(), 1.0, FORECAST)
N = len(SITE.feeder.node_labels)
RNG = np.random.default_rng(7)


def play(detector: Oscillation, v_pu: np.ndarray) -> np.ndarray:
    return np.array([detector.step(float(k), {"v_pu": row}) for k, row in enumerate(v_pu)])


def alternation(amplitude_pu: float, n: int = 120) -> np.ndarray:
    return np.tile((1.02 + amplitude_pu * (-1.0) ** np.arange(n))[:, None], N)


@given(st.floats(1e-4, 0.05))
def test_the_score_of_an_alternation_is_the_square_of_its_amplitude_over_the_threshold(
    amplitude_pu: float,
) -> None:
    score = play(Oscillation(SITE, smooth_s=5.0), alternation(amplitude_pu))
    assert score[-1] == pytest.approx((amplitude_pu / 0.003) ** 2, rel=1e-6)


def test_a_ramp_is_no_oscillation_and_a_missing_value_no_change() -> None:
    detector = Oscillation(SITE)
    ramp = np.tile(np.linspace(0.95, 1.05, 100)[:, None], N)
    assert play(detector, ramp).max() < 1e-12
    score = play(detector, alternation(0.01))
    v = alternation(0.01)
    v[3:6] = np.nan
    after = play(detector, v)
    assert np.isfinite(after).all()
    assert (after[3:6] == after[3]).all()
    assert score[-1, 0] > 1.0


def test_with_clean_noise_it_alarms_about_as_often_as_asked_and_sees_half_a_deviation_more() -> (
    None
):
    clean = 1.0 + 0.001 * RNG.standard_normal((3000, N))
    detector = Oscillation(SITE, false_alarms_per_day=100.0)
    detector.calibrate(History(np.arange(3000.0), {"v_pu": clean}, FORECAST))
    fresh = 1.0 + 0.001 * RNG.standard_normal((8640, N))
    alarms = play(detector, fresh).max(axis=1) >= 1.0
    begins = np.count_nonzero(alarms[1:] & ~alarms[:-1])
    assert begins <= 40  # 10 in a tenth of a day are asked for; one stretch may count several times
    attacked = fresh[:200].copy()
    attacked[100:, 0] += 0.004 * (-1.0) ** np.arange(100)
    score = play(detector, attacked)
    assert score[130:, 0].min() >= 1.0
    assert np.argmax(score[:, 0] >= 1.0) >= 100


def test_too_little_history_and_wrong_labels_are_refused() -> None:
    with pytest.raises(ControllerError, match="clean data"):
        Oscillation(SITE).calibrate(History(np.arange(5.0), {"v_pu": np.ones((5, N))}, FORECAST))
    with pytest.raises(ControllerError, match="nothing to watch"):
        Oscillation(SITE, labels=["nowhere"])
