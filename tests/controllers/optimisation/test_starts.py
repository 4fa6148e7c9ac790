"""Starts of ADMM: any start costs at most `restart_after` rounds; what the learned ones give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.core.agent_rows import RowController
from controllers.core.errors import ControllerError
from controllers.core.mail_loop import MailLoop, Post, plain_rows
from controllers.core.waiting import Asynchronous
from controllers.optimisation.algorithms.catalog import build
from controllers.optimisation.problems.dispatch import Dispatch, random_dispatch
from controllers.optimisation.starts import NearestStart, RidgeStart, Start

PROBLEM = random_dispatch(6, condition=30.0, coupling=2, seed=1)


def _make(problem: Dispatch = PROBLEM, **options: Any) -> RowController:
    made = build("admm-least-squares", problem, **options)
    assert isinstance(made, RowController)
    return made


def _rounds(post: Post | None = None, **options: Any) -> int:
    made = _make(**options)
    loop = MailLoop([made], post)
    while not made.stopped and loop.steps < 5000:
        loop.step()
    assert made.stopped
    measure = PROBLEM.measure(made.answer())
    assert max(measure.gap, measure.infeasibility) <= 5e-6
    return made.rounds


COLD = _rounds()


def _optimum() -> Start:
    return Start(PROBLEM.reference.x, PROBLEM.reference.price)


@st.composite
def starts(draw: st.DrawFn) -> Start:
    """Guesses of all sizes, the optimum among them."""
    rng, size = np.random.default_rng(draw(st.integers(0, 2**16))), draw(st.integers(-9, 9))
    if draw(st.booleans()):
        return Start(10.0**size * rng.standard_normal(6), 10.0**size * rng.standard_normal(3))
    best = _optimum()
    return Start(best.x + 10.0**size * rng.standard_normal(6), best.price)


@settings(max_examples=25)
@given(starts(), st.integers(1, 30), st.integers(1, 30))
def test_after_the_restart_the_rounds_are_those_of_a_cold_start(
    start: Start, restart_after: int, more: int
) -> None:
    warm = _make(start=start, restart_after=restart_after, tolerance=0.0)
    cold = plain_rows(_make(tolerance=0.0).team, more)[0]
    given_up = plain_rows(warm.team, restart_after + more)[0]
    for name in ("x", "price"):
        assert given_up.answer()[name].tobytes() == cold.answer()[name].tobytes()


@settings(max_examples=25)
@given(starts(), st.integers(1, 30))
def test_a_start_costs_at_most_the_rounds_before_the_restart(
    start: Start, restart_after: int
) -> None:
    assert _rounds(start=start, restart_after=restart_after) <= restart_after + COLD


def test_a_start_at_the_optimum_needs_the_rounds_that_stopping_takes() -> None:
    assert _rounds(start=_optimum(), restart_after=50) <= 5 < COLD


def test_lost_and_late_mail_changes_neither_start_nor_restart() -> None:
    bad = Start(np.full(6, 1e6), np.full(3, 1e6))
    poor = Post(loss=0.3, max_delay_steps=3, seed=5)
    assert _rounds(poor, start=bad, restart_after=10) == _rounds(start=bad, restart_after=10)


def test_the_agents_stop_with_the_answer_before_a_restart_in_the_same_round() -> None:
    """Whenever the restart comes, an answer that is told is an optimum (`_rounds` measures it)."""
    for restart_after in range(1, 12):
        _rounds(start=_optimum(), restart_after=restart_after)


def test_nearest_and_ridge_starts() -> None:
    rng = np.random.default_rng(0)
    features, law = rng.standard_normal((40, 4)), rng.standard_normal((4, 5))
    solutions = [Start(row[:3], row[3:]) for row in 1.0 + features @ law]
    at = NearestStart(features, solutions, k=1)(features[7])
    np.testing.assert_array_equal(at.x, solutions[7].x)
    np.testing.assert_array_equal(at.price, solutions[7].price)
    mean = NearestStart(features, solutions, k=40)(features[7])
    np.testing.assert_allclose(mean.x, np.mean([s.x for s in solutions], axis=0))
    new = rng.standard_normal(4)
    linear = RidgeStart(features, solutions, weight=1e-9)(new)
    np.testing.assert_allclose(linear.x, (1.0 + new @ law)[:3], atol=1e-6)
    np.testing.assert_allclose(linear.price, (1.0 + new @ law)[3:], atol=1e-6)


def test_a_feature_without_spread_does_not_count() -> None:
    features = np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]])
    solutions = [Start(np.array([v]), np.zeros(1)) for v in (1.0, 2.0, 3.0)]
    assert NearestStart(features, solutions, k=1)(np.array([2.1, 900.0])).x == [2.0]
    assert RidgeStart(features, solutions, 1e-9)(np.array([2.5, 900.0])).x == pytest.approx(2.5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"start": Start(np.zeros(5), np.zeros(3)), "restart_after": 9}, "'x' of the start is"),
        ({"start": Start(np.zeros(6), np.full(3, np.nan)), "restart_after": 9}, "is not finite"),
        ({"start": Start(np.zeros(6), np.zeros(3))}, "start without restart_after"),
        ({"restart_after": 9}, "restart_after without start"),
        ({"start": Start(np.zeros(6), np.zeros(3)), "restart_after": 0}, "restart_after is 0"),
        ({"start": "cold", "restart_after": 9}, "option 'start'"),
        ({"waiting": Asynchronous()}, "every message once"),
        ({"stiffness": 0.0}, "stiffness is 0.0"),
        ({"relaxation": 2.0}, "relaxation is 2.0"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ControllerError, match=words):
        _make(**options)


def test_models_refuse_what_they_cannot_learn_from() -> None:
    one = Start(np.zeros(2), np.zeros(1))
    for features, solutions in (
        (np.zeros((0, 2)), []),
        (np.zeros((2, 2)), [one]),
        (np.array([[np.nan, 1.0]]), [one]),
    ):
        with pytest.raises(ControllerError, match="learned start"):
            RidgeStart(features, solutions)
