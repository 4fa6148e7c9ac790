"""ALADIN: regions solve their own problem, a coordinator takes one Newton step of the whole.

Augmented Lagrangian based alternating direction inexact Newton (B. Houska, J. Frasch and M. Diehl,
"An Augmented Lagrangian Based Algorithm for Distributed Nonconvex Optimization", SIAM J.
Optimization 26(2), 2016; of optimal power flow: A. Engelmann, Y. Jiang, T. Muhlpfordt, B. Houska
and T. Faulwasser, "Toward Distributed OPF Using ALADIN", IEEE Trans. Power Systems 34(1), 2019).
Every iteration

1. a region minimises its cost, the price y_k of its border and ``rho |x[border] - z|^2 / 2`` in its
   own constraints, and sends how its border answers (`controllers.optimisation.border_system`);
2. the coordinator solves the coupled quadratic program and answers new z and prices.

The quadratic program of ALADIN takes the constraints that are active in the local solutions as
equations, and these may change with every iteration, without an end.
Here inequalities have a barrier ``-kappa sum log s`` in local problem and quadratic program alike:
nothing switches. kappa falls by `shrink` whenever all regions are within ``centred kappa`` of z,
down to `last_barrier`; the step of the coordinator is then already one to the new kappa.

To the first order a step removes the distances of the regions' borders from z. Where the farthest
has become much larger, or a region has no solution, the regions go half of the way instead.

Numbers in the messages of a region with a border of width k: ``block`` k (k + 1) / 2 + 3 k + 1,
``border`` 2 k + 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from controllers.core.agents import Channel, Direction, Letters
from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray
from controllers.core.waiting import Barrier, Inbox, Waiting
from controllers.optimisation.algorithms.peers import checked
from controllers.optimisation.barrier import BarrierBlock, Iterate, Terms
from controllers.optimisation.border_system import BorderSystem
from controllers.optimisation.interior_point import newton_step
from controllers.optimisation.problems.opf_regions import Border, RegionOpf
from controllers.optimisation.region_method import RegionAgent, RegionMethod

COORDINATOR = "coordinator"
_STATUSES = ("running", "converged", "iteration limit", "a region has no solution")
_LOCAL_TOLERANCE = 1e-9
_LOCAL_STEPS = 50
_FARTHEST = 0.05
"""Distance of a border from z (rad, pu) above which the barrier does not fall."""
_SHORTEST = 1.0 / 256.0
"""Share of a step that is taken however far it leads."""
_PATIENCE = 6
"""Steps at a barrier after which the distances have to fall with every step."""


def build(
    problem: RegionOpf,
    *,
    start: FloatArray | None = None,
    penalty: float = 1e4,
    first_barrier: float = 0.1,
    last_barrier: float = 1e-8,
    shrink: float = 0.2,
    centred: float = 0.2,
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
    penalty : rho, in thousands of USD per hour, per rad^2 or pu^2.
    first_barrier, last_barrier, shrink, centred : See above; kappa in thousands of USD per hour.
    most_iterations : Local solutions.
    waiting : A `Barrier`.
    tolerance : Largest distance of a region's border from z (rad, pu) at the last kappa.
    hosted : Names of the agents to host; default: all.

    Raises ControllerError: `waiting` is not a barrier, or an option is out of its range.
    """
    policy = Barrier() if waiting is None else waiting
    if not isinstance(policy, Barrier):
        raise ControllerError(
            "the steps of all regions belong together",
            where="algorithm 'aladin'",
            expected="Barrier waiting",
        )
    penalty = checked(penalty, "penalty", "aladin")
    first_barrier = checked(first_barrier, "first_barrier", "aladin")
    path = _Path(
        first_barrier,
        checked(last_barrier, "last_barrier", "aladin", first_barrier),
        checked(shrink, "shrink", "aladin", 1.0),
        checked(centred, "centred", "aladin"),
    )
    starts = problem.consistent(start)
    regions = [
        Region(name, BarrierBlock(nlp), border, x, penalty, first_barrier, policy)
        for name, nlp, border, x in zip(
            problem.names, problem.regions, problem.borders, starts, strict=True
        )
    ]
    coordinator = Coordinator(problem, penalty, path, tolerance, most_iterations, policy)
    return RegionMethod([*regions, coordinator], hosted)


