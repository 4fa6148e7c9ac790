"""A scenario's whole federation in this process, step by step, with actions from outside.

The loop, the shells, the links and the attack are those of ``feederate run --placement single``.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from weakref import finalize

from controllers.core.mail import FloatArray
from controllers.safety.layer import SafetyLayer
from federates.assembly.federation import Assembly, warnings_of
from federates.clock import to_s
from federates.core.progress import Progress
from federates.core.run_store import RunStore
from federates.core.shell import Shell
from federates.core.sites import GridSite
from federates.environment.learner import Learner
from federates.errors import RunError, ScenarioError
from federates.hosts.loop import Memory, MemoryBus, StepLoop
from federates.hosts.outcome import Control, Failure
from federates.kinds.controller import ControllerSection, inverters
from federates.runs.runner import plant_first, refuse_programs, run_metrics
from federates.scenario.schema import Scenario
from federates.scenario.sections import Connection
from grid_models.base.threads import one_thread

_LEARNER = f"{Learner.__module__}:{Learner.__name__}"
_ADDED = "agents"
_MEASURED = ("p_kw", "q_kvar")
_JUDGED = ("v_pu", "p_kw", "q_kvar", "losses_kw")


class SteppedFederation:
    """One execution of a scenario in which `Learner` agents stand in for its controller.

    The controller is the one whose ``q_set_kvar`` is connected; a scenario without one gets agents
    at all inverters of its plant. Its other set-points are not commanded. The agents read active
    and reactive power of their inverters though the controller did not.

    Attributes
    ----------
    learner : The agents.
    warnings : Sentences about input that is not used.

    Raises ScenarioError: Several controllers command reactive power; there is no plant with a grid;
        a federate is a HELICS program.
    """

    @one_thread()
    def __init__(self, scenario: Scenario, mail_width: int) -> None:
        self.scenario, name, self.plant, dropped = with_learner(scenario, mail_width)
        self._assembly = Assembly(self.scenario)
        federates, wirings = self._assembly.assemble()
        refuse_programs(self._assembly)
        found = warnings_of(self.scenario, federates, wirings)
        self.warnings = (*dropped, *found, *self._assembly.attack_warnings)
        ours = plant_first(self._assembly, federates)
        folder = mkdtemp(prefix="feederate-")
        self._remove = finalize(self, shutil.rmtree, folder, ignore_errors=True)
        store = RunStore(Path(folder), self.scenario.record, keeps=False)
        progress = Progress(len(ours))
        self._shells = {
            f.name: Shell(f, wirings[f.name], store, self.scenario.seed, progress, row)
            for row, f in enumerate(ours)
        }
        self._row, self._shell = list(self._shells).index(name), self._shells[name]
        controller = vars(self._shell.federate)["controller"]
        self._layer = controller if isinstance(controller, SafetyLayer) else None
        learner = controller if self._layer is None else self._layer.inner
        assert isinstance(learner, Learner)
        self.learner = learner
        self._memory = Memory(list(self._shells))
        buses = {n: MemoryBus(n, self._memory) for n in self._shells}
        control = Control(progress, self.scenario.time.step_timeout_s)
        self._loop = StepLoop(self._shells, buses, self._assembly.horizon_ns, control)
        self._instants = self._loop.iterate()
        self._closed = False
        timing = self._shell.federate.timing
        self._left = timing.steps_before(self._assembly.horizon_ns)
        self._now_ns, self._period_ns = timing.offset_ns - timing.period_ns, timing.period_ns

    def start(self) -> None:
        """Let every federate open what it needs."""
        with self._blamed():
            self._loop.start()

    @property
    def time_s(self) -> float:
        """Simulation time of the agents' last reading."""
        return to_s(self._now_ns)

    @property
    def last(self) -> bool:
        """Whether no step of the agents follows the one that they have read for."""
        return self._left == 0

    def read(self) -> FloatArray:
        """Step the federation until the agents have read; return what they see.

        Raises RunError: A federate failed; it is named.
        """
        with self._blamed():
            self._advance()
            # A plant that steps after them, or with them, has nothing to read at first.
            while (self.plant, _JUDGED[0]) not in self._memory.values:
                self._advance()
            mail = self._shell.mail
            if self._layer is not None:
                _, mail = self._layer.sorted_mail(mail)
            return self.learner.observe(self._shell.inputs, mail)

    def _advance(self) -> None:
        """Step the federation until the agents read again."""
        while self._row not in next(self._instants):
            pass
        self._left -= 1
        self._now_ns += self._period_ns

    def grid(self) -> dict[str, FloatArray]:
        """Return the plant's last outputs as they are, without noise or attack."""
        return {port: self._memory.values[self.plant, port] for port in _JUDGED}

    def finish(self) -> dict[str, float | None]:
        """Step to the end of the run, close, and return its metrics as ``summary.json`` has them.

        Raises RunError: A federate failed; it is named.
        """
        try:
            with self._blamed():
                for _ in self._instants:
                    pass
            summaries = {name: shell.summary() for name, shell in self._shells.items()}
        finally:
            self.close()
        return run_metrics(self._assembly, summaries)

    def close(self) -> None:
        """Release what the federates hold."""
        if self._closed:
            return
        self._closed = True
        try:
            for name, shell in self._shells.items():
                with self._blamed(name):
                    shell.close()
        finally:
            self._remove()

    @contextmanager
    def _blamed(self, name: str | None = None) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            failure = Failure.of(name or self._loop.current, error)
            raise RunError(failure.reason, federate=failure.federate) from error


