"""DC optimal power flow of cases, optimal power flow of feeders, and who are peers in a network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.core.errors import ControllerError
from controllers.optimisation.problems.catalog import load_problem
from controllers.optimisation.problems.dc_opf import dc_opf
from controllers.optimisation.problems.dispatch import Dispatch
from controllers.optimisation.problems.feeder_opf import LOAD, SOURCE_PU, feeder_opf
from controllers.optimisation.problems.network_peers import network_peers
from grid_models.catalog import load_feeder
from grid_models.ders.rules import DerRule, place
from grid_models.linear.lindistflow import LinDistFlow
from grid_models.transmission.dc_flow import DcFlow
from grid_models.transmission.matpower import load_case
from tests.controllers.optimisation.opf_cases import case_with_everything

# f and powers of `rundcopf` of PYPOWER 5.1.21 with RATE_A times the factor; tolerances of its
# interior point: 1e-9.
PYPOWER = {
    1.0: (41263.940785927334, [660.846, 646, 660.846, 652, 508, 660.846, 580, 564, *2 * [660.846]]),
    0.8: (41455.40709233984, [541.043, 646, 672.786, 652, 508, 687, 580, 564, 683.966, 719.435]),
    0.7: (44691.860041224165, [301.027, 646, 630, 592, 508, 630, 580, 478.187, 840, 1049.016]),
}  # fmt: skip


@pytest.mark.parametrize("rate", PYPOWER)
def test_the_dc_optimum_is_that_of_pypower(rate: float) -> None:
    case = load_case("case39")
    found = dc_opf(case, rate).reference
    cost, powers = PYPOWER[rate]
    assert found.objective + case.costs.coefficients[:, 0].sum() == pytest.approx(cost, rel=1e-8)
    assert found.x == pytest.approx(powers, abs=6e-4)  # printed with three decimals


def test_flows_are_those_of_the_angles() -> None:
    """With taps and phase shifters; the angles by least squares over all balances."""
    case = case_with_everything()
    branches, n = case.branches, len(case.buses.names)
    flow = DcFlow.of(case)
    injection = np.random.default_rng(0).standard_normal(n)
    injection -= injection.mean()
    m = np.arange(len(branches.names))
    ends = np.zeros((len(m), n))
    ends[m, branches.from_bus], ends[m, branches.to_bus] = 1.0, -1.0
    mw_per_rad = case.base_mva / (branches.x_pu * branches.tap_ratio)
    shift = np.radians(branches.shift_deg)
    balance = injection + ends.T @ (mw_per_rad * shift)
    theta = np.linalg.lstsq(ends.T @ (mw_per_rad[:, None] * ends), balance, rcond=None)[0]
    expected = mw_per_rad * (ends @ theta - shift)
    assert flow.factors @ injection + flow.offset_mw == pytest.approx(expected, abs=1e-8)


def test_a_dc_optimum_that_cannot_be_is_refused() -> None:
    with pytest.raises(ControllerError, match=r"generator '.*' is not quadratic"):
        dc_opf(case_with_everything())
    with pytest.raises(ControllerError, match="no optimum"):
        _ = load_problem("dcopf-case39-rate-50").reference


def test_the_feeders_optimum_holds_every_voltage_and_needs_to() -> None:
    """Voltages by the model itself; LinDistFlow's own error is in its tests."""
    feeder = load_feeder("ieee13")
    problem = feeder_opf(feeder)
    best = problem.reference
    ders = place(feeder, DerRule(kind="pv", at="load_buses", kw_per_load_kw=1.5))
    neutral = tuple(replace(r, tap_step=0) for r in feeder.regulators)
    source = replace(feeder.source, v_pu=SOURCE_PU)
    model = LinDistFlow.from_feeder(replace(feeder, regulators=neutral, source=source))

    def highest(x: np.ndarray) -> float:
        p, q = (LOAD * load for load in model.nominal_injection())
        for i, der in enumerate(ders):
            at = [model.index[label] for label in der.labels]
            p[at] += x[i] / len(at)
            q[at] += x[len(ders) + i] / len(at)
        return float(model.v_pu(p, q).max())

    uncontrolled = np.concatenate([problem.high[: len(ders)], np.zeros(len(ders))])
    assert highest(uncontrolled) > 1.055
    assert highest(best.x) == pytest.approx(1.05, abs=1e-7)
    assert best.objective > problem.objective(uncontrolled)


def test_a_feeder_that_needs_nothing_is_refused() -> None:
    with pytest.raises(ControllerError, match=r"no voltage leaves 0\.8 to 1\.2 pu"):
        feeder_opf(load_feeder("ieee13"), 0.8, 1.2)


def test_problems_have_names() -> None:
    found = load_problem("lindistflow-ieee13")
    assert isinstance(found, Dispatch)
    assert found.names[0].endswith("_p")
    assert len(load_problem("dcopf-case57").names) == 7


def test_peers_are_those_whose_parts_of_the_network_touch() -> None:
    """A line of seven nodes with a branch: agents at 0, 3 and 5, two more at 3."""
    edges = np.array([[0, 1], [1, 2], [2, 3], [3, 4], [4, 5], [5, 6]])
    graph = network_peers(7, edges, np.array([0, 3, 5, 3, 3]))
    assert graph.edges.tolist() == [[0, 1], [1, 2], [1, 3], [3, 4]]


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 30), st.data())
def test_agents_of_a_connected_network_are_connected(n: int, data: st.DataObject) -> None:
    parent = [data.draw(st.integers(0, i - 1)) for i in range(1, n)]
    at = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=8))
    edges = np.stack([np.arange(1, n), parent], axis=1)
    assert network_peers(n, edges, np.array(at)).n == len(at)  # else `Graph` raises
