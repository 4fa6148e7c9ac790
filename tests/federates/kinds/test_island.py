"""A feeder with a grid-forming unit: limits, outputs, events, metrics, faults of the user."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from federates.core.signals import read_signal
from federates.errors import ScenarioError
from federates.runs.runner import RunResult, run
from federates.scenario.schema import load_scenario
from grid_models.base.yaml_lines import yaml_text

# IEEE 13: own loads of 3.5 MW and flexible ones of 1.7, a unit of 3 MW, and a generator whose first
# set-point arrives at 60 s: too little, enough, too little, too much, enough.
DERS = [
    {"kind": "flexible_load", "at": "load_phases", "kw_per_load_kw": 0.5},
    {"kind": "inverter", "prefix": "gen", "at": ["671"], "kw": 6000},
]
STEPS = [[0, 2000.0], [60, 1000.0], [120, 6000.0], [180, 4000.0]]
CASE: dict[str, Any] = {
    "time": {"duration_s": 300, "step_s": 60},
    "grid": {
        "model": "ieee13",
        "grid_forming": {"p_max_kw": 3000, "critical_load_pu": 0.8},
        "ders": DERS,
        "profiles": {"path": "flat.csv"},
    },
    "federates": {
        "feeder": {"kind": "feeder"},
        "dispatch": {
            "kind": "signal",
            "options": {"port": "p_set_kw", "unit": "kW", "values": STEPS, "ders": ["gen*"]},
        },
    },
    "connections": ["dispatch.p_set_kw -> feeder.p_set_kw"],
    "record": {"ports": ["*", "feeder.unit_kw", "feeder.shed_kw", "feeder.curtailed_kw"]},
}


def done(folder: Path, case: dict[str, Any]) -> RunResult:
    (folder / "flat.csv").write_text(
        "time_s,irradiance_pu,temp_c,load_pu\n0,0,20,1\n86400,0,20,1\n"
    )
    (folder / "case.yaml").write_text(yaml_text(case))
    return run(load_scenario(folder / "case.yaml"), out=folder / "r", placement="single")


def test_the_unit_is_held_and_loads_come_back(tmp_path: Path) -> None:
    result = done(tmp_path, CASE)

    def of(port: str) -> np.ndarray:
        return read_signal(result.folder / "signals", f"feeder.{port}")[2]

    unit, shed, curtailed = of("unit_kw")[:, 0], of("shed_kw"), of("curtailed_kw")[:, 0]
    np.testing.assert_array_equal(unit, of("import_kw")[:, 0])
    assert unit.min() >= 0.0
    assert unit.max() <= 3000.0
    np.testing.assert_allclose(shed[:, 0], shed[:, 1] + shed[:, 2])
    # What p_kw does not say is the feeder's own loads: they are critical.
    labels, p_kw = read_signal(result.folder / "signals", "feeder.p_kw")[1:]
    loads = [i for i, label in enumerate(labels) if not label.startswith("gen")]
    demand = -p_kw[4, loads]
    full = shed[:, 2] > 0.0
    assert full.tolist() == [True, False, True, False, False]
    assert (shed[:, 1] > 0.0).tolist() == [True, True, True, False, False]
    least = 0.8 * demand
    np.testing.assert_allclose(shed[full, 1], (demand - least).sum())
    kept = -p_kw[0, loads] / least
    np.testing.assert_allclose(kept, kept[0])
    assert kept[0] < 1.0
    assert (curtailed > 0.0).tolist() == [False, False, False, True, False]
    np.testing.assert_allclose(unit[[0, 1, 2]], 3000.0, rtol=3e-4)
    assert 0.0 <= unit[3] <= 3000.0 * 3e-4
    told = [json.loads(line) for line in (result.folder / "events.jsonl").read_text().splitlines()]
    words = ("load_shedding", "critical_load_shedding", "generation_curtailment")
    found = [(e["event"], e["time_s"]) for e in told if e["event"].startswith(words)]
    assert found == [
        ("load_shedding_began", 0.0),
        ("critical_load_shedding_began", 0.0),
        ("critical_load_shedding_ended", 60.0),
        ("critical_load_shedding_began", 120.0),
        ("load_shedding_ended", 180.0),
        ("critical_load_shedding_ended", 180.0),
        ("generation_curtailment_began", 180.0),
        ("generation_curtailment_ended", 240.0),
    ]
    metrics = result.metrics
    assert metrics["unit_peak_kw"] == metrics["import_peak_kw"] == unit.max()
    assert metrics["unit_least_kw"] == unit.min()
    assert metrics["shed_kwh"] == pytest.approx(shed[:, 0].sum() / 60.0)
    assert metrics["critical_shed_kwh"] == pytest.approx(shed[:, 2].sum() / 60.0)
    assert metrics["curtailed_kwh"] == pytest.approx(curtailed.sum() / 60.0)
    assert metrics["balance_error_max_ppm"] < 1.0


@pytest.mark.parametrize(
    ("forming", "message"),
    [
        ({"p_max_kw": 0}, "grid_forming.p_max_kw: found 0; expected a number above 0"),
        ({"p_max_kw": 5, "p_min_kw": 7}, "p_min_kw 7 below p_max_kw 5"),
        ({"p_max": 5}, "did you mean 'p_max_kw'"),
        ({"p_max_kw": 5, "critical_load_pu": 2}, "critical_load_pu"),
        (None, "no output port matches 'feeder.unit_kw'"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, forming: object, message: str) -> None:
    with pytest.raises(ScenarioError) as found:
        done(tmp_path, {**CASE, "grid": {**CASE["grid"], "grid_forming": forming}})
    assert message in str(found.value)
