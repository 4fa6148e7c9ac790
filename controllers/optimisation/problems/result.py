"""What an answer to a problem is worth: gap, infeasibility and a certificate."""

from __future__ import annotations

from dataclasses import dataclass

from controllers.core.mail import FloatArray


@dataclass(frozen=True)
class Reference:
    """The optimum of a central solver.

    objective : In the problem's unit. x : The solution, in the problem's own form. price : Duals of
    the coupling rows, empty where there are none.
    """

    objective: float
    x: FloatArray
    price: FloatArray


@dataclass(frozen=True)
class Measure:
    """How good an answer is.

    Attributes
    ----------
    objective : Of the answer.
    gap : ``|objective - optimum| / |optimum|``; without a division where the optimum is 0.
    infeasibility : Largest violation of a constraint, relative to its right-hand side where that is
        above 1.
    primal, dual : Residuals of the optimality conditions that the agents' own numbers leave.
    bound : A lower bound of the optimum by the agents' prices; None where the problem is not convex
        or the algorithm has no prices.
    """

    objective: float
    gap: float
    infeasibility: float
    primal: float
    dual: float
    bound: float | None


def relative_gap(objective: float, optimum: float) -> float:
    """Return ``|objective - optimum|``, relative to the optimum where it is not 0."""
    return abs(objective - optimum) / (abs(optimum) or 1.0)
