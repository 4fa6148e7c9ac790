"""What an attack amounts to in one federation, as plain data: who carries out which part, when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from controllers.core.mail import IntArray
from controllers.core.ports import Port
from federates.clock import Timing
from federates.core.wiring import FederateWiring, Feed
from federates.scenario.attack_schedule import Schedule

if TYPE_CHECKING:
    from federates.attacks.link import LinkAttackPlan
    from federates.attacks.physical import PhysicalPlan

BEGINS = "attack_begin_s"
"""Port of the director, and the input of whoever needs its word: begin of each directed step."""


@dataclass(frozen=True)
class Channel:
    """Elements of one port on their way through an attack federate.

    Attributes
    ----------
    federate, port : str
        Whose port it is: the scenario's names, for the books.
    labels : tuple of str
    source : str
        Input port of the attack federate that brings the true values; empty for an input that
        nobody feeds, whose true value is `initial`.
    positions : int array
        Where the elements are in that input port.
    out : str
        Output port of the attack federate that the readers now read.
    """

    federate: str
    port: str
    unit: str
    labels: tuple[str, ...]
    source: str
    positions: IntArray
    out: str
    initial: float = 0.0


@dataclass(frozen=True)
class Part:
    """What one step, or its concealment, does in one attack federate.

    Attributes
    ----------
    step : int
        Position of the step in the attack.
    conceal : int or None
        Position in its `conceal`; None for the action itself.
    elements : int array
        Positions in the concatenation of all channels, in the scenario's order of labels.
    """

    step: int
    conceal: int | None
    elements: IntArray


@dataclass(frozen=True)
class SitePlan:
    """One attack federate.

    Attributes
    ----------
    shift_ns : int
        Added to the federate's time: when the values it handles are (or will be) produced.
    channels : tuple of Channel
    parts : tuple of Part
        In the attack's order.
    inputs : tuple of Port
    feeds : mapping of input port to Feed
    sees : mapping of step to (``federate.port``, input port names and their labels)
    physical : PhysicalPlan or None
        For the federate that acts on the grid.
    grid : str
        The scenario's name of the federate that it acts on.
    """

    name: str
    timing: Timing
    shift_ns: int
    channels: tuple[Channel, ...] = ()
    parts: tuple[Part, ...] = ()
    inputs: tuple[Port, ...] = ()
    feeds: Mapping[str, tuple[Feed, ...]] = field(default_factory=dict)
    sees: Mapping[int, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    physical: PhysicalPlan | None = None
    announces: tuple[int, ...] = ()
    grid: str = ""


@dataclass(frozen=True)
class DirectorPlan:
    """The federate that decides when steps begin that wait for a signal."""

    name: str
    timing: Timing
    shift_ns: int
    inputs: tuple[Port, ...]
    feeds: Mapping[str, tuple[Feed, ...]]
    watches: Mapping[int, tuple[str, ...]]
    """Input ports that each directed step with a `when` looks at."""
    samples: Mapping[int, tuple[Timing, ...]] = field(default_factory=dict)
    """When the values come that each step acts on."""


@dataclass(frozen=True)
class AttackPlan:
    """All attack federates of a run, by name, and the schedule they share."""

    schedule: Schedule
    sites: Mapping[str, SitePlan]
    director: DirectorPlan | None = None
    links: Mapping[str, LinkAttackPlan | None] = field(default_factory=dict)
    """What is done to the mail of each receiving federate."""

    def rides_with(self, wirings: Mapping[str, FederateWiring]) -> dict[str, str]:
        """Return, by attack federate, a federate next to it: that it reads, or that reads it."""
        pairs = [(f.source, n) for n, w in wirings.items() for fs in w.feeds.values() for f in fs]
        out: dict[str, str] = {}
        for name in self.names:
            read = [source for source, reader in pairs if reader == name]
            readers = [reader for source, reader in pairs if source == name]
            near = [n for n in (*read, *readers) if n not in self.names]
            out |= {name: near[0]} if near else {}
        return out

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the attack federates."""
        return (*((self.director.name,) if self.director else ()), *self.sites)
