"""Who publishes which messages, and what is wrong between messages and vectors, before a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from federates.assembly.federation import Assembly
from federates.core.wiring import FederateWiring
from federates.errors import ScenarioError, WiringError
from federates.scenario.schema import scenario_from
from federates.scenario.yaml_source import load_yaml
from grid_models.base.errors import FeederateError

HEAD = """\
time: {duration_s: 60, step_s: 60, start_s: 3600}
grid:
  model: ieee13
  ders: [{kind: pv, at: ["671", "652"], total_kw: 100}]
federates:
  feeder: {kind: feeder}
"""
LAB = """\
  lab:
    kind: external
    topology: feeder
    date: 2017-05-01
    inputs: {v: {oedisi: VoltagesMagnitude, topic: feeder/volts}}
    outputs: {q: {oedisi: PowersImaginary}}
connections:
"""


def _wirings(text: str) -> Mapping[str, FederateWiring]:
    assembly = Assembly(scenario_from(load_yaml(Path("s.yaml"), text)))
    return assembly.assemble()[1]


def test_the_feeder_publishes_messages_and_topology() -> None:
    wirings = _wirings(HEAD + LAB + "- feeder.v_pu -> lab.v\n- lab.q -> feeder.q_set_kvar\n")
    feeder = wirings["feeder"]
    assert feeder.topology
    (message,) = feeder.messages
    assert (message.port, message.topic) == ("v_pu", "feeder/volts")
    n = message.codec.n
    read = json.loads(message.codec.encode(np.ones(n), 0))
    assert len(read["values"]) == n == 38
    assert read["values"][0] == pytest.approx(4160.0 / np.sqrt(3.0), rel=1e-6)
    assert read["time"] == "2017-05-01T01:00:00.000000"


def test_a_sensor_reads_some_labels_scaled_under_names_of_its_own() -> None:
    text = HEAD + LAB.replace("{v: {", '{v: {labels: ["671.3", "632.1"], ')
    wirings = _wirings(text + "- {source: feeder.v_pu, target: lab.v, scale: 2}\n")
    (message,) = wirings["feeder"].messages
    labels = Assembly(scenario_from(load_yaml(Path("s.yaml"), HEAD))).site("feeder").feeder
    v_pu = np.linspace(0.9, 1.1, message.codec.n)
    read = json.loads(message.codec.encode(v_pu, 0))
    assert read["ids"] == ["671.3", "632.1"]
    at = [labels.node_labels.index(x) for x in ("671.3", "632.1")]
    assert read["values"] == pytest.approx(2.0 * v_pu[at] * 4160.0 / np.sqrt(3.0), rel=1e-6)


def test_two_programs_may_read_one_topic_but_not_with_other_contents() -> None:
    second = LAB.replace("lab:", "other:").replace("connections:\n", "")
    wires = "- feeder.v_pu -> lab.v\n- feeder.v_pu -> other.v\n"
    assert len(_wirings(HEAD + second + LAB + wires)["feeder"].messages) == 1
    fewer = second.replace("{v: {", '{v: {labels: ["671.3"], ')
    with pytest.raises(WiringError, match="another publication has the topic 'feeder/volts'"):
        _wirings(HEAD + fewer + LAB + wires)


def test_the_powers_of_all_loads_as_injections() -> None:
    text = HEAD + LAB.replace("VoltagesMagnitude", "PowersReal, labels: loads")
    wires = "- {source: feeder.load_p_kw, target: lab.v, scale: -1}\n"
    (message,) = _wirings(text + wires)["feeder"].messages
    read = json.loads(message.codec.encode(np.full(message.codec.n, 30.0), 0))
    powers = dict(
        zip(zip(read["equipment_ids"], read["ids"], strict=True), read["values"], strict=True)
    )
    assert powers["Load.load_634a", "634.1"] == -30.0
    assert powers["Load.load_671c", "671.3"] == powers["Load.load_671c", "671.1"] == -15.0


ONE = "- feeder.v_pu -> lab.v\n"
VECTOR = "{unit: pu, labels: [a]}"
WRONG = {
    "the vector's own topic": (
        ("topic: feeder/volts", "topic: feeder/v_pu"),
        ONE,
        r"s\.yaml:11: .*another publication has the topic 'feeder/v_pu'",
    ),
    "noise": (
        ("", ""),
        "- {source: feeder.v_pu, target: lab.v, noise: 0.1}\n",
        r"federates\.lab\.inputs\.v: a message has no noise",
    ),
    "another plant": (
        ("topology: feeder", "topology: feder"),
        ONE,
        r"s\.yaml:9: .*'feder'; expected one of feeder; did you mean 'feeder'",
    ),
    "a topic for a vector": (
        ("{oedisi: VoltagesMagnitude, topic: feeder/volts}", "{unit: pu, labels: [a], topic: x}"),
        ONE,
        r"s\.yaml:11: federates\.lab\.inputs\.v\.topic: used for a vector",
    ),
    "an unknown type": (
        ("VoltagesMagnitude", "VoltageMagnitude"),
        ONE,
        r"s\.yaml:11: .*oedisi.*VoltagesMagnitude",
    ),
    "a plain array without labels": (
        ("VoltagesMagnitude", "MeasurementArray"),
        ONE,
        r"s\.yaml:11: federates\.lab\.inputs\.v\.unit: required key is missing",
    ),
    "a label that is not there": (
        ("{oedisi: VoltagesMagnitude", '{labels: ["671.4"], oedisi: VoltagesMagnitude'),
        ONE,
        r"s\.yaml:11: federates\.lab\.inputs\.v: label '671\.4'.*did you mean '671\.",
    ),
    "all loads as voltages": (
        ("{oedisi: VoltagesMagnitude", "{labels: loads, oedisi: VoltagesMagnitude"),
        ONE,
        r"s\.yaml:11: federates\.lab\.inputs\.v: labels 'loads'; .*every node",
    ),
    "all loads as a vector": (
        ("{oedisi: VoltagesMagnitude, topic: feeder/volts}", "{labels: loads, unit: pu}"),
        ONE,
        r"s\.yaml:11: federates\.lab\.inputs\.v\.labels: found 'loads'; expected a list",
    ),
    "labels that are a number": (
        ("{oedisi: VoltagesMagnitude", "{labels: 5, oedisi: VoltagesMagnitude"),
        ONE,
        r"s\.yaml:11: federates\.lab\.inputs\.v\.labels: found 5",
    ),
    "power for voltage": (
        ("", ""),
        "- feeder.p_kw -> lab.v\n",
        r"feeder\.p_kw is in kW, lab\.v expects pu",
    ),
    "no date": (("2017-05-01", "'2017-05-41'"), ONE, r"s\.yaml:10: federates\.lab\.date"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_work_is_refused_before_the_run(case: str) -> None:
    (old, new), wires, words = WRONG[case]
    with pytest.raises(FeederateError, match=words):
        _wirings(HEAD + LAB.replace(old, new) + wires)


def test_a_vector_and_a_message_do_not_meet_between_two_programs() -> None:
    reader = LAB.replace("{oedisi: VoltagesMagnitude, topic: feeder/volts}", VECTOR)
    writer = (
        "  src: {kind: external, outputs: {x: {oedisi: MeasurementArray, unit: pu, labels: [a]}}}\n"
    )
    with pytest.raises(WiringError, match=r"carries OEDI-SI messages; expected both or none"):
        _wirings(HEAD + writer + reader + "- src.x -> lab.v\n")


def test_several_plants_need_one_that_is_connected() -> None:
    text = HEAD + "  second: {kind: feeder}\n" + LAB.replace("connections:\n", "")
    with pytest.raises(ScenarioError, match="names no plant; expected connections with one plant"):
        _wirings(text)
