"""Receding horizon of a circuit: central, edge-wise ADMM and Tracking-ADMM, in one process.

Every planner maps (state, last input, known load) to the input of the next step. The distributed
ones start from the last plan, moved on by one step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import numpy as np

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, IntArray
from controllers.dmpc.box_qp import BoxQp
from controllers.dmpc.condensed import CircuitProblem, Weights, central_problem, parameters
from controllers.dmpc.splitting import (
    EdgeWise,
    Outcome,
    SplitPart,
    Splitting,
    TrackingAdmm,
    complete_mixing,
    metropolis_mixing,
)

RHO_BOUND, RHO_EDGE, RELAXATION = 1.0, 300.0, 0.9
"""Of edge-wise ADMM on per-unit circuits; the cold start is fastest there (docs/dmpc.md)."""


class Planner(Protocol):
    """Maps the circuit's state to the next input."""

    def plan(self, x: FloatArray, u_last: FloatArray, load: FloatArray) -> FloatArray:
        """Return the planned inputs (N, inverters); row 0 is applied."""
        ...


class CentralMpc:
    """The centralised problem, solved exactly: what the distributed ones approach."""

    def __init__(self, problem: CircuitProblem, weights: Weights | None = None) -> None:
        self.condensed = central_problem(problem, weights)
        self._qp = BoxQp(self.condensed.h)
        self._warm: FloatArray | None = None

    def theta(self, x: FloatArray, u_last: FloatArray, load: FloatArray) -> FloatArray:
        """Return the problem's parameters."""
        return parameters(x, np.zeros(0), u_last, load)

    def plan(self, x: FloatArray, u_last: FloatArray, load: FloatArray) -> FloatArray:
        """Return the optimal inputs (N, inverters)."""
        part = self.condensed
        linear = part.m @ self.theta(x, u_last, load)
        z = self._qp.solve(linear, -part.limit, part.limit, self._warm).z
        self._warm = np.concatenate([z[part.inputs :], z[-part.inputs :]])
        return z.reshape(part.horizon, part.inputs)


def split_parts(
    problem: CircuitProblem, rho_bound: float = RHO_BOUND, rho_edge: float = RHO_EDGE
) -> list[SplitPart]:
    """Return the clusters' problems with |u| bounded, as the splitting wants them."""
    out = []
    for part in problem.parts:
        nu = part.horizon * part.inputs
        out.append(
            SplitPart(
                part.h,
                part.m,
                np.eye(nu, part.size),
                np.zeros((nu, part.m.shape[1])),
                part.s,
                part.s0,
                np.full(nu, np.inf),
                np.full(nu, rho_bound),
                np.full(len(part.s), rho_edge),
            )
        )
    return out


def shift_rows(problem: CircuitProblem, bounded: int) -> IntArray:
    """Return for each cluster the row that follows each row by one step, (C, rows).

    The last step of the horizon is followed by itself.
    """
    n, coupled = problem.horizon, problem.twin.shape[1]
    out = np.tile(np.arange(bounded + coupled), (len(problem.parts), 1))
    blocks = bounded + np.arange(coupled).reshape(-1, n) if coupled >= n else None
    for c, part in enumerate(problem.parts):
        nu = n * part.inputs
        out[c, : nu - part.inputs] = np.arange(part.inputs, nu)
        if blocks is not None:
            out[c, blocks[:, :-1]] = blocks[:, 1:]
    return out


def flat_start(problem: CircuitProblem, bounded: int, thetas: Sequence[FloatArray]) -> FloatArray:
    """Return t (C, rows, 1) of a plan that leaves inputs and voltages as they are."""
    n = problem.horizon
    t = np.zeros((len(problem.parts), bounded + problem.twin.shape[1], 1))
    for c, (model, part, theta) in enumerate(
        zip(problem.models, problem.parts, thetas, strict=True)
    ):
        copies = theta[model.states : model.states + part.copies]
        u_last = theta[model.states + part.copies :][: part.inputs]
        t[c, : n * part.inputs, 0] = np.tile(u_last, n)
        near = theta[len(model.lines) + model.near_bus]
        pairs = np.stack([near, copies], axis=1).ravel()
        t[c, bounded : bounded + len(part.s), 0] = np.repeat(pairs, n)
    return t


