"""The island of attack 3 on IEEE 123: its resources, and its market when the attack is on.

The thesis prints totals only: 2500 kW of generation at the twelve buses with the largest loads,
1200 kW elsewhere, 2281 kW lost. Here both are divided by load, all load can be shed, and which part
of it is critical is one number for all (`critical_load_pu` of the scenario).
``co-sim-configs/attack-3-ieee123.csv`` is ``to_csv(island_ders(load_feeder("ieee123")))``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from controllers.core.options import parse_options
from controllers.core.protocol import ControlSite
from controllers.market.agents.options import MarketOptions
from controllers.market.agents.schedule import PortTerms
from controllers.market.agents.site import site_participants, site_terms
from controllers.market.model.participants import (
    LOAD_POWER_FACTOR,
    Participants,
    aggregate,
)
from controllers.market.model.problem import PortProblem
from federates.core.sites import GridSite
from federates.scenario.schema import Scenario
from grid_models.feeder.model import Der, Feeder

LARGEST, LARGEST_KW, OTHER_KW = 12, 2500.0, 1200.0
KVA_PER_KW = 1.12
"""Reactive range of half of the capacity at full output."""


def island_ders(feeder: Feeder) -> tuple[Der, ...]:
    """Return a flexible load per load node and phase, and a generator per bus with load.

    The feeder's spot loads give the loads, which stand in their place; a load between two phases is
    half on each. Of equally large buses the first are the largest.
    """
    demand: dict[str, dict[int, float]] = {}
    for load in feeder.loads:
        of_bus = demand.setdefault(load.bus, {})
        for phase in load.phases:
            of_bus[phase] = of_bus.get(phase, 0.0) + load.kw / len(load.phases)
    total = {bus: round(sum(kw.values()), 6) for bus, kw in demand.items()}
    largest = sorted(total, key=lambda bus: -total[bus])[:LARGEST]
    others = [bus for bus in total if bus not in largest]
    loads = [
        _load(bus, phase, kw) for bus, of_bus in demand.items() for phase, kw in of_bus.items()
    ]
    generators = [
        _generator(f"{prefix}_{bus}", bus, tuple(sorted(demand[bus])), kw)
        for prefix, buses, whole in (("gen_large", largest, LARGEST_KW), ("gen", others, OTHER_KW))
        for bus, kw in _divided(whole, {bus: total[bus] for bus in buses}).items()
    ]
    return (*loads, *generators)


def _divided(whole: float, by: Mapping[str, float]) -> dict[str, float]:
    return {bus: whole * part / sum(by.values()) for bus, part in by.items()}


def _load(bus: str, phase: int, kw: float) -> Der:
    kva = round(kw / LOAD_POWER_FACTOR, 4)
    return Der(f"load_{bus}_{phase}", "flexible_load", bus, (phase,), kva, 0.0, -round(kw, 4))


def _generator(name: str, bus: str, phases: tuple[int, ...], kw: float) -> Der:
    return Der(name, "inverter", bus, phases, round(kw * KVA_PER_KW, 3), round(kw, 3))


def island_market(scenario: Scenario) -> tuple[Participants, PortTerms]:
    """Return the market of a scenario such as ``attack-3-ieee123``: who bids, and its terms."""
    grid = GridSite(scenario, scenario.plant_of("market"))
    band = scenario.band
    site = ControlSite(
        grid.feeder,
        grid.feeder.ders,
        1.0,
        seed=scenario.seed,
        v_min_pu=band.v_min_pu,
        v_max_pu=band.v_max_pu,
        ports=grid.ports,
    )
    spec = scenario.federates["market"]
    options = parse_options(MarketOptions, getattr(spec, "options", {}), "market")
    table, network = site_participants(site, options)
    terms = site_terms(site, options, table, network)
    assert isinstance(terms, PortTerms)
    return table, terms


def island_problem(
    table: Participants, terms: PortTerms, unit_kw: float, *, lost: str = ""
) -> PortProblem:
    """Return the problem with a unit of `unit_kw`, without the generators whose names begin so."""
    gone = np.array([bool(lost) and d.name.startswith(lost) for d in table.ders])
    kept = replace(table, capacity_mw=np.where(gone, 0.0, table.capacity_mw))
    return replace(terms, import_max_mw=unit_kw / 1000.0).problem(kept.rows, aggregate(kept))
