"""The branch-flow semidefinite relaxation of a radial unbalanced feeder, in cvxpy.

With the outer products of voltages V and branch currents J as variables (L. Gan and S. Low, "Convex
relaxations and linear approximation for optimal power flow in multiphase radial networks", 2014)::

    W = V V^H       S = V_p J_c^H       L = J_c J_c^H       [W_p S; S^H L] >= 0, of rank 1
    W_c = T W_p T^H - T S Z^H - Z S^H T^H + Z L Z^H
    diag(T S - Z L) + s = sum over children diag(W Y_p^H + S T'^H) + diag(W Y^H)

is the power flow of `grid_models.current_injection.tree`; without the rank it is convex.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from grid_models.current_injection.model import FloatArray
from grid_models.current_injection.tree import Branch, BranchTree, IntArray, RatedCurrent

# Series impedance, pu, below which a solver cannot tell a current from none, and below which it
# cannot find a block of the relaxation.
_NONE, _SHORT = 1e-5, 1e-4
# An admittance that is none.
_NO_SHUNT = 1e-12
# A turns ratio that is one.
_FED = 1e-9


class BranchFlow:
    """Variables and constraints of a feeder's power flow.

    Parameters
    ----------
    units : ndarray (buses,). Scale of the current into each bus: blocks have numbers of like size.

    Attributes
    ----------
    w : Of each bus, (k, k).
    blocks : Of each branch that has one, currents in their units.
    shifts : Of each bus, None or (k,): squared voltage that W has too much, by switches above.
    s_source : (k,), `p_import` its active sum.
    rules, notes : Constraints, and what is left out.
    """

    def __init__(self, tree: BranchTree, units: FloatArray) -> None:
        import cvxpy as cp

        self._cp, self.tree, self.units = cp, tree, units
        self.rules: list[Any] = []
        self.notes: list[str] = []
        self.w = [hermitian(n) for n in tree.sizes]
        self.blocks: dict[int, Any] = {}
        self.shifts: list[Any] = [None for _ in tree.sizes]
        self._into: list[Any] = []
        self._out: list[Any] = []
        for i, b in enumerate(tree.branches):
            above = part(self.w[b.parent], b.above)
            across = b.ratio @ above @ b.ratio.conj().T
            if _is_short(b):
                self._shift(b, self._short(b, across))
                continue
            self._shift(b, None)
            # In units of the largest current that devices below can cause: blocks of like numbers.
            unit = units[b.child]
            s_unit = cp.Variable((len(b.above), len(b.below)), complex=True)
            l_unit = hermitian(len(b.below))
            s, square = unit * s_unit, unit**2 * l_unit
            self.blocks[i] = block = cp.bmat([[above, s_unit], [s_unit.H, l_unit]])
            drop = b.ratio @ s @ b.z.conj().T
            self.rules.append(block >> 0)
            self._same(self.w[b.child], across - drop - drop.H + b.z @ square @ b.z.conj().T)
            self._into.append(diagonal(b.ratio @ s - b.z @ square))
            self._out.append(diagonal(s @ b.ratio_back.conj().T))
        self._source()
        none = sum(np.abs(b.z).max() < _NONE for b in tree.branches)
        if none:
            self.notes.append(f"impedances below {_NONE:g} pu are taken as none: {none} branches")

    def _short(self, b: Branch, across: Any) -> Any:
        """Join two buses by a switch or a regulator, phase by phase; return the squared drops.

        With the power f that flows into a phase of the child, ``l >= |f|^2 / W`` its squared
        current, what is lost on the way is exact. The drop of the voltage is left out of W and
        counted at the limits: a solver does not find blocks of so little impedance.
        """
        cp, k = self._cp, len(b.below)
        z, child = np.diag(b.z), self.w[b.child]
        flow, top, drop = cp.Variable(k, complex=True), 0.0, None
        if np.abs(z).max() >= _NONE:
            square, size = cp.Variable(k), cp.real(diagonal(child))
            self.rules += [
                cp.quad_over_lin(cp.hstack([cp.real(flow[i]), cp.imag(flow[i])]), size[i])
                <= square[i]
                for i in range(k)
            ]
            top = cp.multiply(z, square)
            drop = 2.0 * cp.real(cp.multiply(z.conj(), flow))
        fed = np.abs(b.ratio) > _FED
        gain = np.where(fed, b.ratio_back.T.conj() / np.where(fed, b.ratio, 1.0), 0.0)
        self._same(child, across)
        self._into.append(flow)
        self._out.append(gain.T @ (flow + top))
        return drop

    def _shift(self, b: Branch, drop: Any) -> None:
        """Carry the squared drops that W leaves out to the child of a branch."""
        above = self.shifts[b.parent]
        if above is None and drop is None:
            return
        total = self._cp.Variable(len(b.below))
        self.shifts[b.child] = total
        carried = 0.0 if above is None else np.abs(b.ratio) ** 2 @ above[b.above]
        self.rules.append(total == carried + (0.0 if drop is None else drop))

    def _source(self) -> None:
        """Make the power of the source, whose voltage is given: S = V J^H is affine in J."""
        cp, tree = self._cp, self.tree
        n, z, e = tree.sizes[0], tree.source_z, tree.source_v[:, None]
        if np.abs(z).max() < _NONE:
            self._same(self.w[0], e @ e.conj().T)
            self.s_source = cp.Variable(n, complex=True)
            self.notes.append(f"the source's impedance, below {_NONE:g} pu, is taken as none")
        else:
            current, square = cp.Variable((n, 1), complex=True), hermitian(n)
            self.rules.append(cp.bmat([[np.ones((1, 1)), current.H], [current, square]]) >> 0)
            drop = (e @ current.H) @ z.conj().T
            self._same(self.w[0], e @ e.conj().T - drop - drop.H + z @ square @ z.conj().T)
            self.s_source = diagonal(e @ current.H - z @ square)
        self.p_import = cp.sum(cp.real(self.s_source))

    def _same(self, a: Any, b: Any) -> None:
        """Let two Hermitian matrices be equal: one row for each number, or the solver suffers."""
        cp, apart = self._cp, a - b
        self.rules.append(cp.real(diagonal(apart)) == 0)
        if a.shape[0] > 1:
            above = cp.upper_tri(apart)
            self.rules += [cp.real(above) == 0, cp.imag(above) == 0]

    def inflows(self) -> list[Any]:
        """Return the power that flows into each bus and not out of it, by node."""
        tree = self.tree
        into = [self.s_source, *self._into]
        for bus, w in enumerate(self.w):
            if np.abs(tree.shunts[bus]).any():
                into[bus] = into[bus] - diagonal(w @ tree.shunts[bus].conj().T)
        for b, out in zip(tree.branches, self._out, strict=True):
            if np.abs(b.shunt).max() > _NO_SHUNT:
                out = out + diagonal(part(self.w[b.parent], b.above) @ b.shunt.conj().T)
            into[b.parent] = into[b.parent] - np.eye(tree.sizes[b.parent])[:, b.above] @ out
        return into

    def current_sq(self, one: RatedCurrent) -> Any:
        """Return a rated current, squared; at most that, where its branch is a switch."""
        cp, b = self._cp, self.tree.branches[one.branch]
        if one.branch in self.blocks:
            row = (one.row * self._scales(b))[None, :]
            return cp.real(row @ self.blocks[one.branch] @ row.conj().T)
        by_current = np.abs(one.row[len(b.above) :])
        k = int(np.argmax(by_current))
        flow, v_sq = self._into[one.branch][k], cp.real(self.w[b.child][k, k])
        both = cp.hstack([cp.real(flow), cp.imag(flow)])
        return by_current[k] ** 2 * cp.quad_over_lin(both, v_sq)

    def rank_ratio(self, i: int) -> float:
        """Return the second over the first eigenvalue of a branch's block, per unit."""
        scales = self._scales(self.tree.branches[i])
        values = np.linalg.eigvalsh(np.asarray(self.blocks[i].value) * np.outer(scales, scales))
        return float(max(values[-2], 0.0) / values[-1])

    def _scales(self, b: Branch) -> FloatArray:
        return np.concatenate([np.ones(len(b.above)), np.full(len(b.below), self.units[b.child])])


def hermitian(n: int) -> Any:
    """Return a Hermitian variable (n, n)."""
    import cvxpy as cp

    return cp.Variable((n, n), hermitian=True) if n > 1 else cp.Variable((1, 1))


def diagonal(x: Any) -> Any:
    """Return the diagonal as a vector; cvxpy's `diag` would make a matrix of a single one."""
    import cvxpy as cp

    return cp.reshape(x, (1,), order="F") if x.shape == (1, 1) else cp.diag(x)


def part(w: Any, at: IntArray) -> Any:
    """Return the rows and columns `at` of a matrix."""
    return w if len(at) == w.shape[0] else w[np.ix_(at, at)]


def _is_short(b: Branch) -> bool:
    """Whether a branch is a switch or a regulator: next to no impedance, phase by phase."""
    alone = np.count_nonzero(np.abs(b.ratio) > _FED, axis=1).max() == 1
    size = np.abs(b.z)
    apart = (size - np.diag(np.diag(size))).max() < 1e-3 * size.max()
    return bool(alone and apart and size.max() < _SHORT)
