"""The batch of the secondary market: against cvxpy, by its laws, and on bad input."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from _secondary_cases import random_market, some
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.market.model.errors import BidError, MarketError, NoDispatchError
from controllers.market.secondary import clearing as module
from controllers.market.secondary.clearing import SecondaryClearing, clear_secondary
from controllers.market.secondary.fallback import clear_by_cone
from controllers.market.secondary.first_level import prepare
from controllers.market.secondary.problem import SecondaryBids, SecondaryProblem

PER_AGENT = ("p", "q", "delta_p", "delta_q", "pay")
PER_OPERATOR = ("objectives", "violation", "fallback", "uplift", "short_p", "short_q")


def market(
    p0: list[float], p_min: list[float], p_max: list[float], target: float, **other: Any
) -> SecondaryProblem:
    """One operator without reactive power."""
    m = len(p0)
    zero = np.zeros(m)
    names = {"score": np.ones(m), "beta_p": np.full(m, 0.1)}
    given_ = {name: np.array(other.pop(name, values), float) for name, values in names.items()}
    bids = SecondaryBids(
        owner=np.zeros(m, np.int64),
        p0=np.array(p0, float),
        p_min=np.array(p_min, float),
        p_max=np.array(p_max, float),
        q0=zero,
        q_min=zero,
        q_max=zero,
        beta_q=zero,
        **given_,
    )
    numbers = {"q_target": 0.0, "price_p": 0.1, "price_q": 0.0, "price_cap": 0.2} | other
    epsilon = numbers.pop("epsilon", 0.05)
    per_operator = {name: np.array([value], float) for name, value in numbers.items()}
    return SecondaryProblem(bids, np.array([target], float), epsilon=epsilon, **per_operator)


def same_bits(one: SecondaryClearing, other: SecondaryClearing) -> bool:
    return all(
        getattr(one, name).tobytes() == getattr(other, name).tobytes()
        for name in PER_AGENT + PER_OPERATOR
    )


@pytest.mark.parametrize("epsilon", [0.05, 1e-3])
def test_optima_equal_those_of_a_cone_solver(epsilon: float) -> None:
    problem = random_market(5, 3, widths=(1, 10), epsilon=epsilon)
    result = clear_secondary(problem)
    ready, _, _ = prepare(problem)
    assert not result.fallback.any()
    for i in range(5):
        _, expected = clear_by_cone(problem, ready, i)
        np.testing.assert_allclose(result.objectives[i], expected, rtol=1e-6, atol=1e-8)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), epsilon=st.sampled_from([0.0, 1e-6, 0.01, 0.3]))
def test_schedules_keep_every_limit(seed: int, epsilon: float) -> None:
    problem = random_market(10, seed, widths=(1, 12), epsilon=epsilon)
    bids, result = problem.bids, clear_secondary(problem)
    assert result.violation.max() < 1e-8
    assert not result.fallback.any()
    for got, target, low, high in (
        (result.p, problem.p_target, bids.p_min, bids.p_max),
        (result.q, problem.q_target, bids.q_min, bids.q_max),
    ):
        np.testing.assert_allclose(np.bincount(bids.owner, weights=got), target, atol=1e-9)
        assert (got >= low).all()
        assert (got <= high).all()
    paid = np.bincount(bids.owner, weights=result.pay)
    revenue = problem.price_p * problem.p_target + problem.price_q * problem.q_target
    assert (paid <= revenue + result.uplift + 2e-6).all()
    assert (result.uplift[paid < revenue] == 0).all()
    assert (result.delta_p <= (bids.p_max - bids.p_min) / 2 + 1e-12).all()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), keep=st.sets(st.integers(0, 7), min_size=1))
def test_an_operator_does_not_see_the_others(seed: int, keep: set[int]) -> None:
    """To the last bit: a federation may split operators over processes as it likes."""
    problem = random_market(8, seed, widths=(1, 12))
    operators = sorted(keep)
    whole, part = clear_secondary(problem), clear_secondary(some(problem, operators))
    mine = np.isin(problem.bids.owner, operators)
    for name in PER_AGENT:
        assert getattr(whole, name)[mine].tobytes() == getattr(part, name).tobytes()
    for name in PER_OPERATOR:
        assert getattr(whole, name)[operators].tobytes() == getattr(part, name).tobytes()


def test_clearing_again_gives_the_same_bits() -> None:
    problem, other = random_market(6, 1), random_market(6, 2)
    first = clear_secondary(problem)
    clear_secondary(other)
    assert same_bits(first, clear_secondary(problem))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_order_of_agents_does_not_matter(seed: int) -> None:
    problem = random_market(3, seed)
    owner = problem.bids.owner
    order = np.lexsort((np.random.default_rng(seed).permutation(len(owner)), owner))
    bids = SecondaryBids(**{name: value[order] for name, value in vars(problem.bids).items()})
    one, other = clear_secondary(problem), clear_secondary(replace(problem, bids=bids))
    np.testing.assert_allclose(other.p, one.p[order], atol=1e-6)
    np.testing.assert_allclose(other.objectives, one.objectives, rtol=1e-8)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), exponent=st.integers(-2, 6))
def test_the_unit_of_money_does_not_matter(seed: int, exponent: int) -> None:
    """Prices and disutility in another currency: the same optima, but for the 1e-6 of money."""
    problem = random_market(4, seed)
    rate = 2.0**exponent
    bids = replace(
        problem.bids, beta_p=rate * problem.bids.beta_p, beta_q=rate * problem.bids.beta_q
    )
    prices = {n: rate * getattr(problem, n) for n in ("price_p", "price_q", "price_cap")}
    one, other = clear_secondary(problem), clear_secondary(replace(problem, bids=bids, **prices))
    np.testing.assert_allclose(other.objectives, one.objectives * [1, rate, 1, rate], rtol=1e-2)


def test_level_1_shares_by_resilience_score() -> None:
    """The scores of the thesis' slide on resilience scores and the secondary market."""
    score = [0.947, 0.985, 0.493]
    problem = market([-10] * 3, [-10] * 3, [0] * 3, -27, score=score, epsilon=0.0)
    curtailed = clear_secondary(problem).p + 10
    np.testing.assert_allclose(curtailed, 3 * np.array(score) / sum(score), rtol=1e-12)


