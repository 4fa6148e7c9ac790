"""Batteries on a run's page: state of charge, power as planned and as measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from federates.core.signals import read_signal, signal_labels
from federates.reports.blocks import Block, PageSection, Text
from federates.reports.chart import Chart, Limit, ShadedBand, in_rows
from federates.reports.devices import device_federates
from federates.reports.feeder import load_run_feeder
from federates.runs.data import PlantData, RunData, Spread
from grid_models.ders.batteries import BatteryParameters
from grid_models.feeder.model import Der

_PLAN = "plan_kw"


def storage_sections(run: RunData) -> Iterator[PageSection]:
    """Show the batteries of each feeder that is simulated here."""
    for plant in run.plants:
        batteries = _batteries(run, plant)
        if batteries:
            names = [der.name for der in batteries]
            charts = [_charge(run, plant, batteries), _power(run, plant, names)]
            blocks: list[Block] = [in_rows(charts, 2), *_how_to_plan(run)]
            yield PageSection(run.label(plant, "Batteries"), blocks)


def _batteries(run: RunData, plant: PlantData) -> list[Der]:
    """Return the batteries whose power is recorded; those behind an adapter have their own."""
    name = f"{plant.name}.p_kw"
    feeder = load_run_feeder(run, plant.name) if run.has(name) else None
    if feeder is None:
        return []
    signals = [f"{federate}.p_kw" for federate in device_federates(run)]
    real = {x for s in signals if s in run.recorded for x in signal_labels(run.signals, s)}
    known = set(signal_labels(run.signals, name)) - real
    return [d for d in feeder.ders if d.kind == "battery" and d.name in known and d.energy_kwh > 0]


def _charge(run: RunData, plant: PlantData, batteries: Sequence[Der]) -> Chart:
    """Return the state of charge, integrated from the recorded power as the feeder does it."""
    time_s, labels, values = read_signal(run.signals, f"{plant.name}.p_kw")
    p_kw = values[:, [labels.index(der.name) for der in batteries]]
    energy_kwh, known = np.array([der.energy_kwh for der in batteries]), BatteryParameters()
    hours = np.diff(time_s, append=time_s[-1])[:, None] / 3600.0
    change = np.minimum(-p_kw * known.charge_efficiency, -p_kw / known.discharge_efficiency)
    steps = hours * change / energy_kwh
    percent = 100.0 * (known.soc_start + np.cumsum(steps, axis=0) - steps)
    low, mid, high = percent.min(axis=1), np.median(percent, axis=1), percent.max(axis=1)
    ends = (Limit(100 * known.soc_min, "least"), Limit(100 * known.soc_max, "most"))
    return Chart(
        "State of charge", "State of charge, %",
        [ShadedBand("lowest, median and highest battery", Spread(time_s, low, mid, high), "s4")],
        ends, (), run.start_s, 1, run.shade,
    )  # fmt: skip


def _power(run: RunData, plant: PlantData, names: Sequence[str]) -> Chart:
    """Return the sum of the batteries' power: measured, asked for, and planned ahead."""
    measured = run.total_of(f"{plant.name}.p_kw", names)
    bands = [] if measured is None else [ShadedBand("measured", measured, "s1", fill=False)]
    for wire in run.scenario.get("connections", ()):
        asked = run.total_of(wire["source"], names)
        if wire["target"] == f"{plant.name}.p_set_kw" and asked is not None:
            bands.append(ShadedBand("set-point", asked, "s2", fill=False))
    for signal in plan_signals(run):
        bands += _ahead(run, signal)
    title = "Power of all batteries, planned and measured"
    return Chart(title, "Power, kW", bands, (), (0.0,), run.start_s, shade=run.shade)


def plan_signals(run: RunData) -> list[str]:
    """Return the recorded plans of controllers."""
    return [name for name in run.recorded if name.endswith(f".{_PLAN}") and run.has(name)]


def _ahead(run: RunData, signal: str) -> list[ShadedBand]:
    """Return what the plans' last step said of each time, summed over the clusters."""
    time_s, labels, values = read_signal(run.signals, signal)
    ahead_s = np.array([float(label.rpartition(".")[2].removesuffix("s")) for label in labels])
    last_s = ahead_s.max()
    total = values[:, ahead_s == last_s].sum(axis=1)
    at_s = time_s + last_s
    inside = at_s <= time_s[-1]
    if not inside.any():
        return []
    spread = Spread(at_s[inside], *(total[inside],) * 3)
    return [ShadedBand(f"planned {last_s / 60:g} min before", spread, "s3", fill=False)]


def _how_to_plan(run: RunData) -> Iterator[Text]:
    specs: Any = run.scenario.get("federates", {}).items()
    planners = [name for name, spec in specs if spec.get("controller") == "dmpc"]
    if planners and not plan_signals(run):
        name = planners[0]
        yield Text(f"No plan recorded. To record it: --set federates.{name}.options.plan=true")
