"""The command line, ``feederate``.

This module imports typer and the standard library only, so that ``--help`` and completion answer
at once; everything else is imported inside the command that needs it.

Exit codes: 0 fine; 2 the input is wrong; 3 the run failed; 130 interrupted.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from federates.commands import complete
from federates.commands.attack_app import attack_app
from federates.commands.device_app import device_app
from federates.commands.emulate import emulate_app
from federates.commands.examples import add_examples
from federates.commands.hosting_words import hosting
from federates.commands.market_app import market_app
from federates.commands.optimise_words import optimise
from federates.commands.options import (
    AsJson,
    LiveCommand,
    ScenarioArgument,
    print_json,
    run_options,
)
from federates.commands.plain import usage_lines
from federates.commands.train_words import train
from federates.runs.options import RunOptions

app = typer.Typer(
    name="feederate",
    help="Closed-loop co-simulation of distribution feeders, distributed controllers and devices.",
    epilog="Start with 'feederate demo', or 'feederate new scenario my-study'.",
    # Plain help: the rich one imports a markdown parser and doubles the time to the first word.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)
app.add_typer(emulate_app, name="emulate")
app.add_typer(device_app, name="device")
app.add_typer(attack_app, name="attack")
app.add_typer(market_app, name="market")


RunFolders = Annotated[
    list[Path],
    typer.Argument(metavar="DIR...", help="Folders of runs.", autocompletion=complete.run),
]


@app.callback(invoke_without_command=True)
def _top(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        from importlib import metadata

        typer.echo(f"feederate {metadata.version('feederate')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
@run_options(
    *("out", "steps"),
    out="Folder for the runs. Default: runs/demo-TIME.",
    steps="Stop each run after this many feeder steps.",
)
def demo(options: RunOptions, as_json: AsJson = False) -> None:
    """No control, local droop and OPTDIST-VC on one PV-rich day; leaves about 130 MB."""
    from federates.commands.demo import run_demo

    run_demo(out=options.out, steps=options.steps, as_json=as_json)


@app.command(cls=LiveCommand)
@run_options()
def run(scenario: ScenarioArgument, options: RunOptions, as_json: AsJson = False) -> None:
    """Run one scenario."""
    from federates.commands.run import run_command

    run_command(replace(options, scenario=scenario), as_json=as_json)


@app.command()
@run_options("overrides", "attack", "defence")
def check(
    scenario: ScenarioArgument,
    options: RunOptions,
    labels: Annotated[
        bool, typer.Option("--labels", help="Print the labels of every port, as YAML, instead.")
    ] = False,
) -> None:
    """Show how a scenario is wired, or what is wrong with it."""
    from federates.commands.check import check_command

    check_command(replace(options, scenario=scenario), labels=labels)


@app.command("list")
def list_() -> None:
    """Shipped scenarios, attacks, feeders, controllers, problems and algorithms."""
    from federates.commands.list import print_list

    print_list()


@app.command()
def report(folders: RunFolders) -> None:
    """Write the pages of runs, finished or not, of paired runs and of sweeps again.

    What a killed run has recorded (*.arrows) becomes Parquet tables.
    """
    from federates.commands.run import report_command

    report_command(folders)


@app.command()
def compare(
    folders: RunFolders,
    as_json: AsJson = False,
    html: Annotated[
        Path | None, typer.Option(help="Also write a page that shows the runs side by side.")
    ] = None,
) -> None:
    """Show the metrics of runs side by side."""
    from federates.commands.terminal import output
    from federates.reports.compare import as_data, load_runs, print_comparison, write_comparison

    runs = load_runs(folders)
    if html is not None:
        write_comparison(runs, html)
    if as_json:
        print_json(as_data(runs))
    else:
        print_comparison(runs, output())


@app.command()
@run_options(
    *("out", "overrides", "steps", "attack", "defence"),
    out="Folder of the sweep. Default: runs/sweep-NAME-TIME. The same command with the same "
    "folder goes on where it was stopped.",
    overrides="Values of one key: a,b,c or 'range(0,1,0.1)' (the stop left out). All combinations "
    "of several keys are run.",
    steps="Stop each run after this many feeder steps.",
)
def sweep(
    scenario: ScenarioArgument,
    options: RunOptions,
    seeds: Annotated[
        str | None,
        typer.Option(
            metavar="N", help="Seeds of every point: how many, or which, as 3,5. Default: one."
        ),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="Points: a key per column, a point per row."),
    ] = None,
    keep: Annotated[
        Literal["summary", "signals"],
        typer.Option(help="Of each run: its summary only, or also its signals."),
    ] = "summary",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes. Default: one per core.")
    ] = None,
    dask: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Use the Dask cluster whose scheduler is there."),
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Make failed runs again.")] = False,
    as_json: AsJson = False,
) -> int:
    """Run a scenario over values of its keys and over seeds."""
    from federates.runs import sweep_pool

    if dask is None:  # they import while this process does
        sweep_pool.prepare(workers or len(os.sched_getaffinity(0)))
    try:
        from federates.commands.sweep import run_sweep

        return run_sweep(
            replace(options, scenario=scenario),
            table=table,
            seeds=seeds,
            workers=workers,
            dask=dask,
            keep=keep,
            retry=retry,
            as_json=as_json,
        )
    finally:
        sweep_pool.release()


@app.command()
@run_options(
    *("out", "steps", "overrides"),
    out="Folder of the data set; must be new or empty.",
    steps="Steps of each run. Default: the scenario's.",
)
def dataset(
    scenario: ScenarioArgument,
    attacks: Annotated[
        list[str],
        typer.Argument(
            metavar="ATTACKS...",
            help="Attack files or shipped attacks.",
            autocompletion=complete.attack,
        ),
    ],
    options: RunOptions,
    seeds: Annotated[
        str, typer.Option(metavar="N", help="How many seeds, at least 2, or which, as 3,5,8.")
    ],
    test_share: Annotated[float, typer.Option(help="Share of the seeds that are tests.")] = 0.25,
    unseen: Annotated[
        list[str] | None,
        typer.Option(metavar="ATTACK", help="In the tests only; can be given repeatedly."),
    ] = None,
    noise: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PORT=DEVIATION", help="Sensor noise of a port, or FEDERATE.PORT to add one."
        ),
    ] = None,
    licence: Annotated[str, typer.Option(help="Named in the card.")] = "CC-BY-4.0",
    pcap: Annotated[bool, typer.Option(help="Keep the Modbus traffic of devices.")] = True,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Runs at a time. Default: one per core.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make train and test tables for machine learning: clean and attacked runs of many seeds."""
    from federates.commands.dataset import dataset_command

    if options.out is None:
        raise typer.BadParameter("--out DIR is missing")
    dataset_command(
        replace(options, scenario=scenario, pcap=pcap),
        tuple(attacks),
        seeds=seeds,
        out=options.out,
        test_share=test_share,
        unseen=tuple(unseen or ()),
        noise=tuple(noise or ()),
        licence=licence,
        workers=workers,
        as_json=as_json,
    )


