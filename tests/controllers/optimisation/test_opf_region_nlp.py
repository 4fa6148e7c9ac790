"""The program of a region: derivatives by differences, and values by complex powers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from controllers.optimisation.problems.opf_region_nlp import RegionNlp
from grid_models.transmission.matpower import load_case
from grid_models.transmission.opf_case import OpfCase
from tests.controllers.optimisation.opf_cases import case_with_everything

OWN = np.array([0, 1, 5, 6, 10, 11, 12, 24, 25, 29, 30, 31, 36, 38])


@pytest.fixture(scope="module")
def region() -> RegionNlp:
    return RegionNlp(case_with_everything(), OWN)


def _point(region: RegionNlp) -> NDArray[np.float64]:
    return region.start + np.random.default_rng(1).uniform(-0.05, 0.05, region.n)


def _difference(
    value: Callable[[NDArray[np.float64]], NDArray[np.float64]], x: NDArray[np.float64]
) -> NDArray[np.float64]:
    width = 1e-6
    steps = width * np.eye(len(x))
    return np.stack([(value(x + d) - value(x - d)) / (2.0 * width) for d in steps], axis=-1)


def test_slopes_are_those_of_differences(region: RegionNlp) -> None:
    x = _point(region)
    at = region.at(x)
    # Central differences of width 1e-6 of values up to 100: errors about 1e-8.
    gradient = _difference(lambda x: np.array(region.at(x).objective), x)
    np.testing.assert_allclose(at.gradient, gradient, atol=1e-6)
    for pattern, slopes, kind in (
        (region.equality_pattern, at.equality_slopes, "equalities"),
        (region.inequality_pattern, at.inequality_slopes, "inequalities"),
    ):
        expected = _difference(lambda x, kind=kind: getattr(region.at(x), kind), x)
        np.testing.assert_allclose(pattern.matrix(slopes).toarray(), expected, atol=2e-6)
        y = np.random.default_rng(2).standard_normal(pattern.shape[0])
        np.testing.assert_allclose(pattern.transposed_times(slopes, y), expected.T @ y, atol=2e-5)


def test_hessian_is_that_of_differences_of_slopes(region: RegionNlp) -> None:
    x, rng = _point(region), np.random.default_rng(3)
    y = rng.standard_normal(region.equality_pattern.shape[0])
    z = rng.uniform(0.0, 1.0, region.inequality_pattern.shape[0])

    def slope(x: NDArray[np.float64]) -> NDArray[np.float64]:
        at = region.at(x)
        of_g = region.equality_pattern.transposed_times(at.equality_slopes, y)
        of_h = region.inequality_pattern.transposed_times(at.inequality_slopes, z)
        return at.gradient + of_g + of_h

    hessian = region.hessian_pattern.matrix(region.hessian(x, y, z)).toarray()
    np.testing.assert_allclose(hessian, _difference(slope, x), atol=5e-6)


def _admittance(case: OpfCase) -> NDArray[np.complex128]:
    """Stamp pi equivalents behind ideal transformers, branch by branch."""
    y = np.diag(case.buses.shunt_mw + 1j * case.buses.shunt_mvar) / case.base_mva
    b = case.branches
    for k, (i, j) in enumerate(zip(b.from_bus, b.to_bus, strict=True)):
        series, half = 1.0 / (b.r_pu[k] + 1j * b.x_pu[k]), 0.5j * b.b_pu[k]
        ratio = b.tap_ratio[k] * np.exp(1j * np.radians(b.shift_deg[k]))
        # v_i = ratio v, i_i = i / conj(ratio) at the ideal transformer.
        turns = np.diag([1.0 / ratio, 1.0])
        pi = np.array([[series + half, -series], [-series, series + half]])
        y[np.ix_([i, j], [i, j])] += turns.conj() @ pi @ turns
    return y


def test_balance_is_that_of_the_bus_admittance_matrix() -> None:
    """All buses: complex power into the network by ``v conj(Y v)``."""
    case = case_with_everything()
    whole = RegionNlp(case, np.arange(len(case.buses.names)))
    x = _point(whole)
    v = x[whole.v] * np.exp(1j * x[whole.turn])
    into = v * (_admittance(case) @ v).conj()
    into += (case.buses.load_mw + 1j * case.buses.load_mvar) / case.base_mva
    np.subtract.at(into, case.generators.bus, x[whole.p] + 1j * x[whole.q])
    expected = np.concatenate((into.real, into.imag))
    np.testing.assert_allclose(whole.at(x).equalities, expected, atol=1e-10)


def test_objective_is_the_cost_of_the_case() -> None:
    case = case_with_everything()
    whole = RegionNlp(case, np.arange(len(case.buses.names)))
    x = whole.start
    assert case.reactive_costs is not None
    cost = case.costs.usd_per_h(x[whole.p] * case.base_mva).sum()
    cost += case.reactive_costs.usd_per_h(x[whole.q] * case.base_mva).sum()
    assert whole.at(x).objective == pytest.approx(1e-3 * cost, rel=1e-12)


def test_regions_have_the_constraints_of_the_whole() -> None:
    case = load_case("case39")
    halves = [np.arange(20), np.arange(20, 39)]
    whole = RegionNlp(case, np.arange(39))
    parts = [RegionNlp(case, own) for own in halves]
    for pattern in ("equality_pattern", "inequality_pattern"):
        rows = [getattr(p, pattern).shape[0] for p in parts]
        assert sum(rows) == getattr(whole, pattern).shape[0]
    assert sum(len(p.generators) for p in parts) == 10
    # The reference bus, 31, is in the second half.
    fixed = [int((p.lower == p.upper).sum()) for p in parts]
    assert fixed == [0, 1]
