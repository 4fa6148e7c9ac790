"""Three simple models and the shipped detectors on one data set: who sees which attack.

    python benchmarks/dataset_baselines.py DATASET [--json]
    python benchmarks/dataset_baselines.py --make DATASET     # make it first, with `COMMAND`

All read the same tables. Models learn from `train/` (each `STRIDE`-th row), detectors from its
first clean run; the scores are those of `test/`. Rows within 15 minutes after an attack belong to
neither class, as in `federates.reports.detection_metrics`. A model's alarm threshold is the one
with the best F1 score on the training seeds, each predicted by a model that has not seen the seed.

| model | reads |
| --- | --- |
| clock | `time_s` alone: an AUC far from 0.5 would be a leak of the time of day |
| linear | all readings of one step; logistic regression |
| trees | all readings of one step; gradient boosting |
| memory | of each port range, mean and changes, now and against the last one and ten minutes; gradient boosting |
| unseen attack | as memory, but each attack is scored by a model that was trained on the others |
| true values | as trees, but trained on the true values of the same readings: what not to do |
"""  # noqa: E501

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from detectors import DETECTORS
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from controllers.detection import registry
from controllers.detection.protocol import DetectionSite, History
from federates.cli import call
from federates.core.sites import GridSite
from federates.kinds.detector import forecast_of
from federates.reports.detection_metrics import StepWindow, Verdicts, area_under_curve, judge
from federates.scenario.schema import load_scenario

COMMAND = (
    "feederate dataset voltvar-ieee123 false-voltage frozen-measurement stealthy-ramp lying-agent "
    "--seeds 8 --test-share 0.375 --steps 2880 --set time.start_s=36000 "
    "--set grid.load_diversity=0.1"
)
STRIDE, FOLDS = 8, 3
NO_READINGS = ["time_s", "under_attack", "recovering", "step"]
Frame = pd.DataFrame


class Tables:
    """The runs of a data set; a table is read when it is needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs = pd.read_csv(folder / "runs.csv", keep_default_na=False)
        words = shlex.split(json.loads((folder / "manifest.json").read_text())["command"])
        sets = [words[k + 1] for k, word in enumerate(words) if word == "--set"]
        self.scenario, self.overrides = words[2], [s for s in sets if not s.startswith("attack.")]
        self.n_steps = int(self.runs["rows"].max())

    def of(self, split: str) -> Iterator[tuple[Any, Frame]]:
        """Yield the runs of a split with their tables."""
        for run in self.runs[self.runs["split"] == split].itertuples():
            yield run, pd.read_parquet(self.folder / run.table)

    def true(self, run: Any, table: Frame) -> Frame:
        """Return a table with the true values in place of the forged ones."""
        if not run.truth:
            return table
        table, truth = table.copy(), pd.read_parquet(self.folder / run.truth)
        column = truth["federate"].str.cat([truth["port"].str.cat(truth["label"], ":")], ".")
        read = column.isin(table.columns)
        for name, rows in truth[read].groupby(column[read]):
            at = np.searchsorted(table["time_s"], rows["time_s"])
            values = table[name].to_numpy(copy=True)
            values[at] += (rows["true_value"] - rows["seen_value"]).to_numpy(np.float32)
            table[name] = values
        return table


# -- what the models read --------------------------------------------------------------------------


def readings(table: Frame) -> np.ndarray:
    return table.drop(columns=NO_READINGS).to_numpy()


def clock(table: Frame) -> np.ndarray:
    return table[["time_s"]].to_numpy()


def memory(table: Frame) -> np.ndarray:
    """Return statistics over each port, and their past: nothing that depends on one label."""
    period_s = float(np.median(np.diff(table["time_s"])))
    columns = []
    values = table.drop(columns=NO_READINGS)
    for _, port in values.T.groupby(lambda name: name.partition(":")[0], sort=False):
        readings = port.T
        change = readings.diff().abs()
        spread = pd.DataFrame(
            {
                "low": readings.min(axis=1),
                "mean": readings.mean(axis=1),
                "high": readings.max(axis=1),
                "change": change.max(axis=1),
                "still": change.mean(axis=1),
                "apart": (readings - readings.rolling(round(600 / period_s), 1).mean())
                .abs()
                .max(axis=1),
            }
        )
        for window_s in (60, 600):
            n = round(window_s / period_s)
            columns += [spread - spread.rolling(n, 1).mean(), spread.rolling(n, 2).std()]
        columns.append(spread)
    return pd.concat(columns, axis=1).to_numpy(np.float32)


def trees() -> Any:
    # A tenth of the columns at each split: as good here, and ten times as fast.
    return HistGradientBoostingClassifier(
        max_iter=60, max_features=0.1, class_weight="balanced", random_state=0
    )


def linear() -> Any:
    return make_pipeline(
        StandardScaler(), LogisticRegression(C=0.1, max_iter=300, class_weight="balanced")
    )


MODELS: dict[str, tuple[Callable[[Frame], np.ndarray], Callable[[], Any], bool]] = {
    "clock": (clock, trees, False),
    "linear": (readings, linear, False),
    "trees": (readings, trees, False),
    "memory": (memory, trees, False),
    "true values": (readings, trees, True),
}
UNSEEN = "unseen attack"


def unseen_scores(tables: Tables) -> Iterator[tuple[Any, Frame, np.ndarray]]:
    """Yield the scores of each attack's test runs by a model that never saw this attack."""
    for attack in dict.fromkeys(a for a in tables.runs["attack"] if a):
        for run, table, score in model_scores(tables, "memory", without=attack):
            if run.attack == attack:
                yield run, table, score


