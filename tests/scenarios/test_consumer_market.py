"""The consumer market of the slides in the federation: three homes follow what was requested."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.scenario

STEPS, N = 25, 6
SHORT = "federates.market.options.horizon=6"
LOSSY = "links=[{loss: 0.2}]"
PORTS = ("p_set_kw", "device_plan_kw", "home_set_kw", "home_pays_money", "mu_per_kwh")


def test_what_was_requested_is_delivered(ran) -> None:
    run = ran("consumer-market", SHORT, steps=STEPS, shared=True)
    delivered = run.values("feeder.p_kw").sum(axis=1)
    request, short = (run.values(f"market.{x}_kw")[:, 0] for x in ("request", "short"))
    baseline, least = (run.values(f"market.{x}_kw")[:, 0] for x in ("baseline", "offered_min"))
    sets = run.values("market.home_set_kw").sum(axis=1)
    assert not short.any()
    assert run.result.metrics["consumer_bids_missing_count"] == 0.0
    for begin in range(N, STEPS - N + 1, N):  # set one step before it acts
        now = slice(begin - 1, begin + N - 1)
        assert np.ptp(request[now]) == 0.0
        assert (least[now] < baseline[now]).all()
        assert sets[now] == pytest.approx(request[now], abs=1e-9)
        # The mean over the interval: what is not planned varies inside it.
        assert delivered[begin : begin + N].mean() == pytest.approx(request[begin], abs=0.1)
    pays = [run.values(f"market.{x}_money")[-1] for x in ("home_pays", "uplift", "cmo_pays")]
    assert pays[0].sum() + pays[1].sum() == pytest.approx(pays[2].sum(), abs=1e-9)
    assert pays[2] > 0.0


@pytest.mark.parametrize(
    ("links", "split", "placement"),
    [((), "agents", "thread"), ((LOSSY,), "levels", "process")],
    ids=["perfect", "lossy"],
)
def test_the_same_bits_however_it_is_split(
    ran, links: tuple[str, ...], split: str, placement: str
) -> None:
    whole = ran("consumer-market", SHORT, *links, steps=STEPS, shared=True)
    key = f"federates.market.split={split}"
    other = ran("consumer-market", SHORT, *links, key, placement=placement, steps=STEPS)
    for port in PORTS:
        assert other.by_label(port) == whole.by_label(port), port
    assert (whole.result.metrics["mail_lost_count"] > 0.0) == bool(links)
    assert whole.result.metrics["consumer_clearings_count"] == 4.0
