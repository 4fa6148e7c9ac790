"""``feederate train``: a local policy for a scenario's feeder, its held-out days and its shifts."""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from controllers.core.mail import FloatArray
from controllers.core.protocol import ControlSite
from controllers.learned_droop.files import BEGIN, feeder_hash, policy_text
from controllers.learned_droop.gradient import Cases, Goal, PolicyLoop
from controllers.learned_droop.policy import loop_gain
from controllers.learned_droop.training import (
    Schedule,
    TrainedPolicy,
    train_policy,
)
from federates.core.sites import GridSite
from federates.errors import ScenarioError
from federates.kinds.controller import inverters
from federates.scenario.schema import Scenario
from federates.training.closed_loop import SETTLING_STEPS, Row, simulate
from federates.training.days import (
    DIVERSITY,
    LOAD_FACTOR,
    SOURCE_PU,
    Day,
    altered,
    day_of,
    grid_day,
    training_cases,
)
from federates.training.shifts import ShiftRow, shift_rows, steps_between

HELD_OUT_SEEDS = (101, 102, 103, 104)
"""Seeds of days that no training uses."""
_TRAINING_DAYS, _CASES = 8, 2048
FULL_Q_PU, _TUNING_HOURS = (1.02, 1.03, 1.04, 1.05, 1.06), (10.0, 15.0)
"""Voltages of full reactive power that the tuned droop is chosen from, and the time of day of its
simulations."""
MARGIN_PU, Q_WEIGHT = 0.004, 0.05
"""Of the training's goal (`controllers.learned_droop.gradient`)."""
MINUTES = 1.0
Report = Callable[[str, int, int], None]
"""Is told what is done, and how many steps of how many."""


@dataclass(frozen=True)
class TrainingResult:
    """A policy and how it does on days that it has not seen.

    Attributes
    ----------
    scenario, feeder : Names.
    policy : The file.
    seconds : Of all; `training_seconds` of the updates, `cpu_seconds` processor time of all.
    losses : (updates,). Mean loss of each batch.
    randomised : Whether loads, their diversity and the source's voltage were.
    filter_gain : Of the policy.
    tuned_droop : Options of `volt-var-1547` that make the best droop of one slope.
    days : Metrics of the held-out days by seed, as of a run.
    shifts : Metrics under changes of the grid; see `federates.training.shifts`.
    origin : What the file's header says of the training.
    notes : What a user must know.
    """

    scenario: str
    feeder: str
    policy: Path
    seconds: float
    training_seconds: float
    cpu_seconds: float
    seed: int
    randomised: bool
    losses: Sequence[float]
    filter_gain: float
    tuned_droop: Mapping[str, Any]
    days: Mapping[int, Mapping[str, float]]
    shifts: Sequence[ShiftRow]
    origin: Mapping[str, str]
    notes: Sequence[str]

    @cached_property
    def held_out(self) -> dict[str, float]:
        """Means over the held-out days; of `v_min_pu` the least, of `v_max_pu` the largest."""
        return summary(list(self.days.values()))

    def record(self) -> dict[str, Any]:
        """Return all of it as JSON."""
        days = [{"seed": seed, **metrics} for seed, metrics in self.days.items()]
        return {
            "scenario": self.scenario,
            "feeder": self.feeder,
            "policy": str(self.policy),
            "seconds": self.seconds,
            "training_seconds": self.training_seconds,
            "cpu_seconds": self.cpu_seconds,
            "seed": self.seed,
            "randomised": self.randomised,
            "updates": len(self.losses),
            "loss_first": float(np.mean(self.losses[:10])),
            "loss_last": float(np.mean(self.losses[-10:])),
            "filter_gain": self.filter_gain,
            "tuned_droop": dict(self.tuned_droop),
            "held_out": {**self.held_out, "days": days},
            "shifts": [row.record() for row in self.shifts],
            "notes": list(self.notes),
        }


