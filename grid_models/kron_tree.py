"""Kron reduction of large feeders, computed on the tree: relays, and X as tree sweeps.

Where agents stand at the ends of service lines only, nothing separates them on the way: the exact
reduction of `grid_models.kron` couples all with all. So here the reduction stops early. The
inverse of the whole tree's X is sparse; nodes without an agent are eliminated from it in the
order of their degree (minimum degree), until all that are left have more than `max_degree`
neighbours. Those stay as *relays*: points without an injection or a measurement, whose price some
agent has to keep. Y over agents and relays is exactly the inverse of X over them.

The tree's law (volts squared per kvar, see `lindistflow_linear` for the voltages V0)::

    v_c = F v_p + E q_c,    q_p = B q_c + injection,    E = 2e3 Im(conj(V0) Z / conj(V0))   (1)
    X = (I - F)^-1 E (I - B)^-1,    Y = (I - B) E^-1 (I - F)

with F = |T|^2, and B = 1 from child to parent: a turns ratio changes the voltage, not the power.

Where a transformer mixes phases (delta - wye), (1) has no such F; it is then chosen so that X is
right at the bus and between it and its parent, ``F = X_cp X_pp^-1`` and ``B = X_pp^-1 X_pc``;
between two such transformers' customers X is then approximate.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import SuperLU, splu

from grid_models.errors import GridModelError
from grid_models.lindistflow import LinDistFlow
from grid_models.lindistflow_edges import Complex, Real
from grid_models.lindistflow_network import Network

Index = NDArray[np.intp]

MAX_DEGREE = 16
"""Largest number of neighbours of a node without an agent that is eliminated."""

_PER_KVAR = 1e3
_IDEAL_SHARE = 1e-12
_IDEAL_DROP = 0.05
_COLUMNS_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class TreeSensitivity:
    """X between chosen nodes as an operator: two sweeps of the tree per product.

    Attributes
    ----------
    forward, backward : csr_array, (m, m)
        F and B of equation (1).
    block : csr_array, (m, m)
        E, block diagonal by bus.
    chosen : ndarray of int, (k,)
        The nodes that X relates.
    scale : ndarray of float, (k,)
        1 / base voltage squared [1/V^2].
    """

    forward: sparse.csr_array
    backward: sparse.csr_array
    block: sparse.csr_array
    chosen: Index
    scale: Real

    def times(self, q_kvar: Real) -> Real:
        """Return X q in pu, for q of shape (k,) or (k, c)."""
        return self._sweep(q_kvar, self._down, self.block, self._up)

    def times_abs(self, q_kvar: Real) -> Real:
        """Return an upper bound of |X| q for q >= 0: no terms of opposite sign cancel."""
        down, up = self._absolute
        return self._sweep(q_kvar, down, abs(self.block), up)

    def rows(self, which: Index) -> Real:
        """Return the rows `which` of X, (len(which), k)."""
        m = self.block.shape[0]
        unit = np.zeros((m, len(which)))
        unit[self.chosen[which], np.arange(len(which))] = self.scale[which]
        flow = self.block.T @ self._down.solve(unit, trans="T")
        return np.asarray(self._up.solve(np.asarray(flow), trans="T")[self.chosen].T)

    def dense(self) -> Real:
        """Return X as a matrix, (k, k)."""
        k = len(self.chosen)
        x = np.empty((k, k))
        for start in range(0, k, _COLUMNS_AT_ONCE):
            stop = min(start + _COLUMNS_AT_ONCE, k)
            part = np.zeros((k, stop - start))
            part[np.arange(start, stop), np.arange(stop - start)] = 1.0
            x[:, start:stop] = self.times(part)
        return x

    @cached_property
    def diagonal(self) -> Real:
        """The diagonal of X, (k,)."""
        # A node with one parent has F B times its parent's entry more than its own E.
        several = np.flatnonzero(np.diff(self.forward.indptr) > 1)
        own = np.array(self.block.diagonal())
        for start in range(0, len(several), _COLUMNS_AT_ONCE):
            part = several[start : start + _COLUMNS_AT_ONCE]
            unit = np.zeros((len(own), len(part)))
            unit[part, np.arange(len(part))] = 1.0
            column = self._down.solve(np.asarray(self.block @ self._up.solve(unit)))
            own[part] = column[part, np.arange(len(part))]
        one = np.ones(len(own))
        one[several] = 0.0
        both = sparse.diags_array(one) @ self.forward.multiply(self.backward.T)
        own = _unit_lu(sparse.csr_array(both)).solve(own)
        return np.asarray(own[self.chosen] * self.scale)

    def _sweep(self, q: Real, down: SuperLU, block: sparse.csr_array, up: SuperLU) -> Real:
        shape = (self.block.shape[0], *q.shape[1:])
        at_nodes = np.zeros(shape)
        at_nodes[self.chosen] = q
        v = down.solve(np.asarray(block @ up.solve(at_nodes)))[self.chosen]
        return np.asarray(v * (self.scale if q.ndim == 1 else self.scale[:, None]))

    @cached_property
    def _down(self) -> SuperLU:
        return _unit_lu(self.forward)

    @cached_property
    def _up(self) -> SuperLU:
        return _unit_lu(self.backward)

    @cached_property
    def _absolute(self) -> tuple[SuperLU, SuperLU]:
        return _unit_lu(abs(self.forward)), _unit_lu(abs(self.backward))


@dataclass(frozen=True, eq=False)
class TreeReduction:
    """Agents and relays of a large feeder.

    Attributes
    ----------
    agents : tuple of str
        Node labels of the agents, (k,).
    relays : tuple of str
        Labels of the nodes without an agent that stay, (r,).
    x : TreeSensitivity
        d(v^2)/dq in pu per kvar between agents and relays, in this order.
    y : csr_array, (k + r, k + r)
        inv(x), in kvar per pu.
    """

    agents: tuple[str, ...]
    relays: tuple[str, ...]
    x: TreeSensitivity
    y: sparse.csr_array


def tree_reduce(
    model: LinDistFlow,
    agents: Sequence[str],
    *,
    within_phase: bool = False,
    max_degree: int = MAX_DEGREE,
) -> TreeReduction:
    """Reduce a flat model to its agents and as many relays as keep Y sparse; O(nodes).

    Parameters
    ----------
    model : LinDistFlow
        A flat model (not linearised around an operating point).
    agents : sequence of str
        Node labels, each on an electrical node of its own.
    within_phase : bool
        Leave cross-phase terms out of X, except between the two legs of a secondary, which hang
        on one phase.
    max_degree : int
        Nodes without an agent and with more neighbours than this become relays.

    Raises
    ------
    GridModelError
        If two agents share an electrical node, or one sits where the voltage is fixed.
    FeederError
        If a label is no node of the model.
    """
    at = np.array([model.electrical_nodes(label)[0] for label in agents], dtype=np.intp)
    if len(set(at.tolist())) < len(at):
        raise GridModelError(
            "two agents share an electrical node",
            where=model.feeder.name,
            expected="one agent for each electrical node",
        )
    law = _tree_law(model, at, within_phase=within_phase)
    if (law.position[at] < 0).any():
        first = int(np.argmax(law.position[at] < 0))
        raise GridModelError(
            f"agent '{agents[first]}' sits where the voltage is fixed",
            where=model.feeder.name,
            expected="agents below the source and its merged switches",
        )
    kept = law.position[at]
    y, relays = _eliminate(law.inverse(), kept, max_degree)
    chosen = np.concatenate([kept, relays])
    base_v2 = model.network.base_v[law.nodes[chosen]] ** 2
    label_of = np.full(model.network.size, -1)
    label_of[model.network.node[::-1]] = np.arange(len(model.nodes))[::-1]
    return TreeReduction(
        agents=tuple(agents),
        relays=tuple(model.nodes[i] for i in label_of[law.nodes[relays]]),
        x=TreeSensitivity(law.forward, law.backward, law.block, chosen, 1.0 / base_v2),
        y=sparse.csr_array(y @ sparse.diags_array(base_v2)),
    )


@dataclass(frozen=True, eq=False)
class _TreeLaw:
    """Equation (1) on the nodes that matter: above an agent, not ideal, not stiff."""

    nodes: Index
    """Electrical nodes, in tree order."""
    position: Index
    """Position of each electrical node in `nodes`, -1 for others."""
    bus: Index
    forward: sparse.csr_array
    backward: sparse.csr_array
    block: sparse.csr_array

    def inverse(self) -> sparse.csr_array:
        """Return Y = (I - B) E^-1 (I - F)."""
        eye = sparse.eye_array(len(self.nodes), format="csr")
        middle = _block_inverse(self.block, self.bus)
        return sparse.csr_array((eye - self.backward) @ middle @ (eye - self.forward))


def _tree_law(model: LinDistFlow, at: Index, *, within_phase: bool) -> _TreeLaw:
    network = model.network
    v0 = _no_load_voltage(network)
    needed = _above(network.transfer, at)
    forward, backward, block = _law_of_simple_edges(network, v0)
    mixing = _mixing_buses(network, needed)
    if len(mixing):
        forward, backward, block = _with_mixing(network, v0, mixing, forward, backward, block)
    if within_phase:
        feeding = feeding_phase(model)
        forward, backward, block = (_same(feeding, part) for part in (forward, backward, block))
    drop = abs(block).sum(axis=1)
    ideal = (drop <= _IDEAL_SHARE * drop.max()) & ~network.stiff
    own = np.zeros(network.size, dtype=bool)
    own[at] = True
    # An agent behind an ideal element gets a service drop of its own, as in `kron_reduce`.
    if (ideal & own).any():
        block = _with_service_drops(forward, block, np.flatnonzero(ideal & own), network.stiff)
    left_out = needed & ideal & ~own
    written_by = _substitution(forward, left_out)
    drawn_by = _substitution(sparse.csr_array(backward.T), left_out)
    nodes = np.flatnonzero(needed & ~network.stiff & ~(ideal & ~own))
    position = np.full(network.size, -1, dtype=np.intp)
    position[nodes] = np.arange(len(nodes))
    return _TreeLaw(
        nodes,
        position,
        network.bus[nodes],
        sparse.csr_array((forward @ written_by)[nodes][:, nodes]),
        sparse.csr_array((drawn_by.T @ backward)[nodes][:, nodes]),
        sparse.csr_array(block[nodes][:, nodes]),
    )


def _no_load_voltage(network: Network) -> Complex:
    eye = sparse.eye_array(network.size, dtype=np.complex128)
    lower = splu(
        sparse.csc_array(eye - network.transfer), permc_spec="NATURAL", diag_pivot_thresh=0.0
    )
    return np.asarray(lower.solve(network.source_v))


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
    forward, backward, block = (part.tolil() for part in (forward, backward, block))
    z_bus: dict[int, Complex] = {}
    starts = np.searchsorted(network.bus, np.arange(int(network.bus[-1]) + 2))
    for b in mixing.tolist():
        c = np.arange(starts[b], starts[b + 1])
        p, z_p = _thevenin(network, starts, b, z_bus)
        t = network.transfer[c][:, p].toarray()
        z_c = network.impedance[c][:, c].toarray()
        x_pp, x_cp = _reactance(v0, p, p, z_p), _reactance(v0, c, p, t @ z_p)
        x_pc = _reactance(v0, p, c, z_p @ t.conj().T)
        x_cc = _reactance(v0, c, c, t @ z_p @ t.conj().T + z_c)
        above = np.linalg.pinv(x_pp, rcond=1e-9)
        down, up = x_cp @ above, above @ x_pc
        forward[np.ix_(c, p)] = down
        backward[np.ix_(p, c)] = up
        block[np.ix_(c, c)] = x_cc - x_cp @ up
    return tuple(sparse.csr_array(part) for part in (forward, backward, block))  # type: ignore[return-value]


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


def feeding_phase(model: LinDistFlow) -> Index:
    """Return for each electrical node the phase that feeds it, 0 in the single-phase model.

    Both legs of a centre-tapped secondary are fed by the phase that the transformer hangs on.
    """
    network = model.network
    phase = np.zeros(network.size, dtype=np.intp)
    if model.phases == "three":
        phase[network.node] = [int(label.rsplit(".", 1)[1]) for label in model.nodes]
        start, parent = network.transfer.indptr, network.transfer.indices
        for i in np.flatnonzero(np.diff(start) == 1):
            phase[i] = phase[parent[start[i]]]
    return phase


def _with_service_drops(
    forward: sparse.csr_array, block: sparse.csr_array, at: Index, stiff: NDArray[np.bool_]
) -> sparse.csr_array:
    level = _unit_lu(forward).solve(np.where(stiff, 0.0, block.diagonal()))
    drop = np.zeros(block.shape[0])
    drop[at] = _IDEAL_DROP * level[at]
    return sparse.csr_array(block + sparse.diags_array(drop))


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


def _block_inverse(block: sparse.csr_array, bus: Index) -> sparse.csr_array:
    """Invert a matrix that is block diagonal by bus; the nodes of a bus are consecutive."""
    size = len(bus)
    _, first, number, counts = np.unique(
        bus, return_index=True, return_inverse=True, return_counts=True
    )
    within = np.arange(size) - first[number]
    width = int(counts.max())
    dense = np.zeros((len(first), width, width))
    dense[:, np.arange(width), np.arange(width)] = 1.0  # padding of narrower buses
    dense[number, within, within] = 0.0
    entries = block.tocoo()
    np.add.at(dense, (number[entries.row], within[entries.row], within[entries.col]), entries.data)
    inverse = np.linalg.inv(dense)
    inside = np.arange(width) < counts[:, None]
    b, i, j = np.nonzero(inside[:, :, None] & inside[:, None, :])
    return sparse.csr_array((inverse[b, i, j], (first[b] + i, first[b] + j)), shape=block.shape)


def _eliminate(
    y: sparse.csr_array, kept: Index, max_degree: int
) -> tuple[sparse.csr_array, Index]:
    """Return the Schur complement of `y` on `kept` and the relays, and the relays.

    Nodes go in the order of their degree, so that a tree never fills in by more than it must.
    """
    entries = sparse.csr_array(y + 0.0 * y.T).tocoo()
    rows: list[dict[int, float]] = [{} for _ in range(y.shape[0])]
    for i, j, value in zip(
        entries.row.tolist(), entries.col.tolist(), entries.data.tolist(), strict=True
    ):
        rows[i][j] = value
    stays = np.zeros(y.shape[0], dtype=bool)
    stays[kept] = True
    queue = [(len(rows[i]) - 1, i) for i in np.flatnonzero(~stays).tolist()]
    heapq.heapify(queue)
    gone = np.zeros(y.shape[0], dtype=bool)
    while queue:
        degree, k = heapq.heappop(queue)
        if gone[k] or degree != len(rows[k]) - 1:
            continue
        if degree > max_degree:
            break
        gone[k] = True
        for i in _eliminate_node(rows, k):
            if not stays[i]:
                heapq.heappush(queue, (len(rows[i]) - 1, i))
    relays = np.flatnonzero(~stays & ~gone)
    order = np.concatenate([kept, relays])
    place = {int(node): at for at, node in enumerate(order)}
    triplets = [(place[i], place[j], x) for i in order.tolist() for j, x in rows[i].items()]
    row, col, value = zip(*triplets, strict=True)
    shape = (len(order), len(order))
    return sparse.csr_array((value, (row, col)), shape=shape), relays


def _eliminate_node(rows: list[dict[int, float]], k: int) -> list[int]:
    """Take node k out of the symmetric pattern `rows`; return its former neighbours."""
    own = rows[k]
    pivot = own.pop(k)
    around = list(own.items())
    for i, _ in around:
        row = rows[i]
        share = row.pop(k) / pivot
        for j, value in around:
            row[j] = row.get(j, 0.0) - share * value
    rows[k] = {}
    return [i for i, _ in around]


def _unit_lu(strictly_triangular: sparse.csr_array) -> SuperLU:
    """Factor I - F, which is triangular already: no fill, no pivoting."""
    eye = sparse.eye_array(strictly_triangular.shape[0])
    factor = sparse.csc_array(eye - strictly_triangular)
    return splu(factor, permc_spec="NATURAL", diag_pivot_thresh=0.0)
