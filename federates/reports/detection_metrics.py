"""What detectors are worth: their scores and alarms against the ground truth of a labelled run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controllers.core.mail import FloatArray
from controllers.detection.protocol import ALARM_SCORE
from federates.attacks.labels import attack_windows
from federates.core.signals import signal_batches, signal_names
from federates.runs.data import RunData

BoolArray = NDArray[np.bool_]
SAME_ALARM_S = 300.0
AFTERMATH_S = 900.0
CHANCE = 0.05
_DAY_S = 86400.0


@dataclass(frozen=True)
class StepWindow:
    """When a step of the attack was at work: ``begin_s <= t < end_s``."""

    step: str
    begin_s: float
    end_s: float


@dataclass(frozen=True)
class Verdicts:
    """What one detector said over a run: the largest score of its labels, and any alarm, (k,)."""

    time_s: FloatArray
    score: FloatArray
    alarm: BoolArray


def area_under_curve(score: FloatArray, positive: BoolArray) -> float | None:
    """Return the area under the ROC curve, or None where one of the two classes is empty.

    By ranks, ties shared: the share of pairs (positive, negative) in which the positive scores
    higher, a tie counting half (J. A. Hanley, B. J. McNeil, Radiology 143, 1982).

    Parameters
    ----------
    score : (k,)
    positive : (k,)
    """
    positive = np.asarray(positive, dtype=bool)
    n_positive = int(np.count_nonzero(positive))
    n_negative = positive.size - n_positive
    if not n_positive or not n_negative:
        return None
    _, group, count = np.unique(score, return_inverse=True, return_counts=True)
    rank = np.cumsum(count) - 0.5 * (count - 1)
    wins = float(rank[group[positive]].sum()) - 0.5 * n_positive * (n_positive + 1)
    return wins / (n_positive * n_negative)


def step_windows(run: Path) -> list[StepWindow]:
    """Return one window for each step of the attack that began, by its begin.

    From the run's events, cut at the end of the run; a step that pauses in between has one window
    over all of it.
    """
    data = RunData(run)
    end_of_run = float(data.scenario["time"]["step_s"]) * float(data.manifest["steps"])
    spans: dict[str, StepWindow] = {}
    for step, begin_s, end_s in attack_windows(run):
        known = spans.get(step, StepWindow(step, begin_s, begin_s))
        spans[step] = StepWindow(step, known.begin_s, max(known.end_s, min(end_s, end_of_run)))
    return list(spans.values())


def judge(verdicts: Verdicts, windows: Sequence[StepWindow]) -> list[dict[str, Any]]:
    """Return one row of metrics for each window; of a clean run one row, without a step.

    Clean is what lies outside every window and not within `AFTERMATH_S` after one: the grid comes
    back to where it was by then, and what is said meanwhile is neither right nor wrong.

    Keys: `step`; `delay_s`, from the begin of the window to the first alarm that begins in it;
    `precision`, the share of the alarmed samples, those in the window and the clean ones, that lie
    in the window; `recall`, the share of the window's samples that are alarmed;
    `false_alarms_per_day`, alarms that begin at a clean sample (one that comes back within
    `SAME_ALARM_S` is the same alarm), by the clean time; `auc`, of the scores inside against the
    clean ones; `seen`, whether an alarm began in the window, and less than `CHANCE` of all clean
    stretches of its length hold as much alarm as it does.
    """
    t, alarm = verdicts.time_s, np.asarray(verdicts.alarm, dtype=bool)
    inside = [(t >= w.begin_s) & (t < w.end_s) for w in windows]
    clean = np.ones(len(t), dtype=bool)
    for window in windows:
        clean &= (t < window.begin_s) | (t >= window.end_s + AFTERMATH_S)
    begins = _begins(t, alarm)
    risen = _risen(alarm)
    period_s = float(np.median(np.diff(t))) if len(t) > 1 else 0.0
    clean_days = float(np.count_nonzero(clean)) * period_s / _DAY_S
    false_alarms = float(np.count_nonzero(begins & clean))
    per_day = false_alarms / clean_days if clean_days else None
    if not windows:
        return [_row(None, None, None, None, per_day, None, False)]
    rows = []
    for window, here in zip(windows, inside, strict=True):
        hits = np.flatnonzero(here & alarm)
        fresh = np.flatnonzero(here & risen)
        delay_s = float(t[fresh[0]] - window.begin_s) if fresh.size else None
        either = here | clean
        judged = int(np.count_nonzero(alarm & either))
        precision = hits.size / judged if judged else None
        recall = hits.size / int(np.count_nonzero(here)) if here.any() else None
        auc = area_under_curve(verdicts.score[either], here[either])
        seen = bool(fresh.size) and _chance(alarm, clean, here) < CHANCE
        rows.append(_row(window.step, delay_s, precision, recall, per_day, auc, seen))
    return rows


def _chance(alarm: BoolArray, clean: BoolArray, here: BoolArray) -> float:
    """Return the share of clean stretches as long as a window with as many alarmed samples.

    Where clean time has no such stretch: 0 if alarms are denser in the window, else 1.
    """
    n = int(np.count_nonzero(here))
    found = int(np.count_nonzero(alarm & here))
    if n > len(alarm):
        return 1.0
    total = np.concatenate([[0], np.cumsum(clean)])
    whole = total[n:] - total[:-n] == n
    if not whole.any():
        share = float(alarm[clean].mean()) if clean.any() else 0.0
        return 0.0 if found > share * n else 1.0
    alarmed = np.concatenate([[0], np.cumsum(alarm)])
    return float((alarmed[n:] - alarmed[:-n] >= found)[whole].mean())


def _begins(time_s: FloatArray, alarm: BoolArray) -> BoolArray:
    """Return where an alarm begins; one that comes back within `SAME_ALARM_S` is the same.

    An alarm that was there at the sample before goes on, however long ago that sample was.
    """
    at = np.flatnonzero(alarm)
    begins = np.zeros(len(alarm), dtype=bool)
    begins[at[np.diff(time_s[at], prepend=-np.inf) > SAME_ALARM_S]] = True
    return begins & _risen(alarm)


def _risen(alarm: BoolArray) -> BoolArray:
    """Return the alarmed samples whose sample before was not."""
    risen: BoolArray = alarm & ~np.concatenate([[False], alarm[:-1]])
    return risen


_METRICS = ("delay_s", "precision", "recall", "false_alarms_per_day", "auc", "seen")


def _row(step: str | None, *metrics: float | None) -> dict[str, Any]:
    return {"step": step, **dict(zip(_METRICS, metrics, strict=True))}


def detectors_of(run: Path) -> dict[str, float]:
    """Return the run's detectors that were recorded, with the time each of them only learnt."""
    data = RunData(run)
    recorded = signal_names(data.signals) if data.signals.is_dir() else []
    return {
        name: float(spec.get("options", {}).get("calibrate_s", 0.0))
        for name, spec in data.scenario["federates"].items()
        if spec.get("kind") == "detector" and f"{name}.score" in recorded
    }


def verdicts_of(run: Path, detector: str, from_s: float = 0.0) -> Verdicts:
    """Read what one detector said from `from_s` on, piece by piece."""
    folder = run / "signals"
    times, scores = [], []
    for time_s, values in signal_batches(folder, f"{detector}.score"):
        times.append(time_s)
        scores.append(values.max(axis=1))
    if not times:
        return Verdicts(np.empty(0), np.empty(0), np.empty(0, dtype=bool))
    all_s, score = np.concatenate(times), np.concatenate(scores)
    kept = all_s >= from_s
    return Verdicts(all_s[kept], score[kept], score[kept] >= ALARM_SCORE)


def detector_rows(run: Path) -> list[dict[str, Any]]:
    """Return the metrics of every detector of a run against every step of its attack.

    Keys: `detector`, then those of `judge`. A run without detectors gives no row. A disturbance is
    no attack: an alarm about it is a false one.

    Raises ScenarioError: The folder holds no run.
    """
    attack = RunData(run).scenario.get("attack") or {}
    windows = [] if attack.get("kind") == "disturbance" else step_windows(run)
    return [
        {"detector": name, **row}
        for name, learnt_s in detectors_of(run).items()
        for row in judge(verdicts_of(run, name, learnt_s), windows)
    ]
