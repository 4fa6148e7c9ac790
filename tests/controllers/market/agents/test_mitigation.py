"""The campaign against an operator of a few lines: failures, forged numbers, a floor that moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.market.agents.bid_receiver import NUMBER_MAX
from controllers.market.agents.mitigation import Answer, Mitigation, MitigationSettings
from controllers.market.agents.operator import COMMIT, FAILED, SOLVED, TRIAL
from controllers.market.agents.reweighing import Weights

N, TARGET_KW, ATTACK_KW = 4, 900.0, 150.0
SETTINGS = MitigationSettings(
    tolerance=0.0025, mu_kw=10.0, max_clearings=12, relax=0.5, settle_samples=6,
    confirm_samples=5, noise_kw=2.0,
)  # fmt: skip
EVERYONE, SCORES = np.ones(N, dtype=bool), np.array([0.5, 0.6, 0.7, 0.8])
Change = Callable[[int, Answer], Answer]


class Play:
    """A campaign and an operator whose import falls by `room_kw` as the weights vanish."""

    def __init__(self, room_kw: float = 400.0, offset_kw: float = 0.0) -> None:
        self.mitigation = Mitigation(N, replace(SETTINGS, target_offset_kw=offset_kw))
        self.room_kw, self.attack_kw = room_kw, 0.0
        self.answered = self.committed = 0
        self.reply = (0.0, 0.0)
        self.weights = Weights.neutral(N)
        self.fails: Callable[[float], bool] = lambda order: False
        self.forge: Change = lambda k, answer: answer
        self.step = 0
        self.recovered = 0

    def import_of(self, weights: Weights) -> float:
        return TARGET_KW - self.room_kw * weights.strength

    def obey(self) -> None:
        number, order, weights = self.mitigation.order
        if number != self.answered + 1:
            return
        self.answered = number
        if self.fails(order):
            self.reply = (FAILED, 0.0)
            return
        self.reply = (SOLVED, self.import_of(weights))
        if order == COMMIT:
            self.committed, self.weights = number, weights

    def run(self, steps: int) -> Play:
        for _ in range(steps):
            self.obey()
            status, trial = self.reply
            schedule = self.import_of(self.weights)
            answer = Answer(self.answered, status, trial, self.committed, schedule, 0)
            heard = self.forge(self.step, answer)
            self.mitigation.hear(heard, SCORES, EVERYONE)
            measured = schedule + self.attack_kw
            self.mitigation.observe(measured, heard, SCORES, EVERYONE)
            if self.mitigation.ended and self.mitigation.state != "watching":
                self.recovered += 1
                self.mitigation.state = "watching"
            self.step += 1
        return self

    def attack(self, kw: float = ATTACK_KW) -> Play:
        self.attack_kw = kw
        self.mitigation.alarm(TARGET_KW)
        return self

    @property
    def import_kw(self) -> float:
        return self.import_of(self.weights) + self.attack_kw

    def kinds(self) -> list[str]:
        return [event["event"] for event in self.mitigation.events]


def fails_once(which: float) -> Callable[[float], bool]:
    left = [1]

    def fails(order: float) -> bool:
        hit = order == which and left[0] > 0
        left[0] -= hit
        return hit

    return fails


def test_a_commit_that_fails_is_told_and_searched_for_again() -> None:
    play = Play()
    play.fails = fails_once(COMMIT)
    play.attack()
    while "commit_failed" not in play.kinds() and play.step < 40:
        play.run(1)
    assert play.kinds()[-2:] == ["weights_committed", "commit_failed"]
    # What is in force is what was before: the original coefficients.
    assert play.mitigation.in_force.strength == 0.0
    play.run(40)
    assert play.kinds().count("commit_failed") == 1
    assert play.import_kw == pytest.approx(TARGET_KW, abs=SETTINGS.noise_kw)
    assert play.mitigation.state == "holding"
    assert play.recovered == 0


def test_a_commit_that_fails_leaves_the_weights_before_it_in_force() -> None:
    play = Play().attack().run(60)
    before = play.mitigation.in_force
    play.fails = lambda order: order == COMMIT
    play.attack_kw += 60.0
    play.run(12)
    assert "commit_failed" in play.kinds()
    assert play.mitigation.in_force is before
    assert play.weights is before


def test_an_operator_that_never_commits_is_asked_again_and_again() -> None:
    play = Play()
    play.fails = lambda order: order == COMMIT
    play.attack().run(200)
    assert play.kinds().count("commit_failed") >= 5
    play.fails = lambda order: False
    play.run(40)
    assert play.import_kw == pytest.approx(TARGET_KW, abs=SETTINGS.noise_kw)


def test_a_trial_that_fails_is_no_recovery() -> None:
    play = Play()
    play.fails = fails_once(TRIAL)
    play.attack().run(8)
    assert play.kinds() == ["search", "no_dispatch_for_weights"]
    assert play.mitigation.state == "holding"
    assert not play.mitigation.ended
    play.run(40)
    assert play.recovered == 0
    assert play.import_kw == pytest.approx(TARGET_KW, abs=SETTINGS.noise_kw)


@pytest.mark.parametrize("room_kw", [0.0, 60.0])
def test_a_target_out_of_reach_is_told_once_and_is_no_recovery(room_kw: float) -> None:
    play = Play(room_kw).attack().run(300)
    assert play.kinds().count("target_unreachable") == 1
    assert play.kinds().count("search") == 1
    assert play.recovered == 0
    assert play.mitigation.state == "holding"
    play.attack_kw = 0.0
    play.run(200)
    assert play.recovered == 1
    assert play.import_kw == pytest.approx(TARGET_KW, abs=SETTINGS.noise_kw)


def test_a_floor_that_sinks_is_noticed() -> None:
    play = Play(room_kw=0.0).attack().run(60)
    assert play.import_kw == TARGET_KW + ATTACK_KW
    play.room_kw = 400.0
    play.run(60)
    assert play.import_kw == pytest.approx(TARGET_KW, abs=SETTINGS.noise_kw)
    assert play.kinds().count("target_unreachable") == 1


def only_at(*steps: int, **forged: float) -> Change:
    def change(k: int, a: Answer) -> Answer:
        if k not in steps:
            return a
        return Answer(
            int(forged.get("number", a.number)),
            forged.get("status", a.status),
            forged.get("trial_kw", a.trial_kw),
            int(forged.get("committed", a.committed)),
            a.schedule_kw,
            a.interval,
        )

    return change


@pytest.mark.parametrize("number", [0, 3, 7, 1000, int(NUMBER_MAX)])
@pytest.mark.parametrize("at", [(6,), (7, 8, 9), tuple(range(5, 30)), (50,)])
def test_forged_numbers_of_answers_hold_it_up_but_do_not_stop_it(
    number: int, at: tuple[int, ...]
) -> None:
    play = Play()
    play.forge = only_at(*at, number=number)
    play.attack().run(120)
    assert play.import_kw == pytest.approx(TARGET_KW, abs=SETTINGS.noise_kw)
    assert play.mitigation.state == "holding"
    assert play.mitigation.in_force is play.weights


@pytest.mark.parametrize("at", [(6,), (12,), (60, 61)])
def test_a_forged_success_is_found_out(at: tuple[int, ...]) -> None:
    """The manager is told that all its orders are in force, whatever the operator did."""
    play = Play()

    def forge(k: int, a: Answer) -> Answer:
        number = play.mitigation.order[0]
        change = only_at(*at, number=number, status=SOLVED, committed=number, trial_kw=600.0)
        return change(k, a)

    play.forge = forge
    play.attack().run(160)
    assert play.import_kw == pytest.approx(TARGET_KW, abs=SETTINGS.noise_kw)
    assert play.mitigation.in_force is play.weights


def test_weights_that_somebody_else_put_in_force_are_replaced() -> None:
    play = Play().attack().run(60)
    # An order changed on its way, obeyed as it came: the operator counts on from its number.
    play.weights = Weights(np.full(N, 1e-4), np.full(N, 1e-4))
    play.answered = play.committed = play.answered + 1
    play.run(4)
    assert play.kinds()[-1] == "weights_not_in_force"
    assert play.weights is play.mitigation.in_force
    assert play.import_kw == pytest.approx(TARGET_KW, abs=SETTINGS.noise_kw)


def test_what_an_answer_says_is_rounded_and_nonsense_is_no_answer() -> None:
    message = np.array([1.98, 0.97, 0.9, 2.04, 1.0, 3.4, 0.0, 0.0])
    answer = Answer.read(message)
    assert answer == Answer(2, SOLVED, 900.0, 2, 1000.0, 3)
    for position, value in [(0, -1.0), (0, 1e300), (1, 50.0), (3, -2.0), (4, np.nan), (5, -1.0)]:
        wrong = message.copy()
        wrong[position] = value
        assert Answer.read(wrong) is None


@settings(max_examples=30, deadline=None)
@given(offset_kw=st.floats(-200.0, 0.0), attack_kw=st.floats(20.0, 150.0))
def test_a_target_below_the_import_before_is_held_as_long_as_the_attack_lasts(
    offset_kw: float, attack_kw: float
) -> None:
    play = Play(offset_kw=offset_kw).attack(attack_kw).run(150)
    assert play.import_kw == pytest.approx(TARGET_KW + offset_kw, abs=2.0 * SETTINGS.noise_kw)
    assert play.mitigation.target_kw == TARGET_KW + offset_kw
    assert play.mitigation.state == "holding"
    assert play.recovered == 0
    play.attack_kw = 0.0
    play.run(400)
    assert play.mitigation.target_kw == TARGET_KW
    assert play.import_kw == pytest.approx(TARGET_KW, abs=SETTINGS.noise_kw)
    assert play.recovered == 1
