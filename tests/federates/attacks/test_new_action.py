"""An action of one's own: one class in one module, named in an attack file, run as those that ship.

`Wobble` is all that a new action of the signal layer needs: options, words and behaviour. One that
ships adds its line to `ACTIONS`; this one is named as ``module:Class``.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from federates.attacks.truth import read_truth
from federates.cli import call
from federates.errors import FeederateError
from federates.runs.runner import run
from federates.scenario.attack_actions import ACTIONS, RECORDED, Action, shipped_actions
from federates.scenario.attack_files import load_attack
from federates.scenario.attack_schema import AttackSpec
from federates.scenario.schema import load_scenario

MODULE = """\
import numpy as np
from pydantic import Field, PrivateAttr

from federates.attacks.link.action import LinkAction
from federates.attacks.physical.action import LOAD_KW, PhysicalAction
from federates.attacks.signal.action import SignalAction


class Wobble(SignalAction):
    \"\"\"Adds a sine wave.\"\"\"

    amplitude: float = Field(description="In the unit of the port.")
    period_s: float = Field(60.0, gt=0)
    _n_targets: int = PrivateAttr(0)

    def describe(self, unit=""):
        return f"adds a sine of {self.amplitude:g} {unit}"

    def prepare(self, site, draws):
        self._n_targets = len(site.targets)

    def apply(self, sample, true):
        assert true.size == self._n_targets
        return true + self.amplitude * np.sin(2 * np.pi * sample.elapsed_s / self.period_s)


class Negate(LinkAction):
    def act(self, batch, at, draws):
        batch.write(batch.numbers(at), -batch.values[batch.numbers(at)])
        return at


class KettleOn(PhysicalAction):
    kinds = ("load",)
    kinds_text = "loads"
    port_name = LOAD_KW

    def values(self, labels, elements):
        return np.full(len(labels), 2.0)


class Nothing:
    pass
"""
SCENARIO = """\
time: {start_s: 43200, duration_s: 120, step_s: 10}
grid:
  model: ieee13
  ders: [{kind: pv, at: load_phases, total_kw: 1000, kva_per_kw: 1.2}]
federates:
  feeder: {kind: feeder}
  volt_var: {kind: controller, controller: optdist-vc}
connections:
  - feeder.v_pu -> volt_var.v_pu
  - volt_var.q_set_kvar -> feeder.q_set_kvar
"""
ATTACK = """\
id: own
steps:
  - id: wobble
    layer: signal
    target: {port: volt_var.v_pu, labels: ["671.1"]}
    trigger: {at_s: 30}
    duration_s: 60
    action: {kind: "MODULE:Wobble", amplitude: 0.02}
  - id: negate
    layer: link
    target: {links: ["*"], count: 1}
    trigger: {at_s: 30}
    action: {kind: "MODULE:Negate"}
  - id: kettle
    layer: physical
    target: {elements: [load.load_671c]}
    trigger: {at_s: 50}
    action: {kind: "MODULE:KettleOn"}
"""
Study = Callable[..., Path]


@pytest.fixture
def study(tmp_path: Path, request: pytest.FixtureRequest) -> Study:
    """Write scenario, module and attack into one folder; return the attack's path."""
    name = f"own_{abs(hash(request.node.nodeid))}"  # modules of a process are imported once

    def write(found: str = "", instead: str = "") -> Path:
        assert found in ATTACK
        (tmp_path / f"{name}.py").write_text(MODULE)
        (tmp_path / "study.yaml").write_text(SCENARIO)
        path = tmp_path / "own.yaml"
        path.write_text(ATTACK.replace(found, instead).replace("MODULE", name))
        return path

    return write


def test_an_action_of_ones_own_runs_on_every_layer(study: Study) -> None:
    attack = study()
    scenario = load_scenario(attack.parent / "study.yaml", attack=str(attack))
    folder = run(scenario, out=attack.parent / "run", placement="single").folder
    rows = read_truth(folder).to_pylist()
    wobble = {r["time_s"]: r["seen_value"] - r["true_value"] for r in rows if r["step"] == "wobble"}
    # At 0 s of the period the sine adds nothing, at half of it next to nothing.
    expected = {30.0 + t: 0.02 * np.sin(2 * np.pi * t / 60.0) for t in (10, 20, 30, 40, 50)}
    assert wobble == pytest.approx({t: expected[t] for t in wobble}, abs=1e-12)
    assert {40.0, 50.0, 70.0, 80.0} <= wobble.keys() <= expected.keys()
    negated = [r for r in rows if r["step"] == "negate"]
    assert negated
    assert all(r["seen_value"] == -r["true_value"] for r in negated)
    assert {r["seen_value"] for r in rows if r["step"] == "kettle"} == {2.0}


