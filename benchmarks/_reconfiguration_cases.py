"""Feeders with ties, and every configuration of their switches as OpenDSS solves it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from controllers.reconfiguration.check import Demand
from controllers.reconfiguration.plan import Planner
from grid_models.catalog import load_feeder, open_circuit
from grid_models.current_injection.model import PortNetwork
from grid_models.feeder.energised import EnergisedNodes
from grid_models.feeder.model import Feeder, Switch
from grid_models.opendss.circuit import Circuit
from grid_models.opendss.ports import port_network

BAND = (0.95, 1.05)
_THREE = (1, 2, 3)
Found = tuple[float, float, frozenset[str]]
"""Supplied load and losses, kW, and closed switches."""


def ieee13_with_ties() -> Feeder:
    """Return IEEE 13 with three ties besides its own switch; one has a single phase."""
    own = load_feeder("ieee13")
    ties = (
        Switch("tie1", "633", "692", _THREE, closed=False),
        Switch("tie2", "680", "633", _THREE, closed=False),
        Switch("tie3", "645", "684", (3,), closed=False),
    )
    return replace(own, switches=(*own.switches, *ties))


@dataclass(frozen=True)
class Case:
    """A feeder at a share of its nominal load, with taps that hold the band there."""

    make: Callable[[], Feeder]
    taps: Mapping[str, int]
    scale: float


CASES = {
    "ieee13": Case(ieee13_with_ties, {"rg1a": 5, "rg1b": 2, "rg1c": 5}, 0.5),
    "ieee123": Case(
        lambda: load_feeder("ieee123"), {"rg1": 0, "rg4a": 0, "rg4b": 0, "rg4c": 0}, 0.6
    ),
}


class Outage:
    """A line of a case that is lost: what the library plans, and what brute force finds."""

    def __init__(self, case: Case, line: str) -> None:
        self.feeder, self._case = case.make(), case
        self.states = {e.name: e.closed for e in (*self.feeder.lines, *self.feeder.switches)}
        self.states[line] = False
        self._nodes = EnergisedNodes(self.feeder)
        self._place = {label: i for i, label in enumerate(self._nodes.labels)}
        self._bus = np.array([label.rpartition(".")[0] for label in self._nodes.labels])
        self._normal = self._nodes.reach({})
        self.switches = [switch.name for switch in self.feeder.switches]

    def planner(self) -> Planner:
        """Return the planner of this outage."""
        nominal = Demand.nominal(self.feeder)
        demand = Demand(self._case.scale * nominal.load_kw, nominal.der_kva)

        def ports(closed: Mapping[str, bool] | None) -> PortNetwork:
            return port_network(open_circuit(self.feeder, taps=self._case.taps), closed)

        return Planner(self.feeder, ports, self.states, self.switches, demand, BAND)

    def circuit(self) -> Circuit:
        """Return the feeder in OpenDSS."""
        return open_circuit(self.feeder, taps=self._case.taps, tolerance_pu=1e-9)

    def radial(self, closed: Mapping[str, bool]) -> bool:
        """Whether supplied buses are a tree, each supplied on all of its phases."""
        live = self._nodes.reach(closed)
        buses = set(self._bus[live].tolist())
        if buses & set(self._bus[self._normal & ~live].tolist()):
            return False
        feeder, branches = self.feeder, (*self.feeder.lines, *self.feeder.switches)
        pairs = [(e.from_bus, e.to_bus) for e in branches if closed[e.name]]
        pairs += {(x.windings[0].bus, x.windings[1].bus) for x in feeder.transformers}
        pairs += {(x.from_bus, x.to_bus) for x in feeder.regulators}
        return sum(pair[0] in buses for pair in pairs) == len(buses) - 1

    def supply(self, closed: Mapping[str, bool]) -> np.ndarray:
        """Return which nodes are supplied, (n,)."""
        return self._nodes.reach(closed)

    def solved(self, circuit: Circuit, closed: Mapping[str, bool]) -> tuple[float, float, float]:
        """Return supplied load and losses, kW, and how far voltages are beyond the band, pu."""
        live = self._nodes.reach(closed)
        at = [self._place[f"{x.bus}.{x.phases[0]}"] for x in self.feeder.all_loads]
        for name, state in closed.items():
            circuit.set_switch(f"line.{name}", state)
        kw, kvar = (self._case.scale * x for x in (circuit.load_kw, circuit.load_kvar))
        circuit.set_loads(np.where(live[at], kw, 0.0), np.where(live[at], kvar, 0.0))
        circuit.solve()
        v = circuit.v_pu()[live[[self._place[label] for label in circuit.node_labels]]]
        beyond = max(BAND[0] - float(v.min()), float(v.max()) - BAND[1])
        return float(kw[live[at]].sum()), circuit.losses_kw(), beyond

    def brute_force(self, circuit: Circuit) -> list[Found]:
        """Return all configurations that are radial, in the band and keep supply, best first."""
        now, found = self._nodes.reach(self.states), []
        for r in range(len(self.switches) + 1):
            for chosen in combinations(self.switches, r):
                tried = {**self.states, **{name: name in chosen for name in self.switches}}
                if (now & ~self._nodes.reach(tried)).any() or not self.radial(tried):
                    continue
                kw, losses_kw, beyond = self.solved(circuit, tried)
                if beyond <= 0.0:
                    found.append((kw, losses_kw, frozenset(chosen)))
        return sorted(found, key=lambda x: (-round(x[0], 6), x[1], sorted(x[2])))
