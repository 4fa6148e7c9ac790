"""Offers of homes to their agents, bids of agents to their SMOs, and the receiver's book of them.

A bid has the fields of an offer: it is the sum of offers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controllers.core.mail import FloatArray, IntArray
from controllers.market.agents.local.table import KINDS, per

_K = len(KINDS)
OFFER_FIELDS = (
    "interval", *(f"p0_{k}" for k in KINDS), *(f"p_min_{k}" for k in KINDS),
    *(f"p_max_{k}" for k in KINDS), "q0", "q_room", "gamma", "metered",
    *(f"metered_{k}" for k in KINDS),
)  # fmt: skip
"""An offer for one interval: baseline and range of each kind of device (kW, injections positive),
reactive baseline and room (kvar), disutility ``gamma (P - P0)^2`` (money per kW^2 h), whether all
meters showed a number (1 or 0), and what they showed of the interval that ended last (kW)."""
P0, P_MIN, P_MAX = slice(1, 1 + _K), slice(1 + _K, 1 + 2 * _K), slice(1 + 2 * _K, 1 + 3 * _K)
Q0, Q_ROOM, GAMMA = 1 + 3 * _K, 2 + 3 * _K, 3 + 3 * _K
KNOWN, METERED = 4 + 3 * _K, slice(5 + 3 * _K, 5 + 4 * _K)
GAMMA_MAX = 1e9
"""Disutility of a home without flexibility. Its range is 0, so any positive number would do."""
_SLACK_KW = 0.1
"""By so much noise on a link may turn a range round; it is then widened to hold the baseline."""
_LARGEST = 1e12
FAULTS = ("not_finite", "contradictory", "implausible", "misdated")


def faults(rows: FloatArray, largest_kw: FloatArray) -> NDArray[np.str_]:
    """Return what is wrong with each offer, (m,): '' or one of the first three of `FAULTS`.

    `largest_kw` (m,): power beyond which an offer is not plausible, kW or kvar.
    """
    finite = (np.abs(rows) <= _LARGEST).all(axis=1)
    low, mid, high = rows[:, P_MIN], rows[:, P0], rows[:, P_MAX]
    crossed = ((low > mid + _SLACK_KW) | (mid > high + _SLACK_KW)).any(axis=1)
    crossed |= (rows[:, GAMMA] <= 0.0) | (rows[:, Q_ROOM] < -_SLACK_KW)
    powers = np.abs(rows[:, P0.start : Q_ROOM + 1])
    beyond = (powers > largest_kw[:, None]).any(axis=1)
    wrong = np.where(crossed, "contradictory", np.where(beyond, "implausible", ""))
    return np.where(~finite, "not_finite", wrong)


def _in_order(rows: FloatArray) -> FloatArray:
    """Return offers with every baseline inside its range, and no room below 0."""
    rows = rows.copy()
    rows[:, P_MIN] = np.minimum(rows[:, P_MIN], rows[:, P0])
    rows[:, P_MAX] = np.maximum(rows[:, P_MAX], rows[:, P0])
    rows[:, Q_ROOM] = np.maximum(rows[:, Q_ROOM], 0.0)
    return rows


class OfferBook:
    """The last good offer of each of n senders.

    Parameters
    ----------
    names : (n,). Senders.
    silent_after : Intervals without an offer after which a sender is silent.
    largest_kw : (n,). Power beyond which an offer is not plausible.

    Attributes
    ----------
    rows : (n, len(OFFER_FIELDS)). Zero where none came yet.
    interval : int64 (n,). The interval each is for; -1 where none came yet.
    received, refused : (n,). Messages since the last `count`, and those of them that were refused.
    """

    def __init__(self, names: Sequence[str], silent_after: int, largest_kw: FloatArray) -> None:
        self.names = tuple(names)
        n = len(self.names)
        self.rows: FloatArray = np.zeros((n, len(OFFER_FIELDS)))
        self.rows[:, GAMMA] = GAMMA_MAX
        self.interval: IntArray = np.full(n, -1, dtype=np.int64)
        self.received, self.refused = np.zeros(n), np.zeros(n)
        self.events: list[dict[str, Any]] = []
        self._silent_after, self._largest_kw = silent_after, largest_kw
        self._silent = np.zeros(n, dtype=bool)
        self._told: dict[str, IntArray] = {}

    def take(self, sender: IntArray, rows: FloatArray, now: int) -> None:
        """Store the offers `rows` (m, len(OFFER_FIELDS)) of `sender` (m,) in the interval `now`.

        An invalid offer is refused, and the last valid one stays. An offer that arrives in its own
        interval or after it is late, but is used. A duplicate is ignored.
        """
        if not sender.size:
            return
        np.add.at(self.received, sender, 1.0)
        wrong = faults(rows, self._largest_kw[sender])
        when = np.where(np.abs(rows[:, 0]) <= _LARGEST, rows[:, 0], -1.0)
        interval = np.rint(when).astype(np.int64)
        dated = (interval >= 0) & (interval <= now + 1)
        wrong = np.where((wrong == "") & ~dated, "misdated", wrong)
        for fault in FAULTS:
            self._tell(f"offer_{fault}", sender[wrong == fault], now)
        bad = wrong != ""
        np.add.at(self.refused, sender[bad], 1.0)
        good = np.flatnonzero(~bad & (interval > self.interval[sender]))
        self._tell("offer_late", sender[good[interval[good] <= now]], now)
        # Oldest first: of several offers of one sender the newest is written last.
        good = good[np.argsort(interval[good], kind="stable")]
        self.rows[sender[good]] = _in_order(rows[good])
        self.interval[sender[good]] = interval[good]

    def _tell(self, event: str, who: IntArray, now: int) -> None:
        """Leave an event with the names, once per sender and interval."""
        if not who.size:
            return
        told = self._told.setdefault(event, np.full(len(self.names), -1, dtype=np.int64))
        new = np.unique(who[told[who] < now])
        told[new] = now
        if new.size:
            self.events.append({"event": event, "agents": [self.names[i] for i in new.tolist()]})

    def usable(self, interval: int) -> FloatArray:
        """Return the offers for `interval`; a silent sender keeps its baseline and has no range.

        An event names the senders that become silent or send again.
        """
        silent = self.interval + self._silent_after < interval
        known = self.interval >= 0
        for event, who in (
            ("agent_silent", silent & known & ~self._silent),
            ("agent_back", self._silent & ~silent),
        ):
            self._tell(event, np.flatnonzero(who), interval)
        self._silent = silent & known
        rows = self.rows.copy()
        for part in (P_MIN, P_MAX):
            rows[:, part] = np.where(silent[:, None], rows[:, P0], rows[:, part])
        rows[:, Q_ROOM] = np.where(silent, 0.0, rows[:, Q_ROOM])
        # A meter reading counts once, for the interval before the offer's.
        rows[:, KNOWN] = np.where(self.interval == interval, rows[:, KNOWN], 0.0)
        return rows

    def count(self) -> tuple[FloatArray, FloatArray]:
        """Return `received` and `refused` since the last call."""
        counted = self.received, self.refused
        self.received, self.refused = np.zeros(len(self.names)), np.zeros(len(self.names))
        return counted

    def take_events(self) -> list[dict[str, Any]]:
        """Return what happened since the last call."""
        told, self.events = self.events, []
        return told


def metered(rows: FloatArray) -> FloatArray:
    """Return what was metered by kind, (m, len(KINDS)), NaN where not all of it is known."""
    return np.where(rows[:, KNOWN, None] > 0.5, rows[:, METERED], np.nan)


def summed(owner: IntArray, rows: FloatArray, n: int, interval: int) -> FloatArray:
    """Return the offers of n aggregators, each the sum of those it owns.

    Quadratic disutilities that share one deviation as it costs least add up like parallel
    resistances: ``1/gamma = sum 1/gamma_i``.
    """
    parts = rows.copy()
    parts[:, GAMMA] = 1.0 / rows[:, GAMMA]
    out = per(owner, parts, n)
    out[:, 0] = interval
    out[:, GAMMA] = 1.0 / np.maximum(out[:, GAMMA], 1.0 / GAMMA_MAX)
    unknown = np.bincount(owner[rows[:, KNOWN] < 0.5], minlength=n)
    out[:, KNOWN] = np.where(unknown > 0, 0.0, 1.0)
    return out
