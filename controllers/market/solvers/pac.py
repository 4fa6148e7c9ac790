"""Proximal atomic coordination (PAC): a clearing by atoms that talk to their neighbours only.

Equations (10a-g) of N. Patari et al., "Distributed Optimization in Distribution Systems: Use Cases,
Limitations, and Research Needs", with all equalities in the Lagrangian, one step size for all and
``gamma_hat = gamma``. That is the primal-dual hybrid gradient method (A. Chambolle and T. Pock, J.
Math. Imaging Vis. 40, 2011) in its dual-first order: with K, b the rows of
`controllers.market.solvers.atoms`, ``tau = rho`` and ``sigma = rho gamma``::

    y+ = y + sigma (K x - b)                     (10b, 10e)   after the neighbours' x
    x+ = prox(x - tau K' (2 y+ - y))             (10c, 10f, 10a)   after the neighbours' 2 y+ - y

It converges when ``tau sigma |K|^2 < 1``. The primal weight omega, ``tau = 0.99/(|K| omega)``,
``sigma = 0.99 omega/|K|``, is the one knob.

Anchored, the step is reflected and drawn to the state z0 of the last restart (Halpern's iteration
on PDHG: H. Lu and J. Yang, "Restarted Halpern PDHG for linear programming", 2024)::

    z <- (j+1)/(j+2) (2 T(z) - z) + 1/(j+2) z0

with j the iterations since the restart. The anchor is each atom's own; restarts fall on fixed
iterations, so neighbours exchange the same two messages and nobody needs a norm over all atoms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray
from controllers.market.model.problem import ClearingProblem, Dispatch
from controllers.market.solvers.atoms import Atoms, Scales, make_atoms
from controllers.market.solvers.stopping import DistributedClearing, Rule, Watch
from controllers.market.solvers.warm_start import Start, begin

# The primal weight per unit of the import price; see docs/market-distributed.md for the curve.
WEIGHT_PER_PRICE = 50.0
FIRST_RESTART = 100
RESTART_GROWTH = 1.3


@dataclass(frozen=True, slots=True)
class PacSteps:
    """Step sizes, equal for all atoms."""

    tau: float
    sigma: float

    @staticmethod
    def of(atoms: Atoms, weight: float | None) -> PacSteps:
        """Return the step sizes for a primal weight (None: the default, from the import price)."""
        if weight is None:
            weight = default_weight(atoms.problem)
        if not weight > 0.0 or not np.isfinite(weight):
            raise ControllerError(
                f"the primal weight is {weight:g}", where="PAC", expected="more than 0"
            )
        return PacSteps(0.99 / (atoms.norm * weight), 0.99 * weight / atoms.norm)


def default_weight(problem: ClearingProblem) -> float:
    """Return the primal weight that needs no tuning: prices over powers, by their usual sizes."""
    return WEIGHT_PER_PRICE * max(abs(problem.import_price), 1e-3)


@dataclass(frozen=True, slots=True)
class Anchor:
    """When the atoms set a new anchor: after `first` iterations, then in growing intervals."""

    first: int = FIRST_RESTART
    growth: float = RESTART_GROWTH

    def shares(self, iterations: int) -> FloatArray:
        """Return the anchor's share 1/(j+2) of each iteration; 0.5 right after a restart."""
        out = np.empty(iterations)
        length, at = float(self.first), 0
        while at < iterations:
            stop = min(iterations, at + max(1, round(length)))
            out[at:stop] = 1.0 / np.arange(2, 2 + stop - at)
            at, length = stop, length * self.growth
        return out


def clear_pac(
    problem: ClearingProblem,
    start: Dispatch | Start | None = None,
    *,
    max_iterations: int = 5000,
    tolerance: float = 1e-3,
    infeasibility_kw: float = 1.0,
    limits_pu: float = 1e-4,
    weight: float | None = None,
    anchor: Anchor | None = Anchor(),
    scales: Scales | None = None,
) -> DistributedClearing:
    """Clear by proximal atomic coordination.

    Parameters
    ----------
    problem : ClearingProblem
    start : Dispatch or Start, optional
        Default: `warm_start`.
    max_iterations : int
    tolerance : float
        Largest distance of the cost from the optimum and largest duality gap, relative to the
        cost; see `controllers.market.solvers.stopping`.
    infeasibility_kw : float
        Largest error of a balance.
    limits_pu : float
        Largest excess of a voltage limit, pu, or of a rating, relative, by the set-points carried
        by physics.
    weight : float, optional
        Primal weight omega; default 50 times the import price.
    anchor : Anchor, optional
        Restarts of the anchored form; None for the equations as printed.
    scales : Scales, optional
        Sizes of the variables.

    Raises
    ------
    ControllerError
        The problem is none, or a parameter is out of range.
    """
    rule = Rule(max_iterations, tolerance, infeasibility_kw, limits_pu)
    atoms = make_atoms(problem, scales)
    steps = PacSteps.of(atoms, weight)
    x, y = begin(atoms, start)
    shares = None if anchor is None else anchor.shares(max_iterations)
    watch = Watch(atoms, rule, messages_per_line=4)
    return watch.finished(*_iterate(atoms, steps, shares, x, y, max_iterations, watch))


def _iterate(
    atoms: Atoms,
    steps: PacSteps,
    shares: FloatArray | None,
    x: FloatArray,
    y: FloatArray,
    max_iterations: int,
    watch: Watch,
) -> tuple[FloatArray, FloatArray]:
    """Return the last x and y."""
    x_anchor, y_anchor = x, y
    x_next, y_next = x, y
    for k in range(max_iterations):
        y_next = dual_step(atoms.matrix @ x.ravel(), atoms.rhs, y, steps.sigma)
        along = (atoms.transposed @ (2.0 * y_next - y)).reshape(x.shape)
        x_next = atoms.law.proximal(x - steps.tau * along, steps.tau)
        if watch.due(k + 1) and watch.may_stop(k + 1, x_next, y_next):
            break
        if shares is None:
            x, y = x_next, y_next
            continue
        share = float(shares[k])
        if share == 0.5:
            x_anchor, y_anchor = x, y
        x = drawn(x, x_next, x_anchor, share)
        y = drawn(y, y_next, y_anchor, share)
    return x_next, y_next


def dual_step(rows: FloatArray, rhs: FloatArray, y: FloatArray, sigma: float) -> FloatArray:
    """Return the duals after a step along the error of the rows (10b, 10e)."""
    return y + sigma * (rows - rhs)


def drawn(z: FloatArray, step: FloatArray, anchor: FloatArray, share: float) -> FloatArray:
    """Return the reflected step drawn to the anchor (Halpern)."""
    return (1.0 - share) * (2.0 * step - z) + share * anchor
