"""Two plants with grids of their own: coupled by voltage and power, named in errors and metrics."""

from __future__ import annotations

import numpy as np
import pytest

from federates.core.signals import read_signal
from federates.core.sites import GridSite
from federates.errors import ScenarioError
from federates.scenario.schema import load_scenario, recorded_scenario

pytestmark = pytest.mark.scenario

NAME = "two-feeders-ieee13-ieee123"
TIE = ("300.1", "300.2", "300.3")
STEPS = 5
SOURCE = """\
seed: 1
time: {start_s: 43200, duration_s: 600, step_s: 60}
grid: {model: ieee13}
federates:
  feeder: {kind: feeder}
  slack:
    kind: signal
    options: {port: v_pu, unit: pu, values: [[0, 1.0], [120, 1.03]], labels: ["1", "2"]}
connections:
  - slack.v_pu -> feeder.source_v_pu
"""


def test_the_feeders_see_each_other_on_all_placements(ran) -> None:
    single = ran(NAME, placement="single", steps=STEPS)
    digests = single.digests()
    assert len(digests) == 13
    for placement in ("thread", "process"):
        assert ran(NAME, placement=placement, steps=STEPS).digests() == digests

    _, labels, upper_v = read_signal(single.signals, "upper.v_pu")
    _, lower_labels, lower_v = read_signal(single.signals, "lower.v_pu")
    at = [labels.index(x) for x in TIE]
    source = [lower_labels.index(f"650.{phase}") for phase in (1, 2, 3)]
    # The lower feeder steps 30 s after the upper one. Its source has no impedance, so that its
    # source bus has the voltage of bus 300 within the power flow's tolerance of 1e-6.
    np.testing.assert_allclose(lower_v[:, source], upper_v[:, at], atol=2e-6)
    for port, imported in (("p_kw", "import_kw"), ("q_kvar", "import_kvar")):
        _, ders, injected = read_signal(single.signals, f"upper.{port}")
        drawn = single.values(f"lower.{imported}")[:, 0]
        tie = injected[:, ders.index("tie_300")]
        assert np.abs(drawn).min() > 50.0
        np.testing.assert_array_equal(tie[1:], -drawn[:-1])


def test_metrics_are_told_apart_by_the_name_of_the_plant(ran) -> None:
    metrics = ran(NAME, placement="single", steps=STEPS).result.metrics
    plain = {"v_max_pu", "v_min_pu", "losses_kwh", "import_kwh", "abs_q_kvarh"}
    for plant in ("upper", "lower"):
        assert {f"{plant}.{key}" for key in plain} <= metrics.keys()
    assert not plain & metrics.keys()


def test_each_federate_uses_the_grid_of_its_plant() -> None:
    scenario = load_scenario(NAME)
    assert {name: grid.model for name, grid in scenario.plants.items()} == {
        "upper": "ieee123", "lower": "ieee13"
    }  # fmt: skip
    assert scenario.plant_of("volt_var") == "lower"
    assert GridSite(scenario, "lower").where("ders", 0).endswith("federates.lower.grid.ders[0]")
    recorded = recorded_scenario({"scenario": scenario.resolved()})
    assert {n: g.model for n, g in recorded.plants.items()} == {
        "upper": "ieee123", "lower": "ieee13"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["connections=[lower.v_pu -> volt_var.v_pu, upper.p_kw -> volt_var.p_kw]"],
            "is connected to upper and lower; expected the key 'plant', one of upper, lower",
        ),
        (["connections=[]"], "names no plant; expected the key 'plant', one of upper, lower"),
        (["federates.volt_var.plant=lowr"], "'lowr'; expected one of upper, lower; did you mean"),
        (["connections[0].map={'1': '300.9'}"], "upper.v_pu has no label '300.9'"),
        (["connections[0].map={'4': '300.1'}"], "lower.source_v_pu has no label '4'"),
        (["connections[0].map={}"], "or the key 'map'"),
    ],
)
def test_an_ambiguous_plant_and_a_wrong_map_are_refused(overrides: list[str], words: str) -> None:
    from federates.assembly.federation import Assembly

    with pytest.raises(ScenarioError) as caught:
        Assembly(load_scenario(NAME, overrides)).assemble()
    assert words in str(caught.value)


def test_the_key_plant_decides(ran) -> None:
    scenario = load_scenario(NAME, ["federates.volt_var.plant=upper", "connections=[]"])
    assert scenario.plant_of("volt_var") == "upper"


def test_a_signal_moves_the_source_and_unconnected_phases_stay(ran) -> None:
    run = ran(SOURCE, placement="single", steps=4)
    time_s, labels, v_pu = read_signal(run.signals, "feeder.v_pu")
    source = v_pu[:, [labels.index(f"650.{phase}") for phase in (1, 2, 3)]]
    # The signal steps at 30 s, 90 s, ...: what it publishes at 150 s is read at 180 s.
    want = [[1.0, 1.0, 1.0]] * 3 + [[1.03, 1.03, 1.0]]
    assert time_s.tolist() == [0.0, 60.0, 120.0, 180.0]
    np.testing.assert_allclose(source, want, atol=2e-6)
