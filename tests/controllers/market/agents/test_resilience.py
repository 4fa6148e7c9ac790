"""The resilience manager's law and the mitigation loop on the optimiser, over eight seeds.

Expected numbers: the thesis' table of attack 2b (import +37.4 %, cost +7 and +31.7 %, load -2 and
-14 %, 284 kW more at bus 67, 82 nodes) and the issue's bounds (restored within 0.25 % in at most
seven clearings and one second, correlation of score and share of flexibility at least 0.45).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
from _market_cases import IMPORT_PRICE, XI, attack_2b, without
from _market_mitigation import (
    Mitigation,
    cleared,
    mitigate,
    original_cost,
    weighted,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.core.mail import FloatArray
from controllers.market.agents.reweighing import FACTOR_MIN, Search, Weights, next_mu, reweigh
from controllers.market.model.problem import Bids, ClearingProblem, Dispatch
from controllers.market.solvers.central import CentralMarket
from grid_models.catalog import load_feeder

SEEDS = range(8)
STARTS = (0.003, 0.01, 0.05)


@dataclass(frozen=True)
class Trial:
    """One mitigated attack: problems, dispatches before, under and after, and the outcome."""

    before: ClearingProblem
    problem: ClearingProblem
    pre: Dispatch
    post: Dispatch
    scores: FloatArray
    outcome: Mitigation
    seconds: float


def trials() -> Iterator[Trial]:
    feeder = load_feeder("ieee123")
    market: CentralMarket | None = None
    for seed in SEEDS:
        case = attack_2b(feeder, seed=seed)
        network = case.problem.network
        market = market or CentralMarket(network)
        pre = cleared(market, case.problem)
        problem = without(case.problem, case.attacked)
        post = cleared(market, problem)
        scores = case.scores.copy()
        scores[[network.position(bus) for bus in case.attacked]] = 0.0
        for mu in STARTS:
            begin = time.process_time()
            outcome = mitigate(market, problem, pre.p_import, scores, mu=mu)
            seconds = time.process_time() - begin
            yield Trial(case.problem, problem, pre, post, scores, outcome, seconds)


@pytest.fixture(scope="module")
def mitigated() -> list[Trial]:
    return list(trials())


def cost(bids: Bids, d: Dispatch) -> float:
    losses = d.p_import + float(d.p_gen.sum() - d.p_load.sum())
    return original_cost(
        bids, d.p_gen, d.p_load, losses, d.p_import, xi=XI, import_price=IMPORT_PRICE
    )


def test_import_is_restored_from_every_start_within_seven_clearings_and_a_second(
    mitigated: list[Trial],
) -> None:
    for trial in mitigated:
        outcome = trial.outcome
        assert outcome.restored
        assert abs(outcome.dispatch.p_import / trial.pre.p_import - 1.0) <= 0.0025
        assert outcome.clearings <= 7
        assert trial.seconds <= 1.0


def test_costs_rise_with_the_attack_and_again_with_its_mitigation(mitigated: list[Trial]) -> None:
    for trial in mitigated:
        pre = cost(trial.before.bids, trial.pre)
        post = cost(trial.problem.bids, trial.post)
        after = cost(trial.problem.bids, trial.outcome.dispatch)
        assert pre <= post <= after
        # The set-up was fitted to the thesis' table: +7 % and +31.7 % there.
        assert 1.10 < post / pre < 1.15
        assert 1.30 < after / pre < 1.36


def test_table_of_attack_2b_is_that_of_the_thesis_in_kind(mitigated: list[Trial]) -> None:
    for trial in mitigated:
        after, pre = trial.outcome.dispatch, trial.pre
        assert trial.post.p_import / pre.p_import == pytest.approx(1.374, abs=0.015)
        assert after.p_load.sum() / pre.p_load.sum() == pytest.approx(0.86, abs=0.015)
        assert 250 < 1000 * (after.p_gen - pre.p_gen).max() < 290
        curtails = trial.post.p_load - after.p_load > 0.005 * trial.problem.bids.p_load0
        assert curtails.sum() == 81  # 85 load nodes less the four attacked; 82 in the thesis


def test_higher_scores_give_more_of_their_flexibility(mitigated: list[Trial]) -> None:
    for trial in mitigated:
        bids = trial.problem.bids
        flexible = bids.p_load0 - bids.p_load_min
        on = flexible > 0.0
        share = (trial.post.p_load - trial.outcome.dispatch.p_load)[on] / flexible[on]
        assert np.corrcoef(share, trial.scores[on])[0, 1] >= 0.45


def test_target_out_of_reach_is_reported_with_the_floor() -> None:
    case = attack_2b(seed=0)
    market = CentralMarket(case.problem.network)
    target = cleared(market, case.problem).p_import
    problem = without(case.problem, (*case.attacked, case.helper))
    outcome = mitigate(market, problem, target, np.where(problem.bids.p_load0 > 0, 0.7, 0.0))
    assert not outcome.restored
    assert outcome.floor is not None
    assert outcome.floor > 1.1 * target
    # All flexibility, no losses: an import below this is impossible whatever the prices.
    assert outcome.floor >= problem.bids.p_load_min.sum() - problem.bids.p_gen_max.sum()
    assert outcome.dispatch.p_import <= outcome.floor + 0.0025 * target


def test_nothing_is_done_when_the_import_is_where_it_was() -> None:
    case = attack_2b(seed=1)
    market = CentralMarket(case.problem.network)
    pre = cleared(market, case.problem)
    outcome = mitigate(market, case.problem, pre.p_import, case.scores)
    assert (outcome.restored, outcome.clearings, outcome.weights.strength) == (True, 0, 0.0)


def test_weights_leave_the_import_price_and_reactive_costs_alone() -> None:
    problem = attack_2b(seed=0).problem
    n = problem.network.size
    bent = weighted(problem, Weights(np.full(n, 0.5), np.full(n, 0.25), 2.0))
    assert bent.import_price == problem.import_price
    assert bent.xi == 2.0 * problem.xi
    assert np.array_equal(bent.bids.alpha_p, 0.5 * problem.bids.alpha_p)
    assert np.array_equal(bent.bids.beta, 0.25 * problem.bids.beta)
    assert replace(bent.bids, alpha_p=problem.bids.alpha_p, beta=problem.bids.beta) == problem.bids


SCORES = st.lists(st.floats(0.0, 1.0), min_size=3, max_size=9).filter(lambda s: sum(s) > 0.1)


@settings(max_examples=80, deadline=None)
@given(SCORES, st.floats(1e-3, 2.0), st.floats(1e-3, 1.0))
def test_missing_power_lowers_coefficients_most_where_the_score_is_highest(
    scores: list[float], delta: float, mu: float
) -> None:
    rs = np.array(scores)
    weights = reweigh(Weights.neutral(rs.size), rs, delta, mu)
    assert ((weights.alpha >= FACTOR_MIN) & (weights.alpha <= 1.0)).all()
    assert np.array_equal(weights.alpha, weights.beta)
    assert weights.xi >= 1.0
    order = np.argsort(rs)
    assert (np.diff(weights.alpha[order]) <= 1e-12).all()


@settings(max_examples=80, deadline=None)
@given(SCORES, st.floats(-2.0, -1e-3), st.floats(1e-3, 1.0))
def test_weights_never_pass_the_original_coefficients(
    scores: list[float], delta: float, mu: float
) -> None:
    rs = np.array(scores)
    bent = reweigh(Weights.neutral(rs.size), rs, 0.3, 0.1)
    back = reweigh(bent, rs, delta, mu)
    assert ((back.alpha >= bent.alpha) & (back.alpha <= 1.0)).all()
    assert 1.0 <= back.xi <= bent.xi


def test_equation_three_by_hand() -> None:
    # RS = (1, 0.5), Delta = 0.3, mu = 0.2: Z = 1 + RS * 0.3 / (0.2 * 1.5) = (2, 1.5).
    weights = reweigh(Weights.neutral(2), np.array([1.0, 0.5]), 0.3, 0.2)
    assert weights.alpha == pytest.approx([0.5, 2.0 / 3.0])
    assert weights.xi == pytest.approx(1.0 / np.mean([0.5, 2.0 / 3.0]))


def test_who_does_not_answer_keeps_its_coefficients_and_is_not_in_the_sum() -> None:
    answering = np.array([True, False, True])
    scores = np.array([0.8, 0.9, 0.4])
    weights = reweigh(Weights.neutral(3), scores, 0.3, 0.2, answering)
    alone = reweigh(Weights.neutral(2), scores[answering], 0.3, 0.2)
    assert weights.alpha[1] == 1.0
    assert np.array_equal(weights.alpha[answering], alone.alpha)


def test_no_score_at_all_changes_nothing() -> None:
    weights = Weights.neutral(3)
    assert reweigh(weights, np.zeros(3), 0.3, 0.2) is weights


def test_mu_is_the_secant_through_two_clearings_within_bounds() -> None:
    assert next_mu(0.1, 0.5, 0.25) == pytest.approx(0.05)
    assert next_mu(0.1, 0.5, 0.4999) == pytest.approx(0.1 / 8)
    assert next_mu(0.1, 0.5, 50.0) == pytest.approx(0.1 / 8)
    assert next_mu(0.1, 0.0, 0.2) == 0.1


def test_first_step_halves_no_coefficient_however_small_mu_is() -> None:
    scores = np.array([0.4, 0.7, 1.0])
    search = Search(Weights.neutral(3), 1e-6).begin(0.5, scores)
    assert search.weights.alpha.min() == pytest.approx(0.5)
