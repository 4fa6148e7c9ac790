"""The centralised optimum: against random feasible points, by hand, infeasible, and running."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from _voltage_qp import InfeasibleError, solve_voltage_qp
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from controllers.baselines.optimum import Optimum
from controllers.baselines.optimum_qp import VoltageQp
from controllers.core.errors import ControllerError
from controllers.core.mail import Mail
from controllers.core.protocol import ControlSite
from controllers.core.sample_site import sample_site
from grid_models.linear.lindistflow import LinDistFlow


def test_one_agent_by_hand() -> None:
    # v0^2 = 1.1236 (1.06 pu), X = 1e-3: q = (1.05^2 - 1.06^2) / 1e-3 = -21.1.
    one = np.array([[1e-3]])
    result = solve_voltage_qp(
        one, np.array([1.06**2]), -50 * np.ones(1), 50 * np.ones(1), 0.95, 1.05
    )
    assert result.feasible
    assert result.q[0] == pytest.approx(-21.1, abs=1e-5)
    assert result.cost == pytest.approx(21.1**2 / 2, abs=1e-3)
    assert result.violation_pu == 0.0


def test_weights_move_the_duty() -> None:
    # min (w1 q1^2 + w2 q2^2) / 2 with q1 + q2 = -21.1: q1 / q2 = w2 / w1 = 3.
    x = np.full((2, 2), 1e-3)
    wide = 50 * np.ones(2)
    result = solve_voltage_qp(
        x, np.full(2, 1.06**2), -wide, wide, 0.95, 1.05, weights=np.array([1.0, 3.0])
    )
    np.testing.assert_allclose(result.q, [-15.825, -5.275], atol=1e-4)


def test_infeasible_gives_the_smallest_violation() -> None:
    # With q = -10 at best: v = sqrt(1.1236 - 0.01) = 1.0552725..., 0.0052725 outside.
    one = np.array([[1e-3]])
    data: tuple[Any, ...] = (
        one,
        np.array([1.06**2]),
        -10 * np.ones(1),
        10 * np.ones(1),
        0.95,
        1.05,
    )
    smallest = np.sqrt(1.06**2 - 0.01) - 1.05
    with pytest.raises(InfeasibleError, match=r"0\.0053 pu outside") as caught:
        solve_voltage_qp(*data)
    assert caught.value.violation_pu == pytest.approx(smallest, abs=1e-6)
    result = solve_voltage_qp(*data, if_infeasible="least_violation")
    assert not result.feasible
    assert result.q[0] == pytest.approx(-10.0, abs=1e-3)
    assert result.violation_pu == pytest.approx(smallest, abs=1e-6)


def test_least_violation_is_also_the_cheapest_of_those() -> None:
    # Node 1 cannot be helped by agent 2: it must not be moved for nothing.
    x = np.diag([1e-3, 1e-3])
    ten = 10 * np.ones(2)
    result = solve_voltage_qp(
        x, np.array([1.06**2, 1.0]), -ten, ten, 0.95, 1.05, if_infeasible="least_violation"
    )
    assert result.q[0] == pytest.approx(-10.0, abs=1e-2)
    assert abs(result.q[1]) < 1e-2


_X = LinDistFlow.from_feeder(sample_site().feeder).sensitivity(
    sample_site().ders, sample_site().ders
)[1]
_QP = VoltageQp(_X)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), level=st.floats(0.93, 1.07))
def test_no_feasible_point_is_cheaper(seed: int, level: float) -> None:
    rng = np.random.default_rng(seed)
    v0_sq = level**2 + 0.01 * rng.standard_normal(5)
    q_max = rng.uniform(100.0, 400.0, 5)
    best = _QP.solve(v0_sq, -q_max, q_max, 0.95, 1.05)
    points = rng.uniform(-q_max, q_max, (4000, 5))
    v_sq = v0_sq + points @ _X.T
    holds = ((v_sq <= 1.05**2) & (v_sq >= 0.95**2)).all(axis=1)
    assume(holds.any())
    assert best.feasible
    assert best.cost <= (points[holds] ** 2).sum(axis=1).min() / 2 * (1 + 1e-9)
    assert (np.abs(best.q) <= q_max).all()
    assert best.v_pu.max() <= 1.05 + 1e-7
    assert best.v_pu.min() >= 0.95 - 1e-7


def test_solving_again_with_other_data_is_solving_anew() -> None:
    q_max = np.full(5, 300.0)
    for level in (1.06, 0.94, 1.06, 1.0):
        again = _QP.solve(np.full(5, level**2), -q_max, q_max, 0.95, 1.05)
        anew = solve_voltage_qp(_X, np.full(5, level**2), -q_max, q_max, 0.95, 1.05)
        np.testing.assert_allclose(again.q, anew.q, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"v_min": 1.06}, "limits of v"),
        ({"q_min": np.full(5, 1e4)}, "limits of q"),
        ({"q_max": np.full(5, np.nan)}, "limits of q"),
        ({"x": np.full((5, 5), np.nan)}, "X is not usable"),
        ({"weights": np.zeros(5)}, "weights"),
    ],
)
def test_unusable_data_are_refused(change: dict[str, Any], match: str) -> None:
    data: dict[str, Any] = {
        "x": _X, "v0_sq": np.ones(5), "q_min": np.full(5, -9.0), "q_max": np.full(5, 9.0),
        "v_min": 0.95, "v_max": 1.05,
    }  # fmt: skip
    with pytest.raises(ControllerError, match=match):
        solve_voltage_qp(**(data | change))


# ------------------------------------------------------------------ as a controller


def run(site: ControlSite, v0_pu: float, steps: int, gain_error: float) -> tuple[Any, ...]:
    """Run against a linear plant whose X is `gain_error` times the controller's."""
    agents = Optimum(site, Optimum.agents(site))
    labels = agents.inputs[0].labels
    x = LinDistFlow.from_feeder(site.feeder).sensitivity(labels, site.ders)[1]
    q = np.zeros(len(site.ders))
    for k in range(steps):
        v = np.sqrt(v0_pu**2 + gain_error * x @ q)
        q = agents.step(float(k), {"v_pu": v}, Mail.empty()).outputs["q_set_kvar"]
    return agents, q, np.sqrt(v0_pu**2 + gain_error * x @ q)


@pytest.mark.parametrize("gain_error", [0.8, 1.0, 1.2])
def test_feedback_holds_the_band_despite_a_wrong_model(gain_error: float) -> None:
    agents, _, v = run(sample_site(), 1.055, 30, gain_error)
    assert v.max() == pytest.approx(1.05, abs=1e-5)
    assert agents.infeasible_steps == 0


def test_infeasible_steps_are_counted_and_reported() -> None:
    agents, q, v = run(sample_site(), 1.25, 5, 1.0)
    assert agents.infeasible_steps == 5
    assert agents.violation_pu == pytest.approx(v.max() - 1.05, abs=1e-4)
    assert agents.summary()["infeasible_step_count"] == 5
    assert agents.summary()["worst_reachable_violation_pu"] >= agents.violation_pu
    assert np.abs(q).max() > 50.0


def test_there_is_one_agent_and_it_is_not_called_after_a_der() -> None:
    assert Optimum.agents(sample_site()) == ("optimum",)
    with pytest.raises(ControllerError, match="its one agent, 'optimum'"):
        Optimum(sample_site(), ["pv_b1"])
