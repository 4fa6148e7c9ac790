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

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, IntArray


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


class Splitting:
    """The operators of all clusters, padded to one shape, or of some of them.

    Attributes
    ----------
    bounded, coupled, parameters : int
        Rows of B and of S, and parameters, each the largest of all clusters.
    g : (C, r, r). ``v = g t + g0``, r = bounded + coupled.
    drive : (C, r, parameters). ``g0 = drive theta``.
    give : (C, bounded). Share of an excess that a soft row keeps; 0 for hard rows.
    """

    def __init__(self, parts: Sequence[SplitPart]) -> None:
        self.bounded = max(len(p.b) for p in parts)
        self.coupled = max(1, *(len(p.s) for p in parts))
        self.parameters = max(p.m.shape[1] for p in parts)
        rows = self.bounded + self.coupled
        self.g: FloatArray = np.zeros((len(parts), rows, rows))
        self.drive: FloatArray = np.zeros((len(parts), rows, self.parameters))
        self.give: FloatArray = np.zeros((len(parts), self.bounded))
        for c, part in enumerate(parts):
            self._place(c, part)
        self._soft = bool(self.give.any())

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
        hard = ~np.isfinite(part.soft)
        weight = np.where(hard, 1.0, part.soft)
        self.give[c, :nb] = np.where(hard, 0.0, part.rho_bound / (part.rho_bound + weight))

    def of(self, chosen: Sequence[int]) -> Splitting:
        """Return the operators of some clusters; padding stays, so their bits do too."""
        out = object.__new__(Splitting)
        out.bounded, out.coupled, out.parameters = self.bounded, self.coupled, self.parameters
        at = np.array(chosen, dtype=np.int64)
        out.g, out.drive, out.give = self.g[at], self.drive[at], self.give[at]
        out._soft = self._soft
        return out

    def offsets(self, thetas: Sequence[FloatArray]) -> FloatArray:
        """Return g0 (C, r, 1) for the parameters of the moment."""
        padded = np.zeros((len(self.g), self.parameters, 1))
        for c, theta in enumerate(thetas):
            padded[c, : len(theta), 0] = theta
        result: FloatArray = self.drive @ padded
        return result

    def project(self, w: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
        """Return bounded rows (C, bounded, 1) inside their bounds, soft ones nearly so."""
        inside = np.minimum(np.maximum(w, low), high)
        if self._soft:
            inside += self.give[..., None] * (w - inside)
        return inside


@dataclass(frozen=True, slots=True)
class Outcome:
    """What some iterations gave.

    Attributes
    ----------
    bounded : (C, bounded). The bounded rows, inside hard bounds whatever the number of iterations.
    residual : Largest disagreement of coupling rows; NaN when it was not asked for.
    """

    bounded: FloatArray
    iterations: int
    residual: float


class EdgeWise:
    """All clusters in one process: the solver as a library, and the reference of the mail form.

    Parameters
    ----------
    twin : (C, coupled). Where in the flattened coupling rows the neighbour's twin of each row is.
    relaxation : In (0, 1).
    """

    def __init__(self, splitting: Splitting, twin: IntArray, relaxation: float = 0.9) -> None:
        if not 0.0 < relaxation < 1.0:
            raise ControllerError(
                f"relaxation is {relaxation}", where="edge-wise ADMM", expected="a number in (0, 1)"
            )
        self.splitting = splitting
        self._twin = np.asarray(twin).ravel()
        self._alpha = relaxation
        self.t: FloatArray = np.zeros((*splitting.g.shape[:2], 1))
        self._v = np.empty_like(self.t)
        self._w = np.empty_like(self.t)

    def solve(
        self,
        g0: FloatArray,
        low: FloatArray,
        high: FloatArray,
        iterations: int,
        *,
        tolerance: float | None = None,
        budget_s: float | None = None,
        clock: Callable[[], float] | None = None,
    ) -> Outcome:
        """Iterate from the present `t`, which is changed in place.

        Parameters
        ----------
        g0 : (C, r, 1). From `Splitting.offsets`.
        low, high : (C, bounded, 1)
        iterations : At most this many.
        tolerance : Stop when neighbours disagree by less.
        budget_s, clock : Stop when `clock()` (seconds) has moved on by the budget.
        """
        split, nb, alpha = self.splitting, self.splitting.bounded, self._alpha
        t, v, w, twin = self.t, self._v, self._w, self._twin
        end = clock() + budget_s if clock is not None and budget_s is not None else None
        inside, residual, done = split.project(t[:, :nb], low, high), np.nan, 0
        while done < iterations:
            np.matmul(split.g, t, out=v)
            v += g0
            np.add(v, v, out=w)
            w -= t
            inside = split.project(w[:, :nb], low, high)
            t *= 1.0 - alpha
            t[:, :nb] += alpha * (2.0 * inside - w[:, :nb])
            t[:, nb:] += alpha * w[:, nb:].reshape(-1)[twin].reshape(t[:, nb:].shape)
            done += 1
            if tolerance is not None:
                ends = v[:, nb:].reshape(-1)
                residual = float(np.abs(ends - ends[twin]).max())
                if residual < tolerance:
                    break
            if end is not None and clock is not None and clock() >= end:
                break
        return Outcome(inside[..., 0], done, residual)


class TrackingAdmm:
    """Tracking-ADMM: agents agree on the coupling's residual by mixing instead of edge by edge.

    Falsone, Notarnicola, Notarstefano, Prandini: Tracking-ADMM for distributed
    constraint-coupled optimization, Automatica 117, 2020::

        delta_i = sum W_ij d_j           l_i = sum W_ij lambda_j
        z_i+    = argmin f_i + l_i'A_i z + c/2 |A_i z - A_i z_i + delta_i|^2
        d_i+    = delta_i + A_i (z_i+ - z_i)          lambda_i+ = l_i + c d_i+

    The minimisation takes `inner` warm-started steps of the splitting of `EdgeWise`, with the
    coupling rows held.

    Parameters
    ----------
    splitting : With `rho_couple` = c for every coupling row.
    row : (C, coupled). Global row of each local one; `rows` (one past the last) for padding.
    sign : (C, coupled). +1 for an own voltage, -1 for a copy.
    rows : Number of coupling constraints.
    mixing : (C, C). W, doubly stochastic.
    """

    def __init__(
        self,
        splitting: Splitting,
        row: IntArray,
        sign: FloatArray,
        rows: int,
        mixing: FloatArray,
        c: float,
        inner: int = 3,
        relaxation: float = 0.9,
    ) -> None:
        check_mixing(mixing, len(row))
        self.splitting = splitting
        self._row, self._sign, self._c = row, sign[..., None], c
        self._mixing, self._inner, self._alpha = mixing, inner, relaxation
        n = len(row)
        self._each = np.arange(n)[:, None]
        self.t: FloatArray = np.zeros((*splitting.g.shape[:2], 1))
        self.s: FloatArray = np.zeros((n, splitting.coupled, 1))
        self.d: FloatArray = np.zeros((n, rows + 1))
        self.lam: FloatArray = np.zeros((n, rows + 1))

    def reset(self) -> None:
        """Set d_i = A_i z_i, as a new problem with the present plan asks for."""
        self.d[:] = 0.0
        self.d[self._each, self._row] = (self._sign * self.s)[..., 0]
        self.d[:, -1] = 0.0

    def solve(self, g0: FloatArray, low: FloatArray, high: FloatArray, iterations: int) -> Outcome:
        """Iterate from the present state, which is changed in place; see `EdgeWise.solve`."""
        split, nb, alpha = self.splitting, self.splitting.bounded, self._alpha
        t = self.t
        inside = split.project(t[:, :nb], low, high)
        for _ in range(iterations):
            delta, mult = self._mixing @ self.d, self._mixing @ self.lam
            shift = (delta + mult / self._c)[self._each, self._row][..., None]
            t[:, nb:] = self.s - self._sign * shift
            for step in range(self._inner):
                v = split.g @ t + g0
                w = 2.0 * v[:, :nb] - t[:, :nb]
                inside = split.project(w, low, high)
                t[:, :nb] += alpha * (2.0 * inside - w - t[:, :nb])
                if step == self._inner - 1:
                    moved = (self._sign * (v[:, nb:] - self.s))[..., 0]
                    self.s = v[:, nb:].copy()
            self.d = delta
            np.add.at(self.d, (self._each, self._row), moved)
            self.d[:, -1] = 0.0
            self.lam = mult + self._c * self.d
        residual = float(np.abs(self.d.sum(axis=0)).max())
        return Outcome(inside[..., 0], iterations, residual)


def check_mixing(mixing: FloatArray, n: int) -> None:
    """Refuse a W that is not doubly stochastic and connected, since it would never agree."""
    if mixing.shape != (n, n):
        raise ControllerError(f"W has shape {mixing.shape}", where="mixing", expected=f"({n}, {n})")
    sums = np.concatenate([mixing.sum(axis=0), mixing.sum(axis=1)])
    if (mixing < -1e-12).any() or np.abs(sums - 1.0).max() > 1e-9:
        raise ControllerError("W is not doubly stochastic", where="mixing")
    second = np.linalg.norm(mixing - 1.0 / n, 2)
    if n > 1 and second >= 1.0 - 1e-12:
        raise ControllerError("W does not mix: the agents' graph is disconnected", where="mixing")


def complete_mixing(n: int) -> FloatArray:
    """Return W = 1/n: everybody hears everybody."""
    return np.full((n, n), 1.0 / n)


def metropolis_mixing(pairs: Sequence[tuple[int, int]], n: int, rounds: int = 1) -> FloatArray:
    """Return the Metropolis weights of a graph, to the power of `rounds` mixing rounds."""
    degree = np.zeros(n)
    for a, b in pairs:
        degree[a] += 1
        degree[b] += 1
    w = np.zeros((n, n))
    for a, b in pairs:
        w[a, b] = w[b, a] = 1.0 / (1.0 + max(degree[a], degree[b]))
    w += np.diag(1.0 - w.sum(axis=1))
    return np.asarray(np.linalg.matrix_power(w, rounds))
