"""Distributed interior point: regions eliminate their part of the Newton equations.

In two rounds of mail per iteration,

1. a region sends the rows and columns of its border in the inverse of its Newton matrix, and the
   step of its border at unchanged prices; the coordinator solves the equations of
   `controllers.optimisation.border_system` and answers w and the region's part of dz, so that all
   copies stay equal to the last bit;
2. a region sends the longest steps that leave its slacks and multipliers positive, and what they
   make of its products of slack and multiplier; the coordinator answers the common step lengths and
   the next barrier parameter.

All iterates are those of the central interior point (`controllers.optimisation.interior_point`) but
for rounding, whose errors fade with the steps.

Numbers in the messages of a region with a border of width k: ``block`` k (k + 1) / 2 + k + 5,
``border`` 2 k + 1, ``length`` 6, ``move`` 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

import numpy as np

from controllers.core.agents import Channel, Direction, Letters
from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray
from controllers.core.waiting import Barrier, Inbox, Waiting
from controllers.optimisation.barrier import BarrierBlock, Iterate, Residuals, Terms
from controllers.optimisation.border_system import BorderSystem
from controllers.optimisation.interior_point import SHORTEST_STEP, Status, next_barrier
from controllers.optimisation.problems.opf_regions import Border, RegionOpf
from controllers.optimisation.region_method import RegionAgent, RegionMethod

COORDINATOR = "coordinator"
_STATUSES: tuple[str, ...] = ("running", *get_args(Status))


def build(
    problem: RegionOpf,
    *,
    start: FloatArray | None = None,
    penalty: float = 1e3,
    most_iterations: int = 100,
    waiting: Waiting | None = None,
    tolerance: float = 1e-8,
    hosted: tuple[str, ...] | None = None,
) -> RegionMethod:
    """Return the regions of a problem and their coordinator.

    Parameters
    ----------
    problem : The optimal power flow.
    start : x of all regions, one after the other, of which the owners' values count; default: the
        middle of all limits.
    penalty : rho; changes the rounding only.
    most_iterations : Newton steps.
    waiting : A `Barrier`.
    tolerance : Of `Residuals.relative`.
    hosted : Names of the agents to host; default: all.

    Raises ControllerError: `waiting` is not a barrier.
    """
    policy = Barrier() if waiting is None else waiting
    if not isinstance(policy, Barrier):
        raise ControllerError(
            "the steps of all regions belong together",
            where="algorithm 'interior-point'",
            expected="Barrier waiting",
        )
    blocks = [BarrierBlock(nlp) for nlp in problem.regions]
    starts = problem.consistent(start)
    regions = [
        RegionSteps(*parts, penalty, policy)
        for parts in zip(problem.names, blocks, problem.borders, starts, strict=True)
    ]
    rows = sum(block.rows for block in blocks)
    coordinator = Coordinator(problem, rows, penalty, tolerance, most_iterations, policy)
    return RegionMethod([*regions, coordinator], hosted)


def _channels(peer: str, k: int, told: Direction, heard: Direction) -> list[Channel]:
    """Return what a region with a border of width k tells its coordinator, and what it hears."""
    return [
        Channel(peer, "block", k * (k + 1) // 2 + k + len(Residuals._fields), told),
        Channel(peer, "border", 2 * k + 1, heard, counters=1),
        Channel(peer, "length", 6, told),
        Channel(peer, "move", 4, heard, counters=1),
    ]


class RegionSteps(RegionAgent):
    """A region: its part of every Newton step.

    Parameters
    ----------
    name : Its name.
    block : Its program.
    border : Its shared variables.
    start : (n,). Where it begins; copies of a shared variable are equal.
    penalty : rho.
    waiting : When it computes.
    """

    def __init__(
        self,
        name: str,
        block: BarrierBlock,
        border: Border,
        start: FloatArray,
        penalty: float,
        waiting: Barrier,
    ) -> None:
        k = len(border.column)
        channels = _channels(COORDINATOR, k, "out", "in")
        super().__init__(name, channels, waiting=waiting, turns=("border", "move"))
        self._block, self._at, self._penalty = block, border.column, penalty
        self._unit = np.zeros((block.unknowns, k))
        self._unit[self._at, np.arange(k)] = 1.0
        self._iterate = block.start(start, 1.0)
        self._barrier = 1.0
        self.price = np.zeros(k)
        self._step: Iterate | None = None

    def first(self) -> Letters:
        """Open with the elimination at the start."""
        return self._eliminate()

    def compute(self, inbox: Inbox) -> Letters:
        """Answer the border's prices with step lengths, and a move with the next elimination."""
        step = self._step
        told = inbox.of(COORDINATOR, "move" if step else "border")
        if told[-1]:
            self.stopped, self.status = True, _STATUSES[int(told[-1])]
            return {}
        if step:
            return self._move(step, *told[:3])
        return self._look_ahead(*np.split(told[:-1], 2))

    def _eliminate(self) -> Letters:
        """Return this iterate's ``block``; not finite where the Newton matrix is singular."""
        block, at = self._block, self._at
        linear, weight = np.zeros((2, block.n))
        linear[at], weight[at] = self.price, self._penalty
        block.terms = Terms(linear, weight, target=self._iterate.x)
        residuals = block.look(self._iterate)
        right = np.column_stack((block.right_side(self._barrier), self._unit))
        try:
            solved = block.factor()(right)
        except RuntimeError:
            solved = np.full_like(right, np.nan)
        self._plain, self._response = solved[:, 0], solved[:, 1:]
        inverse = self._response[at][np.triu_indices(len(at))]
        row = np.concatenate((inverse, self._plain[at], residuals))
        return {(COORDINATOR, "block"): row}

    def _look_ahead(self, pull: FloatArray, shared: FloatArray) -> Letters:
        """Return the ``length`` of the step with w_k and the border's part of dz, each (k,)."""
        now = self._iterate
        solution = self._plain - self._response @ pull
        solution[self._at] = shared
        self._step = step = self._block.step(solution)
        self._price_step = pull + self._penalty * shared
        products = [
            float(np.sum(s * z))
            for s in (now.slack, step.slack)
            for z in (now.inequality, step.inequality)
        ]
        return {(COORDINATOR, "length"): np.array([*now.lengths(step), *products])}

    def _move(self, step: Iterate, primal: float, dual: float, barrier: float) -> Letters:
        """Take the step and return the ``block`` of the next iterate."""
        self._iterate = self._iterate.moved(step, primal, dual)
        self.price = self.price + dual * self._price_step
        self._barrier, self._step = barrier, None
        self.iterations += 1
        return self._eliminate()

    def answer(self) -> Mapping[str, FloatArray]:
        """Return x, multipliers and prices of the border."""
        equality, inequality, bound = self._block.multipliers(self._iterate)
        return {
            "x": self._iterate.x, "equality": equality, "inequality": inequality, "bound": bound,
            "price": self.price,
        }  # fmt: skip


