"""Paired runs as numbers: metrics of every state, what changed, what detectors saw."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from federates.attacks.labels import attack_windows
from federates.errors import ScenarioError
from federates.reports.attack import attack_of
from federates.reports.detection_metrics import detector_rows
from federates.reports.format import metric_number
from federates.reports.recovery import out_of_band_node_hours, recovery_s, voltage_tracks
from federates.reports.voltage_quality import voltage_quality
from federates.runs.data import RunData, Shade
from federates.runs.paired import ATTACKED, BASELINE, CLEAN, clean_of
from federates.scenario.attack_schema import AttackSpec

if TYPE_CHECKING:
    from federates.reports.market import MarketTable

DETECTOR_HEAD = (
    *("Detector", "In", "Step", "Delay"),
    *("Precision", "Recall", "False alarms per day", "AUC"),
)
CHANGES = (
    "Change against the same run without the attack; of a run without attack, against the baseline"
)
WINDOW_KEY, RECOVERY_KEY = "attack_window_out_of_band_node_hours", "recovery_s"
_LAST_KEYS = ("attack_steps_never_triggered_count", "attacked_values_count")


def paired_states(folder: Path) -> list[str]:
    """Return the states whose runs are in a folder, in the order of `runs.paired.states_of`.

    Empty where the folder is not one that `feederate attack run` has left.
    """
    there = {path.parent.name for path in folder.glob("*/manifest.json")}
    first = [name for name in (BASELINE, ATTACKED) if name in there]
    if not first:
        return []
    known = RunData(folder / first[0]).scenario.get("defences") or ()
    states = (state for name in known for state in (name, f"{name}{CLEAN}"))
    return [*first, *(name for name in states if name in there)]


class PairedRuns:
    """The runs of one `feederate attack run`, read from their folders.

    Parameters
    ----------
    names : Sub-folders that hold a run, in the order of `runs.paired.states_of`.
    """

    def __init__(self, folder: Path, scenario: str, spec: AttackSpec, names: Sequence[str]) -> None:
        self.folder, self.scenario, self.spec = folder, scenario, spec
        self.names = tuple(names)
        self.runs = {name: RunData(folder / name) for name in names}

    @property
    def first(self) -> RunData:
        """The first of the runs: the baseline, where there is one."""
        return next(iter(self.runs.values()))

    @property
    def changes(self) -> list[str]:
        """What all states changed in the scenario's file."""
        return [c for c in self.first.changes if all(c in r.changes for r in self.runs.values())]

    def shade(self, run: RunData) -> Shade | None:
        """Return when a run was attacked; of the baseline, when it would have been."""
        own = [shade for r in (run, *self.runs.values()) if (shade := r.shade)]
        return Shade(f"time of the {own[0].name}", own[0].windows) if own else None

    @classmethod
    def read(cls, folder: Path) -> PairedRuns:
        """Open the folder that a `feederate attack run` has left.

        Raises ScenarioError: It holds no such runs, or none of them was attacked.
        """
        names = paired_states(folder)
        found = {name: RunData(folder / name) for name in names}
        specs = (attack_of(run) for run in found.values())
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is None:
            raise ScenarioError(
                "holds no attacked run",
                where=str(folder),
                expected="the folder of a run, or of 'feederate attack run'",
            )
        return cls(folder, next(iter(found.values())).name, spec, names)

    @cached_property
    def metrics(self) -> Mapping[str, Mapping[str, float | None]]:
        """Metrics of every state, units in the keys; of several plants each begins with one."""
        windows = [w for run in self.runs.values() if run.shade for w in run.shade.windows]
        out = {name: run.metrics for name, run in self.runs.items()}
        if not windows:
            return out
        begin_s, end_s = min(w[0] for w in windows), max(w[1] for w in windows)
        tracks = {name: voltage_tracks(run) for name, run in self.runs.items()}
        for name, found in tracks.items():
            clean = name if name.endswith(CLEAN) else clean_of(name)
            for plant, track in found.items():
                key = f"{plant}." if len(found) > 1 else ""
                out[name][key + WINDOW_KEY] = out_of_band_node_hours(track, begin_s, end_s)
                if self._changes_settings:
                    quality = voltage_quality(self.runs[name], plant, begin_s, end_s)
                    out[name] |= {key + k: value for k, value in quality.items()}
                if clean is not None:
                    ended_s = end_s if clean == name else self._ended_s(name)
                    other = tracks.get(clean, {}).get(plant)
                    known = other is not None and math.isfinite(ended_s)
                    recovery = recovery_s(other, track, ended_s) if known and other else None
                    out[name][key + RECOVERY_KEY] = recovery
        return out

    @property
    def _changes_settings(self) -> bool:
        """Whether a step changes settings of devices, whose aims are oscillation and unbalance."""
        return any(step.action.kind == "settings" for step in self.spec.steps)

    def _ended_s(self, name: str) -> float:
        """Return when the attack of a state ended; infinite where it did not, or never began."""
        shade = self.runs[name].shade
        return math.inf if shade is None else shade.windows[-1][1]

    @property
    def keys(self) -> list[str]:
        """Metrics that any state has; those of the attack last."""
        known = list(dict.fromkeys(key for found in self.metrics.values() for key in found))
        return [k for k in known if k not in _LAST_KEYS] + [k for k in _LAST_KEYS if k in known]

    @property
    def groups(self) -> list[tuple[str, list[str]]]:
        """Keys by plant where there are several, and those of the whole run under ''."""
        found = self.first.by_plant(dict.fromkeys(self.keys))
        return [
            (plant, [f"{plant}.{key}" if plant else key for key in keys])
            for plant, keys in found.items()
            if keys
        ]

    def number(self, key: str, name: str) -> str:
        """Return a metric in words; a dash where there is none."""
        values = self.metrics[name]
        if key.endswith(RECOVERY_KEY) and key in values:
            recovery = values[key]
            ended = math.isfinite(self._ended_s(name)) and clean_of(name) in self.runs
            if recovery is None:
                return "not in the run" if ended else "-"
            return f"{recovery:,.0f}"
        return metric_number(key, values.get(key))

    def change(self, key: str, name: str) -> str:
        """Return by how much a metric differs from that of `clean_of`; empty where it does not."""
        clean = clean_of(name) or ""
        base, value = self.metrics.get(clean, {}).get(key), self.metrics[name].get(key)
        if base is None or value is None or value == base or key.endswith(RECOVERY_KEY):
            return ""
        text = metric_number(key, value - base)
        if not text.strip("-0.,"):
            return ""
        return text if text.startswith("-") else f"+{text}"

    @cached_property
    def _market(self) -> MarketTable:
        from federates.reports.market import market_table

        return market_table(self.runs)

    @property
    def market(self) -> Mapping[str, Mapping[str, Any]]:
        """Metered states of the scenario's market, if it has one; see `market.market_table`."""
        return self._market.states

    @cached_property
    def detectors(self) -> Mapping[str, list[dict[str, Any]]]:
        """Rows of `detection_metrics.detector_rows` by state; states without any are left out."""
        found = {name: detector_rows(run.folder) for name, run in self.runs.items()}
        return {name: rows for name, rows in found.items() if rows}

    def detector_rows(self) -> list[list[str]]:
        """Return the detectors' metrics as text, in the order of `DETECTOR_HEAD`."""
        return [
            [
                str(row["detector"]),
                name,
                str(row.get("step") or "clean"),
                _delay(row),
                *(_share(row.get(key)) for key in ("precision", "recall")),
                _share(row.get("false_alarms_per_day"), 1),
                _share(row.get("auc")),
            ]
            for name, rows in self.detectors.items()
            for row in rows
        ]

    def remarks(self) -> list[str]:
        """Say what the numbers alone would not: steps that never began, states that failed."""
        out = []
        for name, run in self.runs.items():
            if run.status != "finished":
                out.append(f"{name}: {run.status}; {run.reason}".removesuffix("; "))
            began = {step for step, _, _ in attack_windows(run.folder)}
            attacked = run.scenario.get("attack") is not None
            never = [s.id for s in self.spec.steps if attacked and s.id not in began]
            if never:
                out.append(f"{name}: steps that never began: {', '.join(never)}")
        if ATTACKED in self.runs and self.metrics[ATTACKED].get("attacked_values_count") == 0:
            out.append("attacked: the attack changed no value")
        for name, why in self._market.left_out.items():
            out.append(f"{name}: not in the market's table: {why}")
        return out

    def as_data(self) -> dict[str, Any]:
        """Return all as plain data; a market adds 'pre', and to each state what was metered."""
        data: dict[str, Any] = {
            "scenario": self.scenario,
            "attack": self.spec.id,
            "folder": str(self.folder),
            "states": list(self.names),
            "status": {name: run.status for name, run in self.runs.items()},
            **{name: dict(values) for name, values in self.metrics.items()},
            "detectors": dict(self.detectors),
        }
        for name, state in self.market.items():
            data[name] = {**data.get(name, {}), **state}
        if self.spec.published is not None:
            data["published"] = self.spec.published.model_dump(exclude_none=True)
        return data


def _share(value: float | None, digits: int = 2) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def _delay(row: Mapping[str, Any]) -> str:
    if row.get("delay_s") is not None:
        return f"{row['delay_s']:g} s"
    return "nothing seen" if row.get("step") else "-"
