"""The primary market operator (PMO): bids in, awards and prices out, re-clearings on request.

Once per interval it clears the bids it has. Between, it answers the resilience manager: a *trial*
clears with other weights and tells the import that would come of it; a *commit* puts them in force.
Nothing it is sent can stop it: what cannot be used becomes an event, and the last good schedule
stays in force.

Orders are numbered, and only the one after the last answered is obeyed: repeated and overtaken
ones change nothing, and one changed on its way cannot leap ahead of those that follow.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, IntArray
from controllers.market.agents.bid_book import BidBook
from controllers.market.agents.desk import ClearingDesk, Schedule
from controllers.market.agents.options import MarketOptions
from controllers.market.agents.reweighing import FACTOR_MIN, Weights
from controllers.market.agents.smo import AWARD_FIELDS
from controllers.market.model.parties import PartyTable, bid_column

TRIAL, COMMIT = 0.0, 1.0
SOLVED, FAILED = 1.0, -1.0
WEIGHTS_HEAD = ("number", "order", "log_xi")
ANSWER_HEAD = ("number", "status", "trial_import", "committed", "schedule_import", "interval")


# Larger numbers in mail are nonsense; beyond it a counter is no longer told from its successor.
NUMBER_MAX = 2.0**53
_LEAST_LOG = float(np.log10(FACTOR_MIN))
# Decades that noise may put a factor beyond its limits.
_SLACK = 0.5


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


class Operator:
    """The market operator's state.

    Parameters
    ----------
    table : PartyTable
    desk : ClearingDesk
    options : MarketOptions
    silent_steps : int
        Steps without mail after which an SMO is silent.
    """

    def __init__(
        self, table: PartyTable, desk: ClearingDesk, options: MarketOptions, silent_steps: int
    ) -> None:
        self.table, self._desk, self._options = table, desk, options
        n = len(table.buses)
        self.book = BidBook(table.names)
        self._silent_steps = silent_steps
        self._heard = np.full(n, -1, dtype=np.int64)
        self._silent = np.zeros(n, dtype=bool)
        self._awards = np.full((n, len(AWARD_FIELDS)), np.nan)
        self.schedule: Schedule | None = None
        self._interval = -1
        self._weights = Weights.neutral(n)
        self._committed = 0
        self._answered = 0
        self._reply = (0.0, 0.0, 0.0)
        self._refusing = False
        self.events: list[dict[str, Any]] = []
        self.counts = {"clearings": 0, "clearings_failed": 0, "trials": 0, "events": 0}
        self._all_silent = False

    def take_events(self) -> list[dict[str, Any]]:
        """Return what happened since the last call; what happened to several SMOs is one event."""
        told, self.events = self.events, []
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

    def say(self, event: str, **details: object) -> None:
        """Leave an event for the run."""
        self.counts["events"] += 1
        self.events.append({"event": event, **details})

    def take_bids(self, smo: IntArray, rows: FloatArray, interval: int, step: int) -> None:
        """Take bids in, rows of (interval, numbers of the bid)."""
        self._heard[smo] = step
        rows = np.where(np.abs(rows) <= NUMBER_MAX, rows, np.nan)
        when = np.rint(np.where(np.isfinite(rows[:, 0]), rows[:, 0], -1.0)).astype(np.int64)
        told = self.book.take(smo, when, rows[:, 1:], interval)
        for event, name in told:
            self.say(event, smo=name)

    def note_silence(self, step: int) -> NDArray[np.bool_]:
        """Say who fell silent or came back; return who is silent, (n,)."""
        silent = self.book.known & (step - self._heard > self._silent_steps)
        for i in np.flatnonzero(silent != self._silent).tolist():
            self.say("smo_silent" if silent[i] else "smo_back", smo=self.table.names[i])
        self._silent = silent
        return silent

    def clear_interval(self, interval: int) -> None:
        """Clear the interval with the bids at hand; where that fails the last schedule stays."""
        silent = self._silent
        usable = self.book.known & ~silent
        if not usable.any():
            if not self._all_silent:
                self.say("all_smos_silent", kept="last schedule")
            self._all_silent = True
            return
        self._all_silent = False
        found = self._cleared(self._weights)
        if found is not None:
            self._put_in_force(found, interval)

    def _cleared(self, weights: Weights) -> Schedule | None:
        """Return the schedule under `weights`; None, with an event, where there is none."""
        n = len(self.table.buses)
        held = self._held() if self.schedule is not None else (np.zeros(n),) * 3
        unknown = ~self.book.known
        frozen = (self._silent & self.book.known) | unknown
        try:
            found = self._desk.clear(self.book.bids, weights, frozen, held)
        except ControllerError as error:
            self.counts["clearings_failed"] += 1
            self.say("clearing_failed", reason=str(error), kept="last schedule")
            return None
        finally:
            self.counts["clearings"] += 1
        return found

    def _held(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return what every SMO was told last: load, generation, reactive generation."""
        awards = np.nan_to_num(self._awards)
        return awards[:, 1], awards[:, 2], awards[:, 3]

    def _put_in_force(self, found: Schedule, interval: int) -> None:
        if not found.exact:
            self.say("relaxation_not_exact", cone_gap_pu=found.cone_gap_pu)
        self.schedule = found
        self._interval = interval
        self._awards = np.stack(
            [
                np.full_like(found.p_load, interval),
                found.p_load,
                found.p_gen,
                found.q_gen,
                found.price_p,
                found.price_q,
            ],
            axis=1,
        )

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
        self._answered = number
        self.counts["trials"] += 1
        found = self._cleared(weights)
        if found is None:
            self._reply = (FAILED, 0.0, float(self._committed))
            return
        if order == COMMIT:
            self._weights = weights
            self._committed = number
            self._put_in_force(found, self._interval)
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
        return np.concatenate([head, p_net, p_net + bid_column(self.book.bids, "p_load0")])

    @property
    def awards(self) -> FloatArray:
        """Return the award of every SMO, (n, len(AWARD_FIELDS)); NaN before the first clearing."""
        return self._awards
