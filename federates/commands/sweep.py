"""``feederate sweep``: many runs of one scenario, a table and a page."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from federates.commands.errors import FAILED
from federates.commands.options import print_json
from federates.commands.run import no_report, warn
from federates.commands.terminal import messages, output
from federates.runs.options import RunOptions
from federates.runs.sweep import SweepProgress, SweepResult, free_bytes, sweep
from federates.runs.sweep_job import Keep
from federates.runs.sweep_values import parse_seeds, parse_sets

_EVERY_S = 10.0


def run_sweep(
    options: RunOptions,
    *,
    table: Path | None,
    seeds: str | None,
    workers: int | None,
    dask: str | None,
    keep: Keep,
    retry: bool,
    as_json: bool,
) -> int:
    """Make the sweep, its page and its summary; return the exit code."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.perf_counter()
    with _progress(keep) as tell:
        result = sweep(
            options.scenario,
            parse_sets(options.overrides),
            table=table,
            seeds=None if seeds is None else parse_seeds(seeds),
            steps=options.steps,
            out=options.out,
            workers=workers,
            dask=dask,
            keep=keep,
            attack=options.attack,
            defence=options.defence,
            retry=retry,
            on_progress=tell,
        )
    page = _page(result)
    summary = _summary(result, time.perf_counter() - began)
    if as_json:
        print_json(summary)
    else:
        _print(summary, page)
    return FAILED if summary["failed"] else 0


def _page(result: SweepResult) -> Path | None:
    from federates.reports.sweep import write_sweep_page

    try:
        return write_sweep_page(result)
    except Exception as error:
        warn(no_report(error))
        return None


def _summary(result: SweepResult, wall_s: float) -> dict[str, Any]:
    rows, bad = result.rows, result.failures
    return {
        "folder": str(result.folder),
        "runs": len(result.plan),
        "points": len(result.plan.points),
        "seeds": len(result.plan.seeds),
        "finished": len(rows) - len(bad),
        "failed": len(bad),
        "first_failure": f"run {bad[0]['run']}: {bad[0]['reason']}" if bad else None,
        "wall_s": round(wall_s, 3),
        "stepping_s": round(sum(row["stepping_s"] or 0.0 for row in rows), 3),
    }


def _print(summary: dict[str, Any], page: Path | None) -> None:
    console = output()
    seeds = f"{summary['points']} points x {summary['seeds']} seeds"
    console.print(
        f"{summary['finished']} of {summary['runs']} runs finished ({seeds}) in "
        f"{summary['wall_s']:.1f} s; {summary['stepping_s']:.1f} s of stepping in all",
        soft_wrap=True,
    )
    if summary["failed"]:
        text = f"{summary['failed']} failed, the first of them {summary['first_failure']}"
        console.print(text, markup=False, soft_wrap=True, style="red")
    folder = Path(summary["folder"])
    console.print(f"\nresults {folder / 'results.parquet'}", markup=False, soft_wrap=True)
    if page is not None:
        console.print(f"page    {page}", markup=False, soft_wrap=True)


@contextlib.contextmanager
def _progress(keep: Keep) -> Iterator[Callable[[SweepProgress], None]]:
    """Yield what shows the progress: a bar on a terminal, else a line now and then."""
    console = messages()
    estimate = _Estimate(keep)
    if not console.is_terminal:
        yield _Lines(estimate)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("runs{task.fields[failed]}"),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console, transient=True, speed_estimate_period=120) as bar:
        task = bar.add_task("sweep", total=None, failed="")

        def tell(now: SweepProgress) -> None:
            failed = f", {now.failed} failed" if now.failed else ""
            bar.update(task, completed=now.done, total=now.total, failed=failed)
            estimate.tell(now)

        yield tell


class _Estimate:
    """Says once what the sweep takes on the disk, from the size of the first run."""

    def __init__(self, keep: Keep) -> None:
        self._keep, self._said = keep, False

    def tell(self, now: SweepProgress) -> None:
        if self._said or not now.bytes_per_run:
            return
        self._said = True
        left = now.bytes_per_run * (now.total - now.done + 1)
        messages().print(
            f"each run keeps its {_KEPT[self._keep]} (--keep {self._keep}): about "
            f"{_size(now.bytes_per_run)}, {_size(now.bytes_per_run * now.total)} for all",
            markup=False,
            soft_wrap=True,
        )
        free = free_bytes(Path())
        if left > free:
            warn(f"the disk has {_size(free)} free, the runs to come need about {_size(left)}")


_KEPT = {"summary": "summary", "signals": "signals and summary"}


_UNITS = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def _size(n_bytes: float) -> str:
    unit, size = next((u, n_bytes / s) for u, s in _UNITS if n_bytes >= s or u == "kB")
    return f"{size:.3g} {unit}"


class _Lines:
    """Progress without a terminal: a line at the start, every ten seconds and at the end."""

    def __init__(self, estimate: _Estimate) -> None:
        self._estimate = estimate
        self._began_s = self._said_s = time.monotonic()
        self._done = -1

    def __call__(self, now: SweepProgress) -> None:
        self._estimate.tell(now)
        first, self._done = self._done < 0, now.done
        time_s = time.monotonic()
        if not first and now.done < now.total and time_s - self._said_s < _EVERY_S:
            return
        self._said_s = time_s
        new = now.done - now.began_with
        text = f"{now.done} of {now.total} runs"
        if first and now.began_with:
            text += " were done before"
        text += f", {now.failed} failed" if now.failed else ""
        if new and now.done < now.total:
            left_s = (time_s - self._began_s) / new * (now.total - now.done)
            text += f", about {left_s:.0f} s left"
        messages().print(text, markup=False, soft_wrap=True)
