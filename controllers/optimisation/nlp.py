"""What a nonlinear program tells a solver: values, sparse derivatives, bounds and a start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from controllers.core.mail import FloatArray
from controllers.optimisation.sparse_pattern import Pattern


@dataclass(frozen=True)
class NlpPoint:
    """Values and first derivatives at x.

    Attributes
    ----------
    x : (n,)
    objective, gradient : f(x), and (n,).
    equalities : (n_equalities,). g(x) = 0.
    inequalities : (n_inequalities,). h(x) <= 0.
    equality_slopes, inequality_slopes : Entries of the Jacobians in the order of their patterns.
    """

    x: FloatArray
    objective: float
    gradient: FloatArray
    equalities: FloatArray
    inequalities: FloatArray
    equality_slopes: FloatArray
    inequality_slopes: FloatArray


class Nlp(Protocol):
    """Minimise f(x) subject to g(x) = 0, h(x) <= 0 and lower <= x <= upper.

    `lower`, `upper` (n,) may be infinite; equal ones fix a variable. `start` (n,) is where solvers
    begin. The patterns have the shapes (n_equalities, n), (n_inequalities, n) and (n, n); the
    Hessian's has both triangles.
    """

    lower: FloatArray
    upper: FloatArray
    start: FloatArray
    equality_pattern: Pattern
    inequality_pattern: Pattern
    hessian_pattern: Pattern

    def at(self, x: FloatArray) -> NlpPoint:
        """Return values and first derivatives at x (n,)."""
        ...

    def hessian(self, x: FloatArray, equality: FloatArray, inequality: FloatArray) -> FloatArray:
        """Return entries of the Hessian of ``f + equality' g + inequality' h`` at x."""
        ...
