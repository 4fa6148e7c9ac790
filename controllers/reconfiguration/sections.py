"""The sections of a feeder between its switches, and every radial way to supply them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, IntArray
from grid_models.base.errors import nearest_name
from grid_models.feeder.model import Feeder, Line, Switch
from grid_models.feeder.topology import BranchElement, element_buses

MOST_SWITCHES = 12


@dataclass(frozen=True)
class Sections:
    """The graph whose vertices are sections and whose edges are switches.

    A *section* is what lines, transformers and regulators join when every operable switch is open.
    States are sets of closed switches, by position in `switches`.

    Attributes
    ----------
    of_bus : Section of each bus.
    source : Section of the source.
    switches : (k,). Operable switches (lines may be among them) that join two sections.
    ends : (k, 2). The sections that each joins.
    size : Number of sections.
    """

    of_bus: Mapping[str, int]
    source: int
    switches: tuple[str, ...]
    ends: tuple[tuple[int, int], ...]
    size: int

    @classmethod
    def of(cls, feeder: Feeder, closed: Mapping[str, bool], operable: Collection[str]) -> Sections:
        """Cut a feeder at its operable switches.

        Parameters
        ----------
        closed : States of lines and switches that differ from the feeder's.
        operable : Names of switches and lines that may be opened and closed; all others stay.

        Raises ControllerError: There is no such line or switch.
        """
        branches: tuple[Line | Switch, ...] = (*feeder.lines, *feeder.switches)
        states = {e.name: closed.get(e.name, e.closed) for e in branches}
        for name in operable:
            if name not in states:
                raise ControllerError(
                    f"'{name}' is no line or switch",
                    where=f"feeder '{feeder.name}'",
                    nearest=nearest_name(name, states),
                )
        index = {bus: i for i, bus in enumerate(feeder.buses)}
        fixed: list[BranchElement] = [*feeder.transformers, *feeder.regulators]
        fixed += [e for e in branches if e.name not in operable and states[e.name]]
        pairs = [(index[b[0]], index[x]) for b in map(element_buses, fixed) for x in b[1:]]
        ends = np.array(pairs, dtype=np.intp).reshape(-1, 2)
        graph = sparse.coo_array((np.ones(len(ends)), ends.T), shape=(len(index), len(index)))
        size, part = csgraph.connected_components(graph, directed=False)
        joined = {
            e.name: (int(part[index[e.from_bus]]), int(part[index[e.to_bus]]))
            for e in branches
            if e.name in operable
        }
        kept = {name: pair for name, pair in joined.items() if pair[0] != pair[1]}
        of_bus = {bus: int(part[i]) for bus, i in index.items()}
        source = of_bus[feeder.source.bus]
        return cls(of_bus, source, tuple(kept), tuple(kept.values()), int(size))

    def without_stubs(self, value: Sequence[float] | FloatArray) -> Sections:
        """Return the graph without the switches that lead to sections of no value only."""
        kept = list(range(len(self.ends)))
        while True:
            degree = np.bincount(
                [s for k in kept for s in self.ends[k]], minlength=self.size
            ).tolist()
            leads = [
                k
                for k in kept
                if not any(
                    degree[s] == 1 and s != self.source and not value[s] for s in self.ends[k]
                )
            ]
            if leads == kept:
                switches = tuple(self.switches[k] for k in kept)
                ends = tuple(self.ends[k] for k in kept)
                return Sections(self.of_bus, self.source, switches, ends, self.size)
            kept = leads

    def closed_now(self, closed: Mapping[str, bool]) -> frozenset[int]:
        """Return the state in which the switches are."""
        return frozenset(k for k, name in enumerate(self.switches) if closed[name])

    @cached_property
    def _at(self) -> list[list[tuple[int, int]]]:
        """Per section: the switches there, and what they lead to."""
        at: list[list[tuple[int, int]]] = [[] for _ in range(self.size)]
        for k, (a, b) in enumerate(self.ends):
            at[a].append((k, b))
            at[b].append((k, a))
        return at

    def supplied(self, state: Collection[int]) -> frozenset[int]:
        """Return the sections that closed switches join to the source."""
        found, todo = {self.source}, [self.source]
        while todo:
            for k, other in self._at[todo.pop()]:
                if k in state and other not in found:
                    found.add(other)
                    todo.append(other)
        return frozenset(found)

    def loops(self, state: Collection[int]) -> int:
        """Return the number of independent loops of supplied sections."""
        live = self.supplied(state)
        return sum(self.ends[k][0] in live for k in state) - len(live) + 1

    def trees(self) -> Iterator[tuple[frozenset[int], frozenset[int]]]:
        """Yield every radial way to supply sections: closed switches, and the sections supplied.

        Every subtree of the graph that holds the source, once.

        Raises ControllerError: There are more than `MOST_SWITCHES` switches.
        """
        if len(self.switches) > MOST_SWITCHES:
            raise ControllerError(
                f"{len(self.switches)} switches are too many to try all configurations",
                where="reconfiguration",
                expected=f"at most {MOST_SWITCHES}; name fewer in the option 'switches'",
            )
        yield from self._grown(frozenset(), frozenset([self.source]), frozenset())

    def _grown(
        self, chosen: frozenset[int], live: frozenset[int], banned: frozenset[int]
    ) -> Iterator[tuple[frozenset[int], frozenset[int]]]:
        yield chosen, live
        for k, (a, b) in enumerate(self.ends):
            if k in banned or (a in live) == (b in live):
                continue
            yield from self._grown(chosen | {k}, live | {a, b}, banned)
            banned = banned | {k}

    def sums(self, buses: Sequence[str], values: FloatArray) -> FloatArray:
        """Return the sum per section of values at buses, (size,)."""
        at: IntArray = np.array([self.of_bus[bus] for bus in buses], dtype=np.int64)
        return np.asarray(np.bincount(at, values, self.size), dtype=np.float64)
