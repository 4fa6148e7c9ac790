"""The page of ``feederate attack run``: all states on the same axes, the attack shaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from urllib.parse import quote

import numpy as np

from federates.attacks.truth import read_truth
from federates.reports.attack import attack_of, steps_table, truth_charts
from federates.reports.attack_words import techniques
from federates.reports.chart import Band, Chart, same_axis, time_chart
from federates.reports.format import metric_name, metric_unit
from federates.reports.page import table, write_page
from federates.reports.paired_runs import PairedRuns, paired_states
from federates.reports.run import REPORT, limits, write_report
from federates.runs.data import RunData, Shade, Spread
from federates.runs.paired import BASELINE

_Make = Callable[[RunData], Chart | None]


def rewrite_report(folder: Path) -> Path:
    """Write the page of a folder again, be it that of a run or of paired runs.

    Raises
    ------
    ScenarioError
        The folder holds neither.
    """
    if not (folder / "manifest.json").is_file() and paired_states(folder):
        return write_paired_report(PairedRuns.read(folder))
    return write_report(folder)


def write_paired_report(runs: PairedRuns) -> Path:
    """Write ``report.html`` into the folder of the paired runs."""
    spec = runs.spec
    title = f"{spec.title or spec.id}"
    about = f"<p>{escape(' '.join(spec.description.split()))}</p>" if spec.description else ""
    facts = [f"scenario {runs.scenario}", f"attack {spec.id}", f"attack's seed {spec.seed}"]
    head = (
        f'<header><h1>{escape(title)}</h1><p class="sub">{escape(" · ".join(facts))}</p></header>'
    )
    if spec.techniques:
        names = ", ".join(techniques(spec))
        about += f"<p>MITRE ATT&amp;CK for ICS {escape(spec.attack_version)}: {escape(names)}</p>"
    body = [
        head,
        about,
        *(f'<p class="intro">{escape(words)}</p>' for words in runs.remarks()),
        _market(runs),
        _metrics(runs),
        _steps(runs),
        *_plots(runs),
        _detectors(runs),
        _links(runs),
        "<footer>Written by Feederate. Injections are positive: p = generation - load.</footer>",
    ]
    return write_page(runs.folder / REPORT, title, "\n".join(part for part in body if part))


def _metrics(runs: PairedRuns) -> str:
    rows = []
    for key in runs.keys:
        name, unit = metric_name(key), metric_unit(key)
        cells = []
        for state in runs.names:
            change = runs.change(key, state)
            cells.append(runs.number(key, state) + (f" ({change})" if change else ""))
        rows.append([f"{name}, {unit}" if unit else name, *cells])
    numbers = tuple(range(1, len(runs.names) + 1))
    head = ["In brackets: change against the baseline", *runs.names]
    return (
        f"<section><h2>Metrics</h2>{table(head, rows, numbers=numbers, style='compare')}</section>"
    )


def _market(runs: PairedRuns) -> str:
    if not runs.market:
        return ""
    from federates.reports.market import market_section

    return market_section(runs.runs, runs.market)


def _steps(runs: PairedRuns) -> str:
    parts = []
    for name, run in runs.runs.items():
        spec = attack_of(run)
        if name == BASELINE or spec is None:
            continue
        truth = read_truth(run.folder)
        charts = [time_chart(chart) for chart in truth_charts(run, truth)]
        columns = f'<div class="grid-{min(2, len(charts))}">{"".join(charts)}</div>'
        parts.append(f"<h2>What was done: {escape(name)}</h2>{steps_table(run, spec, truth)}")
        if len(parts) == 1:  # the defences see the same attack
            parts.append(columns if charts else "")
    return f'<section class="stack">{"".join(parts)}</section>' if parts else ""


# -- aligned plots ---------------------------------------------------------------------------------


def _plots(runs: PairedRuns) -> list[str]:
    shades = [run.shade for run in runs.runs.values() if run.shade]
    attacked = replace(shades[0], name=f"time of the {shades[0].name}") if shades else None
    rows: list[tuple[str, _Make]] = [("Voltages of all nodes", _voltage_chart)]
    rows += [
        (title, _feeder_chart(port, title, unit, style))
        for port, title, unit, style in (
            ("import_kw", "Import from the grid above", "kW", "s1"),
            ("p_kw", "Active power of all DERs", "kW", "s4"),
            ("q_kvar", "Reactive power of all DERs", "kvar", "s3"),
        )
    ]
    ports = dict.fromkeys(p for run in runs.runs.values() for p in _set_point_ports(run))
    rows += [(f"Set-points {port}, sum", _set_point_chart(port)) for port in ports]
    detectors = dict.fromkeys(d for run in runs.runs.values() for d in _detector_names(run))
    rows += [(f"Score of {name}", _score_chart(name)) for name in detectors]
    return [text for title, make in rows if (text := _row(runs, title, make, attacked))]


def _row(runs: PairedRuns, title: str, make: _Make, shade: Shade | None) -> str:
    charts = []
    for name, run in runs.runs.items():
        chart = make(run)
        if chart is not None:
            # The baseline is shaded where the attack would have been.
            own = replace(shade, windows=run.shade.windows) if shade and run.shade else shade
            charts.append(replace(chart, title=name, shade=own))
    if not charts:
        return ""
    figures = "".join(time_chart(chart) for chart in same_axis(charts))
    columns = min(3, len(charts)) if len(charts) != 4 else 2
    return f'<section><h2>{escape(title)}</h2><div class="grid-{columns}">{figures}</div></section>'


def _voltage_chart(run: RunData) -> Chart | None:
    if run.voltages is None:
        return None
    band = Band("lowest, median and highest node", run.voltages.total, "s1")
    return Chart("", "Voltage, pu", [band], limits(run), start_s=run.start_s, digits=3)


def _feeder_chart(port: str, title: str, unit: str, style: str) -> _Make:
    def make(run: RunData) -> Chart | None:
        return _line(run, run.total(port), title, unit, style)

    return make


def _line(run: RunData, series: Spread | None, title: str, unit: str, style: str) -> Chart | None:
    if series is None:
        return None
    quantity = f"{title}, {unit}" if unit else title
    biggest = float(np.nanmax(np.abs(series.high), initial=0.0))
    digits = 0 if biggest >= 50 else 1 if biggest >= 5 else 2
    band = Band(title, series, style, fill=False)
    return Chart("", quantity, [band], start_s=run.start_s, digits=digits)


def _set_point_ports(run: RunData) -> list[str]:
    """Return the names of ports that carry set-points and that a federate of the user's writes."""
    names = (name.partition(".") for name in run.recorded)
    return [p for f, _, p in names if "_set_" in p and not f.startswith("attack") and "-" not in p]


