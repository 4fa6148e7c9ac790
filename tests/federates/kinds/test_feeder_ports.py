"""Outputs of a feeder that exist only where the scenario uses them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from federates.assembly.federation import Assembly
from federates.commands.check import check_scenario
from federates.core.signals import read_signal, signal_names
from federates.kinds.feeder.ports import OUTPUTS
from federates.runs.runner import run
from federates.scenario.schema import Scenario, load_scenario
from grid_models.base.yaml_lines import yaml_text
from grid_models.catalog import open_circuit

USUAL = ["import_kvar", "import_kw", "losses_kw", "p_kw", "q_kvar", "v_pu"]


def scenario_of(folder: Path, **changes: Any) -> Scenario:
    data = {
        "time": {"start_s": 43200, "duration_s": 300, "step_s": 60},
        "grid": {"model": "ieee13", "ders": [{"kind": "pv", "total_kw": 500}]},
        "federates": {"feeder": {"kind": "feeder"}},
    } | changes
    path = folder / "ports.yaml"
    path.write_text(yaml_text(data))
    return load_scenario(path)


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        (["*"], []),
        (["feeder.*"], []),
        (["*.*"], []),
        (["feeder.v_pu"], []),
        (["*", "feeder.i_a"], ["i_a"]),
        (["feeder.*_pct"], ["loading_pct", "unbalance_pct"]),
    ],
)
def test_a_glob_that_names_the_port_switches_it_on(
    tmp_path: Path, ports: list[str], expected: list[str]
) -> None:
    scenario = scenario_of(tmp_path, record={"ports": ports})
    feeder = Assembly(scenario).build("feeder")
    names = sorted(port.name for port in feeder.outputs)
    assert names == sorted([*USUAL, *expected])
    (row,) = check_scenario(scenario).federates
    assert sorted(row.optional_outputs) == sorted(OUTPUTS.keys() - set(expected))


def test_an_attack_switches_on_what_it_names(tmp_path: Path) -> None:
    attack = {
        "id": "hidden-overload",
        "steps": [
            {
                "id": "bias",
                "layer": "signal",
                "trigger": {"at_s": 0},
                "target": {"port": "feeder.loading_pct", "labels": ["line.*"]},
                "action": {"kind": "scale", "factor": 0.5},
            }
        ],
    }
    scenario = scenario_of(tmp_path, attack=attack)
    assert "loading_pct" in {port.name for port in Assembly(scenario).build("feeder").outputs}


def test_a_connection_switches_a_port_on_and_reads_its_values(tmp_path: Path) -> None:
    (tmp_path / "alarm.py").write_text(
        "import numpy as np\n"
        "from federates.core.federate import Federate, Port, Step\n"
        "class Alarm(Federate):\n"
        "    def __init__(self, context):\n"
        "        super().__init__(context)\n"
        "        self.inputs = (Port('loading_pct', '%', ('line.line_650r_632',)),)\n"
        "        self.outputs = (Port('seen_pct', '%', ('line',)),)\n"
        "    def step(self, time_s, inputs, mail):\n"
        "        return Step({'seen_pct': np.array(inputs['loading_pct'])})\n"
    )
    scenario = scenario_of(
        tmp_path,
        federates={"feeder": {"kind": "feeder"}, "alarm": {"kind": "alarm:Alarm"}},
        connections=["feeder.loading_pct -> alarm.loading_pct"],
    )
    folder = run(scenario, out=tmp_path / "run", placement="single").folder
    _, labels, loading = read_signal(folder / "signals", "feeder.loading_pct")
    _, _, seen = read_signal(folder / "signals", "alarm.seen_pct")
    np.testing.assert_array_equal(seen[:, 0], loading[:, labels.index("line.line_650r_632")])
    assert seen.min() > 0.0


def test_every_output_has_a_number_per_label_and_agrees_with_the_circuit(tmp_path: Path) -> None:
    scenario = scenario_of(
        tmp_path,
        grid={"model": "ieee13", "ders": []},
        record={"ports": ["*", *(f"feeder.{name}" for name in OUTPUTS)]},
    )
    folder = run(scenario, out=tmp_path / "run", placement="single").folder
    assert set(signal_names(folder / "signals")) == {f"feeder.{n}" for n in (*USUAL, *OUTPUTS)}
    last = {}
    for name in OUTPUTS:
        _, labels, values = read_signal(folder / "signals", f"feeder.{name}")
        of_ders = name.startswith("file_der") or name in (
            "temp_c",
            "soc_kwh",
            "plugged",
            "p_avail_kw",
        )
        assert bool(labels) != of_ders  # IEEE 13 has no DERs of its own
        assert np.isfinite(values).all(), name
        last[name] = dict(zip(labels, values[-1], strict=True))
    circuit = open_circuit("ieee13")
    assert last["tap"] == circuit.tap_steps()
    assert set(last["cap_state"].values()) == {1.0}
    assert last["v_ln_pu"].keys() == last["v_deg"].keys() == set(circuit.node_labels)
    _, _, import_kw = read_signal(folder / "signals", "feeder.import_kw")
    head = "line_650r_632"
    assert last["line_p_kw"][head] == pytest.approx(import_kw[-1, 0], rel=1e-5)
    _, _, losses_kw = read_signal(folder / "signals", "feeder.losses_kw")
    assert sum(last["load_p_kw"].values()) == pytest.approx(
        import_kw[-1, 0] - losses_kw[-1, 0], rel=1e-5
    )


def test_optional_outputs_do_not_change_the_others(tmp_path: Path) -> None:
    bytes_of = []
    for ports in (["*"], ["*", "feeder.i_a", "feeder.v_deg", "feeder.load_p_kw"]):
        scenario = scenario_of(tmp_path, record={"ports": ports})
        out = tmp_path / f"run{len(bytes_of)}"
        run(scenario, out=out, placement="single")
        files = [out / "signals" / f"feeder.{name}.parquet" for name in USUAL]
        bytes_of.append([file.read_bytes() for file in files])
    assert bytes_of[0] == bytes_of[1]
