"""Figures of a feeder: its map, and its node voltages over distance; ``feeder.js`` draws them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from federates.core.sites import GridSite
from federates.reports.blocks import Figures, Section
from federates.reports.chart import Key
from federates.reports.format import clock
from federates.runs.data import PHASE_NAMES, PlantData, RunData, Voltages
from federates.runs.replay import scenario_of_run
from grid_models.base.errors import FeederateError
from grid_models.feeder.model import Feeder
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


@dataclass(frozen=True)
class FeederMap:
    """A map of a feeder.

    Parameters
    ----------
    title : str
    feeder : Feeder
    states : mapping of bus to (class of the style sheet, words)
    classes : sequence of (class, words of the legend)
        In the legend's order; those that no bus has are left out.
    """

    title: str
    feeder: Feeder
    states: Mapping[str, tuple[str, str]]
    classes: Sequence[tuple[str, str]]
    y_title: str = ""
    kind: ClassVar[str] = "feeder-map"

    @property
    def can_be_drawn(self) -> bool:
        """Whether two of the buses have coordinates."""
        return sum(bus in self.states for bus in _places(self.feeder)) >= 2

    @property
    def legend(self) -> list[Key]:
        """The classes with the number of their buses, and the other marks."""
        place = _places(self.feeder)
        counts = Counter(style for bus, (style, _) in self.states.items() if bus in place)
        keys = [
            Key(f"{words}: {counts[c]}", f"bus-key {c}") for c, words in self.classes if counts[c]
        ]
        if self.feeder.source.bus in place:
            keys.append(Key("source", "source-key"))
        if {der.bus for der in self.feeder.ders} & set(place):
            keys.append(Key("ring: a bus with DERs", "der-key"))
        return keys

    @property
    def data(self) -> dict[str, Any]:
        """The map for ``feeder.js``."""
        place = _places(self.feeder)
        ders = {der.bus for der in self.feeder.ders}
        number = {bus: i for i, bus in enumerate(place)}
        ends = dict.fromkeys(_branches(self.feeder))
        buses = []
        for bus, (x, y) in place.items():
            style, text = self.states.get(bus, ("", ""))
            entry = {"name": bus, "x": round(x, 1), "y": round(y, 1), "style": style, "text": text}
            marks = {"ders": bus in ders, "source": bus == self.feeder.source.bus}
            buses.append(entry | {k: True for k, v in marks.items() if v})
        return {
            "title": self.title,
            "size": [max(p[k] for p in place.values()) for k in (0, 1)],
            "buses": buses,
            "wires": [(number[a], number[b]) for a, b in ends if a in number and b in number],
        }


@dataclass(frozen=True)
class VoltageProfile:
    """Voltages of all nodes at one instant over their distance from the source."""

    title: str
    x_title: str
    nodes: Sequence[Mapping[str, Any]]
    phases: Sequence[str]
    band: tuple[float, float]
    y_title: str = "Voltage, pu"
    kind: ClassVar[str] = "voltage-profile"

    @property
    def legend(self) -> list[Key]:
        """One entry per phase."""
        return [Key(f"Phase {p}", f"phase-{p.lower()}", i) for i, p in enumerate(self.phases)]

    @property
    def data(self) -> dict[str, Any]:
        """The profile for ``feeder.js``."""
        names = ("lower limit", "upper limit")
        return {
            "title": self.title,
            "x_title": self.x_title,
            "x_unit": "km" if self.x_title.endswith("km") else "sections",
            "nodes": self.nodes,
            "phases": [{"name": p, "style": f"phase-{p.lower()}"} for p in self.phases],
            "limits": [{"value": v, "name": n} for v, n in zip(self.band, names, strict=True)],
        }


def place_sections(run: RunData) -> Iterator[Section]:
    """Show for each plant where its voltages are worst."""
    for plant in run.plants:
        feeder = None if plant.voltages is None else load_run_feeder(run, plant)
        if plant.voltages is None or feeder is None:
            continue
        drawn = (_profile(run, plant.voltages, feeder), _voltage_map(run, plant.voltages, feeder))
        figures = [figure for figure in drawn if figure is not None]
        if figures:
            blocks = [Figures(figures, len(figures))]
            yield Section(run.label(plant, "Where the voltages are worst"), blocks)


def load_run_feeder(run: RunData, plant: PlantData) -> Feeder | None:
    """Rebuild the feeder of a plant with its DERs; None where its files are gone."""
    try:
        return GridSite(scenario_of_run(run.folder)[0], plant.name).feeder
    except (FeederateError, ValueError, OSError):
        return None


def _profile(run: RunData, voltages: Voltages, feeder: Feeder) -> VoltageProfile | None:
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
    return VoltageProfile(title, x_title, nodes, phases, run.band)


def _voltage_map(run: RunData, voltages: Voltages, feeder: Feeder) -> FeederMap | None:
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
    drawn = FeederMap("Map of the feeder", feeder, states, _CLASSES, words)
    return drawn if drawn.can_be_drawn else None


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


def _branches(feeder: Feeder) -> Iterable[tuple[str, str]]:
    yield from ((line.from_bus, line.to_bus) for line in feeder.lines if line.closed)
    yield from ((switch.from_bus, switch.to_bus) for switch in feeder.switches if switch.closed)
    yield from ((unit.from_bus, unit.to_bus) for unit in feeder.regulators)
    for unit in feeder.transformers:
        yield from ((unit.windings[0].bus, winding.bus) for winding in unit.windings[1:])


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
