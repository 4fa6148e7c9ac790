"""``feederate optimise``: distributed algorithms on one problem, a table and a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from federates.commands.errors import FAILED
from federates.commands.options import print_json
from federates.commands.terminal import clean_stdout, messages, output, print_table
from federates.core.run_store import new_run_dir
from federates.optimise.compare import Comparison, Row, compare

_HEAD = (
    "algorithm", "iterations", "gap", "violation", "messages", "kB", "seconds", "end",
)  # fmt: skip
_WIDE, _WIDE_TERMINAL = (4, 5), 100


def optimise_command(
    problem: str,
    *,
    algorithms: str | None,
    links: Sequence[str],
    tolerance: float | None,
    max_iterations: int | None,
    seed: int,
    regions: int | None,
    options: Sequence[str],
    period_s: float | None,
    out: Path | None,
    as_json: bool,
) -> int:
    """Compare, print the table and write the folder; return the exit code."""
    from federates.reports.optimise import write_comparison

    console = messages()
    with clean_stdout(as_json):
        folder = None if out is None else new_run_dir("optimise", out)
        found = compare(
            problem,
            None if algorithms is None else [a.strip() for a in algorithms.split(",") if a.strip()],
            links=links or None,
            tolerance=tolerance,
            max_iterations=max_iterations,
            seed=seed,
            regions=regions,
            options=options,
            period_s=period_s,
            report=(lambda name: console.print(name, markup=False))
            if console.is_terminal
            else None,
        )
        page = None if folder is None else write_comparison(found, folder)
    for note in found.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True, style="yellow")
    if as_json:
        print_json(found.records())
    else:
        _print(found, page)
    return 0 if any(row.iterations is not None for row in found.rows) else FAILED


def _print(found: Comparison, page: Path | None) -> None:
    console = output()
    console.print(
        f"{found.problem}: optimum {found.optimum:.9g}, tolerance {found.tolerance:g}", markup=False
    )
    shown = [i for i in range(len(_HEAD)) if i not in _WIDE or console.width >= _WIDE_TERMINAL]
    rows = [[_cells(row)[i] for i in shown] for row in found.rows]
    print_table(console, [_HEAD[i] for i in shown], rows, range(1, len(shown)))
    for reason, names in found.errors().items():
        console.print(f"{', '.join(names)}: {reason}", markup=False, soft_wrap=True, style="red")
    if page is not None:
        console.print(f"page    {page}", markup=False, soft_wrap=True)


def _cells(row: Row) -> tuple[str, ...]:
    if row.iterations is None:
        return (row.algorithm, *["-"] * (len(_HEAD) - 2), row.end)
    return (
        row.algorithm,
        f"{row.iterations}",
        f"{row.gap:.1e}",
        f"{row.infeasibility:.1e}",
        f"{row.messages}",
        f"{(row.bytes or 0) / 1e3:.0f}",
        f"{row.seconds:.3g}",
        row.end,
    )
