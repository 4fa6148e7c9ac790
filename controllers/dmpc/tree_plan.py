"""Operators of large clusters as one sparse factorisation each: linear in nodes, DERs and rows.

The step of `controllers.dmpc.splitting` is v = R K^-1 R' rho t + g0, K = H + R' rho R. Here z also
holds the currents and voltages of the cluster's nodes, which follow from the inputs by the sparse
equations C z = 0 of `controllers.dmpc.tree_law`. K is then sparse, and a step is one solution of

    [K C'; C 0] [z; y] = [R' rho t; 0]

All steps of a plan share C. Only the ramp term and the batteries' energies join them. In the
eigenvectors of the ramp's D'D, the steps of everything but the batteries are independent, which
keeps the factors small. `controllers.dmpc.dense_plan` holds the same operators as matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray
from controllers.dmpc.feeder_problem import BLOCKS, FeederProblem
from controllers.dmpc.splitting import RowSplitting
from controllers.dmpc.tree_law import ClusterTreeLaw, cluster_tree_law

# Rows are exchanged only where a pivot is small: this halves the fill at equal residuals.
_PIVOT = 0.01


class TreePlan:
    """The operators of one cluster.

    Attributes
    ----------
    tail : (6, units). P (3) and Q (3) above from the inputs [100 kVA]; no row at the source.
    """

    def __init__(self, problem: FeederProblem, c: int) -> None:
        self._n, self._layout = problem.horizon, problem.layouts[c]
        self._law = law = cluster_tree_law(problem.site, problem.network, c)
        self._sweeps = law.sweeps()
        self._inputs = sparse.csr_array(
            sparse.hstack([law.inject_q, law.inject_p[:, self._layout.batteries]])
        )
        self.tail: FloatArray = self._powers_above()
        self._tops = problem.tops(c)
        self._weights, self._target = problem.weights, problem.soc_target
        ramp = np.eye(self._n) - np.eye(self._n, k=-1)
        eigen, self._modes = np.linalg.eigh(ramp.T @ ramp)
        _, rho_bound, rho_couple = problem.row_weights(c)
        self._rho = np.concatenate([rho_bound, rho_couple])
        self._factor(eigen, problem.drain(c))

    @property
    def stored(self) -> int:
        """Number of values that are kept, factors included."""
        lu, sweeps = self._lu, self._sweeps
        return int(sum(m.nnz for m in (lu.L, lu.U, sweeps.L, sweeps.U, self._rows, self._into)))

    def _powers_above(self) -> FloatArray:
        """Return `tail`, by one sweep from the six powers down instead of from each input up."""
        down = splu(sparse.csc_array(self._law.flow.T)).solve(self._law.give.T.toarray())
        return np.asarray((self._inputs.T @ down).T)

    def _factor(self, eigen: FloatArray, drain: FloatArray) -> None:
        n, lay, law, use = self._n, self._layout, self._law, self._weights
        volts, units, coupling = _step_rows(law, lay.units, self._tops)
        size, nb = volts.shape[1], len(drain)
        self._first_p, self._size = lay.units - nb, size
        p = _columns(np.arange(self._first_p, lay.units), size)
        past = np.tril(np.ones((n, n)))
        in_time = sparse.vstack(
            [
                sparse.kron(sparse.eye_array(n), volts),
                sparse.kron(sparse.eye_array(n), units),
                sparse.kron(past, sparse.diags_array(-drain) @ p),
                _by_block(coupling, n),
            ]
        )
        to_modes = sparse.kron(self._modes, sparse.eye_array(size))
        self._rows = sparse.csr_array(in_time @ to_modes)
        self._into = sparse.csr_array(self._rows.T @ sparse.diags_array(self._rho))
        step = sparse.vstack([volts, units, coupling])
        rho = np.concatenate(
            [
                self._rho[: volts.shape[0]],
                self._rho[lay.u_rows][: lay.units],
                self._rho[lay.e_rows.stop :: n],
            ]
        )
        weight = np.zeros(size)
        weight[: lay.units] = 2.0 * use.reactive
        weight[self._first_p : lay.units] = 2.0 * use.throughput
        is_input = np.zeros(size)
        is_input[: lay.units] = 1.0
        stored = past.T @ past * (self._rho[lay.e_rows][0] if nb else 0.0) + 2.0 * use.soc
        k = (
            sparse.kron(
                sparse.eye_array(n),
                step.T @ sparse.diags_array(rho) @ step + sparse.diags_array(weight),
            )
            + sparse.kron(sparse.diags_array(2.0 * use.ramp * eigen), sparse.diags_array(is_input))
            + sparse.kron(
                self._modes.T @ stored @ self._modes, p.T @ sparse.diags_array(drain**2) @ p
            )
        )
        c = sparse.kron(sparse.eye_array(n), _constraints(law, self._inputs))
        both = sparse.csc_array(sparse.block_array([[k, c.T], [c, None]]))
        try:
            self._lu = splu(both, diag_pivot_thresh=_PIVOT)
        except RuntimeError:
            raise ControllerError(
                "a cluster's problem has no unique optimum", expected="positive weights"
            ) from None

    def _solved(self, right: FloatArray) -> FloatArray:
        full = np.zeros(self._lu.shape[0])
        full[: len(right)] = right
        return np.asarray(self._rows @ self._lu.solve(full)[: len(right)])

    def times(self, t: FloatArray) -> FloatArray:
        """Return ``R K^-1 R' rho t``, (rows,)."""
        return self._solved(self._into @ t)

    def offset(self, theta: FloatArray) -> FloatArray:
        """Return g0 (rows,) for parameters of `controllers.dmpc.feeder_problem.Layout`."""
        n, lay, use = self._n, self._layout, self._weights
        r0 = self._known_rows(theta)
        m = np.zeros((n, self._size))
        m[0, : lay.units] = -2.0 * use.ramp * theta[lay.t_u]
        linear = (self._modes.T @ m).ravel()
        nb = len(lay.batteries)
        if nb:
            last = slice(lay.e_rows.stop - nb, lay.e_rows.stop)
            beyond = 2.0 * use.soc * (theta[lay.t_soc] - self._target)
            linear += self._rows[last].T @ beyond
        return r0 - self._solved(self._into @ r0 + linear)

    def _known_rows(self, theta: FloatArray) -> FloatArray:
        """Return what the rows are without any input: measured, plus known changes."""
        n, lay, law = self._n, self._layout, self._law
        change = law.inject_p @ theta[lay.t_pv].reshape(n, -1).T
        change += law.inject_load[:, None] * theta[lay.t_load]
        now = self._inputs @ theta[lay.t_u] + law.inject_down @ theta[lay.t_down]
        injected = np.column_stack([change, now])
        both = self._sweeps.solve(np.concatenate([injected, np.zeros_like(injected)]))
        flow, rise = both[: len(injected)], both[len(injected) :]
        v = law.watch @ (rise[:, :n] - rise[:, n:])
        v += (theta[lay.t_v] - law.ratio @ theta[lay.t_up][: law.ratio.shape[1]])[:, None]
        energy = np.tile(theta[lay.t_soc], n)
        parts = [v.T.ravel(), np.zeros(n * lay.units), energy]
        if law.give.shape[0]:
            parts += [np.zeros(3 * n), (law.give @ flow[:, :n]).ravel()]
        for tops in self._tops:
            block = np.zeros((BLOCKS, n))
            for phase, row in tops:
                block[phase] = v[row]
            parts.append(block.ravel())
        return np.concatenate(parts)


