"""Steps that can never act are refused; those that turn out so are told at the end of the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from federates.assembly.federation import Assembly
from federates.attacks.signal.forge import ForgePlan
from federates.attacks.truth import read_truth
from federates.attacks.windows import acts
from federates.clock import Timing, to_ns, to_s
from federates.errors import ScenarioError
from federates.runs.runner import run
from federates.scenario.attack_files import load_attack
from federates.scenario.attack_schedule import AttackSchedule
from federates.scenario.schema import load_scenario

SCENARIO = """\
seed: 3
time: {start_s: 43200, duration_s: 120, step_s: 10}
grid:
  model: ieee13
  ders:
    - {kind: pv, at: load_phases, total_kw: 3000, kva_per_kw: 1.1}
  profiles: {kind: cloudy}
federates:
  feeder: {kind: feeder}
  volt_var: {kind: controller, controller: optdist-vc}
connections:
  - feeder.v_pu -> volt_var.v_pu
  - volt_var.q_set_kvar -> feeder.q_set_kvar
"""
SIGNAL = {"layer": "signal", "target": {"port": "volt_var.v_pu"}}
BIAS = {"kind": "bias", "value": 0.01}
WHEN = {"when": {"signal": "feeder.v_pu", "above": 0.5}}


class Study:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scenario = folder / "study.yaml"
        self.scenario.write_text(SCENARIO)

    def attacked(self, *steps: dict[str, Any], sets: tuple[str, ...] = ()) -> Any:
        base = {**SIGNAL, "trigger": {"at_s": 0}, "duration_s": 20, "action": BIAS}
        path = self.folder / "attack.yaml"
        whole = [{"id": f"s{i}", **base, **step} for i, step in enumerate(steps)]
        path.write_text(json.dumps({"id": "test", "steps": whole}))
        return load_scenario(self.scenario, sets, attack=str(path))

    def check(self, *steps: dict[str, Any]) -> None:
        Assembly(self.attacked(*steps)).assemble()

    def refuse(self, *steps: dict[str, Any]) -> str:
        with pytest.raises(ScenarioError) as caught:
            self.check(*steps)
        return str(caught.value)

    def run(self, *steps: dict[str, Any], **options: Any) -> tuple[Any, list[dict[str, Any]]]:
        result = run(self.attacked(*steps), out=self.folder / "run", placement="single", **options)
        lines = (result.folder / "events.jsonl").read_text().splitlines()
        return result, [json.loads(line) for line in lines]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path)


@pytest.mark.parametrize("length_s", [1e-6, 3.0, 10.0, 10.000000001, 25.0, float("inf")])
def test_what_is_said_to_act_is_what_the_clock_lets_act(length_s: float) -> None:
    """Against the clock that the run goes by, at every sample of a short run."""
    horizon_ns = to_ns(60)
    for timing in (Timing(to_ns(10)), Timing(to_ns(10), to_ns(2.5)), Timing(to_ns(1 / 3))):
        for begin_s in (0.0, 0.1, 2.5, 9.999999999, 10.000000001, 41.0, 52.6, 59.9, 60.0, 1e9):
            clock = AttackSchedule(("s",), (begin_s,), (length_s,), (False,), ()).clock()
            samples = range(timing.offset_ns, horizon_ns, timing.period_ns)
            expected = any(clock.elapsed(to_s(t))[0] == clock.elapsed(to_s(t))[0] for t in samples)
            assert acts([timing], begin_s, length_s, horizon_ns) == expected


STEP_BETWEEN = {"trigger": {"at_s": 61}, "duration_s": 3}


@pytest.mark.parametrize(
    ("step", "nothing"),
    [
        (STEP_BETWEEN, "from 61 to 64 s: values come every 10 s from 0 s"),
        (
            {"target": {"port": "feeder.q_set_kvar"}, "trigger": {"at_s": 60}, "duration_s": 5},
            "from 60 to 65 s: values come every 10 s from 5 s",
        ),
        (
            {
                "layer": "link",
                "target": {"links": ["*"]},
                "action": {"kind": "drop"},
                "trigger": {"at_s": 61},
                "duration_s": 3,
            },
            "from 61 to 64 s: values come every 10 s from 5 s",
        ),
        (
            {
                "layer": "physical",
                "target": {"elements": ["load.*"]},
                "action": {"kind": "load", "kw": 10},
                **STEP_BETWEEN,
            },
            "from 61 to 64 s: values come every 10 s from 0 s",
        ),
    ],
    ids=["signal", "set-point", "link", "physical"],
)
def test_a_step_between_two_samples_is_refused(
    study: Study, step: dict[str, Any], nothing: str
) -> None:
    text = study.refuse(step)
    assert "attack.yaml:1: steps[0].trigger: there is nothing to act on " + nothing in text
    study.check({**step, "duration_s": 12})


def test_what_a_step_leaves_behind_acts_after_it(study: Study) -> None:
    _, events = study.run({**STEP_BETWEEN, "on_end": "leave"})
    assert "attack_began" in [event["event"] for event in events]


@pytest.mark.parametrize(
    "trigger",
    [
        {**WHEN, "delay_s": 120},
        {"when": {**WHEN["when"], "for_s": 3e9}},
        {"when": {**WHEN["when"], "for_s": 60}, "delay_s": 60},
    ],
)
def test_a_trigger_that_cannot_be_met_within_the_run_is_refused(
    study: Study, trigger: dict[str, Any]
) -> None:
    assert "at the earliest, the run ends at 120 s" in study.refuse({"trigger": trigger})
    later = {"trigger": {"after": "s0", "delay_s": 60}}
    first = {"trigger": {**WHEN, "delay_s": 40}, "duration_s": 20}
    assert "steps[1].trigger: begins at 120 s at the earliest" in study.refuse(first, later)


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (
            {
                "trigger": {"at_s": 60},
                "action": {"kind": "replay", "window": {"from_s": 1, "to_s": 9}},
            },
            "action.window: nothing is recorded from 1 to 9 s: values come every 10 s from 0 s",
        ),
        (
            {
                "trigger": {"at_s": 60},
                "conceal": [
                    {
                        "port": "feeder.q_set_kvar",
                        "show": {"window": {"from_s": 30, "to_s": 34}},
                    }
                ],
            },
            "conceal[0].show.window: nothing is recorded from 30 to 34 s: values come every 10 s "
            "from 5 s",
        ),
        (
            {
                "trigger": WHEN,
                "action": {"kind": "replay", "window": {"from_s": 0, "to_s": 130}},
            },
            "action.window: the window ends at 130 s, the run at 120 s",
        ),
    ],
    ids=["replay", "conceal", "future"],
)
def test_a_window_that_holds_nothing_is_refused(
    study: Study, step: dict[str, Any], words: str
) -> None:
    assert f"steps[0].{words}" in study.refuse(step)


def test_a_step_that_was_triggered_and_met_no_value_is_told_at_the_end(study: Study) -> None:
    """Met at 0 s, active from 1 to 4 s, between two voltages."""
    result, events = study.run({"trigger": {**WHEN, "delay_s": 1}, "duration_s": 3})
    (told,) = (e for e in events if e["event"] == "attack_never_acted")
    assert (told["step"], told["begin_s"]) == ("s0", 1.0)
    assert told["text"] == "no value comes from 1 to 4 s"
    assert result.metrics["attack_steps_never_triggered_count"] == 1
    assert read_truth(result.folder).num_rows == 0


def test_a_step_that_was_triggered_too_late_is_told_at_the_end(study: Study) -> None:
    step = {"trigger": {**WHEN, "delay_s": 60}}
    result, events = study.run(step, steps=5)
    (told,) = (e for e in events if e["event"] == "attack_never_acted")
    assert told["text"] == "begins at 60 s, the run ends at 50 s"
    assert result.metrics["attack_steps_never_triggered_count"] == 1


def test_a_step_that_acted_is_not_told(study: Study) -> None:
    result, events = study.run({"trigger": {**WHEN, "delay_s": 9}, "duration_s": 3})
    assert read_truth(result.folder).num_rows > 0
    assert not [e for e in events if "never" in e["event"]]
    assert result.metrics["attack_steps_never_triggered_count"] == 0


def test_a_window_that_is_not_over_when_its_step_begins_is_told(study: Study) -> None:
    action = {"kind": "replay", "window": {"from_s": 40, "to_s": 80}}
    _, events = study.run({"trigger": {**WHEN, "delay_s": 20}, "action": action})
    (told,) = (e for e in events if e["event"] == "attack_window_ahead")
    assert "begins at 20 s and plays what is recorded until 80 s" in told["text"]


def test_a_trigger_names_one_output(study: Study) -> None:
    text = study.refuse({"trigger": {"when": {"signal": "feeder.*", "above": 1}}})
    assert "trigger.when.signal: no output matches 'feeder.*'" in text
    assert "expected one name, not a glob, of feeder.v_pu, " in text


def test_standing_between_odd_periods_changes_no_bit(study: Study) -> None:
    """10 s and 3.333333333 s share a divisor of 1 ns, which is no time to stand in."""
    odd = ("federates.volt_var.controller=volt-var-1547", "federates.volt_var.period_s=3.333333333")
    nothing = {"action": {"kind": "bias", "value": 0}}
    steps = [nothing, {**nothing, "target": {"port": "feeder.q_set_kvar"}}]
    clean = run(
        load_scenario(study.scenario, odd), out=study.folder / "clean", placement="single"
    ).folder
    for placement in ("single", "thread"):
        folder = run(
            study.attacked(*steps, sets=odd), out=study.folder / placement, placement=placement
        ).folder
        for name in ("feeder.v_pu", "volt_var.q_set_kvar"):
            file = f"signals/{name}.parquet"
            assert (folder / file).read_bytes() == (clean / file).read_bytes()


# -- an attack is not its own target -----------------------------------------------------------


def test_globs_leave_out_what_the_attack_itself_says(study: Study) -> None:
    load = {
        "layer": "physical",
        "target": {"elements": ["load.*"]},
        "action": {"kind": "load", "kw": 10},
    }
    for glob in ("feeder.*", "*"):
        assembly = Assembly(study.attacked(load, {"target": {"port": glob}}))
        _, wirings = assembly.assemble()
        assert assembly.attack_plan is not None
        for site in assembly.attack_plan.sites.values():
            forged = [part for part in site.parts if isinstance(part, ForgePlan)]
            assert not [c.port for p in forged for c in p.channels if "attack_" in c.port]
        (feed,) = wirings["feeder"].feeds["attack_load_kw"]
        assert feed.port == "attack_load_kw"
    text = study.refuse(load, {"target": {"port": "feeder.attack_load_kw"}})
    assert "no port that is read matches 'feeder.attack_load_kw'" in text


def test_a_step_does_not_hide_its_own_action(study: Study) -> None:
    """The picture would simply be shown in place of what the action says."""
    other = {"port": "feeder.q_set_kvar", "show": {"freeze": True}}
    own = {"port": "feeder.v_pu", "labels": ["671.1"], "show": {"freeze": True}}
    text = study.refuse({"conceal": [other, own]})
    assert "steps[0].conceal[1]: 671.1 of volt_var.v_pu is the step's own target" in text
    text = study.refuse({"conceal": [other, {**other, "show": {"value": 3.0}}]})
    assert "steps[0].conceal[1]: " in text
    assert "feeder.q_set_kvar is shown by conceal[0] already" in text
    study.check({"conceal": [other]})


# -- attackers that fail -----------------------------------------------------------------------

MODULE = """\
class Raises:
    def __init__(self, site): pass
    def decide(self, time_s, elapsed_s, true, seen): raise RuntimeError("boom")

