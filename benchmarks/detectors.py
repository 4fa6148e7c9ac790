"""Both detectors on every shipped attack and on clean days: the table of what they see.

    python benchmarks/detectors.py [--json] [--only NAME ...] [--keep FOLDER] [--clean-days N]

For each scenario that an attack names, three kinds of runs, with the same sensors: a clean day of
another seed, which the detectors learn from (where a scenario is a part of a day, with two hours
more on each side); the clean day of the scenario's own seed, for false alarms; and the attacked
runs. The scenarios are changed in three ways, so that detection is no
easier than it should be: sensors have noise (`NOISE`), every load deviates from the forecast, and
houses have no telemetry. The attack is the shipped file as it is.

With --clean-days no attack is run, but N clean days of each scenario, each of another seed and
learnt from a day of its own: one day alone says little of how often false alarms come.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from federates.reports.detection_metrics import (
    StepWindow,
    detector_rows,
    judge,
    step_windows,
    verdicts_of,
)
from federates.runs.runner import run
from federates.scenario.attack_files import load_attack, shipped_attacks
from federates.scenario.schema import Scenario, find_scenario, scenario_from, shipped_dir
from federates.scenario.yaml_source import load_yaml
from grid_models.base.errors import FeederateError

# Standard deviation of what the operator reads, in the port's unit: 0.1 % of voltage, about 1 % of
# an inverter's power, about 0.2 % of the feeder's.
NOISE = {"v_pu": 0.001, "p_kw": 0.3, "q_kvar": 0.3, "import_kw": 5.0, "import_kvar": 5.0}
LOAD_DIVERSITY = 0.1
TRAINING_SEED = 1000
MORE_S, DAY_S = 7200, 86400
TELEMETRY = ["pv_*", "battery_*", "gen_*"]
DETECTORS: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "residual": ("power-flow-residual", {"der_labels": TELEMETRY}, tuple(NOISE)),
    "cusum": ("cusum", {"labels": ["*.*", "source", *TELEMETRY]}, ("v_pu", "p_kw", "import_kw")),
}


def watched(name: str, clean_run: Path | None, attack: str | None, shift: int = 0) -> Scenario:
    """Return a scenario with both detectors, or, without a clean run to learn from, with none."""
    source = load_yaml(find_scenario(name))
    data: dict[str, Any] = copy.deepcopy(source.data)
    data["seed"] = data.get("seed", 0) + shift
    if clean_run is None:  # to learn from: another day, and two hours more on each side
        data["seed"] += TRAINING_SEED
        start_s = data["time"].get("start_s", 0)
        data["time"]["start_s"] = max(0, start_s - MORE_S)
        end_s = min(DAY_S, start_s + data["time"]["duration_s"] + MORE_S)
        data["time"]["duration_s"] = end_s - data["time"]["start_s"]
    data.pop("attack", None)
    data["grid"]["load_diversity"] = data["grid"].get("load_diversity") or LOAD_DIVERSITY
    kinds = {spec["kind"]: n for n, spec in data["federates"].items()}
    source_of = dict.fromkeys(NOISE, kinds["feeder"])
    if "device" in kinds:  # the operator's word on a device is what its adapter reads
        source_of |= dict.fromkeys(("p_kw", "q_kvar"), kinds["device"])
    data["record"] = {"ports": [f"{federate}.{port}" for port, federate in source_of.items()]}
    if clean_run is not None:
        data["record"] = {"ports": [f"{name}.score" for name in DETECTORS]}
        for detector, (kind, options, ports) in DETECTORS.items():
            data["federates"][detector] = {
                "kind": "detector",
                "detector": kind,
                "options": {"clean_run": str(clean_run), **options},
            }
            data["connections"] += [
                {"source": f"{source_of[p]}.{p}", "target": f"{detector}.{p}", "noise": NOISE[p]}
                for p in ports
            ]
    return scenario_from(dataclasses.replace(source, data=data), attack=attack)


def finished(folder: Path) -> bool:
    """Return whether a run is there to be used; one that did not finish is removed."""
    if not folder.exists():
        return False
    if json.loads((folder / "manifest.json").read_text())["status"] == "finished":
        return True
    shutil.rmtree(folder)
    return False


def measure(
    scenario: str, attacks: list[tuple[str, str | None]], folder: Path
) -> list[dict[str, Any]]:
    """Return the rows of one scenario: its clean day, then its attacks (name, file)."""
    training = folder / f"{scenario}-training"
    if not finished(training):
        run(watched(scenario, None, None), out=training, placement="single")
    rows = []
    for name, file in attacks:
        began = time.perf_counter()
        try:
            out = folder / f"{scenario}-{name}"
            if not finished(out):
                run(watched(scenario, training, file), out=out, placement="single")
            found = detector_rows(out)
            if file is not None:
                compare_with_clean(found, folder / f"{scenario}-clean", step_windows(out))
        except FeederateError as error:
            found = [{"detector": "-", "step": None, "error": str(error)}]
        wall_s = time.perf_counter() - began
        rows += [{"scenario": scenario, "attack": name, **row} for row in found]
        print(f"{scenario}, {name}: {wall_s:.0f} s", file=sys.stderr)
    return rows


def clean_days(scenario: str, days: int, folder: Path) -> list[dict[str, Any]]:
    """Return one row per detector: false alarms over so many clean days of a scenario."""
    alarms = dict.fromkeys(DETECTORS, 0)
    clean = 0.0
    for day in range(days):
        training = folder / f"{scenario}-training-{day}"
        if not finished(training):
            run(watched(scenario, None, None, day), out=training, placement="single")
        here = watched(scenario, training, None, day)
        out = folder / f"{scenario}-clean-{day}"
        if not finished(out):
            run(here, out=out, placement="single")
        length = here.time.duration_s / DAY_S
        clean += length
        for row in detector_rows(out):
            alarms[row["detector"]] += round(row["false_alarms_per_day"] * length)
        print(f"{scenario}, clean day {day}: {alarms} in {clean:.2f} days", file=sys.stderr)
    return [
        {"scenario": scenario, "detector": name, "runs": days, "days": clean, "alarms": n}
        | {"false_alarms_per_day": n / clean}
        for name, n in alarms.items()
    ]


def clean_table(rows: list[dict[str, Any]]) -> str:
    head = ["scenario", "detector", "runs", "days", "alarms", "false_alarms_per_day"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(text(r[k]) for k in head) + " |" for r in rows])


def compare_with_clean(rows: list[dict[str, Any]], clean: Path, windows: list[StepWindow]) -> None:
    """Add the area under the curve of the same window on the clean day: what the hour gives.

    And take back that an attack was seen where the clean day has as much alarm in its window.
    """
    without = {
        (name, row["step"]): row
        for name in DETECTORS
        for row in judge(verdicts_of(clean, name), windows)
    }
    for row in rows:
        same = without[row["detector"], row["step"]]
        row["auc_clean"] = same["auc"]
        row["seen"] = row["seen"] and row["recall"] > (same["recall"] or 0.0)


def plan(only: list[str]) -> dict[str, list[tuple[str, str | None]]]:
    """Return the shipped attacks by scenario, a clean day first."""
    by_scenario: dict[str, list[tuple[str, str | None]]] = {}
    for name, path in shipped_attacks(shipped_dir()).items():
        if only and name not in only:
            continue
        spec = load_attack(path)
        if spec.scenario is not None and not has_detectors(spec.scenario):
            by_scenario.setdefault(spec.scenario, [("clean", None)]).append((name, str(path)))
    return by_scenario


def has_detectors(scenario: str) -> bool:
    """Return whether a scenario has detectors of its own, as settings-attack-ieee123."""
    federates = load_yaml(find_scenario(scenario)).data["federates"].values()
    return any(spec["kind"] == "detector" for spec in federates)


def text(value: Any, digits: int = 2) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "nothing"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def joined(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows with steps of the same window, whose figures are equal, as one."""
    groups: dict[tuple[Any, ...], list[str]] = {}
    for row in rows:
        rest = tuple((k, v) for k, v in row.items() if k != "step")
        groups.setdefault(rest, []).append(row["step"])
    return [
        dict(rest) | {"step": None if steps == [None] else ", ".join(steps)}
        for rest, steps in groups.items()
    ]


