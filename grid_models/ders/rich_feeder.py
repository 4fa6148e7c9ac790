"""A DER-rich IEEE 123-node feeder in the proportions of the thesis, as a table and its generator.

Thesis (Nair, "Our modified DER-rich 123-node system"): 1008 houses with HVAC, 348 of them with
water heaters, on 85 load nodes; 207 PV of 880.84 kVA on 68 nodes; 173 batteries of 865 kVA on 63
nodes; 380 generators of 1745.8 kVA on 82 nodes, "~44%" of the spot loads' 3985.7 kVA.

Reading taken: 880.84 and 865 kVA are totals, not ratings of each unit: they add up to the 1745.8
kVA given for all 380, and only so are they 44 % of 3985.7. So a PV unit has 4.26 kVA on average
and a battery exactly 5 kVA. 68 + 63 - 82 = 49 nodes have both.

Not in the thesis, chosen here: one unit stands at one house and is single-phase; PV sizes vary by
+-40 %; a battery stores 13.5 kWh; a water heater has 4.5 kW; a house rates 4 to 10 kW (the
thesis' range). The houses stand for the spot loads, in proportion to their kW: a simulation that
runs the houses leaves the spot loads out, or it serves the same customers twice.

Table (`grid_models/data/ieee123_der_rich.csv`): the columns are the fields of `Der`; `phases` are
digits. One row per PV unit and battery; the houses of one bus and phase share a row, `count` says
how many, and so do their water heaters (kind flexible_load with energy).
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import get_args

from grid_models.base.counter_rng import stream_ids, uniform
from grid_models.base.errors import nearest_name
from grid_models.ders.rules import KVA_PER_KW, DerError, load_kw_by_node
from grid_models.feeder.model import Der, DerKind, Feeder

SEED = 123
HOUSES, WATER_HEATERS = 1008, 348
PV_UNITS, PV_KVA, PV_BUSES = 207, 880.84, 68
BATTERIES, BATTERY_KVA, BATTERY_BUSES = 173, 865.0, 63
DER_BUSES = 82
BATTERY_KWH = 13.5
TANK_KW, TANK_KWH = 4.5, 1.2
TABLE = "ieee123_der_rich.csv"
COLUMNS = tuple(f.name for f in fields(Der))


@dataclass(frozen=True, slots=True)
class _House:
    """One house: where it stands and its number there."""

    bus: str
    phase: int
    number: int

    @property
    def place(self) -> str:
        return f"{self.bus}_{self.phase}"


def _draw(seed: int, purpose: str, labels: Iterable[str]) -> list[float]:
    """Return one number in (0, 1) per label, independent of their order."""
    streams = stream_ids(f"{purpose}/{x}" for x in labels)
    return [float(u) for u in uniform(seed, streams, 0, 0)]


def _ranked(seed: int, purpose: str, labels: Sequence[str]) -> list[str]:
    return [x for _, x in sorted(zip(_draw(seed, purpose, labels), labels, strict=True))]


def generate(feeder: Feeder, seed: int = SEED) -> tuple[Der, ...]:
    """Generate the DERs on a feeder with at least 82 load buses (made for IEEE 123).

    Parameters
    ----------
    feeder : Its loads say where houses stand.
    seed : Same seed, same table.

    Returns
    -------
    tuple of Der
        House rows, water-heater rows, PV, batteries; each in the feeder's order of buses.

    Raises
    ------
    DerError: The feeder has too few load buses.
    """
    load = load_kw_by_node(feeder)
    if len(load) < DER_BUSES:
        raise DerError(
            f"feeder '{feeder.name}' has {len(load)} load buses",
            where="DER-rich table",
            expected=f"at least {DER_BUSES}",
        )
    houses = _houses(load)
    pv_buses, battery_buses = _split_buses(seed, list(load))
    pv = _hosts(seed, "pv", houses, pv_buses, PV_UNITS)
    batteries = _hosts(seed, "battery", houses, battery_buses, BATTERIES)
    tanks = _hosts(seed, "tank", houses, [], WATER_HEATERS)
    return (
        *_house_rows(seed, houses),
        *_tank_rows(tanks),
        *_pv_rows(seed, pv),
        *_battery_rows(batteries),
    )


def _houses(load: Mapping[str, Mapping[int, float]]) -> list[_House]:
    """Return the houses, in proportion to the load of each node (largest remainders)."""
    nodes = [(bus, phase, kw) for bus, by in load.items() for phase, kw in sorted(by.items())]
    total = math.fsum(kw for _, _, kw in nodes)
    exact = [HOUSES * kw / total for _, _, kw in nodes]
    count = [math.floor(x) for x in exact]
    by_remainder = sorted(range(len(nodes)), key=lambda i: (count[i] - exact[i], i))
    for i in by_remainder[: HOUSES - sum(count)]:
        count[i] += 1
    return [
        _House(bus, phase, k + 1)
        for (bus, phase, _), n in zip(nodes, count, strict=True)
        for k in range(n)
    ]


def _split_buses(seed: int, buses: list[str]) -> tuple[list[str], list[str]]:
    """Return the buses with PV and those with batteries: 68 and 63, 82 with any."""
    ranked = _ranked(seed, "bus", buses)[:DER_BUSES]
    return ranked[:PV_BUSES], ranked[DER_BUSES - BATTERY_BUSES :]


def _hosts(
    seed: int, purpose: str, houses: list[_House], every: Sequence[str], n: int
) -> list[_House]:
    """Return `n` houses; of the buses in `every`, if any, only these and at least one each."""
    allowed = [h for h in houses if not every or h.bus in every]
    draws = _draw(seed, purpose, [f"{h.place}_{h.number}" for h in allowed])
    rank = sorted(range(len(allowed)), key=lambda i: draws[i])
    first: dict[str, int] = {}
    for i in rank:
        if every:
            first.setdefault(allowed[i].bus, i)
    taken = set(first.values())
    rest = [i for i in rank if i not in taken]
    taken.update(rest[: n - len(taken)])
    return [h for i, h in enumerate(allowed) if i in taken]


def _house_rows(seed: int, houses: list[_House]) -> list[Der]:
    sizes = _draw(seed, "house size", [f"{h.place}_{h.number}" for h in houses])
    rows: dict[tuple[str, int], list[float]] = {}
    for house, u in zip(houses, sizes, strict=True):
        rows.setdefault((house.bus, house.phase), []).append(4.0 + 6.0 * u)
    made = []
    for (bus, phase), kws in rows.items():
        kw = round(math.fsum(kws), 2)
        made.append(
            Der(f"house_{bus}_{phase}", "house", bus, (phase,), kw, 0.0, -kw, 0.0, len(kws))
        )
    return made


def _tank_rows(tanks: list[_House]) -> list[Der]:
    count: dict[tuple[str, int], int] = {}
    for tank in tanks:
        count[tank.bus, tank.phase] = count.get((tank.bus, tank.phase), 0) + 1
    return [
        Der(
            f"tank_{bus}_{phase}",
            "flexible_load",
            bus,
            (phase,),
            n * TANK_KW,
            0.0,
            -n * TANK_KW,
            round(n * TANK_KWH, 3),
            n,
        )
        for (bus, phase), n in count.items()
    ]


def _pv_rows(seed: int, hosts: list[_House]) -> list[Der]:
    """Return PV units whose ratings, in hundredths of a kVA, add up to the total exactly."""
    draws = _draw(seed, "pv size", [f"{h.place}_{h.number}" for h in hosts])
    part = [0.6 + 0.8 * u for u in draws]
    units = round(PV_KVA * 100)
    exact = [units * x / math.fsum(part) for x in part]
    size = [math.floor(x) for x in exact]
    by_remainder = sorted(range(len(size)), key=lambda i: (size[i] - exact[i], i))
    for i in by_remainder[: units - sum(size)]:
        size[i] += 1
    made = []
    for host, hundredths in zip(hosts, size, strict=True):
        kva = hundredths / 100
        name = f"pv_{host.place}_{host.number}"
        made.append(Der(name, "pv", host.bus, (host.phase,), kva, round(kva / KVA_PER_KW, 3)))
    return made


def _battery_rows(hosts: list[_House]) -> list[Der]:
    kva = BATTERY_KVA / BATTERIES
    return [
        Der(
            f"battery_{h.place}_{h.number}",
            "battery",
            h.bus,
            (h.phase,),
            kva,
            kva,
            -kva,
            BATTERY_KWH,
        )
        for h in hosts
    ]


def to_csv(ders: Iterable[Der]) -> str:
    """Return the table of `ders` as CSV text; `read_table` gives equal DERs back."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for der in ders:
        cells = [getattr(der, name) for name in COLUMNS]
        cells[COLUMNS.index("phases")] = "".join(map(str, der.phases))
        writer.writerow(cells)
    return stream.getvalue()


