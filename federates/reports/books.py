"""A market on a run's page: its prices, the import it planned, and who paid whom."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from federates.core.signals import read_signal
from federates.reports.chart import Band, Chart, time_chart
from federates.reports.page import table
from federates.runs.data import RunData, Spread

_ACCOUNT = ".account_money"
_WORDS = {
    "load_pays": "Loads pay",
    "generation_receives": "Generators receive",
    "import_cost": "The import costs",
    "surplus": "The operator keeps",
    "loss_rent": "of it for losses",
    "voltage_rent": "of it for voltage limits",
    "congestion_rent": "of it for current limits",
}


def settled_account(run: RunData, market: str) -> tuple[int, Mapping[str, float]]:
    """Return over how many intervals a market was settled, and the sum of its account, money."""
    count = read_signal(run.signals, f"{market}.settled_intervals")[2][:, 0]
    _, labels, account = read_signal(run.signals, f"{market}{_ACCOUNT}")
    n = min(len(count), len(account))  # a run that was killed may have written one further
    # Books are shown until the next interval is settled, so each counts where it appears first.
    new = np.flatnonzero(np.diff(count[:n], prepend=0.0) > 0.0)
    return len(new), dict(zip(labels, account[new].sum(axis=0).tolist(), strict=True))


def market_sections(run: RunData) -> str:
    """Return a section for each market of a run; empty where there is none, or nothing recorded."""
    return "".join(
        _section(run, name.removesuffix(_ACCOUNT))
        for name in run.recorded
        if name.endswith(_ACCOUNT)
        and f"{name.removesuffix(_ACCOUNT)}.settled_intervals" in run.recorded
    )


def _once_cleared(spread: Spread) -> Spread:
    """Leave out the steps before the first clearing, which would set the scale."""
    shown = np.maximum.accumulate((spread.low != 0.0) | (spread.high != 0.0))
    low, mid, high = (np.where(shown, row, np.nan) for row in (spread.low, spread.mid, spread.high))
    return Spread(spread.time_s, low, mid, high)


def _section(run: RunData, market: str) -> str:
    figures = []
    prices = run.spread_of(f"{market}.price_per_mwh")
    if prices is not None:
        bands = [Band("lowest, median and highest bus", _once_cleared(prices), "s4")]
        figures.append(
            Chart("Price of active power", "Money per MWh", bands, digits=2,
                  start_s=run.start_s, shade=run.shade)
        )  # fmt: skip
    planned, metered = run.total_of(f"{market}.scheduled_import_kw"), run.total("import_kw")
    if planned is not None and metered is not None:
        bands = [
            Band("metered", metered, "s1", fill=False),
            Band("scheduled", _once_cleared(planned), "s2", fill=False),
        ]
        figures.append(
            Chart("Import, scheduled and metered", "Power, kW", bands,
                  start_s=run.start_s, shade=run.shade)
        )  # fmt: skip
    out = f'<div class="grid-2">{"".join(time_chart(chart) for chart in figures)}</div>'
    intervals, account = settled_account(run, market)
    if intervals:
        head = (f"Settled over {intervals} market intervals, as cleared", "Money")
        rows = [(_WORDS.get(key, key), f"{value:,.2f}") for key, value in account.items()]
        out += table(head, rows, numbers=(1,))
    return f'<section class="stack"><h2>Market</h2>{out}</section>'
