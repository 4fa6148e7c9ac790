"""Sections by kind: a key that a kind does not have is refused by file, line, key and name."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import get_args

import pytest

from federates.assembly.federation import Assembly
from federates.runs.runner import run
from federates.scenario.kinds import KINDS, federate_class, section_class
from federates.scenario.schema import Scenario, load_scenario, recorded_scenario, scenario_from
from federates.scenario.yaml_source import load_yaml
from grid_models.base.errors import FeederateError

TEXT = """\
seed: 1
time: {duration_s: 600, step_s: 60}
grid:
  model: ieee13
  ders:
    - {kind: pv, at: load_phases, total_kw: 1000}
federates:
  feeder:
    kind: feeder
  volt_var:
    kind: controller
    controller: volt-var-1547
  watch:
    kind: detector
    detector: cusum
  price:
    kind: signal
    options: {port: price, unit: "1", values: [[0, 1.0]], ders: ["pv_*"]}
  bench:
    kind: device
    devices: {"pv_675_*": simulated}
  plant:
    kind: circuit
  program:
    kind: external
    outputs: {p_kw: {unit: kW, labels: [a]}}
connections:
  - feeder.v_pu -> volt_var.v_pu
"""
# Line of each federate's first key in TEXT.
LINES = {
    "feeder": 9, "volt_var": 11, "watch": 14, "price": 17, "bench": 20, "plant": 23, "program": 25,
}  # fmt: skip

# federate, line to add to it, key that the message names, words of the message
WRONG = [
    # The five of the issue.
    ("feeder", "split: 3", "split", "did you mean 'kind: controller'?"),
    ("feeder", "controller: nonsense", "controller", "did you mean 'kind: controller'?"),
    ("feeder", "options: {foo: 1}", "options", "expected one of kind, period_s, offset_s, grid"),
    ("volt_var", "not_good: fail", "not_good", "did you mean 'kind: device'?"),
    ("volt_var", "detector: cusum", "detector", "did you mean 'kind: detector'?"),
    # Keys of other kinds, and typing errors.
    ("feeder", "perod_s: 3", "perod_s", "did you mean 'period_s'?"),
    ("feeder", "offset: 3", "offset", "did you mean 'offset_s'?"),
    ("feeder", "plant: feeder", "plant", "unknown key"),
    ("feeder", "devices: {a: simulated}", "devices", "did you mean 'kind: device'?"),
    ("feeder", "gird: {model: ieee13}", "gird", "did you mean 'grid'?"),
    ("feeder", "grid: {modle: ieee13}", "grid.modle", "did you mean 'model'?"),
    ("feeder", "grid: {profiles: {knd: clear}}", "grid.profiles.knd", "did you mean 'kind'?"),
    ("feeder", "grid: {ders: [{kind: pv, kww: 1}]}", "grid.ders[0]", "did you mean 'kw'?"),
    ("feeder", "grid: ieee13", "grid", "found 'ieee13'; expected a mapping"),
    ("feeder", "period_s: often", "period_s", "found 'often'; expected a number"),
    ("feeder", "offset_s: -1", "offset_s", "found -1; expected a number from 0 to 3200000000"),
    ("volt_var", "splitt: 2", "splitt", "did you mean 'split'?"),
    ("volt_var", "split: agent", "split", "found 'agent'; expected a whole number or 'agents'"),
    ("volt_var", "areas: 0", "areas", "found 0; expected a whole number of at least 1"),
    ("volt_var", "ders: pv_*", "ders", "found 'pv_*'; expected a list"),
    ("volt_var", "grid: {model: ieee13}", "grid", "did you mean 'kind: feeder'?"),
    ("volt_var", "plant: feedr", "plant", "did you mean 'feeder'?"),
    ("volt_var", "plant: watch", "plant", "no plant with a grid is called 'watch'"),
    ("volt_var", "option: {category: A}", "option", "did you mean 'options'?"),
    ("volt_var", "command: [x]", "command", "did you mean 'kind: external'?"),
    ("watch", "controller: none", "controller", "did you mean 'kind: controller'?"),
    ("watch", "options: {calibrate_s: soon}", "options.calibrate_s", "found 'soon'"),
    ("watch", "options: {calibrate_s: -5}", "options.calibrate_s", "a number of at least 0"),
    ("watch", "options: {clean_run: 5}", "options.clean_run", "found 5; expected text"),
    ("watch", "split: 2", "split", "did you mean 'kind: controller'?"),
    ("price", "port: price", "port", "unknown key"),
    ("price", "inputs: {}", "inputs", "did you mean 'kind: external'?"),
    ("bench", "not_god: hold", "not_god", "did you mean 'not_good'?"),
    ("bench", "not_good: helt", "not_good", "did you mean 'hold'?"),
    ("bench", "options: {power_facter: 1}", "options.power_facter", "did you mean 'power_factor'?"),
    ("bench", "options: {power_factor: 2}", "options.power_factor", "a number above 0 and of"),
    ("bench", "options: {settle_s: -1}", "options.settle_s", "a number from 0 to 3200000000"),
    ("bench", "options: {points: {p_kw: 3}}", "options.points.p_kw", "found 3; expected text"),
    ("plant", "grid: {model: ieee13}", "grid", "did you mean 'kind: feeder'?"),
    ("plant", "options: {circut: feeder24}", "options.circut", "did you mean 'circuit'?"),
    ("plant", "options: {loads: [{bus: a, time_s: 0}]}", "loads[0].load_pu", "key is missing"),
    ("plant", "options: {loads: [{buss: a}]}", "loads[0].buss", "did you mean 'bus'?"),
    ("program", "comand: [x]", "comand", "did you mean 'command'?"),
    ("program", "command: x", "command", "found 'x'; expected a list"),
    ("program", "plant: feeder", "plant", "unknown key"),
    ("program", "inputs: {a: {unit: kW}}", "inputs.a.labels", "required key is missing"),
    ("program", "inputs: {a: {unt: kW, labels: [b]}}", "inputs.a.unt", "did you mean 'unit'?"),
]  # fmt: skip


def _load(text: str) -> Scenario:
    return scenario_from(load_yaml(Path("my.yaml"), text))


def test_the_scenario_without_the_wrong_keys_is_accepted() -> None:
    assert set(_load(TEXT).federates) == set(LINES)


@pytest.mark.parametrize(("federate", "line", "key", "words"), WRONG)
def test_a_key_of_no_use_is_refused_with_file_line_and_name(
    federate: str, line: str, key: str, words: str
) -> None:
    lines = TEXT.splitlines()
    lines.insert(LINES[federate], f"    {line}")
    with pytest.raises(FeederateError) as caught:
        _load("\n".join(lines))
    message = str(caught.value)
    assert message.startswith(f"my.yaml:{LINES[federate] + 1}: federates.{federate}.")
    assert key in message
    assert words in message


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("feedr", "did you mean 'feeder'?"),
        ("json:JSONDecoder", "is not a federates.core.federate.Federate"),
        ("json:Decoder", "has no 'Decoder'"),
        ("no_such_module:X", "cannot be imported"),
        ("5", "found 5; expected text"),
    ],
)
def test_a_wrong_kind_is_refused_at_its_line(kind: str, words: str) -> None:
    with pytest.raises(FeederateError) as caught:
        _load(TEXT.replace("kind: circuit", f"kind: {kind}"))
    assert str(caught.value).startswith("my.yaml:23: federates.plant.kind: ")
    assert words in str(caught.value)


def test_every_kind_of_the_registry_has_its_class_and_section() -> None:
    for kind in KINDS:
        section = section_class(kind)
        assert get_args(section.model_fields["kind"].annotation) == (kind,)
        assert getattr(federate_class(kind), "Section", section) is section


TANK = '''
from typing import Literal
import numpy as np
from pydantic import Field
from federates.core.federate import Federate, Port, Step
from federates.scenario.kinds import FederateSection


class TankSection(FederateSection):
    """A water tank."""

    kind: Literal["tank:Tank"]
    volume_l: float = Field(gt=0)
    mode: Literal["eco", "boost"] = "eco"


class Tank(Federate):
    Section = TankSection

    def __init__(self, context):
        super().__init__(context)
        self._volume_l = context.section.volume_l
        self.outputs = (Port("level_l", "l", ("tank",)),)

    def step(self, time_s, inputs, mail):
        return Step({"level_l": np.array([self._volume_l - time_s])})


class Plain(Federate):
    def __init__(self, context, volume_l=10.0):
        super().__init__(context)

    def step(self, time_s, inputs, mail):
        return Step({})
'''
OWN = """\
time: {duration_s: 180, step_s: 60}
federates:
  tank:
    kind: tank:Tank
    volume_l: 200
