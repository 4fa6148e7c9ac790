"""Consensus ADMM of regions: neighbours agree on the voltages at the ends of their ties.

With t_k of a region, t_l of its neighbour, a price per variable of a tie and a penalty w::

    z = (t_k + t_l) / 2
    price_k <- price_k + w (t_k - z)
    t_k = argmin f_k + price_k' t + sum w / 2 (t - z)^2

(S. Boyd et al., "Distributed Optimization and Statistical Learning via the Alternating Direction
Method of Multipliers", 2011, section 7; T. Erseghe, "Distributed Optimal Power Flow Using ADMM",
IEEE Trans. Power Systems 29(5), 2014.) Both ends of a tie compute the same z and w and opposite
prices from what they tell each other.

The penalty of a difference is `tie_penalty` times the tie's admittance, as are the bends of its
power flow, which are not convex; that of a mean is `penalty`. Units: thousands of USD per hour, per
rad^2 or pu^2. With `adaptive` each penalty follows its own residuals: up where
|t_k - t_l| / 2 is more than twice the movement of z, down where it is less than half of it (B. He,
H. Yang and S. Wang, "Alternating Direction Method with Self-Adaptive Penalty Parameters", J. Optim.
Theory Appl. 106(2), 2000; both residuals here in the unit of t).
"""

from __future__ import annotations

import numpy as np

from controllers.core.mail import FloatArray
from controllers.core.waiting import Waiting
from controllers.optimisation.algorithms.peers import checked
from controllers.optimisation.problems.opf_regions import RegionOpf
from controllers.optimisation.problems.ties import RegionTies
from controllers.optimisation.region_method import RegionMethod
from controllers.optimisation.region_peers import region_peers

_UNEVEN = 2.0  # ratio of the residuals at which a penalty changes
_CHANGE = 1.1
_LEAST, _MOST = 0.1, 30.0  # of the first penalty


def build(
    problem: RegionOpf,
    *,
    penalty: float = 300.0,
    tie_penalty: float = 100.0,
    adaptive: bool = True,
    waiting: Waiting | None = None,
    tolerance: float = 1e-4,
    hosted: tuple[str, ...] | None = None,
) -> RegionMethod:
    """Return the regions of a problem.

    Parameters
    ----------
    penalty : Of means of voltages.
    tie_penalty : Of differences, per unit of the tie's admittance.
    adaptive : Whether penalties follow the residuals.
    waiting : When regions compute.
    tolerance : Of the residuals (`controllers.optimisation.region_peers`).
    hosted : Names of the regions to host; default: all.

    Raises ControllerError: A penalty is not above 0.
    """
    return region_peers(
        problem,
        lambda ties: Admm(first_penalties(ties, penalty, tie_penalty, "admm"), adaptive),
        waiting=waiting,
        tolerance=tolerance,
        hosted=hosted,
    )


def first_penalties(
    ties: RegionTies, penalty: float, tie_penalty: float, algorithm: str
) -> FloatArray:
    """Return the penalty of each variable of a tie, (m,).

    Raises ControllerError: A penalty is not above 0.
    """
    penalty = checked(penalty, "penalty", algorithm)
    tie_penalty = checked(tie_penalty, "tie_penalty", algorithm)
    return np.where(ties.admittance > 0.0, tie_penalty * ties.admittance, penalty)


class Admm:
    """A region's part of ADMM.

    Parameters
    ----------
    penalty : (m,)
    adaptive : Whether it follows the residuals.
    """

    def __init__(self, penalty: FloatArray, adaptive: bool) -> None:
        self._first, self._penalty, self._adaptive = penalty, penalty, adaptive
        self._price = np.zeros(len(penalty))
        self._mean: FloatArray | None = None

    def terms(self, own: FloatArray, heard: FloatArray) -> tuple[FloatArray, ...]:
        """Return price, penalty and mean."""
        mean, before = 0.5 * (own + heard), self._mean
        self._mean = mean
        if before is not None:  # the first message is of no solution
            self._price = self._price + 0.5 * self._penalty * (own - heard)
            if self._adaptive:
                self._adapt(0.5 * np.abs(own - heard), np.abs(mean - before))
        return self._price, self._penalty, mean

    def _adapt(self, primal: FloatArray, dual: FloatArray) -> None:
        change = np.where(primal > _UNEVEN * dual, _CHANGE, 1.0)
        change = np.where(dual > _UNEVEN * primal, 1.0 / _CHANGE, change)
        first = self._first
        self._penalty = np.clip(self._penalty * change, _LEAST * first, _MOST * first)
