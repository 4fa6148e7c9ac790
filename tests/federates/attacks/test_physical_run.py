"""Physical attacks in whole runs: nothing changes nothing, islands, shipped attacks' figures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from federates.assembly.federation import Assembly
from federates.attacks.truth import read_truth
from federates.cli import call
from federates.core.signals import read_signal
from federates.errors import RunError, ScenarioError, WiringError
from federates.runs.runner import RunResult, run
from federates.scenario.schema import load_scenario

SCENARIO = """\
seed: 3
time: {start_s: 54000, duration_s: 300, step_s: 10}
grid:
  model: ieee123
  ders:
    - {kind: pv, at: load_phases, total_kw: 1000, kva_per_kw: 1.1}
    - {kind: house, at: load_phases, kw: 7, fraction: 0.21, kw_per_house: 7, prefix: home}
federates:
  feeder: {kind: feeder}
  volt_var: {kind: controller, controller: volt-var-1547}
connections:
  - feeder.v_pu -> volt_var.v_pu
  - volt_var.q_set_kvar -> feeder.q_set_kvar
"""
Study = Callable[..., RunResult]


def step(action: str, elements: str, n: int = 0, **keys: object) -> str:
    more = "".join(f", {key}: {value}" for key, value in keys.items())
    return (
        f"  - {{id: s{n}, layer: physical, trigger: {{at_s: 100}}, duration_s: 100, "
        f"action: {{kind: {action}}}, target: {{elements: [{elements}]}}{more}}}\n"
    )


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Run SCENARIO under some steps."""
    path = tmp_path / "study.yaml"
    path.write_text(SCENARIO)
    count = 0

    def go(*steps: str, placement: str = "single", sets: tuple[str, ...] = ()) -> RunResult:
        nonlocal count
        count += 1
        attack = tmp_path / "attack.yaml"
        attack.write_text("id: a\nseed: 2\nsteps:\n" + "".join(steps))
        scenario = load_scenario(path, sets, attack=str(attack) if steps else None)
        out = tmp_path / f"run-{count}"
        return run(scenario, out=out, placement=placement)  # type: ignore[arg-type]

    return go


def signal(result: RunResult, name: str) -> np.ndarray:
    return read_signal(result.folder / "signals", name)[2]


def labels(result: RunResult, name: str) -> list[str]:
    return list(read_signal(result.folder / "signals", name)[1])


def digests(result: RunResult) -> dict[str, str]:
    folder = result.folder / "signals"
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def test_an_attack_of_no_magnitude_changes_no_bit(study: Study) -> None:
    clean = study()
    idle = study(
        step("load, kw: 0", "'load.*', 'der.home_*'", 0),
        step("load, factor: 1", "'load.*', 'der.home_*'", 1),
        step("thermostat, offset_k: 0", "'der.home_*'", 2),
        step("trip", "'*'", 3, probability=0),
    )
    expected, found = digests(clean), digests(idle)
    assert expected == {name: found[name] for name in expected}
    for key, value in clean.metrics.items():
        assert idle.metrics[key] == value, key
    assert idle.metrics["dead_node_hours"] == 0.0
    assert idle.metrics["attacked_values_count"] == 0.0


def test_a_feeder_without_an_attack_has_no_ports_for_one(study: Study) -> None:
    feeder = Assembly(load_scenario("voltvar-ieee123")).build("feeder")
    assert not [p.name for p in feeder.inputs if p.name.startswith("attack")]
    assert feeder._attack is None  # type: ignore[union-attr]


