"""``sweep.html``: the metrics of a sweep over its keys, its extreme runs and its failures."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from federates.reports.blocks import (
    Drawing,
    Figures,
    Key,
    Page,
    PageLink,
    PageSection,
    TableBlock,
    Text,
    Tile,
    Tiles,
)
from federates.reports.format import (
    metric_digits,
    metric_name,
    metric_number,
    metric_unit,
    with_unit,
)
from federates.reports.page import write_page
from federates.reports.run import REPORT
from federates.runs.sweep import SweepResult
from federates.runs.sweep_tables import RESULTS, column_name, metric_names

PAGE = "sweep.html"
_STYLES = ("s1", "s2", "s4", "s3", "ok-hi", "phase-other")
_MOST_CHARTS, _MOST_ROWS, _MOST_FAILURES, _MOST_REPORTS = 12, 100, 30, 8
_LIMITS = {"v_max_pu": ("v_max_pu", "upper limit"), "v_min_pu": ("v_min_pu", "lower limit")}
_Row = Mapping[str, Any]


def write_sweep_page(result: SweepResult) -> Path:
    """Write ``sweep.html`` into the folder of a sweep; return its path."""
    return write_page(result.folder / PAGE, _page(result))


def _page(result: SweepResult) -> Page:
    rows = [row for row in result.rows if row["status"] == "finished"]
    metrics = _varying(rows, metric_names(result.folder))
    scenario = _scenario(result)
    n, n_all, n_failed = len(result.rows), len(result.plan), len(result.failures)
    badge = ("failed runs", "failed") if n_failed else ("finished", "finished")
    axes = _Axes(result, rows)
    sections = [
        *_curves(axes, metrics, scenario),
        *_extremes(result, rows, metrics, axes),
        *_points(axes, metrics),
        *_failures(result, axes),
    ]
    seeds = len(result.plan.seeds)
    title = f"Sweep of {Path(result.plan.scenario).stem}"
    facts = [
        *([scenario["title"]] if scenario.get("title") else []),
        f"{len(result.plan.points)} points x {seeds} seed{'s' if seeds > 1 else ''}",
        f"all runs in {RESULTS}",
    ]
    stepping_s = sum(row["stepping_s"] or 0.0 for row in result.rows)
    tiles = Tiles(
        [
            Tile("Runs that finished", f"{n - n_failed:,}", f"of {n_all:,}"),
            Tile("Runs that failed", f"{n_failed:,}", mark="bad" if n_failed else ""),
            Tile("Stepping time of all runs", f"{stepping_s:,.1f}", "s"),
        ]
    )
    return Page(title, sections, facts, [tiles], badge if n == n_all else ("not finished", "not"))


def _scenario(result: SweepResult) -> dict[str, Any]:
    """Return the scenario of a run of the sweep, {} where none wrote its manifest."""
    for row in result.rows:
        with contextlib.suppress(OSError, ValueError, KeyError):
            path = result.folder / row["folder"] / "manifest.json"
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["scenario"]
            return found
    return {}


def _varying(rows: Sequence[_Row], names: Sequence[str]) -> list[str]:
    """Return the metrics that differ between runs in the digits that are shown."""
    return [n for n in names if len({metric_number(n, row.get(n)) for row in rows} - {"-"}) > 1]


class _Axes:
    """Which key is drawn along, and which keys tell curves apart.

    The key along is the numeric one with the most values; without a key that varies, the seed.
    """

    def __init__(self, result: SweepResult, rows: Sequence[_Row]) -> None:
        self.rows = rows
        points = [{k: _hashable(p.get(k)) for k in result.plan.keys} for p in result.plan.points]
        values = {key: dict.fromkeys(point[key] for point in points) for key in result.plan.keys}
        varying = [key for key, found in values.items() if len(found) > 1]
        numeric = [key for key in varying if all(_is_number(v) for v in values[key])]
        best = max(numeric or varying, key=lambda key: len(values[key]), default="")
        self.x_key = best
        self.curve_keys = [key for key in varying if key != best]
        self.varying = varying
        if not best:
            self.x_values: list[Any] = list(result.plan.seeds)
        elif numeric:
            self.x_values = sorted(values[best])
        else:
            self.x_values = list(values[best])
        self.labels = None if numeric or not best else [_text(v) for v in self.x_values]
        self.x_name = best or "seed"
        self._points, self._plan = points, result.plan

    def groups(self) -> dict[tuple[Any, ...], dict[int, list[_Row]]]:
        """Return the runs by curve, then by position along."""
        found: dict[tuple[Any, ...], dict[int, list[_Row]]] = {}
        position = {value: i for i, value in enumerate(self.x_values)}
        for row in self.rows:
            point = self._points[row["run"] // len(self._plan.seeds)]
            curve = tuple(point[key] for key in self.curve_keys)
            at = position[point[self.x_key] if self.x_key else row["seed"]]
            found.setdefault(curve, {}).setdefault(at, []).append(row)
        return found

    def words(self, row: _Row) -> str:
        """Say which run a row is of: its keys that vary, and its seed."""
        parts = [f"{_short(key)} {_text(row.get(column_name(key)))}" for key in self.varying]
        return ", ".join([*parts, f"seed {row['seed']}"])


def _hashable(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, (list, dict)) else value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _text(value: Any) -> str:
    return (
        "as in the scenario" if value is None else f"{value:g}" if _is_number(value) else str(value)
    )


def _short(key: str) -> str:
    return key if len(key) <= 24 else key.rpartition(".")[2]


# -- curves --------------------------------------------------------------------------------------


def _curves(
    axes: _Axes, metrics: Sequence[str], scenario: Mapping[str, Any]
) -> Iterator[PageSection]:
    groups = axes.groups()
    if not groups or not metrics:
        yield PageSection("Metrics", [Text("No metric differs between the runs that finished.")])
        return
    shown = _evenly(list(groups), len(_STYLES))
    figures = [
        _figure(name, axes, {c: groups[c] for c in shown}, scenario)
        for name in metrics[:_MOST_CHARTS]
    ]
    words = "Lines are means over the seeds, bands reach from the lowest to the highest run."
    if not axes.x_key:
        words = "One run for each seed."
    if len(shown) < len(groups):
        words += f" {len(shown)} of {len(groups)} curves are drawn; {RESULTS} holds all."
    if len(metrics) > _MOST_CHARTS:
        words += f" {_MOST_CHARTS} of {len(metrics)} metrics are drawn."
    yield PageSection(
        f"Metrics over {axes.x_name}", [Text(words), Figures(figures, min(2, len(figures)))]
    )


def _figure(
    name: str,
    axes: _Axes,
    curves: Mapping[tuple[Any, ...], Mapping[int, Sequence[_Row]]],
    scenario: Mapping[str, Any],
) -> Drawing:
    bands, keys = [], []
    for i, (curve, by_x) in enumerate(curves.items()):
        parts: dict[str, list[float | None]] = {"lowest": [], "mean": [], "highest": []}
        for at in range(len(axes.x_values)):
            found = [row[name] for row in by_x.get(at, ()) if row.get(name) is not None]
            parts["lowest"].append(min(found, default=None))
            parts["mean"].append(math.fsum(found) / len(found) if found else None)
            parts["highest"].append(max(found, default=None))
        if parts["lowest"] == parts["highest"]:
            parts = {"mean": parts["mean"]}
        words = ", ".join(
            f"{_short(key)} {_text(value)}"
            for key, value in zip(axes.curve_keys, curve, strict=True)
        )
        style = _STYLES[i]
        bands.append(
            {
                "name": words,
                "style": style,
                "parts": [{"name": part, "values": v} for part, v in parts.items()],
            }
        )
        if words:
            keys.append(Key(words, style, i))
    data = {
        "title": metric_name(name),
        "x": list(range(len(axes.x_values))) if axes.labels else axes.x_values,
        "labels": axes.labels,
        "x_title": axes.x_name,
        "digits": 3 if (digits := metric_digits(name)) is None else digits,
        "limits": _limits(name, axes, scenario),
        "bands": bands,
    }
    return Drawing("sweep-chart", metric_name(name), keys, data, metric_unit(name), axes.x_name)


def _limits(name: str, axes: _Axes, scenario: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the limit of the voltage band where a metric has one and all runs share it."""
    key, words = _LIMITS.get(name, ("", ""))
    value = scenario.get("band", {}).get(key)
    if value is None or any(k.partition(".")[0] == "band" for k in axes.varying):
        return []
    return [{"value": value, "name": words}]


