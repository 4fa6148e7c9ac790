"""A wired federation, looked at element by element: where each value that is read comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import gcd

from controllers.ports import Port
from federates.clock import Timing
from federates.wiring import FederateWiring, Feed, Wirable

Key = tuple[str, str, int]
"""An element of an input: instance, port, position."""


@dataclass(frozen=True)
class Origin:
    """Where an input's element comes from; source is empty where nobody feeds it."""

    source: str
    port: str
    position: int
    noise: float = 0.0
    stream: str = ""


@dataclass
class FederationView:
    """The wired federation, looked at element by element."""

    by_name: Mapping[str, Wirable]
    group_of: Mapping[str, str]
    wirings: Mapping[str, FederateWiring]
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
            self.origin[name, port.name, t] = Origin(feed.source, feed.port, s, feed.noise, stream)

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

    def gap_ns(self, timing: Timing) -> int:
        """Return the time between a step of this timing and the next step of anybody."""
        return min(_lag_ns(timing, other.timing) for other in self.by_name.values())


def _lag_ns(first: Timing, then: Timing) -> int:
    every = gcd(first.period_ns, then.period_ns)
    return (then.offset_ns - first.offset_ns) % every or every
