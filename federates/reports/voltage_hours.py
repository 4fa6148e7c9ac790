"""Voltages of a plant hour by hour: how far they lie apart, and how far from nominal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from controllers.core.mail import FloatArray
from federates.core.signals import signal_batches
from federates.reports.blocks import PageSection, TableBlock, Text
from federates.reports.format import clock
from federates.runs.data import RunData, live_voltages

HOUR_S = 3600.0
HEAD = ("Hour from", "Mean, pu", "Standard deviation, pu", "Lowest, pu", "Highest, pu")


@dataclass(frozen=True)
class VoltageHours:
    """Voltages over nodes and time in each clock hour of a run, each (k,).

    `begin_s` is the time of day of the begin of the hour; the others are in pu. The warm-up and
    nodes without voltage are left out.
    """

    begin_s: FloatArray
    mean: FloatArray
    std: FloatArray
    low: FloatArray
    high: FloatArray

    def rows(self) -> list[tuple[str, ...]]:
        """Return a row per hour, with the columns of `HEAD`."""
        values = zip(self.mean, self.std, self.low, self.high, strict=True)
        return [
            (clock(begin_s), *(f"{v_pu:.4f}" for v_pu in row))
            for begin_s, row in zip(self.begin_s.tolist(), values, strict=True)
        ]


def voltage_hours(run: RunData, plant: str) -> VoltageHours | None:
    """Return the voltages of a plant per hour; None where none were recorded after the warm-up."""
    name = f"{plant}.v_pu"
    if not run.has(name):
        return None
    # Per hour: samples, sum and sum of squares of the deviation from 1 pu, lowest, highest.
    found: dict[int, FloatArray] = {}
    for time_s, recorded in signal_batches(run.signals, name):
        hours = ((run.start_s + time_s) // HOUR_S).astype(np.int64)
        hours[time_s < run.warm_up_s] = -1
        for hour in np.unique(hours[hours >= 0]).tolist():
            v_pu = live_voltages(recorded[hours == hour])
            v_pu = v_pu[~np.isnan(v_pu)]
            if not v_pu.size:
                continue
            off = v_pu - 1.0
            sums = found.setdefault(hour, np.array([0.0, 0.0, 0.0, np.inf, -np.inf]))
            sums[:3] += v_pu.size, off.sum(), np.square(off).sum()
            sums[3:] = min(sums[3], v_pu.min()), max(sums[4], v_pu.max())
    if not found:
        return None
    count, total, squares, low, high = np.array(list(found.values())).T
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
    return VoltageHours(HOUR_S * np.array(list(found), dtype=float), 1.0 + mean, std, low, high)


def voltage_hour_sections(run: RunData) -> Iterator[PageSection]:
    """List the voltages of each plant per hour, for runs over more than one."""
    for plant in run.plants:
        hours = voltage_hours(run, plant.name)
        if hours is not None and len(hours.begin_s) > 1:
            text = Text("Over all nodes and all steps of the hour after the warm-up.")
            table = TableBlock(HEAD, hours.rows(), numbers=range(1, len(HEAD)))
            yield PageSection(run.label(plant, "Voltages per hour"), [text, table])
