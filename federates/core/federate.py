"""A federate is a pure step: given its time, inputs and mail it returns outputs and mail.

It never calls HELICS, so the same object runs in a thread, in a process of its own or in the
single-threaded host, with the same result.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from controllers.core.mail import FloatArray, Link, Mail
from controllers.core.ports import Port
from controllers.core.protocol import ControllerStep as Step
from federates.clock import Timing
from federates.scenario.kinds import FederateSection, UserSection

if TYPE_CHECKING:
    from federates.core.context import FederateContext
    from federates.core.run_store import RunStore

__all__ = ["Federate", "FloatArray", "Link", "Mail", "Port", "Step"]


class Federate(ABC):
    """Base of every federate kind, and of a user's own (``kind: module:Class`` in a scenario).

    A subclass that has a `Section` of its own is constructed as ``cls(context)`` and reads
    ``context.section``; one that has none is constructed as ``cls(context, **options)``. After
    construction its ports and links are set. `step` is called at ``offset + k * period`` with
    k = 0, 1, ...

    Attributes
    ----------
    Section : Checks the federate's keys in the scenario; unknown keys are refused.
    optional_inputs, optional_outputs : Names of ports that it would have if the scenario used them.
    warnings : Sentences about input that is accepted but not used, or not as it stands.
    hardware : Devices outside the process, name to address; no two may have the same address.
    wall_clock : Whether its steps keep wall-clock deadlines in a run in real time, whatever it is
        wired to: it has hardware, or is the federate that leads the run.
    """

    Section: ClassVar[type[FederateSection]] = UserSection
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    links_in: tuple[Link, ...] = ()
    links_out: tuple[Link, ...] = ()
    optional_inputs: tuple[str, ...] = ()
    optional_outputs: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    hardware: Mapping[str, str] = {}
    wall_clock: bool = False

    def __init__(self, context: FederateContext) -> None:
        self.name: str = context.name
        self.timing: Timing = context.timing

    @classmethod
    def parts(cls, context: FederateContext) -> list[tuple[str, ...]]:
        """Return the agents of each federate that this one is split into; one part by default."""
        return [()]

    @classmethod
    def steps_per_period(cls, section: FederateSection) -> int:
        """Return how many steps the federate takes in its ``period_s``; one by default."""
        return 1

    @classmethod
    def settling_s(cls, section: FederateSection, period_s: float) -> float:
        """Return how long the federate, stepping every `period_s`, needs from a cold start.

        The longest of all federates is the run's warm-up; see ``time.warm_up_s``.
        """
        return 0.0

    def topology(self) -> str:
        """Return the federate's grid as an OEDI-SI Topology in JSON; plants with a feeder do."""
        raise NotImplementedError

    def start(self, store: RunStore) -> None:  # noqa: B027 - optional hook, most open nothing
        """Open what a run needs and a check does not. Called once, before the first step.

        Parameters
        ----------
        store : The run's folder, for logs, and its list of events.
        """

    @abstractmethod
    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> Step:
        """Advance to `time_s`.

        Parameters
        ----------
        time_s : Simulation time of this step.
        inputs : mapping of port name to float64 (n_labels,)
            What was published before `time_s`. The arrays are reused: copy what you keep.
        mail : Messages delivered since the last step; ``mail.link`` indexes `links_in`.
        """

    def summary(self) -> dict[str, float]:
        """Return metrics for ``summary.json``; keys carry units (``losses_kwh``)."""
        return {}

    def close(self) -> None:  # noqa: B027 - optional hook, nothing to release by default
        """Release what the federate holds. Called once, however the run ends."""
