"""The local market: books, hosting, poor mail; homes on IEEE 13, without a federation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.core.compliance import check_controller
from controllers.core.errors import ControllerError
from controllers.core.mail_loop import MailLoop, Post
from controllers.core.protocol import ControlSite
from controllers.market.agents.local.controller import LocalMarket
from controllers.market.agents.local.smo import SMO_AWARD_FIELDS
from controllers.market.agents.local.table import agents_of, local_table
from grid_models.catalog import load_feeder
from grid_models.ders.plant import DerFleet
from grid_models.ders.rules import DerRule, place
from grid_models.feeder.model import Feeder, VehicleUse
from grid_models.profiles.table import Profiles

ROUNDS = 4
OPTIONS: dict[str, Any] = {
    "interval_s": 60.0,
    "primary_interval_s": 120.0,
    "price_slope": 0.04,
    "mail_rounds": ROUNDS,
    "homes_per_agent": 2,
    "fixed_load_pu": 0.2,
}


@cache
def feeder() -> Feeder:
    made = load_feeder("ieee13")
    for rule in (
        DerRule(kind="house", at="load_phases", kw=6.0),
        DerRule(kind="pv", at="load_phases", fraction=0.5, kw=4.0),
        DerRule(kind="battery", at="load_phases", fraction=0.4, kw=3.0),
        DerRule(kind="vehicle", at="houses", fraction=0.3, kw=5.0),
    ):
        made = made.with_ders([*made.ders, *place(made, rule)])
    return made


def site(price: float | None = None, start_s: float = 54000.0) -> ControlSite:
    day = Profiles.generate("clear", 3, 60, 2 * 86400)
    if price is not None:
        columns = {name: day[name] for name in ("time_s", *day.names)}
        day = Profiles(columns | {"price_per_kwh": np.full(len(day), price)})
    return ControlSite(feeder(), (), 60.0 / ROUNDS, seed=5, start_s=start_s, outlook=lambda: day)


class Plant:
    """The homes' devices, which follow the set-points of the market."""

    def __init__(self, of: ControlSite) -> None:
        self.fleet = DerFleet(of.feeder.ders, seed=of.seed, heat_pumps="variable_speed")
        self._site = of
        names = [der.name for der in of.feeder.ders]
        self._place = {name: i for i, name in enumerate(names)}
        self.p_kw = np.zeros(len(names))
        self._p_set = np.full(len(names), np.nan)
        self._done = -1

    def measure(self, port: Any, k: int) -> Any:
        if k // ROUNDS > self._done:
            self._done = k // ROUNDS
            time_s = 60.0 * self._done
            now = {n: float(v[0]) for n, v in self._site.forecast(np.array([time_s])).items()}
            self.p_kw, _ = self.fleet.step(
                60.0, now["irradiance_pu"], now["temp_c"], self._p_set,
                load_pu=now["load_pu"], time_s=self._site.start_s + time_s,
            )  # fmt: skip
        values = {
            "p_kw": dict(zip(self._place, self.p_kw, strict=True)),
            "temp_c": dict(zip(self.fleet.house_names, self.fleet.temp_c, strict=True)),
            "soc_kwh": dict(zip(self.fleet.storage_names, self.fleet.soc_kwh, strict=True)),
        }[port.name]
        return np.array([values[label] for label in port.labels])

    def follow(self, outputs: dict[tuple[str, str], float]) -> None:
        for (port, label), value in outputs.items():
            if port == "p_set_kw":
                self._p_set[self._place[label]] = value


def played(
    of: ControlSite,
    minutes: int,
    parts: int | str = 1,
    post: Post | None = None,
    **changes: Any,
) -> tuple[list[LocalMarket], list[dict[tuple[str, str], float]]]:
    """Run the market for some minutes; return its instances and the outputs of each minute."""
    options = OPTIONS | changes
    agents = LocalMarket.agents(of, **options)
    if parts == "levels":
        found = dict.fromkeys(map(LocalMarket.level_of, agents))
        groups: list[Sequence[str]] = [
            [a for a in agents if LocalMarket.level_of(a) == level] for level in found
        ]
    else:
        edges = np.linspace(0, len(agents), int(parts) + 1).astype(int)
        groups = [agents[a:b] for a, b in pairwise(edges)]
    hosts = [LocalMarket(of, group, **options) for group in groups]
    plant = Plant(of)
    loop = MailLoop(hosts, post, plant.measure, of.period_s)
    told = []
    for k in range(minutes * ROUNDS):
        done = loop.step()
        if k % ROUNDS == 0:
            told.append(loop.outputs(done))
            plant.follow(told[-1])
    return hosts, told


