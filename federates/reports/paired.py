"""The page of ``feederate attack run``: all states on the same axes, the attack shaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from federates.attacks.truth import read_truth
from federates.reports.attack import about, attack_of, steps_table, truth_charts
from federates.reports.blocks import Block, Links, Page, PageLink, PageSection, TableBlock, Text
from federates.reports.books import markets, once_cleared
from federates.reports.chart import Chart, ShadedBand, in_rows, side_by_side
from federates.reports.compare import voltages_of_runs
from federates.reports.format import metric_name, metric_unit, warm_up_words, with_unit
from federates.reports.page import link_back, write_page
from federates.reports.paired_runs import CHANGES, DETECTOR_HEAD, PairedRuns, paired_states
from federates.reports.run import ISLAND_CHARTS, REPORT, write_report
from federates.reports.sweep import write_sweep_page
from federates.reports.transmission import TRANSMISSION_ROWS
from federates.runs.data import RunData, Spread, with_changes
from federates.runs.paired import clean_of
from federates.runs.sweep import PLAN, read_sweep

_KW, _MW = "Power, kW", "Power, MW"
# Of those of an island one label each, of the others all.
_PLANT_PORTS: tuple[tuple[str, str, str, str, tuple[str, ...] | None], ...] = (
    *((port, title, axis, style, None) for port, title, axis, style in TRANSMISSION_ROWS),
    ("total_kw", "Import of all feeders", _MW, "s1", None),
    ("import_kw", "Import from the grid above", _KW, "s1", None),
    *((port, title, _KW, style, (label,)) for port, title, style, label in ISLAND_CHARTS),
    ("p_kw", "Active power of all DERs", _KW, "s4", None),
    ("q_kvar", "Reactive power of all DERs", "Reactive power, kvar", "s3", None),
)
_BUSES = "lowest, median and highest bus"
_MakeSeries = Callable[[RunData], Spread | None]


def rewrite_report(folder: Path) -> Path:
    """Write the page of a folder again, be it that of a run, of paired runs or of a sweep.

    Raises ScenarioError: The folder holds none of them.
    """
    if (folder / PLAN).is_file():
        return write_sweep_page(read_sweep(folder))
    if not (folder / "manifest.json").is_file() and paired_states(folder):
        return write_paired_report(PairedRuns.read(folder))
    return write_report(folder)


def write_paired_report(runs: PairedRuns) -> Path:
    """Write ``report.html`` into the folder of the paired runs."""
    spec = runs.spec
    title = with_changes(spec.title or spec.id, runs.changes)
    page = write_page(
        runs.folder / REPORT,
        Page(
            title=title,
            facts=[f"scenario {runs.scenario}", f"attack {spec.id}", f"attack's seed {spec.seed}"],
            head=[
                *about(spec),
                *(Text(words, style="intro") for words in warm_up_words(list(runs.runs.values()))),
                *(Text(words, style="intro") for words in runs.remarks()),
            ],
            sections=[section for make in SECTIONS for section in make(runs)],
        ),
    )
    for run in runs.runs.values():
        link_back(run.folder / REPORT, page, f"All states: {title}")
    return page


def market(runs: PairedRuns) -> Iterator[PageSection]:
    """Show what was metered before, under attack and mitigated, where there is a market."""
    if runs.market:
        from federates.reports.market import market_section

        yield market_section(runs.runs, runs.market, runs.spec.published)


def metrics(runs: PairedRuns) -> Iterator[PageSection]:
    """Show every metric of every state, with its change by the attack or by the defence."""
    for plant, keys in runs.groups:
        rows = []
        for key in keys:
            cells = []
            for state in runs.names:
                change = runs.change(key, state)
                cells.append(runs.number(key, state) + (f" ({change})" if change else ""))
            name = metric_name(key.removeprefix(f"{plant}."))
            rows.append([with_unit(name, metric_unit(key)), *cells])
        head = ["Metric", *runs.names]
        table = TableBlock(head, rows, range(1, len(head)), style="compare")
        title = f"{plant}: Metrics" if plant else "Metrics"
        yield PageSection(title, [Text(f"In brackets: {CHANGES.lower()}."), table])


def steps(runs: PairedRuns) -> Iterator[PageSection]:
    """Show the steps of the attack in each state, and the values as they were and were seen."""
    first = True
    for name, run in runs.runs.items():
        spec = attack_of(run)
        if spec is None:
            continue
        truth = read_truth(run.folder)
        blocks: list[Block] = [steps_table(run, spec, truth)]
        # The defences see the same attack.
        if first and (charts := truth_charts(run, truth, runs.runs.get(clean_of(name) or ""))):
            blocks.append(in_rows(charts, 2))
        first = False
        yield PageSection(f"What was done: {name}", blocks)


def curves(runs: PairedRuns) -> Iterator[PageSection]:
    """Show the same signals of all states side by side."""
    yield from voltages_of_runs(runs.runs, runs.shade, clean_of)
    rows: list[tuple[str, str, str, _MakeSeries]] = []
    for plant in runs.first.plants:
        # Of many feeders the ports of a single one are those of the first.
        first = ", first feeder" if plant.kind == "feeders" else ""
        rows += [
            (
                runs.first.label(plant, title if port == "total_kw" else title + first),
                unit,
                style,
                _total_of(f"{plant.name}.{port}", part, unit),
            )
            for port, title, unit, style, part in _PLANT_PORTS
        ]
    ports = dict.fromkeys(p for run in runs.runs.values() for p in _set_point_ports(run))
    rows += [
        (f"Set-points {port}, sum", with_unit(port, metric_unit(port)), "s2", _set_points(port))
        for port in ports
    ]
    for title, y_title, style, series_of in rows:
        yield from _row(runs, title, y_title, style, series_of)


def scores(runs: PairedRuns) -> Iterator[PageSection]:
    """Show the score of each detector in all states."""
    for name in dict.fromkeys(d for run in runs.runs.values() for d in _detectors(run)):
        y_title = "highest score; an alarm from 1 on"
        yield from _row(runs, f"Score of {name}", y_title, "s3", _highest_score(name), (0.0, 1.0))


def prices(runs: PairedRuns) -> Iterator[PageSection]:
    """Show the prices of each market in all states."""
    for market in dict.fromkeys(m for run in runs.runs.values() for m in markets(run)):
        unit, make = "Price, money per MWh", _prices_of(market)
        yield from _row(runs, f"Price of active power: {market}", unit, "s4", make, legend=_BUSES)


def _row(
    runs: PairedRuns,
    title: str,
    y_title: str,
    style: str,
    series_of: _MakeSeries,
    include: tuple[float, ...] = (),
    legend: str = "",
) -> Iterator[PageSection]:
    """Show one chart per state that has the series; `legend` names it where it is a range."""
    found = {name: series_of(run) for name, run in runs.runs.items()}
    charts = [
        Chart(name, y_title,
              [*_behind(found, name), ShadedBand(legend or name, series, style, bool(legend))],
              (), include, run.start_s, shade=runs.shade(run))
        for name, run in runs.runs.items()
        if (series := found[name]) is not None
    ]  # fmt: skip
    # A sum that is 0 in all states says nothing, such as the tie flow of a system of one area.
    if any(series is not None and series.mid.any() for series in found.values()):
        yield PageSection(title, [side_by_side(charts)])


def detectors(runs: PairedRuns) -> Iterator[PageSection]:
    """Show how well the detectors did."""
    rows = runs.detector_rows()
    if rows:
        numbers = range(3, len(DETECTOR_HEAD))
        yield PageSection("Detectors", [TableBlock(DETECTOR_HEAD, rows, numbers)])


def links(runs: PairedRuns) -> Iterator[PageSection]:
    """Link to the page of each run."""
    items = [PageLink(f"{name}/{REPORT}", name, run.status) for name, run in runs.runs.items()]
    yield PageSection("Each run", [Links(items)])


def _behind(found: Mapping[str, Spread | None], name: str) -> list[ShadedBand]:
    """Return the curve of a state's run without attack, to be drawn behind it."""
    clean = clean_of(name)
    base = None if clean is None else found.get(clean)
    if clean is None or base is None:
        return []
    return [ShadedBand(clean, Spread(base.time_s, *(base.mid,) * 3), "phase-other", fill=False)]


