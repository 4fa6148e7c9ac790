"""The optimum of IEEE 13 and 123 against every configuration of the switches in OpenDSS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from controllers.reconfiguration.check import Demand
from controllers.reconfiguration.plan import Planner
from grid_models.catalog import load_feeder, open_circuit
from grid_models.current_injection.model import PortNetwork
from grid_models.feeder.energised import EnergisedNodes
from grid_models.feeder.model import Feeder, Switch
from grid_models.opendss.circuit import Circuit
from grid_models.opendss.ports import port_network

BAND = (0.95, 1.05)
THREE = (1, 2, 3)


def ieee13() -> Feeder:
    """Return IEEE 13 with three ties besides its own switch; one has a single phase."""
    own = load_feeder("ieee13")
    ties = (
        Switch("tie1", "633", "692", THREE, closed=False),
        Switch("tie2", "680", "633", THREE, closed=False),
        Switch("tie3", "645", "684", (3,), closed=False),
    )
    return replace(own, switches=(*own.switches, *ties))


CASES = {
    "ieee13": (ieee13, {"rg1a": 5, "rg1b": 2, "rg1c": 5}, {"line_632_671_mid_671": False}, 0.5, 1),
    "ieee123": (
        lambda: load_feeder("ieee123"),
        {"rg1": 0, "rg4a": 0, "rg4b": 0, "rg4c": 0},
        {"line_57_60": False},
        0.6,
        2,
    ),
}


def brute_force(
    feeder: Feeder, circuit: Circuit, states: Mapping[str, bool], scale: float
) -> list[tuple[float, float, frozenset[str]]]:
    """Return load, losses in kW, and closed switches of all allowed configurations, best first."""
    nodes = EnergisedNodes(feeder)
    place = {label: i for i, label in enumerate(nodes.labels)}
    normal, now = nodes.reach({}), nodes.reach(states)
    switches = [s.name for s in feeder.switches]
    at = np.array([place[f"{x.bus}.{x.phases[0]}"] for x in feeder.loads])
    kw, kvar = scale * circuit.load_kw, scale * circuit.load_kvar
    bus = np.array([label.rpartition(".")[0] for label in nodes.labels])
    found = []
    for r in range(len(switches) + 1):
        for chosen in combinations(switches, r):
            tried = {**states, **{name: name in chosen for name in switches}}
            live = nodes.reach(tried)
            if (now & ~live).any() or _meshed(feeder, tried, set(bus[live])):
                continue
            if set(bus[live]) & set(bus[normal & ~live]):  # on some of its phases only
                continue
            for name, closed in tried.items():
                circuit.set_switch(f"line.{name}", closed)
            circuit.set_loads(np.where(live[at], kw, 0.0), np.where(live[at], kvar, 0.0))
            circuit.solve()
            v = circuit.v_pu()
            there = live[[place[label] for label in circuit.node_labels]]
            if v[there].min() >= BAND[0] and v[there].max() <= BAND[1]:
                found.append((kw[live[at]].sum(), circuit.losses_kw(), frozenset(chosen)))
    return sorted(found, key=lambda x: (-round(x[0], 6), x[1], sorted(x[2])))


def _meshed(feeder: Feeder, closed: Mapping[str, bool], live: set[str]) -> bool:
    """Whether there are more closed elements between supplied buses than a tree has."""
    branches = (*feeder.lines, *feeder.switches)
    pairs = {(e.from_bus, e.to_bus) for e in branches if closed[e.name] and e.from_bus in live}
    pairs |= {(x.windings[0].bus, x.windings[1].bus) for x in feeder.transformers}
    pairs |= {(x.from_bus, x.to_bus) for x in feeder.regulators}
    return len([p for p in pairs if p[0] in live]) > len(live) - 1


@pytest.mark.parametrize("name", CASES)
def test_the_plan_is_the_optimum_of_all_configurations_in_opendss(name: str) -> None:
    make, taps, changed, scale, operations = CASES[name]
    feeder = make()
    kept: dict[tuple[tuple[str, bool], ...], PortNetwork] = {}

    def ports(closed: Mapping[str, bool] | None) -> PortNetwork:
        key = tuple(sorted((closed or {}).items()))
        if key not in kept:
            kept[key] = port_network(open_circuit(feeder, taps=taps or None), closed)
        return kept[key]

    states = {e.name: e.closed for e in (*feeder.lines, *feeder.switches)} | changed
    nominal = Demand.nominal(feeder)
    demand = Demand(scale * nominal.load_kw, nominal.der_kva)
    operable = [s.name for s in feeder.switches]
    planner = Planner(feeder, ports, states, operable, demand, BAND)
    plan = planner.best()
    assert len(plan.operations) == operations
    assert plan.restored_kw > 0.0
    final = dict(states)
    for operation in plan.operations:
        final |= operation

    circuit = open_circuit(feeder, taps=taps or None, tolerance_pu=1e-9)
    best = brute_force(feeder, circuit, states, scale)[0]
    assert plan.supplied_kw == pytest.approx(best[0])
    # Losses within the engine's tolerance; switches that lead nowhere are not operated.
    assert plan.checked.losses_kw == pytest.approx(best[1], abs=2e-3)
    supplied = EnergisedNodes(feeder)
    closed = {**final, **{name: name in best[2] for name in operable}}
    assert (supplied.reach(final) == supplied.reach(closed)).all()
