"""Integer time: exact where floating point is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federates.clock import Timing, to_ns, to_s

YEAR_NS = 366 * 86_400 * 1_000_000_000


@given(st.integers(0, YEAR_NS // 10))
def test_seconds_and_back_is_exact(ns: int) -> None:
    # 36 days in ns is below 2**53, so the double nearest to the seconds finds its way back.
    assert to_ns(to_s(ns)) == ns


def test_tenths_do_not_drift() -> None:
    tenth = Timing(to_ns(0.1))
    times = [to_s(tenth.offset_ns + k * tenth.period_ns) for k in range(1_000_000)]
    assert times[999_999] == 99_999.9
    assert sum([0.1] * 999_999) != 99_999.9  # what adding up would have given


@given(
    period=st.integers(1, 1000),
    offset=st.integers(0, 3000),
    horizon=st.integers(0, 5000),
)
def test_steps_before_counts_the_steps(period: int, offset: int, horizon: int) -> None:
    steps = [t for t in range(offset, horizon, period) if t < horizon]
    assert Timing(period, offset).steps_before(horizon) == len(steps)


@pytest.mark.parametrize(
    ("period", "offset", "horizon", "steps"),
    [(10, 0, 100, 10), (10, 5, 100, 10), (10, 0, 101, 11), (10, 100, 100, 0), (10, 0, 0, 0)],
)
def test_the_horizon_itself_is_not_a_step(
    period: int, offset: int, horizon: int, steps: int
) -> None:
    assert Timing(period, offset).steps_before(horizon) == steps
