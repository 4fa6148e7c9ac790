"""Awards and schedules that come from above: the newest good one of each receiver."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from controllers.core.mail import FloatArray, IntArray
from controllers.market.agents.bid_receiver import NUMBER_MAX
from controllers.market.agents.mail_tables import Latest

PRICE_MAX_PER_KWH = 1e4
"""A price beyond it is none: it would make amounts of money that are no longer exact."""
_BILLED_MAX = 2.0**51
"""Units of money; the difference of two such amounts is still exact."""
_POWERS = ("p", "q", "p_load", "p_gen", "q_gen")


class Orders(Latest):
    """What n receivers were told last from above.

    One with a number that is not finite, with a power beyond `largest`, or a price or amount that
    is none, is refused: the last good one stays, and an event names the receiver.

    Parameters
    ----------
    names : (n,). Receivers.
    fields : Columns of a message.
    largest : (n,). Most that a receiver can be asked for, in the unit of the message's powers.
    price_max : Largest price, in the message's unit.
    event : What a refusal is called.
    """

    def __init__(
        self,
        names: Sequence[str],
        fields: Sequence[str],
        largest: FloatArray,
        price_max: float,
        event: str,
    ) -> None:
        super().__init__(len(names), len(fields))
        self._names, self._event = tuple(names), event
        self._limit: FloatArray = np.full(self.values.shape, NUMBER_MAX)
        for k, field in enumerate(fields):
            if field in _POWERS:
                self._limit[:, k] = largest
            elif "price" in field:
                self._limit[:, k] = price_max
            elif field == "billed":
                self._limit[:, k] = _BILLED_MAX
        self._events: list[dict[str, Any]] = []

    def absorb(self, sender: IntArray, rounds: IntArray, values: FloatArray, step: int) -> None:
        """Take messages in, `values` (k, width) for the receivers `sender` (k,)."""
        good = (np.abs(values) <= self._limit[sender]).all(axis=1)
        if not good.all():
            who = np.unique(sender[~good]).tolist()
            self._events.append({"event": self._event, "agents": [self._names[i] for i in who]})
        super().absorb(sender[good], rounds[good], values[good], step)

    def take_events(self) -> list[dict[str, Any]]:
        """Return what happened since the last call."""
        told, self._events = self._events, []
        return told
