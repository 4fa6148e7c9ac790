"""``feederate replay``: repeat a run and compare the bytes, or play a trace into a scenario."""

from __future__ import annotations

import dataclasses
import shlex
from datetime import datetime
from pathlib import Path
from typing import Literal

import typer

from federates.attacks.signal.trace_attack import in_full, trace_attack
from federates.attacks.signal.trace_file import left_out
from federates.commands.options import print_json
from federates.commands.run import carry_out, failure_as_json, print_summary, warn
from federates.commands.terminal import clean_stdout, messages, output
from federates.errors import ScenarioError
from federates.runs.options import RunOptions
from federates.runs.replay import Verdict, compare_runs, scenario_of_run, version_warnings

DIFFERENT = 3


def replay_command(
    source: Path,
    options: RunOptions,
    *,
    into: str | None,
    kind: Literal["attack", "disturbance"],
    offset_s: float,
    speed: float,
    as_json: bool,
) -> None:
    """Repeat a run, or play a trace into a scenario: `replay_run`, `replay_into`.

    Raises typer.BadParameter: An option needs ``--into``.
    """
    if into is not None:
        options = dataclasses.replace(options, scenario=into)
        replay_into(source, options, kind=kind, offset_s=offset_s, speed=speed, as_json=as_json)
        return
    for option, given in (
        ("--set", bool(options.overrides)),
        ("--steps", options.steps is not None),
        ("--seed", options.seed is not None),
        ("--offset", offset_s != 0.0),
        ("--speed", speed != 1.0),
        ("--as", kind != "attack"),
    ):
        if given:
            raise typer.BadParameter(f"{option} needs --into; a run is repeated as it was")
    replay_run(source, options, as_json=as_json)


def replay_run(folder: Path, options: RunOptions, *, as_json: bool) -> None:
    """Run a recorded run again and say whether the bytes are equal; exit code 3 if not.

    Of `options` the folder, the placement (default: as it was) and the armed devices are used.

    Raises ScenarioError: The folder holds no run that can be repeated.
    """
    if folder.is_file():
        raise ScenarioError(
            "is a file", where=str(folder), expected="the folder of a run, or --into SCENARIO"
        )
    scenario, run = scenario_of_run(folder)
    warnings = version_warnings(run)
    for words in warnings:
        messages().print(f"warning: {words}", markup=False, soft_wrap=True)
    options = dataclasses.replace(
        options,
        steps=int(run.manifest["steps"]),
        placement=options.placement or run.manifest.get("placement"),
        out=options.out or _beside(folder),
    )
    with clean_stdout(as_json):
        command = shlex.join(["feederate", "replay", str(folder)])
        result = carry_out(scenario, options, command=command)
    verdict = compare_runs(folder, result.folder, whole=run.status == "finished")
    if as_json:
        print_json(_as_data(verdict, result.folder, warnings))
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


def replay_into(
    trace: Path,
    options: RunOptions,
    *,
    kind: Literal["attack", "disturbance"],
    offset_s: float,
    speed: float,
    as_json: bool,
) -> None:
    """Play a trace into a scenario and print the run's summary.

    Raises ScenarioError: The trace or the scenario is wrong, or the two do not fit.
    """
    scenario = dataclasses.replace(options, attack="").load()
    steps = min(options.steps or scenario.n_steps, scenario.n_steps)
    step_s = scenario.time.step_s
    for unplayed in left_out(trace):
        warn(f"{trace}: {unplayed}; a trace plays signals only")
    scenario.attack = trace_attack(trace, kind, offset_s, speed, steps * step_s, step_s)
    words = ["--as", kind, "--offset", in_full(offset_s), "--speed", in_full(speed)]
    command = ["feederate", "replay", str(trace), "--into", options.scenario]
    with failure_as_json(as_json):
        command_line = shlex.join([*command, *words, *options.words()])
        result = carry_out(scenario, options, command=command_line)
    if as_json:
        print_json(result.summary | {"folder": str(result.folder)})
    else:
        print_summary(result, output(), has_report=True)
