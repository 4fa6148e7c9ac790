"""The recipe of `grid_models/data/ieee123_der_rich.csv`; sources in `grid_models.ders.rich_feeder`.

A test generates the table anew and compares it with the shipped one.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from grid_models.base.counter_rng import stream_ids, uniform
from grid_models.ders.rich_feeder import COLUMNS
from grid_models.ders.rules import KVA_PER_KW, DerError, load_kw_by_node
from grid_models.feeder.model import Der, Feeder

SEED = 123
HOUSES, WATER_HEATERS = 1008, 348
PV_UNITS, PV_KVA, PV_BUSES = 207, 880.84, 68
BATTERIES, BATTERY_KVA, BATTERY_BUSES = 173, 865.0, 63
DER_BUSES = 82
BATTERY_KWH = 13.5
TANK_KW, TANK_KWH = 4.5, 1.2


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
