"""Algorithms of regions: few agents with heavy local problems, each an `IterativeAgent`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np

from controllers.core.agents import AgentHost, IterativeAgent
from controllers.core.mail import FloatArray
from controllers.core.protocol import hosted_positions


class RegionAgent(IterativeAgent):
    """An agent of an algorithm of regions.

    Attributes
    ----------
    iterations : Iterations that it has completed, whatever number of messages one takes.
    stopped : Whether it has ended, by its own rule or because it was told to.
    status : "running", "converged", or why it ended without a solution.
    """

    iterations: int = 0
    stopped: bool = False
    status: str = "running"

    @abstractmethod
    def answer(self) -> Mapping[str, FloatArray]:
        """Return what it knows of the solution, as its problem's `measure` takes it."""


class RegionMethod(AgentHost):
    """A `controllers.optimisation.method.Method` of region agents.

    Parameters
    ----------
    agents : All agents.
    hosted : Names of those that this instance hosts; default: all.
    """

    def __init__(self, agents: Sequence[RegionAgent], hosted: Sequence[str] | None = None) -> None:
        names = [agent.name for agent in agents]
        at = hosted_positions(names if hosted is None else hosted, names, type(self).__name__)
        self.agents = tuple(agents[i] for i in at)
        super().__init__(self.agents)

    @property
    def rounds(self) -> int:
        """Iterations of the agent that has completed most."""
        return max((agent.iterations for agent in self.agents), default=0)

    @property
    def stopped(self) -> bool:
        """Whether all hosted agents have stopped."""
        return all(agent.stopped for agent in self.agents)

    @property
    def status(self) -> str:
        """The first of the agents' statuses that is not "converged", if any."""
        return next((a.status for a in self.agents if a.status != "converged"), "converged")

    def answer(self) -> dict[str, FloatArray]:
        """Return what the hosted agents know, those of all agents one after the other, by name."""
        answers = [agent.answer() for agent in self.agents]
        names = dict.fromkeys(name for answer in answers for name in answer)
        return {n: np.concatenate([a[n] for a in answers if n in a]) for n in names}
