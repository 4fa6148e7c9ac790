"""The market's algorithms on the branch-flow problem of a feeder, as agents of buses."""

from __future__ import annotations

import numpy as np
import pytest

from controllers.core.compliance import check_controller
from controllers.core.errors import ControllerError
from controllers.core.mail_loop import MailLoop, Post
from controllers.core.waiting import Asynchronous, Barrier
from controllers.market.clearing import clear
from controllers.market.solvers.atoms import P_GEN, P_LOAD, V
from controllers.optimisation.algorithms.branch_flow import build
from controllers.optimisation.algorithms.catalog import names_for
from controllers.optimisation.controller import Optimisation
from controllers.optimisation.problems.feeder_socp import FeederSocp, feeder_socp
from grid_models.catalog import load_feeder


@pytest.fixture(scope="module")
def problem() -> FeederSocp:
    return feeder_socp(load_feeder("ieee13"))


@pytest.mark.parametrize("name", ["admm", "pac", "pac-anchored", "nst-pac"])
def test_agents_give_the_bits_of_the_markets_own_loop(problem: FeederSocp, name: str) -> None:
    """The loop exchanges arrays of all atoms (`controllers.market.solvers.distributed`)."""
    assert name in names_for(problem)
    loop = clear(problem.clearing, name, max_iterations=20, tolerance=0.0).dispatch
    method = build(problem, iteration=name, tolerance=0.0)  # type: ignore[arg-type]
    mail = MailLoop([method])
    while method.rounds < 20:
        mail.step()
    x = method.answer()["x"].T
    assert x[P_GEN].tobytes() == loop.p_gen.tobytes()
    assert x[P_LOAD].tobytes() == loop.p_load.tobytes()
    assert x[V].tobytes() == loop.v_sq.tobytes()


def test_lost_and_late_mail_changes_no_bit(problem: FeederSocp) -> None:
    answers = []
    for post in (Post(), Post(loss=0.3, max_delay_steps=3, seed=1)):
        method = build(problem, waiting=Barrier(2), tolerance=3e-2)
        mail = MailLoop([method], post)
        while not method.stopped:
            mail.step()
        answers.append(method.answer())
    assert answers[0]["x"].tobytes() == answers[1]["x"].tobytes()
    assert answers[0]["dual"].tobytes() == answers[1]["dual"].tobytes()


def test_admm_finds_the_central_clearing_and_bounds_it(problem: FeederSocp) -> None:
    method = build(problem)
    mail = MailLoop([method])
    while not method.stopped:
        mail.step()
    found = problem.measure(method.answer())
    best = problem.reference.objective
    assert max(found.gap, found.infeasibility, found.dual) < 1e-5
    assert found.bound is not None
    assert best * (1 - 1e-4) < found.bound < best * (1 + 1e-9)


def test_hosting_shows_in_no_bit() -> None:
    check_controller(Optimisation, problem="socp-ieee13", algorithm="admm")


def test_what_does_not_fit_is_refused(problem: FeederSocp) -> None:
    with pytest.raises(ControllerError, match="two halves of an iteration"):
        build(problem, waiting=Asynchronous())
    with pytest.raises(ControllerError, match="did you mean 'penalty'"):
        build(problem, settings={"penalti": 1.0})


def test_the_reference_is_within_its_limits(problem: FeederSocp) -> None:
    n = problem.clearing.network.size
    p_gen, q_gen, p_load = problem.reference.x.reshape(3, n)
    bids = problem.clearing.bids
    slack = 1e-8
    assert (p_gen <= bids.p_gen_max + slack).all()
    assert (np.abs(q_gen) <= bids.q_gen_max + slack).all()
    assert (p_load >= bids.p_load_min - slack).all()
