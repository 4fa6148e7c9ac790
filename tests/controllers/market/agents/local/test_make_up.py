"""What attack 1c needs: a three-phase primary market, agents that make up for lost generation."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray
from controllers.core.protocol import ControlSite
from controllers.market.agents.local.controller import LocalMarket
from controllers.market.agents.local.offers import (
    GAMMA,
    KNOWN,
    METERED,
    OFFER_FIELDS,
    P0,
    P_MAX,
    P_MIN,
    Q_ROOM,
)
from controllers.market.agents.local.options import LocalMarketOptions
from controllers.market.agents.local.smo import OperatorGroup
from controllers.market.agents.local.table import PV, LocalTable, local_table
from grid_models.catalog import load_feeder
from grid_models.current_injection.model import PortNetwork
from grid_models.ders.rules import DerRule, place
from grid_models.feeder.model import Feeder
from grid_models.opendss.circuit import Circuit
from grid_models.opendss.ports import port_network


@cache
def feeder() -> Feeder:
    made = load_feeder("ieee13")
    return made.with_ders(place(made, DerRule(kind="house", at="load_phases", kw=6.0)))


@cache
def ports() -> PortNetwork:
    return port_network(Circuit.from_feeder(feeder()))


@cache
def table() -> LocalTable:
    return local_table(feeder(), 1, 0.0)


def scheduled(
    make_up: bool, metered_pv_kw: float, award_kw: float, up: tuple[float, ...]
) -> tuple[OperatorGroup, FloatArray]:
    """Return the operator with most agents after a clearing, and its agents' offers.

    Each agent offers a house of 2 kW that can give `up`, and PV of 3 kW; the first one's PV meter
    shows another number.
    """
    t = table()
    smo = int(np.bincount(t.agent_smo).argmax())
    options = LocalMarketOptions(make_up=make_up, epsilon=0.0)
    group = OperatorGroup(t, [smo], options, seed=1)
    n = group.agents.size
    rows = np.zeros((n, len(OFFER_FIELDS)))
    rows[:, 0] = 1.0
    rows[:, P0] = rows[:, P_MIN] = rows[:, P_MAX] = [-2.0, 3.0, 0.0]
    rows[:, P_MAX.start] += np.resize(up, n)
    rows[:, GAMMA], rows[:, Q_ROOM], rows[:, KNOWN] = 1.0, 0.5, 1.0
    rows[:, METERED] = [-2.0, 3.0, 0.0]
    rows[0, METERED.start + PV] = metered_pv_kw
    group.book.take(np.arange(n), rows, 0)
    group.take_offers(1)
    award = np.array([[0.0, -award_kw * n / 1000.0, 0.0, 0.0, 60.0, 0.0, 0.0]])
    group.take_awards(np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64), award, 0)
    group.clear(np.ones(1, dtype=bool), 1)
    return group, rows


@settings(max_examples=40, deadline=None)
@given(
    metered_pv_kw=st.floats(0.0, 1.4),
    up=st.lists(st.floats(0.1, 2.0), min_size=1, max_size=5).map(tuple),
)
def test_an_operator_keeps_its_award_or_gives_all_it_has(
    metered_pv_kw: float, up: tuple[float, ...]
) -> None:
    group, rows = scheduled(True, metered_pv_kw, 1.0, up)
    n, missing = len(rows), 3.0 - metered_pv_kw
    p = group.scheduled[:, 0]
    most = rows[:, P_MAX].sum(axis=1)
    assert (p >= rows[:, P_MIN].sum(axis=1) - 1e-4).all()
    assert (p <= most + 1e-4).all()
    wanted = min(1.0 * n, most.sum() - missing)
    assert p.sum() - missing == pytest.approx(wanted, abs=1e-3)
    # What makes up for the loss is not bid again.
    assert group.bid_kw[0, 2] == pytest.approx(max(1.0 * n, most.sum() - missing))


def test_generation_that_is_there_needs_no_making_up() -> None:
    for metered_pv_kw in (3.0, 1.6):  # half of the least that was offered is 1.5
        with_it = scheduled(True, metered_pv_kw, 1.2, (1.0,))[0]
        without = scheduled(False, metered_pv_kw, 1.2, (1.0,))[0]
        assert np.array_equal(with_it.scheduled, without.scheduled)
        assert np.array_equal(with_it.bids(), without.bids())
    assert not np.array_equal(
        scheduled(True, 1.4, 1.2, (1.0,))[0].bids(), scheduled(False, 1.4, 1.2, (1.0,))[0].bids()
    )


def test_a_three_phase_market_has_an_operator_per_connection_point() -> None:
    made = local_table(feeder(), 2, 0.2, ports())
    assert made.network is ports()
    assert len(made.buses) > len(local_table(feeder(), 2, 0.2).buses)
    smos = made.agent_smo[made.home_agent][made.der_home]
    terminals = [ports().terminal_of_der(der.name) for der in made.ders]
    assert made.rows[smos].tolist() == terminals


def test_a_clearing_by_mail_and_one_without_a_grid_are_refused() -> None:
    site = ControlSite(feeder(), (), 15.0)
    with pytest.raises(ControllerError, match="exchanges mail between buses"):
        LocalMarket.agents(site, clearing="admm")
    with pytest.raises(ControllerError, match="needs a grid"):
        LocalMarket.agents(site, clearing="three-phase")