def test_an_open_switch_makes_an_island_that_is_dead_and_comes_back(study: Study) -> None:
    clean, cut = study(), study(step("trip", "switch.sw4"))
    v, quiet = signal(cut, "feeder.v_pu"), signal(clean, "feeder.v_pu")
    dead = (v == 0.0).any(axis=0)
    during = slice(10, 20)  # at_s 100 to 200, steps of 10 s
    assert dead.sum() == 109  # what the engine says of the nodes behind sw4
    assert (v[during][:, dead] == 0.0).all()
    assert (v[:10] == quiet[:10]).all()
    names = labels(cut, "feeder.v_pu")
    island = {name.partition(".")[0] for name, is_dead in zip(names, dead, strict=True) if is_dead}
    p, ders = signal(cut, "feeder.p_kw"), labels(cut, "feeder.p_kw")
    inside = np.array([name.split("_")[1] in island for name in ders])
    assert inside.sum() > 20
    assert not p[during][:, inside].any()
    assert p[during][:, ~inside].any(axis=0).all()
    # The island's 1500 kW of load, less its PV, are gone at once.
    gone = signal(clean, "feeder.import_kw") - signal(cut, "feeder.import_kw")
    assert (gone[during] > 500.0).all()
    np.testing.assert_allclose(v[21:], quiet[21:], atol=0.01)  # houses were off for a while
    # A node without voltage is no node with a low one.
    assert cut.metrics["v_min_pu"] > 0.9
    np.testing.assert_allclose(cut.metrics["dead_node_hours"], 109 * 100 / 3600)


def test_a_switch_that_was_open_is_closed_and_opened_again(study: Study) -> None:
    clean, tied = study(), study(step("close", "'switch.sw7', 'switch.sw8'"))
    quiet, v = signal(clean, "feeder.v_pu"), signal(tied, "feeder.v_pu")
    assert np.abs(v[10:20] - quiet[10:20]).max() > 1e-3
    # The droop needs some steps to find back.
    assert np.abs(v[-1] - quiet[-1]).max() < 1e-5


def test_what_is_left_behind_stays_to_the_end(study: Study) -> None:
    left = study(step("trip", "'der.pv_*'", on_end="leave"))
    p = signal(left, "feeder.p_kw")
    pv = np.array([name.startswith("pv") for name in labels(left, "feeder.p_kw")])
    assert p[:10][:, pv].all()
    assert not p[10:][:, pv].any()


def test_loads_draw_what_is_asked_at_their_power_factor(study: Study) -> None:
    clean, more = study(), study(step("load, kw: 100", "'load.*'"))
    for port, low, high in (("import_kw", 100.0, 106.0), ("import_kvar", 40.0, 70.0)):
        extra = signal(more, f"feeder.{port}") - signal(clean, f"feeder.{port}")
        assert (extra[:10] == 0.0).all()
        # The feeder's loads are 3490 kW and 1920 kvar, and losses follow.
        assert (extra[10:20] > low).all()
        assert (extra[10:20] < high).all()


def test_the_truth_of_a_run_has_every_element_and_step(study: Study) -> None:
    cut = study(step("trip", "switch.sw4, der.pv_76_1"))
    rows = read_truth(cut.folder).to_pylist()
    assert len(rows) == 2 * 10
    assert {(r["federate"], r["port"], r["label"]) for r in rows} == {
        ("feeder", "attack_connected", "switch.sw4"),
        ("feeder", "attack_connected", "der.pv_76_1"),
    }
    assert {(r["true_value"], r["seen_value"], r["step"]) for r in rows} == {(1.0, 0.0, "s0")}
    assert {r["time_s"] for r in rows} == set(np.arange(100.0, 200.0, 10.0))


def test_a_grid_that_collapses_says_under_what(study: Study) -> None:
    with pytest.raises(RunError) as caught:
        study(step("load, kw: 50000", "'load.*'", 0), step("trip", "switch.sw6", 1))
    message = str(caught.value)
    for words in ("did not converge", "time_s=100", "under the scenario's attack", "sw6 open"):
        assert words in message


def test_an_element_that_does_not_exist_is_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "study.yaml").write_text(SCENARIO)
    attack = tmp_path / "attack.yaml"
    attack.write_text("id: a\nsteps:\n" + step("trip", "switch.sw9"))
    code = call(["check", str(tmp_path / "study.yaml"), "--attack", str(attack)])
    said = capsys.readouterr()
    assert code == 2
    assert "no element is called 'switch.sw9'" in (said.out + said.err).replace("\n", " ")


