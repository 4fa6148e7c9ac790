"""Folder of a comparison of optimisation algorithms: tables and ``report.html``."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from federates.core.run_store import write_json
from federates.optimise.compare import Comparison, Row
from federates.reports.blocks import Page, PageSection, TableBlock, Text
from federates.reports.page import write_page
from federates.reports.run import REPORT

_HEAD = (
    "Algorithm", "Iterations", "To tolerance", "Gap", "Infeasibility", "Messages", "Bytes",
    "Seconds", "End",
)  # fmt: skip


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
    errors = [Text(f"{row.algorithm}: {row.error}", "alert") for row in found.rows if row.error]
    sections = [PageSection("Algorithms", [table, *errors])]
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
