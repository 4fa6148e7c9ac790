"""Stages II and III of the consumer market: optimality, tracking, budget, signs, whole bills."""

from dataclasses import replace

import numpy as np
import pytest
from _consumer_games import Games, deviation_gain, misreport_gain, random_games, utility
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.market.consumer.game import clear_consumer, consumer_units, respond
from controllers.market.model.errors import BidError, MarketError

seeds = st.integers(0, 10**6)


def paid(games: Games, found) -> np.ndarray:  # type: ignore[no-untyped-def]
    """What each operator pays its homes less what it is paid, money per h."""
    total = games.sums(found.p)
    return found.mu_flex * (total - games.sums(games.p0)) + found.mu * total - games.price * total


def one(p0, p_min, p_max, gamma, target, price=0.1, **more):  # type: ignore[no-untyped-def]
    """Clear one operator."""
    homes = [np.array(x, dtype=float) for x in (p0, p_min, p_max, gamma)]
    owner = np.zeros(len(p0), dtype=np.int64)
    return clear_consumer(owner, *homes, np.array([target]), np.array([price]), **more)


@settings(max_examples=40, deadline=None)
@given(seeds, st.sampled_from(["allow", "floor"]), st.booleans())
def test_targets_are_met_and_the_budget_is_what_is_reported(
    seed: int, policy: str, planned: bool
) -> None:
    games = random_games(30, seed, part=1.3)
    found = games.clear(policy, games.price if planned else 0.0)  # type: ignore[arg-type]
    assert np.abs(games.sums(found.p) + found.short - games.p_target).max() <= 1e-9
    assert np.abs(paid(games, found) - found.uplift).max() <= 1e-9
    if policy == "allow":
        assert not found.uplift.any()
    # What is short is beyond all bounds, and only that.
    low, high = games.sums(games.p_min), games.sums(games.p_max)
    over = np.maximum(games.p_target - high, 0.0) + np.minimum(games.p_target - low, 0.0)
    assert np.allclose(found.short, over, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_where_no_bound_binds_the_prices_are_those_printed(seed: int) -> None:
    games = random_games(20, seed)
    far = replace(games, p_min=games.p0 - 1e3, p_max=games.p0 + 1e3)
    found = far.clear()
    p0, target, price = games.sums(games.p0), games.p_target, games.price
    gamma_t = games.sums(1.0 / games.gamma)
    mu = price * target / p0 - 2.0 * (target - p0) ** 2 / (gamma_t * p0)
    flex = target * (2.0 * (target - p0) - price * gamma_t) / (gamma_t * p0)
    assert np.allclose(found.mu, mu, rtol=1e-7)
    assert np.allclose(found.mu_flex, flex, rtol=1e-7)


@settings(max_examples=20, deadline=None)
@given(seeds, st.floats(0.01, 0.9))
def test_the_printed_condition_of_positive_prices(seed: int, part: float) -> None:
    """For a net load: the target has to be above P0 + price gamma_t / 2, and below 0."""
    games = random_games(20, seed)
    p0, gamma_t = games.sums(games.p0), games.sums(1.0 / games.gamma)
    least = p0 + 0.5 * games.price * gamma_t
    some = least < -0.1
    assert some.any()
    for target, positive in (
        (least + part * (0.0 - least), True),
        (p0 + part * (least - p0), False),
    ):
        far = replace(
            games, p_min=games.p0 - 1e3, p_max=games.p0 + 1e3,
            p_target=np.where(some, target, p0),
        )  # fmt: skip
        found = far.clear()
        assert (found.mu[some] > 0.0).all()
        assert ((found.mu_flex > 0.0)[some] == positive).all()


@pytest.mark.parametrize("planned", [False, True])
def test_no_price_taker_gains_by_deviating_in_1000_games(planned: bool) -> None:
    games = random_games(1000, 5, part=1.1)
    plan_price = games.price if planned else 0.0
    found = games.clear(plan_price=plan_price)
    assert deviation_gain(games, found, plan_price, points=51).max() <= 1e-12


def test_prices_are_not_strategy_proof() -> None:
    """A home that anticipates the prices gains by a false gamma: nothing else is claimed."""
    gain = misreport_gain(random_games(200, 2, (2, 3)), (0.5, 2.0))
    assert np.mean(gain > 1e-6) > 0.5


@settings(max_examples=20, deadline=None)
@given(seeds, st.integers(1, 29))
def test_a_result_does_not_depend_on_the_batch(seed: int, cut: int) -> None:
    games = random_games(30, seed, (1, 9), part=1.2)
    whole = games.clear("floor")
    bill = np.random.default_rng(seed).integers(-(10**9), 10**9, 30)
    units = consumer_units(bill, games.owner, whole.p, games.p0, whole.mu, whole.mu_flex, hours=0.1)
    for own in (np.arange(30) < cut, np.arange(30) >= cut):
        mine = own[games.owner]
        homes = {k: getattr(games, k)[mine] for k in ("p0", "p_min", "p_max", "gamma")}
        owner = games.owner[mine] - games.owner[mine][0]
        part = Games(owner, **homes, p_target=games.p_target[own], price=games.price[own])
        found = part.clear("floor")
        for name in ("mu", "mu_flex", "s", "short", "uplift"):
            assert np.array_equal(getattr(found, name), getattr(whole, name)[own])
        assert np.array_equal(found.p, whole.p[mine])
        again = consumer_units(
            bill[own], owner, found.p, part.p0, found.mu, found.mu_flex, hours=0.1
        )
        assert np.array_equal(again, units[mine])


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_the_floor_charges_nobody_for_what_was_asked(seed: int) -> None:
    games = random_games(40, seed)
    found = games.clear("floor")
    asked = games.p_target - games.sums(games.p0)
    assert (found.mu >= 0.0).all()
    assert (found.mu_flex * asked >= 0.0).all()
    free = games.clear("allow")
    kept = found.uplift == 0.0
    assert np.array_equal(found.mu[kept], free.mu[kept])
    assert np.array_equal(found.p, free.p), "the policy moves money, not power"


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_plans_that_answer_to_the_price_need_no_negative_one(seed: int) -> None:
    """Where plan and target are both net load, prices have the sign of what is asked."""
    games = random_games(40, seed)
    found = games.clear(plan_price=games.price)
    p0, asked = games.sums(games.p0), games.p_target - games.sums(games.p0)
    load = (p0 < -0.1) & (games.p_target < 0.0)
    assert (found.mu_flex * asked)[load].min() >= -1e-12
    assert (found.mu[load & (asked > 0.0)] >= games.price[load & (asked > 0.0)]).all()


def test_a_target_below_the_plan_is_met_by_more_load() -> None:
    found = one([-2.0, -1.0], [-3.0, -4.0], [0.0, 0.0], [0.1, 0.1], -5.0)
    assert found.s[0] < 0.0
    assert np.allclose(found.p, [-3.0, -2.0])


def test_singular_cases() -> None:
    at_plan = one([-2.0, -1.0], [-3.0, -2.0], [0.0, 0.0], [0.1, 0.2], -3.0)
    assert np.array_equal(at_plan.p, [-2.0, -1.0])
    assert at_plan.mu[0] == pytest.approx(0.1)
    assert at_plan.mu_flex[0] == pytest.approx(-0.1), "it takes back what mu would make homes do"
    none = one([-2.0, 2.0], [-3.0, 1.0], [0.0, 3.0], [0.1, 0.1], 1.0)
    assert np.allclose(none.p, [-1.5, 2.5])
    assert none.mu[0] == 0.1
    assert none.uplift[0] == pytest.approx((none.s[0] - 0.1) * 1.0)
    fixed = one([-2.0], [-2.0], [-2.0], [0.1], 0.0)
    assert fixed.p[0] == -2.0
    assert fixed.short[0] == 2.0
    assert fixed.s[0] == 0.0
    empty = one([], [], [], [], 1.5)
    assert empty.short[0] == 1.5
    assert empty.mu[0] == 0.1
    assert empty.uplift[0] == 0.0


@pytest.mark.parametrize("price", [-0.05, 0.0])
def test_a_price_of_the_grid_that_is_not_positive(price: float) -> None:
    found = one([-2.0, -1.0], [-3.0, -2.0], [0.0, 0.0], [0.1, 0.2], -2.0, price)
    assert found.p.sum() == pytest.approx(-2.0, abs=1e-12)
    assert found.uplift[0] == 0.0
    floor = one([-2.0, -1.0], [-3.0, -2.0], [0.0, 0.0], [0.1, 0.2], -2.0, price, policy="floor")
    assert floor.mu[0] >= 0.0
    assert floor.mu_flex[0] >= 0.0


def test_respond_is_the_printed_case_and_its_mirror() -> None:
    p0, low, high, gamma = (np.array([x]) for x in (-2.0, -3.0, -1.0, 0.1))
    assert respond(p0, low, high, gamma, 0.1)[0] == pytest.approx(-1.5)
    assert respond(p0, low, high, gamma, 5.0)[0] == -1.0
    assert respond(p0, low, high, gamma, -5.0)[0] == -3.0


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"p0": [np.nan, 0.0]}, "p0"),
        ({"p_min": [1.0, -1.0]}, "p_min"),
        ({"p_max": [np.inf, 1.0]}, "p_max"),
        ({"gamma": [0.1, 0.0]}, "gamma"),
    ],
)
def test_a_bid_that_is_none_names_the_home(change: dict[str, list[float]], field: str) -> None:
    bids = {"p0": [0.0, 0.0], "p_min": [-1.0, -1.0], "p_max": [1.0, 1.0], "gamma": [0.1, 0.1]}
    with pytest.raises(BidError, match=f"home [01].*{field}"):
        one(**(bids | change), target=0.0)