def model_scores(
    tables: Tables, name: str, without: str | None = None
) -> Iterator[tuple[Any, Frame, np.ndarray]]:
    """Yield (run, table, score) of each test run; 1 is the alarm's threshold."""
    read, make, true = MODELS[name]
    seen: list[np.ndarray] = []
    under: list[np.ndarray] = []
    seed: list[np.ndarray] = []
    for run, table in tables.of("train"):
        if run.attack == without:
            continue
        x = read(tables.true(run, table) if true else table)
        rows = (table["recovering"] == 0).to_numpy() & (np.arange(len(table)) % STRIDE == 0)
        seen.append(x[rows])
        under.append(table["under_attack"].to_numpy()[rows])
        seed.append(np.full(rows.sum(), run.seed))
    x, y, group = map(np.concatenate, (seen, under, seed))
    held_out = np.empty(len(y))
    for fit, rest in GroupKFold(min(FOLDS, len(set(group)))).split(x, y, group):
        held_out[rest] = make().fit(x[fit], y[fit]).predict_proba(x[rest])[:, 1]
    threshold, model = best_threshold(held_out, y), make().fit(x, y)
    for run, table in tables.of("test"):
        yield run, table, model.predict_proba(read(table))[:, 1] / threshold


def best_threshold(score: np.ndarray, y: np.ndarray) -> float:
    candidates = np.unique(np.quantile(score, np.linspace(0.01, 0.999, 300)))
    return float(max(candidates, key=lambda t: f1(score >= t, y)) or 1e-9)


def f1(alarm: np.ndarray, y: np.ndarray) -> float:
    hits = int((alarm & (y == 1)).sum())
    return 2 * hits / max(1, int(alarm.sum()) + int(y.sum()))


# -- the shipped detectors ------------------------------------------------------------------------


def detector_scores(tables: Tables, name: str) -> Iterator[tuple[Any, Frame, np.ndarray]]:
    kind, options, _ = DETECTORS[name]
    run, table = next((r, t) for r, t in tables.of("train") if not r.attack)
    site, clean = site_of(tables, run.seed, table), table
    for run, table in tables.of("test"):
        here = site_of(tables, run.seed, table)
        detector = registry.resolve(kind)(here, **options)
        inputs = {port.name: columns_of(clean, port) for port in detector.inputs}
        detector.calibrate(History(clean["time_s"].to_numpy(), inputs, site.forecast))
        now = {port.name: columns_of(table, port) for port in detector.inputs}
        yield (
            run,
            table,
            np.array(
                [
                    detector.step(float(t), {port: values[k] for port, values in now.items()}).max()
                    for k, t in enumerate(table["time_s"])
                ]
            ),
        )


