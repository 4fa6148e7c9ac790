"""From a scenario to federates: names, timing, splits, and users' own classes."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from federates.assembly.federation import Assembly
from federates.clock import Timing
from federates.scenario.schema import Scenario, load_scenario
from grid_models.base.errors import FeederateError

TEXT = """\
time: {{duration_s: 600, step_s: 60}}
grid:
  model: ieee13
  ders:
    - {{kind: pv, at: load_phases, total_kw: 1000}}
federates:
  feeder: {{kind: feeder}}
  ctrl: {{kind: controller, controller: volt-var-1547{ctrl}}}
{more}connections:
  - feeder.v_pu -> ctrl.v_pu
  - ctrl.q_set_kvar -> feeder.q_set_kvar
"""


def _scenario(folder: Path, ctrl: str = "", more: str = "") -> Scenario:
    path = folder / "s.yaml"
    path.write_text(TEXT.format(ctrl=ctrl, more=more))
    return load_scenario(path)


def test_feeder_on_the_step_and_others_half_a_step_later(tmp_path: Path) -> None:
    assembly = Assembly(_scenario(tmp_path, ", period_s: 120, offset_s: 7"))
    assert assembly.timing("feeder") == Timing(60_000_000_000, 0)
    assert assembly.timing("ctrl") == Timing(120_000_000_000, 7_000_000_000)
    assert Assembly(_scenario(tmp_path)).timing("ctrl") == Timing(60_000_000_000, 30_000_000_000)


@pytest.mark.parametrize("split", ["2", "5", "agents", "areas"])
def test_a_split_hosts_every_agent_once_in_order(tmp_path: Path, split: str) -> None:
    whole = Assembly(_scenario(tmp_path))
    (one,) = [i for i in whole.instances if i.group == "ctrl"]
    assembly = Assembly(_scenario(tmp_path, f", split: {split}"))
    parts = [i for i in assembly.instances if i.group == "ctrl"]
    assert [p.name for p in parts] == [f"ctrl_{i + 1}" for i in range(len(parts))]
    hosted = [agent for part in parts for agent in part.agents]
    assert sorted(hosted) == sorted(one.agents)
    order = {agent: i for i, agent in enumerate(one.agents)}
    for part in parts:
        assert part.agents == tuple(sorted(part.agents, key=order.__getitem__))
    if split == "agents":
        assert len(parts) == len(one.agents)
    wirings = assembly.wire(assembly.build_all())
    assert len(wirings["feeder"].feeds["q_set_kvar"]) == len(parts)


@pytest.mark.parametrize(
    ("ctrl", "more", "words"),
    [
        ("", "  feedr: {kind: feedr}\n", "no such federate kind"),
        ("", "  mine: {kind: 'no_such_module:X'}\n", "module 'no_such_module' cannot be imported"),
        ("", "  mine: {kind: 'json:Nothing'}\n", "has no 'Nothing'"),
        ("", "  mine: {kind: 'json:JSONDecoder'}\n", "is not a federates.core.federate.Federate"),
        ("", "  ctrl_2: {kind: feeder}\n", None),
        (", split: 2", "  ctrl_2: {kind: feeder}\n", "two federates are called 'ctrl_2'"),
        (", split: 1000", "", "expected a whole number from 1 to"),
        (", ders: ['pv_67*', 'nobody']", "", "no DER is called 'nobody'"),
        ("", "  bare: {kind: controller}\n", "bare.controller: required key is missing"),
        ("", "  bare: {kind: controller, controller: volt-var}\n", "did you mean 'volt-var-1547'"),
    ],
)
def test_mistakes_name_file_and_line(
    tmp_path: Path, ctrl: str, more: str, words: str | None
) -> None:
    if words is None:
        Assembly(_scenario(tmp_path, ctrl, more)).build_all()
        return
    with pytest.raises(FeederateError) as caught:
        Assembly(_scenario(tmp_path, ctrl, more)).build_all()
    assert words in str(caught.value)
    assert "s.yaml:" in str(caught.value)


def test_an_assembly_travels_to_another_process(tmp_path: Path) -> None:
    assembly = Assembly(_scenario(tmp_path, ", split: 2"))
    federates = assembly.build_all()
    copy = pickle.loads(pickle.dumps(assembly))
    again = copy.build("ctrl_2")
    assert again.outputs == federates["ctrl_2"].outputs
    assert copy.instances == assembly.instances


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("fresh_leaves:Leaves", "cannot be imported (SystemExit: 0)"),
        ("fresh_odd:Leaves", "cannot be built (SystemExit: 0)"),
        ("fresh_odd:Bare", "makes an object without name, timing, inputs"),
    ],
)
def test_a_user_class_that_exits_or_is_no_federate_is_refused(
    tmp_path: Path, kind: str, words: str
) -> None:
    (tmp_path / "fresh_leaves.py").write_text("raise SystemExit(0)\n")
    (tmp_path / "fresh_odd.py").write_text(
        "class Bare:\n"
        "    def __init__(self, context): pass\n"
        "    def step(self, *args): pass\n"
        "    def summary(self): pass\n"
        "    def close(self): pass\n"
        "class Leaves(Bare):\n"
        "    def __init__(self, context): raise SystemExit(0)\n"
    )
    with pytest.raises(FeederateError) as caught:
        Assembly(_scenario(tmp_path, "", f"  mine: {{kind: '{kind}'}}\n")).build_all()
    assert words in str(caught.value)
    assert "s.yaml:" in str(caught.value)


@pytest.mark.parametrize("error", ["SystemExit", "RuntimeError"])
def test_a_controller_that_fails_to_name_its_agents_is_refused(tmp_path: Path, error: str) -> None:
    (tmp_path / f"fresh_{error}.py").write_text(
        "class C:\n"
        "    def __init__(self, site, agents, **options): pass\n"
        "    @classmethod\n"
        f"    def agents(cls, site, **options): raise {error}('boom')\n"
        "    def step(self, time_s, inputs, mail): pass\n"
    )
    more = f"  mine: {{kind: controller, controller: 'fresh_{error}:C'}}\n"
    with pytest.raises(FeederateError, match=rf"s.yaml:.*cannot be built \({error}: boom\)"):
        Assembly(_scenario(tmp_path, "", more)).build_all()


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("model=ieee133", "grid.model=ieee133: grid model"),
        ("model=ieee133", "did you mean 'ieee13'?"),
        ("taps={rgX: 1}", "no such regulator"),
        ("taps={rgX: 1}", "federates.lower.grid.taps={rgX: 1}: circuit 'ieee13'"),
    ],
)
def test_an_error_of_a_grid_names_the_plant_and_its_key(key: str, words: str) -> None:
    scenario = load_scenario("two-feeders-ieee13-ieee123", [f"federates.lower.grid.{key}"])
    with pytest.raises(FeederateError) as caught:
        Assembly(scenario).build_all()
    assert words in str(caught.value)
