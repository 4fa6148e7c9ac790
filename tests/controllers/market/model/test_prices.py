"""Prices: what one more pu of load costs, and the parts that make it up."""

from dataclasses import replace

import numpy as np
import pytest
from _market_cases import attack_2b, grown_problem, light_load, voltage_binding
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.market.clearing import clear
from controllers.market.model.costs import tangent
from controllers.market.model.problem import ClearingProblem
from controllers.market.solvers.central import CentralMarket

_AT_LIMIT = 1e-5
STEP_PU = 2e-3
# Finer than the default: the difference of two costs near 110 is divided by 0.004.
MARKET_TOLERANCE = 1e-9


def with_load(problem: ClearingProblem, bus: int, more_pu: float) -> ClearingProblem:
    """Return `problem` with more load at `bus`, at its power factor, none of it flexible."""
    bids, tan = problem.bids, tangent(problem.bids)
    change = {name: getattr(bids, name).copy() for name in ("p_load0", "p_load_min", "p_load_max")}
    for values in change.values():
        values[bus] += more_pu
    change["q_load0"] = bids.q_load0.copy()
    change["q_load0"][bus] += tan[bus] * more_pu
    return replace(problem, bids=replace(bids, **change))


@pytest.mark.parametrize("case", [light_load, voltage_binding, lambda: attack_2b().problem])
def test_the_price_of_load_is_the_finite_difference_of_the_cost(case) -> None:  # type: ignore[no-untyped-def]
    problem = case()
    market = CentralMarket(problem.network, tolerance=MARKET_TOLERANCE)
    prices = market.clear(problem).prices.of_load(tangent(problem.bids))
    for bus in (1, 40, 67, 90, 118, int(np.argmax(prices))):
        up = market.clear(with_load(problem, bus, STEP_PU)).dispatch.cost
        down = market.clear(with_load(problem, bus, -STEP_PU)).dispatch.cost
        assert prices[bus] == pytest.approx((up - down) / (2 * STEP_PU), rel=1e-5)


def test_the_price_of_reactive_load_is_the_finite_difference_of_the_cost() -> None:
    problem = voltage_binding()
    market = CentralMarket(problem.network, tolerance=MARKET_TOLERANCE)
    found = market.clear(problem).dispatch
    bus = int(np.flatnonzero(problem.bids.p_load0 == 0)[-1])
    costs = []
    for sign in (1, -1):
        q = problem.bids.q_load0.copy()
        q[bus] += sign * STEP_PU
        costs.append(market.clear(replace(problem, bids=replace(problem.bids, q_load0=q))))
    slope = (costs[0].dispatch.cost - costs[1].dispatch.cost) / (2 * STEP_PU)
    # 1e-5 of an active price, which is the scale of all of them.
    assert found.lmp_q[bus] == pytest.approx(slope, abs=6e-4)
    assert abs(found.lmp_q[bus]) > 0.1


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 25), st.integers(0, 1000), st.sampled_from(["free", "voltage", "current"]))
def test_the_parts_add_up_and_belong_to_their_limits(n: int, seed: int, limit: str) -> None:
    problem = grown_problem(n, seed=seed)
    free = clear(problem).dispatch
    low, high = np.square(problem.v_min_pu), np.square(problem.v_max_pu)
    # A few of the random problems are at a limit by themselves.
    at_limit = bool((np.minimum(free.v_sq - low, high - free.v_sq) < _AT_LIMIT).any())
    if limit == "voltage":
        lowest = float(np.sqrt(free.v_sq.min()))
        problem = replace(problem, v_min_pu=lowest + 0.02 * (1 - lowest))
    if limit == "current":
        l_max = np.full(n, np.inf)
        l_max[np.argmax(free.l_line)] = 0.98 * free.l_line.max()
        problem = replace(problem, network=replace(problem.network, l_max_pu=l_max))
    found = clear(problem)
    for parts, price in (
        (found.prices.p, found.dispatch.lmp_p),
        (found.prices.q, found.dispatch.lmp_q),
    ):
        total = parts.energy + parts.losses + parts.voltage + parts.congestion
        np.testing.assert_allclose(total, price, rtol=0, atol=1e-9)
    # The published prices are the adjoint's; the solver's own duals say the same.
    assert found.price_mismatch < 5e-5
    np.testing.assert_array_equal(found.prices.p.energy, problem.import_price)
    np.testing.assert_array_equal(found.prices.q.energy, 0.0)
    volt, current = np.abs(found.prices.p.voltage).max(), np.abs(found.prices.p.congestion).max()
    assert at_limit or (volt > 1e-3) == (limit == "voltage")
    assert (current > 1e-3) == (limit == "current")


def test_losses_make_load_dearer_further_out_where_power_flows_out() -> None:
    problem = grown_problem(60)
    no_pv = replace(problem.bids, p_gen_max=np.zeros(60))
    losses = clear(replace(problem, bids=no_pv)).prices.p.losses
    assert (losses[1:] >= losses[problem.network.parent[1:]] - 1e-6).all()


def test_a_lossless_unlimited_feeder_has_one_price() -> None:
    problem = grown_problem(30)
    network = replace(problem.network, r_pu=1e-7 * problem.network.r_pu)
    prices = clear(replace(problem, network=network)).dispatch.lmp_p
    np.testing.assert_allclose(prices, problem.import_price, rtol=1e-6)