def test_a_scenario_without_a_feeder_has_no_grid_to_act_on(tmp_path: Path) -> None:
    (tmp_path / "attack.yaml").write_text("id: a\nsteps:\n" + step("trip", "'*'"))
    scenario = load_scenario("dmpc-circuit24", attack=str(tmp_path / "attack.yaml"))
    with pytest.raises(ScenarioError, match=r"steps\[0\].*no grid to act on; expected .* feeder"):
        Assembly(scenario).assemble()


def test_threads_give_the_same_bytes(study: Study) -> None:
    attack = (
        step("trip", "'der.pv_*'", 0, probability=0.5),
        step("load, kw: 50, on_s: 20, off_s: 20, synchrony: 0.3", "'der.home_*'", 1),
    )
    assert digests(study(*attack)) == digests(study(*attack, placement="thread"))


# -- thermostats of devices ------------------------------------------------------------------------

DEVICES = """\
seed: 3
time: {start_s: 61200, duration_s: 120, step_s: 10}
grid:
  model: ieee13
  ders: [{kind: house, at: load_phases, kw: 7, kw_per_house: 7}]
federates:
  feeder: {kind: feeder}
  houses: {kind: device, devices: {"house_*": emulated, "*_646_2": simulated}}
connections: [houses.p_kw -> feeder.p_meas_kw, houses.q_kvar -> feeder.q_meas_kvar]
"""
MOVED = """\
id: a
steps:
  - {id: s, layer: physical, trigger: {at_s: 30}, duration_s: 50,
     target: {elements: ["der.house_*"], count: 6}, action: {kind: thermostat, offset_k: OFFSET}}
"""


def devices(folder: Path, kind: str, offset: str | None) -> RunResult:
    path, attack = folder / "study.yaml", folder / "attack.yaml"
    path.write_text(DEVICES)
    attack.write_text(MOVED.replace("OFFSET", offset or "0"))
    what = f'federates.houses.devices={{"house_*": {kind}}}'
    given = None if offset is None else str(attack)
    scenario = load_scenario(path, [what], attack=given)
    return run(scenario, out=folder / f"{kind}-{offset}", placement="single")


def test_moved_thermostats_cool_alike_simulated_and_emulated(tmp_path: Path) -> None:
    quiet, still, moved, emulated = (
        signal(devices(tmp_path, kind, offset), "houses.p_kw")
        for kind, offset in (
            ("simulated", None),
            ("simulated", "0.0"),
            ("simulated", "-3.0"),
            ("emulated", "-3.0"),
        )
    )
    assert (quiet == still).all()
    # The device steps half a step after the grid: from its step 3 on, at 35 s, to 75 s.
    assert (moved[:3] == quiet[:3]).all()
    busy = moved[3:8].mean(axis=0) < quiet[3:8].mean(axis=0) - 1.0
    assert 3 <= busy.sum() <= 6  # of the six that were moved; some ran anyway
    assert (moved[9:].sum(axis=1) > quiet[9:].sum(axis=1) - 1e-9).all()  # cool enough now
    np.testing.assert_allclose(emulated, moved, atol=6e-4)  # power is a whole number of watts


