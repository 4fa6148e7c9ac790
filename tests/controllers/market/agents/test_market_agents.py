"""The market as agents: bids, awards, silence, faults of the operator, and the protocol's rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from controllers.core.compliance import check_controller
from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, Mail
from controllers.core.mail_loop import MailLoop, Post
from controllers.core.ports import Port
from controllers.core.protocol import ControlSite
from controllers.core.sample_site import sample_feeder
from controllers.market.agents.operator import COMMIT, FAILED, SOLVED, TRIAL, weights_message
from controllers.market.agents.primary import PrimaryMarket
from controllers.market.agents.reweighing import Weights
from controllers.market.model.participants import (
    BID_FIELDS,
    Costs,
    aggregate,
    bid_column,
    participants_of,
)
from grid_models.branch_flow.model import branch_network
from grid_models.feeder.model import Der

OPTIONS: dict[str, Any] = {
    "interval_s": 6.0,
    "generator_cost": {"*": 72.0, "gen_b3": 100.0},
    "load_cost": [150.0, 400.0],
    "silent_after_s": 4.0,
}


def market_site(**changed: float) -> ControlSite:
    """Return the five-bus site with two generators and two flexible loads."""
    ders = (
        Der("gen_b1", "inverter", "b1", (1, 2, 3), 110.0, 100.0),
        Der("gen_b3", "inverter", "b3", (1, 2, 3), 220.0, 200.0),
        Der("load_b3", "flexible_load", "b3", (1, 2, 3), 70.0, -40.0, -60.0),
        Der("load_b4", "flexible_load", "b4", (2,), 110.0, -50.0, -100.0),
    )
    feeder = replace(sample_feeder(), ders=ders)
    return ControlSite(feeder, ders, 1.0, **{"seed": 3, **changed})  # type: ignore[arg-type]


def as_told(market: PrimaryMarket) -> Callable[[Port, int], FloatArray]:
    """Return meters that show what the devices were told."""

    def measure(port: Port, step: int) -> FloatArray:
        if port.name == "p_kw":
            return market._smos.p_set_kw
        return np.ones(len(port.labels))

    return measure


def loop_of(market: PrimaryMarket, post: Post | None = None) -> MailLoop:
    return MailLoop([market], post or Post(), as_told(market), 1.0)


def whole(site: ControlSite | None = None, **options: Any) -> PrimaryMarket:
    site = site or market_site()
    return PrimaryMarket(site, PrimaryMarket.agents(site, **OPTIONS), **{**OPTIONS, **options})


def run(market: PrimaryMarket, steps: int, post: Post | None = None) -> None:
    loop = loop_of(market, post)
    for _ in range(steps):
        loop.step()


def test_market_follows_the_controller_protocol() -> None:
    check_controller(PrimaryMarket, market_site(), **OPTIONS)


def test_operator_and_every_node_with_load_or_resources_are_agents() -> None:
    agents = PrimaryMarket.agents(market_site(), **OPTIONS)
    assert agents == ("operator", "smo_b2", "smo_b3", "smo_b4", "smo_b1")


def test_aggregation_keeps_marginal_cost_at_the_end_of_the_range() -> None:
    site = market_site()
    network = branch_network(site.feeder)
    table = participants_of(
        site.feeder, site.ders, Costs({"*": 72.0}, (200.0, 200.0)), 0, network.row_of
    )
    bids = aggregate(table)
    b4 = table.buses.index("b4")
    # b4: 150 kW of the feeder's own and a flexible load of 100 kW that can give up 50.
    assert bids[b4, :4] == pytest.approx([0.25, 0.05 + 0.1 * np.tan(np.arccos(0.95)), 0.2, 0.25])
    assert 2.0 * bid_column(bids, "beta")[b4] * 0.05 == pytest.approx(200.0)
    b3 = table.buses.index("b3")
    assert bid_column(bids, "alpha_p")[b3] * 0.2 == pytest.approx(72.0)


def test_devices_go_where_the_market_sends_them() -> None:
    market = whole()
    run(market, 12)
    schedule = market._operator.schedule  # type: ignore[union-attr]
    assert schedule is not None
    p_kw = dict(zip(market.outputs[0].labels, market._smos.p_set_kw, strict=True))
    at = {bus: i for i, bus in enumerate(market._table.buses)}
    assert p_kw["gen_b1"] == pytest.approx(1000 * schedule.p_gen[at["b1"]])
    assert p_kw["load_b4"] == pytest.approx(-1000 * (schedule.p_load[at["b4"]] - 0.15))
    # Import at 60 per MWh and 72 at full output: about five sixths, losses make it a little more.
    assert 83.0 < p_kw["gen_b1"] < 88.0
    assert schedule.cone_gap_pu < 1e-6


def test_bids_follow_a_demand_that_is_told() -> None:
    market = whole(follow_demand=True)
    half = {"p_kw": np.zeros(4), "demand_pu": np.full(2, 0.5)}
    market.step(0.0, half, Mail.empty())
    bids = dict(zip(market._table.buses, bid_column(market._smos.bids(), "p_load0"), strict=True))
    assert bids["b4"] == pytest.approx(0.15 + 0.5 * 0.1)
    p_kw = dict(zip(market.outputs[0].labels, market._smos.p_set_kw, strict=True))
    assert p_kw["load_b4"] == pytest.approx(-50.0)


def test_an_award_is_in_force_gate_plus_one_steps_into_the_interval() -> None:
    market = whole(gate=2)
    loop = loop_of(market)
    at = market.outputs[0].labels.index("gen_b1")
    p_kw = [loop.step()[0].outputs["p_set_kw"][at] for _ in range(5)]
    assert [p > 0.0 for p in p_kw] == [False, False, False, True, True]


def test_devices_follow_with_their_response_time() -> None:
    market = whole(response_s=2.0)
    loop = loop_of(market)
    at = market.outputs[0].labels.index("gen_b1")
    p_kw = [loop.step()[0].outputs["p_set_kw"][at] for _ in range(24)]
    # A first-order lag: after one step 1 - exp(-1/2) of the way.
    assert p_kw[3] == pytest.approx((1.0 - np.exp(-0.5)) * p_kw[-1], rel=1e-3)


def test_imperfect_devices_err_anew_in_every_interval_but_stay_in_their_limits() -> None:
    market = whole(response_error=0.2)
    loop = loop_of(market)
    p_kw = np.array([loop.step()[0].outputs["p_set_kw"] for _ in range(60)])
    ders = [market._table.ders[i] for i in market._smos.ders]
    assert (p_kw <= [d.p_max_kw + 1e-9 for d in ders]).all()
    assert (p_kw >= [d.p_min_kw - 1e-9 for d in ders]).all()
    assert len(np.unique(np.round(p_kw[4:, 0], 6))) > 5


def test_an_unfaithful_operator_delivers_a_part_of_what_it_promised() -> None:
    honest, liar = whole(), whole(unfaithful={"b4": 0.25}, overstated={"b4": 1.5})
    for market in (honest, liar):
        run(market, 12)
    at = honest.outputs[0].labels.index("load_b4")
    promised = liar._operator.schedule.p_load[liar._table.buses.index("b4")]  # type: ignore[union-attr]
    assert liar._smos.p_set_kw[at] == pytest.approx(-100 + 0.25 * (250 - 1000 * promised))


def test_market_works_over_bad_links() -> None:
    good, bad = whole(), whole()
    run(good, 36)
    run(bad, 36, Post(loss=0.3, max_delay_steps=2, duplication=0.2, seed=5))
    assert bad._smos.p_set_kw == pytest.approx(good._smos.p_set_kw, abs=0.01)


# --- faults --------------------------------------------------------------------------------------


def bids_of(market: PrimaryMarket, interval: int) -> tuple[np.ndarray, FloatArray]:
    rows = aggregate(market._table)
    head = np.full((len(rows), 1), float(interval))
    return np.arange(len(rows)), np.hstack([head, rows])


def operating() -> tuple[PrimaryMarket, Any]:
    """Return a market whose operator has cleared interval 0, with its bids of interval 0."""
    market = whole()
    operator = market._operator
    assert operator is not None
    smo, rows = bids_of(market, 0)
    operator.take_bids(smo, rows, 0, 0)
    operator.clear_interval(0)
    assert operator.schedule is not None
    return market, operator


def kinds(operator: Any) -> list[str]:
    return [event["event"] for event in operator.events]


def test_bids_without_numbers_or_turned_round_leave_the_last_good_schedule() -> None:
    market, operator = operating()
    before = operator.schedule
    smo, rows = bids_of(market, 1)
    rows[0, 1:] = np.nan
    rows[1, 1 + BID_FIELDS.index("p_load_min")] = 9.0
    operator.take_bids(smo, rows, 1, 6)
    operator.clear_interval(1)
    assert kinds(operator) == ["bid_not_finite", "bid_contradictory"]
    assert operator.schedule.p_gen == pytest.approx(before.p_gen)


def test_a_bid_whose_interval_is_no_number_is_refused() -> None:
    market, operator = operating()
    smo, rows = bids_of(market, 1)
    rows[:, 0] = np.nan
    operator.take_bids(smo, rows, 1, 6)
    assert set(kinds(operator)) == {"bid_misdated"}


def test_silence_of_all_keeps_the_last_schedule_and_is_told_once() -> None:
    _, operator = operating()
    before = operator.schedule
    for interval, step in ((1, 20), (2, 26)):
        operator.note_silence(step)
        operator.clear_interval(interval)
    assert operator.schedule is before
    assert kinds(operator).count("all_smos_silent") == 1
    assert kinds(operator).count("smo_silent") == len(operator.table.buses)


def test_what_happens_to_several_operators_at_once_is_one_event() -> None:
    market, operator = operating()
    operator.note_silence(20)
    (told,) = market.take_events()
    assert told == {"event": "smo_silent", "smos": list(market._table.names)}
    assert market.take_events() == []


def test_a_silent_operator_is_taken_to_go_on_as_told_and_comes_back() -> None:
    market, operator = operating()
    told = operator.schedule.p_gen.copy()
    b3 = market._table.buses.index("b3")
    smo, rows = bids_of(market, 1)
    others = smo != b3
    operator.take_bids(smo[others], rows[others], 1, 6)
    assert operator.note_silence(6).nonzero()[0].tolist() == [b3]
    # Even with weights that would buy it all, the silent one is left as it was told.
    n = len(smo)
    operator.take_weights(weights_message(1, COMMIT, Weights(np.full(n, 0.1), np.full(n, 0.1))))
    assert operator.schedule.p_gen[b3] == pytest.approx(told[b3])
    assert operator.schedule.p_gen.sum() > told.sum() + 0.01
    operator.take_bids(smo, rows, 1, 7)
    operator.note_silence(7)
    assert kinds(operator) == ["smo_silent", "smo_back"]


def test_no_dispatch_keeps_the_last_schedule() -> None:
    market, operator = operating()
    before = operator.schedule
    smo, rows = bids_of(market, 1)
    # 50 MW that nothing can curtail: no voltage within the band carries them.
    for name in ("p_load0", "p_load_min", "p_load_max"):
        rows[0, 1 + BID_FIELDS.index(name)] = 50.0
    operator.take_bids(smo, rows, 1, 6)
    operator.clear_interval(1)
    assert kinds(operator) == ["clearing_failed"]
    assert operator.schedule is before
    smo, rows = bids_of(market, 2)
    operator.take_bids(smo, rows, 2, 12)
    operator.clear_interval(2)
    assert operator.schedule is not before
    assert operator.schedule.p_gen == pytest.approx(before.p_gen, abs=1e-6)


def test_a_trial_answers_and_changes_nothing_a_commit_does() -> None:
    _, operator = operating()
    before, n = operator.schedule, len(operator.table.buses)
    weights = Weights(np.full(n, 0.3), np.full(n, 0.3), 2.0)
    operator.take_weights(weights_message(1, TRIAL, weights))
    number, status, trial, committed = operator.answer()[:4]
    assert (number, status, committed) == (1.0, SOLVED, 0.0)
    assert trial < before.p_import
    assert operator.schedule is before
    for _ in range(2):  # the repetition of an order is no second order
        operator.take_weights(weights_message(2, COMMIT, weights))
    assert operator.schedule.p_import == pytest.approx(trial)
    assert operator.answer()[3] == 2.0
    assert operator.counts["trials"] == 2


def test_weights_that_are_none_are_refused() -> None:
    _, operator = operating()
    n = len(operator.table.buses)
    operator.take_weights(weights_message(1, COMMIT, Weights(np.zeros(n), np.ones(n))))
    operator.take_weights(weights_message(2, COMMIT, Weights(np.full(n, np.nan), np.ones(n))))
    assert kinds(operator) == ["weights_refused"]
    assert operator.answer()[0] == 0.0


def test_noise_does_not_make_a_bid_of_this_interval_late() -> None:
    market, operator = operating()
    for interval, told in ((1, 0.97), (2, 2.02)):
        smo, rows = bids_of(market, interval)
        rows[:, 0] = told
        operator.take_bids(smo, rows, interval, 6 * interval)
        assert operator.receiver.book.interval.tolist() == [interval] * len(smo)
    assert kinds(operator) == []


def test_a_trial_without_a_dispatch_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    _, operator = operating()

    def none(*_: object) -> None:
        raise ControllerError("no dispatch", where="test")

    monkeypatch.setattr(operator._scheduler, "clear", none)
    operator.take_weights(weights_message(1, TRIAL, Weights.neutral(len(operator.table.buses))))
    assert operator.answer()[1] == FAILED
    assert kinds(operator) == ["clearing_failed"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interval_s": 3.0}, "whole multiple"),
        ({"gate": 5}, "two steps before"),
        ({"generator_cost": {"gen_b9": 60.0}}, "gen_b9"),
        ({"generator_cost": {"gen_b1": 60.0}}, "gen_b3"),
        ({"unfaithful": {"b9": 0.5}}, "no market operator at bus 'b9'"),
        ({"unfaithful": {"b4": 1.5}}, "unfaithful.b4"),
        ({"load_cost": [4.0, 2.0]}, "low <= high"),
        ({"load_cost": 5.0}, "low <= high"),
        ({"generator_cost": [1.0]}, "a mapping"),
    ],
)
def test_options_that_cannot_work_are_refused_by_name(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ControllerError) as caught:
        whole(**options)
    assert message in str(caught.value)
