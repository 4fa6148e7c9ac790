"""A market on a run's page: its prices, the import it planned, and who paid whom."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from federates.core.federate import FloatArray
from federates.core.signals import read_signal
from federates.reports.blocks import Block, Figures, PageSection, TableBlock
from federates.reports.chart import Chart, ShadedBand, in_rows
from federates.reports.feeder import feeder_of
from federates.reports.local_market import Recorded, mean_over_time, price_map, read_begun
from federates.runs.data import PHASE_NAMES, RunData, Spread

_ACCOUNT = ".account_money"
_WORDS = {
    "load_pays": "Loads pay",
    "generation_receives": "Generators receive",
    "import_cost": "The import costs",
    "surplus": "The operator keeps",
    "loss_rent": "of it for losses",
    "voltage_rent": "of it for voltage limits",
    "congestion_rent": "of it for limits of currents and of the import",
    "voltage_objective_rent": "of it for the voltage objective",
}
_SERVICES = {
    "energy": "Energy, at the import price",
    "losses": "Losses",
    "voltage": "Voltage limits",
    "congestion": "Limits of currents and of the import",
    "voltage_objective": "Voltage objective",
}


def settled_account(run: RunData, market: str) -> tuple[int, Mapping[str, float]]:
    """Return over how many intervals a market was settled, and the sum of its account, money."""
    new, labels, account = _settled(run, market, _ACCOUNT)
    return new, dict(zip(labels, account.sum(axis=0).tolist(), strict=True))


def _settled(run: RunData, market: str, port: str) -> tuple[int, tuple[str, ...], FloatArray]:
    """Return how many intervals were settled, and a port's labels and its value in each of them."""
    count = read_signal(run.signals, f"{market}.settled_intervals")[2][:, 0]
    _, labels, values = read_signal(run.signals, f"{market}{port}")
    n = min(len(count), len(values))  # a run that was killed may have written one further
    # Books are shown until the next interval is settled, so each counts where it appears first.
    new = np.flatnonzero(np.diff(count[:n], prepend=0.0) > 0.0)
    return len(new), labels, values[new]


def _services(run: RunData, market: str) -> list[tuple[str, ...]]:
    """Return what was paid and received for each part of the price, where it was recorded."""
    rows = []
    for name, words in _SERVICES.items():
        if f"{market}.pays_{name}_money" in run.recorded:
            # Per operator over the run: who pays in one interval may receive in the next.
            paid = _settled(run, market, f".pays_{name}_money")[2].sum(axis=0)
            in_, out = float(paid[paid > 0.0].sum()), -float(paid[paid < 0.0].sum())
            rows.append((words, *(f"{sum_:z,.2f}" for sum_ in (in_, out, in_ - out))))
    return rows


def markets(run: RunData) -> list[str]:
    """Return the names of the markets whose account was recorded."""
    names = [name.removesuffix(_ACCOUNT) for name in run.recorded if name.endswith(_ACCOUNT)]
    return [name for name in names if f"{name}.settled_intervals" in run.recorded]


def market_sections(run: RunData) -> Iterator[PageSection]:
    """Show each market of a run whose account was recorded."""
    names = markets(run)
    for market in names:
        blocks: list[Block] = []
        if charts := _charts(run, market):
            blocks.append(in_rows(charts, 2))
        blocks += _map(run, market)
        intervals, account = settled_account(run, market)
        if intervals:
            head = (f"Settled over {intervals} market intervals, as cleared", "Money")
            rows = [(_WORDS.get(key, key), f"{value:z,.2f}") for key, value in account.items()]
            blocks.append(TableBlock(head, rows, numbers=(1,)))
        if services := _services(run, market):
            head_of = ("Net bills of the operators, by service", "Paid", "Received", "Net")
            blocks.append(TableBlock(head_of, services, numbers=(1, 2, 3)))
        yield PageSection("Market" if len(names) == 1 else f"Market {market}", blocks)


def _charts(run: RunData, market: str) -> list[Chart]:
    charts = []
    prices = run.spread_of(f"{market}.price_per_mwh")
    if prices is not None:
        bands = [ShadedBand("lowest, median and highest bus", once_cleared(prices), "s4")]
        charts.append(
            Chart("Price of active power", "Price, money per MWh", bands, digits=2,
                  start_s=run.start_s, shade=run.shade)
        )  # fmt: skip
    planned = run.total_of(f"{market}.scheduled_import_kw")
    metered = [(p, p.total("import_kw")) for p in run.plants]
    if planned is not None and (own := [(p, total) for p, total in metered if total is not None]):
        bands = [
            ShadedBand(run.label(plant, "metered"), total, f"s{(1, 3, 4)[i % 3]}", fill=False)
            for i, (plant, total) in enumerate(own)
        ]
        bands.append(ShadedBand("scheduled", once_cleared(planned), "s2", fill=False))
        charts.append(
            Chart("Import, scheduled and metered", "Power, kW", bands,
                  start_s=run.start_s, shade=run.shade)
        )  # fmt: skip
    return charts


def _map(run: RunData, market: str) -> Iterator[Block]:
    """Show the mean price of each bus, in a three-phase market of each phase of it."""
    feeder = feeder_of(run, market)
    if feeder is None:
        return
    title, unit = "Mean price of active power", "money per MWh"
    name = f"{market}.dlmp_per_mwh"
    prices = read_begun(run, [name]) if name in run.recorded else None
    if prices is not None:
        means = mean_over_time(prices.values)
        span = float(np.nanmin(means)), float(np.nanmax(means))
        figures = []
        for phase, letter in PHASE_NAMES.items():
            at = [i for i, x in enumerate(prices.labels) if x.rpartition(".")[2] == phase]
            buses = tuple(prices.labels[i].rpartition(".")[0] for i in at)
            of_phase = Recorded(prices.time_s, buses, prices.values[:, at])
            figure = price_map(f"{title}, phase {letter}", feeder, of_phase, unit, span)
            figures += [figure] if figure is not None else []
        if figures:
            yield Figures(figures, len(figures))
            return
    name = f"{market}.price_per_mwh"
    prices = read_begun(run, [name]) if name in run.recorded else None
    if prices is not None:
        figure = price_map(title, feeder, prices, unit)
        if figure is not None:
            yield Figures([figure])


def once_cleared(spread: Spread) -> Spread:
    """Leave out the steps before the first clearing, which would set the scale."""
    shown = np.maximum.accumulate((spread.low != 0.0) | (spread.high != 0.0))
    low, mid, high = (np.where(shown, row, np.nan) for row in (spread.low, spread.mid, spread.high))
    return Spread(spread.time_s, low, mid, high)