def _evenly(items: list[Any], n: int) -> list[Any]:
    """Return `n` of the items, evenly spread, first and last among them."""
    if len(items) <= n:
        return items
    return [items[round(i * (len(items) - 1) / (n - 1))] for i in range(n)]


# -- tables --------------------------------------------------------------------------------------


def _extremes(
    result: SweepResult, rows: Sequence[_Row], metrics: Sequence[str], axes: _Axes
) -> Iterator[PageSection]:
    """Yield the runs with the lowest and highest value of each metric, linked."""
    table, linked = [], list[int]()
    for name in metrics:
        known = [row for row in rows if row.get(name) is not None]
        pair = min(known, key=lambda r: r[name]), max(known, key=lambda r: r[name])
        for row in pair:
            if row["run"] not in linked and len(linked) < _MOST_REPORTS:
                linked.append(row["run"])
                _write_report(result.folder / row["folder"])
        cells: list[str | PageLink] = [with_unit(metric_name(name), metric_unit(name))]
        for row in pair:
            cells += [metric_number(name, row[name]), _link(result, row, axes)]
        table.append(cells)
    if table:
        head = ["Metric", "Lowest", "in run", "Highest", "in run"]
        words = (
            "A link leads to the run's report where signals were kept (--keep signals), else "
            "to its summary. The commands make these runs again with all signals."
        )
        commands = [result.plan.options(i).command() for i in linked]
        yield PageSection(
            "Extreme runs",
            [
                Text(words),
                TableBlock(head, table, (1, 3), wrap=(2, 4)),
                Text("\n".join(commands), "details", "Commands that make these runs again"),
            ],
        )


