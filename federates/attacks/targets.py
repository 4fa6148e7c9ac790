"""What the steps of an attack mean in a given federation: which elements, which signals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from controllers.core.ports import Port
from federates.attacks.physical import IDLE
from federates.attacks.plan import BEGINS
from federates.attacks.selection import drawn, matching, nothing_called
from federates.attacks.view import FederationView, Key
from federates.errors import WiringError
from federates.scenario.attack_schedule import Schedule
from federates.scenario.attack_schema import Adaptive, AttackSpec, SignalStep, Target
from grid_models.base.errors import nearest_name

OWN_INPUTS = frozenset((*IDLE, BEGINS))
"""Inputs that federates have for the attack itself; an attack does not forge its own word."""
Chosen = dict[tuple[int, int | None], list[Key]]
"""Elements of inputs by (step, its concealment or None)."""


def choose_all(
    spec: AttackSpec, federation: FederationView, external: Sequence[str], problems: list[str]
) -> Chosen:
    """Return the elements of inputs that each signal step and each concealment acts on.

    What is wrong is appended to `problems`, each with file, line and key.
    """
    chosen: Chosen = {}
    for i, step in enumerate(spec.steps):
        if isinstance(step, SignalStep):
            where = ("steps", i, "target")
            chosen[i, None] = _choose(spec, i, step.target, where, federation, problems)
        for n, conceal in enumerate(step.conceal):
            target = Target(port=conceal.port, labels=conceal.labels)
            where_conceal = ("steps", i, "conceal", n)
            chosen[i, n] = _choose(spec, i, target, where_conceal, federation, problems)
    for (i, _), keys in chosen.items():
        foreign = next((name for name, _, _ in keys if name in external), None)
        if foreign is not None:
            problems.append(
                f"{spec.where('steps', i, 'target')}: the external federate '{foreign}' reads its "
                "topics by itself, nothing can stand in between; expected another reader"
            )
    problems += _pictures_in_the_way(spec, chosen, federation)
    return chosen


def _pictures_in_the_way(
    spec: AttackSpec, chosen: Chosen, federation: FederationView
) -> Iterator[str]:
    """Say which concealments show their picture where the step itself, or another, shows its."""
    for (i, n), keys in chosen.items():
        if n is None:
            continue
        for (j, m), others in chosen.items():
            shared = set(keys) & set(others) if i == j and (m is None or m < n) else ()
            if shared:
                instance, port, k = next(key for key in keys if key in shared)
                label = federation.port(instance, port, "inputs").labels[k]
                what = "the step's own target" if m is None else f"shown by conceal[{m}] already"
                yield (
                    f"{spec.where('steps', i, 'conceal', n)}: {label} of "
                    f"{federation.group_of[instance]}.{port} is {what}; expected other signals: "
                    "one value can be seen in one way only"
                )
                break


def _choose(
    spec: AttackSpec,
    i: int,
    target: Target,
    where: tuple[str | int, ...],
    federation: FederationView,
    problems: list[str],
) -> list[Key]:
    """Return the input elements that a target means, drawn by label."""
    assert target.port is not None
    names: dict[str, dict[str, list[Key]]] = {}
    for word, instance, port in federation.ports("inputs"):
        if port.name in OWN_INPUTS:
            continue
        for key in ((instance, port.name, k) for k in range(len(port.labels))):
            label = port.labels[key[2]]
            names.setdefault(word, {}).setdefault(label, []).append(key)
            origin = federation.origin[key]
            if origin.source:
                out = f"{federation.group_of[origin.source]}.{origin.port}"
                source_label = federation.port(origin.source, origin.port, "outputs").labels
                names.setdefault(out, {}).setdefault(source_label[origin.position], []).append(key)
    ports = matching(names, [target.port])
    if not ports:
        problems.append(
            nothing_called(spec.where(*where, "port"), "port that is read", target.port, names)
        )
        return []
    labels = list(dict.fromkeys(label for port in ports for label in names[port]))
    for n, glob in enumerate(target.labels):
        if not matching(labels, [glob]):
            problems.append(
                nothing_called(
                    spec.where(*where, "labels", n), f"label of {ports[0]}", glob, labels
                )
            )
    try:
        kept = set(drawn(matching(labels, target.labels), target, spec, i))
    except WiringError as error:
        problems += error.problems
        return []
    keys = [key for p in ports for label, ks in names[p].items() if label in kept for key in ks]
    return list(dict.fromkeys(keys))


def touched_by(
    chosen: Chosen, links: Mapping[str, Any], physical: Mapping[str, Any]
) -> dict[int, dict[str, frozenset[str]]]:
    """Return what each step acts on, by kind of thing."""
    found: dict[int, dict[str, set[str]]] = {}
    for (i, _), keys in chosen.items():
        names = (f"element {k} of {instance}.{port}" for instance, port, k in keys)
        found.setdefault(i, {}).setdefault("signal", set()).update(names)
    for plan in links.values():
        for step in plan.steps if plan is not None else ():
            found.setdefault(step.step, {}).setdefault("link", set()).update(step.links)
    for plan in physical.values():
        for i, names in plan.touched().items():
            found.setdefault(i, {}).setdefault("physical", set()).update(names)
    return {i: {k: frozenset(v) for k, v in kinds.items()} for i, kinds in found.items()}


def watches_of(
    spec: AttackSpec, schedule: Schedule, federation: FederationView, problems: list[str]
) -> dict[int, list[tuple[str, Port]]]:
    """Return the output ports (of instances) that each directed step looks at."""
    found: dict[int, list[tuple[str, Port]]] = {}
    outputs = federation.ports("outputs")
    for i in schedule.directed:
        when = spec.steps[i].trigger.when
        if when is None:
            continue
        where = ("steps", i, "trigger", "when")
        ports = [(name, port) for word, name, port in outputs if word == when.signal]
        if not ports:
            problems.append(_no_output(spec.where(*where, "signal"), when.signal, outputs))
            continue
        labels = [label for _, port in ports for label in port.labels]
        if not matching(labels, [when.label]):
            problems.append(
                nothing_called(
                    spec.where(*where, "label"), f"label of {when.signal}", when.label, labels
                )
            )
        found[i] = ports
    return found


def _no_output(where: str, name: str, outputs: Sequence[tuple[str, str, Port]]) -> str:
    words = list(dict.fromkeys(word for word, _, _ in outputs))
    near = nearest_name(name, words)
    return (
        f"{where}: no output matches '{name}'; expected one name, not a glob, of "
        f"{', '.join(words)}" + (f"; did you mean '{near}'?" if near else "")
    )


def sees_problems(spec: AttackSpec, federation: FederationView) -> list[str]:
    """Say which ports adaptive attackers want to read that nobody publishes."""
    outputs = [word for word, _, _ in federation.ports("outputs")]
    return [
        nothing_called(spec.where("steps", i, "action", "sees", n), "output", glob, outputs)
        for i, step in enumerate(spec.steps)
        if isinstance(step.action, Adaptive)
        for n, glob in enumerate(step.action.sees)
        if not matching(outputs, [glob])
    ]