def total(outputs: dict[tuple[str, str], float], port: str) -> float:
    return sum(value for (name, _), value in outputs.items() if name == port)


def assert_books_balance(hosts: Sequence[LocalMarket]) -> None:
    for host in hosts:
        for group in (host._smos, host._smas):
            divided = np.zeros(group.n, dtype=np.int64)
            np.add.at(divided, group.owner, group.bills.divided)
            divided += getattr(group, "fixed_bill", 0)
            np.testing.assert_array_equal(divided, group.bills.received)


@pytest.mark.parametrize("levels", ["hierarchy", "primary", "none"])
def test_every_level_pays_what_it_was_billed_to_the_unit(levels: str) -> None:
    hosts, told = played(site(), 8, levels=levels)
    assert_books_balance(hosts)
    billed = [total(minute, "smo_pays_money") for minute in told]
    agents = total(told[-1], "sma_pays_money") + total(told[-1], "fixed_pays_money")
    homes = total(told[-1], "home_pays_money")
    assert abs(billed[-1]) > 0.01
    # A bill takes some rounds of mail down: it is one that was told not long before.
    assert min(abs(agents - money) for money in billed[-4:]) < 1e-9
    paid = [total(minute, "sma_pays_money") for minute in told]
    assert min(abs(homes - money) for money in paid[-4:]) < 1e-9
    counts = hosts[0].summary()
    assert counts["lmp_mean_per_kwh"] > 0.0
    assert counts["market_clearings_failed_count"] == 0.0


@pytest.mark.parametrize("levels", ["hierarchy", "primary"])
def test_results_do_not_depend_on_who_hosts_the_agents(levels: str) -> None:
    post = Post(loss=0.2, max_delay_steps=2, duplication=0.1, seed=4)
    _, whole = played(site(), 6, 1, post, levels=levels)
    for parts in (3, "levels"):
        _, split = played(site(), 6, parts, post, levels=levels)
        assert split == whole


@settings(max_examples=4, deadline=None)
@given(loss=st.floats(0.0, 0.5), delay=st.integers(0, 5), seed=st.integers(0, 99))
def test_poor_mail_stops_nobody_and_loses_no_money(loss: float, delay: int, seed: int) -> None:
    post = Post(loss=loss, max_delay_steps=delay, duplication=0.2, seed=seed)
    hosts, told = played(site(), 6, 2, post)
    assert_books_balance(hosts)
    assert all(np.isfinite(list(minute.values())).all() for minute in told)
    above, below = (total(told[-1], f"{who}_pays_money") for who in ("smo", "home"))
    assert below <= above + 1e-9


