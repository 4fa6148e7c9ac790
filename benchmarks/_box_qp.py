"""Box-constrained convex quadratic programmes: an exact solver with the factorisation kept.

    minimise 1/2 z'H z + h'z    subject to  low <= z <= high   (entries may be infinite)

Primal-dual active set (Hintermueller, Ito, Kunisch: The primal-dual active set strategy as a
semismooth Newton method, SIAM J. Optim. 13, 2002): guess the bounds that hold, solve the
equations, correct the guess; a guess that repeats itself is the solution. H^-1 is kept, so a guess
costs a solve of the size of the active set. Where the guesses cycle, which H with large
off-diagonal entries can cause, an interior-point-free fallback (projected accelerated gradient
with restart) brings the plan near and the active set ends it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray

_MAX_GUESSES = 60
_GRADIENT_STEPS = 500


@dataclass(frozen=True, slots=True)
class BoxQpResult:
    """Solution `z` (n,), number of guesses, and the largest violation of the optimality test."""

    z: FloatArray
    guesses: int
    residual: float


class BoxQp:
    """Programmes with one Hessian and changing linear terms.

    Parameters
    ----------
    h : (n, n). Symmetric positive definite.

    Raises
    ------
    ControllerError: `h` is not symmetric positive definite.
    """

    def __init__(self, h: FloatArray) -> None:
        self._h = np.asarray(h, dtype=np.float64)
        if self._h.ndim != 2 or self._h.shape[0] != self._h.shape[1]:
            raise ControllerError(f"H has shape {self._h.shape}", where="box QP", expected="(n, n)")
        scale = float(np.abs(self._h).max(initial=1e-300))
        if not np.isfinite(scale) or np.abs(self._h - self._h.T).max(initial=0.0) > 1e-9 * scale:
            raise ControllerError("H is not symmetric and finite", where="box QP")
        try:
            factor = cho_factor(self._h)
        except np.linalg.LinAlgError:
            raise ControllerError(
                "H is not positive definite", where="box QP", expected="a strictly convex cost"
            ) from None
        inverse = cho_solve(factor, np.eye(len(self._h)))
        self._inverse: FloatArray = 0.5 * (inverse + inverse.T)
        self._lipschitz = float(np.linalg.eigvalsh(self._h)[-1])

    def solve(
        self,
        h: FloatArray,
        low: FloatArray,
        high: FloatArray,
        warm: FloatArray | None = None,
        tolerance: float = 1e-9,
    ) -> BoxQpResult:
        """Return the minimiser.

        Parameters
        ----------
        h, low, high : (n,)
        warm : (n,). A guess of the solution.
        tolerance : float
            Of the optimality test ``|z - clip(z - gradient)|``, relative to the terms' size.

        Raises
        ------
        ControllerError: A bound is above its upper one, or a number is not finite.
        """
        if not np.isfinite(h).all() or np.isnan(low).any() or np.isnan(high).any():
            raise ControllerError("a linear term or bound is not a number", where="box QP")
        if (low > high).any():
            raise ControllerError(
                "a lower bound is above its upper one", where="box QP", expected="low <= high"
            )
        z = np.clip(-self._inverse @ h if warm is None else warm, low, high)
        z, guesses, done = self._active_set(h, low, high, z)
        if not done:
            z = self._gradient(h, low, high, np.clip(z, low, high))
            better, more, done = self._active_set(h, low, high, z)
            guesses += more
            z = better if done else z
        z = np.clip(z, low, high)
        return BoxQpResult(z, guesses, self._residual(h, low, high, z, tolerance))

    def _residual(
        self, h: FloatArray, low: FloatArray, high: FloatArray, z: FloatArray, tolerance: float
    ) -> float:
        gradient = self._h @ z + h
        residual = float(np.abs(z - np.clip(z - gradient, low, high)).max(initial=0.0))
        if residual > tolerance * (1.0 + float(np.abs(h).max(initial=0.0))):
            z[:] = self._gradient(h, low, high, z, 40 * _GRADIENT_STEPS)
            gradient = self._h @ z + h
            residual = float(np.abs(z - np.clip(z - gradient, low, high)).max(initial=0.0))
        return residual

    def _active_set(
        self, h: FloatArray, low: FloatArray, high: FloatArray, z: FloatArray
    ) -> tuple[FloatArray, int, bool]:
        free_solution = -self._inverse @ h
        pull = self._h @ z + h
        c = self._lipschitz
        at_low, at_high = z - pull / c < low, z - pull / c > high
        for guess in range(1, _MAX_GUESSES + 1):
            held = np.flatnonzero(at_low | at_high)
            z = free_solution.copy()
            force = np.zeros(z.size)
            if held.size:
                bound = np.where(at_low[held], low[held], high[held])
                rows = self._inverse[:, held]
                # Force that the bounds must add so that the held entries lie on them.
                force[held] = np.linalg.solve(rows[held], bound - free_solution[held])
                z += rows @ force[held]
                z[held] = bound
            next_low = np.where(at_low, force > 0.0, z < low)
            next_high = np.where(at_high, force < 0.0, z > high)
            if (next_low == at_low).all() and (next_high == at_high).all():
                return z, guess, True
            at_low, at_high = next_low, next_high
        return z, _MAX_GUESSES, False

    def _gradient(
        self,
        h: FloatArray,
        low: FloatArray,
        high: FloatArray,
        z: FloatArray,
        steps: int = _GRADIENT_STEPS,
    ) -> FloatArray:
        """Projected accelerated gradient with restart (O'Donoghue and Candes 2015)."""
        ahead, t = z, 1.0
        for _ in range(steps):
            new = np.clip(ahead - (self._h @ ahead + h) / self._lipschitz, low, high)
            if float((ahead - new) @ (new - z)) > 0.0:
                t, ahead = 1.0, z
                continue
            t_next = 0.5 * (1.0 + np.sqrt(1.0 + 4.0 * t * t))
            ahead = new + (t - 1.0) / t_next * (new - z)
            z, t = new, t_next
        return z
