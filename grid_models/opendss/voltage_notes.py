"""What of a user's file has no voltage at the first solution, or not the one of its base."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from grid_models.base.errors import listed, nearest_name
from grid_models.feeder.model import Bus, Load, node_label
from grid_models.opendss.elements import each, terminals
from grid_models.opendss.engine import Engine

_NAMES_SHOWN = 5


def voltage_notes(
    engine: Engine, buses: Mapping[str, Bus], loads: Sequence[Load], other_loads: Sequence[Load]
) -> Iterator[str]:
    """Yield one sentence for each kind: loads, buses, phases, lines, voltage bases.

    Parameters
    ----------
    engine : A compiled and solved circuit; elements out of service are left out.
    buses : The buses with voltage.
    loads, other_loads : The loads that draw power, and those that do not.
    """
    dss = engine.dss
    dead = [name for b in dss.Circuit.AllBusNames() if (name := str(b).lower()) not in buses]
    lines, joined = _lines_and_joined(dss) if dead else ([], set())
    yield from _about_loads(buses, joined, loads, other_loads)
    if dead:
        shown = [_bus(name, buses, joined) for name in dead[:_NAMES_SHOWN]]
        yield (
            f"{_count(len(dead), 'bus', 'buses')} without voltage: "
            f"{listed([*shown, *dead[_NAMES_SHOWN:]], _NAMES_SHOWN)}"
        )
    phases = _dead_phases(dss.Circuit.AllNodeNames(), buses)
    if phases:
        yield (
            f"{_count(len(phases), 'phase', 'phases')} without voltage at buses that have others: "
            f"{listed(phases, _NAMES_SHOWN)}; no DER is placed there by rule"
        )
    dead_lines = [name for name, ends in lines if not any(bus in buses for bus in ends)]
    if dead_lines:
        yield (
            f"{_count(len(dead_lines), 'line', 'lines')} without voltage: "
            f"{listed(dead_lines, _NAMES_SHOWN)}"
        )
    wrong = [bus for bus in buses.values() if bus.base_fit != 1.0]
    if wrong:
        names = [f"{bus.name} ({bus.base_fit:.2f} pu)" for bus in wrong]
        yield (
            f"the voltage base of {_count(len(wrong), 'bus', 'buses')} does not fit the voltage of "
            f"the first solution: {listed(names, _NAMES_SHOWN)}; 'Set VoltageBases' takes "
            "line-to-line values"
        )


def _lines_and_joined(dss: Any) -> tuple[list[tuple[str, list[str]]], set[str]]:
    """Return name and buses of every line, and the buses that lines and transformers join."""
    lines = [
        (str(dss.Lines.Name()).lower(), [bus for bus, _ in terminals(dss)]) for _ in each(dss.Lines)
    ]
    joined = {bus for _, ends in lines for bus in ends}
    for _ in each(dss.Transformers):
        joined.update(bus for bus, _ in terminals(dss))
    return lines, joined


def _about_loads(
    buses: Mapping[str, Bus],
    joined: set[str],
    loads: Sequence[Load],
    other_loads: Sequence[Load],
) -> Iterator[str]:
    if not other_loads:
        return
    everything = math.fsum(load.kw for load in (*loads, *other_loads))
    lost = math.fsum(load.kw for load in other_loads)
    hints = {b: _bus(b, buses, joined) for b in {x.bus for x in other_loads[:_NAMES_SHOWN]}}
    names = [f"{load.name} at bus {hints.get(load.bus, load.bus)}" for load in other_loads]
    yield (
        f"{len(other_loads)} of {_count(len(loads) + len(other_loads), 'load', 'loads')}, "
        f"{lost:g} of {everything:g} kW, without voltage: {listed(names, _NAMES_SHOWN)}"
    )


def _dead_phases(labels: Sequence[str], buses: Mapping[str, Bus]) -> list[str]:
    dead = []
    for label in labels:
        name, _, node = str(label).lower().rpartition(".")
        bus = buses.get(name)
        if bus and 1 <= int(node) <= 3 and int(node) not in (*bus.phases, bus.neutral):
            dead.append(node_label(name, int(node)))
    return dead


def _bus(name: str, buses: Mapping[str, Bus], joined: set[str]) -> str:
    """Return a bus's name; for one that no line or transformer reaches, with the nearest name."""
    near = None if name in joined or name in buses else nearest_name(name, buses)
    return f"{name} (did you mean '{near}'?)" if near else name


def _count(n: int, one: str, several: str) -> str:
    return f"{n} {one if n == 1 else several}"
