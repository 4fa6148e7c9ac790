"""The key `safety` of a controller: runs, events, and what a user is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from federates.assembly.federation import Assembly
from federates.errors import WiringError
from federates.runs.runner import run
from federates.scenario.schema import load_scenario
from grid_models.base.errors import FeederateError

SCENARIO = "voltvar-ieee123-safety"


def metrics(folder: Path, *settings: str) -> dict[str, float]:
    """Return the metrics of four minutes."""
    scenario = load_scenario(SCENARIO, ["time.duration_s=240", *settings])
    run(scenario, out=folder, placement="single")
    return dict(json.loads((folder / "summary.json").read_text())["metrics"])


def test_a_malicious_policy_is_kept_in_the_band_and_the_run_says_so(tmp_path: Path) -> None:
    safe = metrics(tmp_path / "safe")
    assert safe["out_of_band_node_hours"] < 0.005
    assert safe["safety_acted_s"] == 240.0
    lines = (tmp_path / "safe" / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    (begin,) = [e for e in events if e["event"] == "safety_begins"]
    assert begin["federate"] == "volt_var"
    assert begin["most_of_rating"] > 0.5


ATTACK = """\
id: {id}
title: {id}
seed: 1
steps:
  - id: step
    layer: signal
    trigger: {{at_s: 0}}
    target: {target}
    action: {action}
"""


def attacked(folder: Path, target: str, action: str, *settings: str) -> dict[str, float]:
    """Return the metrics of four minutes of a droop under an attack."""
    path = folder / "attack.yaml"
    path.write_text(ATTACK.format(id="attack", target=target, action=action))
    controller = "federates.volt_var.controller=volt-var-1547"
    scenario = load_scenario(
        SCENARIO, ["time.duration_s=240", controller, *settings], attack=str(path)
    )
    run(scenario, out=folder / "run", placement="single")
    return dict(json.loads((folder / "run" / "summary.json").read_text())["metrics"])


def test_what_an_attack_shows_the_controller_does_not_reach_the_layer(tmp_path: Path) -> None:
    forged = "{port: volt_var.v_pu}", "{kind: bias, value: -0.08}"
    found = {}
    for name, settings in (("open", ["federates.volt_var.safety=null"]), ("safe", [])):
        (tmp_path / name).mkdir()
        found[name] = attacked(tmp_path / name, *forged, *settings)["out_of_band_node_hours"]
    assert found["open"] > 1.0
    assert found["safe"] < 0.01


def test_inverters_whose_set_points_are_replaced_are_frozen(tmp_path: Path) -> None:
    attacked(tmp_path, "{port: feeder.q_set_kvar, count: 10}", "{kind: set, value: 1000}")
    lines = (tmp_path / "run" / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    assert sum(e["count"] for e in events if e["event"] == "inverters_frozen") == 10
    assert not [e for e in events if e["event"] == "inverters_follow"]


def test_prices_by_mail_give_the_same_run_however_the_agents_are_split(tmp_path: Path) -> None:
    price = "federates.volt_var.safety.kind=price"
    links = "links=[{source: '*', target: '*', loss: 0.1, latency_s: 7}]"
    one = metrics(tmp_path / "one", price, links)
    parts = metrics(tmp_path / "parts", price, links, "federates.volt_var.split=7")
    assert one.keys() == parts.keys()
    for key in ("v_max_pu", "v_min_pu", "losses_kwh", "abs_q_kvarh", "safety_slack_max_pu"):
        assert one[key] == parts[key]


def refused(*settings: str) -> str:
    with pytest.raises((FeederateError, WiringError)) as info:
        Assembly(load_scenario(SCENARIO, list(settings))).assemble()
    return str(info.value)


def test_measurements_of_the_layer_are_connected_to_the_plant_unless_they_are_fed() -> None:
    wire = "feeder.p_kw -> volt_var.safety_p_kw"
    noisy = "{source: feeder.q_kvar, target: volt_var.safety_q_kvar, noise: 2}"
    scenario = load_scenario(SCENARIO, [f"connections=[{wire}, {noisy}]"])
    targets = [w.target for w in scenario.wires]
    own = [t for t in targets if t.startswith("volt_var.safety_")]
    assert sorted(own) == [f"volt_var.safety_{port}" for port in ("p_kw", "q_kvar", "v_pu")]
    assert scenario.wires[1].noise == 2.0
    volt_watt = load_scenario(SCENARIO, ["federates.volt_var.safety.volt_watt=true"])
    assert {"volt_var.safety_p_avail_kw", "feeder.p_set_kw"} <= {w.target for w in volt_watt.wires}


def test_a_split_controller_has_no_central_form() -> None:
    text = refused("federates.volt_var.split=4")
    assert "kind 'central' needs all set-points in one federate" in text
    assert "kind: price" in text


@pytest.mark.parametrize(
    ("connections", "told"),
    [
        ("feeder.v_pu -> volt_var.v_pu", "volt_var.q_set_kvar is connected to nothing"),
        (
            "feeder.v_pu -> volt_var.v_pu, volt_var.q_set_kvar -> feeder.q_set_kvar, "
            "other.p_set_kw -> feeder.p_set_kw",
            "volt_var.p_set_kw is connected to nothing, .*, or volt_watt: false",
        ),
    ],
)
def test_a_layer_whose_set_points_reach_nobody_is_refused(connections: str, told: str) -> None:
    settings = [
        f"connections=[{connections}]",
        "federates.volt_var.safety.volt_watt=true",
        "federates.other={kind: signal, options: {port: p_set_kw, unit: kW, labels: [pv_1_1], "
        "values: [[0, 5]]}}",
    ]
    with pytest.raises(FeederateError, match=rf"federates\.volt_var\.safety.*{told}"):
        Assembly(load_scenario(SCENARIO, settings)).assemble()


def test_a_controller_without_reactive_set_points_is_refused() -> None:
    text = refused("federates.volt_var.controller=reconfiguration")
    assert "has no output q_set_kvar" in text


def test_volt_watt_without_pv_is_refused() -> None:
    rule = "{kind: battery, at: load_buses, total_kw: 500, hours: 2}"
    text = refused("federates.volt_var.safety.volt_watt=true", f"grid.ders=[{rule}]")
    assert "volt_watt has nothing to limit" in text


def test_agents_that_are_no_ders_have_no_price_form() -> None:
    text = refused("federates.volt_var.controller=rt-opf", "federates.volt_var.options={}",
                   "federates.volt_var.safety.kind=price")  # fmt: skip
    assert "'area0' is the name of no DER" in text


@pytest.mark.parametrize(
    ("setting", "told"),
    [("safety={kind: centrel}", "central"), ("safety={kind: central, margin: 1}", "margin_pu"),
     ("safety={kind: central, margin_pu: 0.06}", "margin_pu")],
)  # fmt: skip
def test_a_wrong_key_or_value_is_named(setting: str, told: str) -> None:
    text = refused(f"federates.volt_var.{setting}")
    assert "safety" in text
    assert told in text
