"""What an attack amounts to in one federation, as plain data: who carries out which part, when."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from controllers.core.mail import FloatArray
from controllers.core.ports import Port
from federates.attacks.adaptive import AttackSite
from federates.clock import Timing
from federates.core.wiring import FederateWiring, Feed
from federates.scenario.attack_schedule import AttackSchedule
from federates.scenario.attack_schema import AttackSpec

if TYPE_CHECKING:
    from federates.attacks.truth import TruthWriter
    from federates.core.context import FederateContext

BEGINS = "attack_begin_s"
"""Output of the director, and input of whoever follows it: begin of each directed step, s."""


def begins_port(schedule: AttackSchedule) -> Port:
    """Return the input that brings the director's decisions."""
    ids = tuple(schedule.ids[i] for i in schedule.directed)
    return Port(BEGINS, "s", ids, np.nan, required=False)


@dataclass(frozen=True)
class Touched:
    """Things of one kind that a step acts on: labels of a port, links, devices or elements.

    Attributes
    ----------
    what : The kind of things, plural: ``links``, ``labels of feeder.v_pu``.
    unit : Of the values that are changed; '' where they have none.
    readers : Inputs that see the changed values, where they are not the things themselves.
    """

    what: str
    names: tuple[str, ...]
    unit: str = ""
    readers: tuple[str, ...] = ()

    def count(self) -> str:
        """Return the number and the kind of things."""
        kind, of, port = self.what.partition(" of ")
        one = f"{kind.removesuffix('s')}{of}{port}"
        return f"{len(self.names)} {one if len(self.names) == 1 else self.what}"

    def text(self, shown: int = 4) -> str:
        """Return the number, the first few names and who reads them."""
        some = ", ".join(self.names[:shown]) + (", ..." if len(self.names) > shown else "")
        read = f"; read as {', '.join(self.readers)}" if self.readers else ""
        return f"{self.count()}: {some}{read}"


TouchedByStep = Mapping[tuple[int, int | None], Sequence[Touched]]
"""By step, and the position of its concealment or None for the action: what is acted on."""


class SitePart(ABC):
    """What one layer does in an attack federate, at work."""

    @abstractmethod
    def outputs(
        self,
        sample_s: float,
        elapsed_s: FloatArray,
        inputs: Mapping[str, FloatArray],
        truth: TruthWriter | None,
    ) -> dict[str, FloatArray]:
        """Return its outputs for values produced at `sample_s`; write what changed to `truth`.

        `elapsed_s` holds the time since the begin of each step of the attack, NaN: not active.
        """


class PartPlan(ABC):
    """What one layer does in an attack federate; plain data.

    Its outputs and their names in the ground truth stand in the same order.
    """

    @abstractmethod
    def ports(self) -> tuple[Port, ...]:
        """Return the outputs."""

    @abstractmethod
    def books(self) -> list[tuple[str, str, tuple[str, ...]]]:
        """Return (federate, port, labels) that the ground truth calls each output."""

    @abstractmethod
    def steps(self) -> set[int]:
        """Return the positions of the steps whose action it carries out."""

    @abstractmethod
    def build(
        self, spec: AttackSpec, site: SitePlan, context: FederateContext, first_channel: int
    ) -> SitePart:
        """Return the part at work; `first_channel` is the position of its first book."""


@dataclass(frozen=True)
class SitePlan:
    """One attack federate.

    Attributes
    ----------
    shift_ns : Added to the federate's time: when the values it handles are (or will be) produced.
    sees : By step, the input ports of each ``federate.port`` that its action reads besides its
        targets.
    announces : Steps whose begin and end it reports for all.
    """

    name: str
    timing: Timing
    shift_ns: int
    inputs: tuple[Port, ...] = ()
    feeds: Mapping[str, tuple[Feed, ...]] = field(default_factory=dict)
    parts: tuple[PartPlan, ...] = ()
    sees: Mapping[int, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    announces: tuple[int, ...] = ()

    @property
    def outputs(self) -> tuple[Port, ...]:
        """All outputs, part by part."""
        return tuple(port for part in self.parts for port in part.ports())

    @property
    def books(self) -> list[tuple[str, str, tuple[str, ...]]]:
        """What the ground truth calls each of the outputs."""
        return [book for part in self.parts for book in part.books()]

    def attack_site(
        self,
        spec: AttackSpec,
        step: int,
        targets: Sequence[tuple[str, str]],
        units: Sequence[str],
        period_s: float,
        places: tuple[str, ...] = (),
    ) -> AttackSite:
        """Return what the action of a step is told of its targets in this federate."""
        labels = {port.name: port.labels for port in self.inputs}
        sees = self.sees.get(step, {})
        return AttackSite(
            tuple(targets),
            tuple(units),
            {port: tuple(x for n in names for x in labels[n]) for port, names in sees.items()},
            period_s,
            spec.seed,
            spec.steps[step].target.port or "",
            places,
            spec.where("steps", step, "action"),
        )


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

    schedule: AttackSchedule
    sites: Mapping[str, SitePlan]
    director: DirectorPlan | None = None
    touched: TouchedByStep = field(default_factory=dict)

    def begins(self) -> tuple[Feed, ...]:
        """Return the feed that brings the director's decisions, if there is a director."""
        if self.director is None:
            return ()
        return (Feed(self.director.name, BEGINS, len(self.schedule.directed), None, None),)

    def host_of(self, wirings: Mapping[str, FederateWiring]) -> dict[str, str]:
        """Return, by attack federate, one of the scenario's that can host it in its process.

        It is one that the attack federate reads, or else one that reads it.
        """
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
