"""Planners of a circuit in one process: references for benchmarks and tests.

Central MPC, edge-wise ADMM, Tracking-ADMM, and the averaging PI law. Every planner maps (state,
last input, known load) to the inputs of the horizon. The distributed ones start from the last
plan, shifted by one step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from _box_qp import BoxQp

from controllers.baselines.averaging_pi import line_neighbours
from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, IntArray
from controllers.dmpc.condensed import (
    RELAXATION,
    RHO_BOUND,
    RHO_EDGE,
    CircuitProblem,
    CircuitWeights,
    Condensed,
    condense,
    padded_limits,
    parameters,
    shift_rows,
    split_parts,
)
from controllers.dmpc.splitting import ClusterSplitting
from grid_models.circuits.clusters import cluster_models
from grid_models.circuits.dynamics import RlcCircuit
from grid_models.feeder.clusters import Clusters


@dataclass(frozen=True, slots=True)
class Outcome:
    """What some iterations gave.

    Attributes
    ----------
    bounded : (C, bounded). The bounded rows, inside hard bounds whatever the number of iterations.
    residual : Largest disagreement of coupling rows; NaN when it was not asked for.
    """

    bounded: FloatArray
    iterations: int
    residual: float


class EdgeWise:
    """All clusters in one process: the solver as a library, and the reference of the mail form.

    Parameters
    ----------
    twin : (C, coupled). Where in the flattened coupling rows the neighbour's twin of each row is.
    relaxation : In (0, 1).
    """

    def __init__(
        self, splitting: ClusterSplitting, twin: IntArray, relaxation: float = 0.9
    ) -> None:
        if not 0.0 < relaxation < 1.0:
            raise ControllerError(
                f"relaxation is {relaxation}", where="edge-wise ADMM", expected="a number in (0, 1)"
            )
        self.splitting = splitting
        self._twin = np.asarray(twin).ravel()
        self._alpha = relaxation
        self.t: FloatArray = np.zeros((*splitting.g.shape[:2], 1))
        self._v = np.empty_like(self.t)
        self._w = np.empty_like(self.t)

    def solve(
        self,
        g0: FloatArray,
        low: FloatArray,
        high: FloatArray,
        iterations: int,
        *,
        tolerance: float | None = None,
        budget_s: float | None = None,
        clock: Callable[[], float] | None = None,
    ) -> Outcome:
        """Iterate from the present `t`, which is changed in place.

        Parameters
        ----------
        g0 : (C, r, 1). From `offsets`.
        low, high : (C, bounded, 1)
        iterations : At most this many.
        tolerance : Stop when neighbours disagree by less.
        budget_s, clock : Stop when `clock()` (seconds) has moved on by the budget.
        """
        split, nb, alpha = self.splitting, self.splitting.bounded, self._alpha
        t, v, w, twin = self.t, self._v, self._w, self._twin
        end = clock() + budget_s if clock is not None and budget_s is not None else None
        inside, residual, done = split.project(t[:, :nb], low, high), np.nan, 0
        while done < iterations:
            np.matmul(split.g, t, out=v)
            v += g0
            np.add(v, v, out=w)
            w -= t
            inside = split.project(w[:, :nb], low, high)
            t *= 1.0 - alpha
            t[:, :nb] += alpha * (2.0 * inside - w[:, :nb])
            t[:, nb:] += alpha * w[:, nb:].reshape(-1)[twin].reshape(t[:, nb:].shape)
            done += 1
            if tolerance is not None:
                ends = v[:, nb:].reshape(-1)
                residual = float(np.abs(ends - ends[twin]).max())
                if residual < tolerance:
                    break
            if end is not None and clock is not None and clock() >= end:
                break
        return Outcome(inside[..., 0], done, residual)


class TrackingAdmm:
    """Tracking-ADMM: agents agree on the coupling's residual by mixing instead of edge by edge.

    Falsone, Notarnicola, Notarstefano, Prandini: Tracking-ADMM for distributed
    constraint-coupled optimization, Automatica 117, 2020::

        delta_i = sum W_ij d_j           l_i = sum W_ij lambda_j
        z_i+    = argmin f_i + l_i'A_i z + c/2 |A_i z - A_i z_i + delta_i|^2
        d_i+    = delta_i + A_i (z_i+ - z_i)          lambda_i+ = l_i + c d_i+

    The minimisation takes `inner` warm-started steps of the splitting of `EdgeWise`, with the
    coupling rows held.

    Parameters
    ----------
    splitting : With `rho_couple` = c for every coupling row.
    row : (C, coupled). Global row of each local one; `rows` (one past the last) for padding.
    sign : (C, coupled). +1 for an own voltage, -1 for a copy.
    rows : Number of coupling constraints.
    mixing : (C, C). W, doubly stochastic.
    """

    def __init__(
        self,
        splitting: ClusterSplitting,
        row: IntArray,
        sign: FloatArray,
        rows: int,
        mixing: FloatArray,
        c: float,
        inner: int = 3,
        relaxation: float = 0.9,
    ) -> None:
        check_mixing(mixing, len(row))
        self.splitting = splitting
        self._row, self._sign, self._c = row, sign[..., None], c
        self._mixing, self._inner, self._alpha = mixing, inner, relaxation
        n = len(row)
        self._each = np.arange(n)[:, None]
        self.t: FloatArray = np.zeros((*splitting.g.shape[:2], 1))
        self.s: FloatArray = np.zeros((n, splitting.coupled, 1))
        self.d: FloatArray = np.zeros((n, rows + 1))
        self.lam: FloatArray = np.zeros((n, rows + 1))

    def reset(self) -> None:
        """Set d_i = A_i z_i, as a new problem with the present plan asks for."""
        self.d[:] = 0.0
        self.d[self._each, self._row] = (self._sign * self.s)[..., 0]
        self.d[:, -1] = 0.0

    def solve(self, g0: FloatArray, low: FloatArray, high: FloatArray, iterations: int) -> Outcome:
        """Iterate from the present state, which is changed in place; see `EdgeWise.solve`."""
        split, nb, alpha = self.splitting, self.splitting.bounded, self._alpha
        t = self.t
        inside = split.project(t[:, :nb], low, high)
        for _ in range(iterations):
            delta, mult = self._mixing @ self.d, self._mixing @ self.lam
            shift = (delta + mult / self._c)[self._each, self._row][..., None]
            t[:, nb:] = self.s - self._sign * shift
            for step in range(self._inner):
                v = split.g @ t + g0
                w = 2.0 * v[:, :nb] - t[:, :nb]
                inside = split.project(w, low, high)
                t[:, :nb] += alpha * (2.0 * inside - w - t[:, :nb])
                if step == self._inner - 1:
                    moved = (self._sign * (v[:, nb:] - self.s))[..., 0]
                    self.s = v[:, nb:].copy()
            self.d = delta
            np.add.at(self.d, (self._each, self._row), moved)
            self.d[:, -1] = 0.0
            self.lam = mult + self._c * self.d
        residual = float(np.abs(self.d.sum(axis=0)).max())
        return Outcome(inside[..., 0], iterations, residual)


def check_mixing(mixing: FloatArray, n: int) -> None:
    """Refuse a W that is not doubly stochastic and connected, since it would never agree."""
    if mixing.shape != (n, n):
        raise ControllerError(f"W has shape {mixing.shape}", where="mixing", expected=f"({n}, {n})")
    sums = np.concatenate([mixing.sum(axis=0), mixing.sum(axis=1)])
    if (mixing < -1e-12).any() or np.abs(sums - 1.0).max() > 1e-9:
        raise ControllerError("W is not doubly stochastic", where="mixing")
    second = np.linalg.norm(mixing - 1.0 / n, 2)
    if n > 1 and second >= 1.0 - 1e-12:
        raise ControllerError("W does not mix: the agents' graph is disconnected", where="mixing")


def complete_mixing(n: int) -> FloatArray:
    """Return W = 1/n: everybody hears everybody."""
    return np.full((n, n), 1.0 / n)


def metropolis_mixing(pairs: Sequence[tuple[int, int]], n: int, rounds: int = 1) -> FloatArray:
    """Return the Metropolis weights of a graph, to the power of `rounds` mixing rounds."""
    degree = np.zeros(n)
    for a, b in pairs:
        degree[a] += 1
        degree[b] += 1
    w = np.zeros((n, n))
    for a, b in pairs:
        w[a, b] = w[b, a] = 1.0 / (1.0 + max(degree[a], degree[b]))
    w += np.diag(1.0 - w.sum(axis=1))
    return np.asarray(np.linalg.matrix_power(w, rounds))


def central_problem(problem: CircuitProblem, weights: CircuitWeights | None = None) -> Condensed:
    """Return the condensed problem of the whole circuit: one cluster without copies."""
    n = problem.circuit.n_buses
    whole = Clusters(("central",), np.zeros(n, dtype=np.intp))
    model = cluster_models(problem.circuit, whole, problem.sample_s)[0]
    return condense(model, problem.circuit, problem.horizon, weights or CircuitWeights())


def offsets(splitting: ClusterSplitting, thetas: Sequence[FloatArray]) -> FloatArray:
    """Return g0 (C, r, 1) for the clusters' present parameters."""
    padded = np.zeros((len(splitting.g), splitting.parameters, 1))
    for c, theta in enumerate(thetas):
        padded[c, : len(theta), 0] = theta
    result: FloatArray = splitting.drive @ padded
    return result


