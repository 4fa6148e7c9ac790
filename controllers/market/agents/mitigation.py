"""One mitigation from alarm to recovery, as a machine of words: what the manager asks, and when.

It sees numbers only: the import measured, and what the operator answers. All powers in kW.

    watching --alarm--> searching --found--> settling --on target--> holding
                            ^                   |                       |
                            +------ off --------+-------- off ---------+
    holding --all weights neutral again--> watching

Orders and answers are repeated, and may be lost, late or changed on their way. So an order bears
the number after the last that the operator says it answered; and where the operator says that other
weights are in force than those it was told to use, it is told again.

A *search* is a row of trial clearings: weights out, the import they would give back, new weights by
`reweighing`, until the trial is within tolerance of the target. What the operator's model does not
know (who was attacked, what devices really do) is the *offset*: import measured minus import
scheduled, as it was when the search began. A trial counts as its import plus the offset.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from controllers.core.mail import FloatArray
from controllers.market.agents.bid_receiver import NUMBER_MAX
from controllers.market.agents.operator import ANSWER_HEAD, COMMIT, SOLVED, TRIAL
from controllers.market.agents.reweighing import Search, Weights, floor_weights, stalled

State = Literal["watching", "searching", "settling", "holding"]
STATES: tuple[State, ...] = ("watching", "searching", "settling", "holding")
_NEUTRAL = 0.01
# Strength of weights below which it is asked now and then whether they are still needed.
_WEAK = 0.2
# In widths of the dead band: what is less off than this is put right at once.
_SMALL = 4.0


@dataclass(frozen=True)
class Answer:
    """What the operator says: the last order it obeyed, how that went, and what is in force."""

    number: int
    status: float
    trial_kw: float
    committed: int
    schedule_kw: float
    interval: int

    @staticmethod
    def read(message: FloatArray) -> Answer | None:
        """Return what a message says; None before the first schedule, and where it cannot be meant.

        Counters and flags are rounded, for noise on a link changes them, too.
        """
        if not (np.abs(message) <= NUMBER_MAX).all():
            return None
        number, status, trial, committed, schedule, interval = message[: len(ANSWER_HEAD)].tolist()
        number, status, committed = round(number), round(status), round(committed)
        if min(number, committed, round(interval)) < 0 or abs(status) > 1:
            return None
        return Answer(
            number, float(status), 1000.0 * trial, committed, 1000.0 * schedule, round(interval)
        )


@dataclass(frozen=True)
class MitigationSettings:
    """Settings in the mitigation's units; see `options.ManagerOptions`."""

    tolerance: float
    mu_kw: float
    max_clearings: int
    relax: float
    settle_samples: int
    confirm_samples: int
    noise_kw: float
    target_offset_kw: float = 0.0


