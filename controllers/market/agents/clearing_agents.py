"""What agents that clear a market by mail have in common: bids, doubts about mail, and events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from controllers.core.mail import IntArray
from controllers.market.agents.bid_receiver import BidReceiver, merged_events


class ClearingAgents:
    """Base of the hosted bus agents and area agents.

    Attributes
    ----------
    receiver : BidReceiver. Of the bids of their SMOs.
    messages, refused, event_count : Counts of mail sent, of mail refused, and of events.
    """

    def __init__(self, receiver: BidReceiver) -> None:
        self.receiver = receiver
        self.events: list[dict[str, Any]] = []
        self.messages = self.refused = self.event_count = 0
        self._doubted: set[str] = set()

    def note_doubts(self, links: Sequence[str], sender: IntArray, believed: NDArray[Any]) -> None:
        """Count mail that was refused; leave an event when that begins on a link.

        `links`: names by sender; `believed`: of each message, as `sender`.
        """
        if believed.all() and not self._doubted:
            return
        bad = {links[i] for i in sender[~believed].tolist()}
        self.refused += int((~believed).sum())
        news = sorted(bad - self._doubted)
        self._doubted = (self._doubted - {links[i] for i in sender[believed].tolist()}) | bad
        if news:
            self.events.append({"event": "mail_refused", "links": news})

    def take_events(self) -> list[dict[str, Any]]:
        """Return what happened since the last call; what happened to several SMOs is one event."""
        told = self.receiver.events + self.events
        self.receiver.events, self.events = [], []
        self.event_count += len(told)
        return merged_events(told)
