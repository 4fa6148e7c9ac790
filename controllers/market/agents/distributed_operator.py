"""The operator of a distributed clearing: it opens clearings and keeps the accounts.

It sees no bid and solves nothing. To every bus agent it sends, again and again, the number of the
clearing, the manager's factors for the bus's SMO, and the number of the clearing whose result is in
force. From every bus it hears the result once the bus agents have agreed
(`controllers.market.agents.bus_agents`). One clearing is open at a time: an order of the manager
takes the place of an interval's clearing, which would have to give way to it anyway; an interval
whose clearing cannot begin or end in time keeps the schedule before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, IntArray
from controllers.market.agents.operator import COMMIT, Operator
from controllers.market.agents.reweighing import Weights
from controllers.market.agents.schedule import RESULT_FIELDS, Schedule
from controllers.market.model.participants import Participants

ORDER_FIELDS = ("clearing", "open", "in_force", "log_xi", "log_alpha", "log_beta")


class Reported(Protocol):
    """Makes a schedule from results, (buses, len(RESULT_FIELDS))."""

    def of(self, results: FloatArray) -> Schedule:
        """Raises MarketError: The set-points have no power flow."""


@dataclass
class _Open:
    """The clearing under way: of an interval, or for an order of the manager (`number` > 0)."""

    clearing: int
    weights: Weights
    since: int
    interval: int
    number: int = 0
    order: float = 0.0


class DistributedOperator(Operator):
    """See the module.

    Parameters
    ----------
    table : Participants
    reported : Makes schedules from results.
    buses : int. Rows of results that make a schedule.
    patience : int. Steps of the controller after which a clearing without a result is given up.
    """

    def __init__(
        self,
        table: Participants,
        reported: Reported,
        buses: int,
        base_mw: float,
        patience: int,
    ) -> None:
        super().__init__(table)
        self.counts |= {"iterations": 0}
        self._reported, self._mw, self._patience = reported, base_mw, patience
        self._clearing = self._in_force = 0
        self._open: _Open | None = None
        self._now = 0
        self._results = np.zeros((buses, len(RESULT_FIELDS)))
        self._came = np.zeros(buses, dtype=bool)
        self._sent = Weights.neutral(len(table.buses))
        self._p_load0 = np.zeros(len(table.buses))
        # The last result: (clearing, schedule, demand), to be put in force without a new clearing.
        self._last: tuple[_Open, Schedule, FloatArray] | None = None

    @property
    def p_load0(self) -> FloatArray:
        """Demand of each SMO without curtailment, MW, (n,), in the schedule in force."""
        return self._p_load0

    @property
    def is_open(self) -> bool:
        """Whether a clearing is under way."""
        return self._open is not None

    def clear_interval(self, interval: int) -> None:
        """Open the interval's clearing, unless one is under way."""
        if self._open is None:
            self._begin(_Open(0, self._weights, self._now, interval))

    def obey(self, number: int, order: float, weights: Weights) -> None:
        """Open a clearing for an order; a commit of what was tried last needs none."""
        if self._open is not None and self._open.number == number:
            return
        self.counts["trials"] += 1
        if order == COMMIT and self._last is not None and same(self._last[0].weights, weights):
            self._open = None
            self._end(_Open(self._last[0].clearing, weights, self._now, self._interval, number,
                            order), *self._last[1:])  # fmt: skip
            return
        self._begin(_Open(0, weights, self._now, self._interval, number, order))

    def _begin(self, opened: _Open) -> None:
        self.counts["clearings"] += 1
        self._clearing += 1
        opened.clearing = self._clearing
        self._open, self._sent = opened, opened.weights
        self._came[:] = False

    def hear(self, bus: IntArray, clearing: IntArray, rows: FloatArray, step: int) -> None:
        """Take results in; end the clearing when all have come, or when it has taken too long."""
        self._now = step
        opened = self._open
        if opened is None:
            return
        mine = (clearing == opened.clearing) & np.isfinite(rows).all(axis=1)
        self._results[bus[mine]] = rows[mine]
        self._came[bus[mine]] = True
        if self._came.all():
            self._conclude(opened)
        elif step - opened.since > self._patience:
            self._open = None
            missing = int((~self._came).sum())
            self.say_failed(ControllerError(
                f"{missing} of {self._came.size} buses have not ended it after "
                f"{self._patience} steps", where=f"clearing {opened.clearing}",
            ))  # fmt: skip
            if opened.number:
                self.end_order(opened.number, opened.order, opened.weights, None)

    def _conclude(self, opened: _Open) -> None:
        self._open = None
        self.counts["iterations"] += round(float(self._results[:, 0].max()))
        try:
            found = self._reported.of(self._results)
        except ControllerError as error:
            self.say_failed(error)
            if opened.number:
                self.end_order(opened.number, opened.order, opened.weights, None)
            return
        column = RESULT_FIELDS.index("p_load0")
        demand = self._results[self.table.rows, column] * self._mw
        self._last = opened, found, demand
        self._end(opened, found, demand)

    def _end(self, opened: _Open, found: Schedule, demand: FloatArray) -> None:
        if not opened.number or opened.order == COMMIT:
            self._in_force = opened.clearing
            self._p_load0 = demand
        if opened.number:
            self.end_order(opened.number, opened.order, opened.weights, found)
        else:
            self.put_in_force(found, opened.interval)

    def orders(self) -> FloatArray:
        """Return what every bus agent is told, (buses, len(ORDER_FIELDS))."""
        out = np.zeros((self._came.size, len(ORDER_FIELDS)))
        out[:, 0], out[:, 1], out[:, 2] = self._clearing, self._open is not None, self._in_force
        out[:, 3] = np.log10(self._sent.xi)
        out[self.table.rows, 4] = np.log10(self._sent.alpha)
        out[self.table.rows, 5] = np.log10(self._sent.beta)
        return out


def same(a: Weights, b: Weights) -> bool:
    """Whether two sets of factors are the same."""
    return a.xi == b.xi and np.array_equal(a.alpha, b.alpha) and np.array_equal(a.beta, b.beta)
