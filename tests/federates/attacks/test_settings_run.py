"""Attacks on settings of inverters in whole runs: simulated and emulated, with and without end."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
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
time: {start_s: 43200, duration_s: 40, step_s: 1}
grid:
  model: ieee13
  taps: {rg1a: 3, rg1b: 3, rg1c: 3}
  ders: [{kind: pv, at: load_phases, kw_per_load_kw: 1.0, kva_per_kw: 1.2}]
federates:
  feeder: {kind: feeder}
  curves:
    kind: controller
    controller: volt-var-adaptive
    options: {gain_per_pu_s: GAIN}
  fleet: {kind: device, offset_s: 0.75, devices: {"*": KIND}}
connections:
  - feeder.v_pu -> curves.v_pu
  - curves.volt_var_ref_pu -> fleet.volt_var_ref_pu
  - feeder.v_pu -> fleet.v_pu
  - fleet.p_kw -> feeder.p_meas_kw
  - fleet.q_kvar -> feeder.q_meas_kvar
"""
STEEP = (
    "{kind: settings, beyond_standard: true, volt_var: "
    "{v_pu: [1.019, 1.02, 1.021, 1.022], q_pct: [44, 5, -5, -44], response_s: 1, v_ref_pu: 1.0}, "
    "volt_watt: {v_pu: [1.0, 1.1], p_pct: [100, 50]}}"
)
POWER_FACTOR = "{kind: settings, power_factor: -0.95}"
Study = Callable[..., Path]


def step(action: str, **keys: object) -> str:
    given = {"count": 5, "duration_s": 15, "elements": '["der.pv_*"]', **keys}
    target = f"{{elements: {given.pop('elements')}, count: {given.pop('count')}}}"
    more = "".join(f", {key}: {value}" for key, value in given.items())
    return (
        f"  - {{id: s, layer: physical, trigger: {{at_s: 10}}, target: {target}{more},\n"
        f"     action: {action}}}\n"
    )


@pytest.fixture
def study(tmp_path: Path) -> Study:
    count = 0

    def go(*steps: str, kind: str = "simulated", gain: float = 0.0, seed: int = 2) -> Path:
        nonlocal count
        count += 1
        path, attack = tmp_path / "study.yaml", tmp_path / "attack.yaml"
        path.write_text(SCENARIO.replace("KIND", kind).replace("GAIN", str(gain)))
        attack.write_text(f"id: a\nseed: {seed}\nsteps:\n" + "".join(steps))
        scenario = load_scenario(path, attack=str(attack) if steps else None)
        return run(scenario, out=tmp_path / f"run-{count}", placement="single").folder

    return go


def digests(run_folder: Path) -> dict[str, str]:
    files = sorted((run_folder / "signals").iterdir())
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def q_kvar(run_folder: Path) -> np.ndarray:
    return read_signal(run_folder / "signals", "fleet.q_kvar")[2]


def test_nobody_changed_is_nothing_changed(study: Study) -> None:
    free = digests(study())
    under = digests(study(step(STEEP, probability=0.0)))
    assert {name: under[name] for name in free} == free


def test_settings_come_back_at_the_end_unless_they_are_left(study: Study) -> None:
    free, back, left = (
        q_kvar(study(*steps))
        for steps in ((), (step(POWER_FACTOR),), (step(POWER_FACTOR, on_end="leave"),))
    )
    # Fleet step k takes place at k + 0.75 s: the attack lasts from step 10 to step 24.
    assert (back[:10] == free[:10]).all()
    touched = np.argsort(np.abs(back - free)[10])[-5:]
    assert (np.abs(back - free)[10:25, touched] > 5.0).all()
    np.testing.assert_allclose(back[25:, touched], free[25:, touched], atol=3.0)  # the voltage lags
    np.testing.assert_allclose(back[35:], free[35:], atol=0.01)
    assert (left[:25] == back[:25]).all()
    assert (np.abs(left - free)[10:, touched] > 5.0).all()


def test_the_draw_depends_on_the_seed_and_the_truth_names_who_was_drawn(study: Study) -> None:
    runs = [study(step(POWER_FACTOR, count=3), seed=seed) for seed in (2, 2, 9)]
    drawn = []
    for folder in runs:
        truth = read_truth(folder)
        assert set(truth["port"].to_pylist()) == {"attack_settings"}
        assert set(truth["seen_value"].to_pylist()) == {1.0}
        drawn.append(set(truth["label"].to_pylist()))
        _, names, moved = read_signal(folder / "signals", "fleet.q_kvar")
        apart = np.abs(moved[10] - moved[9])
        largest = np.argsort(apart)[-3:].tolist()
        assert {f"der.{names[i]}" for i in largest} == drawn[-1]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("gain", [0.0, 50.0])
def test_emulated_inverters_behave_as_simulated_ones_to_the_resolution_of_their_registers(
    study: Study, gain: float
) -> None:
    """The attacker writes 704, 705 and 706; the defence writes 705 of the others; both restore."""
    steps = step(STEEP, count=3)
    simulated, emulated = (
        q_kvar(study(steps, kind=k, gain=gain)) for k in ("simulated", "emulated")
    )
    assert np.abs(np.diff(simulated[10:25], axis=0)).max() > 100.0, "nothing oscillates"
    # A register's 0.01 % of voltage on the steep slope, of a rating of 240 kVA.
    np.testing.assert_allclose(emulated, simulated, atol=0.5)


def test_an_owner_who_is_locked_out_changes_no_setting(study: Study) -> None:
    """With every device attacked, the defence changes nothing while the attack lasts."""
    every = step(STEEP, count=19)
    without, with_defence = (q_kvar(study(every, gain=gain)) for gain in (0.0, 50.0))
    assert (without[:24] == with_defence[:24]).all()


@pytest.mark.parametrize(
    ("steps", "kind", "words"),
    [
        (step("{kind: settings, trips: {over_voltage_1: {limit: 1.1}}}"), "emulated",
         ["emulated device: its registers have no trip limits", "simulated devices only"]),
        (step("{kind: settings, beyond_standard: true, volt_var: {v_pu: [0.5, 1.0], "
              "q_pct: [44, 0]}}"), "emulated", ["(50, 44) is outside", "x 80 to 120"]),
        (step(POWER_FACTOR), "sunspec-inverter", ["a real device", "layer modbus"]),
        (step(POWER_FACTOR, elements='["load.*"]'), "simulated",
         ["does not apply to load.", "device federate simulates or emulates"]),
        (step("{kind: settings, power_factor: 0.5}"), "simulated",
         ["power_factor = 0.5", "beyond_standard: true"]),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused(
    tmp_path: Path, steps: str, kind: str, words: list[str]
) -> None:
    text = SCENARIO.replace("KIND", kind).replace("GAIN", "0")
    if kind == "sunspec-inverter":
        text = text.replace("step_s: 1}", "step_s: 1, real_time: {factor: 1.0}}")
        text = text.replace("  - curves.volt_var_ref_pu -> fleet.volt_var_ref_pu\n", "")
        text = text.replace('{"*": sunspec-inverter}', '{"pv_671_1": sunspec-inverter}')
        steps = steps.replace('"der.pv_*"', '"der.pv_671_1"').replace("count: 5", "count: 1")
    (tmp_path / "study.yaml").write_text(text)
    (tmp_path / "attack.yaml").write_text("id: a\nsteps:\n" + steps)
    with pytest.raises((ScenarioError, WiringError)) as caught:
        Assembly(
            load_scenario(tmp_path / "study.yaml", attack=str(tmp_path / "attack.yaml"))
        ).assemble()
    for word in words:
        assert word in str(caught.value)
