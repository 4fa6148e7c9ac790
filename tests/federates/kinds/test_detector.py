"""The detector federate: wired like any other, learning from a clean run or from its own start."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from federates.assembly.federation import Assembly
from federates.core.signals import read_signal
from federates.reports.detection_metrics import detector_rows
from federates.runs.runner import run
from federates.scenario.schema import Scenario, load_scenario
from grid_models.base.errors import FeederateError
from grid_models.base.yaml_lines import yaml_text

ATTACK = {
    "id": "bent",
    "steps": [
        {
            "id": "bias",
            "layer": "signal",
            "trigger": {"at_s": 4800},
            "duration_s": 1200,
            "target": {"port": "feeder.v_pu", "labels": ["671.2"]},
            "action": {"kind": "bias", "value": 0.03},
        }
    ],
}


def _scenario(folder: Path, *, attack: bool = False, seed: int = 1, **watch: object) -> Scenario:
    data = {
        "seed": seed,
        "time": {"start_s": 36000, "duration_s": 7200, "step_s": 60},
        "grid": {
            "model": "ieee13",
            "load_diversity": 0.1,
            "ders": [{"kind": "pv", "at": "load_phases", "total_kw": 1000}],
        },
        "federates": {"feeder": {"kind": "feeder"}},
        "connections": [],
    }
    if watch:
        data["federates"]["watch"] = {"kind": "detector"} | watch
        data["connections"] = [
            {"source": "feeder.v_pu", "target": "watch.v_pu", "noise": 0.001},
            "feeder.p_kw -> watch.p_kw",
            {"source": "feeder.import_kw", "target": "watch.import_kw", "noise": 3.0},
        ]
    if attack:
        data["attack"] = ATTACK
    path = folder / "watched.yaml"
    path.write_text(yaml_text(data))
    return load_scenario(path)


@pytest.fixture(scope="module")
def clean_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clean")
    run(_scenario(folder, seed=2), out=folder / "run", placement="single")
    return folder / "run"


@pytest.mark.parametrize("detector", ["power-flow-residual", "cusum"])
def test_a_forged_voltage_is_seen_and_named(tmp_path: Path, clean_run: Path, detector: str) -> None:
    scenario = _scenario(
        tmp_path, attack=True, detector=detector, options={"clean_run": str(clean_run)}
    )
    out = tmp_path / "run"
    run(scenario, out=out, placement="single")
    (row,) = detector_rows(out)
    assert (row["detector"], row["step"], row["seen"]) == ("watch", "bias", True)
    assert row["delay_s"] <= 120.0
    assert row["false_alarms_per_day"] == 0.0
    assert row["auc"] > 0.8
    time_s, labels, score = read_signal(out / "signals", "watch.score")
    _, _, alarm = read_signal(out / "signals", "watch.alarm")
    np.testing.assert_array_equal(alarm, score >= 1.0)
    at = int(np.flatnonzero(time_s > 4800.0)[0])
    single = [i for i, x in enumerate(labels) if ":" in x]
    assert labels[single[int(score[at, single].argmax())]] == "v_pu:671.2"


def test_the_same_scores_wherever_it_runs(tmp_path: Path, clean_run: Path) -> None:
    options = {"clean_run": str(clean_run)}
    files = []
    for placement in ("single", "thread"):
        scenario = _scenario(tmp_path, attack=True, detector="power-flow-residual", options=options)
        out = tmp_path / placement
        run(scenario, out=out, placement=placement, steps=90)  # type: ignore[arg-type]
        files.append((out / "signals" / "watch.score.parquet").read_bytes())
    assert files[0] == files[1]


def test_while_it_learns_from_the_run_it_is_silent(tmp_path: Path) -> None:
    scenario = _scenario(tmp_path, detector="cusum", options={"calibrate_s": 3600})
    out = tmp_path / "run"
    run(scenario, out=out, placement="single")
    time_s, _, score = read_signal(out / "signals", "watch.score")
    assert not score[time_s < 3600.0].any()
    assert score[time_s > 4200.0].any()


def test_clean_data_of_a_run_carry_the_sensor_noise_of_the_wire(
    tmp_path: Path, clean_run: Path
) -> None:
    scenario = _scenario(tmp_path, detector="cusum")
    watch = Assembly(scenario).build("watch")
    history = watch._clean_history(str(clean_run))  # type: ignore[union-attr]
    _, labels, true = read_signal(clean_run / "signals", "feeder.v_pu")
    port = next(p for p in watch.inputs if p.name == "v_pu")
    columns = [port.labels.index(x) for x in labels]
    error = history.inputs["v_pu"][:, columns] - true
    assert error.std() == pytest.approx(0.001, rel=0.05)
    p_port = next(p for p in watch.inputs if p.name == "p_kw")
    _, _, p_kw = read_signal(clean_run / "signals", "feeder.p_kw")
    np.testing.assert_array_equal(history.inputs["p_kw"], p_kw)
    assert p_port.labels == read_signal(clean_run / "signals", "feeder.p_kw")[1]


OWN = """
import numpy as np

