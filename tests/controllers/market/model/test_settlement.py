"""Settlement: money is neither made nor lost, and the surplus is what the limits are worth."""

from dataclasses import replace

import numpy as np
import pytest
from _market_cases import grown_problem, voltage_binding
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.market.clearing import clear
from controllers.market.model.errors import MarketError
from controllers.market.model.problem import ClearingProblem
from controllers.market.model.settlement import Settlement, settle
from controllers.market.solvers.central import Clearing


def books(problem: ClearingProblem, found: Clearing, hours: float = 1.0) -> Settlement:
    return settle(
        problem.network.buses,
        found.prices,
        found.dispatch,
        import_price=problem.import_price,
        hours=hours,
    )


@settings(max_examples=20, deadline=None)
@given(
    st.integers(2, 25),
    st.integers(0, 1000),
    st.floats(1 / 3600, 24),
    st.randoms(use_true_random=False),
)
def test_money_is_conserved_to_the_last_unit(n: int, seed: int, hours: float, order) -> None:  # type: ignore[no-untyped-def]
    problem = grown_problem(n, seed=seed)
    found = clear(problem)
    done = books(problem, found, hours)
    payments = [*done.net_pays.tolist(), -done.import_cost, -done.surplus]
    order.shuffle(payments)
    assert sum(payments) == 0
    # Metered instead of cleared: the books balance whatever was metered.
    metered = replace(found.dispatch, p_load=1.07 * found.dispatch.p_load, p_import=0.123)
    done = books(problem, replace(found, dispatch=metered), hours)
    assert int(done.net_pays.sum()) == done.import_cost + done.surplus


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 25), st.integers(0, 1000))
def test_the_surplus_is_the_sum_of_its_rents(n: int, seed: int) -> None:
    problem = grown_problem(n, seed=seed)
    done = books(problem, clear(problem))
    rents = done.loss_rent + done.voltage_rent + done.congestion_rent
    # n amounts rounded by up to half a unit, and the energy balance of the solver (1e-8 x 60).
    assert rents == pytest.approx(float(done.money(done.surplus)), abs=5e-5)


@pytest.mark.parametrize("bound", ["voltage", "current"])
def test_the_surplus_is_what_losses_and_limits_are_worth(bound: str) -> None:
    problem = voltage_binding()
    if bound == "current":
        free = clear(replace(problem, v_min_pu=0.9)).dispatch
        l_max = np.full(problem.network.size, np.inf)
        l_max[1] = 0.95 * free.l_line[1]
        network = replace(problem.network, l_max_pu=l_max)
        problem = replace(problem, v_min_pu=0.9, network=network)
    found, net = clear(problem), problem.network
    d = found.dispatch
    at_root = np.flatnonzero(net.parent == 0)
    worth = problem.xi * float(net.r_pu @ d.l_line)
    worth += float(found.v_high @ problem.v_sq_max - found.v_low @ problem.v_sq_min)
    rated = np.isfinite(net.l_max_pu)
    worth += float(found.current[rated] @ net.l_max_pu[rated])
    for j in at_root:
        # nu and rho from the first two equations of controllers.market.model.prices.
        equations = 2 * np.array([[net.r_pu[j], d.p_line[j]], [net.x_pu[j], d.q_line[j]]])
        nu, rho = np.linalg.solve(equations, [d.lmp_p[j] - d.lmp_p[0], d.lmp_q[j]])
        worth += net.v_root_pu**2 * (nu + rho * d.l_line[j])
    done = books(problem, found)
    assert float(done.money(done.surplus)) == pytest.approx(worth, abs=2e-4)
    rent = done.voltage_rent if bound == "voltage" else done.congestion_rent
    assert rent > 0.01


def test_an_interval_twice_as_long_costs_twice_as_much() -> None:
    problem = grown_problem(15)
    found = clear(problem)
    one, two = books(problem, found, 0.5), books(problem, found, 1.0)
    np.testing.assert_allclose(two.load_pays, 2 * one.load_pays, atol=1)


@pytest.mark.parametrize("change", [{"hours": 0.0}, {"hours": np.nan}, {"unit": -1.0}])
def test_bad_intervals_are_refused(change: dict[str, float]) -> None:
    problem = grown_problem(5)
    found = clear(problem)
    arguments = {"import_price": 60.0, "hours": 1.0} | change
    with pytest.raises(MarketError, match=r"hours|unit"):
        settle(problem.network.buses, found.prices, found.dispatch, **arguments)


def test_a_metered_value_that_is_no_number_is_refused() -> None:
    problem = grown_problem(5)
    found = clear(problem)
    broken = replace(found.dispatch, p_load=np.full(5, np.nan))
    with pytest.raises(MarketError, match="not finite"):
        books(problem, replace(found, dispatch=broken))
