"""The primary market operator (PMO): clears or lets clear, settles, obeys the resilience manager.

Once per interval it clears the bids it has. Between, it answers the resilience manager: a *trial*
clears with other weights and tells the import that would come of it; a *commit* puts them in force.
Nothing it is sent can stop it: what cannot be used becomes an event, and the last good schedule
stays in force.

Orders are numbered, and only the one after the last answered is obeyed: repeated and overtaken
ones change nothing, and one changed on its way cannot leap ahead of those that follow.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, IntArray, Link
from controllers.market.agents.bid_receiver import BidReceiver, merged_events
from controllers.market.agents.reweighing import FACTOR_MIN, Weights
from controllers.market.agents.schedule import CentralScheduler, Schedule
from controllers.market.agents.smo import AWARD_FIELDS, REPORT_FIELDS
from controllers.market.model.participants import bid_column

OPERATOR = "operator"
TRIAL, COMMIT = 0.0, 1.0
SOLVED, FAILED = 1.0, -1.0
WEIGHTS_HEAD = ("number", "order", "log_xi")
ANSWER_HEAD = ("number", "status", "trial_import", "committed", "schedule_import", "interval")


_LEAST_LOG = float(np.log10(FACTOR_MIN))
# Decades that noise may put a factor beyond its limits.
_SLACK = 0.5


def report_links(names: Sequence[str], manager: str) -> list[Link]:
    """Return the links over which SMOs report to the resilience manager."""
    return [Link(name, manager, "report", len(REPORT_FIELDS)) for name in names]


def manager_links(n: int, operator: str, manager: str) -> tuple[Link, Link]:
    """Return the links operator to manager and manager to operator in a market of `n` SMOs."""
    answer = Link(operator, manager, "answer", len(ANSWER_HEAD) + 2 * n)
    return answer, Link(manager, operator, "weights", len(WEIGHTS_HEAD) + 2 * n)


def weights_message(number: int, order: float, weights: Weights) -> FloatArray:
    """Return what the manager sends: (3 + 2 n,).

    Factors travel as decimal logarithms. They span four decades: what a noisy link adds to them
    then weighs on all alike, and turns none negative.
    """
    factors = np.concatenate([[weights.xi], weights.alpha, weights.beta])
    return np.concatenate([[number, order], np.log10(np.maximum(factors, 1e-300))])


def read_weights(message: FloatArray) -> tuple[int, float, Weights] | str:
    """Return (number, order, weights) of a message, or what is wrong with it.

    Number and order are rounded, for noise on a link changes them, too; factors are clipped to
    their range, [`FACTOR_MIN`, 1], of xi [1, 1/`FACTOR_MIN`].
    """
    if not np.isfinite(message).all():
        return "a number is not finite"
    number, order = np.rint(message[:2]).tolist()
    if order not in (TRIAL, COMMIT):
        return "neither trial nor commit"
    # xi's factor is never below 1, the others are never above.
    logs = message[2:] * np.concatenate([[-1.0], np.ones(message.size - 3)])
    if (logs < _LEAST_LOG - _SLACK).any() or (logs > _SLACK).any():
        return f"a factor is not in [{FACTOR_MIN:g}, 1]"
    factors = 10.0 ** np.clip(logs, _LEAST_LOG, 0.0)
    alpha, beta = factors[1:].reshape(2, -1)
    return int(number), order, Weights(alpha, beta, 1.0 / float(factors[0]))


class Parties(Protocol):
    """Who sends bids to an operator."""

    @property
    def buses(self) -> tuple[str, ...]:
        """Bus of each."""

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each as an agent."""

    @property
    def rows(self) -> NDArray[np.intp]:
        """Row of each in the market's network."""


