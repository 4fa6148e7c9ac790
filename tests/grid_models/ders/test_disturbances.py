"""Disturbances of DERs: nothing changes nothing, ratings hold, energy and heat go on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from grid_models.ders.disturbances import DerDisturbance, altered_kw, altered_units_kw
from grid_models.ders.plant import DerFleet
from grid_models.feeder.model import Der

PV = Der("pv", "pv", "1", (1,), 11.0, 10.0)
BATTERY = Der("bat", "battery", "2", (1,), 5.0, 5.0, -5.0, 10.0)
FLEX = Der("flex", "flexible_load", "4", (1,), 10.0, 0.0, -10.0)
TANK = Der("tank", "flexible_load", "5", (1,), 9.0, 0.0, -9.0, 2.4, 2)
HOUSE = Der("house", "house", "6", (1,), 70.0, 0.0, -70.0, 0.0, 10)
# Kinds alternate, so that index arrays and not only slices are used.
OTHER = Der("other", "house", "7", (1,), 35.0, 0.0, -35.0, 0.0, 5)
ALL = (HOUSE, PV, BATTERY, FLEX, OTHER, TANK)
HOUSE_I, PV_I, BAT_I, FLEX_I, OTHER_I, TANK_I = range(6)


def nothing(n: int = 6) -> DerDisturbance:
    return DerDisturbance.none(n)


def to(index: int, **what: float) -> DerDisturbance:
    """Disturb one DER of ALL."""
    made = nothing()
    for name, value in what.items():
        array = getattr(made, name).copy()
        array[index] = value
        made = replace(made, **{name: array})
    return made


def run(
    disturbance: DerDisturbance | None,
    steps: int = 30,
    out_c: float = 34.0,
    fleet: DerFleet | None = None,
) -> tuple[np.ndarray, DerFleet]:
    fleet = fleet or DerFleet(ALL, seed=3)
    p_set = np.full(6, np.nan)
    p_set[BAT_I], p_set[OTHER_I] = 2.0, -9.0
    rows = [
        fleet.step(60.0, 0.7, out_c, p_set, load_pu=0.4, disturbance=disturbance)
        for _ in range(steps)
    ]
    return np.array(rows), fleet


def test_a_disturbance_that_does_nothing_changes_no_bit() -> None:
    clean, fleet = run(None)
    same, disturbed = run(nothing())
    assert clean.tobytes() == same.tobytes()
    assert fleet.houses is not None
    assert disturbed.houses is not None
    assert fleet.houses.temp_in_c.tobytes() == disturbed.houses.temp_in_c.tobytes()
    assert fleet.soc_kwh.tobytes() == disturbed.soc_kwh.tobytes()


def test_what_is_done_to_one_leaves_the_others_bits_alone() -> None:
    clean, _ = run(None)
    for index in range(6):
        changed, _ = run(to(index, connected=False))
        others = np.arange(6) != index
        assert clean[:, :, others].tobytes() == changed[:, :, others].tobytes()
        assert not changed[:, :, index].any()


def test_a_tripped_battery_keeps_its_energy_and_goes_on_from_there() -> None:
    _, fleet = run(to(BAT_I, connected=False))
    assert fleet.soc_kwh.tolist() == [5.0]  # half of 10 kWh, where it starts
    back, fleet = run(nothing(), fleet=fleet)
    assert back[0, 0, BAT_I] == 2.0
    assert fleet.soc_kwh[0] < 5.0


def test_a_house_off_the_grid_drifts_and_then_draws_more_than_it_would_have() -> None:
    clean, quiet = run(None, steps=120)
    _, fleet = run(to(HOUSE_I, connected=False), steps=60)
    assert fleet.temp_c[0] > quiet.temp_c[0] + 1.0
    after, _ = run(nothing(), steps=60, fleet=fleet)
    # Cold-load pickup: compressors that had their turns all run at once.
    assert after[0, 0, HOUSE_I] < 1.2 * clean[60, 0, HOUSE_I] < 0.0


def test_houses_give_what_is_asked_until_every_compressor_runs() -> None:
    clean, quiet = run(None, steps=1)
    asked, _ = run(to(HOUSE_I, extra_kw=6.0), steps=1)
    np.testing.assert_allclose(clean[0, 0, HOUSE_I] - asked[0, 0, HOUSE_I], 6.0, rtol=1e-12)
    most, _ = run(to(HOUSE_I, extra_kw=1e4), steps=1)
    assert quiet.houses is not None
    p, mine = quiet.houses.parameters, slice(0, 10)  # the first ten houses are HOUSE's
    limit = p.hvac_kw[mine].sum() + 0.4 * p.base_kw[mine].sum()
    np.testing.assert_allclose(-most[0, 0, HOUSE_I], limit, rtol=1e-12)


def test_less_than_the_rest_of_a_house_cannot_be_asked_of_its_compressors() -> None:
    _, quiet = run(None, steps=1)
    least, _ = run(to(HOUSE_I, factor=0.0), steps=1)
    assert quiet.houses is not None
    base = 0.4 * quiet.houses.parameters.base_kw[:10].sum()
    np.testing.assert_allclose(-least[0, 0, HOUSE_I], base, rtol=1e-12)


def test_forced_compressors_cool_on_a_warm_day_and_heat_on_a_cold_one() -> None:
    _, warm = run(to(HOUSE_I, extra_kw=1e4), steps=90)
    _, warm_quiet = run(None, steps=90)
    assert warm.temp_c[0] < warm_quiet.temp_c[0] - 3.0
    _, cold = run(to(HOUSE_I, extra_kw=1e4), steps=90, out_c=-5.0)
    _, cold_quiet = run(None, steps=90, out_c=-5.0)
    assert cold.temp_c[0] > cold_quiet.temp_c[0] + 3.0


def test_a_thermostat_that_was_moved_and_moved_back_is_where_it_was() -> None:
    moved, fleet = run(to(HOUSE_I, thermostat_k=-2.0), steps=60)
    clean, quiet = run(None, steps=60)
    assert moved[0, 0, HOUSE_I] < clean[0, 0, HOUSE_I] - 5.0
    # A whole degree, not two: the band is up to 1.4 K wide, and houses are anywhere in it.
    assert fleet.temp_c[0] < quiet.temp_c[0] - 1.0
    run(nothing(), steps=1, fleet=fleet)
    assert fleet.houses is not None
    assert quiet.houses is not None
    assert fleet.houses._cool_on_c.tolist() == quiet.houses._cool_on_c.tolist()


def test_water_heaters_and_flexible_loads_stop_at_their_rating() -> None:
    clean, _ = run(None, steps=1)
    for index, rating in ((TANK_I, 9.0), (FLEX_I, 10.0)):
        some, _ = run(to(index, extra_kw=1.5), steps=1)
        np.testing.assert_allclose(clean[0, 0, index] - some[0, 0, index], 1.5, rtol=1e-12)
        most, _ = run(to(index, extra_kw=1e3), steps=1)
        np.testing.assert_allclose(most[0, 0, index], -rating, rtol=1e-12)
    half, _ = run(to(FLEX_I, factor=0.5), steps=1)
    assert half[0, 0, FLEX_I] == 0.5 * clean[0, 0, FLEX_I]


KW = st.floats(0.0, 50.0)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(KW, KW, KW), min_size=1, max_size=6),
    st.floats(-100.0, 100.0),
    st.floats(0.0, 3.0),
)
def test_units_move_by_what_is_asked_within_nothing_and_their_rating(
    rows: list[tuple[float, float, float]], extra: float, factor: float
) -> None:
    now, room, other = np.array(rows).T
    rating, group = now + room, np.zeros(len(rows), dtype=np.intp)
    by = DerDisturbance(np.ones(1, bool), np.array([extra]), np.array([factor]), np.zeros(1))
    moved = altered_units_kw(now, rating, other, group, by)
    assert ((moved >= 0.0) & (moved <= rating * (1 + 1e-12) + 1e-12)).all()
    change = (now.sum() + other.sum()) * (factor - 1.0) + extra
    np.testing.assert_allclose(
        moved.sum(), np.clip(now.sum() + change, 0.0, rating.sum()), rtol=1e-9, atol=1e-9
    )


@given(st.lists(KW, min_size=1, max_size=5))
def test_demand_above_its_rating_may_stay(demand: list[float]) -> None:
    kw = np.array(demand)
    by = replace(nothing(len(kw)), extra_kw=np.ones(len(kw)))
    assert (altered_kw(kw, kw / 2.0, by) == kw).all()
    assert (altered_kw(kw, kw + 5.0, by) == kw + 1.0).all()
