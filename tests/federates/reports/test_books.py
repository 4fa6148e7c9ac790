"""A market's books in a run: recorded per interval, balanced, and summed up on the page."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from federates.core.signals import read_signal
from federates.reports.blocks import Figures, TableBlock
from federates.reports.books import market_sections, settled_account
from federates.reports.paired import prices
from federates.runs.data import RunData
from federates.runs.runner import run
from federates.scenario.schema import load_scenario

PERIOD_S, PER_INTERVAL = 2.0, 30
ENDS = [29, 59, 89, 119]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("books") / "run"
    return run(load_scenario("attack-2b-ieee123"), out=out, steps=70, placement="single").folder


def test_every_interval_is_settled_and_its_books_balance(folder: Path) -> None:
    signals = folder / "signals"
    count = read_signal(signals, "market.settled_intervals")[2][:, 0]
    assert count.tolist() == [(k + 1) // PER_INTERVAL for k in range(len(count))]
    pays = read_signal(signals, "market.net_pays_money")[2]
    _, labels, account = read_signal(signals, "market.account_money")
    of = dict(zip(labels, account.T, strict=True))
    np.testing.assert_allclose(pays.sum(axis=1), of["import_cost"] + of["surplus"], atol=1e-9)
    planned = read_signal(signals, "market.scheduled_import_kw")[2][:, 0]
    mwh = planned[: 4 * PER_INTERVAL].reshape(4, -1).sum(axis=1) / 1000 * PERIOD_S / 3600
    np.testing.assert_allclose(of["import_cost"][ENDS], 60.0 * mwh, atol=1e-5)


def test_the_page_sums_the_intervals(folder: Path) -> None:
    data = RunData(folder)
    intervals, account = settled_account(data, "market")
    assert intervals == 4
    money = read_signal(folder / "signals", "market.account_money")[2]
    assert list(account.values()) == pytest.approx(money[ENDS].sum(axis=0).tolist())
    (section,) = market_sections(data)
    figures, maps, table = section.blocks
    assert isinstance(figures, Figures)
    assert isinstance(maps, Figures)
    assert isinstance(table, TableBlock)
    assert len(figures.figures) == 2
    prices = read_signal(folder / "signals", "market.price_per_mwh")
    cleared = prices[2][(prices[2] != 0.0).any(axis=1)].mean(axis=0)
    buses = [bus for bus in maps.figures[0].data["buses"] if bus["style"]]
    shown = {f"smo_{bus['name']}": float(bus["text"].split()[0]) for bus in buses}
    assert shown == pytest.approx(dict(zip(prices[1], cleared, strict=True)), abs=6e-4)
    assert table.head[0] == "Settled over 4 market intervals, as cleared"
    assert ("The import costs", f"{account['import_cost']:,.2f}") in table.rows


def test_parts_of_the_price_add_up_in_the_record(folder: Path) -> None:
    signals = folder / "signals"
    parts = [
        read_signal(signals, f"market.price_{part}_per_mwh")[2][-1]
        for part in ("losses", "voltage", "congestion")
    ]
    # Awards arrive a step after the clearing that made them.
    price = read_signal(signals, "market.price_per_mwh")[2][-1]
    np.testing.assert_allclose(price, 60.0 + sum(parts), atol=1e-9)


def test_paired_runs_show_the_prices_of_every_state(folder: Path) -> None:
    data = RunData(folder)
    states = SimpleNamespace(runs={"baseline": data, "attacked": data}, shade=lambda run: None)

    (section,) = prices(states)  # type: ignore[arg-type]

    baseline, attacked = section.blocks[0].figures  # type: ignore[union-attr]
    assert section.title == "Price of active power: market"
    assert [band["name"] for band in baseline.data["bands"]] == ["lowest, median and highest bus"]
    behind, own = attacked.data["bands"]
    assert behind["name"] == "baseline"
    assert behind["parts"][0]["data"] == own["parts"][1]["data"]


def test_a_three_phase_market_shows_prices_by_phase_and_bills_by_service(tmp_path: Path) -> None:
    three_phase = ["federates.market.options.clearing=three-phase"]
    scenario = load_scenario("attack-2b-ieee123", three_phase, attack="")
    data = RunData(run(scenario, out=tmp_path / "run", steps=20, placement="single").folder)
    (section,) = market_sections(data)
    maps, services = section.blocks[1], section.blocks[-1]
    assert isinstance(maps, Figures)
    assert isinstance(services, TableBlock)
    assert [figure.title[-1] for figure in maps.figures] == ["A", "B", "C"]
    names, prices = read_signal(data.signals, "market.dlmp_per_mwh")[1:]
    mean = dict(zip(names, prices[(prices != 0.0).any(axis=1)].mean(axis=0), strict=True))
    for phase, figure in enumerate(maps.figures, start=1):
        shown = {b["name"]: float(b["text"].split()[0]) for b in figure.data["buses"] if b["style"]}
        assert shown == pytest.approx({bus: mean[f"{bus}.{phase}"] for bus in shown}, abs=6e-3)
        assert len(shown) > 20
    net = sum(float(row[3].replace(",", "")) for row in services.rows)  # type: ignore[union-attr]
    ends = read_signal(data.signals, "market.net_pays_money")[2]
    assert net == pytest.approx(ends[PER_INTERVAL - 1].sum(), abs=0.03)