class Limit:
    inputs = ()
    labels = ("band",)
    def __init__(self, site, *, v_max_pu):
        self.inputs = (site.port("v_pu", ["671.*"]),)
        self._v_max_pu = v_max_pu
    def step(self, time_s, inputs):
        return np.array([inputs["v_pu"].max() / self._v_max_pu])
"""


def test_a_detector_of_ones_own_is_a_class_beside_the_scenario(tmp_path: Path) -> None:
    (tmp_path / "own_detector_here.py").write_text(OWN)
    spec = {"detector": "own_detector_here:Limit", "options": {"v_max_pu": 1.1}}
    scenario = _scenario(tmp_path, **spec)
    scenario.connections = scenario.connections[:1]
    run(scenario, out=tmp_path / "run", placement="single", steps=3)
    _, labels, score = read_signal(tmp_path / "run" / "signals", "watch.score")
    assert labels == ("band",)
    assert ((score > 0.8) & (score < 1.0)).all()


def _events(out: Path) -> list[dict[str, object]]:
    lines = (out / "events.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["federate"] == "watch"]


@pytest.mark.parametrize("detector", ["power-flow-residual", "cusum"])
def test_a_run_says_what_nothing_was_learnt_of(tmp_path: Path, detector: str) -> None:
    partly = _scenario(tmp_path, seed=2)
    partly.record.labels = ["6[0-6]*", "680*", "6??r*", "source*", "pv_*"]
    run(partly, out=tmp_path / "clean", placement="single")
    options = {"clean_run": str(tmp_path / "clean")}
    scenario = _scenario(tmp_path, detector=detector, options=options)
    run(scenario, out=tmp_path / "run", placement="single", steps=40)
    (event,) = _events(tmp_path / "run")
    assert event["event"] == "not_learnt"
    assert "v_pu:671.1" in event["lacking"]  # type: ignore[operator]


def test_a_run_that_learnt_of_everything_says_nothing(tmp_path: Path, clean_run: Path) -> None:
    options = {"clean_run": str(clean_run)}
    scenario = _scenario(tmp_path, detector="power-flow-residual", options=options)
    run(scenario, out=tmp_path / "run", placement="single", steps=40)
    assert _events(tmp_path / "run") == []


@pytest.mark.parametrize("detector", ["power-flow-residual", "cusum"])
def test_a_clean_run_that_is_too_short_is_named(tmp_path: Path, detector: str) -> None:
    run(_scenario(tmp_path, seed=2), out=tmp_path / "short", placement="single", steps=20)
    options = {"clean_run": str(tmp_path / "short")}
    with pytest.raises(FeederateError, match="at least 30") as caught:
        Assembly(_scenario(tmp_path, detector=detector, options=options)).build("watch")
    assert "watched.yaml:" in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"options": {}}, "watch.detector: required key is missing"),
        ({"detector": "cusm"}, "did you mean 'cusum'"),
        ({"detector": "cusum", "options": {"shft": 1}}, "did you mean 'shift'"),
        ({"detector": "cusum", "options": {"calibrate_s": 7200}}, "to below duration_s"),
        ({"detector": "cusum", "options": {"calibrate_s": "x"}}, "calibrate_s"),
        ({"detector": "cusum", "options": {"calibrate_s": 2000}}, "at least 35 steps, 2100 s"),
        ({"detector": "cusum", "options": {"clean_run": "nowhere"}}, "is not the folder of a run"),
        ({"detector": "own_plain_one:Limit", "options": {"calibrate_s": 60}}, "does not learn"),
    ],
)
def test_mistakes_name_file_and_line(tmp_path: Path, spec: dict[str, object], words: str) -> None:
    (tmp_path / "own_plain_one.py").write_text(OWN.replace("*, v_max_pu", "v_max_pu=1.1"))
    with pytest.raises(FeederateError) as caught:
        Assembly(_scenario(tmp_path, **spec)).build("watch")
    assert words in str(caught.value)
    assert "watched.yaml:" in str(caught.value)


def test_a_clean_run_of_another_step_is_refused(tmp_path: Path, clean_run: Path) -> None:
    spec = {"detector": "cusum", "options": {"clean_run": str(clean_run)}, "period_s": 120}
    with pytest.raises(FeederateError, match="another step than the detector's"):
        Assembly(_scenario(tmp_path, **spec)).build("watch")
