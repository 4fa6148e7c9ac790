"""A local market on a run's page: who paid whom, messages per level, and one home's plan."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from controllers.core.mail import FloatArray
from federates.core.signals import read_signal
from federates.reports.blocks import Block, PageSection, TableBlock, Text
from federates.reports.chart import in_rows
from federates.reports.local_market import (
    POWER,
    PRICE,
    LocalMarket,
    Recorded,
    curve,
    single,
    without_outliers,
)
from federates.runs.data import RunData, Spread
from grid_models.ders.homes import homes_of
from grid_models.feeder.model import Der, Feeder

_PAYS = {
    "smo_pays_money": ("SMOs", "the primary operator"),
    "sma_pays_money": ("secondary agents", "their SMOs"),
    "home_pays_money": ("homes", "their secondary agents"),
}
_ACCOUNT = "account_money"
_PARTS = {
    "import_cost": "of it for the import",
    "surplus": "of it the primary operator keeps, for losses and limits",
}
_HOME = {
    "home_metered_kw": ("metered", "s4"),
    "home_set_kw": ("set-point", "s2"),
    "home_bid_kw": ("bid", "s3"),
    "home_plan_kw": ("plan", "s1"),
}
"""From the back to the front: what is metered varies most and would hide the others."""
_HOME_PRICES = {
    "home_price_per_kwh": ("price of energy", "s1"),
    "home_flex_price_per_kwh": ("price of flexibility", "s2"),
}
_KINDS = {
    "house": ("house", "s1"),
    "pv": ("PV", "s2"),
    "battery": ("battery", "s3"),
    "vehicle": ("vehicle", "s4"),
    "flexible_load": ("water heater", "phase-other"),
}
_MESSAGES = re.compile(r"(?:.*\.)?(?:market_)?messages_(\w+)_count")
_LINKS = {
    "offer": "offers: homes to secondary agents",
    "award": "awards: secondary agents to homes",
    "bid": "bids: secondary agents to SMOs",
    "schedule": "schedules: SMOs to secondary agents",
    "smo_bid": "bids: SMOs to the primary operator",
    "smo_award": "awards: the primary operator to SMOs",
}


def account_section(market: LocalMarket) -> PageSection:
    """Show who paid whom at each level until the end of the run, and what is in transit."""
    found = market.read_all(*_PAYS, _ACCOUNT)
    paid = {port: np.nan_to_num(found[port].values[-1]) for port in _PAYS if port in found}
    blocks: list[Block] = []
    if paid:
        head = ("Who", "pays whom", "Payers", "They pay", "Are paid", "They receive", "Net")
        flows = [_flow(port, money) for port, money in paid.items()]
        blocks.append(TableBlock(head, flows, range(2, 7)))
        rows = list(_balance({port: money.sum() for port, money in paid.items()}))
        if account := found.get(_ACCOUNT):
            last = zip(account.labels, account.values[-1].tolist(), strict=True)
            rows += [(_PARTS[key], f"{money:,.2f}") for key, money in last if key in _PARTS]
        blocks.append(TableBlock(("From the homes up", "Money"), rows, (1,)))
    blocks += [*_uplift(market), *market.lacks(found, (*_PAYS, _ACCOUNT))]
    return PageSection("Local market: who paid whom", blocks)


def _flow(port: str, money: FloatArray) -> tuple[str, ...]:
    """Return a row: how many pay and are paid, and how much."""
    pays, gets = money[money > 0.0], -money[money < 0.0]
    given, taken, net = (f"{x:,.2f}" for x in (pays.sum(), gets.sum(), money.sum()))
    return (*_PAYS[port], str(len(pays)), given, str(len(gets)), taken, net)


def _balance(net: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    """Yield how what homes have paid adds up to what the operator was paid."""
    below, last = "", 0.0
    for port, (who, whom) in reversed(_PAYS.items()):
        if port not in net:
            continue
        if below:
            yield f"+ billed to {who}, not to {below} yet", f"{net[port] - last:,.2f}"
        yield f"{'= ' if below else ''}{who} pay {whom}", f"{net[port]:,.2f}"
        below, last = who, net[port]


def _uplift(market: LocalMarket) -> Iterator[Text]:
    """Say what the price cap left uncovered."""
    found = market.read("uplift_money")
    uplift = 0.0 if found is None else float(np.nan_to_num(found.values[-1]).sum())
    if uplift > 0.0:
        yield Text(
            "Uplift: within the price cap of the secondary market SMOs pay out "
            f"{uplift:,.2f} money more than they receive."
        )


def message_section(market: LocalMarket) -> PageSection:
    """Show how many messages each level sent."""
    run = market.run
    found = {
        m[1]: value
        for key, value in run.metrics.items()
        if value and (m := _MESSAGES.fullmatch(key))
    }
    if not found:
        return PageSection("", [])
    minutes = (run.summary.get("steps") or 0) * float(run.scenario["time"]["step_s"]) / 60.0
    rows = [
        (
            _LINKS.get(kind, kind.replace("_", " ")),
            f"{count:,.0f}",
            f"{count / minutes:,.1f}" if minutes else "-",
        )
        for kind, count in found.items()
    ]
    total = sum(found.values())
    rows.append(("all", f"{total:,.0f}", f"{total / minutes:,.1f}" if minutes else "-"))
    head = ("Messages", "Sent", "per minute")
    return PageSection("Local market: messages", [TableBlock(head, rows, (1, 2))])


def home_section(market: LocalMarket, feeder: Feeder | None) -> PageSection:
    """Show the home with most devices: what it planned, bid, was told and did."""
    found = market.read_all(*_HOME, *_HOME_PRICES)
    labels = next((f.labels for port, f in found.items() if port in _HOME), ())
    if not labels:
        return PageSection("", [])
    home, devices = _richest(labels, feeder)
    names = [der.name for der in devices]
    curves = {
        port: curve(words, f.of(lambda label: label == home).total(), style)
        for port, (words, style) in {**_HOME, **_HOME_PRICES}.items()
        if (f := found.get(port)) is not None
    }
    power = [curves[port] for port in _HOME if port in curves]
    prices = [without_outliers(curves[port]) for port in _HOME_PRICES if port in curves]
    kind_of = {der.name: _KINDS[der.kind] for der in devices}
    metered = [
        curve(kind_of[name][0], spread, kind_of[name][1])
        for name, spread in _of_plants(market.run, "p_kw", names)
    ]
    inside = [
        curve("inside", spread, "s1") for _, spread in _of_plants(market.run, "temp_c", names)
    ]
    charts = [
        market.chart(title, y_title, bands)
        for title, y_title, bands in (
            ("Plan, bid, set-point and response", POWER, power),
            ("Its devices, metered", POWER, metered),
            ("Its prices", PRICE, prices),
            ("Temperature inside", "Temperature, °C", inside),
        )
        if bands
    ]
    text = f"{home}: {', '.join(_KINDS[d.kind][0] for d in devices)}." if devices else f"{home}."
    missing = market.lacks(found, (*_HOME, *_HOME_PRICES))
    return PageSection(
        "Local market: a home's plan and what it did", [Text(text), in_rows(charts, 2), *missing]
    )


def _of_plants(run: RunData, port: str, names: Sequence[str]) -> Iterator[tuple[str, Spread]]:
    """Yield the values of devices as their feeder measured them."""
    for plant in run.plants:
        signal = f"{plant.name}.{port}"
        if run.has(signal):
            found = Recorded(*read_signal(run.signals, signal)).of(lambda label: label in names)
            for k, label in enumerate(found.labels):
                yield label, single(found.time_s, found.values[:, k])


def _richest(labels: Sequence[str], feeder: Feeder | None) -> tuple[str, list[Der]]:
    """Return the first home with most devices, and these; the first one where none is known."""
    if feeder is None:
        return labels[0], []
    table = homes_of(feeder.ders)
    place = {name: k for k, name in enumerate(table.names)}
    count = np.bincount(table.home[table.home >= 0], minlength=len(table.names))
    known = {
        label: place[name]
        for label in labels
        for name in (label.removeprefix("home_"), label.replace("home_", "house_", 1))
        if name in place
    }
    if not known:
        return labels[0], []
    home = max(known, key=lambda label: count[known[label]])
    return home, [d for d, k in zip(feeder.ders, table.home, strict=True) if k == known[home]]
