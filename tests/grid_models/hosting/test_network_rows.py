from __future__ import annotations

import numpy as np
import pytest

from grid_models.hosting.limits import Limits
from grid_models.hosting.network_rows import network_rows, worst_elements
from tests.grid_models.hosting._studies import study


@pytest.mark.parametrize("balanced", [True, False])
def test_rows_are_the_derivatives_of_the_power_flow(balanced: bool) -> None:
    model = study(balanced, Limits(reverse_kw=100.0))
    check, shape = model.check, (len(model.hours), len(model.sites))
    rng = np.random.default_rng(1)
    site_kva = 15.0 * rng.uniform(size=shape) + 4j * rng.normal(size=shape)
    flow = model.flow(site_kva)
    at = worst_elements(model, flow, -np.inf, 3)
    rows = network_rows(model, flow, at)
    assert set(at.kind) == set(range(5))
    assert len(at) == len(model.hours) * (3 + 3 + 3 + (1 if balanced else 3) + 1)

    def excess(site_kva: np.ndarray) -> np.ndarray:
        flow = model.flow(site_kva)
        of_kind = [check.by_element(kind, flow) for kind in check.kinds]
        each = zip(at.case, at.kind, at.element, strict=True)
        return np.array([of_kind[kind][case, element] for case, kind, element in each])

    np.testing.assert_array_equal(rows.excess, excess(site_kva))
    # Differences of fourth order along a random direction; the power flow is solved to 2e-10 pu.
    along, h = rng.normal(size=shape) + 1j * rng.normal(size=shape), 0.05
    near, far = (excess(site_kva + k * along) - excess(site_kva - k * along) for k in (h, 2.0 * h))
    difference = (8.0 * near - far) / (12.0 * h)
    tangent = (rows.by_p * along.real[at.case] + rows.by_q * along.imag[at.case]).sum(axis=1)
    for kind in range(5):
        of = at.kind == kind
        size = np.abs(difference[of]).max()
        np.testing.assert_allclose(tangent[of], difference[of], rtol=0.0, atol=1e-6 * size)


def test_worst_elements_are_those_above_a_threshold() -> None:
    model = study(True)
    flow = model.flow(60.0 * model.pv_pu[:, None])
    at = worst_elements(model, flow, 0.0, 2)
    excess = model.check.excess(flow)
    worst = network_rows(model, flow, at).excess
    assert (worst > 0.0).all()
    for case, kind in np.ndindex(excess.value.shape):
        found = worst[(at.case == case) & (at.kind == kind)]
        assert found.max(initial=0.0) == max(excess.value[case, kind], 0.0)
        assert len(found) <= 2
