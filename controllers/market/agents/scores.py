"""Scores of market operators: commitment, trustability, and resilience from both, 0 to 1.

Each of the first two is the mean of a Beta distribution that evidence e in [0, 1] moves, with a
prior worth `prior_weight` observations and a memory of `memory` observations::

    a <- f a + e,   b <- f b + (1 - e),   f = 1 - 1/memory,   score = a / (a + b)

(the beta reputation system, Josang and Ismail 2002). Commitment asks: was delivered what was
promised? Trustability asks: did its mail come, and was it in order? Resilience is their geometric
mean, so that neither makes up for the want of the other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from controllers.core.mail import FloatArray

_LEAST_MW = 0.0005


class BetaScore:
    """Scores of n parties as evidence comes in.

    Parameters
    ----------
    prior : ndarray (n,). Score before any evidence, 0 to 1.
    prior_weight : float. Observations that the prior is worth.
    memory : float. Observations after which evidence has faded to 1/e; more than 1.
    """

    def __init__(self, prior: FloatArray, prior_weight: float = 20.0, memory: float = 40.0) -> None:
        prior = np.clip(np.asarray(prior, dtype=np.float64), 0.0, 1.0)
        self._a = prior * prior_weight
        self._b = (1.0 - prior) * prior_weight
        self._keep = 1.0 - 1.0 / memory

    @property
    def value(self) -> FloatArray:
        """The scores, (n,)."""
        score: FloatArray = self._a / (self._a + self._b)
        return score

    def add(self, evidence: FloatArray, known: NDArray[np.bool_] | None = None) -> None:
        """Take evidence in, (n,) in [0, 1]; parties that are not `known` this time keep theirs."""
        there = np.isfinite(evidence) if known is None else known & np.isfinite(evidence)
        e = np.clip(np.where(there, evidence, 0.0), 0.0, 1.0)
        self._a = np.where(there, self._keep * self._a + e, self._a)
        self._b = np.where(there, self._keep * self._b + (1.0 - e), self._b)


def commitment_evidence(
    promised_mw: FloatArray, metered_mw: FloatArray, owed_mw: FloatArray
) -> FloatArray:
    """Return how well each party kept its word: 1 for all of it, 0 for nothing or the contrary.

    Parameters
    ----------
    promised_mw, metered_mw : ndarray (n,). Net injections.
    owed_mw : (n,); How much of the promise is a service: the injection promised less the one
        without any. Less than half a kilowatt is judged as half a kilowatt.
    """
    off = np.abs(metered_mw - promised_mw) / np.maximum(np.abs(owed_mw), _LEAST_MW)
    return np.clip(1.0 - off, 0.0, 1.0)


def trust_evidence(
    received: FloatArray, expected: float, odd: FloatArray, alarm: FloatArray
) -> FloatArray:
    """Return how trustworthy each party's traffic was in a period.

    Parameters
    ----------
    received : ndarray (n,). Messages that came.
    expected : float. Messages that should have come.
    odd : (n,); Messages out of order: not finite, from the future, older than one that came before.
    alarm : ndarray (n,). Of a detector, 0 to 1; not finite means none.
    """
    came = np.clip(received / max(expected, 1.0), 0.0, 1.0)
    clean = 1.0 - np.clip(odd / max(expected, 1.0), 0.0, 1.0)
    quiet = 1.0 - np.clip(np.where(np.isfinite(alarm), alarm, 0.0), 0.0, 1.0)
    return came * clean * quiet


def resilience_score(commitment: FloatArray, trustability: FloatArray) -> FloatArray:
    """Return the geometric mean of both scores."""
    score: FloatArray = np.sqrt(commitment * trustability)
    return score
