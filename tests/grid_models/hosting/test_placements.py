import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from grid_models.hosting.placements import Placements, most_units


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 40), st.integers(1, 300))
def test_longer_sequences_and_more_placements_keep_what_was_there(
    seed: int, n: int, n_sites: int, n_units: int
) -> None:
    short = Placements.random(n, n_sites, n_units, (3.0, 12.0), seed)
    longer = Placements.random(n + 3, n_sites, n_units + 50, (3.0, 12.0), seed)
    assert np.array_equal(short.site, longer.site[:n, :n_units])
    assert np.array_equal(short.kw, longer.kw[:n, :n_units])
    assert short.site.min() >= 0
    assert short.site.max() < n_sites
    assert (short.kw >= 3.0).all()
    assert (short.kw <= 12.0).all()


def test_units_are_uniform_over_sites_and_sizes() -> None:
    many = Placements.random(200, 10, 500, (3.0, 12.0), 1)
    share = np.bincount(many.site.ravel(), minlength=10) / many.site.size
    # 100,000 draws: three standard deviations of a share of 0.1 are 0.003.
    assert np.abs(share - 0.1).max() < 0.003
    assert abs(many.kw.mean() - 7.5) < 0.03
    assert abs(np.corrcoef(many.site.ravel(), many.kw.ravel())[0, 1]) < 0.01


def test_power_by_site_is_the_sum_of_the_first_units() -> None:
    made = Placements.random(4, 7, 60, (3.0, 12.0), 5)
    units = np.array([0, 1, 30, 60])
    for k, n in enumerate(units.tolist()):
        by_hand = np.zeros(7)
        for site, kw in zip(made.site[k, :n].tolist(), made.kw[k, :n].tolist(), strict=True):
            by_hand[site] += kw
        assert np.allclose(made.site_kw(units)[k], by_hand, rtol=0.0, atol=1e-12)
    within = made.units_within(100.0)
    assert (made.site_kw(within).sum(axis=1) <= 100.0).all()
    assert (made.site_kw(within + 1).sum(axis=1) > 100.0).all()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 400), min_size=1, max_size=20), st.integers(1, 400))
def test_the_search_finds_each_largest_number(largest: list[int], most: int) -> None:
    limit = np.array(largest)
    found = most_units(lambda n: n <= limit, len(limit), most)
    assert found.tolist() == np.minimum(limit, most).tolist()
