"""Deterministic and partition independent: where agents live must not show in a single bit."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from federates.scenario.schema import load_scenario

pytestmark = pytest.mark.scenario

LOSSY = """\
seed: 3
time: {start_s: 36000, duration_s: 3600, step_s: 15}
grid:
  model: ieee123
  taps: {rg1: 3}
  load_diversity: 0.2
  ders:
    - {kind: pv, at: load_phases, total_kw: 3500, kva_per_kw: 1.1136}
  profiles: {kind: cloudy}
federates:
  feeder: {kind: feeder}
  volt_var:
    kind: controller
    controller: optdist-vc
    options: {margin_pu: 0.006, max_delay_steps: 3}
connections:
  - {source: feeder.v_pu, target: volt_var.v_pu, noise: 0.001}
  - volt_var.q_set_kvar -> feeder.q_set_kvar
links:
  - {loss: 0.2, latency_s: 4, jitter_s: 45, noise: 0.0005}
"""
STEPS = 16
PERFECT = LOSSY[: LOSSY.index("links:")].replace(", noise: 0.001", "")


@pytest.mark.parametrize("text", [PERFECT, LOSSY], ids=["perfect", "lossy"])
def test_every_placement_gives_the_same_files(ran, text: str) -> None:
    single = ran(text, steps=STEPS, shared=True)
    digests = single.digests()
    assert len(digests) == 7
    assert ran(text, placement="shared", steps=STEPS).digests() == digests
    assert ran(text, placement="thread", steps=STEPS, shared=True).digests() == digests
    assert ran(text, placement="process", steps=STEPS).digests() == digests
    moved = single.values("volt_var.q_set_kvar")
    assert (moved[-1] != moved[0]).any()  # or there would be nothing to compare


def test_a_seed_gives_its_run_again_and_another_seed_another(ran) -> None:
    first = ran(LOSSY, placement="thread", steps=STEPS, shared=True)
    assert ran(LOSSY, placement="thread", steps=STEPS, seed=3).digests() == first.digests()
    other = ran(LOSSY, placement="thread", steps=STEPS, seed=4)
    assert (
        other.digests()["volt_var.q_set_kvar.parquet"]
        != (first.digests()["volt_var.q_set_kvar.parquet"])
    )
    assert first.result.metrics["mail_lost_count"] != other.result.metrics["mail_lost_count"]
    assert (first.manifest["seed"], other.manifest["seed"]) == (3, 4)


@pytest.mark.parametrize("text", [PERFECT, LOSSY], ids=["perfect", "lossy"])
def test_agents_in_one_federate_in_four_and_one_each_give_the_same_bits(ran, text: str) -> None:
    one = ran(text, steps=STEPS, shared=True)
    v_pu, q_set_kvar = one.by_label("v_pu"), one.by_label("q_set_kvar")
    assert len(q_set_kvar) == 96
    hostings = [("4", "thread"), ("agents", "single")]
    if text is LOSSY:  # processes carry the same bundles of mail; links act where they arrive
        hostings.append(("4", "process"))
    for split, placement in hostings:
        key = f"federates.volt_var.split={split}"
        other = ran(text, key, placement=placement, steps=STEPS)
        assert other.by_label("v_pu") == v_pu, (split, placement)
        assert other.by_label("q_set_kvar") == q_set_kvar, (split, placement)
        lost = "mail_lost_count"
        assert other.result.metrics[lost] == one.result.metrics[lost]


def test_every_second_agent_and_areas_run_alike(ran) -> None:
    areas = ran("voltvar-ieee123-areas", placement="thread", steps=STEPS)
    whole = ran("voltvar-ieee123-areas", "federates.volt_var.split=1", steps=STEPS)
    assert areas.by_label("v_pu") == whole.by_label("v_pu")
    assert areas.by_label("q_set_kvar") == whole.by_label("q_set_kvar")


def test_other_controllers_do_not_see_the_split_either(ran) -> None:
    for controller in ("volt-var-1547", "none"):
        text = PERFECT.replace("optdist-vc", controller)
        text = text.replace("    options: {margin_pu: 0.006, max_delay_steps: 3}\n", "")
        one = ran(text, steps=STEPS).by_label("v_pu")
        assert ran(text, "federates.volt_var.split=7", steps=STEPS).by_label("v_pu") == one


@pytest.mark.parametrize("placement", ["thread", "process"])
def test_two_runs_at_once_do_not_meet(command_line, tmp_path: Path, ran, placement: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(PERFECT)
    runs = [
        command_line(
            ["run", str(path), "--seed", str(seed), "--steps", str(STEPS), "--no-report",
             "--placement", placement, "--out", str(tmp_path / f"at-once-{seed}")]
        )
        for seed in (3, 4)
    ]  # fmt: skip
    for process in runs:
        _, stderr = process.communicate(timeout=600)
        assert process.returncode == 0, stderr
    for seed in (3, 4):
        alone = ran(PERFECT, steps=STEPS, seed=seed, shared=True)
        for name in alone.digests():
            together = tmp_path / f"at-once-{seed}" / "signals" / name
            assert together.read_bytes() == (alone.signals / name).read_bytes()


def test_recording_less_changes_nothing_else(ran) -> None:
    full = ran(PERFECT, steps=STEPS, shared=True)
    some = ran(PERFECT, "record={ports: ['feeder.v_pu'], labels: ['1*.1'], every: 5}", steps=STEPS)
    assert list(some.digests()) == ["feeder.v_pu.parquet"]
    whole, part = full.by_label("v_pu"), some.by_label("v_pu")
    assert 5 < len(part) < len(whole)
    for label, column in part.items():
        values = [whole[label][8 * k : 8 * k + 8] for k in range(0, STEPS, 5)]
        assert column == b"".join(values)
    assert some.result.metrics == full.result.metrics


def test_single_runs_in_any_thread(ran) -> None:
    # A sweep in a thread pool has no main thread to interrupt; it must still run.
    results = []
    worker = threading.Thread(target=lambda: results.append(ran(PERFECT, steps=3)))
    worker.start()
    worker.join(600)
    assert results[0].digests() == ran(PERFECT, steps=3, shared=True).digests()


def test_steps_of_a_tenth_of_a_second(ran) -> None:
    # 0.3 s comes back from HELICS as 0.30000000000000004 s.
    assert load_scenario("voltvar-ieee13").time.step_s >= 1.0
    key = ["time={duration_s: 2, step_s: 0.1}"]
    single = ran("voltvar-ieee13", *key)
    assert ran("voltvar-ieee13", *key, placement="thread").digests() == single.digests()
    assert single.result.summary["steps"] == 20
