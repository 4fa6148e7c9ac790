"""Proximal atomic coordination (PAC): a clearing by atoms that talk to their neighbours only.

Equations (10a-g) of N. Patari et al., "Distributed Optimization in Distribution Systems: Use Cases,
Limitations, and Research Needs", with all equalities in the Lagrangian and one step size for all:
with K, b the rows of `controllers.market.solvers.atoms`, ``tau = rho`` and ``sigma = rho gamma``::

    y+ = y + sigma (K x - b)                       (10b, 10e)   after the neighbours' x
    y^ = y+ + theta sigma (K x - b)                (10c, 10f)   theta = gamma_hat / gamma
    x+ = prox(x - tau K' y^)                       (10a)        after the neighbours' y^

With theta = 1 that is the primal-dual hybrid gradient method (A. Chambolle and T. Pock, J. Math.
Imaging Vis. 40, 2011) in its dual-first order, which converges when ``tau sigma |K|^2 < 1``. The
primal weight omega, ``tau = 0.99/(|K| omega)``, ``sigma = 0.99 omega/|K|``, is the one knob.

**Private duals.** The review's gamma_hat_j changes from iteration to iteration and is known to atom
j alone. With theta = 1 a neighbour that knows the start rebuilds y from the messages:
``y+ = (y^ + y)/2``. Here atom j draws theta_j anew in every iteration, uniform in (0, 1), as
printed. That hides a part of the last dual step only, so `dual_share` = s below 1 makes that step
smaller and what is shown beside it larger: ``y+ = y + s sigma r``, ``y^ = y+ + g sigma r`` with g
uniform in (0, 2 - s). What this hides, costs and cannot hide is in docs/market-distributed.md:
where the duals stand still, ``y^ = y``.

Anchored, the step is reflected and drawn to the state z0 of the last restart (Halpern's iteration
on PDHG: H. Lu and J. Yang, "Restarted Halpern PDHG for linear programming", 2024)::

    z <- (j+1)/(j+2) (2 T(z) - z) + 1/(j+2) z0

with j the iterations since the restart. The anchor is each atom's own; restarts fall on fixed
iterations, so neighbours exchange the same two messages and nobody needs a norm over all atoms.
"""

from __future__ import annotations

import numpy as np

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray
from controllers.market.solvers.atoms import Atoms
from controllers.market.solvers.iteration import Iteration, Mask, Plan, checked_positive
from grid_models.base.counter_rng import stream_ids, uniform

FIRST_RESTART = 100
RESTART_GROWTH = 1.3
_MIX = np.uint64(0xD6E8FEB86659FD93)


class Pac(Iteration):
    """PAC as printed.

    Parameters
    ----------
    atoms : Atoms
    plan : Plan
    weight : float, optional. Primal weight omega; default 50 times the import price.
    private : bool. Whether atoms draw theta; otherwise it is 1.
    dual_share : float. s above, more than 0 to 1; of private duals.
    """

    def __init__(
        self,
        atoms: Atoms,
        plan: Plan,
        *,
        weight: float | None = None,
        private: bool = True,
        dual_share: float = 1.0,
    ) -> None:
        super().__init__(atoms, plan)
        self._share = checked_positive("dual_share", dual_share, "PAC")
        if dual_share > 1.0:
            raise ControllerError(f"dual_share is {dual_share:g}", where="PAC", expected="0 to 1")
        given = plan.default_weight if weight is None else weight
        omega = checked_positive("the primal weight", given, "PAC")
        self.tau = 0.99 / (plan.norm * omega)
        self.sigma = 0.99 * omega / plan.norm
        self._private = private
        self._streams = stream_ids(f"dual step/{atoms.network.buses[i]}" for i in atoms.hosted)
        self._shown = self.y
        self._rows = np.zeros_like(self.y)

    def begin(self, where: Mask, x: FloatArray, y: FloatArray, below: FloatArray) -> None:
        """Start anew; the first message shows the start itself."""
        super().begin(where, x, y, below)
        self.set_some(where, _shown=y)

    def told(self) -> tuple[FloatArray, FloatArray]:
        """Return x and the protected duals."""
        return self.x, self._shown

    def half(self, stage: int, where: Mask, below: FloatArray, above: FloatArray) -> None:
        """Take the dual step, then the primal step."""
        atoms = self.atoms
        if stage == 0:
            rows = atoms.rows_own(self.x) + atoms.rows_off(below[:2], above[0])
            step = self.sigma * rows
            found = self.y + self._share * step
            shown = found + self._shown_step() * step
            self.set_some(where, found_y=found, _shown=shown, _rows=rows)
            return
        along = atoms.pull(self._shown, above[1:], below[2])
        found = atoms.limits.proximal(self.x - self.tau * along, self.tau)
        self.set_some(where, found_x=found)
        self.set_errors(where, self._rows, found - self.x, self.tau)
        self.advance(where)
        self.count[where] += 1

    def advance(self, where: Mask) -> None:
        """Go on from the step that was found."""
        self.set_some(where, x=self.found_x, y=self.found_y)

    def _shown_step(self) -> FloatArray | float:
        """Return what each atom shows of its dual step beside the dual itself, (m,): g above."""
        if not self._private:
            return 2.0 - self._share
        streams = self._streams + self.count.astype(np.uint64) * _MIX
        return (2.0 - self._share) * uniform(self.plan.seed, streams, 0, 0)


class AnchoredPac(Pac):
    """PAC with anchored steps; restarts after 100, 130, 169, ... iterations.

    Parameters
    ----------
    atoms, plan, weight, private. As of `Pac`; not private by default.
    """

    def __init__(
        self, atoms: Atoms, plan: Plan, *, weight: float | None = None, private: bool = False
    ) -> None:
        super().__init__(atoms, plan, weight=weight, private=private)
        self._x_anchor, self._y_anchor = self.x, self.y
        self._shares = anchor_shares(1024)

    def advance(self, where: Mask) -> None:
        """Draw the reflected step to the anchor."""
        if int(self.count.max(initial=0)) >= self._shares.size:
            self._shares = anchor_shares(2 * self._shares.size)
        share = self._shares[self.count]
        restart = where & (share == 0.5)
        if restart.any():
            self.set_some(restart, _x_anchor=self.x, _y_anchor=self.y)
        x, y = (
            (1.0 - share) * (2.0 * found - now) + share * anchor
            for found, now, anchor in (
                (self.found_x, self.x, self._x_anchor),
                (self.found_y, self.y, self._y_anchor),
            )
        )
        self.set_some(where, x=x, y=y)


def anchor_shares(iterations: int) -> FloatArray:
    """Return the anchor's share 1/(j+2) of each iteration; 0.5 right after a restart."""
    out = np.empty(iterations)
    length, at = float(FIRST_RESTART), 0
    while at < iterations:
        stop = min(iterations, at + max(1, round(length)))
        out[at:stop] = 1.0 / np.arange(2, 2 + stop - at)
        at, length = stop, length * RESTART_GROWTH
    return out