def with_learner(scenario: Scenario, mail_width: int) -> tuple[Scenario, str, str, tuple[str, ...]]:
    """Return the scenario with agents in place of its controller, their name, the plant's name.

    And sentences about connections that are not used.
    """
    name = _controller(scenario)
    plant = scenario.plant_of(name)
    if plant is None:
        raise ScenarioError(
            "no federate simulates a grid",
            where=scenario.where("federates"),
            expected="a federate of kind feeder",
        )
    section = scenario.federates.get(name)
    if section is None:
        inverters(GridSite(scenario, plant))  # refuses a grid without any
        section = ControllerSection(kind="controller", controller="none")
    changed = {"controller": _LEARNER, "split": 1, "options": {"mail_width": mail_width}}
    connections, dropped = _connections(scenario, name, plant)
    parts = {
        "federates": scenario.federates | {name: section.model_copy(update=changed)},
        "connections": connections,
        "publish": [*scenario.publish, *(f"{plant}.{port}" for port in _JUDGED)],
        # The metrics leave out what those of the scenario's own run leave out.
        "time": scenario.time.model_copy(update={"warm_up_s": Assembly(scenario).wanted_warm_up_s}),
    }
    warnings = tuple(
        f"{scenario.where('connections')}: {wire.source} -> {wire.target} is not used: the agents "
        "command q_set_kvar only"
        for wire in dropped
    )
    return scenario.model_copy(update=parts), name, plant, warnings


def _connections(
    scenario: Scenario, name: str, plant: str
) -> tuple[list[Connection], list[Connection]]:
    """Return the connections with agents in the controller's place, and those that they lack."""
    measured = ("v_pu", *_MEASURED)
    ports = ("q_set_kvar", *measured, *(f"safety_{port}" for port in measured))
    own = {f"{name}.{port}" for port in ports}
    ends = [
        {e for e in (wire.source, wire.target) if e.startswith(f"{name}.")}
        for wire in scenario.wires
    ]
    kept = [wire for wire, mine in zip(scenario.wires, ends, strict=True) if mine <= own]
    dropped = [wire for wire, mine in zip(scenario.wires, ends, strict=True) if not mine <= own]
    needed = [(f"{plant}.{port}", f"{name}.{port}") for port in ("v_pu", *_MEASURED)]
    if name not in scenario.federates:
        needed.append((f"{name}.q_set_kvar", f"{plant}.q_set_kvar"))
    fed = {wire.target for wire in kept if name in scenario.federates}
    added = [Connection(source=a, target=b) for a, b in needed if b not in fed]
    noise_pu = scenario.environment.voltage_noise_pu if scenario.environment else 0.0
    return [_noisy(wire, f"{name}.v_pu", noise_pu) for wire in (*kept, *added)], dropped


def _noisy(wire: Connection, target: str, noise_pu: float) -> Connection:
    """Return a connection with the noise of the section ``environment`` beside its own."""
    if wire.target != target or not noise_pu:
        return wire
    return wire.model_copy(update={"noise": math.hypot(wire.noise, noise_pu)})


def _controller(scenario: Scenario) -> str:
    """Return the federate that the agents replace, or a name of their own."""
    sources = {wire.source for wire in scenario.wires}
    found = [
        name
        for name, section in scenario.federates.items()
        if isinstance(section, ControllerSection) and f"{name}.q_set_kvar" in sources
    ]
    if len(found) > 1:
        raise ScenarioError(
            f"{' and '.join(found)} command reactive power",
            where=scenario.where("federates"),
            expected="one controller that the agents of the environment stand in for",
        )
    return found[0] if found else _ADDED
