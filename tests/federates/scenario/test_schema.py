"""Scenario files: what is read, and every kind of bad input said in the user's terms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from federates.core.sites import GridSite
from federates.errors import ScenarioError
from federates.scenario.kinds import KINDS
from federates.scenario.schema import Scenario, load_scenario, scenario_from, shipped_scenarios
from federates.scenario.sections import Connection
from federates.scenario.yaml_source import load_yaml
from grid_models.base.errors import FeederateError

TEXT = """\
title: a test
seed: 1
time: {duration_s: 600, step_s: 60}
grid:
  model: ieee13
  ders:
    - {kind: pv, at: load_phases, total_kw: 1000}
federates:
  feeder: {kind: feeder}
  volt_var: {kind: controller, controller: volt-var-1547}
connections:
  - feeder.v_pu -> volt_var.v_pu
  - volt_var.q_set_kvar -> feeder.q_set_kvar
"""


def _load(text: str, *overrides: str, seed: int | None = None) -> Scenario:
    return scenario_from(load_yaml(Path("my.yaml"), text), overrides, seed=seed)


def _problem(text: str, *overrides: str) -> str:
    with pytest.raises(FeederateError) as caught:
        _load(text, *overrides)
    return str(caught.value)


def test_a_good_scenario_is_read_with_its_defaults(tmp_path: Path) -> None:
    path = tmp_path / "my-study.yaml"
    path.write_text(TEXT)
    scenario = load_scenario(path)
    assert (scenario.name, scenario.base_dir) == ("my-study", tmp_path.resolve())
    assert (scenario.n_steps, scenario.step_ns) == (10, 60_000_000_000)
    assert scenario.connections[0] == Connection(source="feeder.v_pu", target="volt_var.v_pu")
    resolved = json.loads(json.dumps(scenario.resolved(), allow_nan=False))
    assert resolved["band"] == {"v_min_pu": 0.95, "v_max_pu": 1.05}
    assert resolved["grid"]["model"] == "ieee13"


def test_every_shipped_scenario_is_valid() -> None:
    for name in shipped_scenarios():
        assert load_scenario(name).name == name


def test_the_schema_is_exported_and_describes_rules_and_sections() -> None:
    schema = Scenario.model_json_schema()
    assert schema["additionalProperties"] is False
    assert {"Time", "Grid", "FeederSection", "UserSection", "LinkRule"} <= set(schema["$defs"])
    (shipped, of_users) = next(
        iter(schema["properties"]["federates"]["patternProperties"].values())
    )["anyOf"]
    assert set(shipped["discriminator"]["mapping"]) == set(KINDS)
    assert of_users == {"$ref": "#/$defs/UserSection"}
    assert "fraction" in json.dumps(schema["$defs"]["Grid"]["properties"]["ders"])


def _changed(old: str, new: str) -> str:
    assert old in TEXT
    return TEXT.replace(old, new, 1)


# what is wrong -> (text, line of my.yaml, words of the message in order)
BAD: dict[str, tuple[str, int | None, list[str]]] = {
    "unknown key at the top": (
        _changed("seed: 1", "sead: 1"), 2, ["sead: unknown key", "did you mean 'seed'?"],
    ),
    "unknown key in a section": (
        _changed("  model: ieee13", "  modle: ieee13"), 5,
        ["grid.modle: unknown key", "expected one of model,", "did you mean 'model'?"],
    ),
    "unknown key of a federate": (
        _changed("{kind: feeder}", "{kind: feeder, perod_s: 3}"), 9,
        ["federates.feeder.perod_s: unknown key", "did you mean 'period_s'?"],
    ),
    "unknown key of a DER rule": (
        _changed("total_kw", "totl_kw"), 7, ["grid.ders[0]", "totl_kw", "did you mean 'total_kw'?"],
    ),
    "unknown key of a connection": (
        TEXT.replace("- feeder.v_pu -> volt_var.v_pu", "- {source: a.b, target: c.d, nois: 3}"), 12,
        ["connections[0].nois: unknown key", "did you mean 'noise'?"],
    ),
    "text for a number": (
        _changed("step_s: 60", "step_s: often"), 3,
        ["time.step_s: found 'often'; expected a number"],
    ),
    "yes for a number": (
        _changed("seed: 1", "seed: yes"), 2, ["seed: found true; expected a whole number"],
    ),
    "quoted number": (
        _changed("seed: 1", "seed: '1'"), 2, ["seed: found '1'; expected a whole number"],
    ),
    "fraction for a whole number": (
        _changed("seed: 1", "seed: 1.5"), 2, ["seed: found 1.5; expected a whole number"],
    ),
    "number for text": (_changed("title: a test", "title: 5"), 1, ["found 5; expected text"]),
    "nothing for a section": (
        _changed("time: {duration_s: 600, step_s: 60}", "time:"), 3,
        ["time: found nothing; expected a mapping"],
    ),
    "list for a section": (
        _changed("time: {duration_s: 600, step_s: 60}", "time: [600, 60]"), 3,
        ["time: found [600, 60]; expected a mapping"],
    ),
    "text for a list": (
        TEXT + "record: {ports: v_pu}\n", 14, ["record.ports: found 'v_pu'; expected a list"],
    ),
    "number for a connection": (
        _changed("- feeder.v_pu -> volt_var.v_pu", "- 5"), 12,
        ["connections[0]: found 5; expected a mapping", "or text"],
    ),
    "wrong arrow": (
        _changed("v_pu -> volt_var", "v_pu > volt_var"), 12,
        ["connections[0]: 'feeder.v_pu > volt_var.v_pu' is not 'federate.port -> federate.port'"],
    ),
    "unknown split": (
        _changed("volt-var-1547", "volt-var-1547, split: agent"), 10,
        ["split: found 'agent'; expected a whole number or 'agents', 'areas' or 'levels'"],
    ),
    "split into none": (_changed("volt-var-1547", "volt-var-1547, split: 0"), 10, ["found 0"]),
    "NaN": (_changed("600", ".nan"), 3, ["duration_s: found nan; expected a finite number"]),
    "infinity": (_changed("600", ".inf"), 3, ["duration_s: found inf; expected a finite number"]),
    "NaN in an option": (
        _changed("volt-var-1547", "volt-var-1547, options: {gain: .nan}"), 10,
        ["federates.volt_var.options", "expected text, finite numbers"],
    ),
    "negative duration": (_changed("600", "-5"), 3, ["found -5; expected a number from"]),
    "duration beyond integer time": (_changed("600", "1e300"), 3, ["found 1e+300; expected a"]),
    "too many steps": (
        _changed("600, step_s: 60", "1e6, step_s: 1e-6"), 3, ["1e+12 steps; expected at most"],
    ),
    "a federate that never steps": (
        _changed("volt-var-1547", "volt-var-1547, offset_s: 600"), 10,
        ["federates.volt_var.offset_s: never steps", "less than duration_s = 600"],
    ),
    "probability above one": (
        TEXT + "links:\n  - {loss: 1.5}\n", 15, ["loss: found 1.5; expected a number from 0 to 1"],
    ),
    "upside-down band": (
        TEXT + "band: {v_min_pu: 1.1, v_max_pu: 0.9}\n", 14, ["v_min_pu is not below v_max_pu"],
    ),
    "name with a blank": (
        _changed("  feeder: {", "  fee der: {"), 9, ["found 'fee der'; expected letters, digits"],
    ),
    "no federates": (_changed("federates:", "federates: {}\nfed:"), 8, ["federates: found {}"]),
    "duplicate key": (TEXT + "seed: 3\n", 14, ["key 'seed' is given twice"]),
    "duplicate federate": (
        _changed("  volt_var: {", "  feeder: {"), 10, ["key 'feeder' is given twice"],
    ),
    "duplicate key in flow style": (
        _changed("step_s: 60", "step_s: 60, step_s: 30"), 3, ["key 'step_s' is given twice"],
    ),
    "key that is not text": ("1: 2\n" + TEXT, 1, ["a key must be text, found 1"]),
    "key that is a list": ("? [1]\n: 2\n" + TEXT, 1, ["a key must be text, found [1]"]),
    "unclosed bracket": ("a: [1, 2\n", None, ["my.yaml:"]),
    "tab": ("\ttitle: x\n", 1, ["a tab where a value"]),
    "endless alias": ("x: &a {b: *a}\n", 1, ["recursive"]),
    "empty": ("", None, ["my.yaml: the file is empty; expected a YAML mapping"]),
    "only comments": ("# nothing\n", None, ["my.yaml: the file is empty"]),
    "a list": ("[1, 2]\n", None, ["my.yaml: holds a list; expected a YAML mapping"]),
    "missing key": (
        _changed("kind: feeder", "period_s: 5"), 9, ["federates.feeder.kind: required key is"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_bad_input_names_line_key_found_and_expected(what: str) -> None:
    text, line, words = BAD[what]
    message = _problem(text)
    if line is not None:
        assert f"my.yaml:{line}" in message
    position = 0
    for word in words:
        assert word in message[position:], message
        position = message.index(word, position)
    assert "pydantic" not in message


def test_all_problems_are_listed_at_once() -> None:
    text = TEXT.replace("seed: 1", "sed: 1").replace("600", "-1").replace("model:", "modell:")
    lines = _problem(text).splitlines()
    assert [line.split(":")[1] for line in lines] == ["2", "3", "5"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x80\x81\xff", "not a text file (byte 0 is not UTF-8); expected a YAML file"),
        (b"title: \x00", "not a text file (contains NUL)"),
        (b"", "the file is empty"),
    ],
)
def test_binary_and_empty_files(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    with pytest.raises(ScenarioError, match=r"x\.yaml") as caught:
        load_scenario(path)
    assert words in str(caught.value)


def test_missing_file_names_the_nearest_shipped_scenario(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="did you mean 'voltvar-ieee123-droop'"):
        load_scenario("voltvar-ieee132-drop")
    with pytest.raises(ScenarioError, match="is a folder"):
        load_scenario(tmp_path)


def test_set_of_a_size_replaces_the_other_size_of_a_rule() -> None:
    rule = load_scenario("voltvar-ieee123", ["grid.ders.0.total_kw=3000"]).grid.ders[0]
    assert rule["total_kw"] == 3000
    assert "kw_per_load_kw" not in rule
    both = ["grid.ders.0.total_kw=3000", "grid.ders.0.total_kva=3300"]
    rule = load_scenario("voltvar-ieee123", both).grid.ders[0]
    assert (rule["total_kw"], rule["total_kva"]) == (3000, 3300)


def test_shipped_scenarios_size_their_ders_by_the_feeder(tmp_path: Path) -> None:
    small = tmp_path / "small.dss"
    small.write_text(
        "new circuit.small basekv=11 bus1=s\nnew line.l bus1=s bus2=b length=1 r1=0.1 x1=0.1\n"
        "new load.b bus1=b kv=11 kw=55 kvar=10\nset voltagebases=[11]\ncalcvoltagebases\n"
    )
    names = [n for n in shipped_scenarios() if n.startswith(("voltvar-", "dmpc-ieee"))]
    assert len(names) > 10
    for name in names:
        site = GridSite(load_scenario(name, [f"grid.model={small}"]), None)
        assert 0.0 < sum(der.p_max_kw for der in site.feeder.ders) < 3 * 55.0, name


def test_set_changes_keys_lists_and_new_sections() -> None:
    scenario = _load(
        TEXT,
        "time.step_s=1e1",
        "grid.ders[0].total_kw=500",
        "grid.profiles.kind=cloudy",
        "connections.0=feeder.v_pu -> volt_var.v_pu",
        "federates.volt_var.options={category: A}",
        "title=a=b",
    )
    assert scenario.time.step_s == 10.0
    assert scenario.grid.ders[0]["total_kw"] == 500
    assert scenario.grid.profiles.kind == "cloudy"
    assert scenario.federates["volt_var"].options == {"category": "A"}
    assert scenario.title == "a=b"
    assert _load(TEXT, "seed=5", seed=7).seed == 7


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("time.step_s", "not of the form key=value"),
        ("=3", "not of the form key=value"),
        ("a..b=3", "not of the form key=value"),
        ("grid.modle=x", "unknown key"),
        ("time.step_s=abc", "found 'abc'; expected a number"),
        ("time=3", "found 3; expected a mapping"),
        ("seed=", "found nothing; expected a whole number"),
        ("seed=[1", "is not a YAML value"),
        ("title.x=3", "'title' is not a section"),
        ("grid.ders[7].total_kw=3", "'7' is not an entry of grid.ders; expected a number below 1"),
        ("grid.ders.first=3", "'first' is not an entry of grid.ders"),
        ("connections[0]=x", "'x' is not 'federate.port -> federate.port'"),
        ("band.v_min_pu=1.4", "v_min_pu is not below v_max_pu"),
        ("grid.ders.².total_kw=3", "'²' is not an entry of grid.ders"),
        pytest.param(
            f"grid.ders.{'9' * 5000}.total_kw=3", "is not an entry of grid.ders", id="huge-1"
        ),
        pytest.param(
            f"grid.ders[{'9' * 5000}].total_kw=3", "not of the form key=value", id="huge-2"
        ),
        ("title=2024-13-01", "is not a YAML value: '2024-13-01' is not a date"),
        ("time.step_s=0:10", "found '0:10'; expected a number"),
    ],
)
def test_an_error_made_on_the_command_line_is_said_there(override: str, words: str) -> None:
    message = _problem(TEXT, override)
    assert message.startswith(f"--set {override}:")
    assert words in message


def test_set_leaves_the_line_numbers_of_other_errors() -> None:
    message = _problem(TEXT.replace("seed: 1", "sed: 1"), "grid.ders[0].total_kw=5")
    assert "my.yaml:2: sed: unknown key" in message


def test_an_error_of_a_rule_says_what_the_command_line_changed_in_it() -> None:
    message = _problem(TEXT, "grid.ders[0].total_kw=.nan")
    assert message.startswith("my.yaml:7: grid.ders[0] (with --set grid.ders[0].total_kw=.nan): ")
    assert "option 'total_kw': nan is not accepted" in message


json_like: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = [
    "title", "seed", "time", "time.step_s", "grid", "grid.ders", "grid.ders[0]", "grid.profiles",
    "grid.taps", "band", "federates", "federates.feeder", "federates.volt_var.split",
    "federates.volt_var.options", "connections", "connections[1]", "links", "record",
]  # fmt: skip


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=150)
@given(st.sampled_from(KEYS), json_like)
def test_any_value_anywhere_is_accepted_or_a_clean_error(key: str, value: Any) -> None:
    source = load_yaml(Path("my.yaml"), TEXT)
    text = json.dumps(value)  # also a YAML value, but for NaN, which is text there
    try:
        scenario = scenario_from(source, [f"{key}={text}"])
    except FeederateError:
        pass  # any other exception fails the test
    else:
        json.dumps(scenario.resolved(), allow_nan=False)


@settings(deadline=None)
@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=60))
def test_any_text_is_accepted_or_a_clean_error(text: str) -> None:
    with pytest.raises(FeederateError):
        _load(text)  # nothing this short is a scenario


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60))
def test_any_bytes_are_a_clean_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    with pytest.raises(FeederateError):
        load_scenario(path)


ATTACK = """\
id: {id}
steps:
  - id: s
    layer: signal
    trigger: {{at_s: 0}}
    target: {{port: volt_var.v_pu}}
    action: {{kind: drop}}
