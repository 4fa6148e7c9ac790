"""What a receiver of bids knows: each SMO's last good bid, and who is silent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controllers.core.mail import FloatArray, IntArray
from controllers.market.agents.bid_book import BidBook
from controllers.market.model.participants import BID_FIELDS, IDLE_COST

# Larger numbers in mail are nonsense; beyond it a counter is no longer told from its successor.
NUMBER_MAX = 2.0**53
# MW and Mvar: with larger ones amounts of money would no longer be exact.
POWER_MAX_MW = 1e5
_LIMITS = np.array(
    [NUMBER_MAX, *(POWER_MAX_MW if name[0] in "pq" else NUMBER_MAX for name in BID_FIELDS)]
)
_OF_GENERATION = np.array(["_gen_" in name for name in BID_FIELDS])


class BidReceiver:
    """Bids and silence of some SMOs.

    Parameters
    ----------
    names : sequence of str. The SMOs.
    silent_steps : int. Market steps without mail after which an SMO is silent.
    trust_silent : Whether a silent SMO is assumed to follow its last award; see `usable_bids`.

    Attributes
    ----------
    silent : ndarray of bool, (n,). Known SMOs that were not heard lately.
    events : list. Taken away by whoever reads them.
    """

    def __init__(self, names: Sequence[str], silent_steps: int, trust_silent: bool = True) -> None:
        self.book = BidBook(names)
        self.silent = np.zeros(len(names), dtype=bool)
        self.events: list[dict[str, Any]] = []
        self.silent_steps = silent_steps
        self._trust_silent = trust_silent
        self._heard = np.full(len(names), -1, dtype=np.int64)

    def take_bids(self, smo: IntArray, rows: FloatArray, interval: int, step: int) -> None:
        """Take bids in, rows of (interval, numbers of the bid)."""
        if not smo.size:
            return
        self._heard[smo] = step
        rows = np.where(np.abs(rows) <= _LIMITS, rows, np.nan)
        when = np.rint(np.where(np.isfinite(rows[:, 0]), rows[:, 0], -1.0)).astype(np.int64)
        for event, name in self.book.take(smo, when, rows[:, 1:], interval):
            self.events.append({"event": event, "smo": name})

    def note_silence(self, step: int) -> NDArray[np.bool_]:
        """Note who fell silent or came back; return who is silent, (n,)."""
        silent: NDArray[np.bool_] = self.book.known & (step - self._heard > self.silent_steps)
        for i in np.flatnonzero(silent != self.silent).tolist():
            event = "smo_silent" if silent[i] else "smo_back"
            self.events.append({"event": event, "smo": self.book.names[i]})
        self.silent = silent
        return silent

    def usable_bids(self, awards: FloatArray) -> FloatArray:
        """Return the bids to clear, with those who do not answer pinned to their awards.

        Where silent SMOs are not trusted, those that bid before have no generation instead, and
        their load stays as it was bid.

        Parameters
        ----------
        awards : ndarray, (n, len(AWARD_FIELDS)). What each SMO was told last; NaN: nothing.
        """
        held = np.nan_to_num(awards)
        bids, frozen = self.book.bids, self.silent | ~self.book.known
        if not self._trust_silent:
            bids = np.where(self.silent[:, None] & _OF_GENERATION, 0.0, bids)
            frozen = ~self.book.known
        return with_frozen(bids, frozen, (held[:, 1], held[:, 2], held[:, 3]))


def with_frozen(
    bids: FloatArray,
    frozen: NDArray[np.bool_],
    held: tuple[FloatArray, FloatArray, FloatArray],
) -> FloatArray:
    """Return the bids with those of silent SMOs pinned to (p_load, p_gen, q_gen) as held."""
    if not frozen.any():
        return bids
    p_load, p_gen, q_gen = held
    tangent = np.divide(bids[:, 1], bids[:, 0], out=np.zeros_like(p_load), where=bids[:, 0] != 0.0)
    idle = np.full_like(p_load, IDLE_COST)
    pinned = np.stack(
        [p_load, tangent * p_load, p_load, p_load, p_gen, p_gen, q_gen, q_gen, idle, idle, idle],
        axis=1,
    )
    return np.where(frozen[:, None], pinned, bids)


def merged_events(told: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return events with those that happened to several SMOs as one each, with their names."""
    merged: dict[str, dict[str, Any]] = {}
    out = []
    for event in told:
        if "smo" not in event:
            out.append(event)
            continue
        kind = event["event"]
        if kind not in merged:
            merged[kind] = {"event": kind, "smos": []}
            out.append(merged[kind])
        merged[kind]["smos"].append(event["smo"])
    return out
