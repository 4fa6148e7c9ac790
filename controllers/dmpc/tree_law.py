"""The linear law of one cluster as sparse matrices: memory and time grow with its nodes.

In pu and 100 kVA, with the no-load voltages V0 of `grid_models.linear.linearisation`, J the
currents into the nodes from above and W the changes of voltage:

    J = T^H J + conj(s / V0),    W = T W + Z J,    v = 2 Re(conj(V0) W)

The nodes are those of the cluster's own buses and of the node it hangs on, where W is given. A
voltage above moves along its no-load phasor; for lines, regulators and wye-wye transformers this
is exact. Powers above follow from J, so a secondary's second leg and a delta count on the phases
that feed them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import SuperLU, splu

from controllers.core.mail import FloatArray, IntArray
from controllers.core.protocol import ControlSite
from controllers.dmpc.feeder_network import PHASES, S_UNIT, V_UNIT, FeederCluster, FeederNetwork

_VA = 1e3 * S_UNIT


@dataclass(frozen=True, eq=False)
class ClusterTreeLaw:
    """The law of a cluster with e nodes, d DERs, n labels and b boundaries below.

    A complex vector of the nodes is written as a real one, (2 e,): real, then imaginary parts.

    Attributes
    ----------
    inject_p, inject_q : (2 e, d). Currents of each DER's P and Q.
    inject_down : (2 e, 6 b). Currents of P (3), then Q (3), of each boundary below.
    inject_load : (2 e,). Currents of all own nominal loads.
    flow, drop, lift : (2 e, 2 e). ``flow J = injected`` and ``lift W = drop J + above v``.
    above : (2 e, 3). Along the phasors of the three nodes above, from their v; none at the source.
    watch : (n, 2 e). v of the labels from W.
    ratio : (n, 3). v of the labels from v of the three nodes above; (n, 0) at the source.
    give : (6, 2 e). P (3) and Q (3) that the cluster injects above, from J; no row at the source.
    """

    inject_p: sparse.csr_array
    inject_q: sparse.csr_array
    inject_down: sparse.csr_array
    inject_load: FloatArray
    flow: sparse.csr_array
    drop: sparse.csr_array
    lift: sparse.csr_array
    above: sparse.csr_array
    watch: sparse.csr_array
    ratio: FloatArray
    give: sparse.csr_array

    def sweeps(self) -> SuperLU:
        """Return the factors of both sweeps: right sides (injected, 0), solutions (J, W)."""
        rows: list[list[Any]] = [[self.flow, None], [-self.drop, self.lift]]
        both = sparse.block_array(rows)
        return splu(sparse.csc_array(both))


def cluster_tree_law(site: ControlSite, network: FeederNetwork, c: int) -> ClusterTreeLaw:
    """Return the law of cluster `c`."""
    model, cluster = network.model, network.clusters[c]
    grid = model.network
    tops = () if cluster.up < 0 else network.boundaries[cluster.up].labels
    top = {p: _node(network, x) for p, x in enumerate(tops) if x is not None}
    own = np.unique(np.concatenate([grid.node[cluster.nodes], [*top.values()]]).astype(np.intp))
    at = np.full(grid.size, -1, dtype=np.int64)
    at[own] = np.arange(len(own))
    hung_on = {phase: int(at[node]) for phase, node in top.items()}
    v0 = grid.no_load_v[own] / grid.base_v[own]
    free = np.ones(len(own))
    free[[*hung_on.values()]] = 0.0  # what lies above acts by its given voltage alone
    base, per_base = (
        sparse.diags_array(grid.base_v[own]),
        sparse.diags_array(free / grid.base_v[own]),
    )
    t = per_base @ grid.transfer[own][:, own] @ base
    z = per_base @ grid.impedance[own][:, own] @ sparse.diags_array(_VA / grid.base_v[own])
    eye = sparse.eye_array(len(own))
    current = sparse.diags_array(1.0 / np.conj(v0))
    shares = _shares([at[[*model.electrical_nodes(site.ders[i])]] for i in cluster.ders], len(own))
    below = [x for i in cluster.downs for x in network.boundaries[i].labels]
    hung = _shares([at[[] if x is None else [_node(network, x)]] for x in below], len(own))
    p, q = model.nominal_injection()
    load = np.zeros(len(own), dtype=np.complex128)
    np.add.at(load, at[grid.node[cluster.nodes]], (p - 1j * q)[cluster.nodes] / S_UNIT)
    lift = _of_complex(eye - t)
    above = _above(hung_on, v0, len(PHASES) if cluster.up >= 0 else 0)
    watch = _watch(at[[_node(network, x) for x in cluster.labels]], v0)
    return ClusterTreeLaw(
        inject_p=_stacked(current @ shares),
        inject_q=_stacked(-1j * (current @ shares)),
        inject_down=_by_boundary(current @ hung),
        inject_load=_stacked(sparse.csr_array((load / np.conj(v0))[:, None])).toarray()[:, 0],
        flow=_of_complex(eye - t.conj().T),
        drop=_of_complex(z),
        lift=lift,
        above=above,
        watch=watch,
        ratio=np.asarray(watch @ splu(sparse.csc_array(lift)).solve(above.toarray())),
        give=_given(hung_on, v0, cluster),
    )


def _node(network: FeederNetwork, label: str) -> int:
    return int(network.model.network.node[network.model.index[label]])


def _shares(nodes: Sequence[IntArray], size: int) -> sparse.csr_array:
    """Return the (size, len(nodes)) matrix of equal shares."""
    counts = np.array([len(group) for group in nodes], dtype=np.int64)
    rows = np.concatenate([np.zeros(0, np.int64), *nodes])
    cols = np.repeat(np.arange(len(nodes)), counts)
    values = np.repeat(1.0 / np.maximum(counts, 1), counts)
    return sparse.csr_array((values, (rows, cols)), shape=(size, len(nodes)))


def _stacked(m: Any) -> sparse.csr_array:
    """Return the real form (2 e, k) of complex columns."""
    return sparse.csr_array(sparse.vstack([m.real, m.imag]))


def _of_complex(m: Any) -> sparse.csr_array:
    """Return the real form (2 e, 2 e) of a complex matrix."""
    m = sparse.csr_array(m)
    return sparse.csr_array(sparse.block_array([[m.real, -m.imag], [m.imag, m.real]]))


def _by_boundary(current: sparse.csr_array) -> sparse.csr_array:
    """Return (2 e, 6 b) from the complex currents of one P on each phase below, (e, 3 b)."""
    count = current.shape[1]
    both = sparse.csc_array(sparse.hstack([_stacked(current), _stacked(-1j * current)]))
    order = np.arange(2 * count).reshape(2, -1, 3).transpose(1, 0, 2).ravel()
    return sparse.csr_array(both[:, order])


def _watch(nodes: IntArray, v0: NDArray[np.complex128]) -> sparse.csr_array:
    rows, size = np.arange(len(nodes)), len(v0)
    values = 2.0 / V_UNIT * np.concatenate([v0.real[nodes], v0.imag[nodes]])
    place = (np.tile(rows, 2), np.concatenate([nodes, size + nodes]))
    return sparse.csr_array((values, place), shape=(len(nodes), 2 * size))


def _above(top: dict[int, int], v0: NDArray[np.complex128], phases: int) -> sparse.csr_array:
    above = sparse.lil_array((2 * len(v0), phases))
    for phase, node in top.items():
        along = V_UNIT * v0[node] / (2.0 * abs(v0[node]) ** 2)
        above[node, phase], above[len(v0) + node, phase] = along.real, along.imag
    return sparse.csr_array(above)


def _given(
    top: dict[int, int], v0: NDArray[np.complex128], cluster: FeederCluster
) -> sparse.csr_array:
    """Return P + jQ = V0 conj(J) at the nodes above, as real rows."""
    give = sparse.lil_array((6 if cluster.up >= 0 else 0, 2 * len(v0)))
    for phase, node in top.items():
        v, imag = v0[node], len(v0) + node
        give[phase, node], give[phase, imag] = v.real, v.imag
        give[3 + phase, node], give[3 + phase, imag] = v.imag, -v.real
    return sparse.csr_array(give)
