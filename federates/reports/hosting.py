"""Folder of a hosting study: tables, ``summary.json`` and ``report.html`` with a map."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from federates.core.federate import FloatArray
from federates.core.run_store import write_json
from federates.hosting.referee import limit_words
from federates.hosting.study import HostingStudy
from federates.hosting.tables import Columns, write_tables
from federates.reports.blocks import (
    Block,
    Drawing,
    Figures,
    Key,
    Page,
    PageSection,
    TableBlock,
    Text,
    Tile,
    Tiles,
)
from federates.reports.feeder import draw_map
from federates.reports.page import write_page
from federates.reports.run import REPORT

_CLASSES = ("hi2", "hi1", "ok-hi", "ok-lo", "ok", "lo1", "lo2")
"""Classes of the style sheet from the sites with the least PV to those with the most."""
_MOST_ROWS, _FIRST_ROWS = 400, 12
_TABLES = {
    "levers": "Reactive power and devices, each alone",
    "sensitivity": "Over two penetrations",
    "dynamic": "Plans",
    "stochastic_groups": "Groups of sites",
    "stochastic_days": "Days that the design was not made for",
    "nodes": "Nodes",
}
_TILES = (("Mean", "mean"), ("Lowest", "min"), ("Median", "median"), ("Highest", "max"))
_PARTS = (("min", "lowest"), ("median", "median"), ("max", "highest"))
_LIMITS = {
    "overvoltage": ("Highest voltage", "pu"),
    "undervoltage": ("Lowest voltage", "pu"),
    "line": ("Highest loading of a line", "of its rating"),
    "transformer": ("Highest loading of a transformer", "of its rating"),
}


def write_study(found: HostingStudy, folder: Path) -> Path:
    """Write ``summary.json``, a Parquet file for each table and the page; return its path."""
    write_json(folder / "summary.json", found.summary())
    write_tables(found.columns, folder)
    return write_page(folder / REPORT, _page(found))


def _page(found: HostingStudy) -> Page:
    summary = found.summary()
    sections = [
        PageSection("Hosting capacity", list(_result(found, summary))),
        *_map(found),
        *_curves(found),
        *_hours(found),
        *(
            PageSection(title, [_table(found.columns[name])])
            for name, title in _TABLES.items()
            if name in found.columns
        ),
        PageSection("Limits and assumptions", list(_conditions(summary))),
    ]
    facts = [summary["scenario"], f"method {found.method}", f"seed {summary['seed']}"]
    return Page(f"Hosting capacity of {found.case.day.circuit.feeder.name}", sections, facts)


def _result(found: HostingStudy, summary: Mapping[str, Any]) -> Iterator[Block]:
    kw, pct = summary["hc_kw"], summary["hc_pct"]
    shown = [(name, key) for name, key in _TILES if kw[key] is not None]
    if kw["min"] == kw["max"]:
        shown = shown[:1]
    pairs = [(name, f"{kw[key]:,.0f}", f"{pct[key]:.1f}") for name, key in shown]
    yield Tiles([Tile(a, b, "kW", f"{c} % of the peak in kVA") for a, b, c in pairs])
    for note in found.notes:
        yield Text(note, "alert", "Note:")
    rows = [
        (limit_words(row["limit"], row["element"], row["hour"]), str(row["designs"]))
        for row in summary["limiting"]
    ]
    yield TableBlock(("What ends it", "Designs"), rows[:_FIRST_ROWS], (1,))
    if len(rows) > _FIRST_ROWS:
        yield Text(f"The first {_FIRST_ROWS} of {len(rows)}; limiting.parquet has all.")
    for replay in found.replays:
        yield Text(str(replay), "alert" if replay.passed else "paragraph")


def _map(found: HostingStudy) -> Iterator[PageSection]:
    """Yield the feeder with each bus in the colour of its PV."""
    columns = found.columns["nodes"]
    name = "hc_kw" if found.method == "alone" else "pv_kw_mean"
    kw = np.asarray(columns[name], dtype=np.float64)
    known = kw[np.isfinite(kw)]
    if not len(known):
        return
    ends = np.quantile(known, np.linspace(0.0, 1.0, len(_CLASSES) + 1))
    ends = np.unique(ends.round(0 if known.max() > 10.0 else 2))  # no class of "43 to 43 kW"
    states: dict[str, tuple[str, str]] = {}
    texts: dict[str, list[str]] = {}
    least: dict[str, float] = {}
    for k, bus in enumerate(columns["bus"]):
        if np.isfinite(kw[k]):
            words = f"{columns['node'][k]}: {kw[k]:,.0f} kW"
            if found.method == "alone":
                hour = columns["hour"][k]
                words += f", {limit_words(columns['limit'][k], columns['element'][k], hour)}"
            texts.setdefault(bus, []).append(words)
            least[bus] = min(least.get(bus, math.inf), float(kw[k]))
    for bus, value in least.items():
        at = min(int(np.searchsorted(ends, value, side="right")) - 1, len(ends) - 2)
        states[bus] = (_CLASSES[max(at, 0)], "; ".join(texts[bus]))
    classes = [
        (style, f"{low:,.10g} to {high:,.10g} kW")
        for style, low, high in zip(_CLASSES, ends, ends[1:], strict=False)
    ]
    what = "hosts alone" if found.method == "alone" else "has in the mean over the designs"
    text = f"Each bus in the colour of the PV that it {what}"
    feeder = found.case.day.circuit.feeder
    there = feeder.with_ders(feeder.ders[: len(feeder.ders) - len(found.case.whole.sites)])
    drawing = draw_map("Map of the feeder", there, states, classes, text)
    if drawing is not None:
        yield PageSection("Where", [Figures([drawing])])


def _curves(found: HostingStudy) -> Iterator[PageSection]:
    """Yield what each limit is about over the PV installed."""
    table = found.columns.get("curve")
    if table is None:
        return
    x = np.asarray(table["pv_kw"], dtype=np.float64)
    most = found.case.whole.limits.most_by_kind
    drawings = []
    for kind, limit in most.items():
        if f"{kind} median" not in table:
            continue
        title, unit = _LIMITS.get(kind, (kind.capitalize(), ""))
        parts = {part: np.asarray(table[f"{kind} {key}"]) for key, part in _PARTS}
        limits = [{"value": limit, "name": "limit"}]
        drawings.append(_drawing(title, unit, x, "PV installed, kW", [("", "s1", parts)], limits))
    kept = {"mean": 100.0 * np.asarray(table["kept"])}
    title = "Designs that keep all limits"
    drawings.append(_drawing(title, "%", x, "PV installed, kW", [("", "s2", kept)], []))
    words = "Lowest, median and highest of the placements, at the PV installed."
    yield PageSection("Over the PV installed", [Text(words), Figures(drawings, 2)])


def _hours(found: HostingStudy) -> Iterator[PageSection]:
    drawings = []
    if "hours" in found.columns:
        table = found.columns["hours"]
        parts = {part: np.asarray(table[f"{key}_kw"]) for key, part in _PARTS}
        title = "PV output that each hour would take"
        hours = np.asarray(table["hour"])
        drawings.append(_drawing(title, "kW", hours, "Hour of day", [("", "s1", parts)], []))
    if "day" in found.columns:
        drawings += _day(found.columns["day"], found)
    if drawings:
        yield PageSection("Over the day", [Figures(drawings, 2)])


def _day(table: Columns, found: HostingStudy) -> Iterator[Drawing]:
    """Yield the day of the median design beside the base case."""
    hours, limits = np.asarray(table["hour"]), found.case.whole.limits

    def curve(name: str, style: str, column: str) -> tuple[str, str, dict[str, FloatArray]]:
        return name, style, {"mean": np.asarray(table[column])}

    def pair(column: str) -> list[tuple[str, str, dict[str, FloatArray]]]:
        return [curve("design", "s1", column), curve("base case", "s2", f"base_{column}")]

    powers = [
        curve("load", "s2", "load_kw"),
        curve("sites", "s1", "site_kw"),
        curve("import", "s3", "import_kw"),
    ]
    x_title = "Hour of day"
    yield _drawing("Powers of the median design", "kW", hours, x_title, powers, [])
    ends = [{"value": limits.v_max_pu, "name": "limit"}]
    yield _drawing("Highest voltage", "pu", hours, x_title, pair("v_max_pu"), ends)
    ends = [{"value": limits.v_min_pu, "name": "limit"}]
    yield _drawing("Lowest voltage", "pu", hours, x_title, pair("v_min_pu"), ends)
    yield _drawing("Highest loading", "%", hours, x_title, pair("loading_max_pct"), [])


def _drawing(
    title: str,
    unit: str,
    x: FloatArray,
    x_title: str,
    curves: Sequence[tuple[str, str, Mapping[str, FloatArray]]],
    limits: Sequence[Mapping[str, Any]],
) -> Drawing:
    bands = [
        {
            "name": name,
            "style": style,
            "parts": [{"name": part, "values": _values(v)} for part, v in parts.items()],
        }
        for name, style, parts in curves
    ]
    keys = [Key(name, style, i) for i, (name, style, _) in enumerate(curves) if name]
    digits = 4 if unit == "pu" else 2 if unit.startswith("of") else 0
    data = {
        "title": title, "x": _values(x), "labels": None, "x_title": x_title, "digits": digits,
        "limits": list(limits), "bands": bands,
    }  # fmt: skip
    return Drawing("sweep-chart", title, keys, data, unit, x_title)


def _values(values: FloatArray) -> list[float | None]:
    return [float(f"{v:.6g}") if np.isfinite(v) else None for v in np.asarray(values).tolist()]


def _table(columns: Columns) -> TableBlock:
    head = list(columns)
    rows = [tuple(map(_cell, row)) for row in zip(*columns.values(), strict=True)]
    first = next(iter(columns))
    numbers = [k for k, name in enumerate(head) if name != first and not _is_text(columns[name])]
    return TableBlock([name.replace("_", " ") for name in head], rows[:_MOST_ROWS], numbers)


def _is_text(values: Sequence[Any]) -> bool:
    return any(isinstance(value, str) for value in values)


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value
    if not np.isfinite(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000.0 else f"{value:.4g}"


def _conditions(summary: Mapping[str, Any]) -> Iterator[Block]:
    for title in ("limits", "assumptions", "base_case"):
        rows = [(key.replace("_", " "), _words(value)) for key, value in summary[title].items()]
        yield TableBlock((title.replace("_", " ").capitalize(), ""), rows, wrap=(1,))


def _words(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_words(v)}" for key, v in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_words, value)) or "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
