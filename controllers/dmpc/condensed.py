"""Model-predictive problems of a circuit and of its clusters, with the states eliminated.

Over a horizon of N steps the problem of a cluster is, in z = (inputs u[0..N-1], copies of the
neighbours' boundary voltages [1..N]),

    minimise  1/2 z'H z + (M theta)'z     subject to |u| <= limit

where theta = (state, copies at step 0, u of the last step, load, 1) is what is known when the step
begins; H and M never change. The cost is the sum over the horizon of

    10 |v - 1|^2 + 0.5 sum(r i^2) + 0.05 |u|^2 + 0.5 |u[k] - u[k-1]|^2

(a boundary line counts half at each end). Coupling: ``S z + S0 theta`` are, for each boundary
line, the own end's voltage and the copy of the far end's, N values each; the neighbour has the
same pair the other way round. The whole circuit is one cluster without copies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, IntArray
from controllers.dmpc.splitting import SplitPart
from grid_models.circuits.clusters import ClusterModel, cluster_models
from grid_models.circuits.dynamics import RlcCircuit
from grid_models.feeder.clusters import Clusters

RHO_BOUND, RHO_EDGE, RELAXATION = 1.0, 300.0, 0.9
"""Of edge-wise ADMM on per-unit circuits; the cold start is fastest there (docs/dmpc.md)."""


@dataclass(frozen=True, slots=True)
class CircuitWeights:
    """Weights of the cost: voltage error, line losses, inputs, changes of inputs."""

    voltage: float = 10.0
    losses: float = 0.5
    effort: float = 0.05
    change: float = 0.5

    def __post_init__(self) -> None:
        for name in ("voltage", "losses", "effort", "change"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0.0):
                raise ControllerError(f"weight '{name}' is {value}", expected="a number >= 0")
        if self.effort == 0.0 and self.change == 0.0:
            raise ControllerError(
                "effort and change are both 0", expected="one of them positive, else no optimum"
            )


@dataclass(frozen=True, eq=False)
class Condensed:
    """One condensed problem.

    Attributes
    ----------
    horizon, inputs, copies : N, inverters, boundary lines.
    h : float (n, n)
        Hessian; the first ``N * inputs`` of the n unknowns are u step by step, then the copies.
    m : (n, t). Linear term per parameter.
    k : (t, t). Constant: the cost is ``1/2 z'H z + (M theta)'z + 1/2 theta'K theta``.
    s, s0 : float (2 N copies, n) and (2 N copies, t)
        Coupling rows: for each boundary line N own voltages, then N copies.
    gamma, phi : float (N * states, n) and (N * states, t)
        Predicted states ``gamma z + phi theta`` at steps 1..N.
    limit : (N * inputs,). Bound of u.
    neighbour : (copies,)
    boundary_line : (copies,)
    """

    name: str
    horizon: int
    inputs: int
    copies: int
    h: FloatArray
    m: FloatArray
    k: FloatArray
    s: FloatArray
    s0: FloatArray
    gamma: FloatArray
    phi: FloatArray
    limit: FloatArray
    neighbour: tuple[int, ...]
    boundary_line: IntArray

    @property
    def size(self) -> int:
        """Number of unknowns."""
        return len(self.h)

    def cost(self, z: FloatArray, theta: FloatArray) -> float:
        """Return the cost of a plan."""
        return float(0.5 * z @ self.h @ z + (self.m @ theta) @ z + 0.5 * theta @ self.k @ theta)


def parameters(
    state: FloatArray, copy_now: FloatArray, u_last: FloatArray, load: FloatArray
) -> FloatArray:
    """Return theta of one problem."""
    return np.concatenate([state, copy_now, u_last, load, [1.0]])


def condense(
    model: ClusterModel, circuit: RlcCircuit, horizon: int, weights: CircuitWeights
) -> Condensed:
    """Eliminate the states of a cluster's problem.

    Raises ControllerError: `horizon` is not a whole number of at least 1.
    """
    if isinstance(horizon, bool) or not isinstance(horizon, int) or horizon < 1:
        raise ControllerError(
            f"the horizon is {horizon!r}", where=model.name, expected="a whole number >= 1"
        )
    gamma, phi = _prediction(model, horizon)
    inputs, copies = len(model.inverters), len(model.far_bus)
    n_lines, states = len(model.lines), model.states
    nu, nt = horizon * inputs, phi.shape[1]
    # Cost of the states: diagonal weights around the target voltage.
    weight = np.concatenate(
        [
            weights.losses * circuit.r_pu[model.lines] * model.line_share,
            np.full(len(model.buses), weights.voltage),
        ]
    )
    target = np.concatenate([np.zeros(n_lines), np.ones(len(model.buses))])
    q = np.tile(2.0 * weight, horizon)
    error = phi.copy()
    error[:, -1] -= np.tile(target, horizon)
    h = gamma.T @ (q[:, None] * gamma)
    m = gamma.T @ (q[:, None] * error)
    k = error.T @ (q[:, None] * error)
    # Cost of the inputs and of their changes; the first change is from the last input.
    step = np.eye(nu) - np.eye(nu, k=-inputs)
    h[:nu, :nu] += 2.0 * (weights.effort * np.eye(nu) + weights.change * step.T @ step)
    last = slice(states + copies, states + copies + inputs)
    m[:inputs, last] -= 2.0 * weights.change * np.eye(inputs)
    k[last, last] += 2.0 * weights.change * np.eye(inputs)
    rows = np.arange(horizon)
    s = np.zeros((copies, 2, horizon, nu + horizon * copies))
    s0 = np.zeros((copies, 2, horizon, nt))
    for j, bus in enumerate(model.near_bus):
        at = rows * states + n_lines + int(bus)
        s[j, 0], s0[j, 0] = gamma[at], phi[at]
        s[j, 1, rows, nu + rows * copies + j] = 1.0
    return Condensed(
        model.name,
        horizon,
        inputs,
        copies,
        0.5 * (h + h.T),
        m,
        0.5 * (k + k.T),
        s.reshape(-1, nu + horizon * copies),
        s0.reshape(-1, nt),
        gamma,
        phi,
        np.tile(circuit.inverter_limit_pu[model.inverters], horizon),
        model.neighbour,
        np.asarray(model.boundary_line, dtype=np.int64),
    )


def _prediction(model: ClusterModel, horizon: int) -> tuple[FloatArray, FloatArray]:
    """Return (gamma, phi): the states at steps 1..N as a function of z and theta."""
    states, inputs, copies = model.states, len(model.inverters), len(model.far_bus)
    loads = len(model.buses)
    nu = horizon * inputs
    gamma = np.zeros((horizon, states, nu + horizon * copies))
    phi = np.zeros((horizon, states, states + copies + inputs + loads + 1))
    z_now = np.zeros((states, gamma.shape[2]))
    t_now = np.zeros((states, phi.shape[2]))
    t_now[:, :states] = np.eye(states)
    for i in range(horizon):
        z_next, t_next = model.a @ z_now, model.a @ t_now
        z_next[:, i * inputs : (i + 1) * inputs] += model.b
        z_next[:, nu + i * copies : nu + (i + 1) * copies] += model.g
        if i == 0:
            t_next[:, states : states + copies] += model.g
        else:
            z_next[:, nu + (i - 1) * copies : nu + i * copies] += model.g
        t_next[:, states + copies + inputs : -1] += model.d
        t_next[:, -1] += model.s
        gamma[i], phi[i] = z_next, t_next
        z_now, t_now = z_next, t_next
    return gamma.reshape(horizon * states, -1), phi.reshape(horizon * states, -1)


@dataclass(frozen=True, eq=False)
class CircuitProblem:
    """All clusters' problems of a circuit, padded to one shape so that they are solved together.

    Attributes
    ----------
    models : (C,)
    parts : (C,)
    twin : (C, 2 N copies). Row of the flattened (C * rows) coupling values that holds the same
        quantity at the other end of the boundary line; its own row where there is padding.
    real : (C, rows). Which coupling rows are no padding.
    """

    circuit: RlcCircuit
    clusters: Clusters
    models: tuple[ClusterModel, ...]
    parts: tuple[Condensed, ...]
    sample_s: float
    horizon: int
    twin: IntArray
    real: FloatArray

    def thetas(self, x: FloatArray, u_last: FloatArray, load: FloatArray) -> list[FloatArray]:
        """Return each cluster's parameters from the circuit's state, inputs and loads."""
        m = self.circuit.n_lines
        return [
            parameters(
                model.state_of(x, m),
                model.copies_of(x, m),
                u_last[model.inverters],
                load[model.buses],
            )
            for model in self.models
        ]


def circuit_problem(
    circuit: RlcCircuit,
    clusters: Clusters,
    sample_s: float,
    horizon: int = 15,
    weights: CircuitWeights | None = None,
) -> CircuitProblem:
    """Cut a circuit into its clusters' condensed problems."""
    models = cluster_models(circuit, clusters, sample_s)
    parts = tuple(condense(m, circuit, horizon, weights or CircuitWeights()) for m in models)
    rows = max(2 * horizon * max(p.copies for p in parts), 1)
    place: dict[tuple[int, int], int] = {}
    for c, part in enumerate(parts):
        for j, line in enumerate(part.boundary_line):
            place[c, int(line)] = c * rows + 2 * horizon * j
    twin = np.arange(len(parts) * rows).reshape(len(parts), rows)
    real = np.zeros((len(parts), rows), dtype=bool)
    steps = np.arange(horizon)
    for c, part in enumerate(parts):
        for j, line in enumerate(part.boundary_line):
            other = place[part.neighbour[j], int(line)]
            own = 2 * horizon * j
            # My voltage is the neighbour's copy, my copy its voltage.
            twin[c, own + steps] = other + horizon + steps
            twin[c, own + horizon + steps] = other + steps
            real[c, own : own + 2 * horizon] = True
    return CircuitProblem(circuit, clusters, models, parts, sample_s, horizon, twin, real)


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


def padded_limits(problem: CircuitProblem, bounded: int) -> FloatArray:
    """Return the bounds of |u|, (C, bounded, 1); 0 for padding."""
    high = np.zeros((len(problem.parts), bounded, 1))
    for c, part in enumerate(problem.parts):
        high[c, : len(part.limit), 0] = part.limit
    return high