def test_level_2_prefers_generation_that_it_pays_least() -> None:
    """A load and a generator: more of both costs the operator less, as far as level 1 allows."""
    problem = market([-10, 4], [-12, 0], [-8, 6], -7, epsilon=0.1)
    result, strict = clear_secondary(problem), clear_secondary(replace(problem, epsilon=0.0))
    assert result.objectives[0, 1] < strict.objectives[0, 1]
    np.testing.assert_allclose(strict.p, [-10.5, 3.5], atol=1e-12)
    np.testing.assert_allclose(strict.pay, [0.2 * -10.5, 0.05 * 3.5], atol=1e-12)


def test_level_3_moves_to_the_middle_of_ranges() -> None:
    """Two loads, each at one end of its range."""
    problem = market([-10, -10], [-10, -14], [-8, -10], -20, epsilon=0.5)
    result = clear_secondary(problem)
    # The plans meet the target, so the bound of level 1 is its slack alone: 2 d^2 = 1e-6.
    d = 5e-7**0.5
    assert result.objectives[0, 2] == pytest.approx(-2 * d)
    # Level 4 goes back to the plans as far as level 3 allows: by half, and by half of its slack.
    np.testing.assert_allclose(result.p + 10, [d / 2 - 5e-7, 5e-7 - d / 2], atol=1e-12)


def test_a_bid_that_may_change_sign_keeps_that_of_level_1() -> None:
    problem = market([1, -5], [-5, -8], [5, -2], -6, epsilon=0.5)
    result = clear_secondary(problem)
    assert result.p[0] <= 0 or clear_secondary(replace(problem, epsilon=0.0)).p[0] > 0
    assert result.pay[0] == pytest.approx(result.p[0] * (0.05 if result.p[0] > 0 else 0.2))


@pytest.mark.parametrize(
    ("target", "price", "uplift"),
    [
        (-9, 0.1, 0.0),  # loads pay 1.8 and the energy costs 0.9
        (-9, 0.3, 0.9),  # above the cap: 2.7 for energy that brings 1.8
        (-9, -0.1, 0.0),
    ],
)
def test_what_a_cap_leaves_uncovered_is_uplift(target: float, price: float, uplift: float) -> None:
    result = clear_secondary(market([-10], [-10], [-8], target, price_p=price))
    assert result.uplift[0] == pytest.approx(uplift)
    assert result.p[0] == target


