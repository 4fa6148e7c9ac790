"""A local market on a run's page and side by side, from recorded signals of a hand-made run."""

from __future__ import annotations

import base64
import itertools
import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from controllers.core.ports import Port
from federates.core.run_store import Manifest, RunStore
from federates.core.signals import read_signal
from federates.reports.blocks import Drawing, Figures, PageSection, TableBlock, Text
from federates.reports.compare import write_comparison
from federates.reports.local_market import LocalMarket
from federates.reports.local_sections import local_market_sections
from federates.reports.market_days import market_day_rows, market_day_sections
from federates.reports.run import write_report
from federates.runs.data import RunData
from federates.scenario.schema import Scenario
from federates.scenario.sections import Record

STEP_S, STEPS, START_S = 60.0, 50, 43200.0
AGENTS = {"7": 3, "17": 4, "65": 5, "110": 3}
SMOS = tuple(f"smo_{bus}" for bus in AGENTS)
SMAS = tuple(f"sma_{bus}_{k}" for bus, n in AGENTS.items() for k in range(n))
HOMES = ("home_1_1_0", "home_16_3_2", *(f"home_17_3_{k}" for k in range(4)))
DEVICES = ("house_16_3_2", "pv_16_3_2", "battery_16_3_2")
METRICS = {
    "import_kwh": 1500.0, "import_peak_kw": 1980.0, "losses_kwh": 31.0, "v_std_pu": 0.0071,
    "v_max_pu": 1.0312, "v_min_pu": 0.9688, "lmp_mean_per_kwh": 0.1016,
    "tariff_mean_per_kwh": 0.1077, "market_messages_bid_count": 12000.0,
    "market_messages_award_count": 9000.0,
}  # fmt: skip
_SCORES = ("commitment_load", "commitment_pv", "commitment_storage", "trustability", "resilience")


def port_values(seed: int = 3) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """Return labels and values (STEPS, n) of every port of the market; nothing in the first two."""
    rng = np.random.default_rng(seed)
    t = np.linspace(0.0, 1.0, STEPS)[:, None]

    def wave(labels: tuple[str, ...], base: float, swing: float, noise: float = 0.02) -> np.ndarray:
        own = 1.0 + 0.3 * rng.standard_normal(len(labels))
        return (
            base * own
            + swing * np.sin(6.0 * t)
            + noise * swing * rng.standard_normal((STEPS, len(labels)))
        )

    import_kw = 1700.0 + 250.0 * np.sin(5.0 * t)
    lmp = 0.09 + 0.02 * t + 0.004 * np.arange(len(SMOS)) + 0.003 * np.sin(9 * t)
    tariff = lmp * (1.05 + 0.02 * np.arange(len(SMOS)))
    home_price = 0.12 + 0.03 * t + 0.004 * rng.standard_normal((STEPS, len(HOMES)))
    sma = wave(SMAS, -12.0, 2.0)
    owner = np.array([SMOS.index(f"smo_{s.split('_')[1]}") for s in SMAS])
    per_smo = np.eye(len(SMOS))[owner]  # (smas, smos)
    flex = 0.25 * np.abs(sma)
    told = sma + 0.5 * flex * np.sin(8.0 * t)
    home = wave(HOMES, -3.0, 1.0)
    owed = np.cumsum(np.maximum(-told, 0.0) @ per_smo * lmp / 60.0, axis=0)
    sma_owed = 0.97 * np.cumsum(np.maximum(-told, 0.0) * lmp[:, owner] / 60.0, axis=0)
    values = {
        "import_price_per_kwh": (("operator",), 0.08 + 0.04e-3 * (import_kw - 1500.0)),
        "lmp_per_kwh": (SMOS, lmp),
        "tariff_per_kwh": (SMOS, tariff),
        "home_price_per_kwh": (HOMES, home_price),
        "home_flex_price_per_kwh": (HOMES, 0.2 * home_price),
        "scheduled_import_kw": (("operator",), import_kw),
        "smo_bid_kw": (SMOS, sma @ per_smo),
        "smo_bid_min_kw": (SMOS, (sma - flex) @ per_smo),
        "smo_bid_max_kw": (SMOS, (sma + flex) @ per_smo),
        "smo_award_kw": (SMOS, told @ per_smo),
        "smo_pays_money": (SMOS, owed),
        "uplift_money": (SMOS, 0.001 * owed),
        "account_money": (
            ("load_pays", "import_cost", "surplus"),
            owed.sum(axis=1, keepdims=True) * np.array([1.0, 0.9, 0.1]),
        ),
        "sma_bid_kw": (SMAS, sma),
        "sma_bid_min_kw": (SMAS, sma - flex),
        "sma_bid_max_kw": (SMAS, sma + flex),
        "sma_set_kw": (SMAS, told),
        "sma_metered_kw": (SMAS, told + 0.3 * rng.standard_normal(told.shape)),
        "sma_pays_money": (SMAS, sma_owed),
        "home_plan_kw": (HOMES, home),
        "home_bid_kw": (HOMES, home + 0.1),
        "home_set_kw": (HOMES, home + 0.4 * np.sin(8.0 * t)),
        "home_metered_kw": (HOMES, home + 0.4 * np.sin(8.0 * t) + 0.2),
        "home_pays_money": (
            HOMES,
            0.9 * sma_owed.sum(axis=1, keepdims=True) / len(HOMES) + 0 * home,
        ),
    }
    for k, port in enumerate(_SCORES):
        drift = np.cumsum(0.004 * rng.standard_normal((STEPS, len(SMAS))), axis=0)
        values[port] = (SMAS, np.clip(0.95 - 0.05 * k + drift, 0.0, 1.0))
    for name, (_, v) in values.items():
        if not name.startswith(_SCORES):
            v[:2] = 0.0
    return values