class Wrong(Raises):
    def decide(self, time_s, elapsed_s, true, seen): return [0.0] * (true.size + 1)

class Words(Raises):
    def decide(self, time_s, elapsed_s, true, seen): return ["a"] * true.size
"""


@pytest.mark.parametrize(
    ("attacker", "words"),
    [
        ("Raises", r"attacker Raises failed at 0 s, in decide \(RuntimeError: boom\)"),
        ("Wrong", r"attacker Wrong gave an array of shape \(\d+,\) at 0 s.*one number for each"),
        ("Words", r"attacker Words failed at 0 s, in decide \(ValueError: could not convert"),
    ],
)
def test_an_attacker_that_fails_is_named_with_its_place(
    study: Study, attacker: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (study.folder / "failing_attackers.py").write_text(MODULE)
    monkeypatch.syspath_prepend(study.folder)
    action = {"kind": "adaptive", "attacker": f"failing_attackers:{attacker}"}
    physical = {"layer": "physical", "target": {"elements": ["load.*"]}, "action": action}
    with pytest.raises(ScenarioError, match=rf"attack.yaml:1: steps\[0\].action: {words}"):
        study.check(physical)


@pytest.mark.parametrize("wrong", [{"margin_pu": "0.01"}, {"kw": "x"}, {"count": 1.5}])
def test_a_shipped_attacker_with_a_bad_option_is_named_with_its_place(
    study: Study, wrong: dict[str, Any]
) -> None:
    options = {"kw": 10, **wrong}
    action = {
        "kind": "adaptive",
        "attacker": "weakest-nodes",
        "sees": ["feeder.v_pu"],
        "options": options,
    }
    step = {"layer": "physical", "target": {"elements": ["load.*"]}, "action": action}
    text = study.refuse(step)
    said = "attack.yaml:1: steps[0].action: attacker WeakestNodes: option "
    assert f"{said}'{next(iter(wrong))}': {next(iter(wrong.values()))!r} is not accepted" in text


@pytest.mark.parametrize("value", [".nan", "2024-01-01", "{a: [.inf]}"])
def test_options_that_no_manifest_can_hold_are_refused(tmp_path: Path, value: str) -> None:
    path = tmp_path / "attack.yaml"
    path.write_text(
        "id: test\nsteps:\n  - id: s\n    layer: signal\n    trigger: {at_s: 0}\n"
        "    target: {port: a.b}\n    action:\n      kind: adaptive\n      attacker: x\n"
        f"      options: {{kw: {value}}}\n"
    )
    with pytest.raises(ScenarioError, match=r"attack.yaml:10: steps\[0\].action.options: cannot"):
        load_attack(path)