class Coordinator(RegionAgent):
    """Joins the regions' borders, and decides step lengths, barrier parameter and the end."""

    def __init__(
        self,
        problem: RegionOpf,
        rows: int,
        penalty: float,
        tolerance: float,
        most_iterations: int,
        waiting: Barrier,
    ) -> None:
        self._system = BorderSystem(problem, penalty)
        channels = [
            channel
            for name, k in zip(problem.names, self._system.widths, strict=True)
            for channel in _channels(name, k, "in", "out")
        ]
        super().__init__(COORDINATOR, channels, waiting=waiting, turns=("block", "length"))
        self._regions = problem.names
        self._rows, self._tolerance, self._most = rows, tolerance, most_iterations
        self._joins = True

    def first(self) -> Letters:
        """Wait for the regions' blocks."""
        return {}

    def compute(self, inbox: Inbox) -> Letters:
        """Join the borders, or decide how far to go."""
        rows = [inbox.of(name, "block" if self._joins else "length") for name in self._regions]
        answers = self._join(rows) if self._joins else self._decide(np.stack(rows))
        kind = "border" if self._joins else "move"
        self._joins = not self._joins
        status = float(_STATUSES.index(self.status))
        return {
            (name, kind): np.append(row, status)
            for name, row in zip(self._regions, answers, strict=True)
        }

    def _join(self, rows: Sequence[FloatArray]) -> list[FloatArray]:
        """Return w and dz of each region's border."""
        inverses, steps = [], []
        for row, k in zip(rows, self._system.widths, strict=True):
            inverses.append(row[: -k - 5])
            steps.append(row[-k - 5 : -5])
        left = np.stack([row[-5:] for row in rows])
        self._judge(Residuals(*left[:, :3].max(axis=0), *left[:, 3:].sum(axis=0)))
        found = self._system.solve(inverses, np.concatenate(steps))
        if found is None:
            if self.status == "running":
                self._end("diverged")
            return [np.zeros(2 * k) for k in self._system.widths]
        return [np.concatenate(part) for part in zip(*found, strict=True)]

    def _judge(self, left: Residuals) -> None:
        """End at a solution, or when the iterations are used up."""
        self._violation = left.primal
        if max(left.relative) <= self._tolerance:
            self._end("converged")
        elif self.iterations >= self._most:
            self._end("iteration limit")

    def _decide(self, rows: FloatArray) -> list[FloatArray]:
        """Return step lengths and barrier parameter for each region."""
        primal, dual = rows[:, :2].min(axis=0)
        product = rows[:, 2:].sum(axis=0) @ [1.0, dual, primal, primal * dual]
        if max(primal, dual) < SHORTEST_STEP:
            self._end("stalled")
        self.iterations += 1
        barrier = next_barrier(product / max(self._rows, 1), self._violation)
        return [np.array([primal, dual, barrier])] * len(rows)

    def _end(self, status: Status) -> None:
        self.stopped, self.status = True, status

    def answer(self) -> Mapping[str, FloatArray]:
        """Return nothing: the regions hold the solution."""
        return {}
