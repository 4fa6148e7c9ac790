"""The command line of attacks: what it explains, what it refuses, what it writes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from federates.cli import call
from federates.commands.attack import pair
from federates.scenario.attack_files import shipped_attacks
from federates.scenario.schema import shipped_dir
from grid_models.base.yaml_lines import parse_yaml

SCENARIO = """\
title: small
time: {start_s: 43200, duration_s: 600, step_s: 15}
grid:
  model: ieee13
  ders: [{kind: pv, at: load_phases, total_kw: 3000, kva_per_kw: 1.1}]
federates:
  feeder: {kind: feeder}
  volt_var: {kind: controller, controller: volt-var-1547}
connections:
  - feeder.v_pu -> volt_var.v_pu
  - volt_var.q_set_kvar -> feeder.q_set_kvar
"""
ATTACK = """\
id: lies
scenario: study.yaml
techniques: [T0856]
steps:
  - id: bias
    layer: signal
    target: {port: volt_var.v_pu, labels: ["671.*"]}
    trigger: {at_s: 60}
    duration_s: 120
    action: {kind: bias, value: 0.02}
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a folder with a scenario and an attack on it."""
    (tmp_path / "study.yaml").write_text(SCENARIO)
    (tmp_path / "lies.yaml").write_text(ATTACK)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_explain_says_what_would_happen_before_anything_does(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["attack", "explain", "lies.yaml"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for words in (
        "T0856 Spoof Reporting Message",
        "at 12:01 (60 s), for 2 min",
        "3 labels of feeder.v_pu: 671.1, 671.2, 671.3",
        "read as volt_var.v_pu",
        "adds 0.02 pu",
        "nothing was started",
    ):
        assert words in said
    assert not (here / "runs").exists()


def test_explain_as_json_is_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["attack", "explain", "lies.yaml", "study.yaml", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["attack"] == "lies"
    (step,) = data["steps"]
    (touched,) = step["touches"]
    assert touched == {
        "what": "labels of feeder.v_pu",
        "names": ["671.1", "671.2", "671.3"],
        "unit": "pu",
        "readers": ["volt_var.v_pu"],
    }


def test_check_says_that_it_fits(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["attack", "check", "lies.yaml", "study.yaml"]) == 0
    assert "fits: lies on study" in capsys.readouterr().out


def test_the_two_files_are_told_apart_by_what_they_hold() -> None:
    both = ("study.yaml", "lies.yaml")
    assert pair("lies.yaml", "study.yaml", ("attack", "scenario")) == both
    assert pair("study.yaml", "lies.yaml", ("attack", "scenario")) == both
    assert pair("study.yaml", "lies.yaml", ("scenario", "attack")) == both
    assert pair("study.yaml", None, ("attack", "scenario")) == ("study.yaml", None)
    scenario, attack = pair("lies.yaml", None, ("scenario", "attack"))
    assert (Path(scenario).name, attack) == both
    assert pair("voltvar-ieee13", "false-voltage", ("attack", "scenario")) == (
        "voltvar-ieee13",
        "false-voltage",
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["study.yaml"], "names no attack"),
        (["false-voltag"], "did you mean 'false-voltage'?"),
        (["lies.yaml", "study.yml"], "did you mean"),
    ],
)
def test_a_file_that_is_not_there_is_exit_code_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["attack", "check", *arguments]) == 2
    said = capsys.readouterr().err
    assert words in said or "no such file" in said


def test_an_attack_without_a_scenario_asks_for_one(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "lies.yaml").write_text(ATTACK.replace("scenario: study.yaml\n", ""))
    assert call(["attack", "run", "lies.yaml"]) == 2
    assert "names no scenario" in capsys.readouterr().err


OTHER_STEP = """\
  - id: other
    layer: signal
    target: {port: volt_var.v_pu, labels: ["671.1"]}
    trigger: {at_s: 100}
    duration_s: 30
    action: {kind: freeze}
