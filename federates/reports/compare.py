"""``feederate compare``: the metrics of several runs side by side, as table, data and page."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich import box, table, text
from rich.console import Console

from federates.reports.blocks import Links, Page, PageLink, PageSection, TableBlock, Text
from federates.reports.chart import Chart, side_by_side
from federates.reports.format import metric_name, metric_number, metric_unit, with_unit
from federates.reports.page import write_page
from federates.reports.run import REPORT, voltage_chart
from federates.runs.data import RunData, Shade

_GAP, _EDGES = 3, 2  # between two columns of a printed table, and at its sides


def load_runs(folders: Sequence[Path]) -> list[RunData]:
    """Open runs.

    Raises ScenarioError: A folder holds no run.
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
    """Print the metrics, one column per run; runs that do not fit follow in further tables."""
    labels, rows = run_labels(runs), metric_rows(runs)
    columns = list(zip(["Metric", "Unit", *labels], *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    longest_word = max(len(word) for name in columns[0] for word in name.split())
    room = console.width - _EDGES - widths[1] - _GAP
    shown = list(range(2, len(columns)))
    while shown:
        n, left = 1, room - widths[shown[0]] - _GAP
        while n < len(shown) and left - widths[shown[n]] - _GAP >= longest_word:
            left -= widths[shown[n]] + _GAP
            n += 1
        grid = table.Table(box=box.SIMPLE_HEAD, pad_edge=False)
        grid.add_column("Metric", overflow="fold", width=min(widths[0], max(left, 1)))
        grid.add_column("Unit", no_wrap=True)
        for i in shown[:n]:
            grid.add_column(text.Text(columns[i][0]), justify="right", overflow="fold")
        for row in rows:
            grid.add_row(*(text.Text(row[i]) for i in (0, 1, *shown[:n])))
        console.print(grid)
        shown = shown[n:]


def write_comparison(
    runs: Sequence[RunData],
    path: Path,
    title: str = "Runs compared",
    intro: Sequence[str] = (),
    labels: Sequence[str] | None = None,
) -> Path:
    """Write one page with the metrics and the voltages of all runs; `intro` is said first."""
    labels = run_labels(runs) if labels is None else labels
    rows = [[with_unit(name, unit), *values] for name, unit, *values in metric_rows(runs)]
    numbers = range(1, len(runs) + 1)
    links = [
        PageLink(
            os.path.relpath(run.folder / REPORT, path.parent), label, f"{run.title} ({run.status})"
        )
        for run, label in zip(runs, labels, strict=True)
    ]
    sections = [
        PageSection("Metrics", [TableBlock(["Metric", *labels], rows, numbers, style="compare")]),
        *voltages_of_runs(dict(zip(labels, runs, strict=True))),
        PageSection("Each run", [Links(links)]),
    ]
    return write_page(path, Page(title, sections, head=[Text(t, style="intro") for t in intro]))


def voltages_of_runs(
    runs: Mapping[str, RunData], shade: Callable[[RunData], Shade | None] = lambda run: run.shade
) -> list[PageSection]:
    """Return the voltages of all nodes of each run, one section per plant."""
    charts: dict[str, list[Chart]] = {}
    for i, (label, run) in enumerate(runs.items()):
        for plant in run.plants:
            if plant.voltages is not None:
                title = run.label(plant, "Voltages of all nodes")
                chart = voltage_chart(run, label, plant.voltages.total, f"s{i % 4 + 1}")
                charts.setdefault(title, []).append(replace(chart, shade=shade(run)))
    return [PageSection(title, [side_by_side(row)]) for title, row in charts.items()]
