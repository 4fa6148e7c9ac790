"""The clusters' predictive problems on a feeder: unknowns, weights, rows and parameters.

Unknowns of a cluster, per horizon step k = 1..N: q of every DER and p of every battery [100
kvar, 100 kW], a copy of the voltage above it, and copies of the P and Q of every cluster below.

    minimise  sum over k of  reactive |q|^2 + throughput |p|^2 + ramp |u[k] - u[k-1]|^2
              + soc (energy[N] - target)^2 + voltage (distance of each v to the band)^2
    subject to |q| <= headroom, p in its rating, energy in its limits (soft, stiff)

The band is a soft constraint, so no start is infeasible. Parameters are what is measured or known
when the plan is made; see `Layout`. Energy is predicted without losses and kept exactly by the
controller, which clamps the first step with the losses (`controllers.dmpc.feeder`). The operators
are built by `controllers.dmpc.dense_plan` for small clusters and by `controllers.dmpc.tree_plan`
for large ones.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, IntArray
from controllers.core.protocol import ControlSite
from controllers.dmpc.feeder_network import S_UNIT, FeederCluster, FeederNetwork

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

    Attributes
    ----------
    horizon, step_h : Steps of a plan, and the hours of one.
    soc_target : Share of a battery's energy at the end of a plan.
    layouts : Of each cluster.
    boundary_rows : (cluster, boundary) to its first coupling row.
    """

    site: ControlSite
    network: FeederNetwork
    horizon: int
    step_h: float
    soc_target: float
    weights: FeederWeights
    penalties: Penalties
    layouts: tuple[Layout, ...]
    boundary_rows: dict[tuple[int, int], int]

    def coupled(self, c: int) -> int:
        """Return the number of coupling rows of cluster `c`."""
        cluster = self.network.clusters[c]
        return BLOCKS * self.horizon * (len(cluster.downs) + (cluster.up >= 0))

    def drain(self, c: int) -> FloatArray:
        """Return the share of its energy that 100 kW takes from each battery in a step, (b,)."""
        ders = self.network.clusters[c].ders[self.layouts[c].batteries]
        capacity = np.array([self.site.ders[i].energy_kwh for i in ders])
        return np.asarray(S_UNIT * self.step_h / np.maximum(capacity, 1e-9))

    def row_weights(self, c: int) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return `soft`, `rho_bound` and `rho_couple` of `controllers.dmpc.splitting`."""
        n, lay, use = self.horizon, self.layouts[c], self.penalties
        nv, nb = n * len(self.network.clusters[c].labels), len(lay.batteries)
        counts = (nv, n * lay.units, n * nb)
        soft = np.repeat([2.0 * self.weights.voltage, np.inf, _STIFF], counts)
        rho = np.repeat([use.voltage, use.inputs, use.energy], counts)
        block = np.repeat([use.couple_v] * 3 + [use.couple_s] * 6, n)
        return soft, rho, np.tile(block, self.coupled(c) // (BLOCKS * n))

    def tops(self, c: int) -> list[list[tuple[int, int]]]:
        """Return (phase, row of `labels`) of the nodes each boundary below hangs on."""
        cluster = self.network.clusters[c]
        row = {label: i for i, label in enumerate(cluster.labels)}
        return [
            [
                (phase, row[label])
                for phase, label in enumerate(self.network.boundaries[i].labels)
                if label is not None
            ]
            for i in cluster.downs
        ]


def feeder_problem(
    site: ControlSite,
    network: FeederNetwork,
    horizon: int,
    step_h: float,
    weights: FeederWeights,
    soc_target: float = 0.5,
) -> FeederProblem:
    """Lay out the problems of all clusters of a feeder."""
    layouts = tuple(_layout(site, cluster, horizon) for cluster in network.clusters)
    first: dict[tuple[int, int], int] = {}
    for c, cluster in enumerate(network.clusters):
        ups = [cluster.up] if cluster.up >= 0 else []
        for j, boundary in enumerate([*ups, *cluster.downs]):
            first[c, boundary] = j * BLOCKS * horizon
    return FeederProblem(
        site, network, horizon, step_h, soc_target, weights, Penalties(), layouts, first
    )


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
