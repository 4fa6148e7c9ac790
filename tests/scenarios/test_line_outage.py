"""Scenario line-outage-ieee123 with an early, short outage: lost, restored, repaired."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from federates.core.signals import read_signal
from federates.reports.blocks import Figures
from federates.reports.market import market_rows, market_section
from federates.reports.supply_states import dark_buses, supply_states
from federates.runs.data import RunData
from federates.runs.runner import run
from federates.scenario.schema import load_scenario, shipped_dir

pytestmark = pytest.mark.scenario

BEGIN_S, END_S = 40.0, 140.0


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("outage")
    attack = (shipped_dir() / "attacks" / "line-outage.yaml").read_text("utf-8")
    attack = attack.replace("at_s: 300", f"at_s: {BEGIN_S:g}")
    (base / "early.yaml").write_text(attack.replace("duration_s: 420", "duration_s: 100"))
    for name, defence in (("attacked", None), ("mitigated", "mitigated")):
        scenario = load_scenario(
            "line-outage-ieee123",
            ["time.duration_s=176"],
            attack=str(base / "early.yaml"),
            defence=defence,
        )
        run(scenario, out=base / name, placement="single")
    return {name: base / name for name in ("attacked", "mitigated")}


def events(folder: Path) -> dict[str, dict[str, Any]]:
    lines = (folder / "events.jsonl").read_text("utf-8").splitlines()
    return {event["event"]: event for event in map(json.loads, lines)}


def test_most_of_the_load_is_restored_within_the_band(runs: dict[str, Path]) -> None:
    states, left_out = supply_states(runs)
    assert not left_out
    pre, attacked, mitigated = (states[name] for name in ("pre", "attacked", "mitigated"))
    assert attacked["load_kw"] < 0.5 * pre["load_kw"]
    assert mitigated["load_kw"] > 0.85 * pre["load_kw"]
    assert attacked["nodes_dark"] == 136
    assert mitigated["nodes_dark"] == 27
    assert mitigated["v_min_pu"] >= 0.95
    assert "62" in dark_buses(runs["mitigated"], "feeder")
    rows = {row[0]: row[2:] for row in market_rows(states)}
    assert rows["Nodes without voltage"] == ["0", "136", "27"]
    section = market_section({name: RunData(folder) for name, folder in runs.items()}, states)
    maps = next(block for block in section.blocks if isinstance(block, Figures))
    assert len(maps.figures) == 2


def test_the_plan_is_what_the_feeder_then_measures(runs: dict[str, Path]) -> None:
    folder = runs["mitigated"]
    found = events(folder)
    assert found["plan"]["operations"] == ["open sw4", "close sw7"]
    assert "too low" in found["plan"]["not_restored"]["60"]
    time_s, _, losses_kw = read_signal(folder / "signals", "feeder.losses_kw")
    v_pu = read_signal(folder / "signals", "feeder.v_pu")[2]
    at = int(np.flatnonzero(time_s == END_S - 4.0)[0])
    # The plan takes a load's last reading for its demand; loads that depend on the voltage differ.
    assert losses_kw[at, 0] == pytest.approx(found["plan"]["losses_kw"], rel=0.05)
    assert v_pu[at][v_pu[at] > 0.0].min() == pytest.approx(found["plan"]["v_min_pu"], abs=2e-3)


def test_the_repaired_line_brings_the_normal_state_back(runs: dict[str, Path]) -> None:
    folder = runs["mitigated"]
    assert "back_to_normal" in events(folder)
    closed = read_signal(folder / "signals", "feeder.switch_closed")[2]
    assert (closed[-1] == closed[0]).all()
    load_kw = read_signal(folder / "signals", "feeder.load_p_kw")[2].sum(axis=1)
    assert load_kw[-1] == pytest.approx(load_kw[0], rel=1e-6)
    # After the outage itself no load loses its supply.
    dark = (read_signal(folder / "signals", "feeder.v_pu")[2] < 0.01).sum(axis=1)
    assert (np.diff(dark) > 0).sum() == 1