"""


def test_an_attack_that_a_scenario_names_lies_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not where the user happens to stand; what the user types himself is looked up there."""
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    for folder in (project, elsewhere):
        (folder / "attacks").mkdir(parents=True)
        (folder / "attacks" / "a.yaml").write_text(ATTACK.format(id=folder.name))
    (project / "s.yaml").write_text(TEXT + "attack: attacks/a.yaml\n")
    (project / "plain.yaml").write_text(TEXT)
    monkeypatch.chdir(elsewhere)

    def attack_of(name: str, *sets: str, attack: str | None = None) -> str:
        spec = load_scenario(project / name, sets, attack=attack).attack_spec
        return spec.id if spec is not None else ""

    assert attack_of("s.yaml") == "project"
    assert attack_of("s.yaml", attack="attacks/a.yaml") == "elsewhere"
    assert attack_of("s.yaml", "attack=attacks/a.yaml") == "elsewhere"
    assert attack_of("s.yaml", attack=str(project / "attacks" / "a.yaml")) == "project"
    assert attack_of("plain.yaml", "attack=false-voltage") == "false-voltage"
    (project / "attacks" / "a.yaml").unlink()
    with pytest.raises(ScenarioError, match=r"s\.yaml:\d+: attack: no file '.*project/attacks/a"):
        load_scenario(project / "s.yaml")