@pytest.mark.parametrize(("target", "short"), [(-20, -10.0), (0, 8.0)])
def test_a_target_out_of_reach_is_short(target: float, short: float) -> None:
    result = clear_secondary(market([-9], [-10], [-8], target))
    assert result.short_p[0] == short
    assert result.violation[0] == 0


def test_agents_without_room_without_score_without_cost() -> None:
    problem = market([-9, -3, 2], [-9, -3, 2], [-9, -2, 2], -9.5, score=[0, 0, 1], beta_p=[0] * 3)
    result = clear_secondary(problem)
    np.testing.assert_allclose(result.p, [-9, -2.5, 2])
    assert result.objectives[0, 3] == 0


def test_operators_without_agents() -> None:
    problem = random_market(3, 0)
    bids = replace(problem.bids, owner=2 * problem.bids.owner)
    spread = {
        name: np.insert(getattr(problem, name), [1, 2], 1.0)
        for name in ("p_target", "q_target", "price_p", "price_q", "price_cap")
    }
    result = clear_secondary(replace(problem, bids=bids, **spread))
    assert result.short_p.tolist() == [0, 1, 0, 1, 0]
    assert (result.objectives[1] == 0).all()


@pytest.fixture
def half_solved(monkeypatch: pytest.MonkeyPatch) -> SecondaryProblem:
    """A market of three operators, of whom the batch gets the second wrong."""
    problem = random_market(3, 5, widths=(3, 4))
    batch = module._clear_batch

    def fails(problem: SecondaryProblem) -> Any:
        x, objectives, ready, ok = batch(problem)
        if problem.epsilon > 0:
            x[problem.bids.owner.searchsorted(1)] += 1.0
        return x, objectives, ready, ok

    monkeypatch.setattr(module, "_clear_batch", fails)
    return problem


def test_what_the_batch_does_not_solve_falls_back(
    half_solved: SecondaryProblem, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = clear_secondary(half_solved)
    assert result.fallback.tolist() == [False, True, False]
    monkeypatch.undo()
    good = clear_secondary(half_solved)
    np.testing.assert_allclose(result.p, good.p, atol=1e-4)
    np.testing.assert_allclose(result.objectives, good.objectives, rtol=1e-6)
    assert result.violation.max() < 1e-6


def test_where_that_fails_level_1_stands(
    half_solved: SecondaryProblem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise NoDispatchError("none", status="none", where="here", expected="one")

    monkeypatch.setattr(module, "clear_by_cone", fails)
    result = clear_secondary(half_solved)
    assert result.fallback.tolist() == [False, True, False]
    assert result.violation.max() < 1e-9
    alone = clear_secondary(replace(half_solved, epsilon=0.0))
    mine = half_solved.bids.owner == 1
    np.testing.assert_array_equal(result.p[mine], alone.p[mine])


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("p0", np.nan, r"bid of agent 4 \(operator \d\), p0: is nan; expected a finite number"),
        ("beta_q", -1.0, "beta_q: is -1; expected 0 or more"),
        ("score", 1.5, "score: is 1.5; expected 0 to 1"),
        ("q_min", 99.0, "q_min: is 99; expected q_min <= q_max"),
        ("owner", 0, "owner: is .*; expected ascending operators"),
    ],
)
def test_bids_that_are_none(field: str, value: float, words: str) -> None:
    problem = random_market(3, 0, widths=(3, 3))
    bad = getattr(problem.bids, field).copy()
    bad[4] = value
    with pytest.raises(BidError, match=words):
        clear_secondary(replace(problem, bids=replace(problem.bids, **{field: bad})))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("p_target", np.array([np.inf]), "p_target: of operator 0 is inf"),
        ("price_cap", np.array([-0.1]), "price_cap: of operator 0 is -0.1; expected 0 or more"),
        ("price_q", np.zeros(2), r"price_q: shape \(2,\)"),
        ("epsilon", -1.0, "epsilon: is -1.0; expected 0 or more"),
    ],
)
def test_operators_that_are_none(field: str, value: Any, words: str) -> None:
    with pytest.raises(MarketError, match=words):
        clear_secondary(replace(market([-1], [-2], [0], -1), **{field: value}))
