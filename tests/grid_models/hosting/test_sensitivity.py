from __future__ import annotations

import numpy as np
import pytest

from grid_models.base.errors import FeederError
from grid_models.hosting.devices import DeviceOptions
from grid_models.hosting.dynamic import dynamic
from grid_models.hosting.ray import RayOptions
from grid_models.hosting.sensitivity import sensitivity
from tests.grid_models.hosting._studies import study


def test_duals_are_the_slopes_between_full_solutions() -> None:
    model = study(True)
    share = np.ones(len(model.sites)) / len(model.sites)
    pattern = np.random.default_rng(1).uniform(3.0, 42.0, len(share))
    sizes = {
        "battery": np.array([100.0, 300.0, 500.0]),
        "heat_pump": np.array([50.0, 150.0, 250.0]),
    }
    devices, vehicles = DeviceOptions(power_factor=0.98), {"vehicle": 200.0 * share}
    found = sensitivity(model, pattern, sizes, share, devices, other_kw=vehicles)
    assert found.kinds == ("battery", "heat_pump")
    a, b = found.middle
    assert (a, b) == (1, 1)
    np.testing.assert_allclose(found.by_dual[:, a, b], found.by_solution, rtol=0.02)
    # More of either kind helps, and each time less: concave, but for the AC equations' curvature.
    for axis in (0, 1):
        gain = np.diff(found.hc_kw, axis=axis)
        assert (gain > 0.0).all()
        assert (np.diff(gain, axis=axis) <= 0.01 * gain.max()).all()
    corner = {"battery": 500.0 * share, "heat_pump": 250.0 * share, **vehicles}
    alone = dynamic(model, pattern, corner, devices, RayOptions(excess=2e-6))
    assert found.hc_kw[-1, -1] == pytest.approx(alone.hc_kw[0], rel=1e-4)
    corners = found.hc_kw[[0, -1]][:, [0, -1]]
    assert found.cross_kw == pytest.approx(
        corners[1, 1] - corners[1, 0] - corners[0, 1] + corners[0, 0]
    )


def test_one_kind_is_refused() -> None:
    model = study(True)
    share = np.ones(len(model.sites))
    with pytest.raises(FeederError, match="sizes of two of battery, vehicle, heat_pump"):
        sensitivity(model, share, {"battery": np.array([1.0])}, share, DeviceOptions())


@pytest.mark.parametrize("sizes", [[0.0, 0.0], [5.0], [5.0, 3.0]])
def test_sizes_that_do_not_grow_are_refused(sizes: list[float]) -> None:
    model = study(True)
    share = np.ones(len(model.sites))
    size_kw = {"battery": np.array([1.0, 2.0]), "heat_pump": np.array(sizes)}
    with pytest.raises(FeederError, match=r"sizes of 'heat_pump'.*each larger"):
        sensitivity(model, share, size_kw, share, DeviceOptions())
