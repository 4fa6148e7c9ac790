"""The page of a real run of the controller `local-market`: its ports are those that are shown."""

from __future__ import annotations

from pathlib import Path

from federates.reports.blocks import Figures, TableBlock, Text
from federates.reports.local_sections import local_market_sections
from federates.runs.data import RunData
from federates.runs.runner import run
from federates.scenario.schema import load_scenario

# In the evening all homes are loads. The feeder's other loads are low, so that there is a dispatch.
STUDY = """\
title: A small market
time: {duration_s: 3600, step_s: 60, start_s: 68400}
grid:
  model: ieee13
  heat_pumps: variable_speed
  ders:
    - {kind: house, at: load_phases, kw: 7, kw_per_house: 7}
    - {kind: pv, at: houses, kw: 4}
    - {kind: battery, at: houses, kw: 0.5, hours: 2}
federates:
  feeder: {kind: feeder}
  market:
    kind: controller
    controller: local-market
    period_s: 60
    split: 3
    options: {mail_rounds: 4, price_slope: 0.04, price_scale: 0.35, fixed_load_pu: 0.3}
connections:
  - feeder.p_kw -> market.p_kw
  - feeder.temp_c -> market.temp_c
  - feeder.soc_kwh -> market.soc_kwh
  - market.p_set_kw -> feeder.p_set_kw
  - market.q_set_kvar -> feeder.q_set_kvar
"""


def test_every_part_of_the_page_finds_its_signals(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    scenario = load_scenario(tmp_path / "study.yaml")
    done = run(scenario, out=tmp_path / "run", steps=12, placement="single")

    sections = {s.title: s.blocks for s in local_market_sections(RunData(done.folder))}

    titles = (
        "prices", "bids, awards and response", "SMO 671", "who paid whom", "messages",
        "a home's plan and what it did",
    )  # fmt: skip
    assert list(sections) == [f"Local market: {title}" for title in titles]
    words = [b.text for blocks in sections.values() for b in blocks if isinstance(b, Text)]
    assert [text for text in words if "Not recorded" in text] == []
    assert "home_634_1: house, PV, battery." in words
    (table,) = (b for b in sections["Local market: messages"] if isinstance(b, TableBlock))
    kinds = {str(row[0]).partition(":")[0] for row in table.rows}
    assert kinds == {"offers", "bids", "schedules", "awards", "all"}
    small = [b for b in sections["Local market: SMO 671"] if isinstance(b, Figures) and b.small]
    assert [len(block.figures) for block in small] == [3, 3]
