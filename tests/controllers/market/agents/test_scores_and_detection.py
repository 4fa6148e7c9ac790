"""Scores of market operators and the detector of a changed import."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.market.agents.detection import (
    ImportDetector,
    Thresholds,
    drift_threshold,
    intervals_between_alarms,
    leap_threshold,
)
from controllers.market.agents.scores import (
    BetaScore,
    commitment_evidence,
    resilience_score,
    trust_evidence,
)
from grid_models.base import counter_rng

EVIDENCE = st.lists(st.floats(-1.0, 2.0) | st.just(float("nan")), min_size=1, max_size=40)


@settings(max_examples=80, deadline=None)
@given(st.floats(-0.5, 1.5), EVIDENCE)
def test_a_score_stays_between_0_and_1_whatever_the_evidence(
    prior: float, evidence: list[float]
) -> None:
    score = BetaScore(np.array([prior]))
    for e in evidence:
        score.add(np.array([e]))
    assert 0.0 <= score.value[0] <= 1.0


def test_scores_follow_the_evidence_and_keep_the_prior_without_any() -> None:
    score = BetaScore(np.array([0.5, 0.5, 0.5]), prior_weight=10.0)
    for _ in range(10):
        score.add(np.array([1.0, 0.0, 1.0]), np.array([True, True, False]))
    good, bad, unheard = score.value
    assert bad < 0.35 < 0.65 < good
    assert unheard == 0.5


def test_commitment_is_the_part_of_the_promised_service_that_was_delivered() -> None:
    # 100 kW of load, 20 kW of which were to go: all of it went, 15 kW, nothing, more load instead.
    metered = np.array([-0.080, -0.085, -0.100, -0.120])
    evidence = commitment_evidence(np.full(4, -0.080), metered, np.full(4, 0.020))
    assert evidence == pytest.approx([1.0, 0.75, 0.0, 0.0])


def test_trust_falls_with_lost_odd_and_alarming_traffic() -> None:
    received = np.array([29.0, 20.0, 29.0, 29.0])
    odd, alarm = np.array([0.0, 0.0, 29.0, 0.0]), np.array([np.nan, 0.0, 0.0, 1.0])
    evidence = trust_evidence(received, 29.0, odd, alarm)
    assert evidence == pytest.approx([1.0, 20.0 / 29.0, 0.0, 0.0])


def test_resilience_needs_both() -> None:
    assert resilience_score(np.array([1.0, 0.0]), np.array([0.25, 1.0])) == pytest.approx(
        [0.5, 0.0]
    )


def test_thresholds_invert_their_formulas() -> None:
    assert intervals_between_alarms(drift_threshold(43_200.0)) == pytest.approx(43_200.0, rel=1e-6)
    # One in 740 normal samples passes 3 sigma upwards (tables of the normal distribution: 0.00135).
    assert leap_threshold(740.8) == pytest.approx(3.0, abs=1e-3)


def test_false_alarms_come_as_rarely_as_stated() -> None:
    """Two hundred runs of 20 days of independent normal intervals, 10 days between false alarms."""
    days, interval_s = 10.0, 900.0
    thresholds = Thresholds.for_rate(days, interval_s, interval_s)
    per_run = round(20.0 * 86_400.0 / interval_s)
    streams = counter_rng.stream_ids(f"run {i}" for i in range(200))
    noise = np.array([counter_rng.normal(1, streams, k, 0) for k in range(per_run)])
    alarms = 0
    for run in noise.T:
        detector = ImportDetector(1.0, thresholds)
        for r in run.tolist():
            found = detector.add(r) or detector.end_interval()
            if found:
                alarms += 1
                detector.reset()
    # 400 expected in 4000 days; Siegmund's approximation errs by a few per cent.
    assert 300 <= alarms <= 450


def test_a_large_attack_is_found_in_its_first_sample_and_a_small_one_by_its_drift() -> None:
    thresholds = Thresholds.for_rate(30.0, 4.0, 60.0)
    detector = ImportDetector(5.0, thresholds)
    assert detector.add(4.0) is None
    assert detector.add(100.0) == "leap"
    detector.reset()
    found = []
    for _ in range(30):
        assert detector.add(7.5) is None  # 1.5 sigma: no leap
        found.append(detector.end_interval())
    # The CUSUM grows by 1.5 - 0.5 = 1 sigma per interval.
    assert found.index("drift") == int(np.floor(thresholds.drift))


def test_a_missing_measurement_is_no_evidence() -> None:
    detector = ImportDetector(5.0, Thresholds(3.0, 5.0))
    assert detector.add(float("nan")) is None
    assert detector.end_interval() is None
    assert detector.level == 0.0