def site_of(tables: Tables, seed: int, table: Frame) -> DetectionSite:
    scenario = load_scenario(tables.scenario, tables.overrides, seed=seed, attack="")
    site = GridSite(scenario)
    forecast = forecast_of(scenario, site, tables.n_steps)
    return DetectionSite(site.feeder, float(np.median(np.diff(table["time_s"]))), forecast)


def columns_of(table: Frame, port: Any) -> np.ndarray:
    """Return the readings of a detector's input, NaN where nothing is read."""
    place = {name.split(".", 1)[1]: name for name in table if name not in NO_READINGS}
    names = [place.get(f"{port.name}:{label}") for label in port.labels]
    nothing = np.full(len(table), np.nan)
    columns = [nothing if n is None else table[n].to_numpy(np.float64) for n in names]
    return np.column_stack(columns) if columns else np.empty((len(table), 0))


# -- scores ---------------------------------------------------------------------------------------


def measure(scored: Iterator[tuple[Any, Frame, np.ndarray]]) -> list[dict[str, Any]]:
    """Return the scores of all test runs together, then of each attack against the clean rows."""
    parts, alarms, clean_s = [], 0.0, 0.0
    for run, table, score in scored:
        t = table["time_s"].to_numpy()
        period_s = float(np.median(np.diff(t)))
        on = t[table["under_attack"] == 1]
        windows = [StepWindow("attack", on[0], on[-1] + period_s)] if on.size else []
        verdicts = Verdicts(t, score, score >= 1.0)
        rate = judge(verdicts, windows)[0]["false_alarms_per_day"]
        rows = (table["recovering"] == 0).to_numpy()
        y = table["under_attack"].to_numpy()[rows]
        here_s = float((y == 0).sum()) * period_s
        alarms, clean_s = alarms + (rate or 0.0) * here_s, clean_s + here_s
        parts.append((run.attack, score[rows], y))
    out = []
    for attack in ("all", *dict.fromkeys(a for a, _, _ in parts if a)):
        score = np.concatenate([s if attack in ("all", a) else s[y == 0] for a, s, y in parts])
        y = np.concatenate([y if attack in ("all", a) else y[y == 0] for a, _, y in parts])
        alarm = score >= 1.0
        hits = int((alarm & (y == 1)).sum())
        out.append(
            {
                "attack": attack,
                "precision": hits / int(alarm.sum()) if attack == "all" and alarm.any() else None,
                "recall": hits / int(y.sum()),
                "f1": f1(alarm, y) if attack == "all" else None,
                "auc": area_under_curve(score, y == 1),
                "false_alarms_per_day": alarms / clean_s if attack == "all" else None,
            }
        )
    return out


def table_of(rows: list[dict[str, Any]]) -> str:
    head = ["model", "attack", "precision", "recall", "f1", "auc", "false_alarms_per_day"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * 2 + " ---: |" * 5]
    for row in rows:
        cells = ["-" if row[k] is None else row[k] for k in head]
        shown = [f"{c:.2f}" if isinstance(c, float) else c for c in cells]
        lines.append("| " + " | ".join(shown) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of a data set")
    parser.add_argument("--make", action="store_true", help="make it first")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", nargs="*", default=[], metavar="MODEL")
    options = parser.parse_args()
    if options.make and call([*shlex.split(COMMAND)[1:], "--out", str(options.folder)]):
        sys.exit(1)
    tables = Tables(options.folder)
    rows = []
    for name in options.only or [*MODELS, UNSEEN, *DETECTORS]:
        if name == UNSEEN:
            scored = unseen_scores(tables)
        else:
            scored = (model_scores if name in MODELS else detector_scores)(tables, name)
        rows += [{"model": name, **row} for row in measure(scored)]
        print(f"{name} done", file=sys.stderr)
    print(json.dumps(rows) if options.json else table_of(rows))


if __name__ == "__main__":
    main()
