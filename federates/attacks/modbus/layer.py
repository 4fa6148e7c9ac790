"""Modbus steps: which devices and points they act on, and what their proxies do.

Every touched device gets a man in the middle (`hil.mitm.proxy`) between adapter and device.
One connection of the federation changes: where readings are forged, the grid reads what the devices
truly inject (`true_injections`), and all others read what the adapter received.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from federates.attacks.layer import AttackLayer
from federates.attacks.modbus.action import NO_LIMITS, ModbusAction
from federates.attacks.plan import Touched
from federates.attacks.selection import drawn, matching
from federates.core.wiring import FederateWiring, Feed
from federates.errors import WiringError
from federates.scenario.attack_schedule import AttackSchedule
from federates.scenario.attack_schema import AttackSpec, Step
from grid_models.base.errors import nothing_called

if TYPE_CHECKING:
    from hil.devices.spec import DeviceSpec
    from hil.mitm.rules import FrameRule

SIMULATED, EMULATED = "simulated", "emulated"
TRUE_PORTS = {"p_kw": "p_true_kw", "q_kvar": "q_true_kvar"}
"""Outputs of a device federate, and the further outputs beside them where readings are forged."""
_INJECTION_INPUTS = ("p_meas_kw", "q_meas_kvar")
"""Inputs of the grid that stand for what devices inject."""


@dataclass(frozen=True)
class ModbusPlan:
    """What an attack does to the Modbus traffic of one device federate.

    Attributes
    ----------
    rules : Of the devices that are touched, in the attack's order.
    acts_on : What each step acts on: ``DEVICE.POINT (read)``.
    announces : Steps whose begin and end this federate reports for all.
    """

    schedule: AttackSchedule
    seed: int
    rules: Mapping[str, Sequence[FrameRule]]
    acts_on: Mapping[int, Sequence[str]] = field(default_factory=dict)
    announces: tuple[int, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """``DEVICE.POINT`` of everything that may be forged."""
        from hil.mitm.rules import points_of

        return tuple(f"{d}.{p}" for d, rules in self.rules.items() for p in points_of(rules))

    @property
    def forges_readings(self) -> bool:
        """Whether what is read from devices may be untrue."""
        from hil.mitm.rules import RewriteRule

        return any(
            isinstance(r, RewriteRule) and (r.direction == "read" or r.hide)
            for rules in self.rules.values()
            for r in rules
        )


class ModbusLayer(AttackLayer):
    """Steps on Modbus frames; each device federate has resolved its own when it was built.

    Attributes
    ----------
    plans : Of the device federates, which carry theirs as the attribute `modbus`.
    """

    name = "modbus"

    def resolve(self) -> None:
        federates = self.case.federation.by_name
        self.plans: dict[str, ModbusPlan] = {
            name: plan
            for name, federate in federates.items()
            if (plan := getattr(federate, "modbus", None)) is not None
        }
        found = [f.modbus_problems for f in federates.values() if hasattr(f, "modbus_problems")]
        if self.steps and not found:
            self.problems.append(
                f"{self.case.spec.where('steps', self.steps[0][0], 'target')}: the scenario has no "
                "device; expected a federate of kind device with devices that are emulated, or "
                "real ones"
            )
        elif self.steps:
            self.problems += dict.fromkeys(text for problems in found for text in problems)
        for name, plan in self.plans.items():
            for i, names in plan.acts_on.items():
                devices = [n for n, rules in plan.rules.items() if any(r.step == i for r in rules)]
                self.add(i, names, [federates[name].timing], [Touched("devices", tuple(devices))])


def resolve_modbus(
    spec: AttackSpec,
    devices: Mapping[str, str],
    own: Iterable[str],
    file_of: Callable[[str], DeviceSpec],
    *,
    whole: bool = True,
) -> tuple[ModbusPlan | None, list[str]]:
    """Find the devices and points that an attack's modbus steps act on.

    Parameters
    ----------
    devices : All devices of the scenario, with what each of them is.
    own : Those that the plan is for.
    file_of : Returns the device file of one of them.
    whole : Whether `devices` are all that the attack may name. If not, a target that is not among
        them is no mistake, and a share of the targets is not drawn.

    Returns
    -------
    plan : ModbusPlan or None
        None where none of `own` is touched.
    problems : list of str
        Each with file, line and key, what was expected, and the nearest name.
    """
    mine, announces = set(own), list[int]()
    problems: list[str] = []
    rules: dict[str, list[FrameRule]] = {}
    acts_on: dict[int, list[str]] = {}
    for i, step in spec.of_layer("modbus"):
        action = step.action
        assert isinstance(action, ModbusAction)
        names = _targets(spec, i, step, devices, problems, whole=whole)
        if names and names[0] in mine:
            announces.append(i)
        for name in names:
            if name not in mine:
                continue
            file, real = file_of(name), devices[name].partition(":")[0] != EMULATED
            text = action.point_problem(name, file)
            limits = action.limits(file) if real and not text else NO_LIMITS
            if limits is None:
                text = (
                    f"the file of '{name}' has no limits for '{getattr(action, 'point', '')}', and "
                    "a real device is not driven without; expected min and max of that point"
                )
            if text or limits is None:
                problems.append(f"{spec.where('steps', i, 'action', 'point')}: {text}")
                continue
            rules.setdefault(name, []).append(action.rule(i, step.probability, step.id, limits))
            what = action.acts_on()
            acts_on.setdefault(i, []).append(f"{name}{' ' if what[0] == '(' else '.'}{what}")
    problems = list(dict.fromkeys(problems))
    if not rules:
        return None, problems
    plan = ModbusPlan(AttackSchedule.of(spec), spec.seed, rules, acts_on, tuple(announces))
    return plan, problems


def _targets(
    spec: AttackSpec,
    i: int,
    step: Step,
    devices: Mapping[str, str],
    problems: list[str],
    *,
    whole: bool,
) -> list[str]:
    where = ("steps", i, "target", "devices")
    for n, glob in enumerate(step.target.devices or ()):
        if whole and not matching(devices, [glob]):
            problems.append(nothing_called(spec.where(*where, n), "device", glob, devices))
    found = matching(devices, step.target.devices or ())
    simulated = [name for name in found if devices[name] == SIMULATED]
    if simulated:
        problems.append(
            f"{spec.where(*where)}: '{simulated[0]}' is simulated and has no wire"
            + (f" ({len(simulated)} such devices)" if len(simulated) > 1 else "")
            + "; expected devices that are emulated, or real ones"
        )
    wired = [name for name in found if name not in simulated]
    if not whole:
        return wired
    try:
        return drawn(wired, step.target, spec, i)
    except WiringError as error:
        problems += error.problems
        return []


def true_injections(
    wirings: Mapping[str, FederateWiring], federates: Mapping[str, Any]
) -> dict[str, FederateWiring]:
    """Let the grid read what devices truly inject, where an attack forges their readings.

    Returns
    -------
    dict of FederateWiring
        The same where no reading is forged.
    """
    forging = {
        name
        for name, f in federates.items()
        if getattr(f, "modbus", None) is not None and f.modbus.forges_readings
    }
    if not forging:
        return dict(wirings)
    rerouted = {name: _true_feeds(wiring, forging) for name, wiring in wirings.items()}
    read = {(f.source, f.port) for feeds in rerouted.values() for fs in feeds.values() for f in fs}
    return {
        name: replace(
            wiring,
            feeds=rerouted[name],
            published=(*wiring.published, *(p for p in TRUE_PORTS.values() if (name, p) in read)),
        )
        for name, wiring in wirings.items()
    }


def _true_feeds(wiring: FederateWiring, forging: set[str]) -> dict[str, tuple[Feed, ...]]:
    return {
        port: tuple(
            replace(feed, port=TRUE_PORTS[feed.port])
            if port in _INJECTION_INPUTS and feed.source in forging and feed.port in TRUE_PORTS
            else feed
            for feed in feeds
        )
        for port, feeds in wiring.feeds.items()
    }
