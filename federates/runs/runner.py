"""Runs a scenario: checks and builds it, lets a host run the federates, writes the summary."""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from federates.assembly.federation import Assembly, warnings_of
from federates.core.federate import Federate
from federates.core.progress import Progress
from federates.core.run_store import Manifest, RunStore, new_run_dir, write_json
from federates.core.shell import Shell
from federates.core.wiring import FederateWiring
from federates.errors import RunError, RunInterruptedError, ScenarioError
from federates.hosts.gate import guests
from federates.hosts.outcome import Control, Failure, Outcome
from federates.hosts.reach import Reach
from federates.kinds.external import ExternalFederate
from federates.runs.options import Placement, RunOptions
from federates.scenario.schema import Scenario
from grid_models.base.threads import one_thread

_SUMMED = ("_count", "_samples", "_kwh", "_kvarh")
_LARGEST = ("_acted_s", "_slack_max_pu")


@dataclass(frozen=True)
class RunResult:
    """A run that has ended: its folder and its summary."""

    folder: Path
    summary: dict[str, Any]

    @property
    def metrics(self) -> dict[str, float]:
        """The run's metrics, units in the keys."""
        return dict(self.summary["metrics"])


@dataclass(frozen=True)
class Started:
    """A run whose folder is there and whose federates are about to start.

    Attributes
    ----------
    here : Federates that run on this host, in the order of the heartbeat table.
    placement : As in `RunOptions`.
    spans_hosts : Whether others run elsewhere.
    """

    assembly: Assembly
    federates: Mapping[str, Federate | ExternalFederate]
    wirings: Mapping[str, FederateWiring]
    store: RunStore
    manifest: Manifest
    here: tuple[str, ...]
    placement: Placement
    spans_hosts: bool


@one_thread()
def run(
    scenario: Scenario,
    options: RunOptions | None = None,
    *,
    on_progress: Callable[[int, int], None] | None = None,
    on_warning: Callable[[str], None] | None = None,
    on_start: Callable[[Started], None] | None = None,
    **changes: Any,
) -> RunResult:
    """Run a scenario.

    Parameters
    ----------
    scenario : Scenario
    options : RunOptions, optional
        Those that choose and change the scenario (name, overrides, seed, attack, defence) are not
        read here: `scenario` is what they gave.
    on_progress : callable, optional
        Called with (steps done, steps in all).
    on_warning : callable, optional
        Called before the first step with a sentence about input that is not used as it stands.
    on_start : callable, optional
        Called once before the federates start; heartbeats are then readable in the run's folder.
    **changes
        Options by name in place of `options`' own, as ``run(scenario, steps=20)``.
    Raises ScenarioError, GridModelError, ControllerError: The input is wrong; nothing was started.
    Raises RunError: A federate failed; what was recorded is in the folder.
    Raises RunInterruptedError: The user stopped the run; what was recorded is in the folder.
    """
    options = replace(options or RunOptions(), **changes)
    placement: Placement = options.placement or "shared"
    reach = Reach(options.join, options.listen, options.only)
    hear = on_warning or _nobody
    began = time.perf_counter()
    started = _prepare(scenario, options, placement, reach, hear)
    assembly, store, manifest = started.assembly, started.store, started.manifest
    say = partial(_say, store, hear)
    tell = partial(_tell, on_progress, assembly.n_steps)
    try:
        if on_start is not None:
            Progress(len(started.here), store.heartbeat)
            on_start(started)
        if placement == "process" or started.spans_hosts:
            outcome, counted = _run_processes(started, reach, placement, tell, say)
        else:
            outcome, counted = _run_here(started, placement, tell, say)
    except BaseException as error:
        with contextlib.suppress(OSError):
            manifest.finish("failed", f"could not be started: {error}")
        raise
    finally:
        store.heartbeat.unlink(missing_ok=True)
    if assembly.attack_plan is not None and options.record:
        _close_attack(started)
    metrics = run_metrics(assembly, outcome.summaries)
    result = _finish(scenario, manifest, store, outcome, metrics, counted, began)
    tell(counted)
    return result


