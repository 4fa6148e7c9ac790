"""Frequency, powers and voltages of a transmission system on a run's page."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from federates.core.signals import read_signal
from federates.reports.blocks import Block, PageSection, TableBlock
from federates.reports.chart import Chart, Limit, ShadedBand, in_rows
from federates.reports.format import clock, event_details
from federates.runs.data import RunData, Spread, live_voltages

_HZ, _MW = "Frequency, Hz", "Power, MW"
TRANSMISSION_PORTS = (
    "v_deg",
    "v_rel_pu",
    "frequency_hz",
    "coi_hz",
    "speed_hz",
    "p_mech_mw",
    "p_gen_mw",
    "load_mw",
    "flow_mw",
    "tie_mw",
)
"""Ports of a transmission federate that its section shows or leaves out."""
TRANSMISSION_ROWS = (
    ("coi_hz", "Frequency of the centre of inertia", _HZ, "s1"),
    ("tie_mw", "Tie flow", _MW, "s2"),
    ("load_mw", "Load", _MW, "s4"),
)
"""Port, title, title of the axis and style of what pages of several runs show as well."""
_RANGES = (
    ("frequency_hz", "Frequency of the buses", _HZ, "lowest, median and highest bus", "s1"),
    ("speed_hz", "Speed of the machines", _HZ, "lowest, median and highest machine", "s3"),
)
_EVENTS = ("load_shed", "machine_tripped", "islanded", "island_collapsed", "collapsed")
_EVENTS_SHOWN = 50


def transmission_sections(run: RunData) -> Iterator[PageSection]:
    """Show for each transmission federate what the system and its buses went through."""
    for name in transmission_names(run):
        blocks: list[Block] = []
        charts = _charts(run, name)
        if charts:
            blocks.append(in_rows(charts))
        rows = _bus_rows(run, name)
        if rows:
            head = ("Bus", "Lowest voltage, pu", "at", "Last voltage, pu", "Last load, MW")
            blocks.append(TableBlock(head, rows, (1, 2, 3, 4)))
        events = [e for e in run.events() if e.get("federate") == name]
        happened = [e for e in events if e.get("event") in _EVENTS][:_EVENTS_SHOWN]
        if happened:
            lines = [
                (
                    clock(float(e["time_s"]) + run.start_s),
                    str(e["event"]).replace("_", " "),
                    event_details(e),
                )
                for e in happened
            ]
            blocks.append(TableBlock(("Time", "What happened", "Details"), lines, wrap=(2,)))
        if blocks:
            yield PageSection(f"{name}: Transmission system", blocks)


def transmission_names(run: RunData) -> list[str]:
    """Return the transmission federates of a run."""
    federates = run.scenario.get("federates", {}).items()
    return [name for name, spec in federates if spec.get("kind") == "transmission"]


def transmission_signals(run: RunData) -> set[str]:
    """Return the signals that need no section of their own."""
    return {f"{name}.{port}" for name in transmission_names(run) for port in TRANSMISSION_PORTS}


def _charts(run: RunData, name: str) -> list[Chart]:
    found: list[tuple[str, str, ShadedBand]] = []
    for port, title, axis, style in TRANSMISSION_ROWS:
        series = run.total_of(f"{name}.{port}")
        # The tie flow of a system of one area is 0 throughout.
        if series is not None and series.mid.any():
            found.append((title, axis, ShadedBand(title, series, style, fill=False)))
    for port, title, axis, words, style in _RANGES:
        series = run.spread_of(f"{name}.{port}")
        if series is not None:
            found.append((title, axis, ShadedBand(words, series, style)))
    charts = [_chart(run, title, axis, [band]) for title, axis, band in found]
    powers = [
        ShadedBand(words, series, style, fill=False)
        for port, words, style in (
            ("p_gen_mw", "electrical", "s2"),
            ("p_mech_mw", "mechanical", "s1"),
        )
        if (series := run.total_of(f"{name}.{port}")) is not None
    ]
    if powers:
        charts.append(_chart(run, "Power of all machines", _MW, powers))
    return charts


def _chart(run: RunData, title: str, axis: str, bands: list[ShadedBand]) -> Chart:
    is_hz = axis == _HZ
    limits = [Limit(nominal_hz(bands[0].spread), "nominal")] if is_hz else []
    digits = 3 if is_hz else 1
    return Chart(title, axis, bands, limits, (), run.start_s, digits, run.shade)


def nominal_hz(series: Spread) -> float:
    """Return 50 or 60 Hz, whichever a frequency starts nearer to."""
    first = series.mid[np.isfinite(series.mid)]
    return 50.0 if first.size and first[0] < 55.0 else 60.0


def _bus_rows(run: RunData, name: str) -> list[tuple[str, ...]]:
    """Return each bus with its lowest voltage, when that was, and its last state."""
    if not run.has(f"{name}.v_pu"):
        return []
    time_s, labels, recorded = read_signal(run.signals, f"{name}.v_pu")
    after = time_s >= run.warm_up_s
    time_s, v_pu = time_s[after], live_voltages(recorded[after])
    if not time_s.size:
        return []
    load_mw = None
    if run.has(f"{name}.load_mw"):
        load_mw = read_signal(run.signals, f"{name}.load_mw")[2][-1]
    filled = np.where(np.isnan(v_pu), np.inf, v_pu)
    lowest = filled.argmin(axis=0)
    rows: list[tuple[str, ...]] = []
    for i, label in enumerate(labels):
        low = filled[lowest[i], i]
        rows.append(
            (
                label,
                f"{low:.4f}" if np.isfinite(low) else "-",
                clock(float(time_s[lowest[i]]) + run.start_s),
                "-" if np.isnan(v_pu[-1, i]) else f"{v_pu[-1, i]:.4f}",
                "-" if load_mw is None else f"{load_mw[i]:,.1f}",
            )
        )
    return rows
