"""Per-load noise: its statistics, and that it depends on seed, label and time only."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grid_models.base.errors import ProfileError
from grid_models.profiles.load_diversity import LoadDiversity

LABELS = [f"load_{i}" for i in range(4000)]


def test_mean_spread_and_memory():
    noise = LoadDiversity(LABELS, seed=1, rel_std=0.3, tau_s=600.0)
    a, near, far = noise.factors(250.0), noise.factors(260.0), noise.factors(250.0 + 1200.0)
    # 4000 samples: the mean is known to 0.3/sqrt(4000) = 0.005, the deviation to 0.0034.
    assert a.mean() == pytest.approx(1.0, abs=0.02)
    assert np.log(a).std() == pytest.approx(0.3, abs=0.015)
    assert np.corrcoef(a, near)[0, 1] > 0.99
    assert abs(np.corrcoef(a, far)[0, 1]) < 0.06
    assert (a > 0).all()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-1e5, 1e7), min_size=1, max_size=8), st.permutations(list(range(6))))
def test_order_subset_and_history_do_not_matter(times, order):
    labels = LABELS[:6]
    whole = LoadDiversity(labels, seed=4)
    other = LoadDiversity([labels[i] for i in order[:4]], seed=4)
    forwards = {t: whole.factors(t).copy() for t in times}
    for t in reversed(times):
        np.testing.assert_array_equal(other.factors(t), forwards[t][order[:4]])


def test_no_jump_at_a_lattice_point():
    noise = LoadDiversity(LABELS[:100], seed=2, tau_s=900.0)
    before, after = noise.factors(899.999), noise.factors(900.0)
    np.testing.assert_allclose(before, after, rtol=1e-5)


def test_seeds_differ_and_no_noise_is_exactly_one():
    one, two = (LoadDiversity(LABELS[:9], seed=s).factors(5.0) for s in (1, 2))
    assert not np.isclose(one, two).any()
    assert (LoadDiversity(LABELS[:9], seed=1, rel_std=0.0).factors(77.0) == 1.0).all()


@pytest.mark.parametrize("bad", [{"rel_std": -0.1}, {"rel_std": float("nan")}, {"tau_s": 0.0}])
def test_impossible_parameters_are_refused(bad):
    with pytest.raises(ProfileError, match=f"option '{next(iter(bad))}': .* is not accepted"):
        LoadDiversity(LABELS[:2], seed=1, **bad)