def test_targets_owners_and_policies_that_are_none() -> None:
    bids = ([0.0], [-1.0], [1.0], [0.1])
    with pytest.raises(MarketError, match="p_target of operator 0 is nan"):
        one(*bids, np.nan)
    with pytest.raises(MarketError, match="price of operator 0 is inf"):
        one(*bids, 0.0, np.inf)
    with pytest.raises(MarketError, match="no policy is called 'flor'"):
        one(*bids, 0.0, policy="flor")
    homes = [np.zeros(2), -np.ones(2), np.ones(2), np.ones(2)]
    with pytest.raises(MarketError, match="the owners are not in order"):
        clear_consumer(np.array([1, 0]), *homes, np.zeros(2), np.zeros(2))


@settings(max_examples=40, deadline=None)
@given(seeds, st.sampled_from([1.0, 1e-6, 1e-3]))
def test_bills_are_divided_to_the_last_unit(seed: int, unit: float) -> None:
    games = random_games(20, seed)
    found = games.clear()
    total = games.sums(found.p)
    bill = np.rint(-games.price * total / unit).astype(np.int64)
    units = consumer_units(
        bill, games.owner, found.p, games.p0, found.mu, found.mu_flex, hours=1.0, unit=unit
    )
    each = np.zeros(20, dtype=np.int64)
    np.add.at(each, games.owner, units)
    assert np.array_equal(each, bill)
    pays = -(found.mu[games.owner] * found.p + found.mu_flex[games.owner] * (found.p - games.p0))
    assert np.abs(units * unit - pays).max() <= 1.01 * unit, "each pays its own by two prices"


