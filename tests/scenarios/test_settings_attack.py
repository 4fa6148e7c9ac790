"""The shipped settings attack: the defence lessens the oscillation; emulated devices agree."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from federates.attacks.physical.resolve import physical_plan
from federates.core.sites import GridSite
from federates.reports.voltage_quality import voltage_quality
from federates.runs.data import RunData
from federates.runs.runner import run
from federates.scenario.schema import load_scenario

pytestmark = pytest.mark.scenario
SCENARIO = "hil-settings-attack"
SIMULATED = 'federates.fleet.devices={"*": simulated}'
DEFENDED = "federates.curves.options.gain_per_pu_s=50"


@pytest.fixture
def oscillation_pu(tmp_path) -> Callable[..., float]:
    def go(*sets: str, attack: str | None = None) -> float:
        scenario = load_scenario(SCENARIO, [SIMULATED, *sets], attack=attack)
        name = str(len(list(tmp_path.iterdir())))
        folder = run(scenario, out=tmp_path / name, placement="single", steps=80).folder
        return voltage_quality(RunData(folder), "feeder", 45.0, 80.0)[
            "attack_window_oscillation_pu"
        ]

    return go


def test_the_defence_lessens_what_the_attack_does(oscillation_pu) -> None:
    quiet, attacked, defended = (
        oscillation_pu(attack=""),
        oscillation_pu(),
        oscillation_pu(DEFENDED),
    )
    assert quiet < 1e-4
    assert attacked > 0.004
    assert quiet < defended < 0.6 * attacked


def test_a_steeper_curve_oscillates_more_and_a_flatter_one_not_at_all(oscillation_pu) -> None:
    curve = "attack.steps[0].action.volt_var"
    found = [
        oscillation_pu(f"{curve}.v_pu=[{1.015 - w}, {1.015 - 1e-4}, {1.015 + 1e-4}, {1.015 + w}]")
        for w in (0.06, 0.004, 0.001)
    ]
    assert found[0] < 1e-4
    assert found[0] < found[1] < found[2]


@pytest.mark.parametrize("name", ["settings-within-standard", "settings-unbalance"])
def test_what_is_said_to_be_within_the_standard_is(name: str) -> None:
    scenario = load_scenario("settings-attack-ieee123", attack=name)
    plan = physical_plan(scenario, "feeder", GridSite(scenario).feeder)
    assert plan is not None
    for step in plan.actions:
        assert not step.action.beyond_standard
        assert not list(step.action.beyond())
    shares = [len(step.labels) for step in plan.actions]
    assert min(shares) > 10
    assert np.unique([label for step in plan.actions for label in step.labels]).size == sum(shares)