"""


def _own(folder: Path, text: str) -> Path:
    (folder / "tank.py").write_text(TANK)
    (folder / "own.yaml").write_text(text)
    return folder / "own.yaml"


@pytest.mark.parametrize("placement", ["single", "process"])
def test_a_users_kind_brings_its_section(tmp_path: Path, placement: str) -> None:
    """A new kind is one file, the user's; the scenario names it. Nothing else is touched."""
    path = _own(tmp_path, OWN)
    result = run(load_scenario(path), out=tmp_path / "run", placement=placement)
    manifest = json.loads((result.folder / "manifest.json").read_text())
    assert manifest["scenario"]["federates"]["tank"]["mode"] == "eco"
    # A recorded run is read without the user's module.
    (tmp_path / "tank.py").unlink()
    assert recorded_scenario(manifest).federates["tank"].kind == "tank:Tank"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("volume_l: 200", "volume: 200", ["own.yaml:5: federates.tank.volume:", "'volume_l'?"]),
        ("volume_l: 200", "volume_l: -1", ["own.yaml:5: federates.tank.volume_l: found -1"]),
        ("volume_l: 200", "volume_l: 2\n    mode: bost", ["own.yaml:6:", "did you mean 'boost'?"]),
        (
            "tank:Tank\n    volume_l: 200",
            "tank:Plain\n    options: {volum_l: 5}",
            ["own.yaml:5: federates.tank.options.volum_l: unknown option", "'volume_l'?"],
        ),
        ("tank:Tank", "tank:Plain", ["own.yaml:5: federates.tank.volume_l: unknown key"]),
    ],
)
def test_a_users_kind_gets_the_same_errors(
    tmp_path: Path, old: str, new: str, words: list[str]
) -> None:
    path = _own(tmp_path, OWN.replace(old, new))
    with pytest.raises(FeederateError) as caught:
        Assembly(load_scenario(path)).build_all()
    for word in words:
        assert word in str(caught.value)


def test_a_shipped_kind_is_named_in_its_folder_and_in_the_registry_only() -> None:
    """A new shipped kind touches its own file and one row of `KINDS`.

    External programs are the exception: hosts start them and do not step them.
    """
    root = Path(federate_class.__code__.co_filename).parents[1]
    names = {
        path: {n.id for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Name)}
        for path in root.rglob("*.py")
        if not path.is_relative_to(root / "kinds")
    }
    classes = {row.federate.partition(":")[2] for name, row in KINDS.items() if name != "external"}
    assert not {path: classes & found for path, found in names.items() if classes & found}
