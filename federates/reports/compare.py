"""``feederate compare``: the metrics of several runs side by side, as table, data and page."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich import box, table, text
from rich.console import Console

from federates.reports.blocks import Links, Page, PageLink, PageSection, TableBlock, Text
from federates.reports.chart import Chart, ShadedBand, side_by_side, small_multiples
from federates.reports.format import (
    clock,
    metric_name,
    metric_number,
    metric_unit,
    warm_up_words,
    with_unit,
)
from federates.reports.market_days import market_day_sections
from federates.reports.page import link_back, write_page
from federates.reports.run import REPORT, voltage_chart
from federates.runs.data import BINS, RunData, Shade
from federates.scenario.attack_wording import span

_SUMMARY = ("steps", "wall_s", "stepping_s", "steps_per_s", "seed", "warm_up_s", "changes")
_COST = (
    ("Warm-up left out", "s", "warm_up_s", 0),
    ("Speed while stepping", "steps/s", "steps_per_s", 0),
    ("Stepping", "s", "stepping_s", 1),
    ("Wall time", "s", "wall_s", 1),
)
_KEYS_PRINTED, _NAME_PRINTED = 30, 24
_SAID_ELSEWHERE = ("title", "description", "defences")
_VALUE, _VALUE_PRINTED = 60, 24
_LACKS = "-"
_FEW, _SMALL_POINTS, _KEYS_AS_COLUMNS = 5, 200, 8
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
    folders = [run.folder.resolve().name for run in runs]
    for labels in (list(map(_changes_in_name, names, folders)), folders):
        if len(set(labels)) == len(labels):
            return labels
    return [str(run.folder) for run in runs]


def _changes_in_name(scenario: str, folder: str) -> str:
    """Return what ``runs/NAME-CHANGES-TIME`` says of the changes; the folder if it is another."""
    found = re.fullmatch(rf"{re.escape(scenario)}-(?:(.+)-)?\d{{8}}-\d{{6}}(?:-\d+)?", folder)
    return folder if found is None else found[1] or scenario


def as_data(runs: Sequence[RunData]) -> dict[str, Any]:
    """Return the comparison as plain data.

    ``{"runs": {label: summary}, "differs": {key: [value of each run]}, "remarks": [text]}``
    """
    labels = run_labels(runs)
    return {
        "runs": {
            label: {"folder": str(run.folder), "status": run.status}
            | {k: run.summary.get(k) for k in _SUMMARY}
            | {"metrics": run.metrics}
            for label, run in zip(labels, runs, strict=True)
        },
        "differs": differences(runs),
        "remarks": remarks(runs, labels),
    }


def metric_table(
    runs: Sequence[RunData], labels: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    """Return head and rows: name, unit, one column per run, or per plant where it has several."""
    columns: list[tuple[str, RunData | None, Mapping[str, float | None]]] = []
    for label, run in zip(labels, runs, strict=True):
        found = run.by_plant(run.metrics)
        shown = {plant: m for plant, m in found.items() if plant or m or len(found) == 1}
        for i, (plant, metrics) in enumerate(shown.items()):
            # What is known of the run as a whole stands in its first column.
            columns.append((f"{label}: {plant}" if plant else label, None if i else run, metrics))
    rows = [["Status", "", *("" if run is None else run.status for _, run, _ in columns)]]
    for key in dict.fromkeys(key for _, _, metrics in columns for key in metrics):
        values = [metric_number(key, metrics.get(key)) for _, _, metrics in columns]
        rows.append([metric_name(key), metric_unit(key), *values])
    for words, unit, key, digits in _COST:
        cells = [
            "" if run is None else _number(run.summary.get(key), digits) for _, run, _ in columns
        ]
        rows.append([words, unit, *cells])
    return ["Metric", "Unit", *(label for label, _, _ in columns)], rows


def differences(runs: Sequence[RunData], letters: int = _VALUE) -> dict[str, list[str]]:
    """Return what differs between the scenarios of runs: the value in each run by dotted key.

    `letters` : Longer values are cut.
    """
    kept = [
        {"scenario file": run.name, "steps": run.manifest.get("steps")}
        | {k: v for k, v in run.scenario.items() if k not in _SAID_ELSEWHERE}
        | {"placement": run.manifest.get("placement"), "versions": run.manifest.get("versions")}
        for run in runs
    ]
    return {key: [_short(v, letters) for v in values] for key, values in _differing("", kept)}


def _differing(path: str, values: Sequence[Any]) -> Iterator[tuple[str, Sequence[Any]]]:
    """Yield the deepest keys whose values differ; one that a run lacks is `_LACKS` there."""
    if all(value == values[0] for value in values[1:]):
        return
    keys: Sequence[Any] = ()
    if all(isinstance(value, dict) for value in values):
        keys = list(dict.fromkeys(key for value in values for key in value))
        values = [{key: value.get(key, _LACKS) for key in keys} for value in values]
    elif all(isinstance(value, list) and len(value) == len(values[0]) for value in values):
        keys = range(len(values[0]))
    if not keys:
        yield path, values
    for key in keys:
        yield from _differing(f"{path}.{key}".lstrip("."), [value[key] for value in values])


def _short(value: Any, letters: int) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= letters else f"{text[: letters - 3]}..."


def remarks(runs: Sequence[RunData], labels: Sequence[str]) -> list[str]:
    """Say what the metrics leave out, and where they cannot be compared: unequal horizons."""
    spans = [
        (run.start_s, float(run.summary.get("steps") or 0) * float(run.scenario["time"]["step_s"]))
        for run in runs
    ]
    out = warm_up_words(runs)
    if len(set(spans)) > 1:
        each = (
            f"{label} {span(lasts)} from {clock(start)}"
            for label, (start, lasts) in zip(labels, spans, strict=True)
        )
        out.append(
            "The runs cover unequal times, so energies, hours, counts and extremes are not "
            f"comparable: {'; '.join(each)}."
        )
    return out


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def print_comparison(runs: Sequence[RunData], console: Console) -> None:
    """Print the metrics, then what differs in the runs' scenarios, and what is not comparable."""
    labels = run_labels(runs)
    _print_columns(*metric_table(runs, labels), console)
    rows = [[key, "", *values] for key, values in differences(runs, _VALUE_PRINTED).items()]
    if rows:
        left_out = len(rows) - _KEYS_PRINTED
        _print_columns(["What differs", "", *labels], rows[:_KEYS_PRINTED], console)
        if left_out > 0:
            console.print(f"{left_out} further keys differ: see --json or --html")
    for words in remarks(runs, labels):
        console.print(words, markup=False)


