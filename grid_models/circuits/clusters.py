"""A circuit cut into clusters that reproduce it exactly.

A cluster keeps its own buses, the lines between them and a duplicate of each boundary line. The
voltage at the far end of a boundary line is a *copy*, an input of the cluster. With the true
far-end voltages at the start and the end of each step the clusters' trajectories are those of the
whole circuit, because the trapezoidal rule uses nothing else of the neighbour.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from grid_models.circuits.dynamics import SLACK, Array, Index, RlcCircuit, check_step, descriptor
from grid_models.feeder.clusters import Clusters


@dataclass(frozen=True, eq=False)
class ClusterModel:
    """One cluster in discrete time.

    ``x[k+1] = a x + b u + d w + s + g (copy[k] + copy[k+1])``

    Attributes
    ----------
    lines, buses, inverters : Positions in the circuit of the cluster's lines (own and boundary),
        buses and inverters; the state is (line currents, bus voltages) in this order.
    line_share : float (lines,)
        1 for an own line, 1/2 for a boundary line: its part of a cost both ends count.
    boundary_line : (k,). Position in the circuit of each boundary line.
    near_bus : (k,). Position in `buses` of the boundary line's own end.
    far_bus : (k,). Position in the circuit of its far end, whose voltage is copied.
    neighbour : (k,). Cluster at the far end.
    a, b, d, s, g : Dense matrices of the recursion; `d` (n_x, own buses) holds the sign of a load.
    """

    name: str
    lines: Index
    buses: Index
    inverters: Index
    line_share: Array
    boundary_line: Index
    near_bus: Index
    far_bus: Index
    neighbour: tuple[int, ...]
    a: Array
    b: Array
    d: Array
    s: Array
    g: Array

    @property
    def states(self) -> int:
        """Number of states."""
        return len(self.lines) + len(self.buses)

    def state_of(self, x: Array, n_lines: int) -> Array:
        """Return the cluster's part of the circuit's state (..., n_x)."""
        return np.concatenate([x[..., self.lines], x[..., n_lines + self.buses]], axis=-1)

    def copies_of(self, x: Array, n_lines: int) -> Array:
        """Return the far-end voltages in the circuit's state (..., n_x), shape (..., k)."""
        return np.asarray(x[..., n_lines + self.far_bus])

    def step(self, x: Array, u: Array, w: Array, copy_now: Array, copy_next: Array) -> Array:
        """Return the state after one step; `w` (own buses,), copies (k,)."""
        result: Array = (
            self.a @ x + self.b @ u + self.d @ w + self.s + self.g @ (copy_now + copy_next)
        )
        return result


def cluster_models(
    circuit: RlcCircuit, clusters: Clusters, step_s: float
) -> tuple[ClusterModel, ...]:
    """Cut a circuit into the models of its clusters.

    `clusters`: Of the circuit's buses; see `grid_models.feeder.clusters`.
    """
    check_step(step_s)
    member = clusters.member
    ends = np.stack([circuit.line_from, circuit.line_to])
    # The slack is in no cluster: a line from it is an own line of its other end.
    side = np.where(ends == SLACK, -1, member[np.maximum(ends, 0)])
    return tuple(
        _cluster_model(circuit, clusters, c, ends, side, step_s) for c in range(len(clusters.names))
    )


def _cluster_model(
    circuit: RlcCircuit, clusters: Clusters, c: int, ends: Index, side: Index, step_s: float
) -> ClusterModel:
    m = circuit.n_lines
    whole = descriptor(circuit)
    buses = np.flatnonzero(clusters.member == c)
    touches = (side == c).any(axis=0)
    lines = np.flatnonzero(touches)
    crossing = touches & ((side >= 0) & (side != c)).any(axis=0)
    boundary = np.flatnonzero(crossing)
    far_end = (side[1, boundary] != c).astype(np.intp)
    far = ends[far_end, boundary]
    near = ends[1 - far_end, boundary]
    inverters = np.flatnonzero(np.isin(circuit.inverter_bus, buses))
    keep = np.concatenate([lines, m + buses])
    f = sparse.csc_array(whole.f[keep][:, keep])
    e = sparse.diags_array(whole.e[keep])
    lu = splu(sparse.csc_array(e - 0.5 * step_s * f))
    from_copy = whole.f[keep][:, m + far].toarray()
    # A column also holds the other lines that end at that bus; only its own line counts.
    own_row = np.searchsorted(lines, boundary)
    only = np.zeros_like(from_copy)
    only[own_row, np.arange(len(boundary))] = from_copy[own_row, np.arange(len(boundary))]
    share = np.where(crossing[lines], 0.5, 1.0)
    return ClusterModel(
        name=clusters.names[c],
        lines=lines,
        buses=buses,
        inverters=inverters,
        line_share=share,
        boundary_line=boundary,
        near_bus=np.searchsorted(buses, near),
        far_bus=far,
        neighbour=tuple(int(i) for i in clusters.member[far]),
        a=lu.solve((e + 0.5 * step_s * f).toarray()),
        b=lu.solve(step_s * whole.b[keep][:, inverters].toarray()),
        d=lu.solve(-step_s * whole.d[keep][:, buses].toarray()),
        s=lu.solve(step_s * whole.s[keep]),
        g=lu.solve(0.5 * step_s * only),
    )
