"""Attacked elements go through attack federates; nothing else changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from federates.assembly.federation import Assembly
from federates.attacks.truth import read_truth
from federates.core.signals import read_signal
from federates.errors import ScenarioError, WiringError
from federates.runs.runner import run
from federates.scenario.schema import load_scenario

SCENARIO = """\
seed: 3
time: {start_s: 43200, duration_s: 300, step_s: 10}
grid:
  model: ieee13
  ders:
    - {kind: pv, at: load_phases, total_kw: 3000, kva_per_kw: 1.1}
  profiles: {kind: cloudy}
federates:
  feeder: {kind: feeder}
  volt_var: {kind: controller, controller: optdist-vc}
connections:
  - {source: feeder.v_pu, target: volt_var.v_pu, noise: 0.0005}
  - volt_var.q_set_kvar -> feeder.q_set_kvar
"""
STEP = """\
  - id: {id}
    layer: signal
    target: {{port: {port}{more}}}
    trigger: {trigger}
    duration_s: {duration}
    action: {action}
"""


def _step(
    action: str,
    port: str = "feeder.v_pu",
    *,
    id: str = "one",
    more: str = "",
    trigger: str = "{at_s: 100}",
    duration: float = 100,
) -> str:
    return STEP.format(
        id=id, port=port, more=more, trigger=trigger, duration=duration, action=action
    )


class Study:
    """A scenario in a folder, run with and without attacks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scenario = folder / "study.yaml"
        self.scenario.write_text(SCENARIO)
        self.runs = 0

    def attack(self, *steps: str, seed: int = 5) -> str:
        path = self.folder / "attack.yaml"
        path.write_text(f"id: test\nseed: {seed}\nsteps:\n" + "".join(steps))
        return str(path)

    def run(self, *steps: str, placement: str = "single", sets: tuple[str, ...] = ()) -> Path:
        self.runs += 1
        attack = self.attack(*steps) if steps else None
        scenario = load_scenario(self.scenario, sets, attack=attack)
        out = self.folder / f"run-{self.runs}"
        return run(scenario, out=out, placement=placement).folder  # type: ignore[arg-type]

    def refuse(self, *steps: str) -> str:
        with pytest.raises(ScenarioError) as caught:
            Assembly(load_scenario(self.scenario, attack=self.attack(*steps))).assemble()
        return str(caught.value)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path)


def _bytes(folder: Path, name: str) -> bytes:
    return (folder / "signals" / f"{name}.parquet").read_bytes()


def _values(folder: Path, name: str) -> np.ndarray:
    return read_signal(folder / "signals", name)[2]


def _truth(folder: Path) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = read_truth(folder).to_pylist()
    return rows


ZERO = [
    "{kind: bias, value: 0}",
    "{kind: scale, factor: 1}",
    "{kind: ramp, rate_per_s: 0}",
    "{kind: noise, sigma: 0}",
]


@pytest.mark.parametrize("action", ZERO)
def test_an_attack_of_no_size_changes_no_bit(study: Study, action: str) -> None:
    clean = study.run()
    for port in ("feeder.v_pu", "volt_var.v_pu", "feeder.q_set_kvar"):
        attacked = study.run(_step(action, port))
        for name in ("feeder.v_pu", "feeder.q_kvar", "volt_var.q_set_kvar"):
            assert _bytes(attacked, name) == _bytes(clean, name), (port, name)


def test_a_scenario_without_an_attack_has_the_wiring_it_had(study: Study) -> None:
    assembly = Assembly(load_scenario(study.scenario))
    federates, wirings = assembly.assemble()
    assert assembly.attack_plan is None
    assert list(federates) == ["feeder", "volt_var"]
    plain = assembly.wire(federates)
    for name, wiring in wirings.items():
        assert wiring.published == plain[name].published
        assert wiring.feeds.keys() == plain[name].feeds.keys()
        assert wiring.inbox is None
        assert not wiring.first
    assert [p.name for p in federates["feeder"].inputs] == [
        "q_set_kvar",
        "p_set_kw",
        "p_meas_kw",
        "q_meas_kvar",
        "temp_meas_c",
        "source_v_pu",
        "source_deg",
    ]


