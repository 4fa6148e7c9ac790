"""Devices on a run's page: what they were told, what they did, how good and how late they were."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from federates.core.signals import read_signal, signal_labels
from federates.reports.blocks import Block, PageSection, TableBlock, Text
from federates.reports.chart import Chart, ShadedBand, in_rows
from federates.runs.data import RunData

# Title, axis, the measured port, the set-point beside it, values that the axis shows.
_CHARTS: tuple[tuple[str, str, str, str, tuple[float, ...]], ...] = (
    ("Temperature inside", "Temperature, °C", "temp_c", "cool_set_c", ()),
    ("Verb (CTA-2045)", "Verb", "", "verb", (0.0, 1.0)),
    ("Active power", "Active power, kW", "p_kw", "p_set_kw", ()),
    ("Reactive power", "Reactive power, kvar", "q_kvar", "q_set_kvar", ()),
    ("State of charge", "State of charge, %", "soc_pct", "", ()),
    ("Quality", "0 good, 1 stale, 2 bad", "quality", "", (0.0, 2.0)),
)
_DEVICES = "lowest, median and highest device"
_MOST_EVENTS = 50
_LATENESS = ("lateness_p50_ms", "lateness_p99_ms", "lateness_max_ms")


def device_sections(run: RunData) -> Iterator[PageSection]:
    """Show each federate with devices: their values, set-points, quality and lateness."""
    names = device_federates(run)
    for name in names:
        blocks: list[Block] = []
        if charts := _charts(run, name):
            blocks.append(in_rows(charts))
        blocks += [*_lateness(run, name), *_devices(run, name), *_quality_events(run, name)]
        if blocks:
            title = "Devices" if len(names) == 1 else f"Devices of {name}"
            yield PageSection(title, blocks)


def device_federates(run: RunData) -> list[str]:
    """Return the names of the federates with devices."""
    specs = run.scenario.get("federates", {}).items()
    return [name for name, spec in specs if spec.get("kind") == "device"]


def device_signals(run: RunData) -> set[str]:
    """Return the recorded signals that the sections on devices show."""
    shown = set()
    for name in device_federates(run):
        told = _set_points(run, name)
        for _, _, port, set_point, _ in _CHARTS:
            shown.add(f"{name}.{port}")
            # A set-point for others as well is not shown as a whole here.
            if set_point in told and _labels(run, told[set_point]) == _labels(run, f"{name}.p_kw"):
                shown.add(told[set_point])
    return shown


def _set_points(run: RunData, federate: str) -> dict[str, str]:
    """Return which recorded output feeds each input of a federate: ``{port: federate.port}``."""
    found = {}
    for wire in run.scenario.get("connections", ()):
        owner, _, port = str(wire["target"]).rpartition(".")
        if owner == federate and wire["source"] in run.recorded:
            found[port] = str(wire["source"])
    return found


def _labels(run: RunData, name: str) -> tuple[str, ...]:
    return signal_labels(run.signals, name) if name in run.recorded else ()


def _charts(run: RunData, name: str) -> list[Chart]:
    told, labels, charts = _set_points(run, name), _labels(run, f"{name}.p_kw"), []
    for title, y_title, port, set_point, include in _CHARTS:
        asked = run.spread_of(told[set_point], labels) if set_point in told else None
        measured = run.spread_of(f"{name}.{port}")
        words = "set-point" if measured is not None else _DEVICES
        bands = [] if asked is None else [ShadedBand(words, asked, "s2")]
        bands += [] if measured is None else [ShadedBand(_DEVICES, measured, "s1")]
        if bands:
            stepped = bool(include)
            charts.append(
                Chart(title, y_title, bands, (), include, run.start_s, shade=run.shade,
                      stepped=stepped)
            )  # fmt: skip
    return charts


def _lateness(run: RunData, name: str) -> Iterator[Block]:
    """Show how late the steps began (in real time) and the polls of the adapters."""
    paced = run.summary.get("real_time")
    rows = []
    if isinstance(paced, Mapping):
        rows.append(_late_row("Steps against the wall clock", "steps", "overruns", paced))
    rows += [
        _late_row("Polls of the devices", "polls", "lost_polls", event)
        for event in run.events()
        # In simulated time every step reads the devices itself; there is no schedule of polls.
        if event.get("federate") == name and event.get("event") == "adapter" and event["polls"] > 1
    ]
    if rows:
        head = ("Lateness", "Count", "Missed", "Median, ms", "99 %, ms", "Highest, ms")
        yield TableBlock(head, rows, numbers=range(1, len(head)))
    else:
        yield Text("Lateness: none; the devices live in the run's simulated time.")


def _late_row(what: str, count: str, missed: str, found: Mapping[str, Any]) -> Sequence[str]:
    counts = (f"{found.get(key, 0):,.0f}" for key in (count, missed))
    return (what, *counts, *(f"{found.get(key, 0.0):,.1f}" for key in _LATENESS))


def _devices(run: RunData, name: str) -> Iterator[TableBlock]:
    """Show of each device how long it was good, and what became of its commands."""
    signal = f"{name}.quality"
    if not run.has(signal):
        return
    time_s, labels, quality = read_signal(run.signals, signal)
    every_s = float(time_s[1] - time_s[0]) if len(time_s) > 1 else 0.0
    audit = _audit(run, name)
    verdicts = sorted({verdict for _, verdict in audit})
    seconds = [(quality == word).sum(axis=0) * every_s for word in (0.0, 1.0, 2.0)]
    rows = [
        (
            device,
            *(f"{row[k]:,.0f}" for row in seconds),
            *(f"{audit[device, verdict]:,}" for verdict in verdicts),
        )
        for k, device in enumerate(labels)
    ]
    head = ("Device", "Good, s", "Stale, s", "Bad, s", *verdicts)
    yield TableBlock(head, rows, numbers=range(1, len(head)))


def _quality_events(run: RunData, name: str) -> Iterator[Block]:
    """Show which points of which device became bad or good again, and why."""
    told = [
        event
        for event in run.events()
        if event.get("federate") == name and event.get("what") == "quality"
    ]
    if told:
        rows = [
            (f"{float(e['time_s']):,.0f}", str(e.get("device", "")), str(e.get("text", "")))
            for e in told[:_MOST_EVENTS]
        ]
        yield TableBlock(
            ("Time, s", "Device", "Quality of its points"), rows, numbers=(0,), wrap=(2,)
        )
    if len(told) > _MOST_EVENTS:
        yield Text(f"{len(told) - _MOST_EVENTS} more changes of quality are in events.jsonl.")


def _audit(run: RunData, name: str) -> Counter[tuple[str, str]]:
    """Return how often the adapters' audit log has each verdict on a device."""
    found: Counter[tuple[str, str]] = Counter()
    try:
        lines = (run.folder / f"{name}.audit.jsonl").read_text("utf-8", "replace").splitlines()
    except OSError:
        return found
    for line in lines:
        try:
            entry = json.loads(line)
            found[str(entry["device"]), str(entry["verdict"])] += 1
        except (ValueError, KeyError, TypeError):  # a torn last line
            continue
    return found
