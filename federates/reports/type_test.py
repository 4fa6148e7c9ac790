"""Page and table of a type test: ``report.html`` and ``steps.csv`` in its folder."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from federates.reports.blocks import (
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
from federates.reports.page import write_page
from hil.type_tests.engine import Check, StepResult
from hil.type_tests.run import Outcome

PAGE, TABLE = "report.html", "steps.csv"
_CHECK_COLUMNS = ("what", "value", "low", "target", "high")
_QUANTITIES = {"p_pu": "Active power", "q_pu": "Reactive power"}
_WORDS = {
    "p_pu": "active power",
    "q_pu": "reactive power",
    "current_pu": "current",
    "clearing_s": "clearing time, s",
}


def write_type_test(folder: Path, outcome: Outcome, tested: str) -> Path:
    """Write page and table into `folder`; return the page. `tested` says what was on the bench."""
    with (folder / TABLE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        head = ("step", "clause", "name", "v_pu", "f_hz", "power_pu", "p_pu", "q_pu")
        writer.writerow((*head, *_CHECK_COLUMNS, "passed", "note"))
        for k, result in enumerate(outcome.results, start=1):
            m, step = result.measured, result.step
            here = (k, step.clause, step.name, _number(step.v_pu), step.hz, step.power_pu,
                    _number(m.p), _number(m.q))  # fmt: skip
            for check in result.checks or (Check("-", math.nan),):
                figures = (check.what, *map(_number, (check.value, check.low, check.target,
                                                      check.high)))  # fmt: skip
                passed = check.passed if result.checks else result.passed
                writer.writerow((*here, *figures, passed, result.note))
    return write_page(folder / PAGE, _page(outcome, tested))


def _number(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else ""


def _page(outcome: Outcome, tested: str) -> Page:
    results, worst, r = outcome.results, outcome.worst, outcome.ratings
    failed = sum(not result.passed for result in results)
    tiles = [
        Tile("Steps", str(len(results))),
        Tile("Steps that failed", str(failed), mark="bad" if failed else "good"),
    ]
    if worst:
        tiles.append(
            Tile(
                "Largest share of what is accepted",
                f"{100.0 * worst['used']:.1f}",
                "%",
                hint=f"{worst['what']}, {worst['step']}",
                mark="bad" if worst["used"] > 1 else "",
            )
        )
    facts = [
        f"IEEE Std 1547.1-2020, {outcome.procedure}",
        f"{outcome.device}: {tested}",
        f"{r.w / 1e3:g} kW, {r.va / 1e3:g} kVA, categories {r.normal} and {r.abnormal}",
    ]
    badge = ("passed", "finished") if outcome.passed else ("failed", "failed")
    sections = [*_figures(outcome), _table(results)]
    if outcome.not_run:
        rows = [[words] for words in outcome.not_run]
        sections.append(PageSection("Not run", [TableBlock(["What"], rows, wrap=(0,))]))
    words = "Power is in pu of the rated active power, reactive power of the rated apparent power."
    return Page(f"Type test of {outcome.device}", sections, facts, [Tiles(tiles), Text(words)],
                badge)  # fmt: skip


def _figures(outcome: Outcome) -> Iterator[PageSection]:
    figures = []
    for what, title in _QUANTITIES.items():
        rows = [
            (k, c) for k, r in enumerate(outcome.results, 1) for c in r.checks if c.what == what
        ]
        if len(rows) < 2 or not any(math.isfinite(c.target) for _, c in rows):
            continue  # limits on one side only: nothing to draw
        accepted = {
            "lowest": [_finite(c.low) for _, c in rows],
            "mean": [_finite(c.target) for _, c in rows],
            "highest": [_finite(c.high) for _, c in rows],
        }
        names = {"accepted": accepted, "measured": {"mean": [_finite(c.value) for _, c in rows]}}
        bands = [
            {"name": name, "style": style,
             "parts": [{"name": part, "values": v} for part, v in parts.items()]}
            for (name, parts), style in zip(names.items(), ("s1", "s2"), strict=True)
        ]  # fmt: skip
        data = {
            "title": title, "x": [k for k, _ in rows], "labels": None, "x_title": "step",
            "digits": 3, "limits": [], "bands": bands,
        }  # fmt: skip
        keys = [Key("accepted, with the expected value", "s1", 0), Key("measured", "s2", 1)]
        figures.append(Drawing("sweep-chart", title, keys, data, "pu", "step"))
    if figures:
        yield PageSection("Measured and accepted", [Figures(figures, len(figures))])


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _table(results: Sequence[StepResult]) -> PageSection:
    rows = []
    for k, result in enumerate(results, start=1):
        step = result.step
        where = [step.name, f"{step.v_pu:.3f}", f"{step.hz:.3f}"]
        for check in result.checks or (Check("no trip", math.nan),):
            verdict = "passed" if check.passed or not result.checks else "failed"
            figures = [_short(v) for v in (check.value, check.low, check.target, check.high)]
            quantity = " ".join(_WORDS.get(word, word) for word in check.what.split(" "))
            rows.append([str(k), verdict, *where, quantity, *figures, step.clause, result.note])
    head = ["Step", "Result", "What", "Voltage pu", "Hz", "Quantity", "Measured", "Lowest",
            "Expected", "Highest", "Clause", "Remark"]  # fmt: skip
    if not any(row[-1] for row in rows):
        head, rows = head[:-1], [row[:-1] for row in rows]
    return PageSection("Steps", [TableBlock(head, rows, (0, 3, 4, 6, 7, 8, 9), wrap=(2, 5, 11))])


def _short(value: float) -> str:
    return f"{round(value, 4) + 0.0:.5g}" if math.isfinite(value) else "-"  # never -0
