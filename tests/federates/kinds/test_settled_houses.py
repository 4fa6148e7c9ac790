"""Houses that live before the run, and thermostats in the houses that the feeder simulates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from federates.assembly.federation import Assembly
from federates.core.signals import read_signal
from federates.errors import ScenarioError
from federates.runs.runner import RunResult, run
from federates.scenario.schema import Scenario, load_scenario

HOUSES = [
    "grid.model=ieee13",
    "grid.ders=[{kind: house, at: load_phases, kw: 7, kw_per_house: 7},"
    "{kind: pv, at: ['671'], kw: 50}]",
    "federates.operator.options.values=[[0,0]]",
    "federates.operator.options.ders=['house_*']",
    "connections=[operator.verb -> houses.verb]",
]


def scenario(*overrides: str) -> Scenario:
    return load_scenario("hil-thermostats-ieee123", [*HOUSES, *overrides])


def powers(result: RunResult, port: str) -> tuple[tuple[str, ...], np.ndarray]:
    _, labels, values = read_signal(result.folder / "signals", port)
    return tuple(labels), values


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    mine = scenario(
        "federates.feeder.settle_s=7200",
        "federates.houses.devices={'house_*': simulated}",
        "federates.houses.options={houses: feeder, settle_s: 7200}",
        "connections=[operator.verb -> houses.verb, houses.temp_c -> feeder.temp_meas_c]",
        "record.ports=['*', feeder.temp_c]",
    )
    return run(mine, out=tmp_path_factory.mktemp("settled"), placement="single", steps=30)


def test_a_settled_feeder_goes_on_as_one_that_ran_before(
    settled: RunResult, tmp_path: Path
) -> None:
    early = scenario(
        "time.start_s=57600",
        "time.duration_s=7500",
        "federates.houses.devices={'house_*': simulated}",
    )
    before = run(early, out=tmp_path / "early", placement="single", steps=750)
    labels, values = powers(settled, "feeder.p_kw")
    _, longer = powers(before, "feeder.p_kw")
    houses = [i for i, label in enumerate(labels) if label.startswith("house_")]
    assert values[:, houses].tolist() == longer[720:, houses].tolist()
    assert np.ptp(values[:, houses], axis=0).max() > 1.0, "units switch"


def test_thermostats_stand_in_the_houses_that_the_feeder_simulates(settled: RunResult) -> None:
    labels, values = powers(settled, "feeder.p_kw")
    names, measured = powers(settled, "houses.p_kw")
    same = values[:, [labels.index(name) for name in names]]
    # Another way to the same rating: the last bits differ.
    np.testing.assert_allclose(measured, same, rtol=1e-9)


def test_measured_temperatures_replace_the_feeders_a_step_later(settled: RunResult) -> None:
    names, measured = powers(settled, "houses.temp_c")
    labels, shown = powers(settled, "feeder.temp_c")
    assert labels == names
    assert shown[1:].tolist() == measured[:-1].tolist()
    # Before the first measurement the feeder's own model: a step ahead of what came.
    np.testing.assert_allclose(shown[0], measured[0], rtol=1e-9)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["federates.feeder.settle_s=1e5"], ["feeder", "settle_s is 100000", "64800"]),
        (
            ["grid.ders.0={kind: house, at: load_phases, kw: 14, kw_per_house: 7}",
             "federates.houses.devices={'house_*': simulated}"],
            ["2 houses of the feeder", "ieee123-der-rich-homes"],
        ),
        (
            ["federates.houses.devices={'pv_*': simulated}", "connections=[]"],
            ["is a pv of the feeder", "houses: "],
        ),
    ],
)  # fmt: skip
def test_houses_that_cannot_be_are_refused(overrides: list[str], words: list[str]) -> None:
    wrong = scenario("federates.houses.options={houses: feeder}", *overrides)
    with pytest.raises(ScenarioError) as caught:
        Assembly(wrong).assemble()
    for word in words:
        assert word in str(caught.value)
