"""What a comparison needs of an algorithm and of a problem."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from controllers.core.mail import FloatArray, Link, Mail
from controllers.core.ports import Port
from controllers.core.protocol import ControllerStep
from controllers.optimisation.problems.result import Measure, Reference


class Problem(Protocol):
    """A problem that agents solve together."""

    @property
    def kind(self) -> str:
        """Which algorithms can solve it: a key of their builders."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the agents."""
        ...

    @property
    def reference(self) -> Reference:
        """The optimum of a central solver; computed once."""
        ...

    def measure(self, answer: Mapping[str, FloatArray]) -> Measure:
        """Return the worth of what an algorithm's `answer` gives."""
        ...


class Method(Protocol):
    """An algorithm at work on a problem: a `controllers.core.protocol.Controller` and its answer.

    `controllers.core.agent_rows.RowController` is one.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    links_in: tuple[Link, ...]
    links_out: tuple[Link, ...]

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> ControllerStep:
        """Advance every hosted agent by one step."""
        ...

    @property
    def rounds(self) -> int:
        """Rounds of the agent that has computed most often."""
        ...

    @property
    def stopped(self) -> bool:
        """Whether all hosted agents have stopped, by their own rule."""
        ...

    def answer(self) -> Mapping[str, FloatArray]:
        """Return what the agents know of the solution, as `Problem.measure` takes it."""
        ...
