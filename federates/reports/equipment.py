"""Loadings, taps, capacitors and unbalance of a feeder on a run's page, as far as recorded."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from controllers.core.mail import FloatArray
from federates.core.signals import read_signal, signal_batches, signal_labels
from federates.reports.blocks import Block, Drawing, Figures, PageSection, TableBlock, Text
from federates.reports.chart import Chart, Limit, ShadedBand, in_rows
from federates.reports.feeder import branches, draw_map, load_run_feeder
from federates.reports.format import clock
from federates.runs.data import FEEDER_KINDS, PlantData, RunData, Spread
from grid_models.feeder.model import Feeder

LOADING, TAP, CAPACITOR, UNBALANCE = "loading_pct", "tap", "cap_state", "unbalance_pct"
EQUIPMENT_PORTS = (LOADING, TAP, CAPACITOR, UNBALANCE)
_ASKED = (LOADING, TAP, UNBALANCE)
_OVERLOAD_PCT = 100.0
_UNBALANCE_PCT = 2.0
"""Limit of EN 50160 for 95 % of the 10-minute means of a week."""
_ROWS, _CHARTS, _CURVES = 10, 3, 4
_STYLES = ("s1", "s2", "s3", "s4")
# Highest loading from which a line has a class of the style sheet, and words of the legend.
_LEVELS: tuple[tuple[float, str, str], ...] = (
    (_OVERLOAD_PCT, "hi2", "above 100 %"),
    (80.0, "hi1", "80 to 100 %"),
    (50.0, "ok-hi", "50 to 80 %"),
    (-np.inf, "ok", "up to 50 %"),
)


def equipment_sections(run: RunData) -> Iterator[PageSection]:
    """Show for each feeder what its lines, transformers, regulators and buses went through."""
    for plant in run.plants:
        if plant.kind not in FEEDER_KINDS:
            continue
        blocks = [*_thermal(run, plant), *_positions(run, plant), *_unbalance(run, plant)]
        missing = [p for p in _ASKED if f"{plant.name}.{p}" not in run.recorded]
        if missing:
            blocks.append(Text(_how_to_record(run, plant, missing)))
        yield PageSection(run.label(plant, "Equipment"), blocks)


def _how_to_record(run: RunData, plant: PlantData, missing: Sequence[str]) -> str:
    kept = run.scenario.get("record", {}).get("ports", ["*"])
    ports = ", ".join([*(f'"{p}"' for p in kept), *(f"{plant.name}.{p}" for p in missing)])
    return f"Not recorded: {', '.join(missing)}. To record: --set 'record.ports=[{ports}]'"


class Peaks(NamedTuple):
    """Highest value of each element of a signal, when it first was, and hours above a limit."""

    labels: tuple[str, ...]
    highest: FloatArray
    at_s: FloatArray
    above_h: FloatArray

    def rows(self, run: RunData, n: int = _ROWS) -> list[tuple[str, str, str, str]]:
        """Return label, highest value, time of day and hours of the `n` highest."""
        order = np.argsort(-self.highest, kind="stable")[:n].tolist()
        return [
            (
                self.labels[i],
                f"{self.highest[i]:.2f}",
                clock(self.at_s[i] + run.start_s),
                f"{self.above_h[i]:.2f}",
            )
            for i in order
            if np.isfinite(self.highest[i])  # a bus without voltage has no unbalance
        ]


def peaks(run: RunData, name: str, limit: float) -> Peaks | None:
    """Return the peaks of a recorded signal, ``federate.port``; None where there is none."""
    if not run.has(name) or not (labels := signal_labels(run.signals, name)):
        return None
    highest, at_s = np.full(len(labels), -np.inf), np.zeros(len(labels))
    above, times = np.zeros(len(labels)), []
    for time_s, values in signal_batches(run.signals, name):
        counts = ~np.isnan(values) & (time_s >= run.warm_up_s)[:, None]
        known = np.where(counts, values, -np.inf)
        k = known.argmax(axis=0)
        here = known[k, np.arange(len(labels))]
        at_s = np.where(here > highest, time_s[k], at_s)
        highest = np.maximum(highest, here)
        above += np.count_nonzero(known > limit, axis=0)
        times.append(time_s)
    time_s = np.concatenate(times)
    every_s = (
        float(np.median(np.diff(time_s)))
        if len(time_s) > 1
        else float(run.scenario["time"]["step_s"])
    )
    return Peaks(labels, highest, at_s, above * every_s / 3600.0)


def _thermal(run: RunData, plant: PlantData) -> Iterator[Block]:
    found = peaks(run, f"{plant.name}.{LOADING}", _OVERLOAD_PCT)
    if found is None:
        return
    rating = _ratings(run, plant)
    rows = [(row[0], rating.get(row[0], "-"), *row[1:]) for row in found.rows(run)]
    over = int(np.count_nonzero(found.highest > _OVERLOAD_PCT))
    yield Text(
        f"{over} of {len(found.labels)} lines and transformers were above their rating; the most "
        "loaded are listed. A line for which the model has no rating counts with 400 A, as in "
        "OpenDSS."
    )
    head = ("Element", "Rating, A", "Highest loading, %", "When", "Above 100 %, h")
    yield TableBlock(head, rows, numbers=(1, 2, 3, 4))
    feeder = load_run_feeder(run, plant.name)
    drawing = None if feeder is None else _loading_map(run, found, feeder)
    if drawing is not None:
        yield Figures([drawing])


def _ratings(run: RunData, plant: PlantData) -> dict[str, str]:
    """Return the normal amps of each element from ``grid/branches.csv``."""
    folder = run.folder / "grid"
    own = folder / plant.name / "branches.csv"
    try:
        with (own if own.exists() else folder / "branches.csv").open(encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row.get("normal_a")]
        return {row["element"]: f"{float(row['normal_a']):,.0f}" for row in rows}
    except (OSError, KeyError, ValueError):
        return {}


def _loading_map(run: RunData, found: Peaks, feeder: Feeder) -> Drawing | None:
    loading = dict(zip(found.labels, found.highest.tolist(), strict=True))
    at_s = dict(zip(found.labels, found.at_s.tolist(), strict=True))
    wires: dict[tuple[str, str], float] = {}
    texts: dict[str, list[str]] = {}
    for start, end, element in branches(feeder):
        if element not in loading:
            continue
        percent = loading[element]
        wires[start, end] = max(wires.get((start, end), percent), percent)
        words = f"{element} {percent:.1f} % at {clock(at_s[element] + run.start_s)}"
        for bus in (start, end):
            texts.setdefault(bus, []).append(words)
    states = {bus: ("plain", ", ".join(words)) for bus, words in texts.items()}
    styles = {ends: next(s for least, s, _ in _LEVELS if p > least) for ends, p in wires.items()}
    return draw_map(
        "Map of the loadings",
        feeder,
        states,
        [],
        "Each line in the colour of its highest loading of the run",
        wires=(styles, [(style, words) for _, style, words in reversed(_LEVELS)]),
    )


def _positions(run: RunData, plant: PlantData) -> Iterator[Block]:
    """Show the positions of regulators and capacitors, those that moved most first."""
    for port, what in ((TAP, "Regulator"), (CAPACITOR, "Capacitor")):
        name = f"{plant.name}.{port}"
        if not run.has(name) or not signal_labels(run.signals, name):
            continue
        time_s, labels, steps = read_signal(run.signals, name)
        moves = np.abs(np.diff(steps, axis=0)).sum(axis=0)
        order = np.argsort(-moves, kind="stable").tolist()
        yield TableBlock(
            (what, "First", "Lowest", "Highest", "Last", "Changes, steps"),
            [
                (labels[i], *(f"{v:.0f}" for v in _ends(steps[:, i])), f"{moves[i]:.0f}")
                for i in order[:_ROWS]
            ],
            numbers=(1, 2, 3, 4, 5),
        )
        shown = [i for i in order if moves[i]][: _CHARTS * _CURVES]
        charts = [
            _position_chart(run, what, time_s, steps, [(i, labels[i]) for i in shown[k:][:_CURVES]])
            for k in range(0, len(shown), _CURVES)
        ]
        if charts:
            yield in_rows(charts)


def _ends(steps: FloatArray) -> tuple[Any, ...]:
    return steps[0], steps.min(), steps.max(), steps[-1]


def _position_chart(
    run: RunData, what: str, time_s: FloatArray, steps: FloatArray, which: list[tuple[int, str]]
) -> Chart:
    """Return a chart of some positions with a point wherever one of them changed."""
    some = steps[:, [i for i, _ in which]]
    kept = np.concatenate([[True], (np.diff(some, axis=0) != 0).any(axis=1)])
    kept[-1] = True
    bands = [
        ShadedBand(name, Spread(time_s[kept], *(some[kept, k],) * 3), style, fill=False)
        for (k, (_, name)), style in zip(enumerate(which), _STYLES, strict=False)
    ]
    title = f"{what} positions" if len(which) > 1 else f"{what} {which[0][1]}"
    return Chart(
        title, "Position, steps", bands, (), (0.0,), run.start_s, 0, run.shade, stepped=True
    )


def _unbalance(run: RunData, plant: PlantData) -> Iterator[Block]:
    name = f"{plant.name}.{UNBALANCE}"
    found, spread = peaks(run, name, _UNBALANCE_PCT), run.spread_of(name)
    if found is None or spread is None:
        return
    band = ShadedBand("lowest, median and highest bus", spread, "s2")
    limit = Limit(_UNBALANCE_PCT, "EN 50160")
    yield in_rows(
        [
            Chart(
                "Voltage unbalance V2/V1 of three-phase buses",
                "Unbalance, %",
                [band],
                [limit],
                (0.0,),
                run.start_s,
                2,
                run.shade,
            )
        ]
    )
    head = ("Bus", "Highest unbalance, %", "When", f"Above {_UNBALANCE_PCT:g} %, h")
    yield TableBlock(head, found.rows(run, 5), numbers=(1, 2, 3))