def test_standing_in_between_adds_no_delay(study: Study) -> None:
    """The reader at t + 5 sees what the feeder published at t, forged."""
    folder = study.run(_step("{kind: bias, value: 0.02}", "volt_var.v_pu"))
    time_s, labels, seen = read_signal(folder / "signals", "attack.feeder-v_pu")
    _, nodes, v_pu = read_signal(folder / "signals", "feeder.v_pu")
    true = v_pu[:, [nodes.index(label) for label in labels]]
    inside = (time_s >= 100) & (time_s < 200)
    assert np.array_equal(seen[~inside], true[~inside])
    assert np.array_equal(seen[inside], true[inside] + 0.02)
    rows = _truth(folder)
    assert len(rows) == 10 * len(labels)
    assert {row["time_s"] for row in rows} == set(np.arange(100.0, 200.0, 10.0))
    assert all(row["seen_value"] == row["true_value"] + 0.02 for row in rows)
    assert {(row["federate"], row["port"], row["step"]) for row in rows} == {
        ("feeder", "v_pu", "one")
    }


def test_an_input_deceives_its_reader_only_and_an_output_all(study: Study) -> None:
    watch = "federates.watch={kind: controller, controller: volt-var-1547}"
    link = "connections=[feeder.v_pu -> volt_var.v_pu, feeder.v_pu -> watch.v_pu]"
    for port, n in (("volt_var.v_pu", 1), ("feeder.v_pu", 2)):
        scenario = load_scenario(
            study.scenario, [watch, link], attack=study.attack(_step(ZERO[0], port))
        )
        _, wirings = Assembly(scenario).assemble()
        readers = [
            name
            for name in ("volt_var", "watch")
            if any(f.source == "attack" for f in wirings[name].feeds["v_pu"])
        ]
        assert len(readers) == n


def test_actions_do_what_they_say(study: Study) -> None:
    """By hand, on the recorded true values of the attacked run itself."""
    cases = {
        "{kind: scale, factor: 2}": lambda true, k: 2 * true[k],
        "{kind: set, value: 1.1}": lambda true, k: np.full_like(true[k], 1.1),
        "{kind: ramp, rate_per_s: 0.001, limit: 0.05}": lambda true, k: (
            true[k] + min(0.001 * 10 * (k - 10), 0.05)
        ),
        "{kind: freeze}": lambda true, k: true[9],
        "{kind: drop}": lambda true, k: true[9],
        "{kind: delay, delay_s: 30}": lambda true, k: true[k - 3],
        "{kind: replay, window: {from_s: 20, to_s: 60}}": lambda true, k: true[2 + (k - 10) % 4],
        "{kind: swap}": lambda true, k: true[k][::-1],
    }
    for action, expected in cases.items():
        folder = study.run(_step(action, "volt_var.v_pu"))
        _, labels, seen = read_signal(folder / "signals", "attack.feeder-v_pu")
        _, nodes, v_pu = read_signal(folder / "signals", "feeder.v_pu")
        true = v_pu[:, [nodes.index(label) for label in labels]]
        for k in range(30):
            want = expected(true, k) if 10 <= k < 20 else true[k]
            np.testing.assert_allclose(seen[k], want, rtol=0, atol=1e-15, err_msg=f"{action} {k}")


def test_probability_and_noise_draw_by_element_and_time_whatever_the_hosting(study: Study) -> None:
    steps = (
        _step("{kind: bias, value: 0.01}", "volt_var.v_pu", more=", fraction: 0.4").replace(
            "    action", "    probability: 0.5\n    action"
        ),
        _step("{kind: noise, sigma: 3}", "feeder.q_set_kvar", id="two"),
    )
    whole = study.run(*steps)
    split = study.run(*steps, sets=("federates.volt_var.split=agents",))
    assert _bytes(whole, "feeder.v_pu") == _bytes(split, "feeder.v_pu")
    assert _truth_set(whole) == _truth_set(split)
    n = sum(row["step"] == "one" for row in _truth(whole))
    labels = {row["label"] for row in _truth(whole) if row["step"] == "one"}
    assert 0.3 < n / (10 * len(labels)) < 0.7
    clean = study.run()
    assert _bytes(whole, "feeder.v_pu") != _bytes(clean, "feeder.v_pu")