@app.command()
def new(
    what: Annotated[
        Literal["scenario", "controller", "attack"],
        typer.Argument(metavar="scenario|controller|attack"),
    ],
    name: Annotated[str, typer.Argument(metavar="NAME")],
) -> None:
    """Write a commented starting point that runs."""
    from federates.commands import new

    new.new(what, name)


@app.command()
def schema(
    what: Annotated[
        Literal["scenario", "attack"], typer.Argument(metavar="[scenario|attack]")
    ] = "scenario",
) -> None:
    """Print the JSON Schema of a scenario or of an attack file."""
    from federates.scenario.attack_schema import AttackSpec
    from federates.scenario.schema import Scenario

    print_json((AttackSpec if what == "attack" else Scenario).model_json_schema())


@app.command()
@run_options(
    *("out", "placement", "overrides", "steps", "seed", "armed"),
    out="Folder of the new run. Default: RUN_DIR-replay-TIME, runs/NAME-TIME.",
    placement="As for run. Default: as it was; with --into: shared.",
    steps="With --into: stop after this many feeder steps.",
    seed="With --into: seed of the run.",
)
def replay(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_DIR|TRACE",
            help="Folder of a run to run again; with --into: a table of time_s, port, label, "
            "value (CSV or Parquet), a recorded signal, or the folder of an attacked run.",
            autocompletion=complete.run,
        ),
    ],
    options: RunOptions,
    into: Annotated[
        str | None,
        typer.Option(
            metavar="SCENARIO",
            help="Play the trace into this scenario.",
            autocompletion=complete.scenario,
        ),
    ] = None,
    as_: Annotated[
        Literal["attack", "disturbance"],
        typer.Option("--as", help="With --into: what the run and its report call it."),
    ] = "attack",
    offset: Annotated[
        float, typer.Option(metavar="S", help="With --into: time of the run at the trace's 0.")
    ] = 0.0,
    speed: Annotated[
        float, typer.Option(metavar="X", help="With --into: seconds of the trace per second.")
    ] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Run a recorded run again and compare the bytes, or play a trace into a scenario."""
    from federates.commands.replay import replay_command

    replay_command(
        source, options, into=into, kind=as_, offset_s=offset, speed=speed, as_json=as_json
    )


app.command()(optimise)
app.command()(train)
app.command()(hosting)
add_examples(app)


def main() -> NoReturn:
    """Run the command line and exit with its exit code."""
    from federates.installation import InstallationError, check_installation
    from grid_models.base.threads import use_one_thread

    use_one_thread()
    try:
        check_installation()
    except InstallationError as error:
        sys.exit(_say([str(error)], 2))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A title or a path may hold what an ASCII terminal lacks; a finished run is none the
            # worse for it.
            stream.reconfigure(errors="backslashreplace")
    code = call(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            # The reader has closed the pipe (`feederate list | head`).
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    if threading.active_count() > 1:
        # A step that hangs in a thread cannot be ended from outside; leave without waiting for it.
        os._exit(code)
    sys.exit(code)


def call(arguments: list[str]) -> int:
    """Run one command line, print its errors, and return the exit code."""
    try:
        code = app(arguments, prog_name="feederate", standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        return _say(["interrupted"], 130)
    except (BrokenPipeError, SystemExit) as stop:
        # Typer turns a broken pipe (`feederate list | head`) into an exit; it is no failure.
        if isinstance(stop, SystemExit) and not isinstance(stop.__context__, BrokenPipeError):
            raise
        return 0
    except Exception as error:
        kinds = {cls.__name__ for cls in type(error).__mro__}
        if "NoArgsIsHelpError" in kinds:  # a group without a command, as `feederate` itself
            typer.echo(getattr(error, "ctx").get_help())  # noqa: B009
            return 0
        if "ClickException" in kinds:
            return _say(usage_lines(error), 2)
        from federates.commands.errors import explain

        code, lines = explain(error)
        return _say(lines, code)
    return code if isinstance(code, int) else 0


def _say(lines: list[str], code: int) -> int:
    prefix = typer.style("error:", fg=typer.colors.RED, bold=True)
    for line in lines:
        typer.echo(f"{prefix} {line}", err=True)
    return code
