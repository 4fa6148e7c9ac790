"""Communication graphs: who exchanges messages with whom, and mixing weights for averages."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, IntArray

if TYPE_CHECKING:
    from scipy import sparse

Weights = Literal["optimal", "metropolis"] | float


def _number(weights: Weights) -> float:
    return np.nan if isinstance(weights, str) else float(weights)


@dataclass(frozen=True, eq=False)
class Graph:
    """A connected undirected graph of agents 0 to n - 1.

    edges : (m, 2). Pairs of agents; order, direction and repetition do not matter.

    Raises ControllerError: An edge is none, or some agents cannot be reached.
    """

    n: int
    edges: IntArray

    def __post_init__(self) -> None:
        edges = np.asarray(self.edges, dtype=np.int64).reshape(-1, 2)
        if self.n < 1:
            raise ControllerError(f"{self.n} agents", where="graph", expected="at least one")
        bad = edges[((edges < 0) | (edges >= self.n)).any(axis=1) | (edges[:, 0] == edges[:, 1])]
        if bad.size:
            raise ControllerError(
                f"edge {bad[0, 0]}-{bad[0, 1]} cannot be used",
                where="graph",
                expected=f"two different agents of 0 to {self.n - 1}",
            )
        object.__setattr__(self, "edges", np.unique(np.sort(edges, axis=1), axis=0))
        far = np.flatnonzero(self._hops_from(0) < 0)
        if far.size:
            raise ControllerError(
                f"{far.size} of {self.n} agents have no path to agent 0, the first is {far[0]}",
                where="graph",
                expected="a connected graph",
            )

    @classmethod
    def ring(cls, n: int) -> Graph:
        """Return a cycle of n agents."""
        at = np.arange(n)
        return cls(n, np.stack([at, (at + 1) % n], axis=1)[: n if n > 2 else n - 1])

    @classmethod
    def grid(cls, rows: int, columns: int) -> Graph:
        """Return a rectangular grid without diagonals."""
        at = np.arange(rows * columns).reshape(rows, columns)
        pairs = [(at[:, :-1], at[:, 1:]), (at[:-1], at[1:])]
        edges = [np.stack([a.ravel(), b.ravel()], axis=1) for a, b in pairs]
        return cls(rows * columns, np.concatenate(edges))

    @classmethod
    def star(cls, n: int) -> Graph:
        """Return n agents of which the last is a peer of all others."""
        at = np.arange(n - 1)
        return cls(n, np.stack([at, np.full(n - 1, n - 1)], axis=1))

    @classmethod
    def geometric(cls, n: int, seed: int) -> Graph:
        """Return points of the unit square that know all others within a radius.

        The radius is the smallest of sqrt(2 log(n) / (pi n)) 1.2^k for which they are connected.
        """
        points = np.random.default_rng(seed).random((n, 2))
        distance = np.hypot(*(points[:, None, :] - points[None, :, :]).transpose(2, 0, 1))
        radius = np.sqrt(2.0 * np.log(max(n, 2)) / (np.pi * n))
        while True:
            edges = np.argwhere(np.triu(distance < radius, k=1))
            try:
                return cls(n, edges)
            except ControllerError:
                radius *= 1.2

    @cached_property
    def arcs(self) -> tuple[IntArray, IntArray]:
        """Sources and targets of the directed links, (2 m,), ordered by target, then source."""
        both = np.concatenate([self.edges, self.edges[:, ::-1]])
        order = np.lexsort((both[:, 0], both[:, 1]))
        return both[order, 0], both[order, 1]

    @cached_property
    def degree(self) -> IntArray:
        """Number of neighbours, (n,)."""
        return np.bincount(self.edges.ravel(), minlength=self.n)

    @cached_property
    def spectrum(self) -> FloatArray:
        """Eigenvalues of the Laplacian, (n,), rising."""
        laplacian = np.diag(self.degree.astype(float))
        i, j = self.edges.T
        laplacian[i, j] = laplacian[j, i] = -1.0
        return np.asarray(np.linalg.eigvalsh(laplacian))

    @cached_property
    def diameter(self) -> int:
        """Largest number of hops between two agents."""
        from scipy.sparse.csgraph import shortest_path

        hops = shortest_path(self._matrix, unweighted=True, directed=False)
        return int(hops.max())

    def mixing(self, weights: Weights = "optimal") -> tuple[FloatArray, FloatArray]:
        """Return the weight of each arc and the own weight of each agent: rows of W sum to 1.

        "optimal": gamma = 2 / (lambda_2 + lambda_n) of the Laplacian, the best constant weight; its
        rate is (lambda_n - lambda_2) / (lambda_n + lambda_2). "metropolis": 1 / (1 + max of both
        degrees), which needs no eigenvalues. A number: that weight of every arc. (Xiao and Boyd,
        "Fast linear iterations for distributed averaging", 2004.)
        """
        source, target = self.arcs
        if weights not in ("optimal", "metropolis") and not 0.0 < _number(weights) < np.inf:
            raise ControllerError(
                f"mixing weights {weights!r} are not known",
                where="graph",
                expected="'optimal', 'metropolis' or a positive number",
            )
        if weights == "metropolis":
            arc = 1.0 / (1.0 + np.maximum(self.degree[source], self.degree[target]))
        elif not isinstance(weights, str):
            arc = np.full(len(source), float(weights))
        else:
            ends = self.spectrum[1] + self.spectrum[-1] if self.n > 1 else 1.0
            arc = np.full(len(source), 2.0 / ends)
        return arc, np.asarray(1.0 - np.bincount(target, arc, self.n))

    def rate(self, weights: Weights = "optimal") -> float:
        """Return the factor by which `mixing` reduces the disagreement per round in the end."""
        return float(np.max(np.abs(self.mixing_values(weights)[:-1]), initial=0.0))

    def mixing_values(self, weights: Weights = "optimal") -> FloatArray:
        """Return the eigenvalues of W, (n,), rising; the last is 1."""
        if weights == "metropolis":
            return self._metropolis_values
        arc, _ = self.mixing(weights)
        return np.asarray(1.0 - arc[0] * self.spectrum[::-1]) if len(arc) else np.ones(1)

    @cached_property
    def _metropolis_values(self) -> FloatArray:
        arc, own = self.mixing("metropolis")
        source, target = self.arcs
        matrix = np.diag(own)
        matrix[target, source] = arc
        return np.asarray(np.linalg.eigvalsh(matrix))

    @cached_property
    def _matrix(self) -> sparse.csr_array:
        from scipy.sparse import coo_array

        i, j = self.edges.T
        return coo_array((np.ones(len(i)), (i, j)), shape=(self.n, self.n)).tocsr()

    def _hops_from(self, agent: int) -> IntArray:
        """Return the number of hops to each agent, (n,); negative: none."""
        from scipy.sparse.csgraph import shortest_path

        hops = shortest_path(self._matrix, unweighted=True, directed=False, indices=agent)
        return np.where(np.isfinite(hops), hops, -1).astype(np.int64)