def test_what_was_not_cleared_is_shared_by_power() -> None:
    prices = np.array([0.2]), np.array([0.0])
    p, owner = np.array([-3.0, -1.0]), np.zeros(2, dtype=np.int64)
    units = consumer_units(np.array([1000]), owner, p, p, *prices, hours=1.0, unit=1e-3)
    assert units.tolist() == [750, 250]
    idle = np.zeros(2)
    units = consumer_units(np.array([3]), owner, idle, idle, *prices, hours=1.0, unit=1e-3)
    assert units.tolist() == [2, 1]


def test_a_bill_that_nobody_can_pay_is_refused() -> None:
    none, price = np.empty(0), np.zeros(1)
    owner = np.empty(0, dtype=np.int64)
    done = consumer_units(np.array([0]), owner, none, none, price, price, hours=1.0)
    assert done.size == 0
    with pytest.raises(MarketError, match="nobody pays the bill of operator 0"):
        consumer_units(np.array([1]), owner, none, none, price, price, hours=1.0)
    with pytest.raises(MarketError, match="not finite"):
        consumer_units(
            np.array([1]), np.zeros(1, np.int64), np.array([np.nan]), np.zeros(1), price, price,
            hours=1.0,
        )  # fmt: skip


def test_the_utility_of_a_home_is_what_stage_two_maximises() -> None:
    """The condition of optimality, by a difference: inside its bounds no slope is left."""
    games = random_games(50, 9, part=0.3)
    found = games.clear()
    inside = (found.p > games.p_min + 1e-3) & (found.p < games.p_max - 1e-3)
    up, down = (utility(games, found, found.p + step) for step in (1e-4, -1e-4))
    assert np.abs((up - down) / 2e-4)[inside].max() < 1e-9


def test_plans_that_almost_cancel_out_set_no_extreme_prices() -> None:
    owner, p0 = np.array([0, 0]), np.array([2.0, -2.05])
    bids = (owner, p0, p0 - 0.5, p0 + 0.5, np.full(2, 0.1), np.array([0.4]), np.array([0.12]))
    steep = clear_consumer(*bids)
    calm = clear_consumer(*bids, least_plan=0.1)
    assert abs(steep.mu[0]) > 0.5
    assert calm.mu[0] == 0.12
    np.testing.assert_array_equal(calm.p, steep.p)
    lacking = calm.mu_flex * (calm.p.sum() - p0.sum()) + calm.mu * calm.p.sum()
    assert calm.uplift[0] == pytest.approx(lacking[0] - 0.12 * calm.p.sum())
