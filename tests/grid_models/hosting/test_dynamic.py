from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grid_models.base.errors import FeederError
from grid_models.hosting.devices import DeviceOptions
from grid_models.hosting.dynamic import CASES, decomposed, dynamic
from grid_models.hosting.limits import Limits
from grid_models.hosting.model import HostingModel
from grid_models.hosting.ray import EXCESS, RayOptions
from tests.grid_models.hosting._studies import study


def _pattern(model: HostingModel, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    chosen = rng.uniform(size=len(model.sites)) < 0.5
    return np.where(chosen, rng.uniform(3.0, 42.0, len(model.sites)), 0.0)


def _spread(model: HostingModel, **total_kw: float) -> dict[str, np.ndarray]:
    each = np.ones(len(model.sites)) / len(model.sites)
    return {kind: kw * each for kind, kw in total_kw.items()}


def _bisected(model: HostingModel, pattern: np.ndarray) -> float:
    """Return the largest PV without curtailment and devices, by power flows alone."""
    low, high = 0.0, 2e4
    share = pattern / pattern.sum()
    while high - low > 1e-3:
        middle = 0.5 * (low + high)
        excess = model.excess(middle * model.pv_pu[None, :, None] * share)
        low, high = (middle, high) if excess.value.max() <= 0.0 else (low, middle)
    return low


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_without_devices_and_curtailment_it_is_what_bisection_finds(
    seed: int, balanced: bool
) -> None:
    model = study(balanced)
    pattern = _pattern(model, seed)
    found = dynamic(model, pattern, {}, options=RayOptions(curtailment=0.0))
    assert found.hc_kw[0] == pytest.approx(_bisected(model, pattern), rel=1e-4)
    np.testing.assert_allclose(found.site_kw.sum(axis=1), found.hc_kw)


@pytest.mark.parametrize(
    ("balanced", "limits", "kind"),
    [
        (True, Limits(), "overvoltage"),
        (False, Limits(), "overvoltage"),
        (False, Limits(v_max_pu=1.1), "line"),
        (True, Limits(reverse_kw=300.0), "reverse power"),
    ],
)
def test_both_levers_help_and_the_plans_keep_the_limits(
    balanced: bool, limits: Limits, kind: str
) -> None:
    model = study(balanced, limits)
    sizes = _spread(model, battery=300.0, vehicle=400.0, heat_pump=200.0)
    options = DeviceOptions(power_factor=0.98)
    found = decomposed(model, _pattern(model, 1), sizes, options)
    hc = {name: float(result.hc_kw[0]) for name, result in found.items()}
    assert set(hc) == set(CASES)
    assert hc["nothing"] < hc["devices"] < hc["all"]
    assert hc["nothing"] <= hc["power factor"] * (1.0 + 1e-6) < hc["all"]
    assert found["nothing"].binding[0].kind == kind
    for result in found.values():
        assert model.excess(result.site_kva).value.max() <= EXCESS
        table = result.tables["dynamic"]
        assert table["with_overlap_kw"][0] >= result.hc_kw[0]
        assert table["with_overlap_kw"][0] <= 1.02 * result.hc_kw[0]
        assert table["curtailed"][0] <= 0.001 * (1.0 + 1e-6)
        assert sum(result.tables["limits"]["weight"]) == pytest.approx(1.0)


def test_a_base_case_beyond_the_limits_is_nan_with_a_note() -> None:
    model = study(True, load_pu=3.0)
    patterns = np.stack([_pattern(model, 1), _pattern(model, 2)])
    found = dynamic(model, patterns, _spread(model, battery=10.0))
    assert np.isnan(found.hc_kw).all()
    assert "2 of 2 placements" in found.notes[0]
    assert found.binding[0].kind == "no plan"
    assert found.tables["limits"]["placement"] == []


def test_storage_can_rescue_a_base_case_that_is_beyond_a_limit() -> None:
    # After sunset the load is highest, and too high unless batteries discharge.
    day = study(True)
    evening = replace(day, load_kva=day.load_kva * np.array([1, 1, 1, 1, 1, 1.6])[:, None])
    lowest = 0.95 - evening.check.excess(evening.flow()).value[-1, 1]
    model = replace(evening, limits=Limits(v_min_pu=float(lowest) + 0.001))
    pattern, sizes = _pattern(model, 1), _spread(model, battery=900.0)
    alone = dynamic(model, pattern, sizes, coordinated=False)
    together = dynamic(model, pattern, sizes)
    assert np.isnan(alone.hc_kw[0])
    assert together.hc_kw[0] > 0.0
    assert model.excess(together.site_kva).value.max() <= EXCESS


def test_a_search_that_nothing_limits_ends_at_its_bound() -> None:
    model = study(True, Limits(v_max_pu=1.5, line_pu=None, transformer_pu=None))
    found = dynamic(model, _pattern(model, 1), {}, options=RayOptions(most_kw=3000.0))
    assert found.hc_kw[0] == pytest.approx(3000.0)
    assert found.binding[0].kind == ""
    assert found.notes[0].startswith("1 of 1 placements reach most_kw, the end of the search")


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"batery": 1.0}, "did you mean 'battery'"),
        ({"battery": -1.0}, "at least 0"),
        ({"battery": np.nan}, "at least 0"),
    ],
)
def test_sizes_that_cannot_be_used_are_refused(sizes: dict, words: str) -> None:
    model = study(True)
    with pytest.raises(FeederError, match=words):
        dynamic(model, _pattern(model, 1), _spread(model, **sizes))


def test_limits_without_tangents_are_refused() -> None:
    model = study(False, Limits(unbalance_pct=2.0))
    with pytest.raises(FeederError, match="unbalance_pct"):
        dynamic(model, _pattern(model, 1), {})