def test_a_real_thermostat_is_not_moved_by_a_simulation(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(
        DEVICES.replace("step_s: 10}", "step_s: 10, real_time: {factor: 1.0}}")
    )
    (tmp_path / "attack.yaml").write_text(MOVED.replace("OFFSET", "-1.0"))
    scenario = load_scenario(
        tmp_path / "study.yaml",
        ['federates.houses.devices={"house_*": thermostat}'],
        attack=str(tmp_path / "attack.yaml"),
    )
    with pytest.raises(ScenarioError, match=r"a real device.*layer modbus"):
        Assembly(scenario).assemble()


# -- what ships --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def afternoon(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    folder = tmp_path_factory.mktemp("quiet")
    quiet = run(
        load_scenario("der-rich-ieee123"), out=folder / "run", steps=540, placement="single"
    )
    assert quiet.metrics["out_of_band_node_hours"] == 0.0
    return signal(quiet, "feeder.import_kw")[:, 0]


@pytest.mark.parametrize(
    ("name", "first_kw", "mean_kw"),
    # The figures of each file's own paragraph; 36, 45 and 157 kW are the papers'.
    [
        ("load-alteration-1a", 36.4, 13.6),
        ("load-alteration-botnet", 1602.7, 713.6),
        ("generator-shutdown-1b", 45.6, 45.7),
        ("generator-shutdown-1c", 159.3, 150.2),
    ],
)
def test_a_shipped_attack_does_what_its_paragraph_says(
    name: str, first_kw: float, mean_kw: float, afternoon: np.ndarray, tmp_path: Path
) -> None:
    scenario = load_scenario("der-rich-ieee123", attack=name)
    assert scenario.attack_spec is not None
    assert scenario.attack_spec.scenario == "der-rich-ieee123"
    attacked = run(scenario, out=tmp_path / "run", steps=540, placement="single")
    extra = signal(attacked, "feeder.import_kw")[:, 0] - afternoon
    assert not extra[:360].any()
    assert extra[360] == pytest.approx(first_kw, abs=0.1)
    assert extra[360:540].mean() == pytest.approx(mean_kw, abs=0.1)
    assert attacked.metrics["out_of_band_node_hours"] == 0.0


TWO_PLANTS = """\
time: {start_s: 43200, duration_s: 120, step_s: 10}
grid: {model: ieee13, ders: [{kind: house, at: [632, 671], total_kw: 200}]}
federates:
  town: {kind: feeder}
  farm: {kind: feeder}
  town_devices: {kind: device, plant: town, devices: {"house_632*": simulated}}
  farm_devices: {kind: device, plant: farm, devices: {"house_632*": simulated}}
connections:
  - town.v_pu -> town_devices.v_pu
  - town_devices.p_kw -> town.p_meas_kw
  - farm.v_pu -> farm_devices.v_pu
  - farm_devices.p_kw -> farm.p_meas_kw
"""
ON_ONE = """\
id: one
steps:
  - id: kettles
    layer: physical
    target: {elements: ["load.*"]PLANT}
    trigger: {at_s: 30}
    action: {kind: load, kw: 300}
  - id: heat
    layer: physical
    target: {elements: ["der.house*"]PLANT}
    trigger: {at_s: 30}
    action: {kind: thermostat, offset_k: 3}
"""


@pytest.mark.parametrize("placement", ["single", "thread"])
def test_an_attack_on_one_of_two_plants_leaves_the_other_alone(
    tmp_path: Path, placement: str
) -> None:
    (tmp_path / "study.yaml").write_text(TWO_PLANTS)
    (tmp_path / "one.yaml").write_text(ON_ONE.replace("PLANT", ", plant: farm"))
    attack = str(tmp_path / "one.yaml")
    clean, attacked = (
        run(
            load_scenario(tmp_path / "study.yaml", attack=a),
            out=tmp_path / name,
            placement=placement,
        ).folder
        for name, a in (("clean", ""), ("attacked", attack))
    )
    for group in ("town", "town_devices"):
        for path in sorted((clean / "signals").glob(f"{group}.*")):
            assert (attacked / "signals" / path.name).read_bytes() == path.read_bytes(), path.name
    assert {row["federate"] for row in read_truth(attacked).to_pylist()} == {"farm"}
    import_kw = [read_signal(f / "signals", "farm.import_kw")[2][:, 0] for f in (clean, attacked)]
    more_kw = import_kw[1] - import_kw[0]
    assert np.abs(more_kw[:3]).max() < 1e-9
    assert more_kw[3:].min() > 250.0  # 300 kW at constant power, less what the houses do


@pytest.mark.parametrize(
    ("plant", "words"),
    [
        ("", "steps[0].target: the scenario has several plants; expected one of town, farm"),
        (
            ", plant: frm",
            "no plant is called 'frm'; expected one of town, farm; did you mean 'farm'",
        ),
    ],
)
def test_which_of_two_plants_must_be_said(tmp_path: Path, plant: str, words: str) -> None:
    (tmp_path / "study.yaml").write_text(TWO_PLANTS)
    (tmp_path / "one.yaml").write_text(ON_ONE.replace("PLANT", plant))
    scenario = load_scenario(tmp_path / "study.yaml", attack=str(tmp_path / "one.yaml"))
    with pytest.raises(WiringError) as caught:
        Assembly(scenario).assemble()
    assert words in str(caught.value)
