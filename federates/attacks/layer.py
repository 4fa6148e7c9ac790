"""The interface of a layer: one instance resolves all steps of its kind on one federation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from federates.attacks.plan import AttackPlan, Touched
from federates.attacks.view import FederationView
from federates.clock import Timing
from federates.core.wiring import FederateWiring
from federates.scenario.attack_actions import Layer
from federates.scenario.attack_schedule import AttackSchedule
from federates.scenario.attack_schema import AttackSpec


@dataclass(frozen=True)
class AttackCase:
    """An attack and the federation it is meant for.

    Attributes
    ----------
    external : Programs that are not ours; what they read cannot be rerouted.
    """

    spec: AttackSpec
    schedule: AttackSchedule
    federation: FederationView
    external: Sequence[str] = ()


class AttackLayer(ABC):
    """The steps of one layer, resolved on a federation; nothing is changed yet.

    A subclass implements `resolve`, which calls `add` for what each step acts on.

    Attributes
    ----------
    problems : What is wrong with the steps, each with file, line and key, what was expected, and
        the nearest name.
    acts_on : dict of step to set of str
        Names of what a step acts on; two steps that are active at one time must not share one.
    timings : By step, when the values or messages come that it acts on.
    touched : By step, and concealment or None: what is acted on, in words.
    """

    name: ClassVar[Layer]

    def __init__(self, case: AttackCase) -> None:
        self.case = case
        self.steps = case.spec.of_layer(self.name)
        self.problems: list[str] = []
        self.acts_on: dict[int, set[str]] = {}
        self.timings: dict[int, list[Timing]] = {}
        self.touched: dict[tuple[int, int | None], list[Touched]] = {}
        self.resolve()

    @abstractmethod
    def resolve(self) -> None:
        """Find the targets of all steps; append to `problems` what is wrong."""

    def add(
        self,
        step: int,
        names: Iterable[str],
        timings: Iterable[Timing],
        touched: Iterable[Touched],
        conceal: int | None = None,
    ) -> None:
        """Keep what a step, or one of its concealments, acts on."""
        self.acts_on.setdefault(step, set()).update(names)
        known = self.timings.setdefault(step, [])
        known += [t for t in dict.fromkeys(timings) if t not in known]
        self.touched.setdefault((step, conceal), []).extend(touched)

    def rewire(
        self, wirings: Mapping[str, FederateWiring], plan: AttackPlan
    ) -> dict[str, FederateWiring]:
        """Return the wirings with this layer's changes; by default none."""
        return dict(wirings)
