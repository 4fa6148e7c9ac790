"""What the loads and DERs of a site bid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from controllers.core.protocol import ControlSite
from controllers.core.sample_site import sample_feeder
from controllers.market.agents.site_problem import SiteBids, site_problem
from controllers.market.solvers.central import clear
from controllers.market.solvers.pac import clear_pac
from grid_models.feeder.model import Der

ASKED = SiteBids(import_price=60.0, load_cost=240.0, flexibility=0.3)
GENERATOR = Der("gen_b3", "inverter", "b3", (1, 2, 3), 220.0, 200.0)
LOAD_B4 = Der("load_b4", "flexible_load", "b4", (2,), 110.0, -50.0, -100.0)
LOAD_B3 = Der("load_b3", "flexible_load", "b3", (1, 2, 3), 70.0, -40.0, -60.0)
TAN_PHI = np.tan(np.arccos(0.95))


def site(*ders: Der, factor: float = 1.0) -> ControlSite:
    """Return the five-bus site with these DERs; `factor` times its load at b2."""
    feeder = sample_feeder()
    loads = tuple(
        replace(load, kw=factor * load.kw) if load.bus == "b2" else load for load in feeder.loads
    )
    return ControlSite(replace(feeder, loads=loads, ders=ders), ders, 1.0)


def test_a_flexible_load_bids_as_load() -> None:
    plain, full = (site_problem(site(*ders), ASKED) for ders in ((), (LOAD_B4,)))
    at = full.network.position("b4")
    # 150 kW of the feeder's own, 30 % of them flexible, and 100 kW that can give up 50.
    assert full.bids.p_load0[at] == pytest.approx(0.25)
    assert full.bids.p_load_max[at] == pytest.approx(0.25)
    assert full.bids.p_load_min[at] == pytest.approx(0.25 - 0.045 - 0.05)
    assert full.bids.q_load0[at] == pytest.approx(plain.bids.q_load0[at] + 0.1 * TAN_PHI)
    # Marginal cost at full curtailment: the option's.
    assert 2.0 * full.bids.beta[at] * 0.095 == pytest.approx(240.0)
    for name in ("p_gen_min", "p_gen_max", "q_gen_min", "q_gen_max", "alpha_p", "alpha_q"):
        assert getattr(full.bids, name)[at] == 0.0


def test_curtailment_costs_what_the_option_says_and_consumption_nothing() -> None:
    problem = site_problem(site(LOAD_B4), ASKED)
    at = problem.network.position("b4")
    dispatch = clear(problem).dispatch
    assert dispatch.p_gen[at] == 0.0
    # At 60 of 240 per MWh, and the price of the reactive power that goes with it, a quarter is cut.
    assert dispatch.p_load[at] == pytest.approx(0.25 - 0.095 * 60.0 / 240.0, abs=1e-3)
    dear = clear(site_problem(site(LOAD_B4), replace(ASKED, load_cost=24000.0))).dispatch
    assert dear.p_load[at] == pytest.approx(0.25, abs=1e-3)
    assert clear_pac(problem).dispatch.p_load[at] == pytest.approx(dispatch.p_load[at], abs=1e-3)


def test_generators_keep_their_range_beside_a_load_at_their_bus() -> None:
    bids = site_problem(site(GENERATOR, LOAD_B3), ASKED).bids
    alone = site_problem(site(GENERATOR), ASKED).bids
    for name in ("p_gen_min", "p_gen_max", "q_gen_min", "q_gen_max", "alpha_p", "alpha_q"):
        np.testing.assert_array_equal(getattr(bids, name), getattr(alone, name))
    assert bids.p_gen_max.sum() == pytest.approx(0.2)


def test_houses_and_tanks_take_no_part() -> None:
    house = Der("house_b3", "house", "b3", (1,), 7.0, 0.0, -7.0)
    tank = Der("tank_b3", "flexible_load", "b3", (1,), 5.0, 0.0, -5.0, energy_kwh=10.0)
    full, plain = (site_problem(site(*ders), ASKED).bids for ders in ((house, tank), ()))
    for name in ("p_load0", "p_load_min", "p_gen_min", "p_gen_max", "q_gen_max"):
        np.testing.assert_array_equal(getattr(full, name), getattr(plain, name))


def test_a_load_that_feeds_in_is_not_flexible() -> None:
    problem = site_problem(site(GENERATOR, factor=-1.0), ASKED)
    at = problem.network.position("b2")
    assert problem.bids.p_load0[at] == pytest.approx(-0.45)
    assert problem.bids.p_load_min[at] == problem.bids.p_load_max[at]
    dispatch = clear(problem).dispatch
    assert dispatch.p_load[at] == pytest.approx(-0.45)