"""


@pytest.mark.parametrize(
    ("found", "instead", "line", "words"),
    [
        ("671.*", "699.*", 7, "no label of volt_var.v_pu matches '699.*'"),
        ("volt_var.v_pu", "volt_var.v_p", 7, "did you mean 'volt_var.v_pu'?"),
        ("at_s: 60", "at_s: 6000", 8, "the run ends at 600 s"),
        ("duration_s: 120", "duration_s: -1", 9, "found -1"),
        ("T0856", "T0857x", 3, "did you mean 'T0857'"),
        ("kind: bias", "kind: bais", 10, "for layer signal; did you mean 'bias'?"),
        ("kind: bias, value: 0.02", "kind: trip", 10, "found 'trip'; expected one of bias"),
        ("value: 0.02", "valu: 0.02", 10, "did you mean 'value'?"),
        ("layer: signal", "layer: signals", 6, "expected one of signal, link, modbus, physical"),
        ("duration_s: 120", "duration: 120", 9, "did you mean 'duration_s'?"),
        ("at_s: 60", "after: base", 8, "no step is called 'base'"),
        ("at_s: 60", "at_s: 60, after: bias", 8, "exactly one of at_s, when, after"),
        ("at_s: 60", "when: {signal: feeder.v_p, above: 1}", 8, "did you mean 'feeder.v_pu'?"),
        ("at_s: 60", "when: {signal: feeder.v_pu, between: [2, 1]}", 8, "low below high"),
        ("value: 0.02}\n", "value: 0.02}\n" + OTHER_STEP, 11, "'other' and 'bias' both act on"),
    ],
)
def test_a_bad_attack_file_is_exit_code_2_with_its_line(
    here: Path,
    capsys: pytest.CaptureFixture[str],
    found: str,
    instead: str,
    line: int,
    words: str,
) -> None:
    assert found in ATTACK
    (here / "lies.yaml").write_text(ATTACK.replace(found, instead))
    assert call(["attack", "check", "lies.yaml", "study.yaml"]) == 2
    said = capsys.readouterr().err
    assert f"lies.yaml:{line}: " in said
    assert words in said
    assert "Traceback" not in said


def test_the_schema_of_attacks_holds_for_what_ships(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["schema", "attack"]) == 0
    validator = Draft202012Validator(json.loads(capsys.readouterr().out))
    for path in shipped_attacks(shipped_dir()).values():
        assert list(validator.iter_errors(parse_yaml(path.read_text())[0])) == [], path
    assert call(["schema"]) == 0
    assert "federates" in json.loads(capsys.readouterr().out)["properties"]


def test_list_names_every_attack(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["list"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in shipped_attacks(shipped_dir()))


def test_a_new_attack_fits_its_scenario_and_is_not_overwritten(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["new", "attack", "mine"]) == 0
    assert "feederate attack run mine.yaml" in capsys.readouterr().out
    assert call(["attack", "check", "mine.yaml"]) == 0
    assert "fits: mine on voltvar-ieee13" in capsys.readouterr().out
    assert call(["new", "attack", "mine"]) == 2
    assert call(["new", "attack", "3 of them"]) == 2


def test_the_bench_attack_of_its_page_fits_the_device_it_is_for(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[3] / "docs" / "attacks-modbus.md").read_text("utf-8")
    text = re.findall(r"```yaml\n(id: throttle\n.*?)```", page, re.DOTALL)[0]
    (here / "throttle.yaml").write_text(text)
    words = ["attack", "mitm", "throttle.yaml", "--device", "sunspec-inverter"]
    # Whatever does not fit is said before the device is looked for, and here there is none.
    assert call([*words, "--target", "127.0.0.1:1"]) == 2
    assert capsys.readouterr().err.startswith("error: cannot connect to 127.0.0.1:1")
    (here / "throttle.yaml").write_text(text.replace("p_limit_enable", "w_limit_on"))
    assert call([*words, "--target", "127.0.0.1:1"]) == 2
    assert "no point 'w_limit_on'" in capsys.readouterr().err
