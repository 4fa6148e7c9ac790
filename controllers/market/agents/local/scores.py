"""Scores of secondary agents: commitment per kind of device, trustability, and resilience.

Commitment is whether an agent did what it was scheduled: the evidence of an interval is
``1 - |metered - scheduled| / (half the range offered)``, per kind of device. A schedule is a total;
its change of the baseline is divided among the kinds in proportion to the range of each.
Trustability is whether offers came and were valid. `controllers.market.agents.scores` has the
averages.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from controllers.core.mail import FloatArray
from controllers.market.agents.local.offers import P0, P_MAX, P_MIN, metered
from controllers.market.agents.local.table import KINDS, over_kinds
from controllers.market.agents.scores import BetaScore, resilience_score, trust_evidence

_LEAST_KW = 0.05
"""Half a range, kW, below which an interval is no evidence: hardly anything was offered."""
_LOWEST = 0.01
"""Lower limit of a score: the secondary market divides by it."""


class AgentScores:
    """Scores of m agents.

    Parameters
    ----------
    prior : (m,). Score before any evidence.
    memory : float. Intervals after which evidence has faded to 1/e.
    """

    def __init__(self, prior: FloatArray, memory: float) -> None:
        self._m = prior.size
        self._commitment = BetaScore(np.repeat(prior, len(KINDS)), memory, memory)
        self._trust = BetaScore(prior, memory, memory)
        self._weight = np.ones((self._m, len(KINDS)))
        # (interval, scheduled per kind, half range per kind), of the last intervals.
        self._noted: deque[tuple[int, FloatArray, FloatArray]] = deque(maxlen=3)

    def note_schedule(
        self, who: NDArray[np.bool_], offers: FloatArray, p: FloatArray, interval: int
    ) -> None:
        """Note what the agents `who` (m,) were scheduled for `interval`: `p` (m,) in all, kW."""
        p0, low, high = (offers[:, part] for part in (P0, P_MIN, P_MAX))
        change = (p - over_kinds(p0))[:, None]
        room = np.where(change >= 0.0, high - p0, p0 - low)
        total = np.maximum(over_kinds(room), 1e-9)[:, None]
        scheduled = p0 + change * room / total
        half = 0.5 * (high - low)
        last = self._noted[-1] if self._noted else None
        if last is not None and last[0] == interval:
            scheduled = np.where(who[:, None], scheduled, last[1])
            half = np.where(who[:, None], half, last[2])
            self._noted.pop()
        else:
            scheduled = np.where(who[:, None], scheduled, np.nan)
            half = np.where(who[:, None], half, np.nan)
        self._noted.append((interval, scheduled, half))

    def add(
        self, offers: FloatArray, received: FloatArray, refused: FloatArray, interval: int
    ) -> None:
        """Update the scores from the bids for `interval`.

        Their meter readings are of interval - 2. `received`, `refused` (m,): messages of each agent
        since the last update.
        """
        self._trust.add(trust_evidence(received, 1.0, refused, np.zeros(self._m)))
        kept = next((x for x in self._noted if x[0] == interval - 2), None)
        if kept is None:
            return
        _, scheduled, half = kept
        off = np.abs(metered(offers) - scheduled) / np.maximum(half, _LEAST_KW)
        known = np.isfinite(off) & (half > _LEAST_KW)
        self._commitment.add((1.0 - off).ravel(), known.ravel())
        self._weight = np.where(np.isfinite(half), np.maximum(half, 1e-3), self._weight)

    @property
    def by_kind(self) -> FloatArray:
        """Commitment per kind of device, (m, len(KINDS))."""
        return self._commitment.value.reshape(self._m, len(KINDS))

    @property
    def commitment(self) -> FloatArray:
        """Commitment of each agent, its kinds weighted by the range that they offered, (m,)."""
        w = self._weight
        return over_kinds(self.by_kind * w) / over_kinds(w)

    @property
    def trustability(self) -> FloatArray:
        """Share of its offers that came and were valid, averaged, (m,)."""
        return self._trust.value

    @property
    def resilience(self) -> FloatArray:
        """Geometric mean of both, at least 0.01, (m,)."""
        return np.maximum(resilience_score(self.commitment, self.trustability), _LOWEST)
