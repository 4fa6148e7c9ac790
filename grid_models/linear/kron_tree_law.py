"""The linear law of a feeder's tree in real numbers, edge by edge; X and its inverse follow from
it.

In volts squared per kvar, with the no-load voltages V0 of `grid_models.linear.linearisation`::

    v_c = F v_p + E q_c,    q_p = B q_c + injection,    E = 2e3 Im(conj(V0) Z / conj(V0))   (1)
    X = (I - F)^-1 E (I - B)^-1,    Y = (I - B) E^-1 (I - F)

with F = |T|^2, and B = 1 from child to parent: a turns ratio changes the voltage, not the power.

A transformer that mixes phases (delta - wye) has no such F. There F and B are chosen so that X is
exact at its bus and between the bus and its parent, ``F = X_cp X_pp^-1`` and ``B = X_pp^-1 X_pc``;
between customers of two such transformers X is approximate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from grid_models.base.errors import GridModelError
from grid_models.linear.edges import Complex, Real
from grid_models.linear.lindistflow import LinDistFlow
from grid_models.linear.network import Network, Triplets
from grid_models.linear.tree_algebra import Index, block_inverse, unit_lu

_PER_KVAR = 1e3
# Below this share of the largest drop an element is ideal.
_IDEAL_SHARE = 1e-12
# Own reactance of an agent behind an ideal element, as a share of the reactance above it.
_IDEAL_DROP = 0.05
# Below this share of the largest reactance to the source there is none.
_FIXED_SHARE = 1e-9
_RANK_SHARE = 1e-9


@dataclass(frozen=True, eq=False)
class TreeLaw:
    """Equation (1) on the nodes that matter: above an agent, not ideal, not stiff; m nodes.

    Attributes
    ----------
    nodes : (m,). Electrical nodes, in tree order.
    position : Position of each electrical node in `nodes`, -1 for others.
    bus : (m,). The nodes' electrical buses.
    forward, backward, block : (m, m). F, B and E.
    """

    nodes: Index
    position: Index
    bus: Index
    forward: sparse.csr_array
    backward: sparse.csr_array
    block: sparse.csr_array

    def inverse(self) -> sparse.csr_array:
        """Return Y = (I - B) E^-1 (I - F)."""
        eye = sparse.eye_array(len(self.nodes), format="csr")
        try:
            middle = block_inverse(self.block, self.bus)
        except np.linalg.LinAlgError:
            raise GridModelError(
                "an agent has no reactance between itself and the source",
                where="Kron reduction",
                expected="agents behind some reactance",
            ) from None
        return sparse.csr_array((eye - self.backward) @ middle @ (eye - self.forward))


def tree_law(model: LinDistFlow, at: Index, *, within_phase: bool) -> TreeLaw:
    """Return the flat law of the tree above the electrical nodes `at`.

    With `within_phase`, terms between nodes that different phases feed are left out.
    """
    network = model.network
    v0 = network.no_load_v
    needed = _above(network.transfer, at)
    forward, backward, block = _law_of_simple_edges(network, v0)
    mixing = _mixing_buses(network, needed)
    if len(mixing):
        forward, backward, block = _with_mixing(network, v0, mixing, forward, backward, block)
    if within_phase:
        feeding = model.feeding_phase
        forward, backward, block = (_same(feeding, part) for part in (forward, backward, block))
    # Reactance to the source; a node without any has a fixed voltage, whatever ratio it is behind.
    loss_free = sparse.csr_array(abs(forward.multiply(backward.T)))
    level = unit_lu(loss_free).solve(abs(block.diagonal()))
    level /= network.base_v**2
    fixed = network.stiff | (level <= _FIXED_SHARE * level.max())
    drop = abs(block).sum(axis=1)
    ideal = (drop <= _IDEAL_SHARE * drop.max()) & ~fixed
    own = np.zeros(network.size, dtype=bool)
    own[at] = True
    # An agent behind an ideal element gets a service drop of its own, as in `kron_reduce`.
    added = np.where(ideal & own, _IDEAL_DROP * level * network.base_v**2, 0.0)
    block = sparse.csr_array(block + sparse.diags_array(added))
    left_out = needed & ideal & ~own
    written_by = _substitution(forward, left_out)
    drawn_by = _substitution(sparse.csr_array(backward.T), left_out)
    nodes = np.flatnonzero(needed & ~fixed & ~left_out)
    position = np.full(network.size, -1, dtype=np.intp)
    position[nodes] = np.arange(len(nodes))
    return TreeLaw(
        nodes,
        position,
        network.bus[nodes],
        sparse.csr_array((forward @ written_by)[nodes][:, nodes]),
        sparse.csr_array((drawn_by.T @ backward)[nodes][:, nodes]),
        sparse.csr_array(block[nodes][:, nodes]),
    )


def _above(transfer: sparse.csr_array, at: Index) -> NDArray[np.bool_]:
    """Say which nodes carry the current of an agent: itself and all above it."""
    needed = np.zeros(transfer.shape[0], dtype=bool)
    needed[at] = True
    start, parent = transfer.indptr, transfer.indices
    for i in range(len(needed) - 1, -1, -1):
        if needed[i]:
            needed[parent[start[i] : start[i + 1]]] = True
    return needed


def _law_of_simple_edges(
    network: Network, v0: Complex
) -> tuple[sparse.csr_array, sparse.csr_array, sparse.csr_array]:
    forward = sparse.csr_array(abs(network.transfer).power(2))
    backward = sparse.csr_array((forward > 0).astype(np.float64).T)
    z = network.impedance.tocoo()
    ohm = 2.0 * _PER_KVAR * np.imag(np.conj(v0[z.row]) * z.data / np.conj(v0[z.col]))
    block = sparse.csr_array((ohm, (z.row, z.col)), shape=z.shape)
    return forward, backward, block


def _mixing_buses(network: Network, needed: NDArray[np.bool_]) -> Index:
    """Return the buses below an element that makes one voltage of several."""
    several = (np.diff(network.transfer.indptr) > 1) & needed
    return np.unique(network.bus[several])


def _with_mixing(
    network: Network,
    v0: Complex,
    mixing: Index,
    forward: sparse.csr_array,
    backward: sparse.csr_array,
    block: sparse.csr_array,
) -> tuple[sparse.csr_array, sparse.csr_array, sparse.csr_array]:
    """Return the law with F, B and E of the mixing buses from X at them and their parents."""
    starts = np.searchsorted(network.bus, np.arange(int(network.bus[-1]) + 2))
    simple = sparse.diags_array((~np.isin(network.bus, mixing)).astype(np.float64))
    z_bus: dict[int, Complex] = {}
    own_f, own_b, own_e = Triplets(), Triplets(), Triplets()
    for b in mixing.tolist():
        c = np.arange(starts[b], starts[b + 1])
        p, z_p = _thevenin(network, starts, b, z_bus)
        t = network.transfer[c][:, p].toarray()
        z_c = network.impedance[c][:, c].toarray()
        x_cp, x_pc = _reactance(v0, c, p, t @ z_p), _reactance(v0, p, c, z_p @ t.conj().T)
        x_cc = _reactance(v0, c, c, t @ z_p @ t.conj().T + z_c)
        above = np.linalg.pinv(_reactance(v0, p, p, z_p), rcond=_RANK_SHARE)
        into, up = c.tolist(), p.tolist()
        own_f.add(into, up, x_cp @ above)
        own_b.add(up, into, above @ x_pc)
        own_e.add(into, into, x_cc - x_cp @ above @ x_pc)
    m = network.size
    return (
        sparse.csr_array(simple @ forward + own_f.matrix(m).real),
        sparse.csr_array(backward @ simple + own_b.matrix(m).real),
        sparse.csr_array(simple @ block + own_e.matrix(m).real),
    )


def _thevenin(
    network: Network, starts: Index, bus: int, known: dict[int, Complex]
) -> tuple[Index, Complex]:
    """Return the nodes of the bus above `bus`, and the impedance to the source seen there."""
    way: list[int] = []
    b = bus
    while True:
        rows = slice(network.transfer.indptr[starts[b]], network.transfer.indptr[starts[b + 1]])
        parents = network.transfer.indices[rows]
        if not len(parents):
            break
        b = int(network.bus[parents[0]])
        way.append(b)
        if b in known:
            break
    for b in reversed(way):
        if b in known:
            continue
        c = np.arange(starts[b], starts[b + 1])
        z = network.impedance[c][:, c].toarray()
        upper = network.transfer[c]
        if upper.nnz:
            top = int(network.bus[upper.indices[0]])
            t = upper[:, starts[top] : starts[top + 1]].toarray()
            z = t @ known[top] @ t.conj().T + z
        known[b] = z
    parent = way[0]
    return np.arange(starts[parent], starts[parent + 1]), known[parent]


def _reactance(v0: Complex, rows: Index, cols: Index, z: Complex) -> Real:
    """Return d(|V|^2)/dq [V^2 per kvar] of the impedance z between nodes."""
    return np.asarray(
        2.0 * _PER_KVAR * np.imag(np.conj(v0[rows])[:, None] * z / np.conj(v0[cols])[None, :])
    )


def _same(label: Index, part: sparse.csr_array) -> sparse.csr_array:
    entries = part.tocoo()
    keep = label[entries.row] == label[entries.col]
    return sparse.csr_array(
        (entries.data[keep], (entries.row[keep], entries.col[keep])), shape=part.shape
    )


def _substitution(forward: sparse.csr_array, ideal: NDArray[np.bool_]) -> sparse.csr_array:
    """Return R with v = R v, where the nodes `ideal` are written by those above them."""
    keep = sparse.diags_array((~ideal).astype(np.float64))
    via = sparse.csr_array(sparse.diags_array(ideal.astype(np.float64)) @ forward)
    result, step = sparse.csr_array(keep), via
    while step.nnz:
        result = result + step @ keep
        step = sparse.csr_array(step @ via)
        step.eliminate_zeros()
    return sparse.csr_array(result)