def _write_report(folder: Path) -> None:
    """Write the report of a run whose signals were kept; the page can do without it."""
    if (folder / "signals").is_dir() and not (folder / REPORT).is_file():
        from federates.reports.run import write_report

        with contextlib.suppress(Exception):
            write_report(folder)


def _link(result: SweepResult, row: _Row, axes: _Axes) -> PageLink:
    names = (REPORT, "summary.json", "row.json")
    found = next((n for n in names if (result.folder / row["folder"] / n).is_file()), names[-1])
    return PageLink(f"{row['folder']}/{found}", f"run {row['run']}", f": {axes.words(row)}")


def _points(axes: _Axes, metrics: Sequence[str]) -> Iterator[PageSection]:
    """Yield the mean over the seeds at each point."""
    if not axes.x_key:
        return
    shown = metrics[:6]
    table = []
    for curve, by_x in axes.groups().items():
        for at in sorted(by_x):
            rows = by_x[at]
            cells = [_text(axes.x_values[at]), *map(_text, curve), str(len(rows))]
            for name in shown:
                found = [row[name] for row in rows if row.get(name) is not None]
                cells.append(metric_number(name, math.fsum(found) / len(found) if found else None))
            table.append(cells)
    head = [axes.x_name, *axes.curve_keys, "Runs"]
    names = [with_unit(metric_name(name), metric_unit(name)) for name in shown]
    first = len(head) - 1
    blocks: list[Any] = [
        TableBlock([*head, *names], table[:_MOST_ROWS], range(first, first + 1 + len(shown)))
    ]
    if len(table) > _MOST_ROWS:
        blocks.insert(0, Text(f"The first {_MOST_ROWS} of {len(table)} points."))
    yield PageSection("Means over the seeds", blocks)


def _failures(result: SweepResult, axes: _Axes) -> Iterator[PageSection]:
    rows = result.failures
    if rows:
        table = [[_link(result, row, axes), row["reason"]] for row in rows[:_MOST_FAILURES]]
        title = f"Runs that failed: {len(rows)}"
        yield PageSection(title, [TableBlock(["Run", "Reason"], table, wrap=(1,))])
