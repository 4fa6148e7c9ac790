"""Operators of small clusters as dense matrices, in the form of `controllers.dmpc.splitting`.

What the path above a cluster adds to the responses is taken off with the ratio T, see
`controllers.dmpc.feeder_network`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controllers.core.mail import FloatArray
from controllers.dmpc.feeder_network import S_UNIT, V_UNIT, FeederCluster
from controllers.dmpc.feeder_problem import BLOCKS, FeederProblem, Layout
from controllers.dmpc.splitting import SplitPart
from grid_models.feeder.model import Der
from grid_models.linear.lindistflow import LinDistFlow

_SCALE = S_UNIT / V_UNIT


@dataclass(frozen=True, eq=False)
class DenseResponse:
    """Responses of a cluster with n labels and d DERs.

    Attributes
    ----------
    ratio : (n, 3). T: response to the voltage of the three nodes above.
    r, x : (n, d). Response to own injections, per 100 kW and 100 kvar.
    r_down, x_down : (n, 3 * len(downs)). The same for each phase of each boundary below.
    share : (3, d). Share of a DER's power on each phase.
    load : (n,). Response to all own nominal loads.
    load_kva : (3,). Own nominal loads by phase, as injection (negative), in 100 kVA.
    """

    ratio: FloatArray
    r: FloatArray
    x: FloatArray
    r_down: FloatArray
    x_down: FloatArray
    share: FloatArray
    load: FloatArray
    load_kva: np.ndarray[tuple[int, ...], np.dtype[np.complex128]]


def dense_response(problem: FeederProblem, c: int) -> DenseResponse:
    """Return the responses of cluster `c`."""
    site, network = problem.site, problem.network
    model, cluster = network.model, network.clusters[c]
    labels = cluster.labels
    own = [model.nodes[i] for i in cluster.nodes]
    nominal_p, nominal_q = model.nominal_injection()
    below = [x for i in cluster.downs for x in network.boundaries[i].labels]
    injections: list[str | Der] = [site.ders[i] for i in cluster.ders]
    columns: list[str | Der] = [*injections, *(x for x in below if x is not None), *own]
    above = () if cluster.up < 0 else network.boundaries[cluster.up].labels
    ratio = _ratio(model, labels, above)
    r, x = _local(model, labels, columns, above, ratio)
    d = len(injections)
    has = np.array([label is not None for label in below], dtype=bool)
    r_down, x_down = np.zeros((len(labels), len(below))), np.zeros((len(labels), len(below)))
    between = slice(d, d + int(has.sum()))
    r_down[:, has], x_down[:, has] = r[:, between], x[:, between]
    loads_at = slice(between.stop, None)
    load = r[:, loads_at] @ nominal_p[cluster.nodes] + x[:, loads_at] @ nominal_q[cluster.nodes]
    load_kva = np.zeros(3, dtype=np.complex128)
    phases = model.node_phase[cluster.nodes] - 1
    np.add.at(load_kva, phases, nominal_p[cluster.nodes] + 1j * nominal_q[cluster.nodes])
    return DenseResponse(
        ratio,
        r[:, :d],
        x[:, :d],
        r_down,
        x_down,
        _share(problem, c),
        load / S_UNIT,
        load_kva / S_UNIT,
    )


def _share(problem: FeederProblem, c: int) -> FloatArray:
    model, ders = problem.network.model, problem.network.clusters[c].ders
    share = np.zeros((3, len(ders)))
    for k, i in enumerate(ders):
        at = [model.index[label] for label in model.labels_of(problem.site.ders[i])]
        np.add.at(share[:, k], model.node_phase[at] - 1, 1.0 / len(at))
    return share


def _ratio(
    model: LinDistFlow, labels: tuple[str, ...], above: tuple[str | None, ...]
) -> FloatArray:
    """Return T (n, 3): squared tap ratio to the node above on the same phase."""
    ratio = np.zeros((len(labels), 3))
    phase_of = model.node_phase[[model.index[x] for x in labels]]
    for phase, top in enumerate(above):
        mine = np.flatnonzero(phase_of == phase + 1).tolist()
        if top is not None and mine:
            _, x = model.sensitivity([labels[i] for i in mine] + [top], [top])
            # At a stiff source no voltage changes, so any ratio will do.
            moves = x[-1, 0] > 1e-12
            ratio[mine, phase] = x[:-1, 0] / x[-1, 0] if moves else 1.0
    return ratio


def _local(
    model: LinDistFlow,
    labels: tuple[str, ...],
    columns: list[str | Der],
    above: tuple[str | None, ...],
    ratio: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Return (R, X) of the cluster alone: what the path above it adds is taken off."""
    if not labels or not columns:
        empty = np.zeros((len(labels), len(columns)))
        return empty, empty
    r, x = model.sensitivity(labels, columns)
    for phase, top in enumerate(above):
        if top is not None:
            r_top, x_top = model.sensitivity([top], columns)
            r = r - ratio[:, [phase]] * r_top
            x = x - ratio[:, [phase]] * x_top
    return _SCALE * r, _SCALE * x


