"""Analytical target cascading: neighbours agree on their ties while the penalty grows.

With t_k of a region, t_l of its neighbour, and beta per variable of a tie::

    c = (t_k + t_l) / 2                                 the target
    price_k <- price_k + 2 beta^2 (t_k - c)
    beta <- growth beta                                 up to `most` times the first
    t_k = argmin f_k + price_k' t + sum beta^2 (t - c)^2

(S. Tosserams, L. Etman, P. Papalambros and J. Rooda, "An Augmented Lagrangian Relaxation for
Analytical Target Cascading Using the Alternating Direction Method of Multipliers", Struct.
Multidisc. Optim. 31, 2006; without a coordinator as in M. Alkhraijah, R. Harris, C. Coffrin and D.
Molzahn, "PowerModelsADA: A Framework for Solving Optimal Power Flow Using Distributed Algorithms",
IEEE Trans. Power Systems 39(1), 2024.) It differs from ADMM by the growth only: the regions agree
sooner, and what the prices lack when beta is large remains as a gap.
"""

from __future__ import annotations

import numpy as np

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray
from controllers.core.waiting import Waiting
from controllers.optimisation.algorithms.admm_regions import first_penalties
from controllers.optimisation.problems.opf_regions import RegionOpf
from controllers.optimisation.region_method import RegionMethod
from controllers.optimisation.region_peers import region_peers


def build(
    problem: RegionOpf,
    *,
    penalty: float = 100.0,
    tie_penalty: float = 30.0,
    growth: float = 1.02,
    most: float = 3.0,
    waiting: Waiting | None = None,
    tolerance: float = 1e-3,
    hosted: tuple[str, ...] | None = None,
) -> RegionMethod:
    """Return the regions of a problem.

    Parameters
    ----------
    penalty, tie_penalty : 2 beta^2 at first, of means and of differences per unit of admittance
        (`controllers.optimisation.algorithms.admm_regions`).
    growth : Of beta per iteration, above 1.
    most : Of beta, relative to the first.
    waiting : When regions compute.
    tolerance : Of the residuals (`controllers.optimisation.region_peers`).
    hosted : Names of the regions to host; default: all.

    Raises ControllerError: A penalty is not above 0, or `growth` or `most` is below 1.
    """
    for option, value in (("growth", growth), ("most", most)):
        if not 1.0 <= value < np.inf:
            where = f"algorithm 'atc': option '{option}'"
            raise ControllerError(f"{option} is {value}", where=where, expected="at least 1")
    return region_peers(
        problem,
        lambda ties: Atc(first_penalties(ties, penalty, tie_penalty, "atc"), growth, most),
        waiting=waiting,
        tolerance=tolerance,
        hosted=hosted,
    )


class Atc:
    """A region's part; `penalty`: 2 beta^2, (m,), at first."""

    def __init__(self, penalty: FloatArray, growth: float, most: float) -> None:
        self._penalty, self._last = penalty, most**2 * penalty
        self._growth = growth**2
        self._price = np.zeros(len(penalty))
        self._opened = False

    def terms(self, own: FloatArray, heard: FloatArray) -> tuple[FloatArray, ...]:
        """Return price, 2 beta^2 and target."""
        if self._opened:  # the first message is of no solution
            self._price = self._price + 0.5 * self._penalty * (own - heard)
            self._penalty = np.minimum(self._growth * self._penalty, self._last)
        self._opened = True
        return self._price, self._penalty, 0.5 * (own + heard)
