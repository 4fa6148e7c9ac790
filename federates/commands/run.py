"""``feederate run``: one run, its report, its summary."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from federates.commands.errors import explain, run_folder
from federates.commands.options import print_json
from federates.commands.terminal import LIVE_WORDS, clean_stdout, messages, output, progress_bar
from federates.core.run_store import write_json
from federates.errors import RunError, RunInterruptedError
from federates.reports.format import (
    metric_name,
    metric_number,
    metric_unit,
    warm_up_words,
)
from federates.runs.data import RunData
from federates.runs.options import RunOptions

if TYPE_CHECKING:
    from federates.runs.runner import RunResult, Started
    from federates.scenario.schema import Scenario


def run_command(options: RunOptions, *, as_json: bool) -> None:
    """Run and print the summary."""
    with failure_as_json(as_json):
        result = carry_out(options.load(), options)
    if as_json:
        print_json(result.summary)
    else:
        print_summary(result, output(), has_report=options.report)


def report_command(folders: Sequence[Path]) -> None:
    """Write the pages of runs again; what a killed run has recorded becomes tables first."""
    from federates.reports.paired import rewrite_report
    from federates.runs.killed import convert_streams

    for folder in folders:
        for words in convert_streams(folder) if folder.is_dir() else ():
            messages().print(words, markup=False, soft_wrap=True)
        output().print(str(rewrite_report(folder)), markup=False, soft_wrap=True)


@contextlib.contextmanager
def failure_as_json(as_json: bool) -> Iterator[None]:
    """Reserve standard output for JSON; print the summary of a failed run there."""
    try:
        with clean_stdout(as_json):
            yield
    except (RunError, RunInterruptedError) as error:
        summary = summary_of_failure(error) if as_json else None
        if summary is not None:
            print_json(summary)
        raise


def carry_out(
    scenario: Scenario,
    options: RunOptions,
    *,
    label: str | None = None,
    command: str | None = None,
) -> RunResult:
    """Run with a progress bar; write the report also if the run fails.

    `command` is the command line that the manifest keeps; default: that of the options.
    """
    from federates.runs.runner import run

    # SIGTERM and a closed terminal have the same effect as Ctrl-C: devices go to their safe state,
    # and what was recorded is readable. `nohup` keeps its meaning.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
            signal.signal(signal.SIGHUP, signal.default_int_handler)
    command = command or options.command()
    with _live_page(options.live) as on_start:
        try:
            with progress_bar(label or scenario.name) as tell:
                result = run(
                    scenario, options, on_progress=tell, on_warning=warn, on_start=on_start
                )
        except (RunError, RunInterruptedError) as error:
            folder = run_folder(error)
            if folder is not None:
                finish_folder(folder, command, options.report, warn)
            raise
        finish_folder(result.folder, command, options.report, warn)
    return result


@contextlib.contextmanager
def _live_page(address: str | None) -> Iterator[Callable[[Started], None] | None]:
    """Yield what starts the live page with the run; None where none is wanted."""
    if address is None:
        yield None
        return
    from federates.live.page import LivePage

    with LivePage(address) as page:
        messages().print(f"{LIVE_WORDS}{page.url}", markup=False, soft_wrap=True)
        yield page.start


def finish_folder(folder: Path, command: str, report: bool, say: Callable[[str], None]) -> None:
    """Record the command and write the report.

    A failure here must not fail a stored run: it is said as a warning.
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        write_json(folder / "manifest.json", manifest | {"command": command})
        if report:
            from federates.reports.run import write_report

            write_report(folder)
    except Exception as error:
        say(no_report(error))


def warn(words: str) -> None:
    """Print a warning."""
    messages().print(f"warning: {words}", markup=False, soft_wrap=True)


def no_report(error: Exception) -> str:
    """Say why a report could not be written; the run itself is not affected."""
    return f"no report: {explain(error)[1][0]}"


def summary_of_failure(error: RunError | RunInterruptedError) -> dict[str, Any] | None:
    """Return the summary of a run that did not finish, or None if it has no folder."""
    folder = run_folder(error)
    if folder is None:
        return None
    try:
        summary: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        # The disk may have failed.
        status = "failed" if isinstance(error, RunError) else "interrupted"
        summary = {"status": status, "reason": str(error), "metrics": {}}
    return summary


def _print_metrics(run: RunData, console: Console) -> None:
    """Print name, value and unit of each metric; a column of values per plant where several."""
    whole, *plants = run.by_plant(run.metrics).items()
    for columns in (plants, [whole]):
        keys = list(dict.fromkeys(key for _, metrics in columns for key in metrics))
        wide = max((len(metric_name(key)) for key in keys), default=0)
        if any(name for name, _ in columns):
            console.print("  " + " " * wide + "".join(f" {name:>11}" for name, _ in columns))
        for key in keys:
            numbers = (f" {metric_number(key, metrics.get(key)):>11}" for _, metrics in columns)
            line = f"  {metric_name(key):<{wide}}{''.join(numbers)} {metric_unit(key)}"
            console.print(line.rstrip(), markup=False)
        if keys:
            console.print()


def print_summary(result: RunResult, console: Console, *, has_report: bool) -> None:
    """Print the metrics of a finished run and where its files are."""
    summary = result.summary
    data = RunData(result.folder)
    console.print(f"[bold]{escape(data.title)}[/bold]", soft_wrap=True)
    console.print(
        f"[green]{summary['status']}[/green]: {summary['steps']} steps in "
        f"{summary['wall_s']:.1f} s of wall time; {summary['steps_per_s']:,.0f} steps/s in "
        f"{summary['stepping_s']:.1f} s of stepping\n"
    )
    real_time = summary.get("real_time")
    if real_time is not None:
        late = ", ".join(f"{real_time[f'lateness_{k}_ms']:.1f}" for k in ("p50", "p99", "max"))
        console.print(
            f"{real_time['factor']:g} x real time; steps late by {late} ms (median, 99 %, most); "
            f"{real_time['overruns']} overruns\n",
            soft_wrap=True,
        )
    for words in warm_up_words([data]):
        console.print(f"{words}\n", markup=False)
    _print_metrics(data, console)
    console.print(f"run     {result.folder}", markup=False, soft_wrap=True)
    page = result.folder / "report.html"
    if has_report and page.is_file():
        console.print(f"report  {page}", markup=False, soft_wrap=True)