class EdgeWiseMpc:
    """Edge-wise ADMM with a fixed number of iterations, or a budget, per step."""

    def __init__(
        self,
        problem: CircuitProblem,
        iterations: int = 20,
        *,
        rho_bound: float = RHO_BOUND,
        rho_edge: float = RHO_EDGE,
        relaxation: float = RELAXATION,
        tolerance: float | None = None,
        budget_s: float | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.problem = problem
        self.iterations = iterations
        self.splitting = Splitting(split_parts(problem, rho_bound, rho_edge))
        self.solver = EdgeWise(self.splitting, problem.twin, relaxation)
        self._stop = (tolerance, budget_s, clock)
        self.high = padded_limits(problem, self.splitting.bounded)
        self._shift = shift_rows(problem, self.splitting.bounded)[..., None]
        self._started = False
        self.last: Outcome | None = None

    def plan(self, x: FloatArray, u_last: FloatArray, load: FloatArray) -> FloatArray:
        """Return the planned inputs (N, inverters), inside their limits."""
        thetas = self.problem.thetas(x, u_last, load)
        if self._started:
            self.solver.t = np.take_along_axis(self.solver.t, self._shift, axis=1)
        else:
            self.solver.t = flat_start(self.problem, self.splitting.bounded, thetas)
            self._started = True
        tolerance, budget_s, clock = self._stop
        self.last = self.solver.solve(
            self.splitting.offsets(thetas),
            -self.high,
            self.high,
            self.iterations,
            tolerance=tolerance,
            budget_s=budget_s,
            clock=clock,
        )
        return self.problem.inputs_of(list(self.last.bounded))


Mixing = Literal["complete", "multi-round", "neighbours"]


class TrackingMpc:
    """Tracking-ADMM with complete, multi-round or neighbour mixing; see `TrackingAdmm`."""

    def __init__(
        self,
        problem: CircuitProblem,
        iterations: int = 20,
        *,
        mixing: Mixing = "complete",
        rounds: int = 8,
        c: float = 300.0,
        inner: int = 3,
        rho_bound: float = RHO_BOUND,
    ) -> None:
        self.problem, self.iterations = problem, iterations
        self.splitting = Splitting(split_parts(problem, rho_bound, c))
        n = len(problem.parts)
        pairs = sorted(
            problem.clusters.neighbours(problem.circuit.line_from, problem.circuit.line_to)
        )
        if mixing == "complete":
            w = complete_mixing(n)
        elif mixing in ("multi-round", "neighbours"):
            w = metropolis_mixing(pairs, n, rounds if mixing == "multi-round" else 1)
        else:
            raise ControllerError(
                f"mixing is '{mixing}'", expected="complete, multi-round or neighbours"
            )
        row, sign, rows = _global_rows(problem)
        self.solver = TrackingAdmm(self.splitting, row, sign, rows, w, c, inner)
        self.high = padded_limits(problem, self.splitting.bounded)
        self._shift = shift_rows(problem, self.splitting.bounded)[..., None]
        self._row_shift = np.append(_next_in_blocks(rows, problem.horizon), rows)
        self._started = False
        self.last: Outcome | None = None

    def plan(self, x: FloatArray, u_last: FloatArray, load: FloatArray) -> FloatArray:
        """Return the planned inputs (N, inverters), inside their limits."""
        thetas = self.problem.thetas(x, u_last, load)
        solver, nb = self.solver, self.splitting.bounded
        if self._started:
            moved = np.concatenate([solver.t[:, :nb], solver.s], axis=1)
            moved = np.take_along_axis(moved, self._shift, axis=1)
            solver.lam = solver.lam[:, self._row_shift]
        else:
            moved = flat_start(self.problem, nb, thetas)
            self._started = True
        solver.t = moved
        solver.s = moved[:, nb:].copy()
        solver.reset()
        self.last = solver.solve(
            self.splitting.offsets(thetas), -self.high, self.high, self.iterations
        )
        return self.problem.inputs_of(list(self.last.bounded))


def padded_limits(problem: CircuitProblem, bounded: int) -> FloatArray:
    """Return the bounds of |u|, (C, bounded, 1); 0 for padding."""
    high = np.zeros((len(problem.parts), bounded, 1))
    for c, part in enumerate(problem.parts):
        high[c, : len(part.limit), 0] = part.limit
    return high


def _global_rows(problem: CircuitProblem) -> tuple[IntArray, FloatArray, int]:
    """Number the coupling constraints: for each boundary line both ends' voltages, N rows each."""
    n = problem.horizon
    lines = sorted({int(line) for part in problem.parts for line in part.boundary_line})
    rows = 2 * n * len(lines)
    row = np.full(problem.twin.shape, rows, dtype=np.int64)
    sign = np.zeros(problem.twin.shape)
    steps = np.arange(n)
    for c, part in enumerate(problem.parts):
        for j, line in enumerate(part.boundary_line):
            base = 2 * n * lines.index(int(line))
            mine_first = c < part.neighbour[j]
            at = 2 * n * j
            row[c, at + steps] = base + (0 if mine_first else n) + steps
            row[c, at + n + steps] = base + (n if mine_first else 0) + steps
            sign[c, at + steps], sign[c, at + n + steps] = 1.0, -1.0
    return row, sign, rows


def _next_in_blocks(rows: int, n: int) -> IntArray:
    at = np.arange(rows).reshape(-1, n)
    return np.concatenate([at[:, 1:], at[:, -1:]], axis=1).ravel().astype(np.int64)
