"""ALADIN of regions on AC optimal power flow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from controllers.core.errors import ControllerError
from controllers.core.mail_loop import MailLoop, Post, plain_loop
from controllers.core.waiting import Asynchronous, Barrier
from controllers.optimisation.algorithms.aladin import build
from controllers.optimisation.partition import areas_of, partition
from controllers.optimisation.problems.opf_regions import RegionOpf
from controllers.optimisation.region_method import RegionMethod
from grid_models.transmission.matpower import load_case
from tests.controllers.optimisation.opf_cases import case_with_everything

PATIENT = Barrier(resend_after=3)  # answers take two steps, so that nothing is repeated


def run(methods: Sequence[RegionMethod], post: Post | None = None) -> None:
    """Step until all have stopped."""
    loop = MailLoop(list(methods), post)
    while not all(method.stopped for method in methods):
        loop.step()
        assert loop.steps < 3000


@pytest.fixture(scope="module")
def problem() -> RegionOpf:
    case = load_case("case57")
    return RegionOpf(case, partition(case, 3))


@pytest.mark.parametrize(
    ("name", "regions", "most"),
    [
        ("case39", 3, 24),
        ("case39", 4, 26),
        ("case39", None, 26),
        ("case57", 3, 14),
        ("case57", 4, 17),
        ("case118", 3, 19),
        ("case118", 4, 25),
    ],
)
def test_converges_to_the_optimum(name: str, regions: int | None, most: int) -> None:
    """Iterations: seen, a guard. Another implementation: 57 in 19, 39 and 118 not at all."""
    case = load_case(name)
    areas = areas_of(case, allow_disconnected=True) if regions is None else None
    whole = RegionOpf(case, areas or partition(case, regions or 1))
    method = build(whole, waiting=PATIENT)
    run([method])
    worth = whole.measure(method.answer())
    assert method.status == "converged"
    assert method.rounds <= most
    assert worth.gap < 1e-8
    assert worth.infeasibility < 1e-8
    assert worth.dual < 1e-7


def test_every_element_of_a_case_is_in_it() -> None:
    case = case_with_everything()
    whole = RegionOpf(case, partition(case, 3))
    method = build(whole, waiting=PATIENT)
    run([method])
    assert method.status == "converged"
    assert whole.measure(method.answer()).gap < 1e-7


def test_from_the_optimum_little_is_left_to_do(problem: RegionOpf) -> None:
    far = build(problem, waiting=PATIENT)
    near = build(problem, start=problem.reference.x, first_barrier=1e-6, waiting=PATIENT)
    run([far])
    run([near])
    assert near.status == "converged"
    assert near.rounds <= far.rounds - 4
    assert problem.measure(near.answer()).gap < 1e-8


@pytest.mark.parametrize(("penalty", "barrier"), [(1e3, 0.01), (3e3, 0.1), (2e4, 1.0)])
def test_penalty_and_first_barrier_do_not_change_the_optimum(
    problem: RegionOpf, penalty: float, barrier: float
) -> None:
    # With the first pair steps lead too far, and regions go half of the way.
    method = build(problem, penalty=penalty, first_barrier=barrier, waiting=PATIENT)
    run([method])
    assert method.status == "converged"
    assert problem.measure(method.answer()).gap < 1e-8


def _bits(method: RegionMethod) -> dict[str, bytes]:
    return {name: values.tobytes() for name, values in method.answer().items()}


def test_bits_are_those_of_the_plain_loop(problem: RegionOpf) -> None:
    """Perfect links; 30 % loss and delays up to 5.5 periods; every agent on its own."""
    together = build(problem, waiting=PATIENT)
    run([together])
    plain = build(problem)
    plain_loop(plain.agents, together.rounds)
    assert _bits(plain) == _bits(together)
    alone = [build(problem, hosted=(name,)) for name in (*problem.names, "coordinator")]
    run(alone, Post(loss=0.3, max_delay_steps=5, duplication=0.1, seed=3))
    for agent, expected in zip(alone, plain.agents, strict=True):
        assert agent.status == "converged"
        assert _bits(agent) == {n: v.tobytes() for n, v in expected.answer().items()}


def test_ends_without_an_optimum_have_a_status(problem: RegionOpf) -> None:
    case = problem.case
    heavy = replace(case, buses=replace(case.buses, load_mw=4.0 * case.buses.load_mw))
    method = build(RegionOpf(heavy, problem.region_of))
    run([method])
    assert method.status not in ("converged", "running")
    short = build(problem, most_iterations=2)
    run([short])
    assert short.status == "iteration limit"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"waiting": Asynchronous()}, "algorithm 'aladin': the steps of all regions belong"),
        ({"penalty": -1.0}, "option 'penalty': penalty is -1.0; expected a positive number"),
        ({"last_barrier": 2.0}, "option 'last_barrier': last_barrier is 2.0; expected a positive"),
        ({"shrink": 1.5}, "option 'shrink': shrink is 1.5; expected a positive number, at most 1"),
    ],
)
def test_options_that_cannot_be_are_refused(
    problem: RegionOpf, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ControllerError, match=message):
        build(problem, **options)
