"""Modbus steps: which devices and points they touch, and what their proxies are told.

Every touched device gets a man in the middle (`hil.mitm.proxy`) between adapter and device.
Nothing else of the federation changes but one wire: what a device truly injects is physics, so the
grid gets it past the forgery (`past_forgery`), while all others see what the adapter was told.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from federates.attacks.selection import drawn, matching, nothing_called
from federates.core.wiring import FederateWiring, Feed
from federates.errors import WiringError
from federates.scenario.attack_schedule import Schedule
from federates.scenario.attack_schema import (
    AttackSpec,
    Delay,
    Drop,
    Flood,
    ForgeException,
    ModbusStep,
    Rewrite,
    WritePoint,
)
from grid_models.base.errors import nearest_name

if TYPE_CHECKING:
    from hil.devices.file import DeviceSpec
    from hil.mitm.rules import Rule

SIMULATED, EMULATED = "simulated", "emulated"
NO_LIMITS = (-math.inf, math.inf)
TRUE_PORTS = {"p_kw": "p_true_kw", "q_kvar": "q_true_kvar"}
"""Outputs of a device federate and what stands beside them where readings are forged."""
_PHYSICS = ("p_meas_kw", "q_meas_kvar")
"""Inputs of the grid that stand for what devices do, not for what is said of them."""


@dataclass(frozen=True)
class ModbusPlan:
    """What an attack does to the Modbus traffic of one device federate.

    Attributes
    ----------
    schedule : Schedule
    seed : int
    rules : mapping of device to sequence of Rule
        Of the devices that are touched, in the attack's order.
    announces : tuple of int
        Steps whose begin and end this federate makes known.
    """

    schedule: Schedule
    seed: int
    rules: Mapping[str, Sequence[Rule]]
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

    def devices_of(self, step: int) -> list[str]:
        """Return the devices that a step touches."""
        return [name for name, rules in self.rules.items() if any(r.step == step for r in rules)]

    def touched(self) -> dict[int, tuple[str, ...]]:
        """Return what each step acts on, in words that two steps on one thing share."""
        out: dict[int, list[str]] = {}
        for device, rules in self.rules.items():
            for rule in rules:
                out.setdefault(rule.step, []).append(_touch(device, rule))
        return {step: tuple(names) for step, names in out.items()}


def _touch(device: str, rule: Rule) -> str:
    from hil.mitm.rules import RewriteRule, WriteRule

    if isinstance(rule, RewriteRule):
        return f"{device}.{rule.point} ({rule.direction})"
    if isinstance(rule, WriteRule):
        return f"{device}.{rule.point} (written by the attack)"
    return f"{device} ({type(rule).__name__.removesuffix('Rule').lower()})"


def resolve_modbus(
    spec: AttackSpec,
    devices: Mapping[str, str],
    own: Iterable[str],
    file_of: Callable[[str], DeviceSpec],
    *,
    whole: bool = True,
) -> tuple[ModbusPlan | None, list[str]]:
    """Find the devices and points that an attack's modbus steps touch.

    Parameters
    ----------
    spec : AttackSpec
    devices : mapping of str to str
        All devices of the scenario, with what each of them is.
    own : iterable of str
        Those that the plan is for.
    file_of : callable
        Returns the device file of one of them.
    whole : bool
        Whether `devices` are all that the attack may name. If not, a target that is not among them
        is no mistake, and a share of the targets is not drawn.

    Returns
    -------
    plan : ModbusPlan or None
        None where none of `own` is touched.
    problems : list of str
        Each with file, line and key, what was expected, and the nearest name.
    """
    mine, announces = set(own), list[int]()
    problems: list[str] = []
    rules: dict[str, list[Rule]] = {}
    for i, step in spec.of_layer("modbus"):
        assert isinstance(step, ModbusStep)
        names = _targets(spec, i, step, devices, problems, whole=whole)
        if names and names[0] in mine:
            announces.append(i)
        for name in names:
            if name not in mine:
                continue
            file = file_of(name)
            text = _point_problem(spec, i, step, name, file, real=devices[name] != EMULATED)
            if text and text not in problems:
                problems.append(text)
            if not text:
                limits = _limits(step, file) if devices[name] != EMULATED else None
                rules.setdefault(name, []).append(rule_of(i, step, limits or NO_LIMITS))
    if not rules:
        return None, problems
    return ModbusPlan(Schedule.of(spec), spec.seed, rules, tuple(announces)), problems


def _targets(
    spec: AttackSpec,
    i: int,
    step: ModbusStep,
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
    wireless = [name for name in found if devices[name] == SIMULATED]
    if wireless:
        problems.append(
            f"{spec.where(*where)}: '{wireless[0]}' is simulated and has no wire"
            + (f" ({len(wireless)} such devices)" if len(wireless) > 1 else "")
            + "; expected devices that are emulated, or real ones"
        )
    wired = [name for name in found if name not in wireless]
    if not whole:
        return wired
    try:
        return drawn(wired, step.target, spec, i)
    except WiringError as error:
        problems += error.problems
        return []


def _limits(step: ModbusStep, file: DeviceSpec) -> tuple[float, float] | None:
    """Return what a step may drive a real device's point to: what its file allows."""
    from hil.mitm.rules import limits_of

    action = step.action
    if isinstance(action, WritePoint) or (
        isinstance(action, Rewrite) and action.direction == "write"
    ):
        return limits_of(file, action.point)
    return NO_LIMITS