def inputs_of(problem: CircuitProblem, plans: Sequence[FloatArray]) -> FloatArray:
    """Return the circuit's plan (N, inverters) from the clusters' unknowns."""
    out = np.empty((problem.horizon, problem.circuit.n_inverters))
    for model, part, z in zip(problem.models, problem.parts, plans, strict=True):
        out[:, model.inverters] = z[: part.horizon * part.inputs].reshape(part.horizon, -1)
    return out


class Planner(Protocol):
    """Maps the circuit's state to the next input."""

    def plan(self, x: FloatArray, u_last: FloatArray, load: FloatArray) -> FloatArray:
        """Return the planned inputs (N, inverters); row 0 is applied."""
        ...


class CentralMpc:
    """The centralised problem, solved exactly: what the distributed ones approach."""

    def __init__(self, problem: CircuitProblem, weights: CircuitWeights | None = None) -> None:
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
        self.splitting = ClusterSplitting(split_parts(problem, rho_bound, rho_edge))
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
            offsets(self.splitting, thetas),
            -self.high,
            self.high,
            self.iterations,
            tolerance=tolerance,
            budget_s=budget_s,
            clock=clock,
        )
        return inputs_of(self.problem, list(self.last.bounded))


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
        self.splitting = ClusterSplitting(split_parts(problem, rho_bound, c))
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
            offsets(self.splitting, thetas), -self.high, self.high, self.iterations
        )
        return inputs_of(self.problem, list(self.last.bounded))


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


class AveragingPiLaw:
    """The law for all inverters at once, by explicit Euler; every agent knows its neighbours."""

    def __init__(self, circuit: RlcCircuit, step_s: float, kp: float, ki: float, ka: float) -> None:
        self._circuit, self._step_s = circuit, step_s
        self._kp, self._ki, self._ka = kp, ki, ka
        n = circuit.n_inverters
        laplacian = np.zeros((n, n))
        for a, b in line_neighbours(circuit):
            laplacian[[a, b], [a, b]] += 1.0
            laplacian[[a, b], [b, a]] -= 1.0
        self._laplacian = laplacian
        self._integral = np.zeros(n)

    def __call__(self, x: FloatArray, u_last: FloatArray, load: FloatArray) -> FloatArray:
        """Return the inputs (inverters,) for a state of the circuit; the load is not used."""
        circuit = self._circuit
        error = 1.0 - x[circuit.n_lines + circuit.inverter_bus]
        change = error - self._ka * (self._laplacian @ self._integral)
        limit = circuit.inverter_limit_pu
        self._integral = np.clip(self._integral + self._step_s * self._ki * change, -limit, limit)
        return np.asarray(np.clip(self._kp * error + self._integral, -limit, limit))
