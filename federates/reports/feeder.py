"""Pictures of the feeder: voltage over distance at the worst instant, and the map."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from federates.reports.chart import dots, frame, nice_ticks, segments
from federates.reports.format import clock
from federates.runs.data import PHASE_NAMES, RunData, Voltages
from grid_models.base.errors import FeederateError
from grid_models.feeder.model import Feeder
from grid_models.feeder.topology import radial_tree

_KM_PER_FT = 0.3048e-3
_NEAR_PU = 0.01
_MANY_BUSES = 1500

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
class _Node:
    distance_km: float
    v_pu: float


def load_run_feeder(run: RunData) -> Feeder | None:
    """Rebuild the run's feeder with its DERs; None where its files are gone."""
    from federates.core.context import GridSite
    from federates.scenario.schema import scenario_from
    from federates.scenario.yaml_source import YamlSource

    # Relative paths of the scenario are looked up beside the file it came from.
    file = Path(run.manifest.get("base_dir", ".")) / f"{run.name}.yaml"
    try:
        return GridSite(scenario_from(YamlSource(str(file), run.scenario))).feeder
    except (FeederateError, ValueError, OSError):
        return None


def voltage_profile(run: RunData, voltages: Voltages, feeder: Feeder) -> str:
    """Return the voltages of all nodes at the worst instant over their distance; may be empty."""
    try:
        tree = radial_tree(feeder)
    except FeederateError:
        return ""
    distance_km = dict(zip(tree.buses, tree.length_ft * _KM_PER_FT, strict=True))
    x_title = "Distance from the source, km"
    if max(distance_km.values(), default=0.0) <= 0.0:
        distance_km = dict(zip(tree.buses, tree.depth.astype(float), strict=True))
        x_title = "Sections from the source"
    nodes: dict[tuple[str, str], _Node] = {}
    for label, v_pu in zip(voltages.labels, voltages.worst.tolist(), strict=True):
        bus, _, phase = label.rpartition(".")
        if bus in distance_km and not np.isnan(v_pu):  # a dead node has no place on the axis
            nodes[bus, phase] = _Node(distance_km[bus], v_pu)
    if not nodes:
        return ""
    return _profile_chart(run, voltages, nodes, tree, x_title)


def _profile_chart(
    run: RunData,
    voltages: Voltages,
    nodes: Mapping[tuple[str, str], _Node],
    tree: Any,
    x_title: str,
) -> str:
    v_all = [node.v_pu for node in nodes.values()] + list(run.band)
    air = 0.06 * (max(v_all) - min(v_all))
    low, high = min(v_all) - air, max(v_all) + air
    far = max(node.distance_km for node in nodes.values()) * 1.02

    def place(node: _Node) -> tuple[float, float]:
        return 100 * node.distance_km / far, 100 * (high - node.v_pu) / (high - low)

    ticks_x = nice_ticks(0.0, far)
    ticks_y = [v for v in nice_ticks(low, high) if all(abs(v - b) > 0.003 for b in run.band)]
    grid = "".join(f"M0 {1000 * (high - v) / (high - low):.1f}H1000" for v in ticks_y)
    shapes = [f'<path class="grid" d="{grid}"/>']
    legend = []
    for phase in sorted({p for _, p in nodes}):
        name = PHASE_NAMES.get(phase, phase)
        style = f"phase-{name.lower()}"
        legend.append((style, f"Phase {name}"))
        pairs = []
        for i, bus in enumerate(tree.buses):
            parent = tree.buses[tree.parent[i]] if tree.parent[i] >= 0 else None
            here, there = nodes.get((bus, phase)), nodes.get((parent or "", phase))
            if here is not None and there is not None:
                pairs.append((*place(there), *place(here)))
        shapes.append(segments(pairs, f"thin {style}"))
        shapes.append(dots([place(n) for (_, p), n in nodes.items() if p == phase], style))
    limits = []
    for value in run.band:
        top = 100 * (high - value) / (high - low)
        limits.append((top, "limit"))
        shapes.append(f'<path class="limit" d="M0 {10 * top:.1f}H1000"/>')
    y_labels = [(100 * (high - v) / (high - low), f"{v:.3f}") for v in [*ticks_y, *run.band]]
    return frame(
        f"Every node at the worst instant, {clock(voltages.worst_s + run.start_s)}",
        "Voltage, pu",
        x_title,
        "".join(shapes),
        [(100 * x / far, f"{x:g}") for x in ticks_x],
        y_labels,
        legend=legend,
        limits=limits,
    )


def feeder_map(run: RunData, voltages: Voltages, feeder: Feeder) -> str:
    """Return the map with each bus in the colour of its worst voltage; may be empty."""
    worst = _worst_by_bus(voltages, run.band)
    buses = {
        bus: (_class_of(v_pu, run.band), f"bus {bus}: {v_pu:.4f} pu") for bus, v_pu in worst.items()
    }
    return draw_map(
        feeder, buses, _CLASSES, "Each bus in the colour of its worst voltage of the run"
    )


