"""Runs of a local market side by side: prices, tariffs, import, losses and voltages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from federates.core.signals import signal_batches
from federates.reports.blocks import Block, PageSection, TableBlock, Text
from federates.reports.chart import Chart, ShadedBand, in_rows, limits, side_by_side
from federates.reports.format import metric_name, metric_number, metric_unit, with_unit
from federates.reports.local_market import (
    POWER,
    PRICE,
    LocalMarket,
    curve,
    local_markets,
    mean_band,
    single,
)
from federates.reports.voltage_hours import voltage_hours
from federates.runs.data import RunData, Spread, live_voltages

_PORTS = {
    "lmp_per_kwh": ("Locational price", "lmp_mean_per_kwh"),
    "tariff_per_kwh": ("Local tariff", "tariff_mean_per_kwh"),
}
_METRICS = (
    ("import_kwh", "import_peak_kw", "losses_kwh", "v_std_pu", "out_of_band_node_hours"),
    ("v_min_pu", "v_max_pu"),
)
"""Metrics whose change is told, and those of which only the difference would mean something."""
# The slides' table of retail prices, $/kWh, by the option `levels` of the market.
_SLIDES: dict[str, dict[str, float]] = {
    "lmp_per_kwh": {"hierarchy": 0.064, "primary": 0.116},
    "tariff_per_kwh": {"hierarchy": 0.082, "primary": 0.116, "none": 0.129},
}
VOLTAGE = "Voltage, pu"
_STYLES = ("s1", "s2", "s3", "s4")  # as those of the voltages beside them

Markets = Mapping[str, LocalMarket]
"""The local market of each run, by the run's label."""


_WORDS = (
    "The mean locational price is that of all SMOs and intervals, the mean tariff what was billed "
    "per kWh; lowest and highest are those of any SMO and recorded step. In brackets: the change "
    "against the run without a local market."
)


def market_day_sections(runs: Mapping[str, RunData]) -> Iterator[PageSection]:
    """Compare runs of which two or more have a local market; nothing for others."""
    found = {label: next(iter(local_markets(run)), None) for label, run in runs.items()}
    markets = {label: market for label, market in found.items() if market is not None}
    if len(markets) < 2:
        return
    numbers = range(1, 1 + len(markets))
    table = TableBlock(["", *markets], market_day_rows(markets), numbers, style="compare")
    yield PageSection("Local markets compared", [Text(_WORDS), table])
    for port, (title, _) in _PORTS.items():
        charts = [
            market.chart(label, PRICE, [mean_band("SMOs", prices, style)])
            for label, market, style in _styled(markets)
            if (prices := market.read(port)) is not None
        ]
        if charts:
            yield PageSection(title, [side_by_side(charts)])
    if charts := [*_totals(markets)]:
        yield PageSection("Import and losses", [in_rows(charts, 2)])
    if hours := _hours(markets):
        yield PageSection("Voltages of all nodes per hour", hours)


def market_day_rows(markets: Markets) -> list[list[str]]:
    """Return the rows of the table: a name with its unit, then a cell per run."""
    levels = [_levels(market) for market in markets.values()]
    base = levels.index("none") if levels.count("none") == 1 else None
    rows = []
    for port, (title, metric) in _PORTS.items():
        spans = [_span(market, port) for market in markets.values()]
        means = [
            market.run.metrics.get(metric, span[0])
            for market, span in zip(markets.values(), spans, strict=True)
        ]
        slides = [_SLIDES[port].get(level) for level in levels]
        named = (
            (f"{title}, mean", means, base),
            (f"{title}, lowest", [span[1] for span in spans], None),
            (f"{title}, highest", [span[2] for span in spans], None),
            (f"{title}, mean on the thesis' slides, $/kWh", slides, base),
        )
        rows += [_row(name, metric, values, at) for name, values, at in named]
    for keys, at in zip(_METRICS, (base, None), strict=True):
        for key in keys:
            values = [market.run.metrics.get(key) for market in markets.values()]
            if any(value is not None for value in values):
                rows.append(_row(metric_name(key), key, values, at))
    rows.append(
        _row(
            "Voltages, rms distance from nominal",
            "_pu",
            [*map(_off_nominal, markets.values())],
            base,
        )
    )
    return rows


