"""The primary market as a cone program in the form of clarabel, with a pattern that never changes.

minimise ``x'Px/2 + q'x`` subject to ``Ax + s = b``, s in a product of cones. The unknowns are
``x = [P, Q, l, v, u_g, u_q, u_l]``: flow and squared current of each line, squared voltage of each
bus but the root, then the position ``u`` in [0, 1] of each device between its limits,
``P_G = P_G_min + (P_G_max - P_G_min) u_g`` and so on. In this way limits and prices are numbers in
a fixed pattern, a device whose limits meet (an operator that is out of service) keeps an interior,
and the solver keeps its workspace from one clearing to the next.

The rows, in order: active balance, reactive balance, voltage drop (equalities); upper and lower
voltage, current, u <= 1, u >= 0 (inequalities); one cone of size 4 for each line.
`central_reference` says the same, block by block, in words closer to the paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from controllers.core.mail import FloatArray, IntArray
from controllers.market.model.costs import tangent
from controllers.market.model.problem import Bids, ClearingProblem
from grid_models.branch_flow.model import BranchNetwork

Mask = NDArray[np.bool_]
# Of the largest flow. Without it the last customers' cones stall the solver on IEEE 123.
FLOOR = 0.3


@dataclass(frozen=True)
class Freedom:
    """Which devices have room between their limits; masks of shape (n,)."""

    p_gen: Mask
    q_gen: Mask
    p_load: Mask

    @classmethod
    def of(cls, bids: Bids) -> Freedom:
        """Return the freedom that `bids` need."""
        return cls(
            bids.p_gen_max > bids.p_gen_min,
            bids.q_gen_max > bids.q_gen_min,
            bids.p_load_max > bids.p_load_min,
        )

    def covers(self, other: Freedom) -> bool:
        """Say whether whatever is free in `other` is free here."""
        mine = (self.p_gen, self.q_gen, self.p_load)
        theirs = (other.p_gen, other.q_gen, other.p_load)
        return not any(bool((b & ~a).any()) for a, b in zip(mine, theirs, strict=True))

    def union(self, other: Freedom) -> Freedom:
        """Return what is free in either."""
        return Freedom(
            self.p_gen | other.p_gen, self.q_gen | other.q_gen, self.p_load | other.p_load
        )


@dataclass(frozen=True)
class ConeData:
    """Numbers of one clearing: the stored entries of P and A in their fixed order, q and b."""

    p: FloatArray
    q: FloatArray
    a: FloatArray
    b: FloatArray


def typical_flow(network: BranchNetwork, bids: Bids) -> FloatArray:
    """Return the size of each line's flow, (n - 1,): the load below it, or 30 % of the largest."""
    p, q = bids.p_load0.copy(), bids.q_load0.copy()
    for i in range(network.size - 1, 0, -1):
        p[network.parent[i]] += p[i]
        q[network.parent[i]] += q[i]
    size = np.hypot(p, q)[1:]
    largest = float(size.max(initial=0.0))
    return np.maximum(size, FLOOR * largest) if largest > 0 else np.ones_like(size)


