"""A market with a grid-forming unit: within its limits, flexible load before critical load."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from _three_phase_cases import Plant, market, plant
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.market.three_phase.dispatch import PortDispatch
from controllers.market.three_phase.exact import ThreePhaseMarket

SHED_PRICE = 5000.0


@cache
def _plant() -> Plant:
    return plant("ieee13", taps=0.5)


def _cleared(unit_mw: float, *, seed: int = 0, generation_mw: float = 0.8) -> PortDispatch:
    """Return the dispatch of loads of 2 MW, 0.6 of them flexible, that may all be shed."""
    totals = {"load_mw": 2.0, "flexible_mw": 0.6, "generation_mw": generation_mw}
    problem = market(_plant(), **totals, seed=seed, v_min_pu=0.9, v_max_pu=1.1)
    problem = replace(
        problem,
        import_min=0.0,
        import_max=unit_mw,
        shed_price=SHED_PRICE,
        p_load_floor=np.zeros(problem.network.size),
    )
    found = ThreePhaseMarket(problem.network).clear(problem)
    d, bids = found.dispatch, problem.bids
    assert -1e-7 <= d.p_import <= unit_mw + 1e-7
    critical = np.maximum(bids.p_load_min - d.p_load, 0.0)
    flexible_left = np.maximum(d.p_load - bids.p_load_min, 0.0)
    # No network limit binds: nothing separates one load from another.
    assert critical.max() < 1e-7 or flexible_left.max() < 1e-6
    assert (d.p_load >= -1e-9).all()
    short_mw = bids.p_load_min.sum() - unit_mw - bids.p_gen_max.sum()
    # Losses are a few per cent, and load that is shed has none.
    assert critical.sum() >= short_mw - 1e-7
    if short_mw < -0.1:
        assert critical.sum() < 1e-7
    return d


@settings(max_examples=15, deadline=None)
@given(st.floats(0.05, 2.0), st.floats(0.1, 2.5), st.integers(0, 1000))
def test_flexible_load_goes_before_critical_load(
    unit_mw: float, generation_mw: float, seed: int
) -> None:
    _cleared(unit_mw, seed=seed, generation_mw=generation_mw)


def test_a_unit_that_is_smaller_sheds_more() -> None:
    loads = [_cleared(unit_mw).p_load.sum() for unit_mw in (0.6, 0.4, 0.2)]
    assert np.diff(loads) == pytest.approx(-0.2, rel=0.05)
