"""NST-PAC: PAC with the quadratic penalties kept and with Nesterov steps on primal and dual.

The form of the thesis slides ("Enhanced version: NST-PAC"), with ``tau = rho_j`` and
``sigma = rho_j gamma_j`` equal for all atoms::

    a+    = argmin L(a; y^) + sigma/2 |K_own a + K_off a_seen - b|^2 + |a - a_now|^2 / (2 tau)
    a^    = a+ + alpha (a+ - a_now)                                  to the neighbours
    y+    = y^ + sigma (K a^ - b)
    y^    = y+ + phi (y+ - y)                                        to the neighbours

``B_j a_j`` is read with the neighbours' parts of the row (K_off), as last sent: without them the
penalty drives an atom's own side of each row to zero. The penalty couples the variables of an atom,
so its problem has no closed form; it is solved by accelerated proximal gradient steps (A. Beck and
M. Teboulle, FISTA, SIAM J. Imaging Sci. 2(1), 2009, with the constant momentum of a strongly convex
problem), within the atom: no message passes. Messages an iteration are those of PAC.

There is no proof of convergence for this form, and it has a narrow range: phi = 0.9, or steps three
times those of PAC, diverge in every case measured (docs/market-distributed.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray
from controllers.market.model.problem import ClearingProblem, Dispatch
from controllers.market.solvers.atoms import Atoms, Scales, make_atoms
from controllers.market.solvers.pac import default_weight
from controllers.market.solvers.stopping import (
    DistributedClearing,
    Rule,
    Watch,
    check_whole,
    diverged,
)
from controllers.market.solvers.warm_start import Start, begin


@dataclass(frozen=True, slots=True)
class Momentum:
    """How far each sequence is carried on: `alpha` of the primal, `phi` of the duals."""

    alpha: float = 0.0
    phi: float = 0.5


def clear_nst_pac(
    problem: ClearingProblem,
    start: Dispatch | Start | None = None,
    *,
    max_iterations: int = 1000,
    tolerance: float = 1e-3,
    infeasibility_kw: float = 1.0,
    limits_pu: float = 1e-4,
    weight: float | None = None,
    momentum: Momentum = Momentum(),
    stretch: float = 1.0,
    inner_steps: int = 15,
    scales: Scales | None = None,
) -> DistributedClearing:
    """Clear by NST-PAC.

    Parameters
    ----------
    problem, start, max_iterations, tolerance, infeasibility_kw, limits_pu, weight, scales
        As in `clear_pac`.
    momentum : Momentum
        phi of 0.9 diverges.
    stretch : float
        Factor on both step sizes of PAC; the penalty allows more than 1.
    inner_steps : int
        Accelerated steps within an atom, each iteration.

    Raises
    ------
    ControllerError
        The problem is none, or a parameter is out of range.
    """
    rule = Rule(max_iterations, tolerance, infeasibility_kw, limits_pu)
    check_whole("inner_steps", inner_steps)
    atoms = make_atoms(problem, scales)
    weight = default_weight(problem) if weight is None else weight
    for name, value in (("weight", weight), ("stretch", stretch)):
        if not 0.0 < value < np.inf:
            raise ControllerError(f"{name} is {value:g}", where="NST-PAC", expected="more than 0")
    tau = stretch / (atoms.norm * weight)
    sigma = stretch * weight / atoms.norm
    inner = InnerProblem(atoms, tau, sigma, int(inner_steps))
    x, y = begin(atoms, start)
    y_hat, x_hat = y, x
    watch = Watch(atoms, rule, messages_per_line=4)
    for k in range(max_iterations):
        x_next = inner.solve(x, x_hat, y_hat)
        x_hat = x_next + momentum.alpha * (x_next - x)
        y_next = y_hat + sigma * (atoms.matrix @ x_hat.ravel() - atoms.rhs)
        y_hat = y_next + momentum.phi * (y_next - y)
        x, y = x_next, y_next
        if watch.due(k + 1) and (watch.may_stop(k + 1, x, y) or diverged(watch.history)):
            break
    return watch.finished(x, y)


class InnerProblem:
    """All atoms' problems of one iteration, solved side by side."""

    def __init__(self, atoms: Atoms, tau: float, sigma: float, steps: int) -> None:
        self._atoms, self._tau, self._sigma, self._steps = atoms, tau, sigma, steps
        self._own = _own_part(atoms)
        self._own_t: Any = sparse.csr_array(self._own.T)
        self._off: Any = sparse.csr_array(atoms.matrix - self._own)
        curvature = sigma * _norm_squared(self._own, self._own_t) + 1.0 / tau
        self._step = 1.0 / curvature
        root = np.sqrt(1.0 / (tau * curvature))
        self._carry = float((1.0 - root) / (1.0 + root))

    def solve(self, now: FloatArray, seen: FloatArray, y_hat: FloatArray) -> FloatArray:
        """Return the atoms' answers to the duals `y_hat` and the neighbours' `seen`."""
        atoms = self._atoms
        pull = (atoms.transposed @ y_hat).reshape(now.shape)
        others = self._off @ seen.ravel() - atoms.rhs
        a, a_hat = now, now
        for _ in range(self._steps):
            error = self._own @ a_hat.ravel() + others
            slope = pull + self._sigma * (self._own_t @ error).reshape(now.shape)
            slope += (a_hat - now) / self._tau
            a_next = atoms.law.proximal(a_hat - self._step * slope, self._step)
            a_hat = a_next + self._carry * (a_next - a)
            a = a_next
        return a


def _own_part(atoms: Atoms) -> Any:
    """Return the rows with only those columns that belong to the row's own atom."""
    entries = sparse.coo_array(atoms.matrix)
    mine = entries.row % atoms.n == entries.col % atoms.n
    return sparse.csr_array(
        (entries.data[mine], (entries.row[mine], entries.col[mine])), shape=entries.shape
    )


def _norm_squared(matrix: Any, transposed: Any, steps: int = 60) -> float:
    """Return the squared 2-norm by power iteration, with 1 % to spare."""
    vector = 1.0 + np.cos(np.arange(matrix.shape[1], dtype=np.float64))
    length = 1.0
    for _ in range(steps):
        vector = transposed @ (matrix @ vector)
        length = float(np.linalg.norm(vector))
        vector /= length
    return 1.01 * length
