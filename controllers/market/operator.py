"""The primary market operator (PMO): bids in, awards and prices out, re-clearings on request.

Once per interval it clears the bids it has. Between, it answers the resilience manager: a *trial*
clears with other weights and tells the import that would come of it; a *commit* puts them in force.
Nothing it is sent can stop it: what cannot be used becomes an event, and the last good schedule
stays in force.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from controllers.errors import ControllerError
from controllers.mail import FloatArray, IntArray
from controllers.market.bid_book import BidBook
from controllers.market.desk import ClearingDesk, Schedule
from controllers.market.options import MarketOptions
from controllers.market.parties import PartyTable, bid_column
from controllers.market.reweighing import Weights
from controllers.market.smo import AWARD_FIELDS

TRIAL, COMMIT = 0.0, 1.0
SOLVED, FAILED = 1.0, -1.0
WEIGHTS_HEAD = ("number", "order", "xi")
ANSWER_HEAD = ("number", "status", "trial_import", "committed", "schedule_import", "interval")


def weights_message(number: int, order: float, weights: Weights) -> FloatArray:
    """Return what the manager sends: (3 + 2 n,)."""
    return np.concatenate([[number, order, weights.xi], weights.alpha, weights.beta])


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
        when = np.where(np.isfinite(rows[:, 0]), rows[:, 0], -1.0).astype(np.int64)
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
        n = len(self.table.buses)
        if not np.isfinite(message).all():
            return
        number, order = int(message[0]), message[1]
        if number <= self._answered or self.schedule is None:
            return
        weights = Weights(message[3 : 3 + n].copy(), message[3 + n :].copy(), float(message[2]))
        if (weights.alpha <= 0.0).any() or (weights.beta <= 0.0).any() or weights.xi <= 0.0:
            self.say("weights_refused", reason="a factor is not positive")
            return
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
