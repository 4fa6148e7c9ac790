"""Plans of homes: the laws of their devices, the same to the bit in every batch, events."""

import numpy as np
from _home_cases import mixed_homes, starts, summer_day
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.market.consumer.plan import KINDS, plan_homes

HOMES = mixed_homes(24)
FORECAST = summer_day(HOMES)
START = starts(HOMES)
PLAN = plan_homes(HOMES, FORECAST, *START)


def planned(some):
    return plan_homes(HOMES.take(some), FORECAST.take(some), *(x[some] for x in START))


@settings(max_examples=8, deadline=None)
@given(some=st.lists(st.integers(0, 23), min_size=1, max_size=6, unique=True))
def test_a_plan_does_not_depend_on_the_other_homes(some):
    part = planned(some)
    for kind in KINDS:
        assert np.array_equal(part.p_kw[kind], PLAN.p_kw[kind][some])
        assert np.array_equal(part.delta_kw[kind], PLAN.delta_kw[kind][some])
    assert np.array_equal(part.objective, PLAN.objective[some])