def table(rows: list[dict[str, Any]]) -> str:
    head = ["attack", "step", "detector", "seen", "delay_s", "precision", "recall"]
    head += ["false_alarms_per_day", "auc", "auc_clean"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in joined(rows):
        if "error" in row:
            lines.append(f"| {row['attack']} | could not run: {row['error']} |")
            continue
        shown = {"auc_clean": None} | row | ({"seen": None} if row["step"] is None else {})
        name = f"{row['attack']} ({row['scenario']})" if row["attack"] == "clean" else None
        cells = [name or row["attack"], *(shown[key] for key in head[1:])]
        lines.append("| " + " | ".join(text(c, 0 if k == 4 else 2) for k, c in enumerate(cells)))
        lines[-1] += " |"
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", nargs="*", default=[], metavar="ATTACK")
    parser.add_argument(
        "--keep", type=Path, help="keep the runs here, and use those that are there"
    )
    parser.add_argument("--clean-days", type=int, metavar="N", help="false alarms on N clean days")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        rows = []
        for scenario, attacks in plan(options.only).items():
            if options.clean_days:
                rows += clean_days(scenario, options.clean_days, folder.absolute())
            else:
                rows += measure(scenario, attacks, folder.absolute())
    shown = clean_table if options.clean_days else table
    print(json.dumps(rows) if options.json else shown(rows))


if __name__ == "__main__":
    main()
