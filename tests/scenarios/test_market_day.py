"""The local market on the feeder full of devices: the same bytes in every placement and split."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.scenario

STEPS = 8
EVERY = "record.every=1"
LOSSY = "links=[{loss: 0.2}]"
PORTS = ("p_set_kw", "home_set_kw", "sma_set_kw", "resilience", "home_pays_money", "lmp_per_kwh")


@pytest.mark.parametrize(
    ("links", "split", "placement"),
    [((), "levels", "thread"), ((LOSSY,), "2", "process")],
    ids=["perfect", "lossy"],
)
def test_the_same_bits_however_it_is_split(
    ran, links: tuple[str, ...], split: str, placement: str
) -> None:
    whole = ran("market-day-ieee123", EVERY, *links, steps=STEPS, shared=True)
    key = f"federates.market.split={split}"
    other = ran("market-day-ieee123", EVERY, *links, key, placement=placement, steps=STEPS)
    for port in PORTS:
        assert other.by_label(port) == whole.by_label(port), port
    metrics = whole.result.metrics
    assert (metrics["mail_lost_count"] > 0.0) == bool(links)
    # No operator stops: every one clears every minute, and the primary market every fifth.
    assert metrics["market_secondary_clearings_count"] > 0.9 * 85 * (STEPS - 2)
    assert metrics["market_clearings_failed_count"] == 0.0
    assert metrics["lmp_mean_per_kwh"] > 0.0


def test_homes_do_what_they_were_awarded(ran) -> None:
    run = ran("market-day-ieee123", EVERY, steps=STEPS, shared=True)
    asked, bid, metered = (
        run.values(f"market.home_{what}_kw") for what in ("set", "bid", "metered")
    )
    moved = np.abs(asked[-2] - bid[-2]) > 0.05
    assert moved.sum() > 40
    # The median, since some homes have water heaters, which switch as they like.
    off_award = np.median(np.abs(metered[-1] - asked[-2])[moved])
    assert off_award < 0.5 * np.median(np.abs(metered[-1] - bid[-2])[moved])