def _print_columns(head: Sequence[str], rows: Sequence[Sequence[str]], console: Console) -> None:
    """Print a table; columns that do not fit follow in further tables."""
    columns = list(zip(head, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    longest_word = max(len(word) for name in columns[0] for word in name.split())
    room = console.width - _EDGES - widths[1] - _GAP
    least = min(longest_word, _NAME_PRINTED)
    widths[2:] = [min(width, max(1, room - _GAP - least)) for width in widths[2:]]
    shown = list(range(2, len(columns)))
    while shown:
        n, left = 1, room - widths[shown[0]] - _GAP
        while n < len(shown) and left - widths[shown[n]] - _GAP >= least:
            left -= widths[shown[n]] + _GAP
            n += 1
        grid = table.Table(box=box.SIMPLE_HEAD, pad_edge=False)
        grid.add_column(head[0], overflow="fold", width=min(widths[0], max(left, 1)))
        grid.add_column(head[1], no_wrap=True)
        for i in shown[:n]:
            grid.add_column(
                text.Text(columns[i][0]), justify="right", overflow="fold", width=widths[i]
            )
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
    links = [
        PageLink(
            os.path.relpath(run.folder / REPORT, path.parent), label, f"{run.title} ({run.status})"
        )
        for run, label in zip(runs, labels, strict=True)
    ]
    sections = [
        *_tables(runs, labels, links),
        *market_day_sections(dict(zip(labels, runs, strict=True))),
        *voltages_of_runs(dict(zip(labels, runs, strict=True))),
        *([PageSection("Each run", [Links(links)])] if len(runs) <= _FEW else []),
    ]
    said = [Text(text, style="intro") for text in (*intro, *remarks(runs, labels))]
    write_page(path, Page(title, sections, head=said))
    for run in runs:
        link_back(run.folder / REPORT, path, title)
    return path


def _tables(
    runs: Sequence[RunData], labels: Sequence[str], links: Sequence[PageLink]
) -> Iterator[PageSection]:
    """Show metrics and what differs, a column per run; of many runs a row each, to be sorted."""
    head, found = metric_table(runs, labels)
    metrics = [with_unit(name, unit) for name, unit, *_ in found]
    differ = differences(runs)
    columns = head[2:]  # a run's label, or that and a plant's name
    which = [
        next(i for i, x in enumerate(labels) if f"{c}: ".startswith(f"{x}: ")) for c in columns
    ]
    names = [PageLink(links[i].href, name) for i, name in zip(which, columns, strict=True)]
    if len(runs) > _FEW:
        keyed = dict(list(differ.items())[:_KEYS_AS_COLUMNS])
        rows: list[list[str | PageLink]] = [
            [name, *(values[i] for values in keyed.values()), *(row[2 + k] for row in found)]
            for k, (i, name) in enumerate(zip(which, names, strict=True))
        ]
        first = 2 + len(keyed)  # after the run, its keys and its status
        block = TableBlock(
            ["Run", *keyed, *metrics], rows, range(first, first + len(metrics) - 1), style="runs"
        )
        differ = {key: values for key, values in differ.items() if key not in keyed}
    else:
        cells = [[name, *row[2:]] for name, row in zip(metrics, found, strict=True)]
        numbers = range(1, 1 + len(names))
        block = TableBlock(["Metric", *names], cells, numbers, style="compare")
    yield PageSection("Metrics", [block])
    if differ:
        keys = [[key, *values] for key, values in differ.items()]
        wrap = range(1 + len(labels))
        yield PageSection(
            "What differs", [TableBlock(["Key", *labels], keys, wrap=wrap, style="compare")]
        )


def voltages_of_runs(
    runs: Mapping[str, RunData],
    shade: Callable[[RunData], Shade | None] = lambda run: run.shade,
    behind: Callable[[str], str | None] = lambda name: None,
) -> list[PageSection]:
    """Return the voltages of all nodes of each run, one section per plant.

    `behind`: the run that is drawn behind another, in grey.
    """
    many = len(runs) > _FEW and not any(behind(label) for label in runs)
    charts: dict[str, list[Chart]] = {}
    for i, (label, run) in enumerate(runs.items()):
        for plant in run.plants:
            if plant.voltages is None:
                continue
            total = plant.voltages.total.decimated(_SMALL_POINTS if many else BINS)
            style = "s1" if many else f"s{i % 4 + 1}"
            chart = replace(voltage_chart(run, label, total, style), shade=shade(run))
            other = behind(label) or ""
            for p in runs[other].plants if other in runs else ():
                if p.name == plant.name and p.voltages is not None:
                    grey = ShadedBand(other, p.voltages.total, "phase-other")
                    chart = replace(chart, bands=[grey, *chart.bands])
            charts.setdefault(run.label(plant, "Voltages of all nodes"), []).append(chart)
    shown = small_multiples if many else side_by_side
    return [PageSection(title, [shown(row)]) for title, row in charts.items()]
