"""The gradient through the closed loop, against finite differences of AC power flows."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from controllers.learned_droop.gradient import Cases, Goal, PolicyLoop
from controllers.learned_droop.policy import Policy, uniform_policy
from controllers.learned_droop.training import Schedule, train_policy
from grid_models.base.errors import PowerFlowError
from grid_models.batched.power_flow import BatchedFeeder
from grid_models.catalog import load_feeder, open_circuit
from grid_models.ders.rules import DerRule, place

TAPS = {"ieee13": None, "ieee123": {"rg1": 3}}
GOAL = Goal(0.96, 1.04, 0.05)


@cache
def loop_and_cases(name: str = "ieee13") -> tuple[PolicyLoop, Cases]:
    """A feeder with PV at every load bus and phase; 24 random instants."""
    feeder = load_feeder(name)
    rule = {"kind": "pv", "at": "load_phases", "kw_per_load_kw": 1.0, "kva_per_kw": 1.1}
    ders = place(feeder, [DerRule.from_mapping(rule, where="test")])
    batched = BatchedFeeder(open_circuit(name, ders, regulators="fixed", taps=TAPS[name]))
    rng = np.random.default_rng(0)
    load = batched.nominal_kva * rng.uniform(0.3, 1.2, (24, 1))
    p_kw = np.array([der.p_max_kw for der in ders]) * rng.uniform(0, 1, (24, 1))
    loop = PolicyLoop(batched, ders)
    cases = Cases(load, p_kw.astype(np.complex128), rng.uniform(0.99, 1.01, 24))
    loop.linearise(cases)
    return loop, cases


def some_policy(loop: PolicyLoop) -> Policy:
    """Unequal slopes and cubics."""
    rng = np.random.default_rng(1)
    ders = loop.ders
    policy = uniform_policy(ders, 25.0, 0.1)
    n = len(ders)
    return replace(policy, k=policy.k * rng.uniform(0.5, 2, n), b=rng.normal(0, 0.1, (n, 4)))


def test_at_rest_the_ac_voltages_give_the_command() -> None:
    loop, cases = loop_and_cases()
    policy = some_policy(loop)
    at = loop.equilibrium(policy, cases)
    assert at.closed.all()
    p_kw = cases.der_kva.real
    room = np.sqrt(loop.kva**2 - p_kw**2)
    command = policy.q_kvar(at.v_pu, p_kw / loop.p_max_kw, room)
    assert np.abs((command - at.q_kvar) / loop.kva).max() < 2e-4
    assert (np.abs(at.q_kvar) <= room * (1 + 1e-12)).all()


@pytest.mark.parametrize(("name", "most"), [("ieee123", 0.027), ("ieee13", 0.08)])
def test_gradient_is_that_of_ac_finite_differences(name: str, most: float) -> None:
    loop, cases = loop_and_cases(name)
    policy, size = some_policy(loop), 1e-3
    found = loop.gradient(policy, cases, GOAL)

    def slope(*changed: Policy) -> float:
        up, down = (loop.loss(loop.equilibrium(p, cases), GOAL).mean() for p in changed)
        return float(up - down) / (2 * size)

    exact, adjoint = [], []
    for i in range(0, len(loop.ders), len(loop.ders) // 8):
        by_k = [moved(policy.k, i, sign * size) for sign in (1, -1)]
        by_b = [moved(policy.b, (i, 1), sign * size) for sign in (1, -1)]
        exact += [slope(*(replace(policy, k=k) for k in by_k)) * policy.k[i]]
        exact += [slope(*(replace(policy, b=b) for b in by_b))]
        adjoint += [found.by_k[i] * policy.k[i], found.by_b[i, 1]]
    error = np.linalg.norm(np.subtract(exact, adjoint)) / np.linalg.norm(exact)
    # J is that of one operating point for all cases.
    assert error < most


def moved(values: np.ndarray, at: int | tuple[int, int], by: float) -> np.ndarray:
    """The array with one element changed."""
    out = values.copy()
    out[at] += by
    return out


def test_training_ends_below_any_droop_of_one_slope_and_is_repeatable() -> None:
    loop, cases = loop_and_cases()
    schedule = Schedule(updates=40, batch=8)
    trained = train_policy(loop, cases, GOAL, schedule, seed=3)
    again = train_policy(loop, cases, GOAL, schedule, seed=3)
    assert np.array_equal(trained.policy.b, again.policy.b)

    def loss(policy: Policy) -> float:
        return float(loop.loss(loop.equilibrium(policy, cases), GOAL).mean())

    droops = (uniform_policy(loop.ders, k, 1.0) for k in (10.0, 20.0, 40.0, 80.0))
    assert loss(trained.policy) < min(map(loss, droops))


def test_the_permitted_time_ends_a_training() -> None:
    loop, cases = loop_and_cases()
    schedule = Schedule(updates=60, batch=12)
    trained = train_policy(loop, cases, GOAL, schedule, 3, time_share=lambda done: done / 5)
    assert len(trained.losses) == 5


def test_cases_that_no_power_flow_solves_are_refused() -> None:
    loop, cases = loop_and_cases()
    heavy = Cases(cases.load_kva, -1000.0 * cases.der_kva, cases.source_pu)
    with pytest.raises(PowerFlowError, match="training cases have no equilibrium"):
        loop.gradient(some_policy(loop), heavy, GOAL)
