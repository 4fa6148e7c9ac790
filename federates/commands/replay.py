"""``feederate replay``: a run again with the bytes compared, or a trace played into a scenario."""

from __future__ import annotations

import dataclasses
import json
import shlex
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from federates.attacks.trace import in_full, trace_attack
from federates.commands.run import Order, carry_out, print_summary, summary_of_failure
from federates.commands.terminal import clean_stdout, messages, output
from federates.errors import RunError, RunInterruptedError, ScenarioError
from federates.runs.replay import Verdict, compare_runs, scenario_of_run, version_warnings
from federates.scenario.schema import load_scenario

if TYPE_CHECKING:
    from federates.runs.runner import Placement

DIFFERENT = 3


@dataclass(frozen=True)
class _Again(Order):
    """A run that repeats another."""

    def command(self) -> str:
        """Return the command line that gives this run again."""
        return shlex.join(["feederate", "replay", self.scenario])


@dataclass(frozen=True)
class IntoOrder:
    """A trace to be played into a scenario."""

    trace: Path
    scenario: str
    kind: Literal["attack", "disturbance"]
    offset_s: float
    speed: float
    overrides: tuple[str, ...]
    seed: int | None
    steps: int | None
    out: Path | None
    placement: Placement
    armed: tuple[str, ...]


@dataclass(frozen=True)
class _Played(Order):
    """A run with a trace played into it."""

    trace: str = ""
    words: tuple[str, ...] = ()

    def command(self) -> str:
        """Return the command line that gives this run again."""
        run = shlex.split(super().command())[3:]
        return shlex.join(
            ["feederate", "replay", self.trace, "--into", self.scenario, *self.words, *run]
        )


def replay_run(
    folder: Path,
    *,
    out: Path | None,
    placement: str | None,
    armed: tuple[str, ...],
    as_json: bool,
) -> None:
    """Run a recorded run again and say whether the bytes are equal; exit code 3 if not.

    Raises
    ------
    ScenarioError
        The folder holds no run that can be repeated.
    """
    if folder.is_file():
        raise ScenarioError(
            "is a file", where=str(folder), expected="the folder of a run, or --into SCENARIO"
        )
    scenario, run = scenario_of_run(folder)
    warnings = version_warnings(run)
    for words in warnings:
        messages().print(f"warning: {words}", markup=False, soft_wrap=True)
    order = _Again(
        scenario=str(folder),
        steps=int(run.manifest["steps"]),
        placement=placement or run.manifest.get("placement", "thread"),  # type: ignore[arg-type]
        out=_beside(folder) if out is None else out,
        arm=armed,
    )
    with clean_stdout(as_json):
        result = carry_out(scenario, order)
    verdict = compare_runs(folder, result.folder, whole=run.status == "finished")
    if as_json:
        typer.echo(json.dumps(_as_data(verdict, result.folder, warnings), indent=2))
    else:
        _print(verdict, run.status)
        output().print(f"run     {result.folder}", markup=False, soft_wrap=True)
    if verdict.differences:
        raise typer.Exit(DIFFERENT)


def _beside(folder: Path) -> Path:
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    at = folder.resolve()
    names = (f"{at.name}-replay-{stamp}{f'-{n}' if n else ''}" for n in range(1000))
    return next(path for name in names if not (path := folder.parent / name).exists())


def _as_data(verdict: Verdict, folder: Path, warnings: list[str]) -> dict[str, object]:
    first = verdict.first
    return {
        "identical": not verdict.differences,
        "whole": verdict.whole,
        "files": verdict.files,
        "different_files": len(verdict.differences),
        "first_difference": None if first is None else dataclasses.asdict(first),
        "folder": str(folder),
        "warnings": warnings,
    }


def _print(verdict: Verdict, status: str) -> None:
    console = output()
    if verdict.differences:
        console.print(
            f"[red]different[/red]: {len(verdict.differences)} of {verdict.files} files; first:"
        )
        console.print(f"  {verdict.first}", markup=False, soft_wrap=True)
        return
    console.print(f"[green]identical[/green]: {verdict.files} files")
    if not verdict.whole:
        console.print(f"the run was {status}; what it had recorded was compared, by value")


def replay_into(order: IntoOrder, *, as_json: bool) -> None:
    """Play a trace into a scenario and print the run's summary.

    Raises
    ------
    ScenarioError
        The trace or the scenario is wrong, or the two do not fit.
    """
    scenario = load_scenario(order.scenario, order.overrides, seed=order.seed, attack="")
    steps = scenario.n_steps if order.steps is None else min(order.steps, scenario.n_steps)
    scenario.attack = trace_attack(
        order.trace,
        order.kind,
        order.offset_s,
        order.speed,
        steps * scenario.time.step_s,
        scenario.time.step_s,
    )
    offset, speed = in_full(order.offset_s), in_full(order.speed)
    words = ["--as", order.kind, "--offset", offset, "--speed", speed]
    run_order = _Played(
        scenario=order.scenario,
        overrides=order.overrides,
        seed=order.seed,
        steps=order.steps,
        placement=order.placement,
        out=order.out,
        arm=order.armed,
        trace=str(order.trace),
        words=tuple(words),
    )
    try:
        with clean_stdout(as_json):
            result = carry_out(scenario, run_order)
    except (RunError, RunInterruptedError) as error:
        summary = summary_of_failure(error) if as_json else None
        if summary is not None:
            typer.echo(json.dumps(summary, indent=2))
        raise
    if as_json:
        typer.echo(json.dumps(result.summary | {"folder": str(result.folder)}, indent=2))
    else:
        print_summary(result, output(), has_report=True)