def _columns(which: Any, size: int) -> sparse.csr_array:
    """Return the rows that pick `which` of `size` values."""
    count = len(which)
    return sparse.csr_array((np.ones(count), (np.arange(count), which)), shape=(count, size))


def _step_rows(
    law: ClusterTreeLaw, units: int, tops: Sequence[Sequence[tuple[int, int]]]
) -> tuple[sparse.csr_array, sparse.csr_array, sparse.csr_array]:
    """Return the rows of one step: voltages, inputs, and boundary by boundary nine coupling rows.

    A step's unknowns are the inputs, v above (3), P and Q of each boundary below (6), P and Q
    above (6), then J and W; at the source there is nothing above.
    """
    e2, downs = law.flow.shape[0], law.inject_down.shape[1]
    ups = law.give.shape[0]
    size = units + ups // 2 + downs + ups + 2 * e2
    at_down = units + ups // 2
    at_s, at_w = at_down + downs, size - e2
    n = law.watch.shape[0]
    volts = sparse.csr_array(sparse.hstack([sparse.csr_array((n, at_w)), law.watch]))
    parts = []
    if ups:
        parts.append(_columns(np.r_[units:at_down, at_s : at_s + 6], size))
    for j, pairs in enumerate(tops):
        phases = [phase for phase, _ in pairs]
        rows = _columns([row for _, row in pairs], n)
        picked = _columns(phases, 3).T @ rows
        parts += [picked @ volts, _columns(at_down + 6 * j + np.arange(6), size)]
    coupling = sparse.vstack(parts) if parts else sparse.csr_array((0, size))
    return volts, _columns(np.arange(units), size), sparse.csr_array(coupling)