def test_the_process_of_a_federate_finds_the_module(study: Study) -> None:
    attack = study()
    results = [
        run(
            load_scenario(attack.parent / "study.yaml", attack=str(attack)),
            out=attack.parent / placement,
            placement=placement,
        ).folder
        for placement in ("single", "process")
    ]
    single, process = (
        {path.name: path.read_bytes() for path in (folder / "attack").iterdir()}
        for folder in results
    )
    assert single == process
    assert call(["replay", str(results[0]), "--out", str(attack.parent / "again")]) == 0


def test_its_words_are_in_the_explanation(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    attack = study()
    assert call(["attack", "explain", str(attack), str(attack.parent / "study.yaml")]) == 0
    said = capsys.readouterr().out
    assert "adds a sine of 0.02 pu" in said
    assert "1 element: load.load_671c" in said


@pytest.mark.parametrize(
    ("found", "instead", "words"),
    [
        ("amplitude: 0.02", "amplitud: 0.02", ["action.amplitud: unknown key", "'amplitude'"]),
        ("amplitude: 0.02", "amplitude: x", ["action.amplitude: found 'x'; expected a number"]),
        (":Wobble", ":Wobbly", ["action.kind: ", "has no 'Wobbly'", "did you mean 'Wobble'?"]),
        ('Wobble", amplitude: 0.02', 'Nothing"', ["is no action", "SignalAction"]),
        ('Wobble", amplitude: 0.02', 'Negate"', ["signal.action.SignalAction"]),
        ("load.load_671c", "line.*", ["does not apply to line.", "expected loads"]),
    ],
)
def test_a_mistake_is_named_as_with_those_that_ship(
    study: Study, found: str, instead: str, words: list[str]
) -> None:
    attack = study(found, instead)

    def go() -> None:
        scenario = load_scenario(attack.parent / "study.yaml", attack=str(attack))
        run(scenario, out=attack.parent / "run", placement="single")

    with pytest.raises(FeederateError) as caught:
        go()
    for word in ["own.yaml:", *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize("layer", ACTIONS)
def test_every_shipped_action_is_named_as_in_the_table(layer: str) -> None:
    for name, action in zip(ACTIONS[layer], shipped_actions(layer), strict=True):
        kind: Any = action.model_fields["kind"].annotation
        assert (kind.__args__, action.layer) == ((name,), layer)
        assert action.words or action.describe is not Action.describe


def test_an_attack_can_be_sent_to_a_process(study: Study) -> None:
    spec = load_attack(study())
    again = pickle.loads(pickle.dumps(spec))
    assert isinstance(again, AttackSpec)
    assert again.model_dump() == spec.model_dump()


def test_the_action_of_the_page_runs_as_it_stands(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "attacks.md").read_text(encoding="utf-8")
    module, action = re.findall(r"```(?:python|yaml)\n(# my_actions.*?|action: .*?)```", page, re.S)
    (tmp_path / "my_actions.py").write_text(module)
    (tmp_path / "study.yaml").write_text(SCENARIO)
    (tmp_path / "own.yaml").write_text(ATTACK.split("  - id: negate")[0])
    text = (tmp_path / "own.yaml").read_text().splitlines()
    (tmp_path / "own.yaml").write_text("\n".join([*text[:-1], f"    {action}"]))
    scenario = load_scenario(tmp_path / "study.yaml", attack=str(tmp_path / "own.yaml"))
    folder = run(scenario, out=tmp_path / "run", placement="single").folder
    assert read_truth(folder).num_rows >= 4


def test_a_recorded_attack_is_shown_also_where_its_module_is_gone(study: Study) -> None:
    data = load_attack(study()).model_dump(mode="json")
    data["steps"][0]["action"]["kind"] = "gone:Wobble"
    spec = AttackSpec.model_validate(data, context={RECORDED: True})
    assert spec.steps[0].action.describe() == "gone:Wobble amplitude 0.02, period_s 60.0"
    with pytest.raises(ValidationError, match="module 'gone' cannot be imported"):
        AttackSpec.model_validate(data)