SECTIONS = (market, metrics, steps, curves, prices, scores, detectors, links)
"""The sections of a page of paired runs, in order."""


def _total_of(name: str, labels: tuple[str, ...] | None, y_title: str) -> _MakeSeries:
    scale = 1e-3 if name.endswith("_kw") and y_title == _MW else 1.0

    def make(run: RunData) -> Spread | None:
        total = run.total_of(name, labels)
        return total and Spread(
            total.time_s, *(scale * v for v in (total.low, total.mid, total.high))
        )

    return make


def _prices_of(market: str) -> _MakeSeries:
    def make(run: RunData) -> Spread | None:
        found = run.spread_of(f"{market}.price_per_mwh")
        return found and once_cleared(found)

    return make


def _highest_score(detector: str) -> _MakeSeries:
    def make(run: RunData) -> Spread | None:
        series = run.spread_of(f"{detector}.score") if detector in _detectors(run) else None
        return series and Spread(series.time_s, series.high, series.high, series.high)

    return make


def _set_point_ports(run: RunData) -> list[str]:
    """Return the names of ports that carry set-points and that a federate of the user's writes."""
    names = (name.partition(".") for name in run.recorded)
    return [p for f, _, p in names if "_set_" in p and not f.startswith("attack") and "-" not in p]


def _set_points(port: str) -> _MakeSeries:
    """Return the sum of a port over all federates that write it."""

    def make(run: RunData) -> Spread | None:
        parts = [run.total_of(n) for n in run.recorded if n.partition(".")[2] == port]
        series = [p for p in parts if p is not None]
        if not series or any(len(p.mid) != len(series[0].mid) for p in series):
            return series[0] if series else None
        total = np.nansum([p.mid for p in series], axis=0)
        return Spread(series[0].time_s, total, total, total)

    return make


def _detectors(run: RunData) -> list[str]:
    """Return the detectors of a run whose score was recorded."""
    federates = run.scenario.get("federates", {}).items()
    names = [name for name, spec in federates if spec.get("kind") == "detector"]
    return [name for name in names if f"{name}.score" in run.recorded]
