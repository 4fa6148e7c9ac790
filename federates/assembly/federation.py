"""From a scenario to federates: which there are, how to build one, how they are connected."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from federates.assembly import attacked
from federates.assembly.hardware import refuse_shared_hardware
from federates.assembly.messages import with_messages
from federates.assembly.partners import unconnected, with_watchers
from federates.attacks.plan import AttackPlan
from federates.clock import Timing, to_ns, to_s
from federates.core.context import FederateContext
from federates.core.federate import Federate
from federates.core.mail_routes import Wirable
from federates.core.pacing import Pacer
from federates.core.sites import GridSite
from federates.core.wiring import FederateWiring, wire
from federates.errors import ScenarioError
from federates.kinds.external import ExternalFederate
from federates.scenario.kinds import UserSection, federate_class
from federates.scenario.named_classes import make_importable
from federates.scenario.schema import Scenario
from grid_models.base.errors import FeederateError, nearest_name

AnyFederate = Federate | ExternalFederate


@dataclass(frozen=True)
class Instance:
    """One federate to be: its name, its name in the scenario, the agents it hosts."""

    name: str
    group: str
    agents: tuple[str, ...] = ()


class Assembly:
    """Everything that follows from a scenario before a host starts it.

    Parameters
    ----------
    n_steps : Number of steps; the scenario's by default.
    armed : Devices that the user armed by name.
    pcap : Whether Modbus traffic is captured.

    Attributes
    ----------
    attack_plan : Who carries out the attack; known once the federation is assembled.
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
        self.attack_plan: AttackPlan | None = None
        self._sites: dict[str | None, GridSite] = {}
        self._contexts: dict[str, FederateContext] = {}
        make_importable(self._user_folders)

    def __getstate__(self) -> dict[str, Any]:
        # Classes of a user's module can be unpickled only after its folder is on the path.
        state = self.__dict__ | {"_contexts": {}, "_sites": {}}
        return {"folders": self._user_folders, "state": pickle.dumps(state)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        make_importable(state["folders"])
        self.__dict__.update(pickle.loads(state["state"]))

    @property
    def _user_folders(self) -> list[Path]:
        """Folders of ``module:Class``: beside the scenario, the current one, beside the attack."""
        attack = self.scenario.attack_spec
        return [self.scenario.base_dir, Path.cwd(), *([attack.base_dir] if attack else [])]

    @property
    def horizon_ns(self) -> int:
        """End of the run; no federate steps at or after it."""
        return self.n_steps * self.scenario.step_ns

    @cached_property
    def instances(self) -> tuple[Instance, ...]:
        """All federates of the run, in the scenario's order."""
        out: list[Instance] = []
        for group, section in self.scenario.federates.items():
            cls = federate_class(section.kind)
            parts = _parts(cls, self._context(group)) if issubclass(cls, Federate) else [()]
            names = [f"{group}_{i + 1}" for i in range(len(parts))] if len(parts) > 1 else [group]
            out += [Instance(n, group, p) for n, p in zip(names, parts, strict=True)]
        _refuse_same_names(out, self.scenario)
        return tuple(out)

    @property
    def external(self) -> tuple[str, ...]:
        """Names of the federates that are other people's programs."""
        kinds = {name: section.kind for name, section in self.scenario.federates.items()}
        return tuple(n for n, k in kinds.items() if issubclass(federate_class(k), ExternalFederate))

    @property
    def plants(self) -> tuple[str, ...]:
        """Names of the federates that are plants, with a grid section or without."""
        return tuple(name for name, s in self.scenario.federates.items() if s.is_plant)

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
        """Return when a federate steps: plants on the step, all others half a step later."""
        section, step_ns = self.scenario.federates[group], self.scenario.step_ns
        period = to_ns(section.period_s) if section.period_s is not None else step_ns
        period = self._divided(group, period)
        if section.offset_s is not None:
            return Timing(period, to_ns(section.offset_s))
        return Timing(period, 0 if section.is_plant else step_ns // 2)

    def _divided(self, group: str, period_ns: int) -> int:
        """Return the time between two steps of a federate that takes several in a period."""
        section, where = self.scenario.federates[group], self.scenario.where("federates", group)
        cls = federate_class(section.kind)
        try:
            steps = cls.steps_per_period(section) if issubclass(cls, Federate) else 1
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

    @cached_property
    def wanted_warm_up_s(self) -> float:
        """The scenario's ``time.warm_up_s``; by default the longest settling time."""
        if self.scenario.time.warm_up_s is not None:
            return self.scenario.time.warm_up_s
        if not self.scenario.plants:
            return 0.0  # a plant without a grid is a circuit, and its start is what is studied
        kinds = {g: (federate_class(s.kind), s) for g, s in self.scenario.federates.items()}
        return max(
            (
                cls.settling_s(section, to_s(self.timing(group).period_ns))
                for group, (cls, section) in kinds.items()
                if issubclass(cls, Federate)
            ),
            default=0.0,
        )

    @property
    def warm_up_s(self) -> float:
        """What this run's metrics leave out: nothing where no step would be left."""
        wanted_s = self.wanted_warm_up_s
        timings = [self.timing(plant) for plant in self.plants]
        left = (t.steps_before(self.horizon_ns) > t.steps_before(to_ns(wanted_s)) for t in timings)
        return wanted_s if all(left) else 0.0

    @property
    def warm_up_note(self) -> str:
        """Say that a warm-up is not left out, where it is not."""
        wanted_s = self.wanted_warm_up_s
        return (
            f"The run ends within its warm-up of {wanted_s:g} s (time.warm_up_s): nothing is left "
            "out of the metrics."
            if wanted_s and not self.warm_up_s
            else ""
        )

    @property
    def attack_warnings(self) -> list[str]:
        """Say which steps of an attack begin within the warm-up, or after the run."""
        warm_up_s, spec = self.warm_up_s, self.scenario.attack_spec
        end_s = self.n_steps * self.scenario.time.step_s
        begins = [(s.id, s.trigger.at_s) for s in (spec.steps if spec else ())]
        early = [at_s for _, at_s in begins if at_s is not None and at_s < warm_up_s]
        return [
            *(
                f"an attack begins at {at_s:g} s, and metrics leave out the first {warm_up_s:g} s "
                "(time.warm_up_s)"
                for at_s in early[:1]
            ),
            *(
                f"step '{step}' of the attack begins at {at_s:g} s, and the run ends at {end_s:g} s"
                for step, at_s in begins
                if at_s is not None and at_s >= end_s
            ),
        ]

    def pacer(self, together: Iterable[Federate]) -> Pacer | None:
        """Return what paces the federates of one loop in real time; None where nothing is paced.

        Where the run falls behind, whole steps of the fastest paced federate are given up.
        """
        real_time = self.scenario.time.real_time
        timings = [f.timing for f in together if f.wall_clock]
        timing = min(timings, key=lambda t: t.period_ns, default=None)
        if real_time is None or timing is None:
            return None
        return Pacer(timing, real_time.factor, real_time.overrun)

    def site(self, name: str) -> GridSite:
        """Return the grid that a federate simulates or uses; built once per process."""
        plant = self.scenario.plant_of(name)
        if plant not in self._sites:
            self._sites[plant] = GridSite(self.scenario, plant)
        return self._sites[plant]

    def context(self, name: str, timing: Timing) -> FederateContext:
        """Return what a federate called `name` is built from."""
        return FederateContext(
            name,
            timing,
            self.scenario,
            lambda: self.site(name),
            self.n_steps,
            self.armed,
            self.pcap,
            group=name,
            warm_up_s=self.warm_up_s,
        )

    def _context(self, group: str) -> FederateContext:
        if group not in self._contexts:
            self._contexts[group] = self.context(group, self.timing(group))
        return self._contexts[group]

    def build(self, name: str) -> AnyFederate:
        """Build one federate (loads its models; may take a second)."""
        if self.attack_plan is not None and name in self.attack_plan.names:
            return attacked.build(name, self.attack_plan, self.context)
        instance = next(i for i in self.instances if i.name == name)
        context = replace(self._context(instance.group), name=name, agents=instance.agents)
        try:
            return _build(context)
        except FeederateError as error:
            if error.where is None:
                error.where = context.where()
            raise
        except (Exception, SystemExit) as error:
            # A user's own class may fail in any way, or exit.
            raise context.error(f"cannot be built ({type(error).__name__}: {error})") from error

    def build_all(self) -> dict[str, AnyFederate]:
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

    def wire(self, federates: Mapping[str, AnyFederate]) -> dict[str, FederateWiring]:
        """Check and resolve all connections between built federates, without the attack."""
        externals = [f for f in federates.values() if isinstance(f, ExternalFederate)]
        messages = [(f.name, port) for f in externals for port in f.messages]
        wirings = wire(
            self.scenario, list(federates.values()), self.groups, self.external, messages
        )
        return with_messages(self.scenario, federates, wirings)

    def assemble(self) -> tuple[dict[str, AnyFederate], dict[str, FederateWiring]]:
        """Build and wire the whole federation, with the attack in its place if there is one."""
        federates = self.build_all()
        refuse_shared_hardware(self.scenario, federates)
        wirings = self.wire(federates)
        if self.scenario.attack_spec is None:
            return federates, with_watchers(federates, wirings, self.horizon_ns)
        group_of = {instance.name: instance.group for instance in self.instances}
        self.attack_plan, wirings = attacked.interposed(
            self.scenario, federates, group_of, wirings, self.external
        )
        federates |= {name: self.build(name) for name in self.attack_plan.names}
        attacked.refuse_idle_steps(self.scenario, self.attack_plan, federates)
        wirings = attacked.with_first_values(self.attack_plan, wirings, self.context)
        return federates, with_watchers(federates, wirings, self.horizon_ns)


def _parts(cls: type[Federate], context: FederateContext) -> list[tuple[str, ...]]:
    try:
        return cls.parts(context)
    except FeederateError:
        raise
    except (Exception, SystemExit) as error:
        # A user's own class may fail in any way, or exit.
        raise context.error(f"cannot be built ({type(error).__name__}: {error})") from error


def _build(context: FederateContext) -> AnyFederate:
    cls, section = federate_class(context.section.kind), context.section
    if not issubclass(cls, Federate) or cls.Section is not UserSection:
        built: AnyFederate = cls(context)
        lacks = [name for name in Wirable.__annotations__ if not hasattr(built, name)]
        if lacks:
            raise context.error(
                f"'{section.kind}' makes an object without {', '.join(lacks)}",
                "kind",
                expected="a subclass of federates.core.federate.Federate",
            )
        return built
    assert isinstance(section, UserSection)
    known = inspect.signature(cls).parameters
    names = list(known)[1:]
    if not any(p.kind is p.VAR_KEYWORD for p in known.values()):
        for option in section.options:
            if option not in names:
                raise context.error(
                    f"unknown option '{option}'",
                    "options",
                    option,
                    expected=f"one of {', '.join(names)}" if names else "no options",
                    nearest=nearest_name(option, names),
                )
    return cls(context, **section.options)


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


def warnings_of(
    scenario: Scenario,
    federates: Mapping[str, AnyFederate],
    wirings: Mapping[str, FederateWiring],
) -> tuple[str, ...]:
    """Return each different warning of the federates, with the name of the first that has it.

    Before them: what of the scenario is not used; after them: what is connected to nothing.
    """
    unused: tuple[str, ...] = ()
    if scenario.links and not any(f.links_in for f in federates.values()):
        unused = (f"{scenario.where('links')}: not used: no agent of this scenario sends mail",)
    found: dict[str, str] = {}
    for name, federate in federates.items():
        for words in federate.warnings if isinstance(federate, Federate) else ():
            found.setdefault(words, name)
    own = [f"{name}: {words}" for words, name in found.items()]
    alone = [f"{name}: {words}" for name, words in unconnected(federates, wirings)]
    return (*unused, *own, *alone)
