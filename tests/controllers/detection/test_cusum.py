"""The change detector on signals of which everything is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from controllers.core.errors import ControllerError
from controllers.core.sample_site import sample_feeder
from controllers.detection.cusum import Cusum
from controllers.detection.protocol import DetectionSite, Detector, Forecast, History
from grid_models.base.counter_rng import normal, stream_ids

STEPS = 4000
FORECAST = Forecast(np.zeros(1), np.ones(1), np.zeros(1))
SITE = DetectionSite(sample_feeder(), 60.0, FORECAST)
NODES = SITE.port("v_pu").labels


def _noise(seed: int, steps: int = STEPS, n: int = len(NODES)) -> np.ndarray:
    streams = stream_ids(f"{i} {k}" for k in range(steps) for i in range(n))
    return normal(seed, streams, 0, 0).reshape(steps, n)


CLEAN = 1.0 + 0.001 * _noise(1, 1500)


def _cusum(**options: Any) -> Cusum:
    return Cusum(SITE, **({"signals": ["v_pu"], "common": "keep"} | options))


def _play(detector: Cusum, v_pu: np.ndarray) -> np.ndarray:
    return np.array([detector.step(60.0 * k, {"v_pu": row}) for k, row in enumerate(v_pu)])


def _learnt(clean: np.ndarray, **options: Any) -> Cusum:
    detector = _cusum(**options)
    detector.calibrate(History(60.0 * np.arange(len(clean)), {"v_pu": clean}, FORECAST))
    return detector


def test_it_follows_the_protocol_and_names_every_signal() -> None:
    detector = Cusum(SITE, signals=["v_pu", "import_kw"])
    assert isinstance(detector, Detector)
    assert detector.labels == (*(f"v_pu:{x}" for x in NODES), "import_kw:source")


@pytest.mark.parametrize("on", ["ewma", "increment"])
def test_false_alarms_on_what_it_was_made_for_are_as_rare_as_asked(on: str) -> None:
    # A random walk has independent normal increments: the law of the run length holds. A long mean
    # of white noise misses by white noise.
    def signal(seed: int) -> np.ndarray:
        x = 1.0 + 0.001 * _noise(seed)
        return np.cumsum(x - 1.0, axis=0) + 1.0 if on == "increment" else x

    asked = 40.0
    options = {"on": on, "false_alarms_per_day": asked, "shift": 1.0, "learn_s": 1e9}
    options |= {"horizon_s": 36000.0}
    detector = _cusum(**options)
    # The deviation is learnt, the decision interval stays what the run length says.
    clean = signal(1)
    detector._prediction.learn(clean)
    score = _play(detector, signal(2)).max(axis=1)
    alarm = score >= 1.0
    begins = np.count_nonzero(alarm & ~np.concatenate([[False], alarm[:-1]]))
    days = STEPS * 60.0 / 86400.0
    # About 110 alarms are expected, a tenth either way by chance; alarms that last merge.
    assert begins / days == pytest.approx(asked, rel=0.35)


def test_after_calibration_clean_data_raise_no_alarm() -> None:
    assert _play(_learnt(CLEAN), CLEAN).max() <= 1.0


@pytest.mark.parametrize("calibrated", [True, False])
def test_a_lasting_bias_is_seen_at_the_signal_that_has_it(calibrated: bool) -> None:
    v_pu = 1.0 + 0.001 * _noise(2, 400)
    v_pu[300:, 4] += 0.008
    detector = _learnt(CLEAN) if calibrated else _cusum(learn_s=7200.0)
    score = _play(detector, v_pu)
    first = np.flatnonzero(score[300:].max(axis=1) >= 1.0)[0]
    assert first <= 3
    assert score[300 + first].argmax() == 4
    assert score[:300].max() < 1.0


def test_what_a_whole_port_does_at_once_is_common() -> None:
    v_pu = 1.0 + 0.001 * _noise(2, 400)
    v_pu[300:] += 0.008
    assert _play(_learnt(CLEAN, common="remove"), v_pu)[300:].max() < 1.0
    assert _play(_learnt(CLEAN, common="keep"), v_pu)[300:].max() >= 1.0


def test_alarms_end_after_what_caused_them() -> None:
    v_pu = 1.0 + 0.001 * _noise(2, 600)
    v_pu[200:260, 3] += 0.05
    score = _play(_learnt(CLEAN), v_pu)
    assert score[200:260].max() >= 1.0
    assert score[340:].max() < 1.0


def test_signals_do_not_touch_each_other() -> None:
    v_pu = 1.0 + 0.001 * _noise(2, 200)
    spoilt = v_pu.copy()
    spoilt[50:, 0] += 0.5
    alone, together = _play(_cusum(), v_pu), _play(_cusum(), spoilt)
    np.testing.assert_array_equal(alone[:, 1:], together[:, 1:])


@pytest.mark.parametrize("common", ["remove", "keep"])
def test_what_is_not_measured_scores_nothing_and_harms_nobody(common: str) -> None:
    v_pu = 1.0 + 0.001 * _noise(2, 200)
    v_pu[:, 2] = np.nan
    v_pu[90:110, 5] = np.nan
    score = _play(_cusum(common=common, learn_s=600.0), v_pu)
    assert np.isfinite(score).all()
    assert (score[:, 2] == 0.0).all()


def test_a_signal_that_never_moved_is_judged_by_its_first_lasting_move() -> None:
    still = np.full((50, len(NODES)), 1.0)
    v_pu = np.full((60, len(NODES)), 1.0)
    v_pu[30:, 1] = 1.01
    score = _play(_learnt(still), v_pu)
    assert score[:30].max() == 0.0
    assert score[31, 1] >= 1.0


def _bumpy(seed: int, days: int) -> np.ndarray:
    """Return noise with 24 bumps a day, as clouds give: each signal in its own measure."""
    rng = np.random.default_rng(seed)
    v_pu = 1.0 + 0.001 * _noise(seed, 1440 * days)
    for at in rng.integers(0, len(v_pu) - 40, 24 * days):
        height = 0.003 * rng.exponential() * rng.choice([-1.0, 1.0])
        v_pu[at : at + rng.integers(5, 40)] += height * rng.uniform(size=len(NODES))
    return v_pu


def test_false_alarms_of_what_no_textbook_law_holds_for_are_as_rare_as_asked() -> None:
    asked, days, found = 1.0, 3, []
    for seed in range(4):
        v_pu = _bumpy(seed, 1 + days)
        detector = _learnt(v_pu[:1440], false_alarms_per_day=asked)
        at = np.flatnonzero(_play(detector, v_pu[1440:]).max(axis=1) >= 1.0)
        found.append(np.count_nonzero(np.diff(at, prepend=-np.inf) > 5) / days)
    # Twelve alarms are expected; a day's worth of clean data leaves their rate open by half.
    assert 0.0 < np.mean(found) < 1.5 * asked


def test_a_signal_that_the_history_never_had_is_not_judged_but_told_of() -> None:
    clean, run = CLEAN.copy(), 1.0 + 0.001 * _noise(2, 300)
    clean[:, 3] = np.nan
    clean[20:, 6] = np.nan
    run[150:, 3] += 0.05
    run[:, 6] += np.linspace(0.0, 1.0, 300)
    for common in ("keep", "remove"):
        detector = _learnt(clean, common=common)
        assert detector.take_events() == []
        score = _play(detector, run)
        assert score.max() < 1.0
        assert not score[:, [3, 6]].any()
        (event,) = detector.take_events()
        assert event["event"] == "not_learnt"
        assert event["lacking"] == [f"v_pu:{NODES[3]}", f"v_pu:{NODES[6]}"]
        assert detector.take_events() == []


def test_a_history_as_short_as_the_prediction_is_refused() -> None:
    # At a horizon of an hour the first prediction is judged after 60 of these steps.
    with pytest.raises(ControllerError, match="at least 30 more than the 60"):
        _learnt(CLEAN[:89], horizon_s=3600.0)
    v_pu = 1.0 + 0.001 * _noise(2, 300)
    assert _play(_learnt(CLEAN[:90], horizon_s=3600.0), v_pu).max() < 1.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"signals": ["v_puu"]}, "did you mean 'v_pu'"),
        ({"signals": "v_pu"}, "a list of names"),
        ({"on": "ewm"}, "did you mean 'ewma'"),
        ({"shift": 0}, "above 0"),
        ({"fals_alarms_per_day": 1}, "did you mean 'false_alarms_per_day'"),
        ({"false_alarms_per_day": 1e5}, "steps between false alarms"),
    ],
)
def test_bad_options_are_refused_with_what_would_do(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ControllerError, match=words):
        Cusum(SITE, **options)


def test_too_little_clean_data_is_refused() -> None:
    with pytest.raises(ControllerError, match="at least 30"):
        _learnt(np.ones((5, len(NODES))))
