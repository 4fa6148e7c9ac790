"""Folder of a comparison of optimisation algorithms: tables and ``report.html``."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from controllers.core.mail import IntArray
from federates.core.run_store import write_json
from federates.optimise.compare import Comparison, Row
from federates.optimise.loop import Curve
from federates.reports.blocks import Drawing, Figures, Key, Page, PageSection, TableBlock, Text
from federates.reports.page import write_page
from federates.reports.run import REPORT

_HEAD = (
    "Algorithm", "Iterations", "To tolerance", "Gap", "Infeasibility", "Messages", "Bytes",
    "Seconds", "End",
)  # fmt: skip
_STYLES = ("s1", "s2", "s4", "s3", "ok-hi", "phase-other")
_POINTS = 160
_SMALLEST = 1e-16


def write_comparison(found: Comparison, folder: Path) -> Path:
    """Write ``rows.json``, ``rows.csv``, ``curves.csv`` and the page; return the page's path."""
    rows = found.records()
    write_json(folder / "rows.json", rows)
    _write_csv(folder / "rows.csv", rows)
    _write_csv(folder / "curves.csv", list(_curve_rows(found)))
    return write_page(folder / REPORT, _page(found))


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _curve_rows(found: Comparison) -> Iterator[dict[str, Any]]:
    for name, curve in found.curves.items():
        columns = (curve.iteration, curve.time_s, curve.gap, curve.infeasibility)
        for iteration, time_s, gap, infeasibility in zip(*map(list, columns), strict=True):
            yield {
                "algorithm": name,
                "iteration": int(iteration),
                "time_s": float(time_s),
                "gap": float(gap),
                "infeasibility": float(infeasibility),
            }


def _page(found: Comparison) -> Page:
    ended = sum(row.converged for row in found.rows)
    facts = [
        f"optimum {found.optimum:.9g}",
        f"tolerance {found.tolerance:g}",
        f"{found.period_s:g} s between steps",
        f"{ended} of {len(found.rows)} algorithms converged",
    ]
    table = TableBlock(_HEAD, [_cells(row) for row in found.rows], range(1, len(_HEAD) - 1))
    errors = [
        Text(reason, "alert", ", ".join(names) + ":") for reason, names in found.errors().items()
    ]
    sections = [PageSection("Algorithms", [table, *errors])]
    if found.curves:
        words = "Relative gap to the optimum over iterations; a gap below 1e-16 is drawn there."
        drawings = list(_drawings(found))
        figures = Figures(drawings, min(2, len(drawings)))
        sections.append(PageSection("Convergence", [Text(words), figures]))
    return Page(f"Optimisation of {found.problem}", sections, facts)


def _cells(row: Row) -> tuple[str, ...]:
    if row.iterations is None:
        return (row.algorithm, *["-"] * (len(_HEAD) - 2), row.end)
    within = row.iterations_to_tolerance
    return (
        row.algorithm,
        f"{row.iterations:,}",
        "-" if within is None else f"{within:,}",
        f"{row.gap:.1e}",
        f"{row.infeasibility:.1e}",
        f"{row.messages:,}",
        f"{row.bytes:,}",
        f"{row.seconds:.4g}",
        row.end,
    )


def _drawings(found: Comparison) -> Iterator[Drawing]:
    """Yield the curves, a few to a figure, all over the same iterations."""
    names = list(found.curves)
    last = max(int(c.iteration[-1]) for c in found.curves.values() if len(c.iteration))
    at = np.unique(np.round(np.geomspace(1.0, max(2, last), _POINTS)).astype(np.int64))
    n_figures = -(-len(names) // len(_STYLES))
    per_figure = -(-len(names) // n_figures)
    for part in (names[i : i + per_figure] for i in range(0, len(names), per_figure)):
        styled = list(zip(part, _STYLES, strict=False))
        bands = [
            {
                "name": name,
                "style": style,
                "parts": [{"name": "mean", "values": _values(found.curves[name], at)}],
            }
            for name, style in styled
        ]
        title = "Gap over iterations"
        keys = [Key(name, style, i) for i, (name, style) in enumerate(styled)]
        data = {
            "title": title, "x": at.tolist(), "labels": None, "x_title": "Iteration", "digits": 3,
            "limits": [{"value": found.tolerance, "name": "tolerance"}], "bands": bands,
            "log": True,
        }  # fmt: skip
        yield Drawing("sweep-chart", title, keys, data, "Gap", "Iteration")


def _values(curve: Curve, at: IntArray) -> list[float | None]:
    """Return a curve's gap at iterations, None before its first and after its last."""
    row = np.searchsorted(curve.iteration, at, side="right") - 1
    known = (row >= 0) & (at <= np.max(curve.iteration, initial=0))
    gap = np.where(known, np.maximum(curve.gap[row], _SMALLEST), np.nan) if len(curve.gap) else at
    return [float(g) if np.isfinite(g) else None for g in np.where(known, gap, np.nan)]
