"""Attacks on whole co-simulations: of no size they change no bit, and they replay to the last."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from federates.assembly.federation import Assembly
from federates.attacks import interpose
from federates.attacks.truth import read_truth
from federates.cli import call
from federates.scenario.schema import load_scenario

pytestmark = pytest.mark.scenario

SCENARIO = """\
seed: 3
time: {start_s: 43200, duration_s: 300, step_s: 15}
grid:
  model: ieee13
  ders:
    - {kind: pv, at: load_phases, total_kw: 3000, kva_per_kw: 1.1136}
    - {kind: house, at: [632, 671], total_kw: 200}
  profiles: {kind: cloudy}
federates:
  feeder: {kind: feeder}
  volt_var:
    kind: controller
    controller: optdist-vc
    options: {margin_pu: 0.006, max_delay_steps: 3}
    split: 2
connections:
  - {source: feeder.v_pu, target: volt_var.v_pu, noise: 0.001}
  - volt_var.q_set_kvar -> feeder.q_set_kvar
links:
  - {loss: 0.1, latency_s: 4, jitter_s: 20}
"""
STEPS = 16


def attack(*steps: str) -> str:
    return "attack:\n  id: test\n  seed: 5\n  steps:\n" + "".join(
        f"    - {{id: s{i}, trigger: {{at_s: 60}}, duration_s: 120, {step}}}\n"
        for i, step in enumerate(steps)
    )


# Each layer that lives in the federation; all at once, so that they cannot help each other either.
NOTHING = attack(
    'layer: signal, target: {port: volt_var.v_pu, labels: ["63*", "64*"]}, '
    "action: {kind: bias, value: 0.0}",
    'layer: signal, target: {port: volt_var.v_pu, labels: ["671.*"]}, '
    "action: {kind: noise, sigma: 0.0}",
    'layer: signal, target: {port: volt_var.v_pu, labels: ["692.*"]}, '
    "action: {kind: scale, factor: 1.0}",
    "layer: signal, target: {port: volt_var.q_set_kvar}, action: {kind: ramp, rate_per_s: 0.0}",
    'layer: link, target: {links: ["*"]}, action: {kind: tamper, factor: 1.0}',
    'layer: physical, target: {elements: ["load.*"]}, action: {kind: load, factor: 1.0}',
    'layer: physical, target: {elements: ["der.house*"]}, '
    "action: {kind: thermostat, offset_k: 0.0}",
    'layer: physical, target: {elements: ["der.pv*"]}, action: {kind: trip}, probability: 0.0',
)


@pytest.mark.parametrize("placement", ["single", "thread"])
def test_an_attack_of_no_size_changes_no_bit(ran, placement: str) -> None:
    free = ran(SCENARIO, placement=placement, steps=STEPS).digests()
    under = ran(SCENARIO + NOTHING, placement=placement, steps=STEPS)
    assert {name: under.digests()[name] for name in free} == free
    events = (under.result.folder / "events.jsonl").read_text()
    assert events.count("attack_began") >= 8, "all steps were active"


def test_without_an_attack_nothing_is_paid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(SCENARIO + NOTHING)
    attacked, _ = Assembly(load_scenario(path)).assemble()

    def never(*_: object) -> None:
        raise AssertionError("not to be called without an attack")

    monkeypatch.setattr(interpose, "interpose", never)
    path.write_text(SCENARIO)
    assembly = Assembly(load_scenario(path))
    free, wirings = assembly.assemble()
    assert set(free) == {"feeder", "volt_var_1", "volt_var_2"} < set(attacked)
    assert not [p.name for p in free["feeder"].inputs if p.name.startswith("attack")]
    plain = assembly.wire(free)
    for name, wiring in wirings.items():
        assert wiring.inbox is None
        assert (wiring.published, wiring.mail_routes) == (
            plain[name].published,
            plain[name].mail_routes,
        )
        assert {(p, f.source, f.port) for p, fs in wiring.feeds.items() for f in fs} == {
            (p, f.source, f.port) for p, fs in plain[name].feeds.items() for f in fs
        }


RANDOM = {
    "noise": attack(
        "layer: signal, target: {port: volt_var.v_pu, fraction: 0.4}, "
        "action: {kind: noise, sigma: 0.02}, probability: 0.6"
    ),
    "jamming": attack(
        "layer: link, target: {agents: ['*'], fraction: 0.5}, "
        "action: {kind: jam, loss: 0.5, delay_s: 30}"
    ),
    "botnet": attack(
        "layer: physical, target: {elements: ['load.*', 'der.house*'], fraction: 0.5}, "
        "action: {kind: load, kw: 300, on_s: 30, off_s: 30, synchrony: 0.3}, probability: 0.8"
    ),
}


@pytest.mark.parametrize("name", RANDOM)
def test_a_random_attack_replays_to_the_last_byte_in_threads_and_in_processes(
    ran, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ran(SCENARIO + RANDOM[name], placement="thread", steps=STEPS).result.folder
    assert read_truth(run).num_rows > 10
    for placement in ("thread", "process"):
        out = tmp_path / f"again-{placement}"
        words = ["replay", str(run), "--placement", placement, "--out", str(out), "--json"]
        assert call(words) == 0
        said = json.loads(capsys.readouterr().out)
        assert (said["identical"], said["different_files"]) == (True, 0)
        assert said["files"] > 10
