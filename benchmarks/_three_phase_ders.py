"""The resources of attacks 1a to 1c on the unbalanced IEEE 123: who can curtail, who generates.

The slides list thirty nodes that curtail and ten that are attacked, and print totals. What each has
is fitted to these totals. Nine of the thirty have no load in IEEE 123; here each of them has one,
as the slides list them. The tables beside the shipped scenarios are
``to_csv(three_phase_ders(feeder, SET_UPS["1b"]))``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from _market_cases import draw
from _market_ders import KVA_PER_KW

from controllers.core.mail import FloatArray
from controllers.market.model.participants import LOAD_POWER_FACTOR
from grid_models.feeder.model import Der, Feeder

_FIRST = (5, 7, 8, 10, 11, 13, 25, 29, 34, 40, 44, 46, 48, 50, 52)
_REST = (57, 60, 61, 66, 69, 80, 83, 87, 88, 93, 96, 97, 99, 112, 114)
FLEXIBLE = tuple(map(str, (*_FIRST, *_REST)))
ATTACKED = tuple(map(str, (9, 28, 45, 55, 56, 58, 62, 73, 82, 94)))
ADDED_KW = 20.0
"""Nominal load at each of the nine buses without one: the least that others have."""
GENERATION_KW = 45.04
OTHER_BUSES, OTHER_KW = ("25", "44", "97", "112"), 11.7


HOUSES_KW = 3577.0
"""Rating of all houses of attack 1c; of it they draw about 1600 kW at 35 degrees."""
PV_POINTS, SUN_PU = 30, 0.8
LOST_KW, KEPT_KW = 157.0, 163.0
"""Output of the PV of attack 1c that is lost, and of the rest."""


@dataclass(frozen=True)
class SetUp:
    """Totals, kW.

    Attributes
    ----------
    load_kw : Demand without any curtailment.
    flexible_kw : At the thirty buses; `most_kw` at one of them.
    attacked_flexible_kw : At the ten attacked buses.
    """

    load_kw: float
    flexible_kw: float
    most_kw: float
    attacked_flexible_kw: float = 0.0


SET_UPS: Mapping[str, SetUp] = {
    "1a": SetUp(1192.0, 170.0, 20.0),
    "1b": SetUp(1192.0, 96.0, 4.9, 22.92),
}


def three_phase_ders(feeder: Feeder, set_up: SetUp, seed: int = 10) -> tuple[Der, ...]:
    """Return a flexible load per connection point, and the generators.

    Parameters
    ----------
    feeder : IEEE 123. The flexible loads stand in the place of its own (``grid.load_scale: 0``).
    seed : Of the flexibilities.

    Returns
    -------
    tuple of Der
        ``load_BUS``, or ``load_BUS_PHASE`` where the phases of a bus differ; ``gen_BUS``, at the
        attacked buses on the phase of the load.
    """
    points = _points(feeder)
    scale = set_up.load_kw / sum(points.values())
    demand = {point: kw * scale for point, kw in points.items()}
    of_bus = {bus: sum(kw for (b, _), kw in demand.items() if b == bus) for bus in FLEXIBLE}
    room = dict(zip(FLEXIBLE, _shared(of_bus, set_up, seed), strict=True))
    attacked = {bus: kw for (bus, _), kw in demand.items() if bus in ATTACKED}
    part = set_up.attacked_flexible_kw / sum(attacked.values())
    room |= {bus: kw * part for bus, kw in attacked.items()}
    buses = [bus for bus, _ in points]
    loads = [
        _load(bus, phases, kw, room.get(bus, 0.0), buses.count(bus) == 1)
        for (bus, phases), kw in demand.items()
    ]
    own = {bus: phases for bus, phases in demand if bus in ATTACKED}
    generators = [_generator(bus, own[bus], GENERATION_KW / len(ATTACKED)) for bus in ATTACKED]
    each = OTHER_KW / len(OTHER_BUSES)
    generators += [_generator(bus, feeder.buses[bus].phases, each) for bus in OTHER_BUSES]
    return (*loads, *generators)


def homes_1c(feeder: Feeder) -> tuple[Der, ...]:
    """Return the homes of attack 1c: houses ``house_BUS_PHASE_K``, PV ``pv_BUS_PHASE_K`` at some.

    Each connection point has three to six homes by its load. PV stands at the first two homes of
    thirty single-phase points, spread over the feeder; it is lost at every second of them.
    """
    points = _points(feeder, added=())
    rated_kw = HOUSES_KW / sum(points.values())
    single = [point for point in points if len(point[1]) == 1]
    chosen = [single[k * len(single) // PV_POINTS] for k in range(PV_POINTS)]
    homes, units = [], []
    for (bus, phases), kw in points.items():
        n = min(6, 3 + round(kw / 40.0))
        name = f"{bus}_{phases[0]}" if len(phases) == 1 else f"{bus}_0"
        for k in range(1, n + 1):
            p = round(rated_kw * kw / n, 3)
            kva = round(p / LOAD_POWER_FACTOR, 3)
            homes.append(Der(f"house_{name}_{k}", "house", bus, phases, kva, 0.0, -p))
            if (bus, phases) in chosen and k <= 2:
                lost = chosen.index((bus, phases)) % 2 == 0
                pv = round((LOST_KW if lost else KEPT_KW) / PV_POINTS / SUN_PU, 3)
                units.append(Der(f"pv_{name}_{k}", "pv", bus, phases, round(pv * 1.1, 3), pv))
    return (*homes, *units)


def _points(
    feeder: Feeder, added: tuple[str, ...] = FLEXIBLE
) -> dict[tuple[str, tuple[int, ...]], float]:
    """Return the nominal load by bus and phases: one point where all phases of a bus are alike."""
    by_phase: dict[str, dict[int, float]] = {}
    for load in feeder.loads:
        at = by_phase.setdefault(load.bus, {})
        for phase in load.phases:
            at[phase] = at.get(phase, 0.0) + load.kw / len(load.phases)
    points = {}
    for bus, at in by_phase.items():
        if len(set(at.values())) == 1:
            points[bus, tuple(sorted(at))] = sum(at.values())
        else:
            points |= {(bus, (phase,)): kw for phase, kw in at.items()}
    return points | {
        (bus, feeder.buses[bus].phases): ADDED_KW for bus in added if bus not in by_phase
    }


def _shared(demand: Mapping[str, float], set_up: SetUp, seed: int) -> FloatArray:
    """Return the flexible power of each bus: a drawn part of its load, up to the largest."""
    part = draw(seed, "three-phase flexibility", list(demand), 0.01, 0.5)
    wanted = part * np.array(list(demand.values()))
    most = np.minimum(set_up.most_kw, 0.9 * np.array(list(demand.values())))
    low, high = 0.0, 1e3
    for _ in range(60):
        factor = 0.5 * (low + high)
        enough = np.minimum(factor * wanted, most).sum() > set_up.flexible_kw
        low, high = (low, factor) if enough else (factor, high)
    return np.minimum(high * wanted, most)


def _generator(bus: str, phases: tuple[int, ...], kw: float) -> Der:
    return Der(f"gen_{bus}", "inverter", bus, phases, round(kw * KVA_PER_KW, 3), round(kw, 3))


def _load(bus: str, phases: tuple[int, ...], kw: float, room_kw: float, alone: bool) -> Der:
    name = f"load_{bus}" if alone else f"load_{bus}_{phases[0]}"
    low, high = -round(kw, 4), -round(kw - room_kw, 4)
    return Der(name, "flexible_load", bus, phases, round(-low / LOAD_POWER_FACTOR, 4), high, low)
