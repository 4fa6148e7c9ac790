"""``feederate compare``: the metrics of several runs side by side, as table, data and page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from federates.reports.chart import Band, Chart, same_axis, time_chart
from federates.reports.format import metric_name, metric_number, metric_unit
from federates.reports.page import table, write_page
from federates.reports.run import REPORT, limits
from federates.runs.data import RunData

_GAP, _EDGES = 3, 2  # between two columns of a printed table, and at its sides


def load_runs(folders: Sequence[Path]) -> list[RunData]:
    """Open runs.

    Raises
    ------
    ScenarioError
        A folder holds no run.
    """
    return [RunData(folder) for folder in folders]


def run_labels(runs: Sequence[RunData]) -> list[str]:
    """Return a name for each run: its scenario's, or its folder's where two share one."""
    names = [run.name for run in runs]
    if len(set(names)) == len(names):
        return names
    names = [run.folder.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.folder) for run in runs]


def metric_keys(runs: Sequence[RunData]) -> list[str]:
    """Return the metrics that any of the runs has, in order of appearance."""
    return list(dict.fromkeys(key for run in runs for key in run.metrics))


def as_data(runs: Sequence[RunData]) -> dict[str, Any]:
    """Return the comparison as plain data: ``{"runs": {label: summary}}``."""
    return {
        "runs": {
            label: {"folder": str(run.folder), "status": run.status}
            | {k: run.summary.get(k) for k in ("steps", "wall_s", "steps_per_s", "seed")}
            | {"metrics": run.metrics}
            for label, run in zip(run_labels(runs), runs, strict=True)
        }
    }


def metric_rows(runs: Sequence[RunData]) -> list[list[str]]:
    """Return name, unit and one value per run, for each metric and for status and speed."""
    rows = [["Status", "", *(run.status for run in runs)]]
    for key in metric_keys(runs):
        values = [metric_number(key, run.metrics.get(key)) for run in runs]
        rows.append([metric_name(key), metric_unit(key), *values])
    speeds = [run.summary.get("steps_per_s") for run in runs]
    rows.append(["Speed", "steps/s", *("-" if s is None else f"{s:,.0f}" for s in speeds)])
    return rows


def print_comparison(runs: Sequence[RunData], console: Console) -> None:
    """Print the metrics: one column per run, or one row per run when the columns do not fit.

    Rows that are too long for the console, too, become several tables below each other.
    """
    labels, rows = run_labels(runs), metric_rows(runs)
    head = ["Metric", "Unit", *labels]
    columns = list(zip(head, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    room = console.width - _EDGES
    others = sum(widths[1:]) + _GAP * (len(widths) - 1)
    if others + _longest_word(columns[0]) <= room:
        widths[0] = min(widths[0], room - others)
        _print(head, rows, widths, console, texts=2)
        return
    names = [f"{name}, {unit}" if unit else name for name, unit, *_ in rows]
    values = [row[2:] for row in rows]
    widths = [max(_longest_word([n]), *map(len, v)) for n, v in zip(names, values, strict=True)]
    first = min(max(map(len, labels)), room // 2)
    for block in _blocks(widths, room - first):
        by_run = [list(row) for row in zip(labels, *(values[i] for i in block), strict=True)]
        head = ["Run", *(names[i] for i in block)]
        _print(head, by_run, [first, *(widths[i] for i in block)], console, texts=1)


def _longest_word(texts: Sequence[str]) -> int:
    return max(len(word) for text in texts for word in text.split() or [""])


def _blocks(widths: Sequence[int], room: int) -> list[list[int]]:
    """Return columns in groups whose widths, with a gap each, fit into `room`; one at least."""
    blocks: list[list[int]] = [[]]
    left = room
    for i, width in enumerate(widths):
        if blocks[-1] and width + _GAP > left:
            blocks.append([])
            left = room
        blocks[-1].append(i)
        left -= width + _GAP
    return blocks


def _print(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    widths: Sequence[int],
    console: Console,
    texts: int,
) -> None:
    """Print a table; the first `texts` columns are words, the others numbers."""
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, (words, width) in enumerate(zip(head, widths, strict=True)):
        justify: Literal["left", "right"] = "left" if i < texts else "right"
        grid.add_column(Text(words), justify=justify, overflow="fold", width=width)
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    console.print(grid)


def write_comparison(
    runs: Sequence[RunData],
    path: Path,
    title: str = "Runs compared",
    intro: Sequence[str] = (),
    labels: Sequence[str] | None = None,
) -> Path:
    """Write one page with the metrics and the voltages of all runs; `intro` is said first."""
    labels = run_labels(runs) if labels is None else labels
    rows = [
        [f"{name}, {unit}" if unit else name, *values] for name, unit, *values in metric_rows(runs)
    ]
    numbers = tuple(range(1, len(runs) + 1))
    body = [
        f"<header><h1>{escape(title)}</h1></header>",
        *(f'<p class="intro">{escape(words)}</p>' for words in intro),
        f"<section><h2>Metrics</h2>"
        f"{table(['Metric', *labels], rows, numbers=numbers, style='compare')}</section>",
        _voltages(runs, labels),
        f"<section><h2>Each run</h2><ul>{_links(runs, labels, path)}</ul></section>",
    ]
    return write_page(path, title, "\n".join(body))


def _links(runs: Sequence[RunData], labels: Sequence[str], path: Path) -> str:
    items = []
    for run, label in zip(runs, labels, strict=True):
        words = f"{escape(label)}</a>: {escape(run.title)} ({escape(run.status)})"
        target = os.path.relpath(run.folder / REPORT, path.parent)
        items.append(f'<li><a href="{quote(target)}">{words}</li>')
    return "".join(items)


def _voltages(runs: Sequence[RunData], labels: Sequence[str]) -> str:
    charts = []
    for i, (run, label) in enumerate(zip(runs, labels, strict=True)):
        if run.voltages is not None:
            band = Band("lowest, median and highest node", run.voltages.total, f"s{i % 4 + 1}")
            charts.append(
                Chart(
                    label,
                    "Voltage, pu",
                    [band],
                    limits(run),
                    start_s=run.start_s,
                    digits=3,
                    shade=run.shade,
                )
            )
    if not charts:
        return ""
    figures = "".join(time_chart(chart) for chart in same_axis(charts))
    return (
        f'<section><h2>Voltages of all nodes</h2><div class="grid-{min(3, len(charts))}">'
        f"{figures}</div></section>"
    )