def _set_point_chart(port: str) -> _Make:
    unit = {"kvar": "kvar", "kw": "kW", "pu": "pu"}.get(port.rpartition("_")[2], "")

    def make(run: RunData) -> Chart | None:
        parts = [run.total_of(n) for n in run.recorded if n.partition(".")[2] == port]
        series = [p for p in parts if p is not None]
        if not series or any(len(p.mid) != len(series[0].mid) for p in series):
            return _line(run, series[0] if series else None, port, unit, "s2")
        total = np.nansum([p.mid for p in series], axis=0)
        return _line(run, Spread(series[0].time_s, total, total, total), port, unit, "s2")

    return make


def _detector_names(run: RunData) -> list[str]:
    federates = run.scenario.get("federates", {})
    return [
        name
        for name, spec in federates.items()
        if spec.get("kind") == "detector" and f"{name}.score" in run.recorded
    ]


def _score_chart(name: str) -> _Make:
    def make(run: RunData) -> Chart | None:
        series = run.spread_of(f"{name}.score")
        if series is None:
            return None
        top = Spread(series.time_s, series.high, series.high, series.high)
        chart = _line(run, top, "highest score; an alarm from 1 on", "", "s3")
        return None if chart is None else replace(chart, digits=2, y_range=(0.0, 1.0))

    return make


def _detectors(runs: PairedRuns) -> str:
    rows: Sequence[Sequence[str]] = runs.detector_rows()
    if not rows:
        return ""
    numbers = tuple(range(3, len(runs.DETECTOR_HEAD)))
    return (
        f"<section><h2>Detectors</h2>{table(runs.DETECTOR_HEAD, rows, numbers=numbers)}</section>"
    )


def _links(runs: PairedRuns) -> str:
    items = "".join(
        f'<li><a href="{quote(f"{name}/{REPORT}")}">{escape(name)}</a>: {escape(run.status)}</li>'
        for name, run in runs.runs.items()
    )
    return f"<section><h2>Each run</h2><ul>{items}</ul></section>"