def _channels(peer: str, k: int, told: Direction, heard: Direction) -> list[Channel]:
    return [
        Channel(peer, "block", k * (k + 1) // 2 + 3 * k + 1, told),
        Channel(peer, "border", 2 * k + 3, heard, counters=1),
    ]


@dataclass(frozen=True)
class _Way:
    """From where a region solved its problem to where it shall solve it next."""

    iterate: Iterate
    step: Iterate
    price: tuple[FloatArray, FloatArray]
    shared: tuple[FloatArray, FloatArray]
    barrier: tuple[float, float]

    def at(self, length: float) -> tuple[Iterate, FloatArray, FloatArray, float]:
        """Return iterate, price, shared variables and barrier at a share of the way."""
        primal, dual = self.iterate.lengths(self.step)
        iterate = self.iterate.moved(self.step, length * primal, length * dual)
        price, shared = (a + length * (b - a) for a, b in (self.price, self.shared))
        barrier = self.barrier[0] ** (1.0 - length) * self.barrier[1] ** length
        return iterate, price, shared, barrier


class Region(RegionAgent):
    """A region: its own problem at the barrier kappa.

    Parameters
    ----------
    name : Its name.
    block : Its program.
    border : Its shared variables.
    start : (n,). Where it begins; copies of a shared variable are equal.
    penalty : rho.
    barrier : The first kappa.
    waiting : When it computes.
    """

    def __init__(
        self,
        name: str,
        block: BarrierBlock,
        border: Border,
        start: FloatArray,
        penalty: float,
        barrier: float,
        waiting: Barrier,
    ) -> None:
        k = len(border.column)
        super().__init__(name, _channels(COORDINATOR, k, "out", "in"), waiting=waiting)
        self._block, self._at, self._penalty, self._barrier = block, border.column, penalty, barrier
        self._unit = np.zeros((block.unknowns, k))
        self._unit[self._at, np.arange(k)] = 1.0
        self._iterate = block.start(start, 1.0)
        self._shared, self._price = start[self._at], np.zeros(k)
        self._way: _Way | None = None

    def first(self) -> Letters:
        """Open with the solution at the start's border."""
        return self._block_of(self._minimise())

    def compute(self, inbox: Inbox) -> Letters:
        """Go to the coordinator's step, or less far along the last one, and solve again."""
        told = inbox.of(COORDINATOR, "border")
        if told[-1]:
            self.stopped, self.status = True, _STATUSES[int(told[-1])]
            return {}
        pull, shared = np.split(told[:-3], 2)
        barrier, length = told[-3:-1]
        if length == 1.0 or self._way is None:
            self._way = self._way_to(pull, shared, barrier)
        self._iterate, self._price, self._shared, self._barrier = self._way.at(length)
        return self._block_of(self._minimise())

    def _way_to(self, pull: FloatArray, shared: FloatArray, barrier: float) -> _Way:
        """Return the way to new shared variables and w (`controllers.optimisation.border_system`).

        From here it is the whole region's Newton step.
        """
        now = self._iterate
        solution = self._plain + barrier * self._per_barrier - self._response @ pull
        return _Way(
            now,
            self._block.step(solution),
            (self._price, self._price + pull + self._penalty * (shared - now.x[self._at])),
            (self._shared, shared),
            (self._barrier, barrier),
        )

    def _terms(self, target: FloatArray) -> Terms:
        linear, weight, near = np.zeros((3, self._block.n))
        linear[self._at], weight[self._at], near[self._at] = self._price, self._penalty, target
        return Terms(linear, weight, near)

    def _minimise(self) -> bool:
        """Solve the local problem from the present iterate; return whether there is a solution."""
        self.iterations += 1
        self._block.terms = self._terms(self._shared)
        found = solve_at_barrier(self._block, self._iterate, self._barrier)
        if found is not None:
            self._iterate = found
        return found is not None

    def _block_of(self, solved: bool) -> Letters:
        """Return how the border answers; not finite where there is no solution."""
        block, at = self._block, self._at
        border, k = self._iterate.x[at], len(at)
        block.terms = self._terms(border)
        block.look(self._iterate)
        flat = block.right_side(0.0)
        right = np.column_stack((flat, block.right_side(1.0) - flat, self._unit))
        found = np.full_like(right, np.nan)
        if solved:
            with suppress(RuntimeError):
                found = block.factor()(right)
        self._plain, self._per_barrier, self._response = found[:, 0], found[:, 1], found[:, 2:]
        distance = np.max(np.abs(border - self._shared), initial=0.0)
        if not np.isfinite(found).all():
            distance = np.inf
        inverse = self._response[at][np.triu_indices(k)]
        steps = (border + self._plain[at], self._per_barrier[at], border)
        return {(COORDINATOR, "block"): np.concatenate((inverse, *steps, [distance]))}

    def answer(self) -> Mapping[str, FloatArray]:
        """Return x, multipliers and prices of the border."""
        now = self._iterate
        equality, inequality, bound = self._block.multipliers(now)
        price = self._price + self._penalty * (now.x[self._at] - self._shared)
        return {
            "x": now.x, "equality": equality, "inequality": inequality, "bound": bound,
            "price": price,
        }  # fmt: skip


def solve_at_barrier(block: BarrierBlock, at: Iterate, barrier: float) -> Iterate | None:
    """Return the solution of a program with ``-barrier sum log s``, None where there is none.

    at : Where to begin.
    """
    for _ in range(_LOCAL_STEPS):
        left = block.look(at)
        off = np.max(np.abs(at.slack * at.inequality - barrier), initial=0.0)
        slope = left.slope / (1.0 + left.multiplier)
        if max(left.primal, slope) <= _LOCAL_TOLERANCE and off <= 0.01 * barrier:
            return at
        step = newton_step(block, max(barrier, 0.1 * left.product / max(block.rows, 1)))
        if step is None:
            return None
        at = at.moved(step, *at.lengths(step))
    return None


@dataclass
class _Path:
    """The way of the barrier.

    `barrier`: Its present value. `allowed`: Largest distance from z after a step that is not taken
    back: at first it may rise, so that long steps are possible, later it has to fall.
    """

    barrier: float
    last: float
    shrink: float
    centred: float
    allowed: float = np.inf
    _steps: int = 0

    def follow(self, distance: float) -> None:
        """Let the barrier fall where the regions are near enough to z."""
        self._steps += 1
        if distance <= min(_FARTHEST, self.centred * self.barrier):
            self.barrier, self._steps = max(self.last, self.shrink * self.barrier), 0
        if self._steps < _PATIENCE:
            self.allowed = max(distance, min(max(4.0 * distance, 2.0 * self.barrier), 0.03))
        else:
            self.allowed = 0.9 * distance


class Coordinator(RegionAgent):
    """Joins the regions' borders, and decides the barrier and the end."""

    def __init__(
        self,
        problem: RegionOpf,
        penalty: float,
        path: _Path,
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
        super().__init__(COORDINATOR, channels, waiting=waiting)
        self._regions, self._path = problem.names, path
        self._tolerance, self._most = tolerance, most_iterations
        self._pull = self._shared = [np.zeros(k) for k in self._system.widths]
        self._length = 1.0

    def first(self) -> Letters:
        """Wait for the regions' blocks."""
        return {}

    def compute(self, inbox: Inbox) -> Letters:
        """Join the borders and answer their steps."""
        self.iterations += 1
        inverses, rows = [], []
        for name, k in zip(self._regions, self._system.widths, strict=True):
            inverse, *row = np.split(inbox.of(name, "block"), k * (k + 1) // 2 + np.arange(4) * k)
            inverses.append(inverse)
            rows.append(row)
        step, per_barrier, now, distances = (
            np.concatenate(part) for part in zip(*rows, strict=True)
        )
        distance, path = float(np.max(distances)), self._path
        again = distance > path.allowed and self._length > _SHORTEST
        if again and self.iterations < self._most:
            self._length *= 0.5
            return self._tell()
        solved_at = path.barrier if self._length == 1.0 else np.inf
        path.follow(distance)
        mean = self._system.mean(now)
        found = self._system.solve(inverses, step + path.barrier * per_barrier - mean)
        if found is not None:
            self._pull, change = found
            means = RegionOpf.split(mean, self._system.widths)
            self._shared = [m + c for m, c in zip(means, change, strict=True)]
        self._length = 1.0
        if found is None:
            self._end("a region has no solution")
        elif solved_at <= path.last and distance <= self._tolerance:
            self._end("converged")
        elif self.iterations >= self._most:
            self._end("iteration limit")
        return self._tell()

    def _tell(self) -> Letters:
        """Return z, w, barrier and the share of the way to them for each region."""
        tail = [self._path.barrier, self._length, float(_STATUSES.index(self.status))]
        return {
            (name, "border"): np.concatenate((w, z, tail))
            for name, w, z in zip(self._regions, self._pull, self._shared, strict=True)
        }

    def _end(self, status: str) -> None:
        self.stopped, self.status = True, status

    def answer(self) -> Mapping[str, FloatArray]:
        """Return nothing: the regions hold the solution."""
        return {}
