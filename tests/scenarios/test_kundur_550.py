"""Attack 2b in every feeder at a bus of Kundur's two areas."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from _der_rich_table import to_csv
from _market_ders import KUNDUR, resilience_ders

from federates.core.signals import read_signal
from federates.runs.runner import run
from federates.scenario.schema import load_scenario, shipped_dir
from federates.scenario.yaml_source import load_yaml
from grid_models.base.yaml_lines import yaml_text
from grid_models.catalog import load_feeder

ATTACK_S, END_S, FEEDERS, ALIKE = 20.0, 26.0, 11, 50


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the scenario with 11 feeders, each standing for 50, attacked earlier, at 0.5 s."""
    base = tmp_path_factory.mktemp("kundur")
    attack = load_yaml(shipped_dir() / "attacks" / "generator-shutdown-550.yaml").data
    for step in attack["steps"]:
        step["trigger"]["at_s"] = ATTACK_S
    (base / "attack.yaml").write_text(yaml_text(attack), encoding="utf-8")
    wires = load_yaml(shipped_dir() / "kundur-550.yaml").data["connections"]
    for wire in wires:
        if "feeders.total" in str(wire):
            wire["scale"] = ALIKE
    changes = (
        "time.step_s=0.5",
        "federates.grid.offset_s=15",
        f"federates.feeders.count={FEEDERS}",
        f"connections={json.dumps(wires)}",
    )
    scenario = load_scenario("kundur-550", changes, attack=str(base / "attack.yaml"))
    out = base / "run"
    run(scenario, out=out, placement="single", steps=round(END_S / 0.5))
    return out


def signal(run: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    time_s, _, values = read_signal(run / "signals", name)
    return time_s, values[:, 0]


def test_the_table_of_resources_is_what_its_recipe_gives() -> None:
    text = (shipped_dir() / "kundur-550.csv").read_text("utf-8")
    assert text == to_csv(resilience_ders(load_feeder("ieee123"), **KUNDUR))


def test_every_feeder_loses_652_kw_as_the_slides_state(attacked: Path) -> None:
    """Slides: import 1325 kW before, a shortfall of 650 kW in each of 550 feeders, 359 MW."""
    time_s, kw = signal(attacked, "feeders.import_kw")
    before = kw[time_s < ATTACK_S - 0.4][-1]
    assert before == pytest.approx(1325.0, abs=1.5)
    assert kw[time_s >= ATTACK_S][0] - before == pytest.approx(359e3 / 550, abs=1.0)


def test_the_system_is_steady_before_and_its_frequency_falls_with_the_attack(
    attacked: Path,
) -> None:
    time_s, hz = signal(attacked, "grid.coi_hz")
    tie_mw = signal(attacked, "grid.tie_mw")[1]
    calm = time_s <= ATTACK_S
    # What is left of the market's first dispatch at 15 s: about 0.1 kW per feeder.
    assert np.abs(hz[calm] - 60.0).max() < 1e-3
    assert tie_mw[calm] == pytest.approx(400.3, abs=1.0)
    assert 59.80 < hz[~calm].min() < 59.86
    assert tie_mw.max() > 500.0


def test_the_voltage_relieves_the_system_and_no_feeder_differs_from_opendss(
    attacked: Path,
) -> None:
    time_s, kw = signal(attacked, "feeders.total_kw")
    after = time_s >= ATTACK_S
    assert kw[after][-1] < kw[after][0] - 40.0 * FEEDERS
    metrics = json.loads((attacked / "summary.json").read_text("utf-8"))["metrics"]
    assert metrics["referee_max_dev_pu"] < 1e-8
    assert "collapsed_at_s" not in metrics
