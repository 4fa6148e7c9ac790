"""A primal-dual interior point for sparse nonlinear programs.

    solver = InteriorPoint(nlp)                    # orders the Newton matrix, once
    found = solver.solve()                         # from nlp.start
    found = solver.solve(Terms(linear, weight, target), warm=found)

`nlp` is a `controllers.optimisation.nlp.Nlp`; `Terms` are added to its objective, for algorithms
whose local problems change by linear and quadratic terms only (ADMM, ATC, APP, ALADIN). A warm
start takes x and all multipliers from an earlier solution. At a solution

    gradient of f + terms + equality' g_x + inequality' h_x + bound = 0

Step lengths are those of MATPOWER's MIPS (reference: `barrier`), and so is the barrier rule once
constraints are hardly violated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from controllers.core.mail import FloatArray
from controllers.optimisation.barrier import BarrierBlock, Iterate, Terms
from controllers.optimisation.nlp import Nlp

__all__ = ["InteriorPoint", "Solution", "Status", "Terms"]

Status = Literal["converged", "iteration limit", "stalled", "diverged"]
"""stalled: steps became too short, mostly because there is no feasible point near."""

SHORTEST_STEP = 1e-8
_BARRIER_SHARE = 0.1
"""Barrier parameter relative to the mean of s z."""
_BARRIER_PER_VIOLATION = 1e-3
"""Least barrier parameter while constraints are violated, up to the mean of s z: slacks that vanish
long before the constraints hold block all further steps."""
_SHIFTS = (0.0, 1e-8, 1e-4, 1.0)
"""Added to the diagonal of the Hessian, the next where the Newton matrix is singular."""


@dataclass(frozen=True)
class Solution:
    """Where a solver ended.

    Attributes
    ----------
    status : "converged", or why not.
    x : (n,)
    objective : f(x), without added terms.
    equality, inequality : Multipliers of g = 0 and h <= 0.
    bound : (n,). Multipliers of the bounds: positive at upper ones, negative at lower ones.
    iterations : Newton steps.
    primal : Largest violation of a constraint.
    dual : Largest entry of the gradient of the Lagrangian, relative to 1 + the largest multiplier.
    gap : Sum of slack times multiplier, relative to 1 + the objective.
    iterate : For a warm start.
    """

    status: Status
    x: FloatArray
    objective: float
    equality: FloatArray
    inequality: FloatArray
    bound: FloatArray
    iterations: int
    primal: float
    dual: float
    gap: float
    iterate: Iterate

    @property
    def converged(self) -> bool:
        """Whether the residuals are within the tolerance."""
        return self.status == "converged"


def next_barrier(product: float, violation: float) -> float:
    """Return the barrier parameter of the next step.

    product : Mean of slack times multiplier. violation : Primal residual before the last step.
    """
    return max(_BARRIER_SHARE * product, min(_BARRIER_PER_VIOLATION * violation, product))


def newton_step(block: BarrierBlock, mu: float) -> Iterate | None:
    """Return the step at the iterate last looked at, None where no shift gives a finite one."""
    for shift in _SHIFTS:
        try:
            solution = block.factor(shift)(block.right_side(mu))
        except RuntimeError:
            continue
        step = block.step(solution)
        if step.finite:
            return step
    return None


class InteriorPoint:
    """Solves one nonlinear program, again and again with other `Terms`.

    Parameters
    ----------
    nlp : The program.
    tolerance : Of `Solution.primal`, `dual` and `gap`.
    most_iterations : Newton steps of a solution.
    """

    def __init__(self, nlp: Nlp, *, tolerance: float = 1e-8, most_iterations: int = 100) -> None:
        self.tolerance = tolerance
        self.most_iterations = most_iterations
        self._block = BarrierBlock(nlp)

    def solve(
        self,
        terms: Terms | None = None,
        *,
        start: FloatArray | None = None,
        warm: Solution | None = None,
        warm_barrier: float = 1e-5,
    ) -> Solution:
        """Return a local optimum, or where the iteration ended.

        Parameters
        ----------
        terms : Added to the objective.
        start : (n,). Instead of ``nlp.start``.
        warm : An earlier solution, used instead of a start.
        warm_barrier : Barrier parameter of a warm start: larger ones take solutions that are
            further away.
        """
        block = self._block
        block.terms = terms
        if warm is not None:
            at = block.restart(warm.iterate, warm_barrier)
            mu = warm_barrier
        else:
            at, mu = block.start(block.nlp.start if start is None else start, 1.0), 1.0
        violation = 0.0
        for iteration in range(self.most_iterations + 1):
            left = block.look(at)
            errors = left.relative
            if max(errors) <= self.tolerance:
                return self._solution("converged", iteration, errors)
            if iteration == self.most_iterations:
                break
            if iteration:
                mu = next_barrier(left.product / max(block.rows, 1), violation)
            violation = left.primal
            step = newton_step(self._block, mu)
            if step is None:
                return self._solution("diverged", iteration, errors)
            primal, dual = at.lengths(step)
            if max(primal, dual) < SHORTEST_STEP:
                return self._solution("stalled", iteration, errors)
            at = at.moved(step, primal, dual)
        return self._solution("iteration limit", self.most_iterations, errors)

    def _solution(
        self, status: Status, iterations: int, errors: tuple[float, float, float]
    ) -> Solution:
        block = self._block
        equality, inequality, bound = block.multipliers(block.iterate)
        return Solution(
            status, block.iterate.x, block.point.objective, equality, inequality, bound,
            iterations, *errors, block.iterate,
        )  # fmt: skip
