"""Values that no study means are refused, with the key, the place and the plausible range."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from federates.assembly.federation import Assembly
from federates.errors import ScenarioError
from federates.scenario.attack_schema import AttackSpec
from federates.scenario.schema import Scenario, scenario_from
from federates.scenario.schema_errors import schema_error
from federates.scenario.yaml_source import YamlSource, load_yaml
from grid_models.base.errors import FeederateError

TEXT = """\
seed: 1
time: {duration_s: 600, step_s: 60}
band: {v_max_pu: 1.05}
grid:
  model: ieee13
  ders:
    - {kind: pv, at: load_phases, total_kw: 1000}
  profiles: {kind: clear}
federates:
  feeder: {kind: feeder}
  volt_var: {kind: controller, controller: optdist-vc, split: 1}
connections:
  - {source: feeder.v_pu, target: volt_var.v_pu}
  - volt_var.q_set_kvar -> feeder.q_set_kvar
links:
  - {loss: 0.1}
record: {every: 1}
"""
# What stands in TEXT: what is written in its place, the line, the message.
WRONG = [
    ("seed: 1", "seed: 99999999999999999999", 1, "seed: found 99999999999999999999; expected a "
     "whole number from 0 to 9223372036854775807"),
    ("kind: clear", "seed: -1", 8, "grid.profiles.seed: found -1; expected a whole number from 0"),
    ("kind: clear", "temp_mean_c: 300", 8, "grid.profiles.temp_mean_c: found 300; expected a "
     "number from -40 to 50"),
    ("kind: clear", "path: my.csv, day_of_year: 3", 8, "expected no day_of_year beside path"),
    ("step_s: 60", "step_s: 1e9", 2, "time.step_s: found 1000000000.0; expected a number from "
     "1e-06 to 86400"),
    ("duration_s: 600", "start_s: 1e9", 2, "time: profile generation: duration_s is 1000086400"),
    ("duration_s: 600", "step_timeout_s: 1e300", 2, "time.step_timeout_s: found 1e+300"),
    ("v_max_pu: 1.05", "v_max_pu: 95", 3, "band.v_max_pu: found 95; expected a number from 0.5 to "
     "1.5"),
    ("v_max_pu: 1.05", "v_min_pu: 0.001", 3, "band.v_min_pu: found 0.001; expected a number from"),
    ("model: ieee13", "load_scale: 1e9", 5, "grid.load_scale: found 1000000000.0; expected a "
     "number from 0 to 100"),
    ("total_kw: 1000", "total_kw: 1e30", 7, "option 'total_kw': 1e+30 is not accepted; expected a "
     "number in (0, 1e+06]"),
    ("kind: feeder", "kind: feeder, period_s: -60", 10, "federates.feeder.period_s: found -60; "
     "expected a number from 1e-06 to 86400"),
    ("split: 1", "split: 5000", 11, "federates.volt_var.split: found 5000; the controller has 19 "
     "agents; expected a whole number from 1 to 19, 'agents' or 'areas'"),
    ("target: volt_var.v_pu", "target: volt_var.v_pu, scale: 0", 13, "connections[0].scale: found "
     "0; expected a size from 1e-9 to 1e+09, of either sign"),
    ("target: volt_var.v_pu", "target: volt_var.v_pu, scale: -1e308", 13, "connections[0].scale"),
    ("target: volt_var.v_pu", "target: volt_var.v_pu, noise: 1e308", 13, "connections[0].noise: "
     "found 1e+308; expected a number from 0 to 1000000000"),
    ("loss: 0.1", "loss: 1.5", 16, "links[0].loss: found 1.5; expected a number from 0 to 1"),
    ("loss: 0.1", "bits: 0", 16, "links[0].bits: found 0; expected a whole number from 1 to 32"),
    ("loss: 0.1", "bits: 4, bits_min: 0", 16, "expected both of bits_min and bits_max"),
    ("loss: 0.1", "bits_min: 0, bits_max: 1", 16, "expected bits beside bits_min"),
    ("loss: 0.1", "bits: 4, bits_min: 2, bits_max: 1", 16, "expected bits_min 2 below"),
    ("loss: 0.1", "privacy_epsilon: 1", 16, "expected both of privacy_epsilon and"),
    ("loss: 0.1", "privacy_epsilon: 0", 16, "links[0].privacy_epsilon: found 0"),
    ("loss: 0.1", "latency_s: 1e9", 16, "links[0].latency_s: found 1000000000.0; expected a "
     "number from 0 to 86400"),
    ("every: 1", "every: 1000000", 17, "record.every: found 1000000: of 10 steps only the first "
     "would be recorded; expected a whole number from 1 to 10"),
]  # fmt: skip


def _scenario(text: str) -> Scenario:
    return scenario_from(load_yaml(Path("my.yaml"), text))


def test_the_text_itself_is_in_order() -> None:
    Assembly(_scenario(TEXT)).assemble()


@pytest.mark.parametrize(("there", "written", "line", "words"), WRONG, ids=[w[1] for w in WRONG])
def test_a_value_beyond_what_is_plausible_is_refused(
    there: str, written: str, line: int, words: str
) -> None:
    with pytest.raises(FeederateError) as caught:
        Assembly(_scenario(TEXT.replace(there, written))).assemble()
    message = str(caught.value)
    assert message.startswith(f"my.yaml:{line}: ")
    assert words in message


@pytest.mark.parametrize("scale", [1e-9, 1e9, -1.0, 1000])
def test_a_scale_of_a_unit_is_accepted(scale: float) -> None:
    text = TEXT.replace("target: volt_var.v_pu", f"target: volt_var.v_pu, scale: {scale}")
    assert _scenario(text).wires[0].scale == scale


ATTACK = """\
id: a
seed: 0
steps:
  - id: s
    layer: signal
    target: {port: feeder.v_pu}
    trigger: {at_s: 0}
    action: {kind: bias, value: 0.1}
"""
WRONG_ATTACK = [
    ("seed: 0", "seed: 99999999999999999999", "seed: found 99999999999999999999; expected a whole"),
    ("at_s: 0", "at_s: -1", "steps[0].trigger.at_s: found -1; expected a number from 0"),
    ("at_s: 0", "at_s: 0}\n    duration_s: -5\n    conceal: []\n    #{", "duration_s: found -5"),
    ("value: 0.1", "value: 1e308", "action.value: found 1e+308; expected a number from -1000000000 "
     "to 1000000000"),
    ("port: feeder.v_pu", "port: feeder.v_pu, fraction: 7", "fraction: found 7; expected a number "
     "above 0 and of at most 1"),
    ("port: feeder.v_pu", "port: feeder.v_pu, count: 0", "count: found 0; expected a whole number "
     "of at least 1"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("there", "written", "words"), WRONG_ATTACK, ids=[w[1] for w in WRONG_ATTACK]
)
def test_so_is_one_of_an_attack(there: str, written: str, words: str) -> None:
    source: YamlSource = load_yaml(Path("my.yaml"), ATTACK.replace(there, written))
    with pytest.raises(ValidationError) as caught:
        AttackSpec.model_validate(source.data)
    message = str(schema_error(source, AttackSpec, caught.value))
    assert words in message
    assert isinstance(schema_error(source, AttackSpec, caught.value), ScenarioError)
