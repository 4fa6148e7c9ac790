"""One iteration for a batch of cluster problems: a kept factorisation, a clip, an exchange.

Cluster c has the problem, in z and with the parameters theta of the moment,

    minimise 1/2 z'H z + (M theta)'z + penalty(B z + B0 theta),   coupled by S z + S0 theta

where the penalty keeps its rows inside bounds (hard) or pulls them there (soft, quadratic), and
the coupling rows of two neighbours must agree. With the rows stacked, R = [B; S], and one state t
per row, an iteration is

    v = argmin 1/2 z'H z + (M theta)'z + 1/2 |R z + r0 - t|^2_rho    (its rows)   = G t + g0
    w = 2 v - t
    r = 2 clip(w) - w on bounded rows,  the neighbour's w on coupling rows
    t = t + relaxation (r - t)

relaxation 1/2 is edge-wise ADMM (Douglas-Rachford), towards 1 Peaceman-Rachford. The coupling part
is the relaxed ADMM of Bastianello, Carli, Schenato, Todescato: Asynchronous Distributed
Optimization over Lossy Networks via Relaxed ADMM: Stability and Linear Convergence, IEEE Trans.
Autom. Control 66, 2021: a lost message leaves its rows of t as they are, and the fixed point does
not move. G and the map theta -> g0 are computed once; so an iteration of all clusters is one
batched product, a clip and a gather, and bounded rows need no inner loop.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray


@dataclass(frozen=True, eq=False)
class SplitPart:
    """One cluster: H (n, n), M (n, t), B (b, n), B0 (b, t), S (s, n), S0 (s, t).

    `soft` (b,) is the weight of a soft row, infinite for a hard one; `rho_bound` (b,) and
    `rho_couple` (s,) are the penalties of the splitting.
    """

    h: FloatArray
    m: FloatArray
    b: FloatArray
    b0: FloatArray
    s: FloatArray
    s0: FloatArray
    soft: FloatArray
    rho_bound: FloatArray
    rho_couple: FloatArray


class RowSplitting(ABC):
    """The operators of some clusters; their rows are padded to the longest.

    Attributes
    ----------
    bounded, coupled, parameters : int
        Rows of B and of S, and parameters, each the largest of all clusters.
    give : (C, bounded). Share of an excess that a soft row keeps; 0 for hard rows.
    """

    def __init__(self, clusters: int, bounded: int, coupled: int, parameters: int) -> None:
        self.bounded, self.coupled, self.parameters = bounded, max(1, coupled), parameters
        self.give: FloatArray = np.zeros((clusters, bounded))

    def place_give(self, c: int, soft: FloatArray, rho_bound: FloatArray) -> None:
        """Set cluster c's row of `give` from the weights of `SplitPart`."""
        hard = ~np.isfinite(soft)
        weight = np.where(hard, 1.0, soft)
        self.give[c, : len(soft)] = np.where(hard, 0.0, rho_bound / (rho_bound + weight))

    @cached_property
    def _soft(self) -> bool:
        return bool(self.give.any())

    @abstractmethod
    def offset(self, theta: FloatArray) -> FloatArray:
        """Return g0 (C, r, 1) for parameters (C, parameters)."""

    @abstractmethod
    def times(self, t: FloatArray) -> FloatArray:
        """Return G t, (C, r, 1)."""

    @abstractmethod
    def bounded_map(self, t: FloatArray, g0: FloatArray) -> Callable[[FloatArray], FloatArray]:
        """Return the map from bounded rows of t to those of v, the coupling rows as in `t`."""

    def project(self, w: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
        """Return bounded rows (C, bounded, 1) inside their bounds, soft ones nearly so."""
        inside = np.minimum(np.maximum(w, low), high)
        if self._soft:
            inside += self.give[..., None] * (w - inside)
        return inside


class ClusterSplitting(RowSplitting):
    """The operators of all clusters as dense matrices, or of some of them.

    Attributes
    ----------
    g : (C, r, r). ``v = g t + g0``, r = bounded + coupled.
    drive : (C, r, parameters). ``g0 = drive theta``.
    """

    def __init__(self, parts: Sequence[SplitPart]) -> None:
        super().__init__(
            len(parts),
            max(len(p.b) for p in parts),
            max(len(p.s) for p in parts),
            max(p.m.shape[1] for p in parts),
        )
        rows = self.bounded + self.coupled
        self.g: FloatArray = np.zeros((len(parts), rows, rows))
        self.drive: FloatArray = np.zeros((len(parts), rows, self.parameters))
        for c, part in enumerate(parts):
            self._place(c, part)
        self._between_bounded = np.ascontiguousarray(self.g[:, : self.bounded, : self.bounded])

    def _place(self, c: int, part: SplitPart) -> None:
        nb, ns, nt = len(part.b), len(part.s), part.m.shape[1]
        r = np.vstack([part.b, part.s])
        r0 = np.vstack([part.b0, part.s0])
        rho = np.concatenate([part.rho_bound, part.rho_couple])
        try:
            factor = np.linalg.cholesky(part.h + r.T @ (rho[:, None] * r))
        except np.linalg.LinAlgError:
            raise ControllerError(
                "a cluster's problem has no unique optimum", expected="positive weights"
            ) from None
        half = np.linalg.solve(factor, r.T)
        g = half.T @ half * rho
        drive = r0 - g @ r0 - half.T @ np.linalg.solve(factor, part.m)
        at = np.concatenate([np.arange(nb), self.bounded + np.arange(ns)])
        self.g[c][np.ix_(at, at)] = g
        self.drive[c, at, :nt] = drive
        self.place_give(c, part.soft, part.rho_bound)

    def of(self, chosen: Sequence[int]) -> ClusterSplitting:
        """Return the operators of some clusters; padding stays, so their bits do too."""
        out = object.__new__(ClusterSplitting)
        RowSplitting.__init__(out, len(chosen), self.bounded, self.coupled, self.parameters)
        at = np.array(chosen, dtype=np.int64)
        out.g, out.drive, out.give = self.g[at], self.drive[at], self.give[at]
        out._between_bounded = self._between_bounded[at]
        return out

    def offset(self, theta: FloatArray) -> FloatArray:
        """Return g0; see `RowSplitting`."""
        return np.asarray(self.drive @ theta[..., None])

    def times(self, t: FloatArray) -> FloatArray:
        """Return G t; see `RowSplitting`."""
        return np.asarray(np.matmul(self.g, t))

    def bounded_map(self, t: FloatArray, g0: FloatArray) -> Callable[[FloatArray], FloatArray]:
        """Return the map of bounded rows; see `RowSplitting`."""
        nb = self.bounded
        fixed = self.g[:, :nb, nb:] @ t[:, nb:] + g0[:, :nb]
        return lambda rows: self._between_bounded @ rows + fixed
