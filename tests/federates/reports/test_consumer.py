"""A consumer market on the page of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from federates.reports.blocks import Figures, TableBlock
from federates.reports.consumer import consumer_sections, consumer_signals
from federates.reports.run import other_signals, run_page
from federates.runs.data import RunData
from federates.runs.runner import run
from federates.scenario.schema import load_scenario

ASKED = ["federates.market.options.horizon=3", "federates.market.split=3"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> RunData:
    scenario = load_scenario("consumer-market", ASKED)
    out = tmp_path_factory.mktemp("consumer") / "run"
    return RunData(run(scenario, out=out, steps=14, placement="single").folder)


def figures(blocks: object) -> Figures:
    assert isinstance(blocks, Figures)
    return blocks


def test_the_operators_charts_and_money(data: RunData) -> None:
    market, homes, devices = consumer_sections(data)
    assert market.title == "Consumer market"
    injections, prices = figures(market.blocks[0]).figures
    assert [key.name for key in injections.legend] == [
        "offered", "baseline", "request", "delivered",
    ]  # fmt: skip
    assert [key.name for key in prices.legend] == ["energy", "flexibility", "grid"]
    assert isinstance(market.blocks[1], TableBlock)
    assert [row[0] for row in market.blocks[1].rows] == [
        "cma_1 pays", "cma_2 pays", "cma_3 pays", "the operator adds", "the operator pays the grid",
    ]  # fmt: skip
    assert len(figures(homes.blocks[0]).figures) == 3
    assert devices.title == "Devices of cma_1 (house_645), as planned and as metered"
    titles = [drawing.title for drawing in figures(devices.blocks[0]).figures]
    assert titles == [
        "House with its heat pump house_645",
        "PV pv_645",
        "Battery battery_645",
        "Electric vehicle vehicle_645",
        "Indoors, house_645",
        "Stored energy, battery_645",
        "Stored energy, vehicle_645",
    ]


def test_its_signals_are_shown_once(data: RunData) -> None:
    assert set(consumer_signals(data)) == {s for s in data.recorded if s.startswith("market_")}
    for section in other_signals(data):
        for block in section.blocks:
            assert all("market" not in d.title for d in getattr(block, "figures", ()))


def test_a_run_without_its_signals_has_a_page_all_the_same(tmp_path: Path) -> None:
    scenario = load_scenario("consumer-market", [ASKED[0], "record.ports=[feeder.v_pu]"])
    bare = RunData(run(scenario, out=tmp_path / "run", steps=2, placement="single").folder)
    assert list(consumer_sections(bare)) == []
    assert run_page(bare).sections
