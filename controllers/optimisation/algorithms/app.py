"""Auxiliary problem principle: neighbours agree on their ties by a linearised penalty.

With t_k of a region in the last iteration, t_l of its neighbour, and alpha per variable of a tie::

    price_k <- price_k + alpha (t_k - t_l)
    t_k <- argmin f_k + (price_k + gamma alpha (t_k - t_l))' t + sum beta alpha / 2 (t - t_k)^2

(G. Cohen, "Auxiliary Problem Principle and Decomposition of Optimization Problems", J. Optim.
Theory Appl. 32, 1980; B. Kim and R. Baldick, "Coarse-Grained Distributed Optimal Power Flow", IEEE
Trans. Power Systems 12(2), 1997.) The cross term of the penalty is linearised, so that regions stay
near their own last solution. With the usual beta = 2 and gamma = 1 the terms in t are
``price' t + alpha (t - (t_k + t_l) / 2)^2``: where two agree on a variable, it is ADMM with the
fixed penalty 2 alpha.
"""

from __future__ import annotations

import numpy as np

from controllers.core.mail import FloatArray
from controllers.core.waiting import Waiting
from controllers.optimisation.algorithms.admm_regions import first_penalties
from controllers.optimisation.algorithms.peers import checked
from controllers.optimisation.problems.opf_regions import RegionOpf
from controllers.optimisation.region_method import RegionMethod
from controllers.optimisation.region_peers import region_peers


def build(
    problem: RegionOpf,
    *,
    penalty: float = 300.0,
    tie_penalty: float = 50.0,
    beta: float = 2.0,
    gamma: float = 1.0,
    waiting: Waiting | None = None,
    tolerance: float = 1e-3,
    hosted: tuple[str, ...] | None = None,
) -> RegionMethod:
    """Return the regions of a problem.

    Parameters
    ----------
    penalty, tie_penalty : alpha, of means and of differences per unit of admittance
        (`controllers.optimisation.algorithms.admm_regions`).
    beta, gamma : Of the quadratic and of the linearised part of the penalty.
    waiting : When regions compute.
    tolerance : Of the residuals (`controllers.optimisation.region_peers`).
    hosted : Names of the regions to host; default: all.

    Raises ControllerError: A penalty, `beta` or `gamma` is not above 0.
    """
    beta, gamma = checked(beta, "beta", "app"), checked(gamma, "gamma", "app")
    return region_peers(
        problem,
        lambda ties: App(first_penalties(ties, penalty, tie_penalty, "app"), beta, gamma),
        waiting=waiting,
        tolerance=tolerance,
        hosted=hosted,
    )


class App:
    """A region's part; `penalty`: alpha, (m,)."""

    def __init__(self, penalty: FloatArray, beta: float, gamma: float) -> None:
        self._penalty, self._proximal, self._gamma = penalty, beta * penalty, gamma
        self._price = np.zeros(len(penalty))
        self._opened = False

    def terms(self, own: FloatArray, heard: FloatArray) -> tuple[FloatArray, ...]:
        """Return price and linearised penalty, beta alpha, and the last own values."""
        pull = self._penalty * (own - heard)
        if self._opened:  # the first message is of no solution
            self._price = self._price + pull
        self._opened = True
        return self._price + self._gamma * pull, self._proximal, own
