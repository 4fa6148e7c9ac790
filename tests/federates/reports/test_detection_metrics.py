"""Metrics of detectors: by hand, and the area under the curve against counting pairs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federates.reports.detection_metrics import (
    StepWindow,
    Verdicts,
    area_under_curve,
    detector_rows,
    judge,
    step_windows,
)

PAIRS = st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0]), st.booleans()))


@given(PAIRS)
def test_the_area_is_the_share_of_pairs_in_the_right_order(pairs: list[tuple[float, bool]]) -> None:
    score = np.array([s for s, _ in pairs])
    positive = np.array([p for _, p in pairs], dtype=bool)
    area = area_under_curve(score, positive)
    above, below = score[positive], score[~positive]
    if not above.size or not below.size:
        assert area is None
        return
    won = sum((a > b) + 0.5 * (a == b) for a in above for b in below)
    assert area == pytest.approx(won / (above.size * below.size), abs=1e-12)


@given(PAIRS)
def test_the_area_knows_the_order_of_the_scores_only(pairs: list[tuple[float, bool]]) -> None:
    score = np.array([s for s, _ in pairs])
    positive = np.array([p for _, p in pairs], dtype=bool)
    area = area_under_curve(score, positive)
    assert area_under_curve(np.exp(3.0 * score) + 7.0, positive) == area
    mirrored = area_under_curve(-score, positive)
    if area is None:
        assert mirrored is None
    else:
        assert mirrored == pytest.approx(1.0 - area, abs=1e-12)


def _verdicts(alarmed: list[int], n: int = 1440) -> Verdicts:
    """One day of minutes, sampled half a minute late, with alarms at some of them."""
    alarm = np.zeros(n, dtype=bool)
    alarm[alarmed] = True
    return Verdicts(60.0 * np.arange(n) + 30.0, np.where(alarm, 2.0, 0.5), alarm)


def test_a_row_by_hand() -> None:
    # Window: minutes 100 to 109. Alarms: 3 in it, the first at minute 102; 2 in the quarter hour
    # after it, which count for nothing; and 3 at clean minutes, of which two are one alarm.
    verdicts = _verdicts([102, 103, 105, 110, 112, 500, 504, 900])
    (row,) = judge(verdicts, [StepWindow("a", 6000.0, 6600.0)])
    clean = 1440 - 10 - 15
    assert row["step"] == "a"
    assert row["delay_s"] == 150.0
    assert row["precision"] == 3 / 6
    assert row["recall"] == 3 / 10
    assert row["false_alarms_per_day"] == pytest.approx(2 * 1440 / clean)
    # 3 of 10 positives and 3 of the clean score 2, all others 0.5.
    expected = (3 * (clean - 3) + 0.5 * (3 * 3 + 7 * (clean - 3))) / (10 * clean)
    assert row["auc"] == pytest.approx(expected)
    assert row["seen"] is True


def test_a_detector_that_is_silent_sees_nothing() -> None:
    (row,) = judge(_verdicts([]), [StepWindow("a", 6000.0, 6600.0)])
    assert (row["delay_s"], row["precision"], row["recall"]) == (None, None, 0.0)
    assert (row["false_alarms_per_day"], row["auc"], row["seen"]) == (0.0, 0.5, False)


def test_a_detector_that_always_cries_sees_nothing() -> None:
    (row,) = judge(_verdicts(list(range(1440))), [StepWindow("a", 6000.0, 6600.0)])
    assert row["recall"] == 1.0
    assert row["delay_s"] is None  # its alarm did not begin there
    assert row["seen"] is False


def test_what_happens_on_clean_days_as_often_is_not_seen() -> None:
    # An alarm of a minute every two hours: 10 of 120 clean stretches of ten minutes hold one.
    verdicts = _verdicts([102, *range(5, 1440, 120)])
    (row,) = judge(verdicts, [StepWindow("a", 6000.0, 6600.0)])
    assert row["delay_s"] == 150.0
    assert row["seen"] is False
    (row,) = judge(_verdicts([102, 103, *range(5, 1440, 120)]), [StepWindow("a", 6000.0, 6600.0)])
    assert row["seen"] is True


def test_an_alarm_that_was_there_before_is_no_detection() -> None:
    (row,) = judge(_verdicts([98, 99, 100, 101]), [StepWindow("a", 6000.0, 6600.0)])
    assert row["delay_s"] is None
    assert row["recall"] == 0.2
    assert row["seen"] is False


def test_alarms_of_one_step_are_not_held_against_another() -> None:
    windows = [StepWindow("a", 6000.0, 6600.0), StepWindow("b", 30000.0, 30600.0)]
    a, b = judge(_verdicts([102, 503]), windows)
    assert (a["precision"], b["precision"]) == (1.0, 1.0)
    assert a["false_alarms_per_day"] == b["false_alarms_per_day"] == 0.0


def test_a_clean_run_has_a_row_of_false_alarms_only() -> None:
    (row,) = judge(_verdicts([5, 700, 701, 1200]), [])
    assert row["false_alarms_per_day"] == 3.0
    assert row["step"] is None
    assert row["auc"] is None
    assert row["seen"] is False


@pytest.mark.parametrize("period_s", [60.0, 300.0, 600.0, 3600.0])
def test_an_alarm_that_goes_on_is_one_at_any_period(period_s: float) -> None:
    # One alarm from 06:00 to 12:00 and one from 18:00 to 20:00, of a day.
    time_s = np.arange(0.0, 86400.0, period_s)
    hour = time_s / 3600.0
    alarm = ((hour >= 6) & (hour < 12)) | ((hour >= 18) & (hour < 20))
    (row,) = judge(Verdicts(time_s, np.where(alarm, 2.0, 0.5), alarm), [])
    assert row["false_alarms_per_day"] == pytest.approx(2.0)


def _run_folder(folder: Path, events: list[dict[str, object]]) -> Path:
    scenario = {
        "time": {"start_s": 0.0, "step_s": 60.0},
        "band": {"v_min_pu": 0.95, "v_max_pu": 1.05},
        "federates": {"feeder": {"kind": "feeder"}},
    }
    (folder / "manifest.json").write_text(json.dumps({"scenario": scenario, "steps": 100}))
    (folder / "events.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events) + "{tor")
    return folder


def test_windows_are_those_that_the_events_tell(tmp_path: Path) -> None:
    def event(kind: str, step: str, time_s: float) -> dict[str, object]:
        return {"event": kind, "step": step, "time_s": time_s, "federate": "x"}

    run = _run_folder(
        tmp_path,
        [
            {"event": "started", "time_s": None},
            event("attack_began", "b", 1200.0),
            event("attack_began", "a", 600.0),
            event("attack_ended", "a", 900.0),
            event("attack_began", "a", 1500.0),
            event("attack_ended", "a", 1800.0),
        ],
    )
    assert step_windows(run) == [StepWindow("a", 600.0, 1800.0), StepWindow("b", 1200.0, 6000.0)]


def test_a_run_without_detectors_has_no_rows(tmp_path: Path) -> None:
    assert detector_rows(_run_folder(tmp_path, [])) == []