def _prepare(
    scenario: Scenario,
    options: RunOptions,
    placement: Placement,
    reach: Reach,
    say: Callable[[str], None],
) -> Started:
    """Build and check everything, then make the run's folder."""
    n_steps = scenario.n_steps
    if options.steps is not None:
        n_steps = min(options.steps, n_steps)
    assembly = Assembly(scenario, n_steps, options.armed, options.pcap)
    federates, wirings = assembly.assemble()
    if placement == "single":
        refuse_programs(assembly)
    wanted = assembly.select(reach.only)  # a wrong name is refused before anything is written
    _refuse_alone(reach)
    warnings = (*warnings_of(scenario, federates, wirings), *assembly.attack_warnings)
    for words in warnings:
        say(words)
    cut = [f"steps={n_steps}"] if n_steps < scenario.n_steps else []
    changes = [*scenario.changes, *cut]
    more: dict[str, Any] = {
        "changes": changes,
        "warm_up_s": assembly.warm_up_s,
        "warm_up_note": assembly.warm_up_note,
    }
    if options.scenario:
        more["command"] = options.command()
    folder = new_run_dir(scenario.name, options.out, changes)
    manifest = Manifest(folder, scenario, placement, n_steps, warnings, more)
    store = RunStore(folder, scenario.record, keeps=options.record)
    store.event("feederate", "started", placement=placement, seed=scenario.seed)
    here = tuple(f.name for f in plant_first(assembly, federates) if f.name in wanted)
    hosts = not reach.here_only
    return Started(
        assembly, federates, wirings, store, manifest, here, placement, spans_hosts=hosts
    )


def _nobody(_: str) -> None:
    """Hear a warning that nobody asked for."""


def _say(store: RunStore, hear: Callable[[str], None], words: str) -> None:
    """Pass on what a host says to the user while a run goes on, and keep it."""
    with contextlib.suppress(OSError):  # a full disk fails the run elsewhere, with its reason
        store.event("feederate", "said", text=words)
    hear(words)


def _tell(on_progress: Callable[[int, int], None] | None, n_steps: int, done: int) -> None:
    if on_progress is not None:
        on_progress(done, n_steps)


def refuse_programs(assembly: Assembly) -> None:
    """Refuse HELICS programs where there is no HELICS."""
    for name in assembly.external:
        raise ScenarioError(
            f"'{name}' is a HELICS program, and placement 'single' has no HELICS",
            where=assembly.scenario.where("federates", name),
            expected="placement 'thread' or 'process'",
        )


def _refuse_alone(reach: Reach) -> None:
    if reach.only is not None and reach.join is None and reach.listen is None:
        raise ScenarioError(
            "the other federates would run nowhere",
            where="--only",
            expected="with it --listen tcp://HOST:PORT on one host and --join tcp://HOST:PORT on "
            "the others",
        )


def _run_here(
    started: Started,
    placement: Placement,
    tell: Callable[[int], None],
    say: Callable[[str], None],
) -> tuple[Outcome, int]:
    assembly, federates, wirings = started.assembly, started.federates, started.wirings
    scenario, store = assembly.scenario, started.store
    externals = [f for f in federates.values() if isinstance(f, ExternalFederate)]
    ours = plant_first(assembly, federates)
    shared = store.heartbeat if store.heartbeat.exists() else None
    progress = Progress(len(ours), shared)
    control = Control(progress, scenario.time.step_timeout_s, tell)
    control.say = say
    shells = {
        f.name: Shell(f, wirings[f.name], store, scenario.seed, progress, row)
        for row, f in enumerate(ours)
    }
    if ours:
        ours[0].wall_clock = True
    if placement == "single":
        from federates.hosts.single import run_single

        outcome = run_single(shells, assembly.horizon_ns, control, assembly.pacer(ours))
    else:
        from federates.hosts.thread import run_threads

        folders = scenario.base_dir, store.logs
        each = [{name: shell} for name, shell in shells.items()]
        groups = [shells] if placement == "shared" and shells else each
        pacers = [assembly.pacer(s.federate for s in group.values()) for group in groups]
        here = guests(scenario, list(shells), wirings, assembly.n_steps, spans_hosts=False)
        outcome = run_threads(
            groups, externals, assembly.horizon_ns, control, *folders, here, pacers
        )
    for name, shell in shells.items():
        try:
            try:
                outcome.summaries[name] = shell.summary()
            finally:
                shell.close()
        except Exception as error:
            if outcome.failure is None:
                outcome.failure = Failure.of(name, error)
    return outcome, progress.steps(0)


def _run_processes(
    started: Started,
    reach: Reach,
    placement: Placement,
    tell: Callable[[int], None],
    say: Callable[[str], None],
) -> tuple[Outcome, int]:
    from federates.hosts.process import run_processes

    assembly, federates, wirings = started.assembly, started.federates, started.wirings
    externals = [f for f in federates.values() if isinstance(f, ExternalFederate)]
    ours = plant_first(assembly, federates)
    names = [f.name for f in ours]
    for federate in ours:
        federate.close()  # they were built for the check; the children build their own
    hosted_by = assembly.attack_plan.host_of(wirings) if assembly.attack_plan else {}
    spans_hosts = started.spans_hosts
    everybody = guests(assembly.scenario, names, wirings, assembly.n_steps, spans_hosts=spans_hosts)
    parts = assembly, names, externals, wirings, hosted_by, started.store, reach
    return run_processes(*parts, tell, say, everybody, shared=placement == "shared")


