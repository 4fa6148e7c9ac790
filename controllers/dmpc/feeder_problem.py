"""The clusters' predictive problems on a feeder, in the form of `controllers.dmpc.splitting`.

Unknowns of a cluster, per horizon step k = 1..N: q of every DER and p of every battery [100
kvar, 100 kW], a copy of the voltage above it, and copies of the P and Q of every cluster below.

    minimise  sum over k of  reactive |q|^2 + throughput |p|^2 + ramp |u[k] - u[k-1]|^2
              + soc (energy[N] - target)^2 + voltage (distance of each v to the band)^2
    subject to |q| <= headroom, p in its rating, energy in its limits (soft, stiff)

The band is a soft constraint, so no start is infeasible. Parameters are what is measured or known
when the plan is made; see `Layout`. Energy is predicted without losses and kept exactly by the
controller, which clamps the first step with the losses (`controllers.dmpc.feeder`).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, IntArray
from controllers.core.protocol import ControlSite
from controllers.dmpc.feeder_network import S_UNIT, FeederCluster, FeederNetwork
from controllers.dmpc.splitting import SplitPart

BLOCKS = 9
"""Coupling trajectories of a boundary: v, P and Q on three phases."""
_STIFF = 1e3


@dataclass(frozen=True, slots=True)
class FeederWeights:
    """Weights of the cost, per (100 kVA)^2, per (0.01 pu^2)^2 and per (whole battery)^2."""

    reactive: float = 1.0
    throughput: float = 3.0
    ramp: float = 0.3
    voltage: float = 200.0
    soc: float = 0.05

    def __post_init__(self) -> None:
        for name in ("reactive", "throughput", "ramp", "voltage", "soc"):
            value = getattr(self, name)
            ok = isinstance(value, (int, float)) and np.isfinite(value) and value >= 0.0
            if not ok or (value == 0.0 and name in ("reactive", "throughput", "voltage")):
                raise ControllerError(
                    f"weight '{name}' is {value!r}", expected="a number > 0 (ramp, soc: >= 0)"
                )


@dataclass(frozen=True, slots=True)
class Penalties:
    """Step sizes of the splitting: voltage rows, inputs, energy, coupling v, coupling P and Q."""

    voltage: float = 0.3
    inputs: float = 1.0
    energy: float = 10.0
    couple_v: float = 0.3
    couple_s: float = 1.0


@dataclass(frozen=True, eq=False)
class Layout:
    """Where things are in a cluster's unknowns, bounded rows and parameters.

    Attributes
    ----------
    units : Inputs per step: DERs (q), then batteries (p).
    batteries : (b,). Positions among the cluster's DERs.
    v_rows, u_rows, e_rows : slice
        Bounded rows: voltages step by step, inputs step by step, energies step by step.
    t_v, t_up, t_u, t_down, t_pv, t_load, t_soc : slice
        Parameters: measured v of `labels`, of the three nodes above [0.01 pu^2]; present inputs;
        present P (3) and Q (3) of each cluster below; change of each DER's uncontrolled power per
        step [100 kW]; change of the load factor per step; energy as a share; then 1.
    """

    units: int
    batteries: IntArray
    v_rows: slice
    u_rows: slice
    e_rows: slice
    t_v: slice
    t_up: slice
    t_u: slice
    t_down: slice
    t_pv: slice
    t_load: slice
    t_soc: slice
    parameters: int


@dataclass(frozen=True, eq=False)
class FeederProblem:
    """All clusters' problems.

    `twin` (C, rows) is where in the flattened coupling rows a row's counterpart is;
    `boundary_rows` maps (cluster, boundary) to its first coupling row.
    """

    network: FeederNetwork
    horizon: int
    layouts: tuple[Layout, ...]
    parts: tuple[SplitPart, ...]
    twin: IntArray
    boundary_rows: dict[tuple[int, int], int]


def feeder_problem(
    site: ControlSite,
    network: FeederNetwork,
    horizon: int,
    step_h: float,
    weights: FeederWeights,
    penalties: Penalties | None = None,
    soc_target: float = 0.5,
) -> FeederProblem:
    """Build the problems of all clusters of a feeder."""
    layouts, parts = [], []
    for cluster in network.clusters:
        layout = _layout(site, cluster, horizon)
        layouts.append(layout)
        parts.append(
            _part(
                site,
                cluster,
                layout,
                horizon,
                step_h,
                weights,
                penalties or Penalties(),
                soc_target,
                _tops(network, cluster),
            )
        )
    rows = max(1, *(len(p.s) for p in parts))
    block = BLOCKS * horizon
    first: dict[tuple[int, int], int] = {}
    for c, cluster in enumerate(network.clusters):
        ups = [cluster.up] if cluster.up >= 0 else []
        for j, boundary in enumerate([*ups, *cluster.downs]):
            first[c, boundary] = j * block
    twin = np.arange(len(parts) * rows).reshape(len(parts), rows)
    for i, edge in enumerate(network.boundaries):
        a, b = edge.parent, edge.child
        here, there = first[a, i] + np.arange(block), first[b, i] + np.arange(block)
        twin[a, here], twin[b, there] = b * rows + there, a * rows + here
    return FeederProblem(network, horizon, tuple(layouts), tuple(parts), twin, first)


def _layout(site: ControlSite, cluster: FeederCluster, n: int) -> Layout:
    batteries = np.array(
        [k for k, i in enumerate(cluster.ders) if site.ders[i].kind == "battery"], dtype=np.int64
    )
    d, b, m = len(cluster.ders), len(batteries), len(cluster.labels)
    nu, nd = d + b, 6 * len(cluster.downs)

    def slices(*sizes: int) -> list[slice]:
        ends = np.cumsum([0, *sizes]).tolist()
        return [slice(start, stop) for start, stop in itertools.pairwise(ends)]

    rows = slices(n * m, n * nu, n * b)
    thetas = slices(m, 3, nu, nd, n * d, n, b, 1)
    v_rows, u_rows, e_rows = rows
    t_v, t_up, t_u, t_down, t_pv, t_load, t_soc, one = thetas
    return Layout(
        nu, batteries, v_rows, u_rows, e_rows, t_v, t_up, t_u, t_down, t_pv, t_load, t_soc, one.stop
    )


class _Maps:
    """Affine maps (z part, theta part) of quantities at step k of one cluster."""

    def __init__(self, cluster: FeederCluster, layout: Layout, n: int) -> None:
        self.cluster, self.layout, self.n = cluster, layout, n
        self.d, self.nd = len(cluster.ders), len(cluster.downs)
        self.up_copies = 3 if cluster.up >= 0 else 0
        self.size = n * (layout.units + self.up_copies + 6 * self.nd)

    def u(self, k: int) -> slice:
        return slice(k * self.layout.units, (k + 1) * self.layout.units)

    def v_up(self, k: int) -> slice:
        start = self.n * self.layout.units + k * self.up_copies
        return slice(start, start + self.up_copies)

    def down(self, k: int) -> slice:
        start = self.n * (self.layout.units + self.up_copies) + k * 6 * self.nd
        return slice(start, start + 6 * self.nd)

    def voltage(self, k: int) -> tuple[FloatArray, FloatArray]:
        """Voltages of the labels at step k."""
        c, lay, d = self.cluster, self.layout, self.d
        to_u = np.hstack([c.x, c.r[:, lay.batteries]])
        z = np.zeros((len(c.labels), self.size))
        t = np.zeros((len(c.labels), lay.parameters))
        z[:, self.u(k)] = to_u
        t[:, lay.t_v] = np.eye(len(c.labels))
        t[:, lay.t_u] = -to_u
        if self.up_copies:
            z[:, self.v_up(k)] = c.ratio
            t[:, lay.t_up] = -c.ratio
        if self.nd:
            to_down = _by_boundary(c.r_down, c.x_down, self.nd)
            z[:, self.down(k)] = to_down
            t[:, lay.t_down] = -to_down
        t[:, lay.t_pv.start + k * d : lay.t_pv.start + (k + 1) * d] = c.r
        t[:, lay.t_load.start + k] = c.load
        return z, t

    def power(self, k: int) -> tuple[FloatArray, FloatArray]:
        """P (3) and Q (3) that the cluster and those below inject into the node above."""
        c, lay, d = self.cluster, self.layout, self.d
        z, t = np.zeros((6, self.size)), np.zeros((6, lay.parameters))
        start = self.u(k).start
        z[3:, start : start + d] = c.share
        z[:3, start + d : start + lay.units] = c.share[:, lay.batteries]
        for j in range(self.nd):
            at = self.down(k).start + 6 * j
            z[:, at : at + 6] = np.eye(6)
        t[:3, lay.t_pv.start + k * d : lay.t_pv.start + (k + 1) * d] = c.share
        t[:3, lay.t_load.start + k] = c.load_kva.real
        t[3:, lay.t_load.start + k] = c.load_kva.imag
        return z, t


def _by_boundary(r: FloatArray, x: FloatArray, nd: int) -> FloatArray:
    """Return (n, 6 nd): for each boundary the response to P on three phases, then to Q."""
    parts = [m[:, 3 * j : 3 * j + 3] for j in range(nd) for m in (r, x)]
    return np.hstack(parts)


def _part(
    site: ControlSite,
    cluster: FeederCluster,
    layout: Layout,
    n: int,
    step_h: float,
    weights: FeederWeights,
    penalties: Penalties,
    soc_target: float,
    tops: list[list[tuple[int, int]]],
) -> SplitPart:
    maps = _Maps(cluster, layout, n)
    h = np.zeros((maps.size, maps.size))
    m = np.zeros((maps.size, layout.parameters))
    nu, d, nb = layout.units, maps.d, len(layout.batteries)
    weight = np.concatenate([np.full(d, weights.reactive), np.full(nb, weights.throughput)])
    step = np.eye(n * nu) - np.eye(n * nu, k=-nu)
    h[: n * nu, : n * nu] = 2.0 * (np.diag(np.tile(weight, n)) + weights.ramp * step.T @ step)
    m[:nu, layout.t_u] = -2.0 * weights.ramp * np.eye(nu)
    energy_z, energy_t = _energy(site, cluster, layout, maps, n, step_h)
    if nb:
        last_z, last_t = energy_z[-nb:], energy_t[-nb:].copy()
        last_t[:, -1] -= soc_target
        h += 2.0 * weights.soc * last_z.T @ last_z
        m += 2.0 * weights.soc * last_z.T @ last_t
    volts = [maps.voltage(k) for k in range(n)]
    unit_rows = np.eye(n * nu, maps.size)
    b = np.vstack([*(z for z, _ in volts), unit_rows, energy_z])
    b0 = np.vstack([*(t for _, t in volts), np.zeros((n * nu, layout.parameters)), energy_t])
    nv = n * len(cluster.labels)
    soft = np.concatenate(
        [np.full(nv, 2.0 * weights.voltage), np.full(n * nu, np.inf), np.full(n * nb, _STIFF)]
    )
    rho = np.concatenate(
        [
            np.full(nv, penalties.voltage),
            np.full(n * nu, penalties.inputs),
            np.full(n * nb, penalties.energy),
        ]
    )
    s, s0 = _coupling(cluster, maps, volts, tops)
    block = np.repeat([penalties.couple_v] * 3 + [penalties.couple_s] * 6, n)
    couple = np.tile(block, len(s) // (BLOCKS * n))
    return SplitPart(h, m, b, b0, s, s0, soft, rho, couple)


def _energy(
    site: ControlSite, cluster: FeederCluster, layout: Layout, maps: _Maps, n: int, step_h: float
) -> tuple[FloatArray, FloatArray]:
    """Energy of each battery after each step, as a share of its capacity."""
    nb, d = len(layout.batteries), maps.d
    z, t = np.zeros((n * nb, maps.size)), np.zeros((n * nb, layout.parameters))
    capacity = np.array([site.ders[cluster.ders[k]].energy_kwh for k in layout.batteries])
    drain = S_UNIT * step_h / np.maximum(capacity, 1e-9)
    for k in range(n):
        rows = slice(k * nb, (k + 1) * nb)
        t[rows, layout.t_soc] = np.eye(nb)
        for l in range(k + 1):  # noqa: E741 - steps up to k
            start = maps.u(l).start + d
            z[rows, start : start + nb] = -np.diag(drain)
    return z, t


def _coupling(
    cluster: FeederCluster,
    maps: _Maps,
    volts: list[tuple[FloatArray, FloatArray]],
    tops: list[list[tuple[int, int]]],
) -> tuple[FloatArray, FloatArray]:
    """Coupling rows: for the boundary above and for each below nine trajectories of N steps."""
    n, lay = maps.n, maps.layout
    count = (cluster.up >= 0) + maps.nd
    s = np.zeros((count, BLOCKS, n, maps.size))
    s0 = np.zeros((count, BLOCKS, n, lay.parameters))
    at = 0
    if cluster.up >= 0:
        for k in range(n):
            s[0, np.arange(3), k, np.arange(maps.v_up(k).start, maps.v_up(k).stop)] = 1.0
            s[0, 3:, k], s0[0, 3:, k] = maps.power(k)
        at = 1
    for j in range(maps.nd):
        for k in range(n):
            start = maps.down(k).start + 6 * j
            s[at + j, np.arange(3, 9), k, np.arange(start, start + 6)] = 1.0
            for phase, row in tops[j]:
                s[at + j, phase, k], s0[at + j, phase, k] = volts[k][0][row], volts[k][1][row]
    return s.reshape(-1, maps.size), s0.reshape(-1, lay.parameters)


def _tops(network: FeederNetwork, cluster: FeederCluster) -> list[list[tuple[int, int]]]:
    """Return (phase, row of `labels`) of the nodes each boundary below hangs on."""
    return [
        [
            (phase, cluster.labels.index(label))
            for phase, label in enumerate(network.boundaries[i].labels)
            if label is not None
        ]
        for i in cluster.downs
    ]