@pytest.mark.parametrize(
    ("kind", "value", "event"),
    [
        ("offer", 1e6, "offer_implausible"),
        ("bid", 1e6, "offer_implausible"),
        ("smo_bid", 1e9, "bid_not_finite"),
        ("smo_award", 1e15, "award_refused"),
        ("smo_award", np.nan, "award_refused"),
        ("schedule", 1e12, "schedule_refused"),
        ("award", 1e300, "award_refused"),
        ("billed", 2.0**51, None),  # the next message makes it good
        ("billed", -(2.0**52), "award_refused"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_forged_mail_is_told_and_stops_nobody(
    kind: str, value: float, event: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    post, first = LocalMarket._post, 1
    if kind == "billed":
        kind, first = "smo_award", SMO_AWARD_FIELDS.index("billed")

    def forged(self: LocalMarket, of: str, j: int, rows: Any, who: Any = None) -> Any:
        if of == kind and 8 <= j < 16:
            rows = np.array(rows)
            rows[::2, first:] = value
        return post(self, of, j, rows, who)

    monkeypatch.setattr(LocalMarket, "_post", forged)
    hosts, told = played(site(), 8)
    events = [e["event"] for host in hosts for e in host.take_events()]
    assert event is None or event in events
    assert "clearing_failed" not in events
    assert_books_balance(hosts)
    assert all(np.isfinite(list(minute.values())).all() for minute in told)
    monkeypatch.setattr(LocalMarket, "_post", post)
    _, clean = played(site(), 8)
    billed = total(clean[-1], "smo_pays_money")
    assert total(told[-1], "smo_pays_money") == pytest.approx(billed, rel=0.02)


def test_what_was_asked_beyond_the_range_is_forgotten_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    post = LocalMarket._post

    def forged(self: LocalMarket, of: str, j: int, rows: Any, who: Any = None) -> Any:
        if of == "award" and 8 <= j < 12:
            rows = np.array(rows)
            rows[:, 1] = 40.0  # below ten times the rating
        return post(self, of, j, rows, who)

    _, clean = played(site(), 8, response_s=120.0)
    monkeypatch.setattr(LocalMarket, "_post", forged)
    _, told = played(site(), 8, response_s=120.0)
    off = [abs(total(told[k], "p_set_kw") - total(clean[k], "p_set_kw")) for k in (3, 7)]
    assert off[1] < 0.2 * off[0]


def test_homes_follow_their_awards() -> None:
    _, told = played(site(), 10)
    last, before = told[-1], told[-2]
    homes = [label for port, label in last if port == "home_set_kw"]
    asked, bid = (
        np.array([before[f"home_{what}_kw", home] for home in homes]) for what in ("set", "bid")
    )
    metered = np.array([last["home_metered_kw", home] for home in homes])
    moved = np.abs(asked - bid) > 0.03
    assert moved.sum() >= 3
    assert np.abs(metered - asked)[moved].sum() < 0.6 * np.abs(metered - bid)[moved].sum()


def test_agents_that_do_not_follow_lose_their_commitment() -> None:
    table = local_table(feeder(), 2, 0.2)
    liar = table.home_agent[table.home_names.index("home_646_2")]
    homes = [
        n for n, agent in zip(table.home_names, table.home_agent, strict=True) if agent == liar
    ]
    _, honest = played(site(), 12, memory=6.0)
    _, told = played(site(), 12, memory=6.0, unfaithful=dict.fromkeys(homes, 0.0))
    name = table.agent_names[liar]
    for minutes in (honest, told):  # trust is of mail, which comes from either
        assert minutes[-1]["trustability", name] > 0.85
    lost = honest[-1]["resilience", name] - told[-1]["resilience", name]
    assert lost > 0.05


@pytest.mark.parametrize("price", [-0.2, 0.0, 2.0])
@pytest.mark.parametrize("policy", ["allow", "floor"])
def test_any_price_clears(price: float, policy: str) -> None:
    hosts, told = played(site(price), 5, negative_prices=policy, price_slope=0.0)
    assert_books_balance(hosts)
    assert np.isfinite(list(told[-1].values())).all()
    prices = [v for (port, _), v in told[-1].items() if port == "lmp_per_kwh"]
    assert np.sign(np.round(np.mean(prices), 3)) == np.sign(price)
    if price >= 0.0:  # below, losses earn money, and the relaxation is not exact: an event says so
        assert np.mean(prices) == pytest.approx(price, abs=0.1 * price + 0.005)


def test_prices_of_a_change_are_counted_from_the_bus_price_that_plans_answer_to() -> None:
    _, told = played(site(), 8)
    last, table = told[-1], local_table(feeder(), 2, 0.2)
    agents = table.home_agent.tolist()
    moved = 0
    for home, smo in zip(table.home_names, table.agent_smo[agents].tolist(), strict=True):
        change = last["home_set_kw", home] - last["home_bid_kw", home]
        gain = last["home_price_per_kwh", home] + last["home_flex_price_per_kwh", home]
        gain -= last["lmp_per_kwh", table.names[smo]]
        assert abs(gain) <= 2.0 * 0.4 + 0.01  # option home_cost, which is that of half the range
        if abs(change) > 0.01:
            moved += 1
            assert np.sign(gain) == np.sign(change)
    assert moved > 3


def test_the_tariff_of_an_operator_that_only_generates_is_its_bus_price() -> None:
    _, told = played(site(start_s=43200.0), 6, fixed_load_pu=0.0, homes_per_agent=1)
    sets = {a: v for (port, a), v in told[-2].items() if port == "sma_set_kw"}
    generates = {
        smo for smo in local_table(feeder(), 1, 0.0).names
        if all(v > 0.0 for a, v in sets.items() if a.startswith(f"sma_{smo[4:]}_"))
    }  # fmt: skip
    for smo in sorted(generates):
        tariff, price = (told[-1][f"{x}_per_kwh", smo] for x in ("tariff", "lmp"))
        assert tariff == pytest.approx(price, rel=0.3)
    assert generates


def test_an_operator_has_three_to_twelve_agents_as_far_as_it_has_homes() -> None:
    assert [agents_of(k, 4) for k in (1, 2, 3, 6, 12, 30, 70)] == [1, 2, 3, 3, 3, 8, 12]


def test_a_feeder_without_homes_and_a_home_of_another_name_are_refused() -> None:
    empty = ControlSite(load_feeder("ieee13"), (), 15.0)
    with pytest.raises(ControllerError, match="no home takes part"):
        LocalMarket.agents(empty)
    with pytest.raises(ControllerError, match=r"unfaithful.*did you mean 'home_"):
        played(site(), 1, unfaithful={"home_671_": 0.5})
    with pytest.raises(ControllerError, match="at least 4 times"):
        LocalMarket(site(), LocalMarket.agents(site(), **OPTIONS), **OPTIONS | {"interval_s": 30.0})


@pytest.mark.parametrize(
    ("options", "what"),
    [
        # meters are read every 60 s
        ({"interval_s": 90.0, "primary_interval_s": 270.0}, "interval_s: is 90 s.*period_s of 60"),
        ({"mail_rounds": 8}, "interval_s: is 60 s.*period_s of 120"),
        ({"primary_interval_s": 90.0}, "primary_interval_s: is 90 s with interval_s of 60"),
    ],
)
def test_periods_that_do_not_fit_are_refused(options: dict[str, Any], what: str) -> None:
    with pytest.raises(ControllerError, match=what):
        LocalMarket(site(), LocalMarket.agents(site(), **OPTIONS), **OPTIONS | options)


@pytest.mark.parametrize("flexibility", [(0.0, 0.0), (0.01, 0.03), (0.05, 0.05), (1.0, 1.0)])
def test_any_flexibility_makes_a_plan(flexibility: tuple[float, float]) -> None:
    hosts, told = played(site(), 3, flexibility=flexibility)
    assert not [e for host in hosts for e in host.take_events() if e["event"] == "home_plan_solver"]
    room = total(told[-1], "sma_bid_max_kw") - total(told[-1], "sma_bid_min_kw")
    assert (room > 0.0) == (flexibility[1] > 0.0)


def test_two_vehicles_of_a_home_leave_when_the_first_does() -> None:
    house = next(der for der in feeder().ders if der.kind == "house")
    car = next(der for der in feeder().ders if der.kind == "vehicle")
    cars = [
        replace(car, name=f"car_{k}", bus=house.bus, phases=house.phases,
                vehicle=VehicleUse(leave_h=8.0 + k, return_h=17.0, trip_kwh=4.0, soc_target=0.6))
        for k in range(2)
    ]  # fmt: skip
    small = replace(site(), feeder=feeder().with_ders([house, *cars]))
    (host,) = played(small, 1)[0]
    trips = host._homes.devices.day.homes.trips
    assert (trips.leave_h[0], trips.trip_kwh[0], trips.target_soc[0]) == (8.0, 8.0, 0.6)


@pytest.mark.parametrize("levels", ["primary", "none"])
def test_without_plans_vehicles_charge_when_they_are_home(levels: str) -> None:
    house = next(der for der in feeder().ders if der.kind == "house")
    car = next(der for der in feeder().ders if der.kind == "vehicle")
    use = VehicleUse(leave_h=8.0, return_h=17.0, soc_start=0.3)
    car = replace(car, bus=house.bus, phases=house.phases, vehicle=use)
    small = replace(site(start_s=70000.0), feeder=feeder().with_ders([house, car]))
    (host,), told = played(small, 4, levels=levels)
    assert ("p_set_kw", car.name) not in told[-1]
    home = host._homes.names[0]
    for what in ("metered", "bid"):
        assert told[-1][f"home_{what}_kw", home] < car.p_min_kw


def test_it_is_a_controller() -> None:
    few = [der for der in feeder().ders if der.bus in ("634", "671")]
    small = replace(site(), feeder=feeder().with_ders(few))
    check_controller(LocalMarket, small, **OPTIONS | {"levels": "primary"})