def plant_first(
    assembly: Assembly, federates: Mapping[str, Federate | ExternalFederate]
) -> list[Federate]:
    """Return the federates that run here, the one whose steps are counted first.

    It is the plant that steps first.
    """
    ours = [f for f in federates.values() if isinstance(f, Federate)]
    plants = [f for f in ours if f.name in assembly.plants]
    plant = min(plants, key=lambda f: f.timing.offset_ns, default=None)
    return ours if plant is None else [plant, *(f for f in ours if f is not plant)]


def _close_attack(started: Started) -> None:
    """Make tables of what is known of the attack; that it fails must not fail the run."""
    from federates.attacks.labels import about_run, write_labels
    from federates.attacks.truth import finalise_truth

    assembly, federates, store = started.assembly, started.federates, started.store
    folder, spec = store.folder, assembly.scenario.attack_spec
    assert assembly.attack_plan is not None
    assert spec is not None
    try:
        finalise_truth(folder)
        if spec.kind == "attack":  # a disturbance is nothing that a detector should learn
            units = {f"{n}.{p.name}": p.unit for n, f in federates.items() for p in f.outputs}
            about = about_run(assembly.scenario)
            write_labels(folder, assembly.attack_plan, assembly.groups, units, about)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        with contextlib.suppress(OSError):
            store.event("feederate", "labels_not_written", reason=reason)


def _finish(
    scenario: Scenario,
    manifest: Manifest,
    store: RunStore,
    outcome: Outcome,
    metrics: Mapping[str, float | None],
    steps: int,
    began: float,
) -> RunResult:
    """Write the end of the run, and raise if it was not a good one."""
    folder, failure = store.folder, outcome.failure
    status = "failed" if failure else "interrupted" if outcome.interrupted else "finished"
    reason = f"{failure.federate}: {failure.reason}" if failure else None
    summary: dict[str, Any] = {
        "status": status,
        "reason": reason,
        "scenario": scenario.name,
        "title": scenario.title,
        "steps": steps,
        "wall_s": round(time.perf_counter() - began, 3),
        "stepping_s": round(outcome.stepping_s, 3),
        "steps_per_s": round(steps / outcome.stepping_s, 1) if outcome.stepping_s > 0 else 0.0,
        "seed": scenario.seed,
        **{key: manifest.data[key] for key in ("changes", "warm_up_s", "warm_up_note")},
        "metrics": metrics,
    }
    if outcome.pacing is not None:
        summary["real_time"] = outcome.pacing
    # A full disk must not hide the failure that it caused: the most important is written first.
    with contextlib.suppress(OSError):
        manifest.finish(status, reason)
        write_json(folder / "summary.json", summary)
        store.event(failure.federate if failure else "feederate", status, reason=reason)
        if failure and failure.traceback:
            store.log_traceback(failure.federate, failure.traceback)
    if failure:
        raise RunError(failure.reason, federate=failure.federate, run_dir=folder)
    if outcome.interrupted:
        raise RunInterruptedError(f"interrupted after {steps} steps", where=str(folder))
    return RunResult(folder, summary)


def _alike(scenario: Scenario, plants: Sequence[str]) -> list[str]:
    """Return the plants of which there are several: all with a grid section, or all without."""
    grids = [name for name in plants if name in scenario.plants]
    others = [name for name in plants if name not in grids]
    return [name for family in (grids, others) if len(family) > 1 for name in family]


def run_metrics(
    assembly: Assembly, summaries: Mapping[str, Mapping[str, float]]
) -> dict[str, float | None]:
    """Return the metrics of a run from those of its federates."""
    return _metrics(summaries, _alike(assembly.scenario, assembly.plants))


def _metrics(
    summaries: Mapping[str, Mapping[str, float]], plants: Sequence[str]
) -> dict[str, float | None]:
    """Flatten the federates' metrics.

    Keys begin with the federate's name (``upper.losses_kwh``) where it is one of several plants
    that are alike, and where several federates report what is neither a count nor an energy; those
    are summed. Of the time and slack of safety layers the largest is kept.
    """
    out: dict[str, float] = {}
    reports = Counter(key for metrics in summaries.values() for key in metrics)
    for name, metrics in summaries.items():
        one_of_many = name in plants and len(plants) > 1
        for key, value in metrics.items():
            together = key.endswith(_SUMMED + _LARGEST)
            apart = one_of_many or (reports[key] > 1 and not together)
            key = f"{name}.{key}" if apart else key
            kept = out.get(key, 0.0)
            out[key] = max(kept, value) if key.endswith(_LARGEST) else kept + value
    return {key: value if math.isfinite(value) else None for key, value in out.items()}