def market_run(
    folder: Path,
    *,
    parts: int = 1,
    without: Collection[str] = (),
    levels: str = "hierarchy",
    metrics: Mapping[str, float] = METRICS,
    scale: float = 1.0,
) -> Path:
    """Write the folder of a run.

    `parts`: over how many federates the agents are split. `without`: ports that were not recorded.
    `scale`: of prices and deviations of voltages, to tell runs apart.
    """
    options = {"levels": levels}
    market = {"kind": "controller", "controller": "local-market", "options": options}
    scenario = Scenario.model_validate(
        {
            "title": f"A market day: {levels}",
            "time": {"duration_s": STEPS * STEP_S, "step_s": STEP_S, "start_s": START_S},
            "grid": {"model": "ieee123-der-rich-homes"},
            "federates": {"feeder": {"kind": "feeder"}, "market": market},
        }
    )
    folder.mkdir(parents=True)
    store = RunStore(folder, Record())
    manifest = Manifest(folder, scenario, "single", STEPS, more={"name": f"market-day-{levels}"})
    time_s = STEP_S * np.arange(STEPS)

    def write(federate: str, port: str, labels: tuple[str, ...], values: np.ndarray) -> None:
        writer = store.writer(federate, Port(port, "", labels))
        assert writer is not None
        writer.write(time_s, np.ascontiguousarray(values))
        writer.close()

    for port, (labels, values) in port_values().items():
        if port in without:
            continue
        if port.endswith("_per_kwh"):
            values = scale * values
        bounds = [len(labels) * i // parts for i in range(parts + 1)]
        for i, (a, b) in enumerate(itertools.pairwise(bounds)):
            if b > a:
                name = "market" if parts == 1 else f"market_{i + 1}"
                write(name, port, labels[a:b], values[:, a:b])
    rng = np.random.default_rng(1)
    nodes = tuple(f"{bus}.{k}" for bus in AGENTS for k in (1, 2, 3))
    wave = np.sin(np.linspace(0.0, 6.0, STEPS))[:, None]
    spread = 0.01 * rng.standard_normal(len(nodes)) + 0.01 * wave
    write("feeder", "v_pu", nodes, 1.0 + scale * spread)
    write("feeder", "import_kw", ("source",), 1690.0 + 240.0 * wave)
    write("feeder", "losses_kw", ("source",), 30.0 + 8.0 * wave)
    write("feeder", "p_kw", DEVICES, np.hstack([-2.0 - wave, 1.0 + wave, 0.5 * wave]))
    manifest.finish("finished", None)
    summary = {"status": "finished", "steps": STEPS, "metrics": dict(metrics)}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


VALUES = port_values()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return market_run(tmp_path_factory.mktemp("local") / "run")


@pytest.fixture(scope="module")
def sections(folder: Path) -> dict[str, PageSection]:
    return {section.title: section for section in local_market_sections(RunData(folder))}


def drawings(section: PageSection) -> dict[str, Drawing]:
    found = [b for b in section.blocks if isinstance(b, Figures)]
    return {figure.title: figure for block in found for figure in block.figures}


def parts(drawing: Drawing, band: str) -> dict[str, np.ndarray]:
    (found,) = [b for b in drawing.data["bands"] if b["name"] == band]
    return {p["name"]: np.frombuffer(base64.b64decode(p["data"]), "<f4") for p in found["parts"]}


def tables(section: PageSection) -> list[TableBlock]:
    return [block for block in section.blocks if isinstance(block, TableBlock)]


def text_of(section: PageSection) -> str:
    return " ".join(block.text for block in section.blocks if isinstance(block, Text))


def test_a_run_has_a_section_for_each_part(sections: dict[str, PageSection]) -> None:
    assert list(sections) == [
        "Local market: prices",
        "Local market: bids, awards and response",
        "Local market: SMO 7",
        "Local market: SMO 17",
        "Local market: SMO 65",
        "Local market: who paid whom",
        "Local market: messages",
        "Local market: a home's plan and what it did",
    ]
    assert all("Not recorded" not in text_of(section) for section in sections.values())


def test_prices_are_those_of_the_signals_from_the_first_clearing_on(
    sections: dict[str, PageSection],
) -> None:
    drawn = drawings(sections["Local market: prices"])
    lmp = VALUES["lmp_per_kwh"][1][2:]
    found = parts(drawn["Locational price"], "SMOs: mean and range")
    for name, expected in (("lowest", lmp.min(1)), ("mean", lmp.mean(1)), ("highest", lmp.max(1))):
        assert np.isnan(found[name][:2]).all()
        assert found[name][2:] == pytest.approx(expected, rel=1e-6)
    home = VALUES["home_price_per_kwh"][1][2:]
    found = parts(drawn["Price of homes"], "homes: median, 10 to 90 %")
    assert found["10 %"][2:] == pytest.approx(np.quantile(home, 0.1, axis=1), rel=1e-6)
    assert found["90 %"][2:] == pytest.approx(np.quantile(home, 0.9, axis=1), rel=1e-6)
    means = drawn["Prices of each level"]
    assert parts(means, "tariff of SMOs, mean")["value"][2:] == pytest.approx(
        VALUES["tariff_per_kwh"][1][2:].mean(axis=1), rel=1e-6
    )
    assert {b["name"] for b in drawn["Import"].data["bands"]} == {"metered", "scheduled"}


def test_the_map_has_the_mean_price_of_each_bus_in_classes_that_hold_it(
    sections: dict[str, PageSection],
) -> None:
    figure = drawings(sections["Local market: prices"])["Locational price: mean"]
    labels, lmp = VALUES["lmp_per_kwh"]
    means = dict(zip(labels, lmp[2:].mean(axis=0), strict=True))
    shown = {b["name"]: b for b in figure.data["buses"] if b["style"]}
    assert set(shown) == set(AGENTS)
    ranges = {k.style.split()[1]: k.name.split(": ")[0] for k in figure.legend if "q" in k.style}
    for bus, entry in shown.items():
        price = means[f"smo_{bus}"]
        assert entry["text"] == f"{price:.5f} money per kWh"
        low, high = map(float, ranges[entry["style"]].split(" to "))
        assert low - 5e-5 <= price <= high + 5e-5


def test_an_operator_shows_its_bid_award_and_the_sum_of_its_agents(
    sections: dict[str, PageSection],
) -> None:
    section = sections["Local market: SMO 17"]
    drawn = drawings(section)
    chart = drawn["Bid, award and response"]
    column = VALUES["smo_bid_kw"][0].index("smo_17")
    found = parts(chart, "bid: baseline and range")
    for name, port in (("lowest", "smo_bid_min_kw"), ("baseline", "smo_bid_kw")):
        assert found[name][2:] == pytest.approx(VALUES[port][1][2:, column], rel=1e-5)
    labels, metered = VALUES["sma_metered_kw"]
    mine = [k for k, label in enumerate(labels) if label.startswith("sma_17_")]
    got = parts(chart, "metered, its agents in sum")["value"][2:]
    assert got == pytest.approx(metered[2:, mine].sum(axis=1), rel=1e-5)
    powers, scores = [b for b in section.blocks if isinstance(b, Figures) and b.small]
    assert [f.title for f in powers.figures] == [f"sma_17_{k}" for k in range(AGENTS["17"])]
    assert [key.name for key in powers.legend] == ["bid: baseline and range", "schedule", "metered"]
    got = parts(scores.figures[1], "resilience")["value"]
    score = VALUES["resilience"]
    assert got == pytest.approx(score[1][:, score[0].index("sma_17_1")], rel=1e-6)


def test_money_adds_up_from_the_homes_to_the_operator(sections: dict[str, PageSection]) -> None:
    flows, balance = tables(sections["Local market: who paid whom"])
    net = {row[0]: float(str(row[-1])) for row in flows.rows}
    sums = {
        who: VALUES[port][1][-1].sum()
        for who, port in (
            ("SMOs", "smo_pays_money"),
            ("secondary agents", "sma_pays_money"),
            ("homes", "home_pays_money"),
        )
    }
    assert net == {who: round(value, 2) for who, value in sums.items()}
    rows = [(str(name), float(str(money))) for name, money in balance.rows]
    homes, billed, agents, above, smos = (money for _, money in rows[:5])
    assert homes + billed == pytest.approx(agents, abs=0.011)
    assert agents + above == pytest.approx(smos, abs=0.011)
    assert [name for name, _ in rows[5:]] == [
        "of it for the import", "of it the primary operator keeps, for losses and limits"
    ]  # fmt: skip
    assert sum(money for _, money in rows[5:]) == pytest.approx(smos, abs=0.011)
    uplift = VALUES["uplift_money"][1][-1].sum()
    assert f"{uplift:,.2f} money more than they receive" in text_of(
        sections["Local market: who paid whom"]
    )


def test_messages_are_counted_per_kind(sections: dict[str, PageSection]) -> None:
    (table,) = tables(sections["Local market: messages"])
    assert list(table.rows) == [
        ("bids: secondary agents to SMOs", "12,000", "240.0"),
        ("awards: secondary agents to homes", "9,000", "180.0"),
        ("all", "21,000", "420.0"),
    ]


def test_the_home_with_most_devices_is_shown_beside_its_plan(
    sections: dict[str, PageSection],
) -> None:
    section = sections["Local market: a home's plan and what it did"]
    assert text_of(section) == "home_16_3_2: house, water heater, PV, battery."
    drawn = drawings(section)
    labels, plan = VALUES["home_plan_kw"]
    got = parts(drawn["Plan, bid, set-point and response"], "plan")["value"][2:]
    assert got == pytest.approx(plan[2:, labels.index("home_16_3_2")], rel=1e-6)
    assert [b["name"] for b in drawn["Its devices, metered"].data["bands"]] == [
        "house", "PV", "battery"
    ]  # fmt: skip


def test_agents_split_over_federates_give_the_same_page(
    folder: Path, sections: dict[str, PageSection], tmp_path: Path
) -> None:
    split = RunData(market_run(tmp_path / "split", parts=3))
    market = LocalMarket(split, "market")
    read = market.read("sma_bid_kw")
    assert read is not None
    assert read.labels == VALUES["sma_bid_kw"][0]
    np.testing.assert_array_equal(read.values[2:], VALUES["sma_bid_kw"][1][2:])
    assert list(local_market_sections(split)) == list(sections.values())


def test_what_was_not_recorded_is_left_out_and_named(tmp_path: Path) -> None:
    gone = ("lmp_per_kwh", "smo_bid_min_kw", "sma_metered_kw", "home_plan_kw", "home_pays_money")
    run = RunData(market_run(tmp_path / "run", without=gone, metrics={}))
    found = {section.title: section for section in local_market_sections(run)}
    lacking = " ".join(map(text_of, found.values()))
    for port in gone:
        assert f"market.{port}" in lacking
    assert "Locational price" not in drawings(found["Local market: prices"])
    bands = drawings(found["Local market: SMO 7"])["Bid, award and response"].data["bands"]
    assert [b["name"] for b in bands] == ["award"]
    assert "Local market: messages" not in found
    empty = RunData(market_run(tmp_path / "empty", without=tuple(VALUES)))
    assert list(local_market_sections(empty)) == []


def test_the_page_is_whole_and_shows_no_signal_twice(folder: Path) -> None:
    text = write_report(folder).read_text()
    assert set(re.findall(r"https?://[^ )]*", text)) == {"https://github.com/leeoniya/uPlot"}
    assert "<figcaption>market.lmp_per_kwh</figcaption>" not in text
    assert "0.1016 <span" in text, "the metric has a tile"
    assert "money/kWh" in text
    assert len(text) < 500_000


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> dict[str, RunData]:
    base = tmp_path_factory.mktemp("days")
    more = {"import_peak_kw": 2096.0, "lmp_mean_per_kwh": 0.11, "tariff_mean_per_kwh": 0.1179}
    none = market_run(base / "n", levels="none", scale=2.0, metrics=METRICS | more)
    primary = market_run(base / "p", levels="primary", scale=1.5)
    return {"whole": RunData(folder), "primary": RunData(primary), "none": RunData(none)}


def test_days_are_compared_by_price_import_losses_and_voltages(days: dict[str, RunData]) -> None:
    rows = {
        row[0]: row[1:]
        for row in market_day_rows({k: LocalMarket(r, "market") for k, r in days.items()})
    }
    lmp = VALUES["lmp_per_kwh"][1][2:]
    assert rows["Locational price, mean, money/kWh"] == [
        "0.1016 (-7.6 %)",
        "0.1016 (-7.6 %)",
        "0.1100",
    ]
    assert rows["Locational price, highest, money/kWh"] == [
        f"{scale * lmp.max():.4f}" for scale in (1.0, 1.5, 2.0)
    ]
    assert rows["Local tariff, mean on the thesis' slides, $/kWh"] == [
        "0.0820 (-36.4 %)", "0.1160 (-10.1 %)", "0.1290"
    ]  # fmt: skip
    assert rows["Highest import, kW"] == ["1,980.0 (-5.5 %)", "1,980.0 (-5.5 %)", "2,096.0"]
    assert rows["Lowest voltage, pu"] == ["0.9688"] * 3
    away = [float(cell.split()[0]) for cell in rows["Voltages, rms distance from nominal, pu"]]
    assert away == pytest.approx([away[0], 1.5 * away[0], 2.0 * away[0]], abs=1.1e-4)
    v_pu = read_signal(days["none"].signals, "feeder.v_pu")[2]
    assert away[2] == pytest.approx(np.sqrt(np.mean((v_pu - 1.0) ** 2)), abs=6e-5)
    found: dict[str, Any] = {s.title: s for s in market_day_sections(days)}
    hours = drawings(found["Voltages of all nodes per hour"])
    (deviation,) = [d for title, d in hours.items() if title.startswith("Standard deviation")]
    std = [parts(deviation, label)["value"][0] for label in days]
    assert std[1:] == pytest.approx([1.5 * std[0], 2.0 * std[0]], rel=1e-4)
    assert {"whole", "primary", "none"} <= set(hours)


def test_a_comparison_has_the_markets_only_where_several_runs_have_one(
    days: dict[str, RunData], tmp_path: Path
) -> None:
    both = write_comparison(list(days.values()), tmp_path / "days.html").read_text()
    assert "<h2>Local markets compared</h2>" in both
    assert "<h2>Voltages of all nodes per hour</h2>" in both
    assert list(market_day_sections({"whole": days["whole"]})) == []