def summary(days: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the means of days' metrics; of `v_min_pu` the least, of `v_max_pu` the largest."""
    means = {name: float(np.mean([day[name] for day in days])) for name in days[0]}
    low, high = min(day["v_min_pu"] for day in days), max(day["v_max_pu"] for day in days)
    return {**means, "v_min_pu": low, "v_max_pu": high}


def droop_options(
    full_q_pu: float, kva: FloatArray, j_pu_per_kvar: FloatArray, period_s: float
) -> dict[str, Any]:
    """Return options of `volt-var-1547`: one slope for all, full reactive power at a voltage.

    Its response time is that of a lag that takes ``1 / (1 + L)`` of the way in a step, half of the
    bound of stability.

    Parameters
    ----------
    full_q_pu : Above 1; below 1 the curve is the same, mirrored.
    kva : (n,). Ratings.
    j_pu_per_kvar : (n, n). Answer of the DERs' voltages.
    """
    reach = full_q_pu - 1.0
    gain = 1.0 / (1.0 + loop_gain(np.full(len(kva), 1.0 / reach), kva, j_pu_per_kvar))
    response_s = -period_s * math.log(10.0) / math.log1p(-gain)
    return {
        "curve": [[1.0 - reach, 1.0], [1.0 + reach, -1.0]],
        "response_time_s": float(f"{response_s:.3g}"),
    }


class _Study:
    """The feeder of a scenario, its days, and the training on them."""

    def __init__(self, scenario: Scenario, seed: int, *, randomised: bool) -> None:
        self.scenario, self.seed, self.randomised = scenario, seed, randomised
        _refuse_too_little(scenario)
        self.ders = inverters(GridSite(scenario))
        self.grid = grid_day(scenario)
        feeder = self.grid.site.feeder
        band, steps = scenario.band, scenario.time
        self.site = ControlSite(
            feeder,
            self.ders,
            steps.step_s,
            v_min_pu=band.v_min_pu,
            v_max_pu=band.v_max_pu,
            start_s=steps.start_s,
        )
        self.loop = PolicyLoop(self.grid.feeder, self.ders)
        low, high = self.site.band_pu(MARGIN_PU, "training")
        self.goal = Goal(low, high, Q_WEIGHT)
        self.training_seeds = list(
            itertools.islice(
                (s for s in itertools.count(seed) if s not in HELD_OUT_SEEDS), _TRAINING_DAYS
            )
        )

    def days(self, seeds: Sequence[int]) -> list[Day]:
        return [day_of(altered(self.scenario, seed)) for seed in seeds]

    @cached_property
    def training_days(self) -> list[Day]:
        return self.days(self.training_seeds)

    @cached_property
    def held_out_days(self) -> list[Day]:
        return self.days(HELD_OUT_SEEDS)

    @cached_property
    def cases(self) -> Cases:
        return training_cases(self.training_days, _CASES, self.seed, randomised=self.randomised)

    def train(self, seconds: float, report: Report) -> TrainedPolicy:
        schedule, began = Schedule(), time.process_time()

        def time_share(done: int) -> float:
            report("training", done, schedule.updates)
            # Processor time: what else runs on the machine does not change the policy.
            return (time.process_time() - began) / seconds

        return train_policy(self.loop, self.cases, self.goal, schedule, self.seed, time_share)

    def tuned_droop(self, report: Report) -> dict[str, Any]:
        """Return options of `volt-var-1547`: the best curve of one slope on the first day."""
        chosen = [
            droop_options(v_pu, self.loop.kva, self.loop.j_pu_per_kvar, self.site.period_s)
            for v_pu in FULL_Q_PU
        ]
        rows = [Row(self.training_days[0], "volt-var-1547", options) for options in chosen]
        steps = steps_between(self.scenario, *_TUNING_HOURS)
        found = simulate(self.grid.feeder, self.site, rows, steps, partial(report, "tuned droop"))
        order = [(m["out_of_band_node_hours"], m["losses_kwh"]) for m in found]
        return chosen[order.index(min(order))]

    def notes(self) -> Iterator[str]:
        grid = self.grid.site.grid
        if self.scenario.attack_spec is not None:
            yield "the scenario's attack has no part in the training and its days"
        if grid.grid_forming is not None:
            yield "grid.grid_forming: the source of the training has no limits of power"
        profiles = grid.profiles
        if profiles.path is not None or profiles.seed is not None:
            key = "path" if profiles.path is not None else "seed"
            yield (
                f"grid.profiles.{key} gives the same day for every seed: the held-out days are "
                "those of the training"
            )

    def origin(self, found: TrainedPolicy) -> dict[str, str]:
        """Return what the file's header says of the training."""
        ranges = {
            "load_factor": f"{LOAD_FACTOR[0]:g} to {LOAD_FACTOR[1]:g}",
            "load_diversity": f"{DIVERSITY:g}",
            "source_factor": f"{SOURCE_PU[0]:g} to {SOURCE_PU[1]:g}",
        }
        feeder = self.site.feeder
        return {
            "scenario": self.scenario.name,
            "feeder": feeder.name,
            "feeder_sha256": feeder_hash(feeder),
            "feederate": metadata.version("feederate"),
            "seed": f"{self.seed}",
            "training_days": ", ".join(map(str, self.training_seeds)),
            "updates": f"{len(found.losses)}",
            "step_s": f"{self.site.period_s:g}",
            "band_pu": f"{self.site.v_min_pu:g} to {self.site.v_max_pu:g}",
            "margin_pu": f"{MARGIN_PU:g}",
            "q_weight": f"{Q_WEIGHT:g}",
            **(ranges if self.randomised else {"randomised": "no"}),
        }


def train(
    scenario: Scenario,
    out: Path,
    *,
    minutes: float = MINUTES,
    seed: int = 1,
    randomised: bool = True,
    report: Report | None = None,
) -> TrainingResult:
    """Train a policy for the inverters of a scenario's feeder; write its file.

    Parameters
    ----------
    out : The policy file.
    minutes : The updates end after this much processor time; simulations come on top.
    seed : Of the training: first of its days, random cases.
    randomised : Whether training varies loads, their diversity and the source's voltage.

    Raises ScenarioError, PowerFlowError: The scenario cannot be trained for.
    """
    began, began_cpu = time.monotonic(), time.process_time()
    tell: Report = report or (lambda *_: None)
    _check_out(out)
    study = _Study(scenario, seed, randomised=randomised)
    _ = study.cases
    started = time.monotonic()
    found = study.train(60.0 * minutes, tell)
    training_s = time.monotonic() - started
    origin = study.origin(found)
    tuned = study.tuned_droop(tell)
    text = policy_text(replace(found.policy, origin=origin))
    site = replace(study.site, text_of=lambda _: text)
    learned = "learned-droop", {"policy": out.name}
    rows = [Row(day, *learned) for day in study.held_out_days]
    metrics = simulate(study.grid.feeder, site, rows, report=partial(tell, "held-out days"))
    held_out, days = summary(metrics), dict(zip(HELD_OUT_SEEDS, metrics, strict=True))
    clouds = [*study.held_out_days[1:], *study.training_days]
    laws = {"tuned droop": ("volt-var-1547", tuned), "learned": learned}
    shifts = shift_rows(scenario, HELD_OUT_SEEDS[0], site, clouds, laws, partial(tell, "shifts"))
    origin |= {
        f"held_out_{name}": f"{held_out[name]:.5g}"
        for name in ("out_of_band_node_hours", "losses_kwh", "abs_q_kvarh", "v_min_pu", "v_max_pu")
    } | {"held_out_seeds": ", ".join(map(str, HELD_OUT_SEEDS))}
    out.write_text(policy_text(replace(found.policy, origin=origin)), encoding="utf-8")
    return TrainingResult(
        scenario=scenario.name,
        feeder=study.site.feeder.name,
        policy=out,
        seconds=time.monotonic() - began,
        training_seconds=training_s,
        cpu_seconds=time.process_time() - began_cpu,
        seed=seed,
        randomised=randomised,
        losses=found.losses.tolist(),
        filter_gain=found.policy.filter_gain,
        tuned_droop=tuned,
        days=days,
        shifts=shifts,
        origin=origin,
        notes=tuple(study.notes()),
    )


def _refuse_too_little(scenario: Scenario) -> None:
    """Raise ScenarioError where a run has too few steps for metrics, or its band no room."""
    band, steps = scenario.band, scenario.n_steps
    if steps <= SETTLING_STEPS:
        raise ScenarioError(
            f"the run has {steps} steps, and metrics leave out the first {SETTLING_STEPS}",
            where=scenario.where("time", "duration_s"),
            expected="a longer run, to train a policy",
        )
    if band.v_max_pu - band.v_min_pu <= 2.0 * MARGIN_PU:
        raise ScenarioError(
            f"the voltage band is from {band.v_min_pu:g} to {band.v_max_pu:g} pu",
            where=scenario.where("band"),
            expected=f"more than {2.0 * MARGIN_PU:g} pu: training leaves {MARGIN_PU:g} pu at each "
            "end",
        )


def _check_out(out: Path) -> None:
    """Refuse a policy file that cannot be written, before anything is trained."""
    expected = "a file in an existing folder with a name that ends in .csv"
    page = out.with_suffix(".html")
    if not out.parent.is_dir():
        what = "its folder does not exist"
    elif out.suffix != ".csv" or out.is_dir():
        what = "is no name of a policy file"
    elif page.is_dir():
        what = f"the report beside it, '{page.name}', is a folder"
    elif not os.access(out if out.exists() else out.parent, os.W_OK):
        what, expected = "cannot be written", "a file that may be written"
    elif out.exists() and out.read_bytes()[: len(BEGIN)] not in (b"", BEGIN):
        what, expected = "exists and is no policy file", "a new name, or that of a policy"
    else:
        return
    raise ScenarioError(what, where=f"--out {out}", expected=expected)
