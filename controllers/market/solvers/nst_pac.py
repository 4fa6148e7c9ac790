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

import numpy as np

from controllers.core.mail import FloatArray
from controllers.market.solvers.atoms import Atoms
from controllers.market.solvers.iteration import Iteration, Mask, Plan, checked_positive
from controllers.market.solvers.stopping import check_whole


class NstPac(Iteration):
    """NST-PAC.

    Parameters
    ----------
    atoms : Atoms
    plan : Plan
    weight : float, optional. Primal weight, as of PAC.
    alpha, phi : How far the primal sequence and the duals are carried on; phi of 0.9 diverges.
    stretch : float. Factor on both step sizes of PAC; the penalty allows more than 1.
    inner_steps : int. Accelerated steps within an atom, each iteration.
    """

    def __init__(
        self,
        atoms: Atoms,
        plan: Plan,
        *,
        weight: float | None = None,
        alpha: float = 0.0,
        phi: float = 0.5,
        stretch: float = 1.0,
        inner_steps: int = 15,
    ) -> None:
        super().__init__(atoms, plan)
        given = plan.default_weight if weight is None else weight
        omega = checked_positive("weight", given, "NST-PAC")
        stretch = checked_positive("stretch", stretch, "NST-PAC")
        check_whole("inner_steps", inner_steps)
        self.tau, self.sigma = stretch / (plan.norm * omega), stretch * omega / plan.norm
        self._alpha, self._phi, self._steps = alpha, phi, int(inner_steps)
        # The rows of one atom are a part of all rows: their norm is at most that of all.
        curvature = self.sigma * plan.norm**2 + 1.0 / self.tau
        self._step = 1.0 / curvature
        root = np.sqrt(1.0 / (self.tau * curvature))
        self._carry = float((1.0 - root) / (1.0 + root))
        self._x_hat, self._y_hat = self.x, self.y

    def begin(self, where: Mask, x: FloatArray, y: FloatArray, below: FloatArray) -> None:
        """Start anew, without momentum."""
        super().begin(where, x, y, below)
        self.set_some(where, _x_hat=x, _y_hat=y)

    def told(self) -> tuple[FloatArray, FloatArray]:
        """Return the carried variables and duals."""
        return self._x_hat, self._y_hat

    def half(self, stage: int, where: Mask, below: FloatArray, above: FloatArray) -> None:
        """Solve the atoms' problems, then take the dual step."""
        off = self.atoms.rows_off(below[:2], above[0])
        if stage == 0:
            found = self._solve(off, self.atoms.pull(self._y_hat, above[1:], below[2]))
            carried = found + self._alpha * (found - self.x)
            rows = self.atoms.rows_own(found) + off
            self.set_errors(where, rows, found - self.x, self.tau)
            self.set_some(where, x=found, found_x=found, _x_hat=carried)
            return
        found = self._y_hat + self.sigma * (self.atoms.rows_own(self._x_hat) + off)
        carried = found + self._phi * (found - self.y)
        self.set_some(where, y=found, found_y=found, _y_hat=carried)
        self.count[where] += 1

    def _solve(self, off: FloatArray, pull: FloatArray) -> FloatArray:
        """Return the atoms' answers to the neighbours' part of their rows and to the duals."""
        atoms, now = self.atoms, self.x
        a, a_hat = now, now
        for _ in range(self._steps):
            error = atoms.rows_own(a_hat) + off
            slope = pull + self.sigma * atoms.pull_own(error) + (a_hat - now) / self.tau
            a_next = atoms.limits.proximal(a_hat - self._step * slope, self._step)
            a_hat = a_next + self._carry * (a_next - a)
            a = a_next
        return a
