"""Commands to a feeder: taps, capacitors, switches and loads; and what the run says of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from federates.assembly.federation import Assembly
from federates.core.federate import FloatArray
from federates.core.signals import read_signal
from federates.errors import WiringError
from federates.kinds.feeder.federate import FeederFederate
from federates.runs.runner import RunResult, run
from federates.scenario.schema import Scenario, load_scenario
from grid_models.base.yaml_lines import yaml_text
from grid_models.catalog import open_circuit

# Two lines, a tie that is open, a regulator and a capacitor bank of three steps with a control.
TOWN = """clear
new circuit.town basekv=12.47 bus1=s pu=1.0
new transformer.rg phases=3 windings=2 buses=[s r] conns=[wye wye] kvs=[12.47 12.47]
~ kvas=[5000 5000] xhl=0.01 %loadloss=0.01
new regcontrol.rg transformer=rg winding=2 vreg=122 band=2 ptratio=60
new line.l1 bus1=r bus2=a r1=0.3 x1=0.6 r0=.5 x0=1.5 length=4 normamps=90
new line.l2 bus1=a bus2=b r1=0.3 x1=0.6 r0=.5 x0=1.5 length=4 normamps=90
new line.tie bus1=r bus2=b switch=y
open line.tie 1
new load.x bus1=a kv=12.47 kw=1200 kvar=400
new load.y bus1=b kv=12.47 kw=600 kvar=200
new capacitor.bank bus1=b kv=12.47 kvar=300 numsteps=3
new capcontrol.bank capacitor=bank element=line.l1 type=kvar ptratio=1 ctratio=1 on=2000 off=-2000
set voltagebases=[12.47]
calcvoltagebases
"""
SIGNALS = {
    "tap_set": ("step", ["rg"]),
    "cap_set": ("step", ["bank"]),
    "switch_set": ("1", ["l2", "tie"]),
    "load_scale": ("1", ["x"]),
}

# An operator: a step function of time, in which null is "no command".
OPERATOR = """import numpy as np
from federates.core.federate import Federate, Port, Step


class Operator(Federate):
    def __init__(self, context, port, unit, labels, values):
        super().__init__(context)
        self.outputs = (Port(port, unit, tuple(labels), initial=np.nan),)
        self._values = values

    def step(self, time_s, inputs, mail):
        (port,) = self.outputs
        now = [value for begin_s, value in self._values if begin_s <= time_s][-1]
        return Step({port.name: np.full(len(port.labels), np.nan if now is None else now)})
