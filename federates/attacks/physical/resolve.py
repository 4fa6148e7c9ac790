"""Which elements of a plant the physical steps of an attack act on."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import numpy as np

from federates.attacks.physical.action import UNITS, PhysicalAction
from federates.attacks.physical.elements import PhysicalElements
from federates.attacks.physical.plan import ElementStep, PhysicalPlan
from federates.attacks.selection import drawn
from federates.errors import WiringError
from federates.scenario.attack_schema import AttackSpec, Step
from federates.scenario.schema import Scenario
from grid_models.base.counter_rng import stream_ids, uniform
from grid_models.base.errors import nearest_hint
from grid_models.feeder.model import Feeder

# Channels of the random numbers of one step and element: whether it is among those drawn, whether
# it obeys, when it switches.
_DRAW, _OBEY, _PHASE = 0, 1, 2
# A step that leaves its changes behind keeps the state of just before its end.
_BEFORE_END_S = 1e-6


def physical_plan(
    scenario: Scenario, plant: str, grid: Feeder | PhysicalElements
) -> PhysicalPlan | None:
    """Return what a scenario's attack does to a plant; None where it does nothing to it.

    `grid` is its feeder, or the elements of another plant.

    Raises WiringError: Listing every step that names what is not there or cannot be done.
    """
    spec = scenario.attack_spec
    if spec is None or not spec.of_layer("physical"):
        return None
    plants = [name for name, s in scenario.federates.items() if s.has_elements]
    if isinstance(grid, Feeder):
        grid = _of_feeder(scenario, plant, grid)
    plan, problems = resolve_physical(spec, grid, plant, plants)
    if problems:
        raise WiringError(problems, where="")  # each says where it is
    return plan if plan.actions else None


def _of_feeder(scenario: Scenario, plant: str, feeder: Feeder) -> PhysicalElements:
    """Return a feeder's elements, knowing which of its DERs are devices."""
    globs = [
        glob
        for name, section in scenario.federates.items()
        for glob in getattr(section, "devices", ())
        if scenario.plant_of(name) == plant
    ]
    names = [der.name for der in feeder.ders]
    on_devices = {name for name in names for glob in globs if fnmatchcase(name, glob)}
    return PhysicalElements.of(feeder, on_devices)


def resolve_physical(
    spec: AttackSpec, elements: PhysicalElements, plant: str = "feeder", plants: Sequence[str] = ()
) -> tuple[PhysicalPlan, list[str]]:
    """Find the elements of a plant that an attack's physical steps act on.

    Parameters
    ----------
    elements : Of the plant.
    plants : All plants of the scenario; a step says which it means where there are several.

    Returns
    -------
    plan : PhysicalPlan
        Of the steps without problems.
    problems : list of str
        Each with file, line and key, what was expected, and the nearest name.
    """
    problems: list[str] = []
    found: list[tuple[int, Step, PhysicalAction, tuple[str, ...]]] = []
    for i, step in spec.of_layer("physical"):
        action = step.action
        assert isinstance(action, PhysicalAction)
        if _plant_of(spec, i, step, plants or [plant], problems) == plant:
            labels = _targets(spec, i, step, action, elements, problems)
            if labels:
                found.append((i, step, action, labels))
    touched: dict[str, set[str]] = {}
    for _, _, action, labels in found:
        touched.setdefault(action.port, set()).update(labels)
    by_port = {
        port: tuple(x for x in elements.labels if x in touched[port])
        for port in UNITS
        if port in touched
    }
    steps = [
        _element_step(spec, i, step, action, labels, by_port[action.port], elements)
        for i, step, action, labels in found
    ]
    return PhysicalPlan(plant, steps, by_port, elements), problems


def _plant_of(
    spec: AttackSpec, i: int, step: Step, plants: Sequence[str], problems: list[str]
) -> str:
    """Return the plant that a step means; '' where it says none or a wrong one."""
    named = step.target.plant
    if named is None and len(plants) == 1:
        return plants[0]
    if named in plants:
        return str(named)
    expected = f"expected one of {', '.join(plants)}"
    if named is None:
        where = spec.where("steps", i, "target")
        problems.append(f"{where}: the scenario has several plants; {expected} as the key 'plant'")
    else:
        where = spec.where("steps", i, "target", "plant")
        hint = nearest_hint(named, plants)
        problems.append(f"{where}: no plant is called '{named}'; {expected}{hint}")
    return ""


def _targets(
    spec: AttackSpec,
    i: int,
    step: Step,
    action: PhysicalAction,
    elements: PhysicalElements,
    problems: list[str],
) -> tuple[str, ...]:
    """Return the elements a step acts on, in the plant's order; none where there is a problem."""
    target, before = step.target, len(problems)
    allowed, chosen = action.applies_to(elements), set[str]()
    for n, glob in enumerate(target.elements or ()):
        at = spec.where("steps", i, "target", "elements", n)
        matched = [x for x in elements.labels if fnmatchcase(x, glob)]
        usable = [x for x in matched if x in allowed]
        if not matched:
            problems.append(
                f"{at}: no element is called '{glob}'; expected a glob over "
                f"{elements.example()}{nearest_hint(glob, elements.labels)}"
            )
        elif not usable:
            problems.append(
                f"{at}: '{action.kind}' does not apply to {elements.refused(matched[0])}; "
                f"expected {action.kinds_text}"
            )
        chosen.update(usable)
    if len(problems) > before:
        return ()
    try:
        return tuple(drawn([x for x in elements.labels if x in chosen], target, spec, i, _DRAW))
    except WiringError as error:
        problems += error.problems
        return ()


def _element_step(
    spec: AttackSpec,
    i: int,
    step: Step,
    action: PhysicalAction,
    labels: tuple[str, ...],
    port_labels: Sequence[str],
    elements: PhysicalElements,
) -> ElementStep:
    place = {x: n for n, x in enumerate(port_labels)}
    # One number in (0, 1) per element, which no other step or element shares.
    streams = stream_ids(f"{step.id}/{x}" for x in labels)
    ends = step.duration_s is not None and step.on_end == "leave"
    return ElementStep(
        i,
        action,
        labels,
        np.array([place[x] for x in labels], dtype=np.int64),
        action.values(labels, elements) * (i + 1 if action.numbered else 1),
        uniform(spec.seed, streams, 0, _OBEY) < step.probability,
        uniform(spec.seed, streams, 0, _PHASE),
        (step.duration_s or 0.0) - _BEFORE_END_S if ends else np.inf,
        tuple(elements.node.get(x, "") for x in labels),
        np.array([elements.nominal_kw[x] for x in labels]),
    )
