"""A clearing by bus agents over mail: the loop's bits, the central answer, the stopping rule."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from controllers.core.compliance import check_controller
from controllers.core.errors import ControllerError
from controllers.core.mail import Mail
from controllers.core.mail_loop import MailLoop, Post
from controllers.core.protocol import ControlSite
from controllers.core.sample_site import sample_feeder
from controllers.market.agents.bus_rules import diameter
from controllers.market.agents.operator import COMMIT, FAILED, SOLVED, TRIAL, weights_message
from controllers.market.agents.primary import PrimaryMarket
from controllers.market.agents.reweighing import Weights
from controllers.market.clearing import CLEARINGS, clearing_class
from controllers.market.model.participants import aggregate
from controllers.market.solvers.atoms import Atoms
from controllers.market.solvers.distributed import exchanged
from controllers.market.solvers.iteration import Iteration, Plan
from controllers.market.solvers.sweeps import Sweeps
from grid_models.feeder.model import Der

DISTRIBUTED = tuple(x for x in CLEARINGS if issubclass(clearing_class(x), Iteration))
ROUNDS = 20
OPTIONS: dict[str, Any] = {
    "interval_s": 6.0,
    "generator_cost": {"*": 72.0, "gen_b3": 100.0},
    "load_cost": [150.0, 400.0],
    "silent_after_s": 4.0,
    "mail_rounds": ROUNDS,
}
BAD = Post(loss=0.2, max_delay_steps=3, seed=2)


def site(**changed: Any) -> ControlSite:
    """Return the five-bus site with two generators and two flexible loads."""
    ders = (
        Der("gen_b1", "inverter", "b1", (1, 2, 3), 110.0, 100.0),
        Der("gen_b3", "inverter", "b3", (1, 2, 3), 220.0, 200.0),
        Der("load_b3", "flexible_load", "b3", (1, 2, 3), 70.0, -40.0, -60.0),
        Der("load_b4", "flexible_load", "b4", (2,), 110.0, -50.0, -100.0),
    )
    feeder = replace(sample_feeder(), ders=ders)
    return ControlSite(feeder, ders, 1.0 / ROUNDS, **{"seed": 3, **changed})


def markets(clearing: str, parts: int = 1, **options: Any) -> list[PrimaryMarket]:
    """Return the agents of a market in some instances."""
    given = {**OPTIONS, "clearing": clearing, **options}
    names = PrimaryMarket.agents(site(), **given)
    shares = np.array_split(np.array(names, dtype=object), parts)
    return [PrimaryMarket(site(), tuple(map(str, share)), **given) for share in shares]


def run(hosts: list[PrimaryMarket], market_steps: float, post: Post | None = None) -> None:
    """Step the instances, with meters that show nothing."""
    loop = MailLoop(hosts, post, period_s=1.0 / ROUNDS)
    for _ in range(round(market_steps * ROUNDS)):
        loop.step()


def operator_of(hosts: list[PrimaryMarket]) -> Any:
    """Return the operator, whoever hosts it."""
    return next(h._operator for h in hosts if h._operator is not None)


def central_schedule() -> Any:
    """Return what the central operator clears."""
    given = OPTIONS | {"mail_rounds": 1}
    central = PrimaryMarket(replace(site(), period_s=1.0), PrimaryMarket.agents(site()), **given)
    loop = MailLoop([central])
    for _ in range(6):
        loop.step()
    return operator_of([central]).schedule


@pytest.mark.parametrize("clearing", DISTRIBUTED)
def test_the_buses_agree_on_the_central_schedule(clearing: str) -> None:
    hosts = markets(clearing)
    run(hosts, 12)
    found, best = operator_of(hosts).schedule, central_schedule()
    # Within the stopping rule's tolerances: 0.5 kW of a balance, 0.1 % of the price.
    assert found.p_import == pytest.approx(best.p_import, abs=5e-4)
    assert found.p_gen == pytest.approx(best.p_gen, abs=5e-4)
    assert found.p_load == pytest.approx(best.p_load, abs=5e-4)
    assert found.price_p == pytest.approx(best.price_p, rel=2e-3)
    counts = hosts[0].summary()
    assert counts["market_iterations_count"] > 0
    assert counts["market_messages_count"] > 0


@pytest.mark.parametrize("clearing", DISTRIBUTED)
def test_every_bit_is_the_loops_however_the_agents_are_hosted(clearing: str) -> None:
    # The loop: the same sweeps and iterations for all atoms at once, as many as the agents did.
    one = markets(clearing)[0]
    buses = one._buses
    assert buses is not None
    loop = MailLoop([one], period_s=1.0 / ROUNDS)
    while not (buses._done == 1).all():
        loop.step()
        assert loop.steps < 2000
    algorithm, problem = clearing_class(clearing), one._terms.problem(
        one._table.rows, aggregate(one._table)
    )  # fmt: skip
    atoms = Atoms.of(problem, algorithm.scales)
    sweeps, everyone = Sweeps(atoms), np.ones(atoms.m, dtype=bool)
    state = algorithm(atoms, Plan(atoms.norm(), problem.import_price, 3))
    sweeps.begin(everyone)
    first = 2 * buses._agreement.start_rounds
    for k in range(first):
        below, above = sweeps.up()[:, atoms.child], np.zeros((3, atoms.m))
        above[:, atoms.child] = sweeps.down()
        sweeps.advance(everyone, below, above)
        if k == first - 1:
            state.begin(everyone, *sweeps.start(), below)
    for k in range(int(buses._rounds[0]) - first):
        state.half(k % 2, everyone, *exchanged(state))
    assert state.found_x.tobytes() == buses._state.found_x.tobytes()
    assert state.found_y.tobytes() == buses._state.found_y.tobytes()
    # Three instances over links that lose and delay: the same result of every bus, only later.
    parts = markets(clearing, 3)
    loop, steps = MailLoop(parts, BAD, period_s=1.0 / ROUNDS), 0
    results: dict[str, bytes] = {}
    while len(results) < atoms.m:
        loop.step()
        steps += 1
        assert steps < 4000
        results |= {
            name: p._buses._results[i].tobytes()
            for p in parts if p._buses is not None
            for i, name in enumerate(p._buses.names) if p._buses._done[i] == 1
        }  # fmt: skip
    assert results == {n: buses._results[i].tobytes() for i, n in enumerate(buses.names)}
    assert steps > 2 * int(buses._rounds[0])


def test_nobody_stops_before_all_buses_were_within_the_tolerance_in_one_round() -> None:
    hosts = markets("pac-anchored", agreed_kw=0.05, agreed_price=1e-3, start_rounds=2)
    buses = hosts[0]._buses
    assert buses is not None
    loop = MailLoop(hosts, period_s=1.0 / ROUNDS)
    fine: list[bool] = []
    while not (buses._done == 1).any() and loop.steps < 2000:
        loop.step()
        fine.append(
            bool(((buses._state.error_kw <= 0.05) & (buses._state.error_price <= 1e-3)).all())
        )
    span = diameter(hosts[0]._terms.network)
    assert any(fine[:-span])
    assert (buses._done == 1).any()


def test_a_trial_changes_nothing_and_a_commit_of_it_needs_no_second_clearing() -> None:
    hosts = markets("pac")
    run(hosts, 8)
    operator = operator_of(hosts)
    before, n = operator.schedule, len(operator.table.buses)
    weights = Weights(np.full(n, 0.3), np.full(n, 0.3))
    loop = MailLoop(hosts, period_s=1.0 / ROUNDS)
    operator.take_weights(weights_message(1, TRIAL, weights))
    operator.take_weights(weights_message(1, TRIAL, weights))  # a repetition
    while operator.is_open:
        loop.step()
    assert operator._reply[0] == SOLVED
    assert operator._reply[1] < before.p_import
    assert operator.schedule is before
    clearings = operator.counts["clearings"]
    operator.take_weights(weights_message(2, COMMIT, weights))
    assert operator.counts["clearings"] == clearings
    assert operator.schedule.p_import == operator._reply[1]
    run(hosts, 2)
    awards = hosts[0]._smos._award
    assert awards[:, 1] == pytest.approx(operator.schedule.p_load)


def test_a_clearing_that_buses_do_not_end_is_given_up_and_the_schedule_stays() -> None:
    hosts = markets("pac")
    run(hosts, 8)
    operator, n = operator_of(hosts), 4
    before = operator.schedule
    loop = MailLoop(hosts, Post(loss=1.0), period_s=1.0 / ROUNDS)
    operator.take_weights(weights_message(1, TRIAL, Weights(np.full(n, 0.3), np.full(n, 0.3))))
    while operator.is_open and loop.steps < 1000:
        loop.step()
    assert operator._reply[0] == FAILED
    assert operator.schedule is before
    events = [e for e in hosts[0].take_events() if e["event"] == "clearing_failed"]
    assert "have not ended it" in events[0]["reason"]


def test_a_silent_smo_is_taken_to_go_on_as_told() -> None:
    hosts = markets("admm")
    run(hosts, 8)
    market, operator = hosts[0], operator_of(hosts)
    told = operator.schedule.p_gen.copy()
    silent = operator.table.buses.index("b3")
    step, width_of = market.step, np.array([one.width for one in market.links_in])
    key = f"smo_b3>{market._buses.names[market._buses._at[silent]]}:bid"
    link = next(i for i, one in enumerate(market.links_in) if one.key == key)

    def without(time_s, inputs, mail):
        keep = mail.link != link
        values = mail.values[np.repeat(keep, width_of[mail.link])]
        return step(time_s, inputs, Mail(mail.link[keep], mail.round[keep], values))

    market.step = without  # type: ignore[method-assign]
    n = len(told)
    run(hosts, 8)
    operator.take_weights(weights_message(1, COMMIT, Weights(np.full(n, 0.1), np.full(n, 0.1))))
    run(hosts, 6)
    assert operator._answered == 1
    assert operator.schedule.p_gen[silent] == pytest.approx(told[silent])
    assert operator.schedule.p_gen.sum() > told.sum() + 0.01
    assert "smo_silent" in [e["event"] for e in market.take_events()]


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e200, 1e9])
def test_a_number_that_no_neighbour_can_mean_stops_nobody_and_is_told_once(value: float) -> None:
    hosts = markets("pac")
    market = hosts[0]
    step = market.step
    up = next(i for i, link in enumerate(market.links_in) if link.kind == "up")
    link = market.links_in[up]

    def read(time_s, inputs, mail):
        values, width = mail.values.copy(), np.array([x.width for x in market.links_in])[mail.link]
        start = np.cumsum(width) - width
        if 3.0 <= time_s < 3.2:
            values[start[mail.link == up]] = value
        return step(time_s, inputs, Mail(mail.link, mail.round, values))

    market.step = read  # type: ignore[method-assign]
    run(hosts, 12)
    best = central_schedule()
    assert operator_of(hosts).schedule.p_import == pytest.approx(best.p_import, abs=5e-4)
    told = [e for e in market.take_events() if e["event"] == "mail_refused"]
    assert told == [{"event": "mail_refused", "links": [f"{link.source}>{link.target}"]}]
    assert market.summary()["market_mail_refused_count"] >= 3


@pytest.mark.parametrize("clearing", ["pac", "admm"])
def test_it_follows_the_protocol_in_one_two_and_many_instances(clearing: str) -> None:
    check_controller(PrimaryMarket, site(), **OPTIONS, clearing=clearing)


def test_a_way_to_clear_that_is_none_is_refused_in_words() -> None:
    for options, match in (
        ({"clearing": "pack"}, "option 'clearing'.*no such clearing.*'pac'"),
        ({"clearing": "json:JSONDecoder"}, "cannot clear a market"),
        ({"clearing": "pac", "mail_rounds": 0}, "mail_rounds"),
        ({"clearing": "pac", "agreed_kw": 0.0}, "agreed_kw"),
        ({"clearing": "pac", "clearing_options": 3}, "option 'clearing_options'"),
        ({"clearing_options": {"tolerance": "x"}}, "'clearing_options'.*'x' is not accepted"),
        ({"clearing_options": {"tolerance": True}}, "a finite number"),
        ({"clearing": "pac", "clearing_options": {"private": 1}}, "true or false"),
        ({"clearing": "nst-pac", "clearing_options": {"inner_steps": 1.5}}, "a whole number"),
    ):
        with pytest.raises(ControllerError, match=match):
            PrimaryMarket.agents(site(), **options)  # type: ignore[arg-type]
    with pytest.raises(ControllerError, match="unknown option 'omega'"):
        markets("pac", clearing_options={"omega": 1.0})


class TwiceAnchored(clearing_class("pac-anchored")):  # type: ignore[misc]
    """Anybody's own algorithm: a subclass in a file of its own."""


def test_a_users_own_algorithm_needs_one_file() -> None:
    hosts = markets(f"{__name__}:TwiceAnchored")
    run(hosts, 8)
    assert operator_of(hosts).schedule is not None
