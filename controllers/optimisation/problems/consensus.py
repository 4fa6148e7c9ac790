"""Average consensus: agents find the mean of their numbers, min sum_i (x - a_i)^2 / 2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from controllers.core.errors import ControllerError
from controllers.core.graph import Graph
from controllers.core.mail import FloatArray
from controllers.optimisation.problems.result import Measure, Reference, relative_gap


@dataclass(frozen=True, eq=False)
class Consensus:
    """Numbers of agents whose mean is sought.

    own : (n,). What each agent has. graph : Who talks to whom.

    Raises ControllerError: A number is not finite, or there is none for some agent.
    """

    kind: ClassVar[str] = "consensus"

    own: FloatArray
    graph: Graph

    def __post_init__(self) -> None:
        if np.shape(self.own) != (self.graph.n,) or not np.isfinite(self.own).all():
            raise ControllerError(
                f"own numbers of shape {np.shape(self.own)}",
                where="consensus",
                expected=f"{self.graph.n} finite numbers, one for each agent",
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the agents."""
        return tuple(f"agent_{i}" for i in range(self.graph.n))

    @property
    def size(self) -> int:
        """Number of agents."""
        return self.graph.n

    @cached_property
    def reference(self) -> Reference:
        """The mean, for every agent."""
        mean = float(self.own.mean())
        x = np.full(self.size, mean)
        return Reference(self.objective(x), x, np.empty(0))

    def objective(self, x: FloatArray) -> float:
        """Return the cost of x (n,)."""
        return float(0.5 * np.square(x - self.own).sum())

    def measure(self, answer: Mapping[str, FloatArray]) -> Measure:
        """Return the worth of an answer `x` (n,).

        The gap is the largest distance from the mean, the infeasibility that of two agents, each
        relative to the start's: an objective would show only the square of the error.
        """
        x, best = answer["x"], self.reference
        far = float(np.abs(self.own - best.x).max()) or 1.0
        apart = float(np.ptp(x)) / (float(np.ptp(self.own)) or 1.0)
        return Measure(
            objective=self.objective(x),
            gap=float(np.abs(x - best.x).max()) / far,
            infeasibility=apart,
            primal=apart,
            dual=relative_gap(float(x.sum()), float(self.own.sum())),
            bound=None,
        )


def ring_consensus(n: int, seed: int = 0) -> Consensus:
    """Return a ring of n agents with uniform random numbers."""
    return Consensus(np.random.default_rng(seed).random(n), Graph.ring(n))