class _Maps:
    """Affine maps (z part, theta part) of quantities at step k of one cluster."""

    def __init__(
        self, cluster: FeederCluster, response: DenseResponse, layout: Layout, n: int
    ) -> None:
        self.cluster, self.response, self.layout, self.n = cluster, response, layout, n
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
        c, lay, d = self.response, self.layout, self.d
        to_u = np.hstack([c.x, c.r[:, lay.batteries]])
        z = np.zeros((len(c.load), self.size))
        t = np.zeros((len(c.load), lay.parameters))
        z[:, self.u(k)] = to_u
        t[:, lay.t_v] = np.eye(len(c.load))
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
        c, lay, d = self.response, self.layout, self.d
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


def dense_part(problem: FeederProblem, c: int) -> SplitPart:
    """Return the problem of cluster `c`."""
    cluster, layout, n = problem.network.clusters[c], problem.layouts[c], problem.horizon
    weights = problem.weights
    maps = _Maps(cluster, dense_response(problem, c), layout, n)
    h = np.zeros((maps.size, maps.size))
    m = np.zeros((maps.size, layout.parameters))
    nu, d, nb = layout.units, maps.d, len(layout.batteries)
    weight = np.concatenate([np.full(d, weights.reactive), np.full(nb, weights.throughput)])
    step = np.eye(n * nu) - np.eye(n * nu, k=-nu)
    h[: n * nu, : n * nu] = 2.0 * (np.diag(np.tile(weight, n)) + weights.ramp * step.T @ step)
    m[:nu, layout.t_u] = -2.0 * weights.ramp * np.eye(nu)
    energy_z, energy_t = _energy(problem.drain(c), layout, maps)
    if nb:
        last_z, last_t = energy_z[-nb:], energy_t[-nb:].copy()
        last_t[:, -1] -= problem.soc_target
        h += 2.0 * weights.soc * last_z.T @ last_z
        m += 2.0 * weights.soc * last_z.T @ last_t
    volts = [maps.voltage(k) for k in range(n)]
    unit_rows = np.eye(n * nu, maps.size)
    b = np.vstack([*(z for z, _ in volts), unit_rows, energy_z])
    b0 = np.vstack([*(t for _, t in volts), np.zeros((n * nu, layout.parameters)), energy_t])
    s, s0 = _coupling(cluster, maps, volts, problem.tops(c))
    soft, rho, couple = problem.row_weights(c)
    return SplitPart(h, m, b, b0, s, s0, soft, rho, couple)


def dense_tail(part: SplitPart, problem: FeederProblem, c: int) -> FloatArray:
    """Return P (3) and Q (3) above from the inputs [100 kVA], (6, units); no row at the source."""
    units = problem.layouts[c].units
    if problem.network.clusters[c].up < 0:
        return np.zeros((0, units))
    above = part.s.reshape(-1, BLOCKS, problem.horizon, part.s.shape[1])[0, 3:, 0]
    return np.ascontiguousarray(above[:, :units])


def _energy(drain: FloatArray, layout: Layout, maps: _Maps) -> tuple[FloatArray, FloatArray]:
    """Energy of each battery after each step, as a share of its capacity."""
    nb, d, n = len(drain), maps.d, maps.n
    z, t = np.zeros((n * nb, maps.size)), np.zeros((n * nb, layout.parameters))
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
