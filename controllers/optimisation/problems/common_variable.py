"""Problems with one variable common to all agents, min_z sum_i f_i(z), z of m numbers.

The form that algorithms without a coordinator solve. Two problems have it:

* `Consensus`: ``f_i(z) = (z - a_i)^2 / 2``, m = 1.
* `Dispatch`, by its price: f_i is minus the dual function of agent i with an equal share of the
  right-hand side, ``f_i(z) = -min_x { cost_i(x) + z' (A_i x - b / n) }``, so that the gradient is
  ``b / n - A_i x_i(z)`` (paper: survey of distributed optimal power flow, equation 3). The sum of
  the gradients is what the rows miss. Equation rows only: the price has no sign to keep.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from controllers.core.errors import ControllerError
from controllers.core.graph import Graph
from controllers.core.mail import FloatArray, IntArray
from controllers.optimisation.problems.consensus import Consensus
from controllers.optimisation.problems.dispatch import Dispatch, DispatchRows


class LocalCosts(ABC):
    """The functions f_i of some agents, rows of arrays."""

    @abstractmethod
    def gradient(self, z: FloatArray, rows: IntArray) -> FloatArray:
        """Return the gradient of each f_i at its own z, (len(rows), m)."""

    @abstractmethod
    def proximal(
        self, target: FloatArray, weight: FloatArray, rows: IntArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return argmin f_i(z) + weight_i / 2 |z - target_i|^2, (len(rows), m), and x (len(rows),).

        x is the agent's part of the answer; weight: (len(rows),), positive.
        """

    @abstractmethod
    def answer(self, z: FloatArray, x: FloatArray | None = None) -> Mapping[str, FloatArray]:
        """Return the answer of agents with these z, and x where an algorithm keeps it."""

    @abstractmethod
    def size(self, z: FloatArray) -> FloatArray:
        """Return by what a difference of z (rows, m) is divided to be relative, (rows, m)."""


Solvable = Consensus | Dispatch


@dataclass(frozen=True, eq=False)
class CommonVariable:
    """A problem in this form.

    Attributes
    ----------
    names, graph : Of the agents.
    start : (n, m). z of each agent before the first round.
    curvature : (n,). Bound of the second derivative of each f_i; infinite where there is none.
    fixed : Whether every f_i is a parabola of curvature `curvature`, so that the optimum is a
        quotient of two sums.
    gradient_size : (m,). What a sum of the gradients is divided by to be relative.
    costs : Returns the functions of some agents.
    """

    names: tuple[str, ...]
    graph: Graph
    start: FloatArray
    curvature: FloatArray
    fixed: bool
    gradient_size: FloatArray
    costs: Callable[[IntArray], LocalCosts]

    @property
    def width(self) -> int:
        """Number of numbers m in z."""
        return int(self.start.shape[1])

    @property
    def mean_curvature(self) -> float:
        """Mean of the finite curvatures; 1 where there is none."""
        finite = self.curvature[np.isfinite(self.curvature)]
        return float(finite.mean()) if finite.size else 1.0


def common_variable(problem: Solvable, algorithm: str, *, flat: bool = False) -> CommonVariable:
    """Return a problem as one of a common variable.

    flat : Whether the algorithm can do with agents without curvature (it uses only `proximal`).

    Raises ControllerError: An inequality row, an agent without curvature, or a single agent.
    """
    if isinstance(problem, Consensus):
        found = _of_consensus(problem)
    else:
        found = _of_dispatch(problem, algorithm, flat=flat)
    if found.graph.n < 2:
        raise ControllerError(
            "there is one agent", where=f"algorithm '{algorithm}'", expected="at least two"
        )
    return found


def _of_consensus(problem: Consensus) -> CommonVariable:
    spread = float(np.ptp(problem.own)) or 1.0
    return CommonVariable(
        problem.names, problem.graph, problem.own[:, None].astype(float), np.ones(problem.size),
        True, np.array([problem.size * spread]),
        lambda at: _ConsensusCosts(problem.own[at, None], spread),
    )  # fmt: skip


def _of_dispatch(problem: Dispatch, algorithm: str, *, flat: bool) -> CommonVariable:
    if not problem.equal.all():
        raise ControllerError(
            f"row {int(np.argmin(problem.equal))} is an inequality",
            where=f"algorithm '{algorithm}'",
            expected="equation rows only; inequality rows need a coordinator, as in dual or admm",
        )
    if not flat:
        problem.refuse_flat(algorithm)
    share = problem.right / problem.size
    with np.errstate(divide="ignore", invalid="ignore"):
        curvature = np.nan_to_num((problem.rows**2).sum(axis=0) / problem.quadratic, posinf=np.inf)
    limited = bool(np.isfinite(problem.low).any() or np.isfinite(problem.high).any())
    return CommonVariable(
        problem.names, problem.graph, np.zeros((problem.size, len(problem.right))), curvature,
        not limited and len(problem.right) == 1, np.maximum(1.0, np.abs(problem.right)),
        lambda at: _DispatchCosts(problem.part(at), share),
    )  # fmt: skip


class _ConsensusCosts(LocalCosts):
    def __init__(self, own: FloatArray, spread: float) -> None:
        self._own, self._spread = own, spread

    def gradient(self, z: FloatArray, rows: IntArray) -> FloatArray:
        return z - self._own[rows]

    def proximal(
        self, target: FloatArray, weight: FloatArray, rows: IntArray
    ) -> tuple[FloatArray, FloatArray]:
        w = weight[:, None]
        z = (self._own[rows] + w * target) / (1.0 + w)
        return z, z[:, 0]

    def answer(self, z: FloatArray, x: FloatArray | None = None) -> Mapping[str, FloatArray]:
        return {"x": z[:, 0] if x is None else x}

    def size(self, z: FloatArray) -> FloatArray:
        return np.full(z.shape, self._spread)


class _DispatchCosts(LocalCosts):
    def __init__(self, own: DispatchRows, share: FloatArray) -> None:
        self._own, self._share = own, share

    def gradient(self, z: FloatArray, rows: IntArray) -> FloatArray:
        return self._share - self._own.column[rows] * self._own.answer(z, rows)[:, None]

    def proximal(
        self, target: FloatArray, weight: FloatArray, rows: IntArray
    ) -> tuple[FloatArray, FloatArray]:
        # The minimum over z of a maximum over x: z = target + (A x - b / n) / weight, and x is
        # argmin cost(x) + target' A x + |A x - b / n|^2 / (2 weight).
        share = np.broadcast_to(self._share, target.shape)
        x = self._own.proximal(target, share, 1.0 / weight, rows)
        missed = self._own.column[rows] * x[:, None] - share
        return target + missed / weight[:, None], x

    def answer(self, z: FloatArray, x: FloatArray | None = None) -> Mapping[str, FloatArray]:
        return {"x": self._own.answer(z) if x is None else x, "price": z}

    def size(self, z: FloatArray) -> FloatArray:
        return np.maximum(1.0, np.abs(z))
