"""The elements of a grid that a physical step can touch, and which action fits which of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from federates.attacks.selection import drawn
from federates.errors import WiringError
from federates.scenario.attack_schema import AttackSpec, PhysicalStep
from federates.scenario.schema import Scenario
from grid_models.base.errors import nearest_name
from grid_models.feeder.model import Feeder, node_label

_LOADS = ("load", "house", "flexible_load")
_BRANCHES = ("line", "switch")
_DRAW = 0  # channel of the random numbers; `physical` has those after it


@dataclass(frozen=True)
class PhysicalElements:
    """Elements of a feeder by label: ``load.NAME``, ``der.NAME``, ``line.NAME``, ``switch.NAME``.

    Attributes
    ----------
    labels : tuple of str
    kind : mapping of str to str
        load, line, switch, or the kind of the DER.
    nominal_kw : mapping of str to float
        Nominal demand, or the DER's rating; 0 for lines and switches.
    closed : mapping of str to bool
        What holds without an attack; True for loads and DERs.
    node : mapping of str to str
        Label of the (first) node a load or DER stands at.
    on_devices : frozenset of str
        DERs that are devices: the feeder has their power from elsewhere.
    """

    labels: tuple[str, ...]
    kind: Mapping[str, str]
    nominal_kw: Mapping[str, float]
    closed: Mapping[str, bool]
    node: Mapping[str, str]
    on_devices: frozenset[str] = frozenset()

    @classmethod
    def of(cls, feeder: Feeder, on_devices: Collection[str] = ()) -> PhysicalElements:
        """List a feeder's elements; `on_devices` are names of DERs."""
        kind: dict[str, str] = {}
        nominal: dict[str, float] = {}
        closed: dict[str, bool] = {}
        node: dict[str, str] = {}
        for load in feeder.loads:
            label = f"load.{load.name}"
            kind[label], nominal[label], closed[label] = "load", abs(load.kw), True
            node[label] = node_label(load.bus, load.phases[0])
        for der in feeder.ders:
            label = f"der.{der.name}"
            rating = max(der.p_max_kw, -der.p_min_kw)
            kind[label], nominal[label], closed[label] = der.kind, rating, True
            node[label] = der.labels[0]
        for line in feeder.lines:
            label = f"line.{line.name}"
            kind[label], nominal[label], closed[label] = "line", 0.0, line.closed
        for switch in feeder.switches:
            label = f"switch.{switch.name}"
            kind[label], nominal[label], closed[label] = "switch", 0.0, switch.closed
        devices = frozenset(f"der.{name}" for name in on_devices)
        return cls(tuple(kind), kind, nominal, closed, node, devices)

    def example(self) -> str:
        """Return a label of each family that there is."""
        first: dict[str, str] = {}
        for label in self.labels:
            first.setdefault(label.partition(".")[0], label)
        return ", ".join(f"'{x}'" for x in first.values())

    def why_not(self, label: str) -> str:
        """Return what a refused element is, in words that follow its name."""
        kind = self.kind[label]
        device = " whose power a device federate gives" if label in self.on_devices else ""
        return f", a {kind.replace('_', ' ')}{device}" if f"{kind}." not in label else device


def elements_of(scenario: Scenario, feeder: Feeder) -> PhysicalElements:
    """Return the elements of a scenario's feeder, with what the scenario says of its DERs."""
    globs = [g for spec in scenario.federates.values() for g in spec.devices]
    names = [der.name for der in feeder.ders]
    return PhysicalElements.of(feeder, {n for n in names for g in globs if fnmatchcase(n, g)})


def require(action: str, elements: PhysicalElements) -> tuple[frozenset[str], str]:
    """Return the elements that an action can be done to, and in words what they are."""
    if action == "trip":
        return frozenset(elements.labels), "any element"
    if action == "close":
        kinds: tuple[str, ...] = _BRANCHES
        words = "lines and switches"
    elif action in ("load", "adaptive"):
        kinds = _LOADS
        words = "loads, and houses and flexible loads of the feeder's own model"
    else:
        kinds = ("house",)
        words = "DERs of kind house"
    fit = {x for x in elements.labels if elements.kind[x] in kinds}
    # The demand of a device is the device's; only its thermostat can be reached from here.
    return frozenset(fit - elements.on_devices if action in ("load", "adaptive") else fit), words


def targets_of(
    spec: AttackSpec,
    i: int,
    step: PhysicalStep,
    elements: PhysicalElements,
    problems: list[str],
) -> tuple[str, ...]:
    """Return the elements a step touches, in the feeder's order; none where there is a problem.

    Parameters
    ----------
    spec : AttackSpec
    i : int
        Position of the step in the attack.
    step : PhysicalStep
    elements : PhysicalElements
    problems : list of str
        What is wrong is appended, with file, line and key.
    """
    where = spec.where("steps", i, "target")
    target, before = step.target, len(problems)
    if target.elements is None:
        problems.append(f"{where}: a physical step touches elements; expected the key 'elements'")
        return ()
    allowed, wanted = require(step.action.kind, elements)
    chosen: set[str] = set()
    for n, glob in enumerate(target.elements):
        at = spec.where("steps", i, "target", "elements", n)
        matched = [x for x in elements.labels if fnmatchcase(x, glob)]
        usable = [x for x in matched if x in allowed]
        if not matched:
            near = nearest_name(glob, elements.labels)
            problems.append(
                f"{at}: no element is called '{glob}'; expected a glob over "
                f"{elements.example()}" + (f"; did you mean '{near}'?" if near else "")
            )
        elif not usable:
            problems.append(
                f"{at}: '{step.action.kind}' does not apply to {matched[0]}"
                f"{elements.why_not(matched[0])}; expected {wanted}"
            )
        chosen.update(usable)
    if len(problems) > before:
        return ()
    try:
        return tuple(drawn([x for x in elements.labels if x in chosen], target, spec, i, _DRAW))
    except WiringError as error:
        problems += error.problems
        return ()