def _point_problem(
    spec: AttackSpec, i: int, step: ModbusStep, name: str, file: DeviceSpec, *, real: bool
) -> str:
    """Say what is wrong with a step's point on one device; '' for nothing."""
    action = step.action
    if not isinstance(action, Rewrite | WritePoint):
        return ""
    where = spec.where("steps", i, "action", "point")
    usable = [n for n, p in file.points.items() if p.type != "string"]
    if action.point not in usable:
        near = nearest_name(action.point, usable)
        return (
            f"{where}: '{name}' has no point '{action.point}'; expected one of "
            f"{', '.join(usable)}" + (f"; did you mean '{near}'?" if near else "")
        )
    if isinstance(action, Rewrite) and action.direction == "read":
        return ""
    point = file.points[action.point]
    writable = [n for n in usable if file.points[n].access != "r"]
    if isinstance(action, Rewrite) and point.access == "r":
        return (
            f"{where}: nobody writes '{action.point}' of '{name}'; expected one of "
            f"{', '.join(writable) or 'the points with access rw, of which it has none'}"
        )
    if point.table in ("input", "discrete"):
        return f"{where}: '{action.point}' of '{name}' is in a table that nobody can write"
    if real and _limits(step, file) is None:
        return (
            f"{where}: the file of '{name}' has no limits for '{action.point}', and a real device "
            "is not driven without; expected min and max of that point"
        )
    return ""


def rule_of(i: int, step: ModbusStep, limits: tuple[float, float] = NO_LIMITS) -> Rule:
    """Return what a step tells a proxy; what it writes stays within `limits`."""
    from hil.mitm import rules

    action, common = step.action, (i, step.probability, step.id)
    if isinstance(action, Rewrite):
        return rules.RewriteRule(
            *common, action.point, action.direction, action.value, action.factor, action.bias,
            action.hide, *limits,
        )  # fmt: skip
    if isinstance(action, WritePoint):
        low, high = limits
        return rules.WriteRule(*common, action.point, min(max(action.value, low), high))
    if isinstance(action, ForgeException):
        return rules.ExceptionRule(*common, action.code)
    if isinstance(action, Delay):
        return rules.DelayRule(*common, action.delay_s)
    if isinstance(action, Flood):
        return rules.FloodRule(*common, action.requests_per_s)
    assert isinstance(action, Drop)
    return rules.DropRule(*common)


def modbus_problems(spec: AttackSpec, federates: Iterable[Any]) -> list[str]:
    """Return what is wrong with an attack's modbus steps in a federation, each said once."""
    steps = spec.of_layer("modbus")
    if not steps:
        return []
    benches = [f for f in federates if hasattr(f, "modbus_problems")]
    if benches:
        return list(dict.fromkeys(text for f in benches for text in f.modbus_problems))
    return [
        f"{spec.where('steps', steps[0][0], 'target')}: the scenario has no device; expected a "
        "federate of kind device with devices that are emulated, or real ones"
    ]


def past_forgery(
    wirings: Mapping[str, FederateWiring], federates: Mapping[str, Any]
) -> dict[str, FederateWiring]:
    """Let the grid have what devices truly inject, where an attack forges what they say.

    Parameters
    ----------
    wirings : mapping of instance to FederateWiring
    federates : mapping of instance to federate

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
    rerouted = {name: _physical_feeds(wiring, forging) for name, wiring in wirings.items()}
    read = {(f.source, f.port) for feeds in rerouted.values() for fs in feeds.values() for f in fs}
    return {
        name: replace(
            wiring,
            feeds=rerouted[name],
            published=(*wiring.published, *(p for p in TRUE_PORTS.values() if (name, p) in read)),
        )
        for name, wiring in wirings.items()
    }


def _physical_feeds(wiring: FederateWiring, forging: set[str]) -> dict[str, tuple[Feed, ...]]:
    return {
        port: tuple(
            replace(feed, port=TRUE_PORTS[feed.port])
            if port in _PHYSICS and feed.source in forging and feed.port in TRUE_PORTS
            else feed
            for feed in feeds
        )
        for port, feeds in wiring.feeds.items()
    }
