"""Options of the market and of the resilience manager that cannot work."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from controllers.core.errors import ControllerError
from controllers.core.protocol import ControlSite
from controllers.core.sample_site import sample_feeder
from controllers.market.agents.bid_book import bid_faults
from controllers.market.agents.options import ManagerOptions, MarketOptions
from controllers.market.agents.site import site_participants
from controllers.market.model.participants import Costs, aggregate, participants_of
from grid_models.branch_flow.model import branch_network
from grid_models.feeder.model import Der

FLEXIBLE = Der("load_b4", "flexible_load", "b4", (2,), 110.0, -50.0, -100.0)


@pytest.mark.parametrize(
    "pair",
    [[0.0, 0.0], [0.0, 5.0], [100.0, math.inf], [math.nan, 5.0], [5.0, 4.0], [True, 5.0], [5.0]],
)
def test_a_cost_that_no_bid_can_carry_is_refused_at_load(pair: list[Any]) -> None:
    with pytest.raises(ControllerError, match="load_cost") as caught:
        MarketOptions(load_cost=pair)
    assert "finite, with 0 < low <= high" in str(caught.value)


@pytest.mark.parametrize("pair", [[1e-3, 1e-3], [1e-3, 1e9], [144.6, 397.8]])
def test_a_cost_that_is_accepted_makes_good_bids(pair: list[float]) -> None:
    accepted = MarketOptions(load_cost=pair).load_cost
    network = branch_network(sample_feeder())
    costs = Costs({"*": 72.0}, (accepted[0], accepted[1]))
    table = participants_of(sample_feeder(), (FLEXIBLE,), costs, 0, network.row_of)
    assert bid_faults(aggregate(table)) == [None] * len(table.buses)


def test_a_score_may_be_nothing_and_no_more_than_one() -> None:
    assert ManagerOptions(score_prior=[0.0, 1.0]).score_prior == [0.0, 1.0]
    with pytest.raises(ControllerError, match="0 <= low <= high <= 1"):
        ManagerOptions(score_prior=[0.5, 1.0 + np.finfo(float).eps])


def test_an_import_range_the_wrong_way_round_is_refused() -> None:
    with pytest.raises(ControllerError, match=r"import_min_kw: is 5; expected at most .* 3"):
        MarketOptions(import_min_kw=5.0, import_max_kw=3.0)


@pytest.mark.parametrize(
    "option", [{"import_max_kw": 100.0}, {"import_min_kw": 0.0}, {"shed_price": 1e4}]
)
def test_an_option_of_the_three_phase_market_is_not_ignored(option: dict[str, float]) -> None:
    site = ControlSite(sample_feeder(), (), 2.0)
    with pytest.raises(ControllerError, match="is not used by clearing 'central'"):
        site_participants(site, MarketOptions(**option))
