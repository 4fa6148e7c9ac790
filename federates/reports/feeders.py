"""Many feeders of one federate on a run's page: how import and voltages spread over them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from federates.core.signals import signal_batches, signal_labels
from federates.reports.blocks import Block, PageSection, TableBlock, Text
from federates.reports.chart import Chart, ShadedBand, in_rows, limits, side_by_side
from federates.reports.format import clock
from federates.runs.data import PlantData, RunData, Spread, live_voltages

FEEDERS_PORTS = (
    "total_kw",
    "total_kvar",
    "feeder_import_kw",
    "feeder_v_min_pu",
    "feeder_v_max_pu",
)
_ROWS = 10


def feeders_sections(run: RunData) -> Iterator[PageSection]:
    """Show the feeders of each federate that has many."""
    for plant in run.plants:
        if plant.kind == "feeders":
            rows = [in_rows(charts) for charts in [_imports(run, plant)] if charts]
            rows += [side_by_side(charts) for charts in [_voltages(run, plant)] if charts]
            blocks: list[Block] = [*_deviations(run, plant), *rows, *_lowest(run, plant)]
            if blocks:
                yield PageSection(run.label(plant, "All feeders"), blocks)


def _deviations(run: RunData, plant: PlantData) -> Iterator[Block]:
    """Say where OpenDSS disagrees."""
    found = [e for e in run.events() if e.get("event") == "referee_deviation"]
    own = [e for e in found if e["federate"] == plant.name]
    if own:
        worst = max(own, key=lambda e: e["deviation_pu"])
        yield Text(
            f"OpenDSS found other voltages in {len(own)} of the cases it also solved: by up to "
            f"{worst['deviation_pu']:.2g} pu in {worst['feeder']} at "
            f"{clock(worst['time_s'] + run.start_s)}.",
            "alert",
        )


def _imports(run: RunData, plant: PlantData) -> list[Chart]:
    totals = (
        ("total_kw", "Import of all feeders", "Active power, MW", "s1"),
        ("total_kvar", "Reactive import of all feeders", "Reactive power, Mvar", "s3"),
    )
    charts = []
    for port, title, y_title, style in totals:
        total = plant.total(port)
        if total is not None:
            mega = replace(
                total, low=1e-3 * total.low, mid=1e-3 * total.mid, high=1e-3 * total.high
            )
            band = ShadedBand(title, mega, style, fill=False)
            charts.append(Chart(title, y_title, [band], (), (), run.start_s, shade=run.shade))
    each = plant.spread("feeder_import_kw")
    if each is not None:
        band = ShadedBand("lowest, median and highest feeder", each, "s1")
        charts.append(
            Chart("Import per feeder", "Power, kW", [band], (), (), run.start_s, shade=run.shade)
        )
    return charts


def _voltages(run: RunData, plant: PlantData) -> list[Chart]:
    charts = []
    for port, title in (
        ("feeder_v_min_pu", "Lowest voltage in each feeder"),
        ("feeder_v_max_pu", "Highest voltage in each feeder"),
    ):
        each = plant.spread(port)
        if each is not None:
            live = Spread(each.time_s, *map(live_voltages, (each.low, each.mid, each.high)))
            band = ShadedBand("lowest, median and highest feeder", live, "s2")
            charts.append(
                Chart(title, "Voltage, pu", [band], limits(run), (), run.start_s, 4, run.shade)
            )
    return charts


def _lowest(run: RunData, plant: PlantData) -> Iterator[Block]:
    """List the feeders with the lowest voltages."""
    name = f"{plant.name}.feeder_v_min_pu"
    if not run.has(name):
        return
    labels = signal_labels(run.signals, name)
    lowest, at_s = np.full(len(labels), np.inf), np.zeros(len(labels))
    for time_s, values in signal_batches(run.signals, name):
        counts = (time_s >= run.warm_up_s)[:, None]
        known = np.where(counts & (values > 0.0), values, np.inf)
        k = known.argmin(axis=0)
        here = known[k, np.arange(len(labels))]
        at_s = np.where(here < lowest, time_s[k], at_s)
        lowest = np.minimum(lowest, here)
    below = int(np.count_nonzero(lowest < run.band[0]))
    yield Text(
        f"{below} of {len(labels)} feeders had a node below {run.band[0]:g} pu; those with the "
        "lowest voltages:"
    )
    rows = [
        (labels[k], f"{lowest[k]:.4f}", clock(at_s[k] + run.start_s))
        for k in np.argsort(lowest, kind="stable")[:_ROWS].tolist()
        if np.isfinite(lowest[k])
    ]
    yield TableBlock(("Feeder", "Lowest voltage, pu", "When"), rows, (1,))
