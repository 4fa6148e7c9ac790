"""``feederate dataset``: many seeded runs as train and test tables for machine learning."""

from __future__ import annotations

import contextlib
import signal
import threading
from pathlib import Path

from federates.commands.options import print_json
from federates.commands.run import warn
from federates.commands.terminal import bars, clean_stdout, messages, output, print_table
from federates.errors import ScenarioError
from federates.runs.dataset import Dataset, DatasetOptions, make_dataset
from federates.runs.dataset_plan import DatasetPlan
from federates.runs.options import RunOptions
from federates.runs.sweep_values import parse_seeds


def dataset_command(
    options: RunOptions,
    attacks: tuple[str, ...],
    *,
    seeds: str,
    out: Path,
    test_share: float,
    unseen: tuple[str, ...],
    noise: tuple[str, ...],
    licence: str,
    workers: int | None,
    as_json: bool,
) -> None:
    """Make a data set, and print its runs."""
    found = parse_seeds(seeds)
    chosen = DatasetOptions(
        attacks,
        found if isinstance(found, int) else tuple(found),
        test_share,
        unseen,
        dict(map(_noise, noise)),
        licence,
    )
    console = messages()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)

    def on_plan(_: DatasetPlan, words: str) -> None:
        console.print(words, markup=False, soft_wrap=True)

    with clean_stdout(as_json), contextlib.ExitStack() as stack:
        on_run = None
        if console.is_terminal:
            drawn = stack.enter_context(bars(console, "runs"))
            task = drawn.add_task("data set", total=None)

            def on_run(done: int, n: int) -> None:
                drawn.update(task, completed=done, total=n)

        made = make_dataset(options, chosen, out, workers, on_plan, on_run)
    for words in made.warnings:
        warn(words)
    if as_json:
        print_json({"folder": str(made.folder), "runs": list(made.runs)})
    else:
        _print(made)


def _print(made: Dataset) -> None:
    rows: dict[tuple[str, str], tuple[int, int, int]] = {}
    for r in made.runs:
        key = r["split"], r["attack"] or "clean"
        n, total, active = rows.get(key, (0, 0, 0))
        rows[key] = n + 1, total + r["rows"], active + r["rows_under_attack"]
    head = ("Split", "Attack", "Runs", "Rows", "Under attack")
    lines = [(*key, *(f"{x:,}" for x in numbers)) for key, numbers in sorted(rows.items())[::-1]]
    print_table(output(), head, lines, range(2, 5))
    for label, name in (("data set", ""), ("card    ", "README.md")):
        output().print(f"{label}  {made.folder / name}", markup=False, soft_wrap=True)


def _noise(text: str) -> tuple[str, float]:
    port, _, deviation = text.partition("=")
    try:
        return port, float(deviation)
    except ValueError:
        raise ScenarioError(
            f"'{text}'", where="--noise", expected="PORT=DEVIATION, as v_pu=0.002"
        ) from None
