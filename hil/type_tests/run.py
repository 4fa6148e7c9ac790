"""One procedure on one device: what it needs, the run, and the outcome."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hil.adapter.adapter import Adapter
from hil.adapter.sunspec import scan_device
from hil.adapter.unsafe import unsafe_text
from hil.devices.errors import DeviceError, NoReplyError
from hil.devices.points import PointSpec
from hil.devices.spec import DeviceSpec
from hil.type_tests.bench import (
    TRIP_MODELS,
    Bench,
    missing_for,
    models_of,
    read_ratings,
    read_trips,
    value_of,
)
from hil.type_tests.engine import Engine, StepResult
from hil.type_tests.functions import Ratings
from hil.type_tests.grid import GridSimulator
from hil.type_tests.procedures import PROCEDURES, Wishes, skipped

_MEASURED = (701, 702)
_SERVICE_DELAY_S, _SERVICE_RAMP_S = 3.0, 1.0


@dataclass(frozen=True)
class Outcome:
    """What a procedure came to.

    Parameters
    ----------
    not_run : What of the standard's procedure was left out, in words.
    """

    procedure: str
    device: str
    ratings: Ratings
    results: Sequence[StepResult]
    not_run: Sequence[str]

    @property
    def passed(self) -> bool:
        """Whether every step passed, and there was one."""
        return bool(self.results) and all(r.passed for r in self.results)

    @property
    def worst(self) -> Mapping[str, Any]:
        """The check that takes the largest share of what is accepted."""
        checks = [
            (check.used, result.step.name, check)
            for result in self.results
            for check in result.checks
            if math.isfinite(check.used)
        ]
        if not checks:
            return {}
        used, name, check = max(checks, key=lambda c: c[0])
        side = check.high if check.value >= check.target else check.low
        return {
            "step": name, "what": check.what, "error": round(abs(check.value - check.target), 5),
            "accepted": round(abs(side - check.target), 5), "used": round(used, 4),
        }  # fmt: skip

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        r = self.ratings
        return {
            "procedure": self.procedure, "device": self.device, "passed": self.passed,
            "standard": "IEEE Std 1547.1-2020", "category": r.normal, "abnormal": r.abnormal,
            "rated_w": r.w, "rated_va": r.va, "worst": self.worst,
            "failed": sum(not result.passed for result in self.results),
            "steps": [result.as_dict() for result in self.results],
            "not_run": list(self.not_run),
        }  # fmt: skip


def needs(procedure: str, spec: DeviceSpec) -> list[int]:
    """Return the SunSpec models that a procedure reads and writes.

    Raises DeviceError: The device file does not let it write what it has to.
    """
    anyone = Ratings(1.0, 1.0, 0.44, 0.44, 1.0, "B", "II")
    functions = [step.functions for step in PROCEDURES[procedure](Wishes(anyone))]
    missing = missing_for(spec, functions)
    if missing:
        raise DeviceError(
            f"the device file lacks what '{procedure}' has to write",
            where=spec.name, expected="; ".join(missing),
        )  # fmt: skip
    read = (*_MEASURED, 703, *TRIP_MODELS) if procedure == "ride-through" else _MEASURED
    return sorted({*read, *models_of(functions)})


def run_procedure(
    procedure: str,
    spec: DeviceSpec,
    grid: GridSimulator,
    *,
    armed: Collection[str],
    audit: Path,
    full: bool = False,
    response_s: float | None = None,
    normal: str = "",
    abnormal: str = "",
    watchdog: bool = True,
    each: Callable[[StepResult], None] = lambda _result: None,
) -> Outcome:
    """Run a procedure; the device goes to its safe values at the end, the grid to nominal.

    Parameters
    ----------
    procedure : A key of `PROCEDURES`.
    armed : Must hold the device's name.
    each : Takes each result when it is there.

    Raises DeviceError: The device or its file lacks what the procedure needs, or refuses it.
    Raises NoReplyError: The device does not answer.
    Raises GridError: The grid simulator failed.
    """
    models = needs(procedure, spec)
    spec = _for_test(spec, models, procedure, grid)
    adapter = Adapter([spec], armed=armed, audit=audit, watchdog=watchdog)
    adapter.start()
    try:
        ratings = read_ratings(adapter, spec, normal=normal, abnormal=abnormal)
        trips = read_trips(adapter, spec) if procedure == "ride-through" else None
        wishes = Wishes(ratings, full, response_s, trips)
        steps = list(PROCEDURES[procedure](wishes))
        results = []
        with Bench(spec, adapter, ratings) as bench:
            engine = Engine(bench, grid)
            if procedure == "ride-through":
                engine.service_s = _service_s(bench)
            for result in engine.run(steps):
                results.append(result)
                each(result)
    finally:
        safe = adapter.close()
    if not safe:
        raise NoReplyError(unsafe_text(adapter.unsafe(), [spec]) or "not safe", where=spec.name)
    not_run = [*skipped(procedure, wishes), *engine.not_run]
    return Outcome(procedure, spec.name, ratings, results, not_run)


def _for_test(
    spec: DeviceSpec, models: Sequence[int], procedure: str, grid: GridSimulator
) -> DeviceSpec:
    """Return the device with the models that are read, without points that it does not have.

    Where time is ours, only an emulator can be behind it, and seconds of its time are over before
    the adapter repeats a set-point: its reversion timers are then not used.

    Raises DeviceError: The device lacks a model that the procedure needs.
    """
    found = {block.model for block in scan_device(spec.connection).models}
    missing = [str(model) for model in models if model not in found]
    if missing:
        raise DeviceError(
            f"the device lacks what '{procedure}' needs", where=spec.name,
            expected=f"SunSpec models {', '.join(missing)}",
        )  # fmt: skip
    points = {n: p for n, p in spec.points.items() if _model(p) in found}
    if grid.own_time:
        points = {n: p.model_copy(update={"reversion": None}) for n, p in points.items()}
    whole = [m for m in {*spec.sunspec, *models} if m in found]
    curves = {m: c for m, c in spec.curves.items() if m in found}
    return spec.model_copy(update={"sunspec": sorted(whole), "points": points, "curves": curves})


def _model(point: PointSpec) -> int:
    """Return the SunSpec model of a point; one that every device has for a plain point."""
    head = (point.sunspec or "701").partition(".")[0].partition("#")[0]
    return int(head)


def _service_s(bench: Bench) -> float:
    """Shorten entering service where the file allows it; return delay and ramp together."""
    if bench.set_service(_SERVICE_DELAY_S, _SERVICE_RAMP_S):
        return _SERVICE_DELAY_S + _SERVICE_RAMP_S
    names = ("703.ESDlyTms", "703.ESRmpTms")
    times = [value_of(bench.adapter, bench.spec, name) for name in names]
    return sum(s for s in times if math.isfinite(s))