"""


def town(
    folder: Path, *, regulators: str = "fixed", grid: dict[str, Any] | None = None, **values: Any
) -> Scenario:
    """A day of steps of one minute; `values`: ``[[time_s, value], ...]`` by input."""
    (folder / "town.dss").write_text(TOWN)
    (folder / "town_operator.py").write_text(OPERATOR)
    federates: dict[str, Any] = {"feeder": {"kind": "feeder"}}
    connections = []
    for name, steps in values.items():
        unit, labels = SIGNALS[name]
        options = {"port": name, "unit": unit, "values": steps, "labels": labels}
        federates[name] = {"kind": "town_operator:Operator", "options": options, "offset_s": 0}
        connections.append(f"{name}.{name} -> feeder.{name}")
    wanted = ("tap", "cap_state", "loading_pct", "load_p_kw", "i_a", "v_deg")
    data = {
        "time": {"duration_s": 600, "step_s": 60},
        "grid": {"model": "town.dss", "regulators": regulators, "profiles": {"path": "flat.csv"}}
        | (grid or {}),
        "federates": federates,
        "connections": connections,
        "record": {"ports": ["*", *(f"feeder.{name}" for name in wanted)]},
    }
    (folder / "flat.csv").write_text("time_s,load_pu\n0,1\n600,1\n")
    path = folder / "town.yaml"
    path.write_text(yaml_text(data))
    return load_scenario(path)


def ran(folder: Path, **options: Any) -> RunResult:
    return run(town(folder, **options), out=folder / "run", placement="single")


def signal(result: RunResult, port: str) -> dict[str, FloatArray]:
    _, labels, values = read_signal(result.folder / "signals", f"feeder.{port}")
    return dict(zip(labels, values.T, strict=True))


def events(result: RunResult, kind: str) -> list[dict[str, Any]]:
    lines = (result.folder / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def test_a_tap_is_moved_held_and_given_back(tmp_path: Path) -> None:
    values = [[0, None], [120, 12], [300, None]]
    held = ran(tmp_path, regulators="auto", tap_set=values)
    free = run(town(tmp_path, regulators="auto"), out=tmp_path / "free", placement="single")
    tap, alone = signal(held, "tap")["rg"], signal(free, "tap")["rg"]
    assert (alone == alone[0]).all()
    # Published at 120 s and read after it.
    assert tap[2] == alone[2] != 12.0
    assert (tap[3:6] == 12.0).all()
    # Its own control brings it back.
    assert abs(tap[-1] - alone[-1]) <= 2.0 < abs(12.0 - alone[-1])
    moved = np.abs(np.diff(tap)).sum()
    assert held.metrics["tap_changes"] == moved
    told = events(held, "tap_changed")
    assert sum(abs(e["after"] - e["before"]) for e in told) == moved
    assert told[0] | {"wall": ""} == {
        "wall": "",
        "time_s": 180.0,
        "federate": "feeder",
        "event": "tap_changed",
        "element": "rg",
        "before": int(alone[0]),
        "after": 12,
    }
    assert free.metrics["tap_changes"] == 0.0


def test_a_held_tap_gives_the_voltages_of_that_tap(tmp_path: Path) -> None:
    result = ran(tmp_path, tap_set=[[0, -3]])
    circuit = open_circuit(tmp_path / "town.dss", taps={"rg": -3})
    last = {label: v[-1] for label, v in signal(result, "v_pu").items()}
    for label, v_pu in zip(circuit.node_labels, circuit.v_pu(), strict=True):
        assert last[label] == pytest.approx(v_pu, abs=3e-6)


def test_a_command_out_of_range_is_limited_and_said(tmp_path: Path) -> None:
    result = ran(tmp_path, tap_set=[[0, 40]], cap_set=[[0, 1.4]], load_scale=[[0, -2]])
    assert signal(result, "tap")["rg"][-1] == 16.0
    assert signal(result, "cap_state")["bank"][-1] == 1.0
    assert signal(result, "load_p_kw")["x"][-1] == pytest.approx(0.0, abs=1e-6)
    told = {e["port"]: e for e in events(result, "command_limited")}
    assert {name: (e["element"], e["asked"], e["applied"]) for name, e in told.items()} == {
        "tap_set": ("rg", 40.0, 16),
        "cap_set": ("bank", 1.4, 1),
        "load_scale": ("x", -2.0, 0),
    }
    assert len(events(result, "command_limited")) == 3


def test_a_capacitor_is_switched_held_and_given_back(tmp_path: Path) -> None:
    result = ran(tmp_path, regulators="auto", cap_set=[[0, 0], [180, 2], [360, None]])
    state = signal(result, "cap_state")["bank"].tolist()
    assert state[1:4] == [0.0] * 3
    assert state[4:] == [2.0] * 6  # its control has no reason to move it
    assert result.metrics["cap_switchings"] == 5.0
    assert [e["after"] for e in events(result, "capacitor_switched")] == [0, 2]


def test_a_switched_off_load_is_energy_not_served_until_the_tie_closes(tmp_path: Path) -> None:
    result = ran(tmp_path, switch_set=[[0, None], [60, 0]])
    load = signal(result, "load_p_kw")["y"]
    # `l2` and `tie` are both open from the step at 120 s on.
    assert load[:2] == pytest.approx([600.0] * 2, rel=1e-4)
    assert load[2:] == pytest.approx([0.0] * 8, abs=1e-6)
    assert result.metrics["energy_not_served_kwh"] == pytest.approx(600.0 * 8 / 60.0)
    assert result.metrics["dead_node_hours"] == pytest.approx(3 * 8 / 60.0)
    for port in ("v_pu", "v_deg"):
        assert (signal(result, port)["b.2"][:2] != 0.0).all()
        assert (signal(result, port)["b.2"][2:] == 0.0).all()
    assert result.metrics["v_min_pu"] > 0.9
    assert [(e["element"], e["closed"]) for e in events(result, "switched")] == [
        ("l2", False),
        ("tie", False),
    ]
    assert result.metrics["balance_error_max_ppm"] < 10.0


def test_a_tie_takes_over_the_load(tmp_path: Path) -> None:
    scenario = town(tmp_path, switch_set=[[0, None]])
    feeder = Assembly(scenario).build("feeder")
    assert isinstance(feeder, FeederFederate)
    inputs = {port.name: np.full(len(port.labels), port.initial) for port in feeder.inputs}
    inputs["q_set_kvar"] = np.zeros(0)
    (switch,) = (port for port in feeder.inputs if port.name == "switch_set")
    assert switch.labels == ("l1", "l2", "tie")

    def amps(l2: float, tie: float) -> dict[str, float]:
        inputs["switch_set"] = np.array([np.nan, l2, tie])
        outputs = feeder.step(0.0, inputs, None).outputs
        names = next(p.labels for p in feeder.outputs if p.name == "i_a")
        return dict(zip(names, outputs["i_a"], strict=True))

    before = amps(np.nan, np.nan)
    assert before["line.l2.1.1"] > 20.0
    assert before["line.tie.1.1"] < 0.1
    after = amps(0.0, 1.0)
    assert after["line.l2.1.1"] < 0.1
    assert after["line.tie.1.1"] == pytest.approx(before["line.l2.1.1"], rel=0.1)
    again = amps(1.0, 0.0)
    assert again["line.l2.1.1"] == pytest.approx(before["line.l2.1.1"], rel=1e-5)


def test_loads_follow_their_factor(tmp_path: Path) -> None:
    result = ran(tmp_path, load_scale=[[0, None], [300, 0.5]])
    load = signal(result, "load_p_kw")
    assert load["x"][:6] == pytest.approx([1200.0] * 6, rel=1e-4)
    assert load["x"][6:] == pytest.approx([600.0] * 4, rel=1e-4)
    assert load["y"] == pytest.approx([600.0] * 10, rel=1e-4)


def test_a_command_without_a_port_is_refused_with_the_nearest(tmp_path: Path) -> None:
    scenario = town(tmp_path)
    text = (
        (tmp_path / "town.yaml")
        .read_text()
        .replace("connections: []", "connections: ['feeder.import_kw -> feeder.tap_st']")
    )
    (tmp_path / "town.yaml").write_text(text)
    assert scenario.connections == []
    with pytest.raises(WiringError, match="did you mean 'tap_set'"):
        run(load_scenario(tmp_path / "town.yaml"), out=tmp_path / "run", placement="single")


def test_the_highest_loading_is_said_with_its_place(tmp_path: Path) -> None:
    result = ran(tmp_path, load_scale=[[0, 1], [180, 1.4]])
    loading = signal(result, "loading_pct")
    assert result.metrics["loading_max_pct"] == loading["line.l1"].max()
    (told,) = events(result, "highest_loading")
    assert told["element"] == "line.l1"
    assert told["time_s"] == 60.0 * int(loading["line.l1"].argmax())
    over = loading["line.l1"] > 100.0
    assert 0 < over.sum() < 10
    assert result.metrics["overload_h"] == pytest.approx(over.sum() / 60.0)
    losses = [result.metrics[k] for k in ("line_losses_kwh", "transformer_losses_kwh")]
    assert sum(losses) == pytest.approx(result.metrics["losses_kwh"], rel=1e-6)
    assert min(losses) > 0.0


def test_without_ports_of_currents_they_are_read_every_five_minutes(tmp_path: Path) -> None:
    peak = [[0, 1], [60, 1.4], [120, 1]]
    seen = ran(tmp_path, load_scale=peak)
    scenario = town(tmp_path, load_scale=peak)
    scenario.record.ports = ["*"]
    plain = run(scenario, out=tmp_path / "plain", placement="single")
    # The peak is over before the reading at 300 s.
    assert seen.metrics["loading_max_pct"] > 100.0 > plain.metrics["loading_max_pct"] > 60.0
    assert plain.metrics["losses_kwh"] == seen.metrics["losses_kwh"]
    parts = [plain.metrics[k] for k in ("line_losses_kwh", "transformer_losses_kwh")]
    assert sum(parts) == pytest.approx(plain.metrics["losses_kwh"], rel=1e-6)
    # What is switched is read at once.
    out = run(
        town(tmp_path, switch_set=[[0, None], [60, 0]]), out=tmp_path / "out", placement="single"
    )
    assert out.metrics["energy_not_served_kwh"] == pytest.approx(600.0 * 8 / 60.0)


def test_metrics_are_there_for_any_feeder(tmp_path: Path) -> None:
    result = ran(tmp_path)
    assert result.metrics["tap_changes"] == result.metrics["cap_switchings"] == 0.0
    assert result.metrics["energy_not_served_kwh"] == 0.0
    assert result.metrics["balance_error_max_ppm"] < 10.0
    assert not events(result, "power_balance_failed")


def test_a_der_that_injects_something_else_is_an_event(tmp_path: Path) -> None:
    scenario = town(tmp_path, grid={"ders": [{"kind": "inverter", "at": ["b"], "kw": 100}]})
    feeder = Assembly(scenario).build("feeder")
    assert isinstance(feeder, FeederFederate)
    told: list[tuple[str, float, dict[str, Any]]] = []
    feeder._equipment.start(lambda kind, time_s, **fields: told.append((kind, time_s, fields)))
    inputs = {port.name: np.full(len(port.labels), port.initial) for port in feeder.inputs}
    inputs["p_set_kw"][:] = 80.0
    feeder.step(0.0, inputs, None)
    # Someone else changes the engine's element behind our back.
    feeder._circuit.engine.command("edit load.feederate_der_0 kv=5 vminpu=0.1 vmaxpu=1.1")
    feeder.step(60.0, inputs, None)
    feeder.step(120.0, inputs, None)
    assert feeder.summary()["balance_error_max_ppm"] > 1000.0
    failed = [(time_s, fields) for kind, time_s, fields in told if kind == "power_balance_failed"]
    ((time_s, fields),) = failed
    assert time_s == 60.0
    assert abs(fields["residual_kw"]) > 1.0


def test_the_same_bytes_whatever_hosts_the_run(tmp_path: Path) -> None:
    scenario = town(tmp_path, regulators="auto", tap_set=[[0, None], [120, 3]], switch_set=[[0, 1]])
    seen = []
    for placement in ("single", "process"):
        result = run(scenario, out=tmp_path / placement, placement=placement)
        files = sorted(p for f in ("signals", "grid") for p in (result.folder / f).iterdir())
        events_of_feeder = [
            {k: v for k, v in json.loads(line).items() if k != "wall"}
            for line in (result.folder / "events.jsonl").read_text().splitlines()
            if '"federate": "feeder"' in line
        ]
        seen.append(({p.name: p.read_bytes() for p in files}, events_of_feeder, result.metrics))
    assert seen[0] == seen[1]
    assert len(seen[0][1]) > 3