def load() -> tuple[Der, ...]:
    """Return the shipped table of the IEEE 123-node feeder.

    Raises
    ------
    DerError: The installation is damaged.
    """
    file = resources.files("grid_models").joinpath("data", TABLE)
    return _parse(file.read_text(encoding="utf-8"), TABLE)


def read_table(path: str | Path) -> tuple[Der, ...]:
    """Read a DER table of the shipped form, for instance an edited copy.

    Raises
    ------
    DerError: With file, row and column of the first fault.
    """
    try:
        return _parse(Path(path).read_text(encoding="utf-8-sig"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise DerError(
            f"cannot be read: {error}", where=str(path), expected="a CSV table of DERs in UTF-8"
        ) from error


def _parse(text: str, where: str) -> tuple[Der, ...]:
    rows = csv.reader(io.StringIO(text, newline=""))
    header = next(rows, [])
    for name in COLUMNS:
        if name not in header:
            raise DerError(
                f"column '{name}' is missing",
                where=where,
                expected=", ".join(COLUMNS),
                nearest=nearest_name(name, header),
            )
    return tuple(
        _parse_row(dict(zip(header, row, strict=False)), f"{where}, row {rows.line_num}")
        for row in rows
        if row
    )


def _parse_row(row: Mapping[str, str], where: str) -> Der:
    kinds: dict[str, DerKind] = {kind: kind for kind in get_args(DerKind)}
    kind = row.get("kind", "")
    if kind not in kinds:
        raise DerError(
            f"kind is '{kind}'",
            where=where,
            expected=" | ".join(kinds),
            nearest=nearest_name(kind, kinds),
        )
    number: dict[str, float] = {}
    for name in ("phases", "kva", "p_max_kw", "p_min_kw", "energy_kwh", "count"):
        try:
            number[name] = float(row[name])
        except (KeyError, ValueError):
            raise DerError(
                f"'{row.get(name, '')}' is not a number",
                where=f"{where}, column {name}",
                expected="a number",
            ) from None
    phases = tuple(int(c) for c in row["phases"] if c in "123")
    if not phases or len(phases) != len(row["phases"].strip()):
        raise DerError(
            f"'{row['phases']}' are no phases",
            where=f"{where}, column phases",
            expected="digits of 1, 2 and 3, as in 13",
        )
    return Der(
        row["name"],
        kinds[kind],
        row["bus"],
        phases,
        number["kva"],
        number["p_max_kw"],
        number["p_min_kw"],
        number["energy_kwh"],
        int(number["count"]),
    )
