"""Errors of the market.

ControllerError                 a controller cannot be built or used as asked
`-- MarketError                 a market cannot be cleared or settled as asked
    |-- BidError                a bid is not one: names the bus or agent and the field
    `-- NoDispatchError         no dispatch satisfies the limits, or the solver found none
"""

from __future__ import annotations

from controllers.core.errors import ControllerError


class MarketError(ControllerError):
    """A market cannot be cleared or settled as asked."""


class BidError(MarketError):
    """A bid is not one; `bus` or `agent` and `field` say which part (None: no single one)."""

    def __init__(
        self, what: str, *, bus: str | None, field: str, expected: str, agent: str | None = None
    ) -> None:
        where = f"bids.{field}" if bus is None else f"bid of bus '{bus}', {field}"
        if agent is not None:
            where = f"bid of agent {agent}, {field}"
        super().__init__(what, where=where, expected=expected)
        self.bus = bus
        self.field = field


class NoDispatchError(MarketError):
    """No dispatch satisfies the limits, or the solver found none; `status` is the solver's word."""

    def __init__(self, what: str, *, status: str, where: str, expected: str) -> None:
        super().__init__(what, where=where, expected=expected)
        self.status = status
