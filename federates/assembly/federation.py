"""From a scenario to federates: which there are, how to build one, how they hang together."""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controllers.core import registry
from controllers.core.mail import FloatArray
from controllers.core.protocol import Controller, ControlSite
from federates.attacks.plan import AttackPlan
from federates.clock import Timing, to_ns
from federates.core.context import FederateContext, GridSite
from federates.core.federate import Federate
from federates.core.pacing import Pacer
from federates.core.wiring import FederateWiring, wire
from federates.errors import ScenarioError
from federates.kinds.controller import ControllerFederate
from federates.kinds.external import ExternalFederate
from federates.scenario.schema import FederateSpec, Scenario
from grid_models.base.errors import FeederateError, nearest_name
from grid_models.feeder.model import Der

KINDS: Mapping[str, str] = {
    "feeder": "OpenDSS power flow of the grid with its loads, DERs and day",
    "controller": "a distributed controller, in one federate or split over several",
    "device": "inverters, batteries or thermostats: simulated, emulated or real, behind Modbus/TCP",
    "signal": "a value by the clock: an operator's word at a given minute",
    "detector": "watches what the operator sees: scores and alarms, for forged or odd values",
    "circuit": "circuit dynamics of lines and buses at milliseconds",
    "external": "any HELICS program that is not ours, by its topic names",
}

if TYPE_CHECKING:
    from federates.attacks.director import DirectorFederate
    from federates.attacks.federate import AttackFederate

_PLANTS = ("feeder", "circuit")
_INVERTERS = ("pv", "battery", "inverter")


@dataclass(frozen=True)
class Instance:
    """One federate to be: its name, the scenario's section it comes from, the agents it hosts."""

    name: str
    group: str
    agents: tuple[str, ...] = ()


