"""What an attack would touch in a scenario, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from federates.assembly.federation import Assembly
from federates.attacks.modbus import ModbusPlan
from federates.attacks.plan import AttackPlan
from federates.core.federate import Federate
from federates.core.wiring import FederateWiring
from federates.reports import attack_words as words
from federates.scenario.attack_schema import AttackSpec
from federates.scenario.schema import Scenario

_SHOWN = 4


@dataclass(frozen=True)
class Touched:
    """Things of one kind that a step touches: labels of a port, links, devices or elements."""

    what: str
    names: tuple[str, ...]
    unit: str = ""
    readers: tuple[str, ...] = ()

    def count(self) -> str:
        """Return the number and the kind of things."""
        what = self.what if len(self.names) != 1 else _one(self.what)
        return f"{len(self.names)} {what}"

    def text(self) -> str:
        """Return the number, the first few names and who reads them."""
        some = ", ".join(self.names[:_SHOWN]) + (", ..." if len(self.names) > _SHOWN else "")
        read = f"; read as {', '.join(self.readers)}" if self.readers else ""
        return f"{self.count()}: {some}{read}"


def _one(what: str) -> str:
    kind, of, port = what.partition(" of ")
    return f"{kind.removesuffix('s')}{of}{port}"


@dataclass(frozen=True)
class StepExplained:
    """One step in words, with what it touches in the scenario at hand."""

    id: str
    title: str
    layer: str
    when: str
    lasting: str
    does: str
    touches: tuple[Touched, ...]
    shows: tuple[tuple[Touched, str], ...]
    """What somebody sees instead of the truth: where, and which picture."""


@dataclass(frozen=True)
class AttackExplained:
    """A whole attack on a scenario that it fits."""

    spec: AttackSpec
    scenario: str
    steps: tuple[StepExplained, ...]


def explain_attack(scenario: Scenario, steps: int | None = None) -> AttackExplained:
    """Build and wire the attacked scenario, start nothing, and say what the attack would do.

    Parameters
    ----------
    scenario : Scenario
        With an attack.
    steps : int, optional
        Number of feeder steps that the run would have.

    Raises
    ------
    FeederateError
        What `run` would refuse; a `WiringError` lists every problem.
    """
    spec = scenario.attack_spec
    assert spec is not None
    assembly = Assembly(scenario, None if steps is None else min(steps, scenario.n_steps))
    built, wirings = assembly.assemble()
    try:
        assert assembly.attack_plan is not None
        wires = [plan for f in built.values() if (plan := getattr(f, "modbus", None)) is not None]
        touched = _Touches(assembly.attack_plan, wires, _readers(assembly, wirings))
        explained = tuple(
            _step(spec, i, touched, scenario.time.start_s) for i in range(len(spec.steps))
        )
        return AttackExplained(spec, scenario.name, explained)
    finally:
        for federate in built.values():
            if isinstance(federate, Federate):
                federate.close()


def _step(spec: AttackSpec, i: int, touched: _Touches, start_s: float) -> StepExplained:
    step = spec.steps[i]
    touches = touched.by(i)
    units = {t.unit for t in touches}
    unit = units.pop() if len(units) == 1 else ""
    pictures = [
        (t, words.shows(conceal))
        for n, conceal in enumerate(step.conceal)
        for t in touched.by(i, n)
    ]
    return StepExplained(
        step.id,
        step.title,
        step.layer,
        words.when(step, start_s),
        words.lasting(step),
        words.does(step, unit),
        touches,
        tuple(pictures),
    )


def _readers(
    assembly: Assembly, wirings: Mapping[str, FederateWiring]
) -> dict[tuple[str, str], list[str]]:
    """Return who reads each output, ``federate.port`` in the scenario's words."""
    group_of = {name: group for group, names in assembly.groups.items() for name in names}
    out: dict[tuple[str, str], list[str]] = {}
    for name, wiring in wirings.items():
        for port, feeds in wiring.feeds.items():
            for feed in feeds:
                readers = out.setdefault((feed.source, feed.port), [])
                if f"{group_of[name]}.{port}" not in readers:
                    readers.append(f"{group_of[name]}.{port}")
    return out


class _Touches:
    """What each step touches, read from the plan that the run would carry out."""

    def __init__(
        self,
        plan: AttackPlan,
        wires: Sequence[ModbusPlan],
        readers: Mapping[tuple[str, str], Sequence[str]],
    ) -> None:
        self._plan, self._wires, self._readers = plan, wires, readers

    def by(self, step: int, conceal: int | None = None) -> tuple[Touched, ...]:
        """Return what a step touches, or where one of its pictures is shown."""
        found = self._labels(step, conceal)
        if conceal is None:
            found += self._links(step) + self._elements(step) + self._of_devices(step)
        return tuple(found)

    def _labels(self, step: int, conceal: int | None) -> list[Touched]:
        names: dict[tuple[str, str], list[str]] = {}
        readers: dict[tuple[str, str], list[str]] = {}
        for site in self._plan.sites.values():
            owner = [(c, label) for c in site.channels for label in c.labels]
            for part in site.parts:
                if (part.step, part.conceal) == (step, conceal):
                    for k in part.elements.tolist():
                        channel, label = owner[k]
                        port = f"labels of {channel.federate}.{channel.port}"
                        names.setdefault((port, channel.unit), []).append(label)
                        who = self._readers.get((site.name, channel.out), ())
                        readers.setdefault((port, channel.unit), []).extend(who)
        return [
            Touched(
                port,
                tuple(dict.fromkeys(labels)),
                unit,
                tuple(r for r in dict.fromkeys(readers[port, unit]) if not port.endswith(f" {r}")),
            )
            for (port, unit), labels in names.items()
        ]

    def _links(self, step: int) -> list[Touched]:
        keys = [
            key
            for plan in self._plan.links.values()
            if plan is not None
            for part in plan.steps
            if part.step == step
            for key in part.links
        ]
        return [Touched("links", tuple(sorted(set(keys))))] if keys else []

    def _elements(self, step: int) -> list[Touched]:
        names = [
            label
            for site in self._plan.sites.values()
            if site.physical is not None
            for action in site.physical.actions
            if action.step == step
            for label in action.labels
        ]
        return [Touched("elements", tuple(names))] if names else []

    def _of_devices(self, step: int) -> list[Touched]:
        names = [name for plan in self._wires for name in plan.devices_of(step)]
        return [Touched("devices", tuple(names))] if names else []