def _truth_set(folder: Path) -> set[tuple[object, ...]]:
    return {tuple(row.values()) for row in _truth(folder)}


def test_on_end_leave_keeps_what_the_step_left(study: Study) -> None:
    step = _step("{kind: ramp, rate_per_s: 0.001}", "volt_var.v_pu") + "    on_end: leave\n"
    folder = study.run(step)
    _, labels, seen = read_signal(folder / "signals", "attack.feeder-v_pu")
    _, nodes, v_pu = read_signal(folder / "signals", "feeder.v_pu")
    true = v_pu[:, [nodes.index(label) for label in labels]]
    np.testing.assert_allclose(seen[25] - true[25], 0.1, atol=1e-12)


def test_concealment_shows_others_another_picture_while_the_step_lasts(study: Study) -> None:
    step = (
        _step("{kind: set, value: 50}", "feeder.q_set_kvar")
        + "    conceal:\n      - {port: volt_var.v_pu, show: {freeze: true}}\n"
    )
    folder = study.run(step)
    _, labels, seen = read_signal(folder / "signals", "attack_2.feeder-v_pu")
    _, nodes, v_pu = read_signal(folder / "signals", "feeder.v_pu")
    true = v_pu[:, [nodes.index(label) for label in labels]]
    assert (seen[10:20] == true[9]).all()
    assert (seen[20:] == true[20:]).all()
    assert (true[11:20] != true[9]).any()


def test_a_trigger_waits_for_a_signal_and_for_another_step(study: Study) -> None:
    when = "{when: {signal: feeder.import_kw, above: -1e9, for_s: 50}, delay_s: 20}"
    folder = study.run(
        _step("{kind: bias, value: 0.01}", "volt_var.v_pu", trigger=when, duration=40),
        _step(
            "{kind: bias, value: 1}",
            "feeder.q_set_kvar",
            id="two",
            trigger="{after: one, delay_s: 30}",
            duration=20,
        ),
    )
    times = {"one": set(), "two": set()}
    for row in _truth(folder):
        times[str(row["step"])].add(row["time_s"])
    # held from 0 to 50 s, then 20 s more; the set-points are the controller's, at 5 s past.
    assert times["one"] == {70.0, 80.0, 90.0, 100.0}
    assert times["two"] == {145.0, 155.0}


def test_a_trigger_that_never_comes_is_an_event_and_a_metric(study: Study) -> None:
    scenario = load_scenario(
        study.scenario,
        attack=study.attack(
            _step(ZERO[0], trigger="{when: {signal: feeder.v_pu, label: '6*', above: 5}}")
        ),
    )
    result = run(scenario, out=study.folder / "never", placement="single")
    assert result.metrics["attack_steps_never_triggered_count"] == 1
    assert "attack_never_triggered" in (result.folder / "events.jsonl").read_text()


def test_an_input_that_nobody_feeds_is_fed_by_the_attack_from_its_first_step(study: Study) -> None:
    step = _step("{kind: set, value: 0}", "feeder.p_set_kw", trigger="{at_s: 0}", duration=100)
    folder = study.run(step)
    p_kw = _values(folder, "feeder.p_kw")
    assert (p_kw[:10] == 0).all()
    assert (p_kw[11:].sum(axis=1) > 0).all()


def test_an_attack_federate_runs_in_the_process_of_a_neighbour(study: Study) -> None:
    steps = [_step("{kind: bias, value: 0.01}"),
             _step("{kind: bias, value: 5}", "volt_var.q_set_kvar", id="two")]  # fmt: skip
    assembly = Assembly(load_scenario(study.scenario, attack=study.attack(*steps)))
    _, wirings = assembly.assemble()
    assert assembly.attack_plan is not None
    hosts = assembly.attack_plan.host_of(wirings)
    assert sorted(hosts) == sorted(assembly.attack_plan.names)
    assert sorted(hosts.values()) == ["feeder", "volt_var"]
    folder = study.run(*steps, placement="process")
    logs = {path.stem for path in (folder / "logs").iterdir()}
    assert logs == {"broker", "feeder", "volt_var"}


