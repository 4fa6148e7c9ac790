"""``feederate attack run``: baseline, attacked and defended side by side, in one command."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from federates.assembly.federation import Assembly
from federates.commands.attack import pair
from federates.commands.explain import explain_attack
from federates.commands.options import print_json
from federates.commands.paired_processes import Ended, run_states
from federates.commands.run import no_report, warn
from federates.commands.terminal import bars, messages, output, print_table
from federates.core.run_store import new_run_dir
from federates.errors import RunError, RunInterruptedError, ScenarioError
from federates.reports.format import metric_name, metric_unit, warm_up_words
from federates.reports.paired import write_paired_report
from federates.reports.paired_runs import CHANGES, DETECTOR_HEAD, PairedRuns
from federates.runs.data import with_changes
from federates.runs.options import RunOptions
from federates.runs.paired import ATTACKED, BASELINE, CLEAN, State, readable, states_of
from federates.runs.parallel import at_a_time
from federates.scenario.attack_schema import AttackSpec
from federates.scenario.schema import Scenario
from grid_models.base.errors import FeederateError

_STATE_WIDTH = 10  # of 80 columns, with four states
_RESERVED = frozenset(
    (BASELINE, ATTACKED, "pre", "scenario", "attack", "folder", "states", "status", "detectors")
)


def paired_command(
    first: str,
    second: str | None,
    options: RunOptions,
    defences: Sequence[str] | None,
    *,
    as_json: bool,
) -> None:
    """Run all states, print the comparison, write the page.

    `first` and `second` are the scenario and the attack as `commands.attack.pair` takes them;
    `defences` None means all that the scenario names.

    Raises
    ------
    ScenarioError: Wrong input; nothing was started, or all was stopped.
    RunError: One of the runs failed; the others are whole.
    RunInterruptedError: The user stopped it; what was recorded is readable.
    """
    name, attack = pair(first, second, documented=("scenario", "attack"))
    options = replace(options, scenario=name, attack=attack)
    runs, failure = run_paired(options, defences, _progress)
    if as_json:
        print_json(runs.as_data())
    else:
        print_paired(runs, output())
    page = paired_page(runs, warn)
    if page is not None and not as_json:
        output().print(f"report  {page}", markup=False, soft_wrap=True)
    if failure is not None:
        raise failure


def run_paired(
    options: RunOptions,
    defences: Sequence[str] | None,
    progress: Callable[[Sequence[State]], AbstractContextManager[Any]],
) -> tuple[PairedRuns, FeederateError | None]:
    """Run all states; return the runs, and the error of the first that failed.

    `progress` gives the two callbacks of `run_states`. Raises as `paired_command`.
    """
    loaded, spec, defences = _loaded(options, defences)
    scenario = loaded[0]
    options = _one_warm_up(options, loaded)
    cut = [f"steps={options.steps}"] if options.steps is not None else []
    made = [c for c in scenario.changes if not c.startswith("attack=")]
    folder = new_run_dir(f"attack-{spec.id}", options.out, [*made, *cut])
    states = states_of(folder, options.attack, defences)

    def arguments(state: State) -> list[str]:
        own = replace(options, attack=state.attack, defence=state.defence)
        shown = [f"--live={options.live}"] if options.live and state.name == ATTACKED else []
        return [options.scenario, "--out", str(state.folder), *own.words(), *shown]

    try:
        with progress(states) as (tell, on_end):
            ended = run_states(states, arguments, at_a_time(scenario), tell, on_end)
    except KeyboardInterrupt:
        raise RunInterruptedError("interrupted", where=str(folder)) from None
    _refuse_wrong_input(ended)
    runs = PairedRuns(folder, scenario.name, spec, [s.name for s in readable(states)])
    return runs, _failure(states, ended)


def paired_page(runs: PairedRuns, say: Callable[[str], None]) -> Path | None:
    """Write the page, or say why it cannot be written."""
    try:
        return write_paired_report(runs)
    except Exception as error:
        say(no_report(error))
        return None


def _loaded(
    options: RunOptions, defences: Sequence[str] | None
) -> tuple[list[Scenario], AttackSpec, tuple[str, ...]]:
    """Load and wire the scenario of every state, so that errors are reported before any run."""
    scenario = options.load()
    spec = scenario.attack_spec
    if spec is None:
        raise ScenarioError(
            "the scenario names no attack",
            where=options.scenario,
            expected="an attack file or the name of a shipped attack behind it",
        )
    chosen = tuple(dict.fromkeys(scenario.defences if defences is None else defences))
    loaded = [scenario]
    for defence in chosen:
        if defence in _RESERVED or defence.endswith(CLEAN):
            raise ScenarioError(
                f"a defence cannot be called '{defence}' here",
                where=scenario.where("defences"),
                expected="another name",
            )
        loaded.append(replace(options, defence=defence).load())
    for each in loaded:
        explain_attack(each, options.steps)
    return loaded, spec, chosen


def _one_warm_up(options: RunOptions, loaded: Sequence[Scenario]) -> RunOptions:
    """Let the metrics of all states leave out the same time: the longest of the warm-ups."""
    found = {Assembly(scenario).wanted_warm_up_s for scenario in loaded}
    if len(found) == 1:
        return options
    return replace(options, overrides=(*options.overrides, f"time.warm_up_s={max(found):g}"))


@contextmanager
def _progress(states: Sequence[State]) -> Iterator[tuple[Any, Any]]:
    """Return the two callbacks of `run_states`: bars on a terminal, else a line per ended run."""
    console = messages()
    said = {0: "done", 2: "refused", 3: "failed", 130: "interrupted"}

    def line(state: State, end: Ended) -> str:
        how = said.get(end.code, f"ended with exit code {end.code}")
        return f"{state.name}: {how} in {end.wall_s:.1f} s"

    if not console.is_terminal:
        yield (
            lambda state, done, total: None,
            lambda state, end: console.print(line(state, end), markup=False, soft_wrap=True),
        )
        return
    with bars(console) as drawn:
        tasks = {state.name: drawn.add_task(state.name, total=None) for state in states}

        def tell(state: State, done: int, total: int) -> None:
            drawn.update(tasks[state.name], completed=done, total=total)

        def on_end(state: State, end: Ended) -> None:
            drawn.console.print(line(state, end), markup=False, soft_wrap=True)

        yield tell, on_end


def _refuse_wrong_input(ended: dict[str, Ended]) -> None:
    for name, end in ended.items():
        if end.code == 2:
            raise ScenarioError("\n".join(end.lines) or f"{name}: refused")


def _failure(states: Sequence[State], ended: dict[str, Ended]) -> FeederateError | None:
    for state in states:
        end = ended.get(state.name)
        if end is not None and end.code != 0:
            lines = [line for line in end.lines if line] or [f"exit code {end.code}"]
            if end.code == 130:
                return RunInterruptedError("interrupted", where=str(state.folder))
            error = RunError(lines[0], federate=state.name, run_dir=state.folder)
            error.where = f"run '{state.name}'"
            return error
    return None


# -- printed tables -------------------------------------------------------------------------------


def print_paired(runs: PairedRuns, console: Console) -> None:
    """Print the metrics with their changes, a table per plant, then the detectors."""
    title = with_changes(f"{runs.spec.title or runs.spec.id}, on {runs.scenario}", runs.changes)
    console.print(title, markup=False)
    for plant, keys in runs.groups:
        grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        grid.add_column(Text(f"{plant}: metric" if plant else "Metric"), overflow="fold")
        grid.add_column("Unit", no_wrap=True)
        for name in runs.names:
            column = "\n".join(textwrap.wrap(name, _STATE_WIDTH, break_long_words=False))
            grid.add_column(Text(column), justify="right", overflow="fold")
        for key in keys:
            cells = [Text(runs.number(key, name)) for name in runs.names]
            changes = [Text(runs.change(key, name), style="dim") for name in runs.names]
            words = metric_name(key.removeprefix(f"{plant}."))
            grid.add_row(words, metric_unit(key), *cells)
            if any(change.plain for change in changes):
                grid.add_row("", "", *changes)
        console.print(grid)
    console.print(f"Second lines: {CHANGES.lower()}.", markup=False)
    if runs.market:
        from federates.reports.market import market_head, market_rows

        published = runs.spec.published
        head = market_head(list(runs.market), published)
        rows = market_rows(runs.market, published)
        print_table(console, head, rows, range(2, len(head)))
    rows = runs.detector_rows()
    if rows:
        print_table(console, DETECTOR_HEAD, rows, range(3, len(DETECTOR_HEAD)))
    for words in (*warm_up_words(list(runs.runs.values())), *runs.remarks()):
        console.print(words, markup=False, soft_wrap=True)