class Assembly:
    """Everything that follows from a scenario before a host starts it.

    Parameters
    ----------
    scenario : Scenario
    n_steps : int, optional
        Number of feeder steps; the scenario's by default.
    armed : tuple of str
        Devices that the user armed by name.
    pcap : bool
        Whether Modbus traffic is captured.
    """

    def __init__(
        self,
        scenario: Scenario,
        n_steps: int | None = None,
        armed: tuple[str, ...] = (),
        pcap: bool = False,
    ) -> None:
        self.scenario = scenario
        self.armed = armed
        self.pcap = pcap
        self.n_steps = scenario.n_steps if n_steps is None else n_steps
        self.site = GridSite(scenario)
        self._controllers: dict[str, tuple[type[Controller], ControlSite]] = {}
        self.attack_plan: AttackPlan | None = None
        """Who carries out the attack; known once the federation is assembled."""
        self._find_user_modules()

    def __getstate__(self) -> dict[str, Any]:
        # Classes of a user's module can be unpickled only after its folder is on the path.
        return self.__dict__ | {"_controllers": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._find_user_modules()

    def _find_user_modules(self) -> None:
        """Let `module:Class` be found beside the scenario file, or else where the user stands."""
        folders = [self.scenario.base_dir, Path.cwd()]
        if self.scenario.attack_spec is not None:
            folders.append(self.scenario.attack_spec.base_dir)
        for folder in map(str, folders):
            if folder not in sys.path:
                sys.path.append(folder)

    @property
    def horizon_ns(self) -> int:
        """End of the run; no federate steps at or after it."""
        return self.n_steps * self.scenario.step_ns

    @cached_property
    def instances(self) -> tuple[Instance, ...]:
        """All federates of the run, in the scenario's order."""
        out: list[Instance] = []
        for group, spec in self.scenario.federates.items():
            if spec.kind == "controller":
                parts = self._split(group, spec)
                names = (
                    [group] if len(parts) == 1 else [f"{group}_{i + 1}" for i in range(len(parts))]
                )
                out += [Instance(n, group, p) for n, p in zip(names, parts, strict=True)]
            else:
                out.append(Instance(group, group))
        _refuse_same_names(out, self.scenario)
        return tuple(out)

    @property
    def external(self) -> tuple[str, ...]:
        """Names of the federates that are other people's programs."""
        return tuple(n for n, s in self.scenario.federates.items() if s.kind == "external")

    @property
    def groups(self) -> dict[str, list[str]]:
        """Instance names by the scenario's federate name."""
        groups: dict[str, list[str]] = {}
        for instance in self.instances:
            groups.setdefault(instance.group, []).append(instance.name)
        for name in self.attack_plan.names if self.attack_plan else ():
            groups[name] = [name]
        return groups

    def select(self, only: Sequence[str] | None) -> set[str]:
        """Return the instances meant by names of federates or groups; None means all."""
        groups = self.groups
        known = {name: [name] for names in groups.values() for name in names} | groups
        for name in only or ():
            if name not in known:
                raise ScenarioError(
                    f"no federate is called '{name}'",
                    where="--only",
                    expected=f"some of {', '.join(groups)}",
                    nearest=nearest_name(name, known),
                )
        return {i for name in (known if only is None else only) for i in known[name]}

    def timing(self, group: str) -> Timing:
        """Return when a federate steps: the feeder on the step, all others half a step later."""
        spec = self.scenario.federates[group]
        period = to_ns(spec.period_s) if spec.period_s is not None else self.scenario.step_ns
        if spec.kind == "controller" and spec.controller is not None:
            period = self._step_of(group, spec, period)
        if spec.offset_s is not None:
            return Timing(period, to_ns(spec.offset_s))
        return Timing(period, 0 if spec.kind in _PLANTS else self.scenario.step_ns // 2)

    def _step_of(self, group: str, spec: FederateSpec, period_ns: int) -> int:
        """Return the time between two steps of a controller that may take several in a period."""
        where = self.scenario.where("federates", group)
        try:
            cls = registry.resolve(str(spec.controller))
            several = getattr(cls, "steps_per_period", None)
            steps = 1 if several is None else int(several(**spec.options))
        except FeederateError as error:
            error.where = error.where or where
            raise
        if period_ns % steps:
            raise ScenarioError(
                f"period_s cannot be divided into {steps} steps of whole nanoseconds",
                where=where,
                expected=f"a period_s that is a multiple of {steps} ns",
            )
        return period_ns // steps

    def pacer(self, timing: Timing) -> Pacer | None:
        """Return what paces a federate of this timing in real time; None without real time."""
        real_time = self.scenario.time.real_time
        return None if real_time is None else Pacer(timing, real_time.factor, real_time.overrun)

    def build(self, name: str) -> Federate | ExternalFederate:
        """Build one federate (loads its models; may take a second)."""
        if self.attack_plan is not None and name in self.attack_plan.names:
            return self._attack_federate(name, self.attack_plan)
        instance = next(i for i in self.instances if i.name == name)
        spec = self.scenario.federates[instance.group]
        timing = self.timing(instance.group)
        if spec.kind == "external":
            return ExternalFederate(name, timing, spec)
        context = FederateContext(
            name, timing, self.scenario, self.site, self.n_steps, self.armed, self.pcap
        )
        try:
            if spec.kind == "feeder":
                from federates.kinds.feeder.federate import FeederFederate

                return FeederFederate(context)
            if spec.kind == "circuit":
                from federates.kinds.circuit import FastPlantFederate

                return FastPlantFederate(context, **spec.options)
            if spec.kind == "controller":
                cls, site = self._controller(instance.group, spec)
                return ControllerFederate(context, cls, site, instance.agents, spec.options)
            if spec.kind == "signal":
                from federates.kinds.signal import SignalFederate

                return SignalFederate(context, **spec.options)
            if spec.kind == "detector":
                from federates.kinds.detector import DetectorFederate

                return DetectorFederate(context, spec.detector, **spec.options)
            if spec.kind == "device":
                from federates.kinds.device.federate import DeviceFederate

                return DeviceFederate(context, spec, **spec.options)
            return self._user_federate(context, spec)
        except FeederateError as error:
            if error.where is None:
                error.where = self.scenario.where("federates", instance.group)
            raise
        except Exception as error:
            # A user's own class may fail in any way, most often on an option it does not know.
            raise ScenarioError(
                f"cannot be built ({type(error).__name__}: {error})",
                where=self.scenario.where("federates", instance.group),
            ) from error

    def build_all(self) -> dict[str, Federate | ExternalFederate]:
        """Build every federate."""
        federates = {instance.name: self.build(instance.name) for instance in self.instances}
        devices = [n for f in federates.values() for n in getattr(f, "specs", {})]
        for name in self.armed:
            if name not in devices:
                raise ScenarioError(
                    f"no device is called '{name}'",
                    where="--arm",
                    expected="one of " + ", ".join(devices)
                    if devices
                    else "nothing: the scenario names no device file, and what a run emulates "
                    "itself is armed",
                    nearest=nearest_name(name, devices),
                )
        return federates

    def wire(
        self, federates: Mapping[str, Federate | ExternalFederate]
    ) -> dict[str, FederateWiring]:
        """Check and resolve all connections between built federates, without the attack."""
        return wire(self.scenario, list(federates.values()), self.groups, self.external)

    def assemble(
        self,
    ) -> tuple[dict[str, Federate | ExternalFederate], dict[str, FederateWiring]]:
        """Build and wire the whole federation, with the attack in its place if there is one."""
        federates = self.build_all()
        wirings = self.wire(federates)
        if self.scenario.attack_spec is None:
            return federates, wirings
        from federates.attacks.interpose import interpose
        from federates.attacks.signal.trace_file import refuse_idle

        horizon_s = self.scenario.n_steps * self.scenario.time.step_s
        self.attack_plan, wirings = interpose(
            self.scenario.attack_spec,
            list(federates.values()),
            {instance.name: instance.group for instance in self.instances},
            wirings,
            self.external,
            horizon_s,
        )
        federates |= {name: self.build(name) for name in self.attack_plan.names}
        traces = [t for n in self.attack_plan.names for t in getattr(federates[n], "traces", ())]
        refuse_idle(self.scenario.attack_spec, self.attack_plan.schedule, horizon_s, traces)
        return federates, self._with_first_values(wirings)

    def _attack_federate(self, name: str, plan: AttackPlan) -> AttackFederate | DirectorFederate:
        from federates.attacks.director import DirectorFederate
        from federates.attacks.federate import AttackFederate

        spec = self.scenario.attack_spec
        assert spec is not None
        site = plan.sites.get(name) or plan.director
        assert site is not None
        context = FederateContext(name, site.timing, self.scenario, self.site, self.n_steps)
        if name in plan.sites:
            return AttackFederate(context, spec, plan.sites[name], plan.schedule)
        assert plan.director is not None
        return DirectorFederate(context, spec, plan.director, plan.schedule)

    def _with_first_values(self, wirings: dict[str, FederateWiring]) -> dict[str, FederateWiring]:
        """Give readers what an attack says at their first step, before anybody has stepped."""
        from federates.attacks.federate import AttackFederate

        plan = self.attack_plan
        assert plan is not None
        first: dict[tuple[str, str], FloatArray] = {}
        for name, site in plan.sites.items():
            if site.shift_ns <= 0:
                continue
            # A federate made for this alone: the one that runs must not have seen anything yet.
            fresh = self._attack_federate(name, plan)
            values = fresh.first_values() if isinstance(fresh, AttackFederate) else {}
            first |= {(name, port): row for port, row in values.items()}
        out = dict(wirings)
        for name, wiring in wirings.items():
            begins = tuple(
                (port, feed, first[feed.source, feed.port])
                for port, feeds in wiring.feeds.items()
                for feed in feeds
                if (feed.source, feed.port) in first
            )
            if begins:
                out[name] = replace(wiring, first=begins)
        return out

    def _controller(self, group: str, spec: FederateSpec) -> tuple[type[Controller], ControlSite]:
        if group not in self._controllers:
            where = self.scenario.where("federates", group)
            if spec.controller is None:
                raise ScenarioError(
                    "a controller federate needs the key 'controller'",
                    where=where,
                    expected=f"one of {', '.join(registry.descriptions())}, or module:Class",
                )
            try:
                cls = registry.resolve(spec.controller)
            except FeederateError as error:
                error.where = self.scenario.where("federates", group, "controller")
                raise
            feeder = self.site.feeder
            site = ControlSite(
                feeder=feeder,
                ders=self._commanded(group, spec),
                period_s=self.timing(group).period_ns / 1e9,
                v_min_pu=self.scenario.band.v_min_pu,
                v_max_pu=self.scenario.band.v_max_pu,
                seed=self.scenario.seed,
            )
            self._controllers[group] = (cls, site)
        return self._controllers[group]

    def _commanded(self, group: str, spec: FederateSpec) -> tuple[Der, ...]:
        ders = self.site.feeder.ders
        if spec.ders is None:
            return tuple(der for der in ders if der.kind in _INVERTERS)
        for i, glob in enumerate(spec.ders):
            if not any(fnmatchcase(der.name, glob) for der in ders):
                raise ScenarioError(
                    f"no DER is called '{glob}'",
                    where=self.scenario.where("federates", group, "ders", i),
                    expected="names or globs of the scenario's DERs",
                    nearest=nearest_name(glob, [der.name for der in ders]),
                )
        return tuple(d for d in ders if any(fnmatchcase(d.name, glob) for glob in spec.ders))

    def _split(self, group: str, spec: FederateSpec) -> list[tuple[str, ...]]:
        """Divide a controller's agents over federates; how must not change any trajectory."""
        cls, site = self._controller(group, spec)
        agents = cls.agents(site, **spec.options)
        if not agents:
            raise ScenarioError(
                "the controller has no agent: the grid has no DER it commands",
                where=self.scenario.where("federates", group),
                expected="at least one rule under grid.ders",
            )
        if spec.split == "agents":
            return [(agent,) for agent in agents]
        if spec.split == "areas":
            return self._by_area(group, spec, agents)
        n = min(spec.split, len(agents))
        bounds = [len(agents) * i // n for i in range(n + 1)]
        return [agents[a:b] for a, b in itertools.pairwise(bounds)]

    def _by_area(
        self, group: str, spec: FederateSpec, agents: tuple[str, ...]
    ) -> list[tuple[str, ...]]:
        from grid_models.feeder.topology import areas, radial_tree

        bus_of = {der.name: der.bus for der in self.site.feeder.ders}
        strange = [agent for agent in agents if agent not in bus_of]
        if strange:
            raise ScenarioError(
                f"agent '{strange[0]}' is not named after a DER, so it lies in no area",
                where=self.scenario.where("federates", group, "split"),
                expected="a number, or 'agents'",
            )
        feeder = self.site.feeder
        area = areas(feeder, min(spec.areas, len(radial_tree(feeder).buses)))
        parts: dict[int, list[str]] = {}
        for agent in agents:
            parts.setdefault(area[bus_of[agent]], []).append(agent)
        return [tuple(parts[key]) for key in sorted(parts)]

    def _user_federate(self, context: FederateContext, spec: FederateSpec) -> Federate:
        module_name, colon, class_name = spec.kind.partition(":")
        where = self.scenario.where("federates", context.name, "kind")
        if not colon:
            raise ScenarioError(
                f"no federate kind is called '{spec.kind}'",
                where=where,
                expected=f"one of {', '.join(KINDS)}, or module:Class",
                nearest=nearest_name(spec.kind, KINDS),
            )
        try:
            cls = getattr(importlib.import_module(module_name), class_name)
        except ImportError as error:
            raise ScenarioError(f"cannot import '{module_name}': {error}", where=where) from error
        except AttributeError:
            raise ScenarioError(
                f"module '{module_name}' has no '{class_name}'", where=where
            ) from None
        if not (isinstance(cls, type) and issubclass(cls, Federate)):
            raise ScenarioError(
                f"'{spec.kind}' is not a federates.core.federate.Federate", where=where
            )
        return cls(context, **spec.options)


def _refuse_same_names(instances: list[Instance], scenario: Scenario) -> None:
    seen: set[str] = set()
    for instance in instances:
        if instance.name in seen:
            raise ScenarioError(
                f"two federates are called '{instance.name}'",
                where=scenario.where("federates", instance.group),
                expected="names that differ from those of a split controller's parts",
            )
        seen.add(instance.name)
