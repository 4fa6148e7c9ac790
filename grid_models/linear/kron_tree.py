"""Kron reduction of large feeders on the tree: relays, and X as two sweeps of the tree.

Where agents sit only at the ends of service lines, the exact reduction of `grid_models.linear.kron`
couples every agent with every other. Here the reduction stops early: nodes without an agent are
eliminated from the sparse inverse of the whole tree's X in the order of their degree, until all
that are left have more than `max_degree` neighbours. Those stay as *relays*, nodes without
injection or measurement whose price an agent keeps. Y over agents and relays is exactly the inverse
of X over them.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import SuperLU

from grid_models.base.errors import GridModelError
from grid_models.linear.edges import Real
from grid_models.linear.kron_tree_law import tree_law
from grid_models.linear.lindistflow import LinDistFlow
from grid_models.linear.tree_algebra import Index, unit_lu

MAX_DEGREE = 24
"""Largest number of neighbours of a node without an agent that is eliminated."""

_COLUMNS_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class TreeSensitivity:
    """X between chosen nodes as an operator: two sweeps of the tree per product.

    Attributes
    ----------
    forward, backward : (m, m). F and B of `grid_models.linear.kron_tree_law`.
    block : (m, m). E, block diagonal by bus.
    chosen : (k,). The nodes that X relates.
    scale : (k,). 1 / base voltage squared [1/V^2].
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
        down, up = (unit_lu(sparse.csr_array(m.T)) for m in (self.forward, self.backward))
        flow = sparse.csr_array(self.block.T) @ down.solve(unit)
        return np.asarray(up.solve(np.asarray(flow))[self.chosen].T)

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
        own = unit_lu(sparse.csr_array(both)).solve(own)
        return np.asarray(own[self.chosen] * self.scale)

    def _sweep(self, q: Real, down: SuperLU, block: sparse.csr_array, up: SuperLU) -> Real:
        shape = (self.block.shape[0], *q.shape[1:])
        at_nodes = np.zeros(shape)
        at_nodes[self.chosen] = q
        v = down.solve(np.asarray(block @ up.solve(at_nodes)))[self.chosen]
        return np.asarray(v * (self.scale if q.ndim == 1 else self.scale[:, None]))

    @cached_property
    def _down(self) -> SuperLU:
        return unit_lu(self.forward)

    @cached_property
    def _up(self) -> SuperLU:
        return unit_lu(self.backward)

    @cached_property
    def _absolute(self) -> tuple[SuperLU, SuperLU]:
        return unit_lu(abs(self.forward)), unit_lu(abs(self.backward))


@dataclass(frozen=True, eq=False)
class TreeReduction:
    """Agents and relays of a large feeder.

    Attributes
    ----------
    agents : Node labels of the agents, (k,).
    relays : Labels of the nodes without an agent that stay, (r,).
    x : d(v^2)/dq in pu per kvar between agents and relays, in this order.
    y : (k + r, k + r). inv(x), in kvar per pu.
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
    model : Its flat law is taken, whatever it is linearised around.
    agents : Node labels, each on an electrical node of its own.
    within_phase : Leave cross-phase terms out of X, except between the two legs of a secondary,
        which hang on one phase.
    max_degree : Nodes without an agent and with more neighbours than this become relays.

    Raises GridModelError: If two agents share an electrical node, or one sits where the voltage is
    fixed.
    Raises FeederError: If a label is no node of the model.
    """
    at = np.array([model.electrical_nodes(label)[0] for label in agents], dtype=np.intp)
    if len(set(at.tolist())) < len(at):
        raise GridModelError(
            "two agents share an electrical node",
            where=model.feeder.name,
            expected="one agent for each electrical node",
        )
    law = tree_law(model, at, within_phase=within_phase)
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


def _eliminate(y: sparse.csr_array, kept: Index, max_degree: int) -> tuple[sparse.csr_array, Index]:
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
