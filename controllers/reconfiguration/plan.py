"""The best radial configuration of a feeder's switches, and the operations that lead to it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise

import numpy as np

from controllers.core.mail import FloatArray
from controllers.reconfiguration.check import AcCheck, Checked, Demand
from controllers.reconfiguration.sections import Sections
from grid_models.current_injection.model import PortNetwork
from grid_models.feeder.energised import EnergisedNodes
from grid_models.feeder.model import Feeder

Operation = Mapping[str, bool]
"""Switches that act in one step: name to closed. An exchange opens one and closes another."""

_LOAD_STEP_KW = 1e-6
_LOSS_STEP_KW = 1e-3


@dataclass(frozen=True)
class Plan:
    """What to switch.

    Attributes
    ----------
    operations : In their order.
    supplied_kw, restored_kw, dark_kw : Demand supplied at the end, how much of it was dark before,
        and what stays dark.
    checked : The state at the end.
    dark : Why sections stay dark, by the names of one of their buses each.
    """

    operations: tuple[Operation, ...]
    supplied_kw: float
    restored_kw: float
    dark_kw: float
    checked: Checked
    dark: Mapping[str, str] = field(default_factory=dict)


class Planner:
    """Finds plans for one feeder, one state of its lines and switches, and one demand.

    Parameters
    ----------
    ports : As `ControlSite.ports`.
    closed : State of every line and switch now.
    operable : Lines and switches that obey.
    weights : (n_loads + n_ders,). Worth of a kW of each consumer; default 1.
    transfers : Whether what is supplied may be supplied another way (exchanges).
    """

    def __init__(
        self,
        feeder: Feeder,
        ports: Callable[[Mapping[str, bool] | None], PortNetwork],
        closed: Mapping[str, bool],
        operable: Collection[str],
        demand: Demand,
        band_pu: tuple[float, float],
        weights: FloatArray | None = None,
        *,
        transfers: bool = True,
    ) -> None:
        self._closed, self._transfers = dict(closed), transfers
        whole = Sections.of(feeder, closed, operable)
        buses = [load.bus for load in feeder.all_loads] + [der.bus for der in feeder.ders]
        consumed = demand.consumed_kw()
        worth = consumed if weights is None else weights * consumed
        self.load_kw = whole.sums(buses, consumed)
        self.worth = whole.sums(buses, worth)
        normal = EnergisedNodes(feeder)
        self._nodes = whole.sums(
            [label.rpartition(".")[0] for label in normal.labels],
            normal.reach({}).astype(np.float64),
        )
        has_der = whole.sums([der.bus for der in feeder.ders], np.ones(len(feeder.ders)))
        self.sections = whole.without_stubs(self.worth + self._nodes + has_der)
        self.now = self.sections.closed_now(closed)
        self.live = self.sections.supplied(self.now)
        self._check = AcCheck(feeder, ports, demand, band_pu, closed, self.sections.of_bus)
        self._first_bus = {
            section: bus for bus, section in reversed(list(self.sections.of_bus.items()))
        }

    def check(self, state: Collection[int]) -> Checked:
        """Return the AC check of a state of the switches."""
        named = {name: k in state for k, name in enumerate(self.sections.switches)}
        return self._check.state(self._closed | named)

    def candidates(self) -> list[tuple[frozenset[int], frozenset[int]]]:
        """Return every radial configuration that keeps the supply of what is supplied.

        A switch between two dark sections stays as it is.
        """
        ends, keep = self.sections.ends, set()
        if not self._transfers:
            keep = {k for k in self.now if ends[k][0] in self.live}
        found = []
        for tree, live in self.sections.trees():
            if self.live <= live and keep <= tree:
                dark = {k for k in self.now if ends[k][0] not in live and ends[k][1] not in live}
                found.append((tree | dark, live))
        return found

    def best(self) -> Plan:
        """Return the plan that restores most, then loses least, then switches least.

        Exact: every configuration that restores as much as the best is checked by an AC power flow;
        of those that pass, the first in this order that can be reached is taken.
        """

        def restored(candidate: tuple[frozenset[int], frozenset[int]]) -> tuple[int, int]:
            sections = sorted(candidate[1])
            worth = round(float(self.worth[sections].sum()) / _LOAD_STEP_KW)
            return -worth, -round(float(self._nodes[sections].sum()))

        refused: list[tuple[frozenset[int], str]] = []
        ranked = sorted(self.candidates(), key=restored)
        for _, group in groupby(ranked, key=restored):
            passed = []
            for state, live in group:
                checked = self.check(state)
                if checked.violation:
                    refused.append((live, checked.violation))
                else:
                    losses = round(checked.losses_kw / _LOSS_STEP_KW)
                    passed.append((losses, len(state ^ self.now), sorted(state), state, live))
            for *_, state, live in sorted(passed, key=lambda x: x[:3]):
                operations = self.operations(state)
                if operations is not None:
                    return self._plan(operations, state, live, refused)
                refused.append((live, "a state on the way to it is not allowed"))
        return self._plan((), self.now, self.live, refused)

    def _plan(
        self,
        operations: tuple[Operation, ...],
        state: frozenset[int],
        live: frozenset[int],
        refused: Sequence[tuple[frozenset[int], str]],
    ) -> Plan:
        reachable = frozenset().union(*(there for _, there in self.sections.trees()))
        dark = {}
        for section in range(self.sections.size):
            if section in live or not self.load_kw[section] > 0.0:
                continue
            why = next((words for there, words in refused if section in there), "")
            if section not in reachable:
                why = "no switch leads there"
            dark[self._first_bus[section]] = why or "cannot be supplied together with the others"
        supplied = float(self.load_kw[sorted(live)].sum())
        before = float(self.load_kw[sorted(self.live)].sum())
        left = float(self.load_kw.sum()) - supplied
        return Plan(operations, supplied, supplied - before, left, self.check(state), dark)

    def to(self, closed: Mapping[str, bool]) -> tuple[Operation, ...] | None:
        """Return operations to given states of the switches.

        None where there is no way, or where there is a loop.
        """
        target = self.sections.closed_now({**self._closed, **closed})
        return None if self.sections.loops(target) else self.operations(target)

    def operations(self, target: frozenset[int]) -> tuple[Operation, ...] | None:
        """Return operations from the present state to another; None where there is no way.

        Isolating comes first, then dark sections are picked up, those of most worth first, then
        sections are exchanged. In no state between does anything lose its supply, no loop appears
        that was not there, nothing is supplied that the target does not supply, and each passes
        the AC check.
        """
        allowed = self.sections.supplied(target)
        failed: set[frozenset[int]] = set()

        def way(state: frozenset[int]) -> list[frozenset[int]] | None:
            if state == target:
                return []
            for after in self._next(state, target, allowed):
                if after in failed or self.check(after).violation:
                    continue
                rest = way(after)
                if rest is not None:
                    return [after, *rest]
                failed.add(after)
            return None

        found = way(self.now)
        if found is None:
            return None
        names, states = self.sections.switches, [self.now, *found]
        return tuple(
            {names[k]: k in after for k in sorted(before ^ after)}
            for before, after in pairwise(states)
        )

    def _next(
        self, state: frozenset[int], target: frozenset[int], allowed: frozenset[int]
    ) -> Iterator[frozenset[int]]:
        """Yield the states one allowed operation nearer to the target, best first."""
        sections = self.sections
        live, loops = sections.supplied(state), sections.loops(state)
        opens, closes = sorted(state - target), sorted(target - state)
        singles = [state - {k} for k in opens]
        picked = [(k, sections.supplied(state | {k}) - live) for k in closes]
        picked.sort(key=lambda x: -float(self.worth[sorted(x[1])].sum()))
        singles += [state | {k} for k, _ in picked]
        for after in (*singles, *(state - {a} | {b} for a in opens for b in closes)):
            there = sections.supplied(after)
            if live <= there <= allowed and sections.loops(after) <= loops:
                yield after