def draw_map(
    feeder: Feeder,
    buses: Mapping[str, tuple[str, str]],
    classes: Sequence[tuple[str, str]],
    caption: str,
) -> str:
    """Return a map of the feeder; empty where fewer than two of the buses have coordinates.

    Parameters
    ----------
    feeder : Feeder
    buses : mapping of bus to (class of the style sheet, words)
    classes : sequence of (class, words of the legend)
        In the legend's order; those that no bus has are left out.
    caption : str
    """
    place = _places(feeder)
    if sum(1 for bus in place if bus in buses) < 2:
        return ""
    width, height = (max(p[k] for p in place.values()) for k in (0, 1))
    radius = 8.0 if len(place) < 300 else 4.0
    few = len(place) < _MANY_BUSES
    der_buses = {der.bus for der in feeder.ders}
    shapes = [f'<path class="wire" d="{"".join(_wires(feeder, place))}"/>']
    for bus, (style, words) in buses.items():
        if bus in place:
            x, y = place[bus]
            ring = " der" if bus in der_buses and few else ""
            title = f"<title>{escape(words)}</title>" if few else ""
            shapes.append(
                f'<circle class="bus {style}{ring}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}">'
                f"{title}</circle>"
            )
    source = place.get(feeder.source.bus)
    if source is not None:
        shapes.append(
            f'<rect class="source" x="{source[0] - 11:.1f}" y="{source[1] - 11:.1f}" '
            'width="22" height="22"><title>source</title></rect>'
        )
    counts = Counter(style for bus, (style, _) in buses.items() if bus in place)
    keys = "".join(
        f'<li><i class="key bus-key {style}"></i>{escape(words)}: {counts[style]}</li>'
        for style, words in classes
        if style in counts
    )
    keys += '<li><i class="key source-key"></i>source</li>'
    if der_buses & set(place) and few:
        keys += '<li><i class="key der-key"></i>ring: a bus with DERs</li>'
    box = f"-20 -20 {width + 40:.0f} {height + 40:.0f}"
    return (
        f'<figure class="chart"><figcaption>{escape(caption)}</figcaption>'
        f'<ul class="legend">{keys}</ul><svg class="map" viewBox="{box}" role="img" '
        f'aria-label="Map of the feeder">{"".join(shapes)}</svg></figure>'
    )


def _places(feeder: Feeder) -> dict[str, tuple[float, float]]:
    """Return where each bus with coordinates lies in a picture 1000 wide or high."""
    at = {
        name: (bus.x_ft, -bus.y_ft)
        for name, bus in feeder.buses.items()
        if bus.x_ft is not None and bus.y_ft is not None
    }
    if not at:
        return {}
    xs, ys = [p[0] for p in at.values()], [p[1] for p in at.values()]
    span = max(max(xs) - min(xs), max(ys) - min(ys)) or 1.0
    scale = 1000.0 / span
    return {b: ((x - min(xs)) * scale, (y - min(ys)) * scale) for b, (x, y) in at.items()}


def _wires(feeder: Feeder, place: Mapping[str, tuple[float, float]]) -> Iterator[str]:
    ends = [(line.from_bus, line.to_bus) for line in feeder.lines if line.closed]
    ends += [(switch.from_bus, switch.to_bus) for switch in feeder.switches if switch.closed]
    ends += [(r.from_bus, r.to_bus) for r in feeder.regulators]
    ends += [(t.windings[0].bus, w.bus) for t in feeder.transformers for w in t.windings[1:]]
    for one, other in dict.fromkeys(ends):
        if one in place and other in place:
            (x1, y1), (x2, y2) = place[one], place[other]
            yield f"M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"


def _worst_by_bus(voltages: Voltages, band: tuple[float, float]) -> dict[str, float]:
    """Return each bus's voltage that lies furthest outside the band, or nearest to its end."""
    worst: dict[str, float] = {}
    ends = zip(
        voltages.labels, voltages.node_low.tolist(), voltages.node_high.tolist(), strict=True
    )
    for label, low, high in ends:
        bus = label.rpartition(".")[0]
        for v_pu in (low, high) if not np.isnan(low) else ():
            known = worst.get(bus)
            if known is None or _excess(v_pu, band) > _excess(known, band):
                worst[bus] = v_pu
    return worst


def _excess(v_pu: float, band: tuple[float, float]) -> float:
    return max(v_pu - band[1], band[0] - v_pu)


def _class_of(v_pu: float, band: tuple[float, float]) -> str:
    low, high = band
    if v_pu < low:
        return "lo2" if v_pu < low - 0.02 else "lo1"
    if v_pu > high:
        return "hi2" if v_pu > high + 0.02 else "hi1"
    if v_pu < low + _NEAR_PU:
        return "ok-lo"
    return "ok-hi" if v_pu > high - _NEAR_PU else "ok"
