"""The resource set-up of attacks 2a and 2b on IEEE 123: who has a generator, who can curtail.

Fitted to the thesis' table, which does not list the resources: dispatchable generators at market
operators 46, 55, 39 and 68 (the attacked ones) and 67, five kilowatt of other generation, and at
every load node a flexible load that can give up 10 to 50 % of its demand. The tables beside the
shipped scenarios are ``der_rich.to_csv(resilience_ders(feeder, ATTACK_KW[...]))``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from _market_cases import ATTACKED, FLEXIBILITY, draw

from controllers.market.model.participants import LOAD_POWER_FACTOR
from grid_models.feeder.model import Der, Feeder

LOAD_KW = 1.0815 * 2064.0
"""Demand without any curtailment; of it the market buys the thesis' 2064 kW before the attack."""
ATTACK_KW: Mapping[str, float] = {"2a": 261.0, "2b": 641.0}
KUNDUR: Mapping[str, Any] = {
    "attacked_kw": 647.9,
    "load_kw": 2210.0,
    "helper_kw": 392.4,
    "curtailable_pu": 0.25,
}
"""Of `kundur-550`: three quarters of the load are the feeder's own and depend on the voltage."""
HELPER_BUS, HELPER_KW = "67", 443.3
OTHER_BUSES, OTHER_KW = ("25", "76", "94", "105", "112"), 5.0
KVA_PER_KW = 1.0925
"""Reactive range of 44 % of the capacity at full output, as the clearing problems have it."""


def resilience_ders(
    feeder: Feeder,
    attacked_kw: float,
    seed: int = 1,
    *,
    load_kw: float = LOAD_KW,
    helper_kw: float = HELPER_KW,
    curtailable_pu: float | None = None,
) -> tuple[Der, ...]:
    """Return the resources: a flexible load per load node and phase, and the generators.

    Parameters
    ----------
    feeder : Feeder
        IEEE 123. Its spot loads give the shape; the flexible loads stand in their place, so run it
        with ``grid.load_scale: 0``.
    attacked_kw : float
        Capacity at the four attacked market operators in all, kW.
    seed : int
        Of the flexibilities.
    load_kw : float
        Demand without any curtailment.
    helper_kw : float
        Capacity at the operator that can take over.
    curtailable_pu : float, optional
        Part of every load that is a flexible load here and can be curtailed to nothing; the rest is
        left to the feeder's own loads. Default: all is here, and what can be curtailed is drawn.

    Returns
    -------
    tuple of Der
        ``load_BUS_PHASE`` and ``gen_BUS``; a generator stands on all phases of its bus.
    """
    demand: dict[tuple[str, int], float] = {}
    for load in feeder.loads:
        for phase in load.phases:
            key = (load.bus, phase)
            demand[key] = demand.get(key, 0.0) + load.kw / len(load.phases)
    scale = load_kw / sum(demand.values()) * (curtailable_pu or 1.0)
    buses = list(dict.fromkeys(bus for bus, _ in demand))
    flexibility = dict(zip(buses, draw(seed, "flexibility", buses, *FLEXIBILITY), strict=True))
    if curtailable_pu is not None:
        flexibility = dict.fromkeys(buses, 1.0)
    loads = [
        _flexible_load(bus, phase, kw * scale, float(flexibility[bus]))
        for (bus, phase), kw in demand.items()
    ]
    capacity = {bus: share * attacked_kw for bus, share in ATTACKED.items()}
    capacity |= {HELPER_BUS: helper_kw} | dict.fromkeys(OTHER_BUSES, OTHER_KW / len(OTHER_BUSES))
    generators = [_generator(feeder, bus, kw) for bus, kw in capacity.items()]
    return (*loads, *generators)


def _generator(feeder: Feeder, bus: str, kw: float) -> Der:
    kva = round(kw * KVA_PER_KW, 3)
    return Der(f"gen_{bus}", "inverter", bus, feeder.buses[bus].phases, kva, round(kw, 3))


def _flexible_load(bus: str, phase: int, kw: float, flexibility: float) -> Der:
    low, high = -round(kw, 4), 0.0 - round(kw * (1.0 - flexibility), 4)
    kva = round(-low / LOAD_POWER_FACTOR, 4)
    return Der(f"load_{bus}_{phase}", "flexible_load", bus, (phase,), kva, high, low)