def _by_block(coupling: sparse.csr_array, n: int) -> sparse.csr_array:
    """Return the coupling rows of all steps, row by row and then step by step."""
    count, size = coupling.shape
    entries = coupling.tocoo()
    steps = np.arange(n)
    rows = (entries.row[:, None] * n + steps).ravel()
    cols = (entries.col[:, None] + size * steps).ravel()
    return sparse.csr_array((np.repeat(entries.data, n), (rows, cols)), shape=(count * n, size * n))


def _constraints(law: ClusterTreeLaw, inputs: sparse.csr_array) -> sparse.csr_array:
    """Return C: the equations of J, of W, and of P and Q above."""
    ups = law.give.shape[0]
    rows: list[list[Any]] = [
        [-inputs, None, -law.inject_down, None, law.flow, None],
        [None, -law.above, None, None, -law.drop, law.lift],
    ]
    if ups:
        rows.append([None, None, None, -sparse.eye_array(6), law.give, None])
    else:
        rows = [[row[0], *row[2:3], *row[4:]] for row in rows]
    if not law.inject_down.shape[1]:
        at = 2 if ups else 1
        rows = [row[:at] + row[at + 1 :] for row in rows]
    return sparse.csr_array(sparse.block_array(rows))


class TreeSplitting(RowSplitting):
    """The operators of the hosted clusters, each of them a `TreePlan`.

    Parameters
    ----------
    hosted : Positions of the clusters; rows are padded to the longest of all, hosted or not.
    """

    def __init__(self, problem: FeederProblem, hosted: Sequence[int]) -> None:
        layouts = problem.layouts
        super().__init__(
            len(hosted),
            max(lay.e_rows.stop for lay in layouts),
            max(problem.coupled(c) for c in range(len(layouts))),
            max(lay.parameters for lay in layouts),
        )
        self.plans = [TreePlan(problem, c) for c in hosted]
        self._used = []
        for k, c in enumerate(hosted):
            soft, rho, _ = problem.row_weights(c)
            self.place_give(k, soft, rho)
            coupled = self.bounded + np.arange(problem.coupled(c))
            self._used.append(np.concatenate([np.arange(layouts[c].e_rows.stop), coupled]))

    def offset(self, theta: FloatArray) -> FloatArray:
        """Return g0; see `RowSplitting`."""
        out = np.zeros((len(theta), self.bounded + self.coupled, 1))
        for k, (plan, rows) in enumerate(zip(self.plans, self._used, strict=True)):
            out[k, rows, 0] = plan.offset(theta[k])
        return out

    def times(self, t: FloatArray) -> FloatArray:
        """Return G t; see `RowSplitting`."""
        out = np.zeros_like(t)
        for k, (plan, rows) in enumerate(zip(self.plans, self._used, strict=True)):
            out[k, rows, 0] = plan.times(t[k, rows, 0])
        return out

    def bounded_map(self, t: FloatArray, g0: FloatArray) -> Callable[[FloatArray], FloatArray]:
        """Return the map of bounded rows; see `RowSplitting`."""
        nb, state = self.bounded, t.copy()

        def settled(rows: FloatArray) -> FloatArray:
            state[:, :nb] = rows
            return np.asarray(self.times(state)[:, :nb] + g0[:, :nb])

        return settled
