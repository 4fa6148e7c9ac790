"""The operator's books: each schedule for its time in force, and no money made or lost."""

import numpy as np
import pytest
from _market_cases import grown_problem
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.market.agents.interval_accounts import PORT_ACCOUNT, IntervalAccounts
from controllers.market.agents.schedule import Schedule
from controllers.market.clearing import clear
from controllers.market.model.problem import ClearingProblem

STEP_H = 4.0 / 3600.0


def schedule_of(problem: ClearingProblem) -> Schedule:
    """Return the clearing of all buses in MW, as the desk does for the SMOs' buses."""
    found, mw = clear(problem), problem.network.base_kva / 1000.0
    d = found.dispatch
    return Schedule(
        p_load=d.p_load * mw,
        q_load=d.q_load * mw,
        p_gen=d.p_gen * mw,
        q_gen=d.q_gen * mw,
        prices=found.prices.at(np.arange(problem.network.size), per=mw),
        p_import=d.p_import * mw,
        cone_gap_pu=found.cone_gap_pu,
        exact=True,
    )


def books_of(problem: ClearingProblem) -> IntervalAccounts:
    price = problem.import_price / (problem.network.base_kva / 1000.0)
    return IntervalAccounts(problem.network.buses, price, STEP_H)


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 12), st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), max_size=5))
def test_what_is_paid_is_kept_or_goes_up(n: int, runs: list[tuple[int, int]]) -> None:
    problems = [grown_problem(n, seed=seed) for seed in range(4)]
    schedules = [schedule_of(p) for p in problems]
    books = books_of(problems[0])
    for which, steps in runs:
        for _ in range(steps):
            books.note(schedules[which])
    books.close()
    account = dict(zip(PORT_ACCOUNT, books.account, strict=True))
    kept_or_up = account["import_cost"] + account["surplus"]
    assert books.net_pays.sum() == pytest.approx(kept_or_up, abs=1e-9)
    net = account["load_pays"] - account["generation_receives"]
    assert net == pytest.approx(kept_or_up, abs=1e-9)
    # Energy at the import price is independent of how the market was settled.
    bought = sum(schedules[w].p_import * k * STEP_H for w, k in runs)
    price = problems[0].import_price / (problems[0].network.base_kva / 1000.0)
    assert account["import_cost"] == pytest.approx(price * bought, abs=1e-6 * (len(runs) + 1))
    rents = account["loss_rent"] + account["voltage_rent"] + account["congestion_rent"]
    assert rents == pytest.approx(account["surplus"], abs=1e-4)


def test_an_interval_is_settled_alone() -> None:
    problem = grown_problem(6, seed=1)
    schedule, books = schedule_of(problem), books_of(problem)
    for _ in range(15):
        books.note(schedule)
    books.close()
    first = books.net_pays
    assert np.abs(first).max() > 0
    for _ in range(15):
        books.note(schedule)
    books.close()
    np.testing.assert_array_equal(books.net_pays, first)
    # Nobody pays while there is no schedule.
    for _ in range(15):
        books.note(None)
    books.close()
    assert not books.net_pays.any()
    assert not books.account.any()
    assert books.settled == 3


def test_parts_of_the_price_stay_its_parts() -> None:
    schedule = schedule_of(grown_problem(8, seed=2))
    parts = schedule.prices.p
    total = parts.energy + parts.losses + parts.voltage + parts.congestion
    np.testing.assert_array_equal(schedule.price_p, total)