class Operator(ABC):
    """What an operator does whoever clears: schedules in force, orders, answers, events.

    Parameters
    ----------
    table : Parties

    Attributes
    ----------
    schedule : Schedule or None. In force.
    """

    def __init__(self, table: Parties) -> None:
        self.table = table
        self.schedule: Schedule | None = None
        self.events: list[dict[str, Any]] = []
        self.counts = {"clearings": 0, "clearings_failed": 0, "trials": 0, "events": 0}
        self._interval = -1
        self._weights = Weights.neutral(len(table.buses))
        self._committed = 0
        self._answered = 0
        self._reply = (0.0, 0.0, 0.0)
        self._refusing = False

    @abstractmethod
    def clear_interval(self, interval: int) -> None:
        """Clear the interval with the bids at hand; where that fails the last schedule stays."""

    @abstractmethod
    def obey(self, number: int, order: float, weights: Weights) -> None:
        """Carry out the next order of the manager."""

    @property
    @abstractmethod
    def p_load0(self) -> FloatArray:
        """Demand of each SMO without curtailment, MW, (n,)."""

    def take_events(self) -> list[dict[str, Any]]:
        """Return what happened since the last call; what happened to several SMOs is one event."""
        told, self.events = self.events, []
        return merged_events(told)

    def say(self, event: str, **details: object) -> None:
        """Leave an event for the run."""
        self.counts["events"] += 1
        self.events.append({"event": event, **details})

    def say_failed(self, error: ControllerError) -> None:
        """Count a clearing without a result, and say so."""
        self.counts["clearings_failed"] += 1
        self.say("clearing_failed", reason=str(error), kept="last schedule")

    def put_in_force(self, found: Schedule, interval: int) -> None:
        """Let a schedule be the one that is awarded and settled."""
        if not found.exact and (self.schedule is None or self.schedule.exact):
            replay = {"replay_gap_kw": found.replay_gap_kw} if found.replay_gap_kw else {}
            self.say("relaxation_not_exact", cone_gap_pu=found.cone_gap_pu, **replay)
        self.schedule = found
        self._interval = interval

    def take_weights(self, message: FloatArray) -> None:
        """Obey the manager: clear on trial, or put weights in force. Repetitions change nothing."""
        if self.schedule is None:
            return
        read = read_weights(message)
        if isinstance(read, str):
            self._refuse(read)
            return
        number, order, weights = read
        if number <= self._answered:
            return
        if number != self._answered + 1:
            self._refuse(f"order {number} is not the next, which is {self._answered + 1}")
            return
        self._refusing = False
        self.obey(number, order, weights)

    def end_order(
        self, number: int, order: float, weights: Weights, found: Schedule | None
    ) -> None:
        """Answer an order with what was found (None: nothing)."""
        self._answered = number
        if found is None:
            self._reply = (FAILED, 0.0, float(self._committed))
            return
        if order == COMMIT:
            self._weights = weights
            self._committed = number
            self.put_in_force(found, self._interval)
        self._reply = (SOLVED, found.p_import, float(self._committed))

    def _refuse(self, reason: str) -> None:
        """Say once, until an order is obeyed again, that one was none."""
        if not self._refusing:
            self.say("weights_refused", reason=reason)
        self._refusing = True

    def answer(self) -> FloatArray:
        """Return what the manager is told.

        The head, then of each SMO what net injection it promised, then how much of that it owes
        to the market: the injection less the one without any (no generation, full demand), MW.
        """
        n = len(self.table.buses)
        if self.schedule is None:
            return np.concatenate([np.zeros(len(ANSWER_HEAD) - 1), [-1.0], np.zeros(2 * n)])
        head = (self._answered, *self._reply, self.schedule.p_import, self._interval)
        p_net = self.schedule.p_net
        return np.concatenate([head, p_net, p_net + self.p_load0])


class CentralOperator(Operator):
    """An operator that sees all bids and clears them itself.

    Parameters
    ----------
    table : Parties
    silent_steps : int. Steps without mail after which an SMO is silent.
    trust_silent : As of `BidReceiver`.
    """

    def __init__(
        self,
        table: Parties,
        scheduler: CentralScheduler,
        silent_steps: int,
        trust_silent: bool = True,
    ) -> None:
        super().__init__(table)
        self.receiver = BidReceiver(table.names, silent_steps, trust_silent)
        self._scheduler = scheduler
        self._awards = np.full((len(table.buses), len(AWARD_FIELDS)), np.nan)
        self._all_silent = False

    @property
    def p_load0(self) -> FloatArray:
        """Demand of each SMO without curtailment, MW, (n,)."""
        return bid_column(self.receiver.book.bids, "p_load0")

    def take_bids(self, smo: IntArray, rows: FloatArray, interval: int, step: int) -> None:
        """Take bids in, rows of (interval, numbers of the bid)."""
        self.receiver.take_bids(smo, rows, interval, step)
        self._gather_events()

    def note_silence(self, step: int) -> NDArray[np.bool_]:
        """Note who fell silent or came back; return who is silent, (n,)."""
        silent = self.receiver.note_silence(step)
        self._gather_events()
        return silent

    def _gather_events(self) -> None:
        told, self.receiver.events = self.receiver.events, []
        self.counts["events"] += len(told)
        self.events += told

    def clear_interval(self, interval: int) -> None:
        """Clear the interval with the bids at hand; where that fails the last schedule stays."""
        if not (self.receiver.book.known & ~self.receiver.silent).any():
            if not self._all_silent:
                self.say("all_smos_silent", kept="last schedule")
            self._all_silent = True
            return
        self._all_silent = False
        found = self._cleared(self._weights)
        if found is not None:
            self.put_in_force(found, interval)

    def obey(self, number: int, order: float, weights: Weights) -> None:
        """Clear with the weights of an order."""
        self.counts["trials"] += 1
        self.end_order(number, order, weights, self._cleared(weights))

    def put_in_force(self, found: Schedule, interval: int) -> None:
        """Award a schedule to the SMOs."""
        super().put_in_force(found, interval)
        head = np.full((len(found.p_load), 1), float(interval))
        self._awards = np.hstack([head, found.awards])

    def _cleared(self, weights: Weights) -> Schedule | None:
        """Return the schedule under `weights`; None, with an event, where there is none."""
        self.counts["clearings"] += 1
        try:
            return self._scheduler.clear(self.receiver.usable_bids(self._awards), weights)
        except ControllerError as error:
            self.say_failed(error)
            return None

    @property
    def awards(self) -> FloatArray:
        """Return the award of every SMO, (n, len(AWARD_FIELDS)); NaN before the first clearing."""
        return self._awards
