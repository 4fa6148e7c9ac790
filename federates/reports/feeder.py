"""Figures of a feeder: its map, and its node voltages over distance; ``feeder.js`` draws them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

import numpy as np

from federates.core.sites import GridSite
from federates.reports.blocks import Drawing, Figures, Key, PageSection
from federates.reports.chart import limits
from federates.reports.format import clock
from federates.runs.data import PHASE_NAMES, RunData, Voltages
from federates.runs.replay import scenario_of_run
from grid_models.base.errors import FeederateError
from grid_models.feeder.model import Feeder, Line, Switch
from grid_models.feeder.topology import radial_tree

_KM_PER_FT = 0.3048e-3
_NEAR_PU, _FAR_PU = 0.01, 0.02
_MAP_SIZE = 1000.0

# From too low to too high: class of the style sheet, words of the legend.
_CLASSES: tuple[tuple[str, str], ...] = (
    ("lo2", "more than 0.02 pu below the band"),
    ("lo1", "below the band"),
    ("ok-lo", "in band, within 0.01 pu of its lower end"),
    ("ok", "in band"),
    ("ok-hi", "in band, within 0.01 pu of its upper end"),
    ("hi1", "above the band"),
    ("hi2", "more than 0.02 pu above the band"),
)


def draw_map(
    title: str,
    feeder: Feeder,
    states: Mapping[str, tuple[str, str]],
    classes: Sequence[tuple[str, str]],
    subtitle: str = "",
    wires: tuple[Mapping[tuple[str, str], str], Sequence[tuple[str, str]]] = ({}, ()),
) -> Drawing | None:
    """Return a map of the feeder; None where fewer than two of the buses have coordinates.

    Parameters
    ----------
    states : mapping of bus to (class of the style sheet, words)
    classes : sequence of (class, words of the legend)
        In the legend's order; those that no bus has are left out.
    wires : (mapping of (from_bus, to_bus) to class, sequence of (class, words of the legend))
    """
    place = _places(feeder)
    if sum(bus in states for bus in place) < 2:
        return None
    ders, source = {der.bus for der in feeder.ders}, feeder.source.bus
    counts = Counter(style for bus, (style, _) in states.items() if bus in place)
    keys = [Key(f"{words}: {counts[c]}", f"bus-key {c}") for c, words in classes if counts[c]]
    styles, of_wires = wires
    counts = Counter(styles.values())
    keys += [Key(f"{words}: {counts[c]}", f"wire-key {c}") for c, words in of_wires if counts[c]]
    keys += [Key("source", "source-key")] if source in place else []
    keys += [Key("ring: a bus with DERs", "der-key")] if ders & set(place) else []
    number = {bus: i for i, bus in enumerate(place)}
    buses = []
    for bus, (x, y) in place.items():
        style, text = states.get(bus, ("", ""))
        entry = {"name": bus, "x": round(x, 1), "y": round(y, 1), "style": style, "text": text}
        marks = {"ders": bus in ders, "source": bus == source}
        buses.append(entry | {k: True for k, v in marks.items() if v})
    data = {
        "title": title,
        "size": [max(p[k] for p in place.values()) for k in (0, 1)],
        "buses": buses,
        "wires": [
            (number[a], number[b], *([styles[a, b]] if (a, b) in styles else []))
            for a, b in dict.fromkeys((a, b) for a, b, _ in branches(feeder))
            if a in number and b in number
        ],
    }
    return Drawing("feeder-map", title, keys, data, subtitle)


def place_sections(run: RunData) -> Iterator[PageSection]:
    """Show for each plant where its voltages are worst."""
    for plant in run.plants:
        feeder = None if plant.voltages is None else load_run_feeder(run, plant.name)
        if plant.voltages is None or feeder is None:
            continue
        drawn = (_profile(run, plant.voltages, feeder), _voltage_map(run, plant.voltages, feeder))
        figures = [figure for figure in drawn if figure is not None]
        if figures:
            blocks = [Figures(figures, len(figures))]
            yield PageSection(run.label(plant, "Where the voltages are worst"), blocks)


@lru_cache(maxsize=4)  # several sections draw the same feeder
def load_run_feeder(run: RunData, plant: str | None) -> Feeder | None:
    """Rebuild the feeder of a plant with its DERs; None where its files are gone."""
    try:
        return GridSite(scenario_of_run(run.folder)[0], plant).feeder
    except (FeederateError, LookupError, ValueError, OSError):
        return None


def feeder_of(run: RunData, federate: str) -> Feeder | None:
    """Return the feeder whose plant a federate uses; None where it is not known."""
    try:
        plant = scenario_of_run(run.folder)[0].plant_of(federate)
    except FeederateError:
        return None
    return load_run_feeder(run, plant)


def _profile(run: RunData, voltages: Voltages, feeder: Feeder) -> Drawing | None:
    try:
        tree = radial_tree(feeder)
    except FeederateError:
        return None
    km, x_title = tree.length_ft * _KM_PER_FT, "Distance from the source, km"
    if km.max(initial=0.0) <= 0.0:
        km, x_title = tree.depth.astype(float), "Sections from the source"
    at = dict(zip(tree.buses, km.tolist(), strict=True))
    parent_of = {b: tree.buses[p] for b, p in zip(tree.buses, tree.parent, strict=True) if p >= 0}
    found = []
    for label, v_pu in zip(voltages.labels, voltages.worst.tolist(), strict=True):
        bus, _, phase = label.rpartition(".")
        if bus in at and not np.isnan(v_pu):  # a dead node has no place on the axis
            found.append((at[bus], bus, PHASE_NAMES.get(phase, phase), v_pu))
    if not found:
        return None
    found.sort()
    number = {(bus, phase): i for i, (_, bus, phase, _) in enumerate(found)}
    phases = sorted({phase for _, _, phase, _ in found})
    nodes = [
        {
            "bus": bus,
            "phase": phases.index(phase),
            "x": round(x, 4),
            "v_pu": round(v_pu, 5),
            "parent": number.get((parent_of.get(bus, ""), phase)),
        }
        for x, bus, phase, v_pu in found
    ]
    title = f"Every node at the worst instant, {clock(voltages.worst_s + run.start_s)}"
    keys = [Key(f"Phase {p}", f"phase-{p.lower()}", i) for i, p in enumerate(phases)]
    data = {
        "title": title,
        "x_title": x_title,
        "x_unit": "km" if x_title.endswith("km") else "sections",
        "nodes": nodes,
        "phases": [{"name": p, "style": f"phase-{p.lower()}"} for p in phases],
        "limits": [limit._asdict() for limit in limits(run)],
    }
    return Drawing("voltage-profile", title, keys, data, "Voltage, pu", x_title)


def _voltage_map(run: RunData, voltages: Voltages, feeder: Feeder) -> Drawing | None:
    """Return the map with each bus in the colour of its worst voltage."""
    worst: dict[str, float] = {}
    ranges: dict[str, list[str]] = {}
    ends = zip(
        voltages.labels, voltages.node_low.tolist(), voltages.node_high.tolist(), strict=True
    )
    for label, low, high in ends:
        bus, _, phase = label.rpartition(".")
        if np.isnan(low):
            continue
        here = max(low, high, key=lambda v_pu: _excess(v_pu, run.band))
        worst[bus] = max(worst.get(bus, here), here, key=lambda v_pu: _excess(v_pu, run.band))
        name = PHASE_NAMES.get(phase, phase)
        ranges.setdefault(bus, []).append(f"{name} {low:.4f} to {high:.4f}")
    states = {
        bus: (_class_of(v_pu, run.band), f"{v_pu:.4f} pu; over the run {', '.join(ranges[bus])}")
        for bus, v_pu in worst.items()
    }
    words = "Each bus in the colour of its worst voltage of the run"
    return draw_map("Map of the feeder", feeder, states, _CLASSES, words)


def _places(feeder: Feeder) -> dict[str, tuple[float, float]]:
    """Return where each bus with coordinates lies in a picture 1000 wide or high."""
    at = {
        name: (bus.x_ft, -bus.y_ft)
        for name, bus in feeder.buses.items()
        if bus.x_ft is not None and bus.y_ft is not None
    }
    if not at:
        return {}
    left, top = (min(p[k] for p in at.values()) for k in (0, 1))
    span = max(max(p[k] for p in at.values()) - low for k, low in ((0, left), (1, top))) or 1.0
    scale = _MAP_SIZE / span
    return {b: ((x - left) * scale, (y - top) * scale) for b, (x, y) in at.items()}


def branches(feeder: Feeder) -> Iterator[tuple[str, str, str]]:
    """Yield both buses of each closed line and switch, regulator and transformer, and its name."""
    lines: tuple[Line | Switch, ...] = (*feeder.lines, *feeder.switches)
    for line in lines:
        if line.closed:
            yield line.from_bus, line.to_bus, f"line.{line.name}"
    for unit in feeder.regulators:
        yield unit.from_bus, unit.to_bus, f"transformer.{unit.name}"
    for transformer in feeder.transformers:
        for winding in transformer.windings[1:]:
            yield transformer.windings[0].bus, winding.bus, f"transformer.{transformer.name}"


def _excess(v_pu: float, band: tuple[float, float]) -> float:
    return max(v_pu - band[1], band[0] - v_pu)


def _class_of(v_pu: float, band: tuple[float, float]) -> str:
    low, high = band
    if v_pu < low:
        return "lo2" if v_pu < low - _FAR_PU else "lo1"
    if v_pu > high:
        return "hi2" if v_pu > high + _FAR_PU else "hi1"
    if v_pu < low + _NEAR_PU:
        return "ok-lo"
    return "ok-hi" if v_pu > high - _NEAR_PU else "ok"
