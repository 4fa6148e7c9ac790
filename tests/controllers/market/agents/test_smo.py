"""How an operator at a node shares its award over its devices, and what it reports of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.core.mail import FloatArray
from controllers.core.sample_site import sample_feeder
from controllers.market.agents.options import MarketOptions
from controllers.market.agents.smo import AWARD_FIELDS, SmoGroup
from controllers.market.model.participants import Costs, participants_of
from grid_models.branch_flow.model import branch_network
from grid_models.feeder.model import Der

THREE = (1, 2, 3)
DERS = (
    Der("full", "inverter", "b1", THREE, 100.0, 100.0),
    Der("spare", "inverter", "b1", THREE, 200.0, 20.0),
    Der("small", "inverter", "b1", THREE, 25.0, 15.0),
    Der("load", "flexible_load", "b4", (2,), 110.0, -50.0, -100.0),
)
ROOM_KVAR = np.sqrt(np.array([100.0, 200.0, 25.0]) ** 2 - np.array([100.0, 20.0, 15.0]) ** 2)


def group() -> SmoGroup:
    """Return all operators of a site with three inverters at one bus."""
    feeder = replace(sample_feeder(), ders=DERS)
    costs = Costs({"*": 30.0}, (200.0, 200.0))
    table = participants_of(feeder, DERS, costs, 3, branch_network(feeder).row_of)
    return SmoGroup(table, range(len(table.buses)), MarketOptions(), 1.0, 3)


@given(st.floats(0.0, 0.15), st.sampled_from([0.0, 0.2]), st.integers(0, 50))
def test_critical_load_is_shed_only_by_an_award_below_the_least(
    left: float, error: float, interval: int
) -> None:
    """One operator with 80 kW of flexible and 70 kW of critical load, in three devices."""
    sizes = np.array([100.0, 40.0, 10.0])
    ders = tuple(
        Der(f"load{kw:g}", "flexible_load", "b4", (2,), 110.0, 0.0, -kw) for kw in sizes.tolist()
    )
    feeder = replace(sample_feeder(), ders=ders)
    costs, rows = Costs({}, (200.0, 200.0)), branch_network(feeder).row_of
    table = participants_of(feeder, ders, costs, 3, rows, critical_load_pu=70.0 / 150.0)
    smos = SmoGroup(
        table, range(len(table.buses)), MarketOptions(response_error=error), 1.0, interval
    )
    b4 = table.buses.index("b4")
    assert smos.bids()[b4, 0] - smos.bids()[b4, 2] == pytest.approx(0.08)
    award(smos, "b4", p_load=table.fixed_p_mw[b4] + left)
    share = -smos.p_set_kw / sizes
    assert (share >= 0.0).all()
    if left >= 0.07:
        assert (share >= 70.0 / 150.0 - 1e-12).all()
    if not error:
        np.testing.assert_allclose(share, left / 0.15, atol=1e-12)


def award(smos: SmoGroup, bus: str, **numbers: float) -> None:
    row = np.array([[numbers.get(name, 0.0) for name in AWARD_FIELDS]])
    at = np.array([smos._table.buses.index(bus)])
    smos.take_awards(at, np.array([smos._inbox.round[at[0]] + 1]), row, 0)
    smos.steer(0)


def q_kvar(smos: SmoGroup) -> FloatArray:
    return smos.q_set_kvar


@given(st.floats(-1.0, 1.0))
def test_reactive_power_is_shared_by_the_room_that_was_bid(part: float) -> None:
    smos = group()
    bid = smos.bids()[smos._table.buses.index("b1"), 7]
    assert 1000.0 * bid == pytest.approx(ROOM_KVAR.sum())
    award(smos, "b1", p_gen=0.135, q_gen=part * bid)
    # The unit without room gives none, and all of the award is there.
    assert q_kvar(smos) == pytest.approx(part * ROOM_KVAR, abs=1e-9)
    assert smos.p_set_kw[:3] == pytest.approx([100.0, 20.0, 15.0])


@pytest.mark.parametrize("wrong", [1e6, -1e6, 1e300, -1e308, 0.3])
def test_a_bad_award_asks_no_device_for_more_than_its_rating(wrong: float) -> None:
    smos = group()
    award(smos, "b1", p_gen=0.135, q_gen=wrong)
    assert (np.abs(q_kvar(smos)) <= ROOM_KVAR * (1.0 + 1e-12)).all()
    award(smos, "b1", p_gen=0.135, q_gen=0.05)
    assert q_kvar(smos).sum() == pytest.approx(50.0)


@pytest.mark.parametrize("shown", [np.nan, np.inf, -np.inf])
def test_a_meter_without_a_number_is_reported_as_such(shown: float) -> None:
    smos = group()
    award(smos, "b1", p_gen=0.135)
    told = smos.p_set_kw
    b1, b4 = (smos._table.buses.index(bus) for bus in ("b1", "b4"))
    honest = smos.metered_mw(told)
    p_kw = told.copy()
    p_kw[1] = shown
    metered = smos.metered_mw(p_kw)
    assert np.isnan(metered[b1])
    others = np.arange(metered.size) != b1
    assert metered[others].tolist() == honest[others].tolist()
    assert metered[b4] == pytest.approx(-0.25)
