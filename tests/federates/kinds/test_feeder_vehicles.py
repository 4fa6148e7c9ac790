"""Electric vehicles, houses and batteries of a feeder federate: ports, events, metric."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from federates.core.signals import read_signal
from federates.errors import ScenarioError
from federates.runs.runner import run
from federates.scenario.schema import load_scenario
from grid_models.base.errors import FeederateError
from grid_models.base.yaml_lines import yaml_text

VEHICLE = {
    "kind": "vehicle",
    "at": "houses",
    "kw": 7.2,
    "leave_h": 8,
    "return_h": 17,
    "trip_kwh": 9,
}
CASE = {
    "time": {"start_s": 21600, "duration_s": 50400, "step_s": 900},  # 6:00 to 20:00
    "grid": {
        "model": "ieee13",
        "ders": [
            {"kind": "house", "at": "load_phases", "kw_per_load_kw": 1},
            {"kind": "battery", "at": ["671"], "kw": 50},
            {**VEHICLE, "soc_start": 0.7, "fraction": 0.5},
            {**VEHICLE, "prefix": "full"},
        ],
    },
    "federates": {
        "feeder": {"kind": "feeder"},
        "hold": {
            "kind": "signal",
            "options": {
                "port": "p_set_kw", "unit": "kW", "values": [[0, 0.0]], "ders": ["vehicle_*"]
            },
        },
    },
    "connections": ["hold.p_set_kw -> feeder.p_set_kw"],
    "record": {"ports": ["*", "feeder.temp_c", "feeder.soc_kwh", "feeder.plugged"]},
}  # fmt: skip


def test_ports_event_and_metric(tmp_path: Path) -> None:
    (tmp_path / "cars.yaml").write_text(yaml_text(CASE))
    done = run(load_scenario(tmp_path / "cars.yaml"), out=tmp_path / "r", placement="single")
    read = {
        port: dict(zip(labels, values.T, strict=True))
        for port in ("p_kw", "temp_c", "soc_kwh", "plugged")
        for _, labels, values in [read_signal(done.folder / "signals", f"feeder.{port}")]
    }
    held = [x for x in read["plugged"] if x.startswith("vehicle")]
    full = [x for x in read["plugged"] if x.startswith("full")]
    assert len(full) == len(read["temp_c"]) > len(held) > 0
    assert set(read["soc_kwh"]) == {"battery_671", *held, *full}
    hours = 6.0 + np.arange(56) / 4.0
    away = (hours >= 8.0) & (hours < 17.0)
    for name in (*held, *full):
        assert (read["plugged"][name] == ~away).all()
        assert (read["p_kw"][name][away] == 0.0).all()
    # The first charge until the set-point of 0 kW arrives, one step late, and never again; nobody
    # commands the others: they charge when they come.
    start_kwh = 0.7 * 57.6 + 0.95 * 7.2 / 4
    for name in held:
        assert read["soc_kwh"][name][-1] == pytest.approx(start_kwh - 9.0)
        assert not read["p_kw"][name][1:].any()
    for name in full:
        assert read["p_kw"][name][hours == 17.0] == -7.2
        assert read["soc_kwh"][name][-1] == pytest.approx(57.6)
    events = [json.loads(line) for line in (done.folder / "events.jsonl").read_text().splitlines()]
    (event,) = [e for e in events if e["event"] == "vehicles_left_below_target"]
    assert (event["federate"], event["time_s"]) == ("feeder", 7200.0)
    assert event["vehicles"].split(", ")[0] == held[0]
    assert event["count"] == len(held)
    assert event["short_kwh"] == pytest.approx(len(held) * (0.8 * 57.6 - start_kwh), abs=1e-3)
    assert done.metrics["vehicles_left_below_target_count"] == len(held)


def test_heat_pumps_of_the_grid_run_at_a_set_point_where_it_says_so(tmp_path: Path) -> None:
    house = {"kind": "house", "at": ["671"], "kw": 70}
    hold = {"port": "p_set_kw", "unit": "kW", "values": [[0, -40.0]], "ders": ["house_*"]}
    drawn = {}
    for pumps in ("thermostat", "variable_speed"):
        grid = {"model": "ieee13", "ders": [house], "heat_pumps": pumps}
        case = CASE | {
            "time": {"start_s": 43200, "duration_s": 300, "step_s": 60},
            "grid": grid | {"profiles": {"temp_mean_c": 26}},
            "federates": {
                "feeder": {"kind": "feeder"},
                "hold": {"kind": "signal", "options": hold},
            },
        }
        (tmp_path / "pumps.yaml").write_text(yaml_text(case))
        done = run(load_scenario(tmp_path / "pumps.yaml"), out=tmp_path / pumps, placement="single")
        drawn[pumps] = read_signal(done.folder / "signals", "feeder.p_kw")[2][1:, 0]
    assert drawn["variable_speed"] == pytest.approx(np.full(4, -40.0))
    assert (drawn["thermostat"] > -40.0 + 1.0).all(), "most units rest at first"


def test_without_vehicles_there_is_no_metric_of_them(tmp_path: Path) -> None:
    done = run(load_scenario("voltvar-ieee13"), out=tmp_path / "r", placement="single", steps=2)
    assert not [key for key in done.metrics if "vehicle" in key]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"leave_h": None}, r"'vehicle_.*leave_h is None, return_h is 17"),
        ({"leave_h": 17}, "two different hours of day"),
        ({"trip_kwh": 90}, "trip_kwh is 90.*from 0 to 57.6"),
    ],
)
def test_an_impossible_use_is_no_traceback(
    tmp_path: Path, changed: dict[str, object], message: str
) -> None:
    rules = [CASE["grid"]["ders"][0], VEHICLE | changed]  # type: ignore[index]
    (tmp_path / "cars.yaml").write_text(
        yaml_text({**CASE, "grid": {"model": "ieee13", "ders": rules}})
    )
    with pytest.raises((ScenarioError, FeederateError), match=message):
        run(load_scenario(tmp_path / "cars.yaml"), out=tmp_path / "r", placement="single", steps=1)