class ConeForm:
    """Maps clearing problems on one network to numbers of the cone program, and results back.

    Parameters
    ----------
    free : Freedom. Devices that get an unknown.
    flow : ndarray of float, (n - 1,). Size of each line's flow, for scaling only.
    sloped : bool. Whether the price of the import rises with it, which couples what meets at the
        root.
    """

    def __init__(
        self, network: BranchNetwork, free: Freedom, flow: FloatArray, *, sloped: bool = False
    ) -> None:
        self.network, self.sloped = network, sloped
        self._flow = flow
        self.free = free
        self._gen = np.flatnonzero(free.p_gen)
        self._var = np.flatnonzero(free.q_gen)
        self._load = np.flatnonzero(free.p_load)
        self._rated = np.flatnonzero(np.isfinite(network.l_max_pu[1:]))
        self.lines = m = network.size - 1
        sizes = [m, m, m, m, len(self._gen), len(self._var), len(self._load)]
        edges = np.cumsum([0, *sizes])
        self.n_x = int(edges[-1])
        self._x = [slice(a, b) for a, b in pairwise(edges.tolist())]
        self._devices = slice(4 * m, self.n_x)
        k = self.n_x - 4 * m
        counts = [m, m, m, m, m, len(self._rated), k, k, 4 * m]
        rows = np.cumsum([0, *counts])
        self.n_rows = int(rows[-1])
        self._row = [slice(a, b) for a, b in pairwise(rows.tolist())]
        self.n_equal, self.n_inequal = 3 * m, 2 * m + len(self._rated) + 2 * k
        self._lay_out()

    # ---------------------------------------------------------------- pattern

    def _lay_out(self) -> None:
        """Fix the pattern of A; entries that bids change are last and in the order of `_widths`."""
        blocks = [
            *self._balance_rows(),
            *self._drop_rows(),
            *self._limit_rows(),
            *self._cone_rows(),
        ]
        rows = np.concatenate([b[0] for b in blocks])
        cols = np.concatenate([b[1] for b in blocks])
        values = np.concatenate([b[2] for b in blocks])
        d_rows, d_cols = self._device_places()
        self._n_fixed = len(values)
        rows, cols = np.concatenate([rows, d_rows]), np.concatenate([cols, d_cols])
        numbered = sparse.csc_array(
            (np.arange(1.0, len(rows) + 1), (rows, cols)), shape=(self.n_rows, self.n_x)
        )
        self._order = numbered.data.astype(np.intp) - 1
        self._entries = np.concatenate([values, np.zeros(len(d_rows))])
        self._pattern = numbered
        self._lay_out_curvature()

    def _lay_out_curvature(self) -> None:
        """Fix the pattern of P: the devices' diagonal, and what makes up the import if sloped."""
        first, at_root = self.network.parent[1:] == 0, (self._gen == 0, self._load == 0)
        parts = [np.flatnonzero(first) + self._x[0].start]
        parts += [
            np.flatnonzero(m) + self._x[k].start for k, m in zip((4, 6), at_root, strict=True)
        ]
        self._imported = np.concatenate(parts) if self.sloped else np.zeros(0, dtype=np.intp)
        i, j = np.triu_indices(len(self._imported))
        device = np.arange(self._devices.start, self.n_x)
        rows = np.concatenate([device, self._imported[i]])
        cols = np.concatenate([device, self._imported[j]])
        self._pairs = i, j
        # Column by column as the solver stores it; `_curvature_at`: where each number is added.
        places, self._curvature_at = np.unique(cols * self.n_x + rows, return_inverse=True)
        self._curvature_rows = (places % self.n_x).astype(np.int32)
        count = np.bincount(places // self.n_x, minlength=self.n_x)
        self._curvature_pointer = np.concatenate([[0], np.cumsum(count)]).astype(np.int32)

    def matrices(self, data: ConeData) -> tuple[sparse.csc_matrix, sparse.csc_matrix]:
        """Return P (upper triangle) and A as the solver takes them."""
        a = sparse.csc_matrix(
            (data.a, self._pattern.indices, self._pattern.indptr), shape=(self.n_rows, self.n_x)
        )
        p = sparse.csc_matrix(
            (data.p, self._curvature_rows, self._curvature_pointer), shape=(self.n_x, self.n_x)
        )
        return p, a

    def _balance_rows(self) -> list[tuple[IntArray, IntArray, FloatArray]]:
        """``P_j - r_j l_j - sum_k P_k + ...`` and ``Q_j - x_j l_j - sum_k Q_k + b_j v_j + ...``."""
        net, m = self.network, self.lines
        line = np.arange(m)
        inner = np.flatnonzero(net.parent[1:] > 0)
        up = net.parent[1:][inner] - 1
        ones = np.ones(m)
        blocks = []
        for flow, row, z in ((0, 0, net.r_pu), (1, 1, net.x_pu)):
            at, col = self._row[row].start, self._x[flow].start
            blocks += [
                (at + line, col + line, ones),
                (at + line, self._x[2].start + line, -z[1:]),
                (at + up, col + inner, -ones[: len(inner)]),
            ]
        return [*blocks, (self._row[1].start + line, self._x[3].start + line, net.b_pu[1:])]

    def _drop_rows(self) -> list[tuple[IntArray, IntArray, FloatArray]]:
        """``v_j - v_i + 2 (r P + x Q) - (r^2 + x^2) l``, the root's voltage on the other side."""
        net, m, at = self.network, self.lines, self._row[2].start
        line = np.arange(m)
        inner = np.flatnonzero(net.parent[1:] > 0)
        r, x = net.r_pu[1:], net.x_pu[1:]
        return [
            (at + line, self._x[3].start + line, np.ones(m)),
            (at + inner, self._x[3].start + net.parent[1:][inner] - 1, -np.ones(len(inner))),
            (at + line, self._x[0].start + line, 2 * r),
            (at + line, self._x[1].start + line, 2 * x),
            (at + line, self._x[2].start + line, -(r**2 + x**2)),
        ]

    def _limit_rows(self) -> list[tuple[IntArray, IntArray, FloatArray]]:
        """Voltage band, largest current, 0 <= u <= 1."""
        line = np.arange(self.lines)
        device = np.arange(self._devices.start, self.n_x)
        up, down, current, one, zero = (s.start for s in self._row[3:8])
        k = np.arange(len(device))
        v, j = self._x[3].start + line, np.arange(len(self._rated))
        return [
            (up + line, v, np.ones(len(line))),
            (down + line, v, -np.ones(len(line))),
            (current + j, self._x[2].start + self._rated, np.ones(len(j))),
            (one + k, device, np.ones(len(k))),
            (zero + k, device, -np.ones(len(k))),
        ]

    def _cone_rows(self) -> list[tuple[IntArray, IntArray, FloatArray]]:
        """``(v_i + l/s^2, 2 P/s, 2 Q/s, v_i - l/s^2)`` in the second-order cone.

        That is P^2 + Q^2 <= v_i l for any s. With s the size of the flow, the four are of size 1
        on the trunk and on its branches alike, which leaves a smaller gap.
        """
        m, at, s = self.lines, self._row[8].start, self._flow
        line = np.arange(m)
        inner = np.flatnonzero(self.network.parent[1:] > 0)
        up = self._x[3].start + self.network.parent[1:][inner] - 1
        some = np.ones(len(inner))
        return [
            (at + 4 * line, self._x[2].start + line, -1.0 / s**2),
            (at + 4 * inner, up, -some),
            (at + 4 * line + 1, self._x[0].start + line, -2.0 / s),
            (at + 4 * line + 2, self._x[1].start + line, -2.0 / s),
            (at + 4 * line + 3, self._x[2].start + line, 1.0 / s**2),
            (at + 4 * inner + 3, up, -some),
        ]

    def _device_places(self) -> tuple[IntArray, IntArray]:
        """Where devices enter the balances of buses but the root, in the order of `_widths`."""
        p_row, q_row = self._row[0].start, self._row[1].start
        rows, cols = [], []
        for row, col, bus in (
            (p_row, 4, self._gen),
            (q_row, 5, self._var),
            (p_row, 6, self._load),
            (q_row, 6, self._load),
        ):
            below = bus > 0
            rows.append(row + bus[below] - 1)
            cols.append(self._x[col].start + np.flatnonzero(below))
        return np.concatenate(rows), np.concatenate(cols)

    # ---------------------------------------------------------------- numbers

    def data(self, problem: ClearingProblem) -> ConeData:
        """Return the numbers of `problem`, whose bids need no more than `free`."""
        bids = problem.bids
        g, q, d = self._gen, self._var, self._load
        w_g = bids.p_gen_max[g] - bids.p_gen_min[g]
        w_q = bids.q_gen_max[q] - bids.q_gen_min[q]
        w_d = bids.p_load_max[d] - bids.p_load_min[d]
        reactive = tangent(bids)
        entries = self._entries.copy()
        entries[self._n_fixed :] = np.concatenate(
            [w_g[g > 0], w_q[q > 0], -w_d[d > 0], -(reactive[d] * w_d)[d > 0]]
        )
        alpha, alpha_q, beta = bids.alpha_p[g], bids.alpha_q[q], 2.0 * bids.beta[d]
        curvature = np.concatenate([alpha * w_g**2, alpha_q * w_q**2, beta * w_d**2])
        slope = np.zeros(self.n_x)
        slope[self._x[0]][self.network.parent[1:] == 0] = problem.import_price
        slope[self._x[2]] = problem.xi * self.network.r_pu[1:]
        slope[self._x[4]] = (alpha * bids.p_gen_min[g] - problem.import_price * (g == 0)) * w_g
        slope[self._x[5]] = alpha_q * bids.q_gen_min[q] * w_q
        shift = bids.p_load_min[d] - bids.p_load0[d]
        slope[self._x[6]] = (beta * shift + problem.import_price * (d == 0)) * w_d
        if self.sloped:
            curvature = np.concatenate(
                [curvature, self._import_curvature(problem, slope, w_g, w_d)]
            )
        p = np.bincount(self._curvature_at, curvature, len(self._curvature_rows))
        return ConeData(
            np.asarray(p, dtype=np.float64),
            slope,
            entries[self._order],
            self._right_side(problem, reactive),
        )

    def _import_curvature(
        self, problem: ClearingProblem, slope: FloatArray, w_g: FloatArray, w_d: FloatArray
    ) -> FloatArray:
        """Return ``s c c'`` for ``s/2 P_import^2``, ``P_import = c'x + c0``; add ``s c0 c``."""
        g, d, bids = self._gen == 0, self._load == 0, problem.bids
        n_lines = len(self._imported) - int(g.sum()) - int(d.sum())
        c = np.concatenate([np.ones(n_lines), -w_g[g], w_d[d]])
        slope[self._imported] += (
            problem.import_slope * float(bids.p_load_min[0] - bids.p_gen_min[0]) * c
        )
        i, j = self._pairs
        return np.asarray(problem.import_slope * c[i] * c[j])

    def _right_side(self, problem: ClearingProblem, reactive: FloatArray) -> FloatArray:
        net, bids, row = self.network, problem.bids, self._row
        from_root = net.parent[1:] == 0
        v_root = net.v_root_pu**2
        b = np.zeros(self.n_rows)
        b[row[0]] = (bids.p_load_min - bids.p_gen_min)[1:]
        least_q = bids.q_load0 + reactive * (bids.p_load_min - bids.p_load0)
        b[row[1]] = (least_q - bids.q_gen_min)[1:]
        b[row[2]] = v_root * from_root
        b[row[3]] = problem.v_sq_max[1:]
        b[row[4]] = -problem.v_sq_min[1:]
        b[row[5]] = net.l_max_pu[1:][self._rated]
        b[row[6]] = 1.0
        cone = b[row[8]].reshape(-1, 4)
        cone[:, 0] = cone[:, 3] = v_root * from_root
        return b

    # ---------------------------------------------------------------- results

    def primal(self, problem: ClearingProblem, x: FloatArray) -> dict[str, FloatArray]:
        """Return the solution by name, arrays of shape (n,); devices inside their limits."""
        bids = problem.bids
        found = {}
        for name, part in (("p_line", 0), ("q_line", 1), ("l_line", 2), ("v_sq", 3)):
            found[name] = np.concatenate([[0.0], x[self._x[part]]])
        found["v_sq"][0] = self.network.v_root_pu**2
        for name, part, bus in (
            ("p_gen", 4, self._gen),
            ("q_gen", 5, self._var),
            ("p_load", 6, self._load),
        ):
            low, high = getattr(bids, f"{name}_min"), getattr(bids, f"{name}_max")
            value = low.astype(np.float64)
            value[bus] += (high - low)[bus] * np.clip(x[self._x[part]], 0.0, 1.0)
            found[name] = value
        return found

    def duals(self, z: FloatArray) -> dict[str, FloatArray]:
        """Return multipliers by name, (n,).

        The cost rises by -z per unit of b, and one more pu of load raises b by 1: so ``price_p`` is
        the *negative* dual of the balance as clarabel returns it. ``v_high``, ``v_low`` and
        ``current`` are 0 or more: what one unit of the squared limit is worth.
        """
        part = {name: np.zeros(self.network.size) for name in ("current",)}
        for name, row, sign in (
            ("price_p", 0, -1.0),
            ("price_q", 1, -1.0),
            ("v_high", 3, 1.0),
            ("v_low", 4, 1.0),
        ):
            part[name] = np.concatenate([[0.0], sign * z[self._row[row]]])
        part["current"][1 + self._rated] = z[self._row[5]]
        return part

    def worst_bus(self, z: FloatArray) -> tuple[str, str]:
        """Return bus and kind of the limit that weighs most in a certificate of infeasibility."""
        named = ((3, "largest voltage"), (4, "smallest voltage"), (5, "current limit"))
        best: tuple[float, str, str] = (-1.0, "", "")
        for row, kind in named:
            weight: Any = z[self._row[row]]
            if len(weight) and weight.max() > best[0]:
                k = int(np.argmax(weight))
                line = self._rated[k] if row == 5 else k
                best = (float(weight[k]), self.network.buses[line + 1], kind)
        return best[1], best[2]
