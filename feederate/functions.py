"""The functions of the package `feederate`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from federates.errors import RunError, RunInterruptedError, ScenarioError
from federates.runs.options import Placement, RunOptions, path_text, several
from federates.scenario.overrides import override_words
from federates.scenario.schema import Scenario
from grid_models.base.errors import FeederateError

if TYPE_CHECKING:
    import pandas as pd

    from federates.commands.check import CheckResult
    from federates.reports.attack_run import AttackRun
    from federates.runs.results import RunFolder
    from federates.runs.sweep import SweepProgress, SweepResult

PathLike = str | os.PathLike[str]
Changes = Mapping[str, Any]


def load(
    scenario: PathLike | Scenario,
    *,
    set: Changes | None = None,
    seed: int | None = None,
    attack: PathLike | None = None,
    defence: str | None = None,
) -> Scenario:
    """Read and check a scenario.

    Parameters
    ----------
    scenario : str, Path or Scenario
        A path, the name of a shipped scenario, or a scenario to be changed.
    set : dict, optional
        Keys to change, dotted or nested: ``{"grid.ders.0.total_kw": 3000}``,
        ``{"time": {"duration_s": 7200}}``. A list or an empty dict replaces what was there.
    seed : int, optional
        In place of the scenario's.
    attack : str or Path, optional
        An attack file or the name of a shipped attack, in place of the scenario's; '' for none.
    defence : str, optional
        One of the scenario's defences.

    Raises
    ------
    ScenarioError
        Naming file, line and key, what was found, what was expected and the nearest valid name.
    """
    return _loaded(scenario, _options(set, seed=seed, attack=attack, defence=defence))[0]


def run(
    scenario: PathLike | Scenario,
    *,
    set: Changes | None = None,
    steps: int | None = None,
    placement: Placement | None = None,
    seed: int | None = None,
    attack: PathLike | None = None,
    defence: str | None = None,
    out: PathLike | None = None,
    report: bool = True,
    arm: Sequence[str] = (),
    pcap: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> RunFolder:
    """Run a scenario and return the run.

    Nothing is printed; what a scenario says and a run does not use is a Python warning.

    Parameters
    ----------
    scenario, set, seed, attack, defence
        As in `load`.
    steps : int, optional
        Stop after this many feeder steps.
    placement : str, optional
        How federates are hosted, as ``feederate run --placement``. The signals are the same to the
        last byte; ``"single"`` needs no HELICS and suits pools of processes.
    out : str or Path, optional
        Folder of the run, new or empty. Default: ``runs/NAME-TIME``.
    report : bool
        Write ``report.html``.
    arm : sequence of str
        Real devices that may be commanded.
    pcap : bool
        Capture the Modbus traffic.
    on_progress : callable, optional
        Called with (steps done, steps in all).

    Raises
    ------
    FeederateError
        ScenarioError, GridModelError, ControllerError: the input is wrong, nothing was started.
        RunError: a federate failed; what was recorded is in its ``run_dir``.
        RunInterruptedError: the user stopped the run.
    """
    from federates.commands.errors import run_folder
    from federates.commands.run import finish_folder
    from federates.runs.results import RunFolder
    from federates.runs.runner import run as run_scenario

    options = _options(
        set,
        seed=seed,
        attack=attack,
        defence=defence,
        steps=steps,
        placement=placement,
        out=out,
        report=report,
        armed=several(arm, "arm"),
        pcap=pcap,
    )
    chosen, options = _loaded(scenario, options)
    folder: Path | None = None
    try:
        with readable_errors():
            folder = run_scenario(chosen, options, on_progress=on_progress, on_warning=warn).folder
    except (RunError, RunInterruptedError) as error:
        folder = run_folder(error)
        raise
    finally:
        if folder is not None:
            finish_folder(folder, options.command(), report, warn)
    return RunFolder(folder)


def attack_run(
    scenario: PathLike | Scenario,
    attack: PathLike | None = None,
    *,
    defences: Sequence[str] | None = None,
    set: Changes | None = None,
    steps: int | None = None,
    placement: Placement | None = None,
    seed: int | None = None,
    out: PathLike | None = None,
) -> AttackRun:
    """Run a scenario without an attack and with it, and the same with each of its defences.

    Each run is a process of its own; as many at a time as there are cores.

    Parameters
    ----------
    scenario, set, seed
        As in `load`.
    attack : str or Path, optional
        An attack file or the name of a shipped attack. Default: the scenario's.
    defences : sequence of str, optional
        Names of defences of the scenario. Default: all of them.
    steps, placement, out
        As in `run`.

    Raises
    ------
    FeederateError
        As `run`; where one of the runs failed, the others are whole.
    """
    from federates.commands.paired import paired_page, run_paired
    from federates.reports.attack_run import AttackRun

    options = _options(
        set,
        attack=attack,
        steps=steps,
        placement=placement,
        seed=seed,
        out=out,
    )
    with readable_errors():
        names = None if defences is None else several(defences, "defences")
        runs, failure = run_paired(_loaded(scenario, options)[1], names, _silent)
    paired_page(runs, warn)
    if failure is not None:
        raise failure
    return AttackRun(runs.folder)


def check(scenario: PathLike | Scenario, *, set: Changes | None = None) -> CheckResult:
    """Build and wire a scenario as `run` does, and describe its federates and connections.

    Raises
    ------
    FeederateError
        What `run` would refuse; a WiringError lists every problem.
    """
    from federates.commands.check import check_scenario

    with readable_errors():
        return check_scenario(_loaded(scenario, _options(set))[0])


def read_run(folder: PathLike) -> RunFolder:
    """Open the folder of a run: finished, failed, killed or still going on.

    Raises
    ------
    ScenarioError
        The folder holds no run.
    """
    from federates.runs.results import RunFolder

    return RunFolder(folder)


def compare(
    runs: Sequence[PathLike | RunFolder] | Mapping[str, PathLike | RunFolder],
    *,
    page: PathLike | None = None,
) -> pd.DataFrame:
    """Return the metrics of runs, one row per metric and one column per run.

    Parameters
    ----------
    runs : sequence or dict of str, Path or RunFolder
        The keys of a dict name the columns; else scenarios do, or folders.
    page : str or Path, optional
        Write the comparison as a page, as ``feederate compare --out``.

    Raises
    ------
    ScenarioError
        A folder holds no run, or `runs` is no list of them.
    """
    import pandas as pd

    from federates.reports.compare import load_runs, run_labels, write_comparison
    from federates.runs.results import RunFolder

    if isinstance(runs, (str, os.PathLike, RunFolder)):
        raise ScenarioError("is one run", where="runs", expected="a list or dict of runs")
    given = list(runs.values() if isinstance(runs, Mapping) else runs)
    found = [run if isinstance(run, RunFolder) else RunFolder(run) for run in given]
    data = load_runs([run.folder for run in found])
    names = list(runs) if isinstance(runs, Mapping) else run_labels(data)
    if page is not None:
        with readable_errors():
            write_comparison(data, Path(page), labels=names)
    return pd.DataFrame({name: run.metrics for name, run in zip(names, data, strict=True)})


def sweep(
    scenario: PathLike | Scenario,
    grid: Mapping[str, Sequence[Any]] | None = None,
    *,
    table: PathLike | pd.DataFrame | Sequence[Changes] | None = None,
    seeds: int | Sequence[int] | None = None,
    steps: int | None = None,
    set: Changes | None = None,
    attack: PathLike | None = None,
    defence: str | None = None,
    out: PathLike | None = None,
    keep: Literal["summary", "signals"] = "summary",
    workers: int | None = None,
    dask: str | None = None,
    retry: bool = False,
    on_progress: Callable[[SweepProgress], None] | None = None,
) -> SweepResult:
    """Run a scenario at every point of a grid or table, with the same seeds at each.

    The same call with the same folder goes on where an earlier one ended, however it ended.

    Parameters
    ----------
    scenario, set, steps, attack, defence
        As in `run`, for all runs.
    grid : dict
        Values of each key, ``{"grid.load_scale": [0.8, 1.0]}``; all combinations are run.
    table : str, Path, DataFrame or list of dict
        A CSV file or table: a key per column, a point per row; with a grid, each row with each of
        its combinations.
    seeds : int or sequence of int
        A count (the scenario's seed and those after it) or the seeds. Default: the scenario's.
    out : str or Path, optional
        Folder of the sweep. Default: ``runs/sweep-NAME-TIME``.
    keep : str
        Of each run its summary, or also its signals.
    workers : int, optional
        Processes of this machine. Default: one per core.
    dask : str, optional
        Address of the scheduler of a Dask cluster, in place of local processes.
    retry : bool
        Make failed runs of an earlier part again.
    on_progress : callable, optional
        Called at the start and after each run.

    Raises
    ------
    ScenarioError
        The input is wrong, or `out` holds another sweep; nothing was run. A run that fails is a
        row of the results and raises nothing.
    """
    from federates.reports.sweep import write_sweep_page
    from federates.runs.sweep import sweep as make

    with readable_errors():
        result = make(
            scenario if isinstance(scenario, Scenario) else path_text(scenario, "scenario"),
            grid,
            table=os.fspath(table) if isinstance(table, os.PathLike) else table,
            seeds=seeds,
            steps=steps,
            set=set,
            out=None if out is None else path_text(out, "out"),
            workers=workers,
            dask=dask,
            keep=keep,
            attack=None if attack is None else path_text(attack, "attack"),
            defence=defence,
            retry=retry,
            on_progress=on_progress,
        )
    try:
        write_sweep_page(result)
    except Exception as error:  # the results are there
        warn(f"no page: {error}")
    return result


def _options(changes: Changes | None, **chosen: Any) -> RunOptions:
    if chosen.get("attack") is not None:
        chosen["attack"] = path_text(chosen["attack"], "attack")
    if chosen.get("out") is not None:
        chosen["out"] = Path(path_text(chosen["out"], "out"))
    return RunOptions(overrides=override_words(changes or {}), **chosen)


def _loaded(scenario: PathLike | Scenario, options: RunOptions) -> tuple[Scenario, RunOptions]:
    """Return the scenario that options give, and the options that give it from its file."""
    if not isinstance(scenario, Scenario):
        options = replace(options, scenario=path_text(scenario, "scenario"))
        return options.load(), options
    given = scenario.given
    whole = replace(
        options,
        scenario=given.path,
        overrides=(*given.overrides, *options.overrides),
        seed=given.seed if options.seed is None else options.seed,
        attack=given.attack if options.attack is None else options.attack,
        defence=given.defence if options.defence is None else options.defence,
    )
    same = (whole.overrides, whole.seed, whole.attack, whole.defence) == given[1:]
    return scenario if same else whole.load(), whole


def _silent(_: object) -> AbstractContextManager[tuple[Callable[..., None], Callable[..., None]]]:
    """Return callbacks of progress that say nothing."""

    def nothing(*_: object) -> None: ...

    return nullcontext((nothing, nothing))


def warn(words: str) -> None:
    """Warn the caller of a public function."""
    warnings.warn(words, UserWarning, stacklevel=3)


@contextmanager
def readable_errors() -> Iterator[None]:
    """Raise errors of the user's paths as FeederateError, in the words of the command line."""
    try:
        yield
    except OSError as error:
        from federates.commands.errors import explain

        raise FeederateError("\n".join(explain(error)[1])) from error
