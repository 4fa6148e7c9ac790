"""A wired federation by elements: the output element that feeds each element of each input."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from math import gcd

import numpy as np

from controllers.core.ports import Port
from federates.clock import Timing, to_s
from federates.core.mail_routes import Wirable
from federates.core.wiring import FederateWiring, Feed

Key = tuple[str, str, int]
"""An element of an input: instance, port, position."""
MIN_GAP_NS = 2_000
"""Shortest time between a producer's step and the next step of any federate.

Attack federates step at a half and a quarter of it, and HELICS distinguishes times more than
400 ns apart (`federates.hosts.helics_bus`).
"""
_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Origin:
    """The output element that feeds an element of an input; source is empty where none does."""

    source: str
    port: str
    position: int
    noise: float = 0.0
    stream: str = ""
    scale: float = 1.0

    @property
    def element(self) -> Key:
        """Instance, output port and position."""
        return self.source, self.port, self.position


class Names:
    """Unique names for things; a second thing that asks for the same name gets a number."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._of: dict[Hashable, str] = {}
        self._taken = set(taken)

    def of(self, thing: Hashable, wanted: str) -> str:
        """Return the name of a thing: `wanted` where it is free."""
        if thing not in self._of:
            candidates = chain([wanted], (f"{wanted}_{n}" for n in count(2)))
            self._of[thing] = next(name for name in candidates if name not in self._taken)
            self._taken.add(self._of[thing])
        return self._of[thing]


@dataclass
class FederationView:
    """The wired federation by elements.

    Attributes
    ----------
    group_of : The scenario's federate name by instance.
    wirings : By instance, without the attack.
    horizon_ns : End of the scenario.
    own_inputs : Inputs that federates have for the attack itself; they cannot be attacked.
    origin : Of every element of every input.
    """

    by_name: Mapping[str, Wirable]
    group_of: Mapping[str, str]
    wirings: Mapping[str, FederateWiring]
    horizon_ns: int
    own_inputs: frozenset[str] = frozenset()
    origin: dict[Key, Origin] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, federate in self.by_name.items():
            for port in federate.inputs:
                for k in range(len(port.labels)):
                    self.origin[name, port.name, k] = Origin("", "", -1)
                for feed in self.wirings[name].feeds.get(port.name, ()):
                    self._take(name, port, feed)

    def _take(self, name: str, port: Port, feed: Feed) -> None:
        source = (
            range(feed.source_size) if feed.source_index is None else feed.source_index.tolist()
        )
        target = (
            range(len(port.labels)) if feed.target_index is None else feed.target_index.tolist()
        )
        for n, (s, t) in enumerate(zip(source, target, strict=True)):
            stream = feed.noise_streams[n] if feed.noise_streams else ""
            self.origin[name, port.name, t] = Origin(
                feed.source, feed.port, s, feed.noise, stream, feed.scale
            )

    def port(self, instance: str, name: str, side: str) -> Port:
        """Return a port of an instance; `side` is 'inputs' or 'outputs'."""
        ports: Sequence[Port] = getattr(self.by_name[instance], side)
        return next(p for p in ports if p.name == name)

    def ports(self, side: str) -> list[tuple[str, str, Port]]:
        """Return (``federate.port`` in the scenario's words, instance, port) of one side."""
        return [
            (f"{self.group_of[name]}.{port.name}", name, port)
            for name, federate in self.by_name.items()
            for port in getattr(federate, side)
        ]

    def names(self) -> Names:
        """Return names for further federates, none of which the scenario has."""
        return Names((*self.by_name, *self.group_of.values()))

    def timing_of(self, key: Key) -> Timing:
        """Return when the values of an input's element are produced; unfed: when they are read."""
        return self.by_name[self.origin[key].source or key[0]].timing

    def gap_ns(self, timing: Timing) -> int:
        """Return the time between a step of this timing and the next step of any federate."""
        return self._next(timing)[0]

    def gap_problem(self, timing: Timing) -> str:
        """Say why no federate fits between a step of this timing and the next; '' if one does."""
        gap_ns, then = self._next(timing)
        if gap_ns >= MIN_GAP_NS:
            return ""
        first = next(name for name, f in self.by_name.items() if f.timing == timing)
        who = [f"'{n}' ({every(self.by_name[n].timing)})" for n in (first, then)]
        return (
            f"nothing can stand between a step of {who[0]} and the next of {who[1]}: they come as "
            f"close as {gap_ns} ns; expected at least {MIN_GAP_NS} ns, such as by a period_s that "
            "divides the other, or by another offset_s"
        )

    def _next(self, timing: Timing) -> tuple[int, str]:
        """Return the shortest time from a step of this timing to the next one, and whose it is."""
        who: dict[Timing, str] = {}
        for name, federate in self.by_name.items():
            who.setdefault(federate.timing, name)
        return min((_lag_ns(timing, then, self.horizon_ns), name) for then, name in who.items())


def every(timing: Timing) -> str:
    """Say when a federate steps."""
    return f"every {to_s(timing.period_ns):.10g} s from {to_s(timing.offset_ns):.10g} s"


def _lag_ns(first: Timing, then: Timing, horizon_ns: int) -> int:
    """Return the shortest time from a step of one to the next, not the same, of the other.

    Only steps before the horizon count: periods of 10 s and 3.333333333 s come within a nanosecond
    of each other, but only after a century.
    """
    n = min(first.steps_before(horizon_ns), then.period_ns // gcd(first.period_ns, then.period_ns))
    best, late = then.period_ns, then.offset_ns - first.offset_ns
    for start in range(0, max(n, 1), _AT_ONCE):
        steps = np.arange(start, min(start + _AT_ONCE, max(n, 1)), dtype=np.int64)
        lags = (late - steps * first.period_ns) % then.period_ns
        best = min(best, int(np.where(lags == 0, then.period_ns, lags).min()))
    return best