def test_three_placements_give_the_same_bytes(study: Study) -> None:
    steps = (
        _step("{kind: noise, sigma: 0.01}", "volt_var.v_pu", more=", count: 3"),
        _step(
            "{kind: scale, factor: 1.5}",
            "feeder.q_set_kvar",
            id="two",
            trigger="{when: {signal: feeder.import_kw, above: -1e9}}",
        ).replace("    action", "    probability: 0.5\n    action"),
    )
    runs = [study.run(*steps, placement=p) for p in ("single", "thread", "process")]
    files = [
        {
            p.relative_to(r).as_posix(): p.read_bytes()
            for d in ("signals", "attack")
            for p in (r / d).iterdir()
        }
        for r in runs
    ]
    assert files[0] == files[1] == files[2]
    assert "attack/attack_1.parquet" in files[0]


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (_step(ZERO[0], "feeder.v_pux"), ["'feeder.v_pux'", "did you mean 'feeder.v_pu'"]),
        (_step(ZERO[0], more=", labels: ['632.9']"), ["label of feeder.v_pu", "'632.9'"]),
        (_step(ZERO[0], trigger="{at_s: 400}"), ["begins at 400 s, the run ends at 300 s"]),
        (
            _step(ZERO[0], trigger="{when: {signal: feeder.vpu, above: 1}}"),
            ["no output matches 'feeder.vpu'", "did you mean 'feeder.v_pu'"],
        ),
        (_step(ZERO[0], trigger="{after: two}"), ["no step is called 'two'"]),
        (_step(ZERO[0], trigger="{after: one}"), ["waits for itself"]),
        (_step("{kind: replay, window: {from_s: 90, to_s: 120}}"), ["window of the past"]),
        (
            _step("{kind: adaptive, attacker: weakest-node}"),
            ["attacker 'weakest-node': no such attacker", "did you mean 'weakest-nodes'"],
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_place(study: Study, step: str, words: list[str]) -> None:
    text = study.refuse(step)
    assert "attack.yaml:" in text
    for word in words:
        assert word in text


def test_steps_that_overlap_on_one_target_are_refused(study: Study) -> None:
    text = study.refuse(_step(ZERO[0]), _step(ZERO[1], "volt_var.v_pu", id="two"))
    assert "'two' and 'one' both act on" in text
    later = "{at_s: 200}"
    Assembly(
        load_scenario(
            study.scenario,
            attack=study.attack(_step(ZERO[0]), _step(ZERO[1], id="two", trigger=later)),
        )
    ).assemble()


def test_a_stealthy_attacker_stays_under_the_threshold_it_is_given(study: Study) -> None:
    action = "{kind: adaptive, attacker: under-threshold, options: {goal: 0.03, threshold: 0.004}}"
    folder = study.run(_step(action, "volt_var.v_pu"))
    _, labels, seen = read_signal(folder / "signals", "attack.feeder-v_pu")
    _, nodes, v_pu = read_signal(folder / "signals", "feeder.v_pu")
    true = v_pu[:, [nodes.index(label) for label in labels]]
    bias = (seen - true)[10:20]
    np.testing.assert_allclose(bias[-1], 0.03, atol=1e-9)
    forged = np.abs(np.diff(seen[9:20], axis=0))
    honest = np.abs(np.diff(true[9:20], axis=0))
    assert (forged <= np.maximum(0.8 * 0.004, honest) + 1e-12).all()


def test_problems_are_all_told_at_once(study: Study) -> None:
    with pytest.raises(WiringError) as caught:
        Assembly(
            load_scenario(
                study.scenario,
                attack=study.attack(
                    _step(ZERO[0], "feeder.x"), _step(ZERO[0], "feeder.y", id="two")
                ),
            )
        ).assemble()
    assert len(caught.value.problems) == 2