def _off_nominal(market: LocalMarket) -> float | None:
    """Return the rms distance of all recorded voltages after the warm-up from 1 pu."""
    run, count, squares = market.run, 0, 0.0
    for plant in run.plants:
        name = f"{plant.name}.v_pu"
        for time_s, recorded in signal_batches(run.signals, name) if run.has(name) else ():
            v_pu = live_voltages(recorded[time_s >= run.warm_up_s])
            count += int(np.isfinite(v_pu).sum())
            squares += float(np.nansum((v_pu - 1.0) ** 2))
    return (squares / count) ** 0.5 if count else None


def _row(name: str, key: str, values: Sequence[float | None], base: int | None) -> list[str]:
    """Return a row; where `base` is a run, the others say by how much they differ from it."""
    first = None if base is None else values[base]
    cells = []
    for i, value in enumerate(values):
        text = metric_number(key, value)
        if first and value is not None and np.isfinite(value) and i != base:
            text += f" ({100.0 * (value / first - 1.0):+.1f} %)"
        cells.append(text)
    return [name if "$" in name else with_unit(name, metric_unit(key)), *cells]


def _levels(market: LocalMarket) -> str:
    """Return the option that says which levels clear; the default is all."""
    spec: Any = market.run.scenario["federates"][market.name]
    return str((spec.get("options") or {}).get("levels", "hierarchy"))


def _span(market: LocalMarket, port: str) -> tuple[float | None, float | None, float | None]:
    """Return mean, lowest and highest of a price after the warm-up; None where there is none."""
    found = market.read(port)
    if found is None:
        return None, None, None
    values = found.values[found.time_s >= market.run.warm_up_s]
    values = values[np.isfinite(values)]
    if not values.size:
        return None, None, None
    return float(values.mean()), float(values.min()), float(values.max())


def _styled(markets: Markets) -> Iterator[tuple[str, LocalMarket, str]]:
    for i, (label, market) in enumerate(markets.items()):
        yield label, market, _STYLES[i % len(_STYLES)]


def _at_day(run: RunData, spread: Spread) -> Spread:
    """Return a spread over the time of day: runs may begin at different ones."""
    return replace(spread, time_s=spread.time_s + run.start_s)


def _totals(markets: Markets) -> Iterator[Chart]:
    for port, title in (("import_kw", "Import"), ("losses_kw", "Losses")):
        bands = [
            curve(run.label(plant, label), _at_day(run, total), style)
            for label, market, style in _styled(markets)
            for run in (market.run,)
            for plant in run.plants
            if (total := plant.total(port)) is not None
        ]
        if bands:
            yield Chart(title, POWER, bands)


def _hours(markets: Markets) -> list[Block]:
    """Show the standard deviation over nodes and steps of each hour, and the range of voltages."""
    deviations, ranges = list[ShadedBand](), list[Chart]()
    for label, market, style in _styled(markets):
        run = market.run
        for plant in run.plants:
            hours = voltage_hours(run, plant.name)
            if hours is None or plant.voltages is None:
                continue
            name = run.label(plant, label)
            begin_s = np.maximum(hours.begin_s, run.start_s)
            last_s = run.start_s + plant.voltages.total.time_s[-1]
            at_s = np.append(begin_s, max(last_s, begin_s[-1] + 1.0))
            low, mean, high, std = (
                np.append(row, row[-1]) for row in (hours.low, hours.mean, hours.high, hours.std)
            )
            deviations.append(curve(name, single(at_s, std), style))
            words = ("lowest", "mean", "highest")
            band = ShadedBand(
                "mean and range of the hour", Spread(at_s, low, mean, high), style, parts=words
            )
            ranges.append(Chart(name, VOLTAGE, [band], limits(run), digits=4, stepped=True))
    if not ranges:
        return []
    title = "Standard deviation of all nodes and steps of the hour"
    chart = Chart(title, VOLTAGE, deviations, digits=5, stepped=True)
    return [in_rows([chart]), side_by_side(ranges)]
