"""Homes: which house each PV unit, battery, vehicle and water heater belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from grid_models.ders.houses import house_parts
from grid_models.feeder.model import Der

HOME_KINDS = ("house", "pv", "battery", "vehicle", "flexible_load")
"""Kinds of a home's devices; a flexible load belongs to one where it stores energy (a heater)."""


def single_units(ders: Sequence[Der], seed: int = 0) -> tuple[Der, ...]:
    """Return houses and water heaters one by one: each row of n becomes n DERs.

    The houses of a row share its rating as those of `houses_of_ders` do, its water heaters share it
    equally. The DERs of row `house_1_1` are called `house_1_1_0`, `house_1_1_1`, ...; other DERs
    stay as they are.
    """
    singles: list[Der] = []
    for der in ders:
        if der.kind not in ("house", "flexible_load"):
            singles.append(der)
            continue
        parts = np.ones(der.count)
        if der.kind == "house":
            parts = house_parts([f"{der.name}/{k}" for k in range(der.count)], seed)
        singles += [
            replace(
                der,
                name=f"{der.name}_{k}",
                kva=der.kva * part,
                p_max_kw=der.p_max_kw * part,
                p_min_kw=der.p_min_kw * part,
                energy_kwh=der.energy_kwh * part,
                count=1,
            )
            for k, part in enumerate((parts / parts.sum()).tolist())
        ]
    return tuple(singles)


@dataclass(frozen=True)
class HomeTable:
    """The h homes of n DERs.

    Attributes
    ----------
    names : (h,). The DER that each home is named for: its house, or its only device.
    house : (h,). Position of the house among the DERs, -1 where the home has none.
    bus : (h,).
    home : (n,). Position of each DER's home; -1 for a DER of no home (an inverter, a flexible load
        that stores nothing).
    """

    names: tuple[str, ...]
    house: NDArray[np.intp]
    bus: tuple[str, ...]
    home: NDArray[np.intp]


def homes_of(ders: Sequence[Der]) -> HomeTable:
    """Return the homes of a feeder's DERs: one for each house DER, in the order of the DERs.

    A device belongs to the house of its bus that has its phases, or whose phases differ least; of
    several, to the one with the fewest devices of that kind; of those to the one with its number
    (`vehicle_1_1_5` to `house_1_1_5`), else to the first in the order of the DERs. So no house has
    two of a kind while another of its bus and phase has none. A device at a bus without a house is
    a home of its own; those follow the others. A house DER that stands for several houses
    (`Der.count`) is one home.
    """
    house = [i for i, der in enumerate(ders) if der.kind == "house"]
    at_bus: dict[str, list[int]] = {}
    for k, i in enumerate(house):
        at_bus.setdefault(ders[i].bus, []).append(k)
    home = np.full(len(ders), -1, dtype=np.intp)
    home[house] = np.arange(len(house))
    taken: dict[str, NDArray[np.int64]] = {}
    alone: list[int] = []
    for i, der in enumerate(ders):
        if der.kind not in HOME_KINDS[1:] or (der.kind == "flexible_load" and not der.energy_kwh):
            continue
        if der.bus not in at_bus:
            home[i] = len(house) + len(alone)
            alone.append(i)
            continue
        held = taken.setdefault(der.kind, np.zeros(len(house), dtype=np.int64))
        phases, own = set(der.phases), _number(der)
        k = min(
            (len(phases ^ set(ders[house[k]].phases)), held[k], own != _number(ders[house[k]]), k)
            for k in at_bus[der.bus]
        )[3]
        held[k] += 1
        home[i] = k
    named = [*house, *alone]
    return HomeTable(
        tuple(ders[i].name for i in named),
        np.array([*house, *[-1] * len(alone)], dtype=np.intp),
        tuple(ders[i].bus for i in named),
        home,
    )


def _number(der: Der) -> str:
    """Return a DER's name without its first word: `1_1_5` of `house_1_1_5`."""
    return der.name.partition("_")[2]
