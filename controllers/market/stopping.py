"""When a distributed clearing is done: duality gap, infeasibility, and what a clearing returns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controllers.mail import FloatArray
from controllers.market.atoms import Atoms, L, P, Q, W
from controllers.market.cone import project_line
from controllers.market.problem import Dispatch


@dataclass(frozen=True, slots=True)
class Progress:
    """Where an iteration stands.

    Attributes
    ----------
    iteration : int
    cost : float
        Objective, money per hour.
    gap : float
        ``|objective - dual value|`` over the objective.
    dual_error : float
        Worth of what keeps the duals from being feasible, over the objective: the gap is a bound
        only when this is small too.
    infeasibility_kw : float
        Largest error of a balance, in kW or kvar (of a voltage: in per mille).
    """

    iteration: int
    cost: float
    gap: float
    dual_error: float
    infeasibility_kw: float

    def within(self, tolerance: float, infeasibility_kw: float) -> bool:
        """Say whether the clearing may stop here."""
        return max(self.gap, self.dual_error) <= tolerance and (
            self.infeasibility_kw <= infeasibility_kw
        )


@dataclass(frozen=True)
class DistributedClearing:
    """What a distributed clearing found.

    Attributes
    ----------
    dispatch : Dispatch
        The last iterate; its prices are the duals of the balances.
    iterations : int
    converged : bool
        Whether the tolerance was met (else the iterations ran out).
    gap, infeasibility_kw : float
        As in `Progress`, at the end.
    messages : int
        Messages that neighbours would have exchanged.
    history : tuple of Progress
    dual : ndarray, shape (4, n)
        All duals in physical units, for the `Start` of a later clearing.
    """

    dispatch: Dispatch
    iterations: int
    converged: bool
    gap: float
    infeasibility_kw: float
    messages: int
    history: tuple[Progress, ...]
    dual: FloatArray


def diverged(history: list[Progress]) -> bool:
    """Say whether the last infeasibility is a million times the smallest so far, or no number."""
    now = history[-1].infeasibility_kw
    return not np.isfinite(now) or now > 1e6 * max(min(p.infeasibility_kw for p in history), 1e-3)


def finished(
    atoms: Atoms,
    x: FloatArray,
    y: FloatArray,
    history: list[Progress],
    tolerance: float,
    infeasibility_kw: float,
    *,
    messages_per_line: int,
) -> DistributedClearing:
    """Return the clearing that ended at scaled (x, y)."""
    end = history[-1]
    return DistributedClearing(
        dispatch=atoms.dispatch(x, y),
        iterations=end.iteration,
        converged=end.within(tolerance, infeasibility_kw),
        gap=end.gap,
        infeasibility_kw=end.infeasibility_kw,
        messages=messages_per_line * (atoms.n - 1) * end.iteration,
        history=tuple(history),
        dual=(y * atoms.row_scale).reshape(-1, atoms.n),
    )


def progress(atoms: Atoms, iteration: int, x: FloatArray, y: FloatArray) -> Progress:
    """Return where the scaled iterate (x, y) stands.

    The dual value is the minimum of the Lagrangian over the boxes; over a cone it is 0 when the
    reduced costs lie in the (self-dual) cone, and what sticks out of it is counted at the iterate.
    """
    law = atoms.law
    reduced = law.slope + (atoms.transposed @ y).reshape(x.shape)
    g, q = reduced[:P], law.curve[:P]
    flat = np.where(g > 0.0, law.low[:P], law.high[:P])
    least = np.divide(-g, q, out=flat, where=q > 0.0)
    least = np.clip(least, law.low[:P], law.high[:P])
    boxes = float(np.sum((0.5 * q * least + g) * least))
    outside = reduced[P:].copy()
    near = project_line(reduced[P], reduced[Q], reduced[L], reduced[W])
    outside -= np.array(near)
    # At the root the line is free: all of its reduced cost is error. At a rated line the limit has
    # a price of its own, which is min(0, .) times the limit.
    outside[:2, 0] = reduced[P : Q + 1, 0]
    outside[2:, 0] = 0.0
    at = x[P:]
    rated = np.isfinite(law.l_max) & (at[2] >= law.l_max * (1.0 - 1e-6))
    rated[0] = False
    worth = outside * at
    cones = float(worth.sum())
    cost = atoms.cost(x)
    value = boxes + cones + atoms.constant - float(y @ atoms.rhs)
    size = max(abs(cost), 1e-9)
    error = float(np.abs(worth[:, ~rated]).sum()) / size
    return Progress(iteration, cost, abs(cost - value) / size, error, atoms.infeasibility_kw(x))
