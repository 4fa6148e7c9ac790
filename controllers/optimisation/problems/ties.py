"""What neighbouring regions agree on: differences and means of the voltages at the ends of ties.

Two regions with a tie i-j hold the voltages of both ends. Their copies are equal if

    turn_i - turn_j,  (turn_i + turn_j) / 2,  v_i - v_j,  (v_i + v_j) / 2

are equal. A tie's power depends on the differences by its admittance, and on the means hardly: with
these four as variables an algorithm can weigh each as it needs (J. Guo, G. Hug and O. Tonguz, "A
Case for Nonconvex Distributed Optimization in Large-Scale Power Systems", IEEE Trans. Power Systems
32(5), 2017).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from controllers.core.graph import Graph
from controllers.core.mail import FloatArray, IntArray
from controllers.optimisation.nlp import NlpPoint
from controllers.optimisation.problems.opf_region_nlp import RegionNlp
from controllers.optimisation.problems.opf_regions import Border, RegionOpf
from controllers.optimisation.sparse_pattern import Pattern, summed

_KINDS = 4  # variables of a tie


class TieNlp:
    """A region's program with further variables t = T x; an `controllers.optimisation.nlp.Nlp`.

    Parameters
    ----------
    region : The region, n variables.
    rows, columns, values : (n_entries,). Entries of T.
    m : Number of rows of T.
    """

    def __init__(
        self, region: RegionNlp, rows: IntArray, columns: IntArray, values: FloatArray, m: int
    ) -> None:
        self.region, self.n, self.m = region, region.n, m
        self._entries = rows, columns, values
        self._balances = region.equality_pattern.shape[0]
        free = np.full(m, np.inf)
        self.lower = np.concatenate((region.lower, -free))
        self.upper = np.concatenate((region.upper, free))
        self.start = np.concatenate((region.start, self.ties(region.start)))
        equal, limit, bend = (
            region.equality_pattern, region.inequality_pattern, region.hessian_pattern,
        )  # fmt: skip
        n, every = self.n + m, np.arange(m)
        self.equality_pattern = Pattern(
            np.concatenate((equal.rows, self._balances + rows, self._balances + every)),
            np.concatenate((equal.columns, columns, self.n + every)),
            (self._balances + m, n),
        )
        self.inequality_pattern = Pattern(limit.rows, limit.columns, (limit.shape[0], n))
        self.hessian_pattern = Pattern(bend.rows, bend.columns, (n, n))

    def ties(self, x: FloatArray) -> FloatArray:
        """Return T x, (m,), at the region's x (n,)."""
        rows, columns, values = self._entries
        return summed(rows, values * x[columns], self.m)

    def transposed_ties(self, price: FloatArray) -> FloatArray:
        """Return T' y, (n,), of prices (m,)."""
        rows, columns, values = self._entries
        return summed(columns, values * price[rows], self.n)

    def at(self, x: FloatArray) -> NlpPoint:
        """Return values and first derivatives at x (n + m,)."""
        own = x[: self.n]
        at = self.region.at(own)
        return NlpPoint(
            x,
            at.objective,
            np.concatenate((at.gradient, np.zeros(self.m))),
            np.concatenate((at.equalities, self.ties(own) - x[self.n :])),
            at.inequalities,
            np.concatenate((at.equality_slopes, self._entries[2], np.full(self.m, -1.0))),
            at.inequality_slopes,
        )

    def hessian(self, x: FloatArray, equality: FloatArray, inequality: FloatArray) -> FloatArray:
        """Return entries of the Hessian of ``f + equality' g + inequality' h`` at x (n + m,)."""
        return self.region.hessian(x[: self.n], equality[: self._balances], inequality)


@dataclass(frozen=True)
class RegionTies:
    """A region and what it agrees on with its neighbours.

    Attributes
    ----------
    name : Of the region.
    nlp : Its program; t has m variables.
    parts : Of each neighbour, in the order of the regions: its variables in t. Both regions have
        them in the same order.
    admittance : (m,). Of the tie, per unit, at differences; 0 at means.
    border : What it shares with others.
    """

    name: str
    nlp: TieNlp
    parts: Mapping[str, slice]
    admittance: FloatArray
    border: Border


def region_graph(problem: RegionOpf) -> Graph:
    """Return which regions have ties."""
    number = {name: k for k, name in enumerate(problem.names)}
    region = np.array([number[name] for name in problem.region_of])
    edges = region[np.stack((problem.case.branches.from_bus, problem.case.branches.to_bus), axis=1)]
    return Graph(len(number), edges[edges[:, 0] != edges[:, 1]])


def ties_of(problem: RegionOpf) -> tuple[RegionTies, ...]:
    """Return each region with its ties; parallel branches are one tie."""
    branches = problem.case.branches
    number = {name: k for k, name in enumerate(problem.names)}
    region = np.array([number[name] for name in problem.region_of])
    ends = np.sort(np.stack((branches.from_bus, branches.to_bus), axis=1), axis=1)
    size = 1.0 / np.hypot(branches.r_pu, branches.x_pu)
    between = region[ends[:, 0]] != region[ends[:, 1]]
    ends, tie = np.unique(ends[between], axis=0, return_inverse=True)
    admittance = summed(tie.ravel(), size[between], len(ends))
    regions = []
    for k in range(len(problem.names)):
        sides = region[ends]
        mine = np.flatnonzero((sides == k).any(axis=1))
        peer = sides[mine].sum(axis=1) - k
        order = np.argsort(peer, kind="stable")
        regions.append(
            _region_ties(problem, k, ends[mine[order]], admittance[mine[order]], peer[order])
        )
    return tuple(regions)


def _region_ties(
    problem: RegionOpf, k: int, ends: IntArray, admittance: FloatArray, peer: IntArray
) -> RegionTies:
    nlp, n_ties = problem.regions[k], len(ends)
    place = np.full(len(problem.case.buses.names), -1)
    place[nlp.buses] = np.arange(len(nlp.buses))
    turn = nlp.turn.start + place[ends]
    v = nlp.v.start + place[ends]
    # Two entries in each of the rows difference and mean, of turn and then of v.
    columns = np.stack((turn, turn, v, v), axis=1).ravel()
    values = np.tile([1.0, -1.0, 0.5, 0.5], 2 * n_ties)
    m = _KINDS * n_ties
    first = np.searchsorted(peer, np.arange(len(problem.names) + 1)) * _KINDS
    parts = {
        name: slice(int(first[j]), int(first[j + 1]))
        for j, name in enumerate(problem.names)
        if first[j] < first[j + 1]
    }
    return RegionTies(
        problem.names[k],
        TieNlp(nlp, np.repeat(np.arange(m), 2), columns, values, m),
        parts,
        np.repeat(admittance, _KINDS) * np.tile([1.0, 0.0], m // 2),
        problem.borders[k],
    )