class Mitigation:
    """The machine.

    Attributes
    ----------
    state : State
    order : (number, order, Weights); What the operator is to be told; repeated until it answers.
    floor_kw : float or None. The least import that can be reached, where it was asked for.
    """

    def __init__(self, n: int, settings: MitigationSettings) -> None:
        self._set = settings
        self._n = n
        self.state: State = "watching"
        self.order: tuple[int, float, Weights] = (0, TRIAL, Weights.neutral(n))
        self.in_force = Weights.neutral(n)
        self.target_kw = self.offset_kw = self.delta_kw = 0.0
        self.floor_kw: float | None = None
        self.events: list[dict[str, Any]] = []
        self.rounds = 0
        self._search = Search(self.in_force, settings.mu_kw)
        self._goal_kw = 0.0
        self._before_kw = 0.0
        # Import before the attack, and by how much it was above the schedule then.
        self._pre_kw = self._bias_kw = 0.0
        self._asking_floor = self._releasing = False
        self._best: Search | None = None
        self._samples: list[float] = []
        self._told_unreachable = False
        self._spent = False
        self._told_restored = False
        self._needed = settings.settle_samples
        # Whether the last judgement found the import where it should be.
        self._on_target = False
        # A COMMIT is out that has not been answered; what is in force if it fails; the number of
        # the last one that was obeyed; the last number that the operator answered.
        self._committing = self._probing = False
        self._fallback = self.in_force
        self._commit_number = self._answered = 0

    @property
    def _limit_kw(self) -> float:
        return self._set.tolerance * abs(self.target_kw)

    def say(self, event: str, **details: float) -> None:
        """Leave an event for the run, numbers rounded to a watt."""
        self.events.append({"event": event, **{k: round(v, 3) for k, v in details.items()}})

    # --- beginning and judging -------------------------------------------------------------------

    def alarm(self, pre_kw: float, bias_kw: float = 0.0) -> None:
        """Begin: the import has left its schedule.

        `pre_kw` is what it was before, `bias_kw` by how much that was above the schedule.
        """
        self._pre_kw, self._bias_kw = pre_kw, bias_kw
        self.target_kw = pre_kw + self._set.target_offset_kw
        self.floor_kw = None
        self._told_unreachable = self._told_restored = self._spent = self._on_target = False
        self._samples = []
        self._needed = self._set.confirm_samples
        self.state = "settling"

    def observe(
        self,
        measured_kw: float,
        answer: Answer,
        scores: FloatArray,
        answering: NDArray[np.bool_],
    ) -> None:
        """Take one measurement of the import in; judge when enough have come."""
        if self.state in ("watching", "searching"):
            return
        if self._committing or self._probing:
            self._samples = []  # not yet in force, or not yet known whether more can be
            return
        self._samples.append(measured_kw)
        enough = self._needed
        if len(self._samples) < enough and not self._leapt():
            return
        # Devices approach their set-points: only the newest samples say where they end.
        mean = float(np.mean(self._samples[-max(1, enough // 3) :]))
        self._samples = []
        self._needed = self._set.settle_samples
        self._judge(mean, answer, scores, answering)

    def _leapt(self) -> bool:
        """Whether the last two measurements are far off where all was quiet: no need for more."""
        if self.state != "holding" or not self._on_target or len(self._samples) < 2:
            return False
        off = np.array(self._samples[-2:]) - self.target_kw
        return bool((np.abs(off) > 2.0 * _SMALL * self._set.noise_kw).all())

    def _judge(
        self,
        measured_kw: float,
        answer: Answer,
        scores: FloatArray,
        answering: NDArray[np.bool_],
    ) -> None:
        if measured_kw - answer.schedule_kw <= self._bias_kw + self._set.noise_kw:
            # The schedule explains the import, so the attack is over: no offset any more.
            self.target_kw = self._pre_kw
        self.delta_kw = measured_kw - self.target_kw
        # The noise of an interval cannot be steered away: what is in force is left alone until
        # the import is off by more than that noise explains.
        band = max(self._limit_kw, self._set.noise_kw * (1.0 if self.state == "settling" else 2.0))
        self._on_target = abs(self.delta_kw) <= band
        if not self._told_restored and self._on_target and self.in_force.strength > 0.0:
            self._told_restored = True
            self.say("import_restored", import_kw=measured_kw, target_kw=self.target_kw)
        if self._on_target or (self.delta_kw > 0.0 and self._spent):
            self.state = "holding"
            if not self._on_target:
                self._probing = True
                self._ask(TRIAL, floor_weights(self._n))
                return
            # Where all that could be had was too little, it is something else that brought it back.
            weak = self.in_force.strength < _WEAK or self._spent
            self._spent = False
            if weak and self.in_force.strength > 0.0:
                self._try_release(measured_kw, answer)
            return
        self._spent = False
        goal = self.target_kw
        if self.delta_kw < 0.0:
            if self.in_force.strength <= 0.0:
                self.state = "watching"
                return
            # Too little comes in: the attack gives way. Back by parts, so that nothing leaps.
            part = self._set.relax if self.delta_kw < -_SMALL * band else 1.0
            goal = measured_kw - part * self.delta_kw
        self.offset_kw = measured_kw - answer.schedule_kw
        self._begin(measured_kw, goal, scores, answering)

    def _try_release(self, measured_kw: float, answer: Answer) -> None:
        """Ask what the original coefficients would give: the weights may be needed no longer."""
        self.state = "searching"
        self._releasing = True
        self.offset_kw = measured_kw - answer.schedule_kw
        self._ask(TRIAL, Weights.neutral(self._n))

    def _begin(
        self,
        import_kw: float,
        goal_kw: float,
        scores: FloatArray,
        answering: NDArray[np.bool_],
    ) -> None:
        self.rounds += 1
        self.state = "searching"
        self._goal_kw, self._before_kw = goal_kw, import_kw
        self._on_target = False
        self._best = None
        self.say("search", import_kw=import_kw, goal_kw=goal_kw, delta_kw=import_kw - goal_kw)
        search = Search(self.in_force, self._set.mu_kw)
        self._search = search.begin(import_kw - goal_kw, scores, answering)
        self._ask(TRIAL, self._search.weights)

    def _ask(self, order: float, weights: Weights) -> None:
        self.order = (self._answered + 1, order, weights)

    def _commit(self, weights: Weights) -> None:
        self._fallback, self.in_force = self.in_force, weights
        self._ask(COMMIT, weights)
        self._committing = True
        self._samples = []

    # --- orders and answers ----------------------------------------------------------------------

    def _keep_in_step(self, answer: Answer) -> None:
        """Give the order the number that the operator waits for; put lost weights in force again.

        Both are needed only after an order or an answer was changed on its way: one that looked
        right was obeyed, or believed.
        """
        self._answered = answer.number
        number, order, weights = self.order
        if self._committing or self._probing or self.state == "searching":
            if answer.number not in (number - 1, number):
                self.order = (answer.number + 1, order, weights)
        elif answer.committed != self._commit_number:
            self.say("weights_not_in_force", strength=self.in_force.strength)
            self._commit(self.in_force)

    def _take_commit(self, answer: Answer) -> None:
        """Go on when the weights are in force; where they are not, with those that were before."""
        self._committing = False
        self._commit_number = answer.committed
        if answer.committed == answer.number:
            return
        self.in_force = self._fallback
        self._spent = False
        # A trial with these weights had a dispatch: wait until it is clear what has changed since.
        self._needed = self._set.confirm_samples
        self.say("commit_failed", strength=self.in_force.strength)

    def _take_probe(self, answer: Answer) -> None:
        """Search again where the floor has sunk: with new bids, or operators that came back."""
        self._probing = False
        # Both numbers are the operator's: what its model does not know is not in their difference.
        sunk = answer.schedule_kw - answer.trial_kw > 2.0 * self._limit_kw
        if answer.status == SOLVED and sunk:
            self._spent, self.floor_kw = False, None
            self._needed = 1

    # --- searching -------------------------------------------------------------------------------

    def hear(self, answer: Answer, scores: FloatArray, answering: NDArray[np.bool_]) -> None:
        """Take the operator's answer in."""
        self._keep_in_step(answer)
        number, _, weights = self.order
        if answer.number != number:
            return
        if self._committing:
            self._take_commit(answer)
            return
        if self._probing:
            self._take_probe(answer)
            return
        if self.state != "searching":
            return
        if self._releasing:
            self._releasing = False
            delta = answer.trial_kw + self.offset_kw - self.target_kw
            if answer.status == SOLVED and abs(delta) <= max(self._limit_kw, self._set.noise_kw):
                self._goal_kw = self.target_kw
                self._finish(Search(weights, self._set.mu_kw, delta))
            else:
                self.state = "holding"
            return
        if answer.status != SOLVED:
            self.say("no_dispatch_for_weights", clearings=float(self._search.clearings))
            self._finish(self._best)
            return
        trial_kw = answer.trial_kw + self.offset_kw
        if self._asking_floor:
            self._take_floor(trial_kw)
            return
        here = Search(weights, self._search.mu, trial_kw - self._goal_kw, self._search.clearings)
        if self._best is None or abs(here.delta) < abs(self._best.delta):
            self._best = here
        before, self._before_kw = self._before_kw, trial_kw
        if abs(here.delta) <= self._limit_kw or self._ends_neutral(weights, here.delta):
            self._finish(here)
        elif self._search.clearings + 1 >= self._set.max_clearings:
            self._spent = here.delta > 0.0
            self._finish(self._best)
        else:
            self._search = self._search.answer(here.delta, scores, answering)
            if self.floor_kw is None and stalled(before, trial_kw, self._goal_kw, self._limit_kw):
                self._asking_floor = True
                self._ask(TRIAL, floor_weights(self._n))
            elif here.delta > 0.0 and self._is_floor(trial_kw):
                self._spent = True  # all that can be had; asking again gives no more
                self._finish(here)
            else:
                self._ask(TRIAL, self._search.weights)

    def _is_floor(self, import_kw: float) -> bool:
        return self.floor_kw is not None and import_kw <= self.floor_kw + self._limit_kw

    @staticmethod
    def _ends_neutral(weights: Weights, delta: float) -> bool:
        """Whether the way back ends here: nothing is left to relax, though import is still low."""
        return delta < 0.0 and weights.strength <= 0.0

    def _take_floor(self, floor_kw: float) -> None:
        self._asking_floor = False
        self.floor_kw = floor_kw
        if floor_kw > self.target_kw + self._limit_kw and not self._told_unreachable:
            self._told_unreachable = True
            self.say("target_unreachable", target_kw=self.target_kw, floor_kw=floor_kw)
        self._ask(TRIAL, self._search.weights)

    def _finish(self, found: Search | None) -> None:
        """Put what was found in force; without anything, keep what is."""
        self._samples = []
        self._asking_floor = False
        if found is None:
            self.state = "holding"
            return
        weights = found.weights
        if weights.strength < _NEUTRAL:
            weights = Weights.neutral(self._n)
        self._commit(weights)
        self.state = "settling"
        self.say(
            "weights_committed",
            clearings=float(found.clearings + 1),
            expected_import_kw=self._goal_kw + found.delta,
            strength=weights.strength,
        )

    @property
    def ended(self) -> bool:
        """Whether the original coefficients do again, and the import is no higher than it was."""
        neutral = self.in_force.strength <= 0.0
        return self.state == "watching" or (self.state == "holding" and neutral and self._on_target)
