"""A `Feeder` from CSV tables laid out as the IEEE PES test feeder documents are.

Phases are the letters A, B, C; impedances are in ohm per mile; lengths in feet. The shipped
feeders (`grid_models/data`) and a user's own folder are read by the same function. See
`grid_models/data/README.md` for the columns of each table.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from grid_models.base.csv_tables import PHASE_OF_LETTER, Row
from grid_models.base.errors import FeederError, nearest_name
from grid_models.feeder.model import (
    Bus,
    Feeder,
    Line,
    Regulator,
    Source,
    Switch,
    Transformer,
    Winding,
)
from grid_models.feeder.table_folder import POWER_COLUMNS, read_folder
from grid_models.feeder.table_shunts import read_capacitors, read_loads

FT_PER_MILE = 5280.0
# A load spread evenly along a segment is met by two thirds of it at a quarter of the length and
# one third at the far end (Kersting, Distribution System Modeling and Analysis, section 3.3).
NEAR_POINT, NEAR_SHARE = 0.25, 2.0 / 3.0


@dataclass(slots=True)
class _Edge:
    """What the walk from the source needs to know of a two-terminal element."""

    from_bus: str
    to_bus: str
    phases: tuple[int, ...]
    row: Row
    base_kv_ln: tuple[float, float] | None = None
    closed: bool = True


@dataclass(slots=True)
class _Parts:
    """Elements read so far, and the edges they form."""

    lines: list[Line] = field(default_factory=list)
    switches: list[Switch] = field(default_factory=list)
    transformers: list[Transformer] = field(default_factory=list)
    regulators: list[Regulator] = field(default_factory=list)
    edges: list[_Edge] = field(default_factory=list)
    upstream: list[Row] = field(default_factory=list)


def feeder_from_tables(
    folder: str | Path,
    *,
    name: str | None = None,
    source_bus: str | None = None,
    source_kv_ll: float | None = None,
) -> Feeder:
    """Build a feeder from a folder of CSV tables.

    Parameters
    ----------
    folder : Holds ``lines.csv``, ``line_configs.csv``, ``spot_loads.csv`` and, where the feeder has
        them, ``transformers.csv``, ``regulators.csv``, ``capacitors.csv``, ``switches.csv``,
        ``distributed_loads.csv`` and ``bus_coords.csv``.
    name : Name of the feeder; by default the folder's.
    source_bus : Bus held at 1.0 pu. By default the low side of the transformer that is marked as no
        part of the published solution (the substation), or else the one bus that nothing feeds.
    source_kv_ll : float, optional
        Line-to-line base voltage of the source in kV; by default that transformer's low side.

    Returns
    -------
    Feeder
        Regulators stand at their published taps. Unbalanced loads and capacitors become one
        element per phase. A load spread along a segment becomes two: the segment is cut at a
        quarter of its length (new bus ``<from>_<to>_mid``). An open switch to a bus that carries
        nothing else (a stub) is left out together with that bus.

    Raises FeederError: Anything that is missing, malformed, duplicate or unknown, with file, row
    and column.
    """
    folder = Path(folder)
    tables = read_folder(folder)
    parts = _Parts()
    spread = _read_lines(parts, tables, _configs(tables["line_configs"]))
    _read_transformers(parts, tables["transformers"])
    _read_regulators(parts, tables["regulators"])
    _read_switches(parts, tables["switches"])
    _check_unique_names(parts)
    source = _source(parts, folder, source_bus, source_kv_ll)
    buses = _walk(parts, source, _coordinates(tables["bus_coords"]))
    loads = read_loads(buses, tables["spot_loads"], "load") + read_loads(buses, spread, "spread")
    return Feeder(
        name=name or folder.name,
        source=source,
        buses=buses,
        lines=tuple(parts.lines),
        switches=tuple(s for s in parts.switches if s.to_bus in buses and s.from_bus in buses),
        transformers=tuple(parts.transformers),
        regulators=tuple(parts.regulators),
        capacitors=tuple(read_capacitors(buses, tables["capacitors"])),
        loads=tuple(loads),
        origin=str(folder),
    )


@dataclass(slots=True)
class _Config:
    """Per-mile matrices in A, B, C order; `known` tells which phases have a self term."""

    z: NDArray[np.complex128] = field(default_factory=lambda: np.zeros((3, 3), complex))
    b: NDArray[np.float64] = field(default_factory=lambda: np.zeros((3, 3)))
    pairs: set[tuple[int, int]] = field(default_factory=set)


def _configs(rows: Iterable[Row]) -> dict[str, _Config]:
    configs: dict[str, _Config] = {}
    for row in rows:
        config = configs.setdefault(row.text("config"), _Config())
        i = PHASE_OF_LETTER[row.choice("phase_i", PHASE_OF_LETTER)] - 1
        j = PHASE_OF_LETTER[row.choice("phase_j", PHASE_OF_LETTER)] - 1
        if (i, j) in config.pairs:
            raise row.error(
                "phase_j", "the pair is given twice", expected="each pair once, upper triangle"
            )
        config.pairs |= {(i, j), (j, i)}
        r = row.number_of("r_ohm_per_mile", least=0.0)
        config.z[i, j] = config.z[j, i] = complex(r, row.number_of("x_ohm_per_mile"))
        config.b[i, j] = config.b[j, i] = row.number_of("b_microsiemens_per_mile")
    return configs


def _read_lines(
    parts: _Parts, tables: Mapping[str, list[Row]], configs: Mapping[str, _Config]
) -> list[Row]:
    """Read the segments; return the distributed loads as rows of spot loads."""
    cut = {(r.name("from_bus"), r.name("to_bus")): r for r in tables["distributed_loads"]}
    if len(cut) < len(tables["distributed_loads"]):
        row = tables["distributed_loads"][-1]
        raise row.error("to_bus", "a segment is listed twice", expected="each segment once")
    spots: list[Row] = []
    for row in tables["lines"]:
        a, b = row.name("from_bus"), row.name("to_bus")
        if a == b:
            raise row.error("to_bus", f"the line ends at its own start '{a}'", expected="another")
        phases = row.phases("phases")
        length_ft = row.number_of("length_ft", least=0.0)
        z, matrix_b = _matrices(row, configs, phases)
        load = cut.pop((a, b), None)
        ends = [(a, b, 1.0)]
        if load is not None:
            middle = f"{a}_{b}_mid"
            ends = [(a, middle, NEAR_POINT), (middle, b, 1.0 - NEAR_POINT)]
            spots += _as_spots(load, middle, b)
        for start, end, share in ends:
            miles = length_ft * share / FT_PER_MILE
            name = f"line_{start}_{end}"
            parts.lines.append(
                Line(name, start, end, phases, z * miles, matrix_b * miles, length_ft * share)
            )
            parts.edges.append(_Edge(start, end, phases, row))
    for load in cut.values():
        segments = [f"{r.cells['from_bus']}-{r.cells['to_bus']}" for r in tables["lines"]]
        missing = f"{load.cells['from_bus']}-{load.cells['to_bus']}"
        raise load.error(
            "to_bus",
            f"no line segment '{missing}'",
            expected="a segment of lines.csv",
            nearest=nearest_name(missing, segments),
        )
    return spots


def _matrices(
    row: Row, configs: Mapping[str, _Config], phases: tuple[int, ...]
) -> tuple[NDArray[np.complex128], NDArray[np.float64]]:
    wanted = row.text("config")
    if wanted not in configs:
        raise row.error(
            "config",
            f"line configuration '{wanted}' is unknown",
            expected="a configuration of line_configs.csv",
            nearest=nearest_name(wanted, configs),
        )
    config = configs[wanted]
    for phase in phases:
        if (phase - 1, phase - 1) not in config.pairs:
            raise row.error(
                "phases",
                f"configuration '{wanted}' has no impedance for phase {'ABC'[phase - 1]}",
                expected="phases that the configuration has",
            )
    index = np.ix_([p - 1 for p in phases], [p - 1 for p in phases])
    return config.z[index].copy(), config.b[index].copy()


def _as_spots(load: Row, near: str, far: str) -> list[Row]:
    spots = []
    for bus, share in ((near, NEAR_SHARE), (far, 1.0 - NEAR_SHARE)):
        powers = {c: repr(load.number_of(c) * share) for c in POWER_COLUMNS}
        spots.append(Row(load.file, load.number, {**load.cells, **powers, "bus": bus}))
    return spots


def _read_transformers(parts: _Parts, rows: Iterable[Row]) -> None:
    connections = {"delta": "delta", "wye-grounded": "wye", "wye": "wye"}
    for row in rows:
        if row.choice("in_published_solution", ("yes", "no")) == "no":
            parts.upstream.append(row)
            continue
        if row.whole_number("phases") != 3:
            raise row.error("phases", "only three-phase transformers are read", expected="3")
        kva, r_pct = row.number_of("kva", over=0.0), row.number_of("r_pct", least=0.0)
        windings = []
        for end, side in (("from_bus", "high"), ("to_bus", "low")):
            wye = connections[row.choice(f"conn_{side}", connections)] == "wye"
            windings.append(
                Winding(
                    bus=row.name(end),
                    nodes=(1, 2, 3, 0) if wye else (1, 2, 3),
                    connection="wye" if wye else "delta",
                    kv=row.number_of(f"kv_ll_{side}", over=0.0),
                    kva=kva,
                    r_pct=r_pct / 2.0,
                )
            )
        x_pct = (row.number_of("x_pct", over=0.0),)
        parts.transformers.append(Transformer(row.name("name"), 3, tuple(windings), x_pct))
        base = (windings[0].kv / np.sqrt(3.0), windings[1].kv / np.sqrt(3.0))
        parts.edges.append(_Edge(windings[0].bus, windings[1].bus, (1, 2, 3), row, base))


def _read_regulators(parts: _Parts, rows: Iterable[Row]) -> None:
    for row in rows:
        phases = row.phases("phases")
        if len(phases) > 1 and row.choice("ganged", ("yes", "no")) == "no":
            raise row.error("ganged", "a unit on several phases is ganged", expected="yes")
        monitored = row.phases("monitored_phase")
        if len(monitored) != 1 or monitored[0] not in phases:
            raise row.error(
                "monitored_phase", "not a phase of this regulator", expected=row.cells["phases"]
            )
        tap_step = row.whole_number("published_tap_step")
        if abs(tap_step) > 16:
            raise row.error("published_tap_step", f"step {tap_step}", expected="-16 to 16")
        regulator = Regulator(
            name=row.name("name"),
            from_bus=row.name("from_bus"),
            to_bus=row.name("to_bus"),
            phases=phases,
            tap_step=tap_step,
            monitored_phase=monitored[0],
            v_set_v=row.number_of("voltage_level_v", over=0.0),
            bandwidth_v=row.number_of("bandwidth_v", over=0.0),
            pt_ratio=row.number_of("pt_ratio", over=0.0),
            ct_primary_a=row.number_of("ct_primary_a", over=0.0),
            r_set_v=row.number_of("r_setting_v"),
            x_set_v=row.number_of("x_setting_v"),
        )
        parts.regulators.append(regulator)
        parts.edges.append(_Edge(regulator.from_bus, regulator.to_bus, phases, row))


def _read_switches(parts: _Parts, rows: Iterable[Row]) -> None:
    for row in rows:
        closed = row.choice("normal_state", ("closed", "open")) == "closed"
        a, b, phases = row.name("from_bus"), row.name("to_bus"), row.phases("phases")
        parts.switches.append(Switch(row.name("name"), a, b, phases, closed))
        parts.edges.append(_Edge(a, b, phases, row, closed=closed))


def _check_unique_names(parts: _Parts) -> None:
    """Every element must be addressable: one name space for all two-terminal elements."""
    first: dict[str, Row] = {}
    names = [
        e.name
        for group in (parts.lines, parts.transformers, parts.regulators, parts.switches)
        for e in group
    ]
    for name, edge in zip(names, parts.edges, strict=True):
        if name in first:
            column = "name" if "name" in edge.row.cells else "to_bus"
            raise edge.row.error(
                column,
                f"'{name}' is defined twice (first in {first[name].file.name}, "
                f"row {first[name].number})",
                expected="each name once",
            )
        first[name] = edge.row


def _source(
    parts: _Parts, folder: Path, source_bus: str | None, source_kv_ll: float | None
) -> Source:
    known = sorted({end for edge in parts.edges for end in (edge.from_bus, edge.to_bus)})
    if source_bus is None:
        fed = {edge.to_bus for edge in parts.edges}
        roots = [bus for bus in known if bus not in fed]
        heads = [row.name("to_bus") for row in parts.upstream] or roots
        if len(heads) != 1:
            raise FeederError(
                f"the source bus is not clear from the tables (candidates: {', '.join(heads)})",
                where=str(folder),
                expected="one bus that nothing feeds, or source_bus",
            )
        source_bus = heads[0]
    source_bus = source_bus.lower()
    if source_bus not in known:
        raise FeederError(
            f"source bus '{source_bus}' is in no table",
            where=str(folder),
            expected="a bus of lines.csv",
            nearest=nearest_name(source_bus, known),
        )
    if source_kv_ll is None:
        if not parts.upstream:
            raise FeederError(
                "the voltage of the source is not known",
                where=str(folder / "transformers.csv"),
                expected="a transformer with in_published_solution 'no', or source_kv_ll",
            )
        source_kv_ll = parts.upstream[0].number_of("kv_ll_low", over=0.0)
    return Source(source_bus, source_kv_ll)


def _coordinates(rows: Iterable[Row]) -> dict[str, tuple[float, float]]:
    coordinates: dict[str, tuple[float, float]] = {}
    for row in rows:
        bus = row.name("bus")
        if bus in coordinates:
            raise row.error("bus", f"bus '{bus}' is listed twice", expected="each bus once")
        coordinates[bus] = (row.number_of("x_ft"), row.number_of("y_ft"))
    return coordinates


def _walk(parts: _Parts, source: Source, xy: Mapping[str, tuple[float, float]]) -> dict[str, Bus]:
    """Order the buses breadth first from the source and give each its phases and base voltage."""
    phases: dict[str, set[int]] = {}
    ways: dict[str, list[tuple[str, float | None]]] = {}
    for edge in parts.edges:
        if not edge.closed:
            continue
        base = edge.base_kv_ln or (None, None)
        for here, there, kv in (
            (edge.from_bus, edge.to_bus, base[1]),
            (edge.to_bus, edge.from_bus, base[0]),
        ):
            ways.setdefault(here, []).append((there, kv))
            phases.setdefault(here, set()).update(edge.phases)
    base_kv = {source.bus: source.base_kv_ll / np.sqrt(3.0)}
    queue = deque(base_kv)
    while queue:
        here = queue.popleft()
        for there, kv in ways.get(here, ()):
            if there not in base_kv:
                base_kv[there] = base_kv[here] if kv is None else kv
                queue.append(there)
    _check_connected(parts, source, base_kv)
    return {
        bus: Bus(bus, tuple(sorted(phases[bus])), float(kv), *(xy.get(bus) or (None, None)))
        for bus, kv in base_kv.items()
    }


def _check_connected(parts: _Parts, source: Source, reached: Mapping[str, float]) -> None:
    """Complain of the bus at which a part that the source does not feed begins."""
    dead = [e for e in parts.edges if e.closed and e.from_bus not in reached]
    if not dead:
        return
    fed = {e.to_bus for e in parts.edges if e.closed}
    edge = next((e for e in dead if e.from_bus not in fed), dead[0])
    raise edge.row.error(
        "from_bus",
        f"bus '{edge.from_bus}' is not connected to the source '{source.bus}'",
        expected="a bus that closed elements lead to",
        nearest=nearest_name(edge.from_bus, reached),
    )
