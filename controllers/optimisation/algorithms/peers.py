"""What algorithms without a coordinator share: mixing with the neighbours, step, residual."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping

import numpy as np

from controllers.core.agent_rows import AgentRows, Heard, Kind, RowController, Team
from controllers.core.errors import ControllerError
from controllers.core.graph import Weights
from controllers.core.mail import FloatArray, IntArray
from controllers.core.waiting import Asynchronous, Waiting
from controllers.optimisation.problems.common_variable import CommonVariable


def team_of(
    common: CommonVariable,
    width: int,
    rows: Callable[[IntArray], AgentRows],
    waiting: Waiting | None,
    tolerance: float,
    hosted: tuple[str, ...] | None,
) -> RowController:
    """Return the controller of peers whose messages have `width` numbers."""
    team = Team.peers(common.names, common.graph, Kind(len(common.names), width, rows))
    return RowController(team, hosted, waiting=waiting, tolerance=tolerance)


class Peers(AgentRows):
    """Agents with an own copy of the common variable.

    Attributes
    ----------
    z : (rows, m). The copies.
    at : (rows,). Positions in the problem.
    links : (2 edges,). Which arcs of the graph end at these agents.
    """

    def __init__(self, common: CommonVariable, at: IntArray) -> None:
        self.at = at
        self.costs = common.costs(at)
        self.z = common.start[at]
        self.links = np.isin(common.graph.arcs[1], at)
        self.residual = np.ones(len(at))
        self._diameter = float(common.graph.diameter)
        self._gradient_size = common.gradient_size

    @abstractmethod
    def first(self) -> FloatArray:
        """Return the opening messages."""

    def judge(
        self, rows: IntArray, heard: Heard, apart: FloatArray, gradient_sum: FloatArray
    ) -> None:
        """Set the residual: agreement and optimality, by what each agent knows.

        No two agents differ by more than the diameter times the largest difference of neighbours,
        ``apart`` (links, m). ``gradient_sum`` (len(rows), m): numbers of which the largest in size
        bounds the sum of all gradients.
        """
        relative = np.abs(apart) / self.costs.size(self.z[rows])[heard.row]
        optimal = np.max(np.abs(gradient_sum) / self._gradient_size, axis=1)
        self.residual[rows] = optimal
        np.maximum.at(self.residual, rows[heard.row], self._diameter * relative.max(axis=1))

    def answer(self) -> Mapping[str, FloatArray]:
        """Return x (rows,) and, where the common variable is a price, price (rows, m)."""
        return self.costs.answer(self.z)


class MixingPeers(Peers):
    """Agents that mix what they have with what they hear."""

    def __init__(self, common: CommonVariable, at: IntArray, weights: Weights) -> None:
        super().__init__(common, at)
        arc, own = common.graph.mixing(weights)
        self._arc, self._own = arc[self.links, None], own[at, None]

    def mix(self, rows: IntArray, heard: Heard, own: FloatArray) -> FloatArray:
        """Return the rows of W times what all have: own (len(rows), width) and heard."""
        return self._own[rows] * own + heard.total(self._arc[heard.link] * heard.values)


def checked(value: float, option: str, algorithm: str, most: float = np.inf) -> float:
    """Return an option that is a positive number.

    Raises ControllerError: It is none, or above `most`.
    """
    if not 0.0 < value <= most or not np.isfinite(value):
        raise ControllerError(
            f"{option} is {value}",
            where=f"algorithm '{algorithm}': option '{option}'",
            expected="a positive number" + (f", at most {most:g}" if np.isfinite(most) else ""),
        )
    return float(value)


def second_order(rho: float) -> float:
    """Return beta for mixing with momentum where the rate is rho: it becomes sqrt(beta)."""
    return float(((1.0 - np.sqrt(1.0 - rho**2)) / rho) ** 2) if rho else 0.0


def refuse_asynchronous(waiting: Waiting | None, algorithm: str) -> None:
    """Refuse agents that do not wait, where a message that is lost or used twice moves the answer.

    Such agents would agree, and stop, on another value: each message is part of a sum they keep.

    Raises ControllerError: The policy is `Asynchronous`.
    """
    if isinstance(waiting, Asynchronous):
        raise ControllerError(
            "its agents need every message once",
            where=f"algorithm '{algorithm}': option 'waiting'",
            expected="Barrier; admm-consensus and ratio-consensus need not wait",
        )


def primal_dual_step(common: CommonVariable, weights: Weights) -> float:
    """Return the step alpha of EXTRA and DGD for which the slowest modes are equally fast.

    With the same curvature mu of all agents an eigenvalue w of W has the modes of
    ``r^2 - (1 + w - alpha mu) r + (1 + w) / 2 - alpha mu``. Both roots of the second largest w are
    1 - d, ``d = sqrt((1 - w) / 2)``, at ``alpha mu = 2 d (1 - d)``. mu is the mean curvature; the
    largest one allows 9/10 of ``(1 + smallest w) / max curvature`` (Shi, Ling, Wu and Yin, "EXTRA",
    SIAM J. Optimization 2015, theorem 3.3).
    """
    values = common.graph.mixing_values(weights)
    d = np.sqrt(0.5 * (1.0 - values[-2]))
    best = 2.0 * d * (1.0 - d) / common.mean_curvature
    return float(min(best, 0.9 * (1.0 + values[0]) / common.curvature.max()))
