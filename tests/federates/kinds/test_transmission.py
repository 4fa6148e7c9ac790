"""The transmission federate: demand of feeders, elements of an attack, metrics, messages."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from federates.assembly.federation import Assembly
from federates.attacks.physical.action import CONNECTED, LOAD_FACTOR, LOAD_KW
from federates.clock import Timing, to_ns, to_s
from federates.core.context import FederateContext
from federates.core.federate import FloatArray, Mail
from federates.core.signals import read_signal
from federates.errors import WiringError
from federates.kinds.transmission.coupling import KVAR, KVAR_SLOPE, KW, KW_SLOPE, FeederDemand
from federates.kinds.transmission.disturbance import LOAD_SET, Disturbances, elements_of
from federates.kinds.transmission.federate import TransmissionFederate
from federates.kinds.transmission.metrics import TransmissionMetrics
from federates.reports.run import write_report
from federates.runs.runner import Placement, RunResult, run
from federates.scenario.schema import Scenario, load_scenario
from grid_models.base.errors import FeederateError
from grid_models.base.yaml_lines import yaml_text
from grid_models.transmission.model import TransmissionEvent
from grid_models.transmission.swing import SwingNetwork
from grid_models.transmission.system import load_system

KUNDUR = load_system("kundur")
BUSES = KUNDUR.buses
V0 = np.linspace(0.95, 1.03, len(BUSES))


def scenario(folder: Path, **changes: Any) -> Scenario:
    """Return a transmission system with a signal that stands for the feeder at bus 9."""
    feeder = {"kind": "signal", "options": {"labels": ["source"], "unit": "kW", "port": "kw"}}
    feeder["options"]["values"] = [[0.0, 1000.0]]  # type: ignore[index]
    data: dict[str, Any] = {
        "time": {"step_s": 1.0, "duration_s": 10.0},
        "federates": {
            "grid": {"kind": "transmission", "model": "swing"} | changes.pop("grid", {}),
            "feeder": feeder | changes.pop("feeder", {}),
        },
        "connections": [
            {"source": "feeder.kw", "target": f"grid.{KW}", "map": {"9": "source"}},
        ],
        **changes,
    }
    path = folder / "scenario.yaml"
    path.write_text(yaml_text(data))
    return load_scenario(str(path))


def grid_of(found: Scenario) -> TransmissionFederate:
    federates, _ = Assembly(found, 10).assemble()
    grid = federates["grid"]
    assert isinstance(grid, TransmissionFederate)
    return grid


def inputs(grid: TransmissionFederate, **values: dict[str, float]) -> dict[str, FloatArray]:
    out = {port.name: np.full(len(port.labels), port.initial) for port in grid.inputs}
    labels = {port.name: port.labels for port in grid.inputs}
    for port, given in values.items():
        for label, value in given.items():
            out[port][labels[port].index(label)] = value
    return out


def state_at(grid: TransmissionFederate, time_s: float, **values: Any) -> dict[str, FloatArray]:
    return dict(grid.step(time_s, inputs(grid, **values), Mail.empty()).outputs)


@pytest.mark.parametrize(
    ("own", "feeder"),
    [
        ((0.1, 0.0), (0.1, 0.05)),
        ((0.1, 0.05), (0.1, 0.0)),
        ((0.1, 0.0), (0.1, 0.0)),
        ((0.1, 0.0), (1.0, 0.5)),
        ((0.1, 0.0), (0.3, 0.15)),
        ((1.0, 0.0), (0.1, 0.05)),
    ],
)
def test_the_demand_holds_at_the_voltage_that_the_feeder_had_read(
    tmp_path: Path, own: tuple[float, float], feeder: tuple[float, float]
) -> None:
    found = scenario(tmp_path, feeder={"period_s": feeder[0], "offset_s": feeder[1]})
    timing = Timing(to_ns(own[0]), to_ns(own[1]))
    context = FederateContext("grid", timing, found, lambda: None, 100, group="grid")  # type: ignore
    model = SwingNetwork(KUNDUR)
    model.state.v[:] = V0  # the swing model has 1 pu everywhere
    demand = FeederDemand(context, model)
    shown, read = (
        [(-1, 1.0)],
        [(-1, np.nan)],
    )  # what the grid showed; what the feeder read, if it did
    of_feeder = Timing(to_ns(feeder[0]), to_ns(feeder[1]))
    steps = {(t.offset_ns + k * t.period_ns, t) for t in (timing, of_feeder) for k in range(40)}
    for now_ns in sorted({at for at, _ in steps if at <= to_ns(4.0)}):
        seen = [v for at, v in shown if at < now_ns][-1]
        if (now_ns, timing) in steps:
            fresh = [v for at, v in read if at < now_ns][-1]
            kw = np.full(len(BUSES), np.nan)
            slope = np.zeros(len(BUSES))
            if fresh == fresh:
                kw[BUSES.index("9")], slope[BUSES.index("9")] = 5000.0, 8000.0
            line = demand.demand(
                to_s(now_ns), {KW: kw, KVAR: kw, KW_SLOPE: slope, KVAR_SLOPE: slope}
            )
            at = BUSES.index("9")
            if fresh == fresh:
                assert line.v_pu[at] == V0[at] * fresh
                assert line.p_mw[at] == 5.0
                assert line.p_slope_mw[at] * V0[at] == pytest.approx(8.0)
            assert np.array_equal(np.delete(line.v_pu, at), np.delete(V0, at))
            v_rel = 1.0 - 1e-3 * len(shown)
            demand.publish(to_s(now_ns), np.full(len(BUSES), v_rel))
            shown.append((now_ns, v_rel))
        if (now_ns, of_feeder) in steps:
            read.append((now_ns, seen))


def test_the_first_reading_replaces_so_much_of_the_table_and_frequency_stays(
    tmp_path: Path,
) -> None:
    grid = grid_of(scenario(tmp_path))
    for k in range(3):
        out = state_at(grid, float(k), **({KW: {"9": 700e3}} if k else {}))
        assert out["coi_hz"][0] == pytest.approx(60.0, abs=1e-9)
        assert out["load_mw"][BUSES.index("9")] == pytest.approx(KUNDUR.load_mw[BUSES.index("9")])
    out = state_at(grid, 3.0, **{KW: {"9": 800e3}})
    assert out["load_mw"][BUSES.index("9")] == pytest.approx(KUNDUR.load_mw[BUSES.index("9")] + 100)
    assert out["coi_hz"][0] < 59.9999


def test_set_points_act_from_the_step_that_reads_them(tmp_path: Path) -> None:
    grid = grid_of(scenario(tmp_path))
    at = BUSES.index("7")
    state_at(grid, 0.0)
    now = state_at(grid, 1.0, **{LOAD_SET: {"7": 50.0}})["load_mw"][at]
    later = state_at(grid, 2.0, **{LOAD_SET: {"7": 50.0}})["load_mw"][at]
    assert later == pytest.approx(now + 50.0)


def test_an_attack_acts_on_loads_lines_and_machines() -> None:
    model = SwingNetwork(KUNDUR)
    elements = elements_of(model, KUNDUR.load_mw)
    assert "load.9" in elements.labels
    assert "load.8" not in elements.labels  # nothing is drawn there
    assert elements.nominal_kw["load.9"] == pytest.approx(1767e3)
    assert elements.kind["machine.G1"] == "machine"
    labels = {
        CONNECTED: ("load.7", "line.7-8-1", "machine.G4"),
        LOAD_KW: ("load.9",),
        LOAD_FACTOR: ("load.7", "load.9"),
    }
    made = Disturbances(model, labels)
    idle = {LOAD_SET: np.zeros(len(BUSES)), CONNECTED: np.full(3, np.nan)}
    idle |= {LOAD_KW: np.zeros(1), LOAD_FACTOR: np.ones(2)}
    calm = made.of(idle)
    assert calm.branch_in.all()
    assert calm.machine_in.all()
    assert (calm.load_factor == 1.0).all()
    done = made.of(idle | {CONNECTED: np.zeros(3), LOAD_KW: np.array([2000.0])})
    assert done.load_factor[BUSES.index("7")] == 0.0
    assert done.load_mw[BUSES.index("9")] == 2.0
    assert not done.branch_in[model.branches.index("7-8-1")]
    assert not done.machine_in[model.machines.index("G4")]
    after = made.of(idle)  # a line closes again; a machine would have to be synchronised
    assert after.branch_in.all()
    assert not after.machine_in[model.machines.index("G4")]


def test_metrics_leave_out_dead_buses_and_a_frequency_that_is_none() -> None:
    metrics, told = TransmissionMetrics(), list[tuple[Any, ...]]()
    metrics.start(lambda *words, **more: told.append((*words, more)))
    metrics.add(59.9, np.array([59.8, np.nan]), np.array([0.97, 0.0]), 400.0)
    metrics.note(TransmissionEvent(1.0, "load_shed", {"buses": "9", "load_mw": 80.0}))
    metrics.note(TransmissionEvent(2.0, "collapsed"))
    metrics.add(np.nan, np.full(2, np.nan), np.zeros(2), 0.0)
    found = metrics.totals()
    assert found["frequency_min_hz"] == 59.9
    assert found["bus_frequency_min_hz"] == 59.8
    assert np.isnan(found["frequency_final_hz"])
    assert (found["v_min_pu"], found["tie_mw"]) == (0.97, 0.0)
    assert (found["load_shed_mw"], found["collapsed_at_s"]) == (80.0, 2.0)
    assert [kind for kind, *_ in told] == ["load_shed", "collapsed"]


def attack(**step: Any) -> dict[str, Any]:
    return {"id": "a", "steps": [{"id": "s", "layer": "physical", "trigger": {"at_s": 1}} | step]}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"grid": {"system": "kundor"}}, "system.*no transmission system 'kundor'.*kundur"),
        ({"grid": {"inertia_pu": -1}}, "inertia_pu.*expected a number above 0, or 4"),
        ({"grid": {"agc": True}}, "agc is not used with model 'swing'; expected model 'sixth'"),
        (
            {"grid": {"model": "sixth", "inertia_pu": 3.0}},
            "inertia_pu is not used with model 'sixth'; expected model 'swing'",
        ),
        (
            {"grid": {"model": "sixth", "governor": {"drop_pu": 0.04}}},
            "unknown option 'drop_pu'.*did you mean 'droop_pu'",
        ),
        ({"grid": {"damping_pu": [1.0, 2.0]}}, "damping_pu.*expected a number above 0, or 11"),
        (
            {"attack": attack(target={"elements": ["load.10"]}, action={"kind": "trip"})},
            r"elements\[0\].*no element is called 'load.10'.*'load.7'.*'machine.G1'",
        ),
        (
            {"attack": attack(target={"elements": ["machine.G1"]}, action={"kind": "close"})},
            "'close' does not apply to machine.G1",
        ),
        (
            {
                "attack": attack(
                    target={"elements": ["load.7"], "plant": "gird"}, action={"kind": "trip"}
                )
            },
            "no plant is called 'gird'.*did you mean 'grid'",
        ),
    ],
)
def test_wrong_input_is_refused_with_what_was_expected(
    tmp_path: Path, changes: dict[str, Any], expected: str
) -> None:
    with pytest.raises(FeederateError) as refused:
        grid_of(scenario(tmp_path, **changes))
    assert re.search(expected, str(refused.value), re.DOTALL), str(refused.value)
    assert "scenario.yaml:" in str(refused.value)


def test_demand_without_its_slope_is_warned_of(tmp_path: Path) -> None:
    (warning,) = grid_of(scenario(tmp_path)).warnings
    assert "feeder_kw_per_pu is not, at bus 9" in warning


def test_a_slope_at_another_bus_than_the_demand_is_warned_of(tmp_path: Path) -> None:
    scenario(tmp_path)
    text = (tmp_path / "scenario.yaml").read_text()
    slope = "{kind: signal, options: {labels: [a], unit: kW/pu, port: slope, values: [[0, 1]]}}"
    text = text.replace("federates:", f"federates:\n  slopes: {slope}", 1)
    wire = "- {source: slopes.slope, target: grid.feeder_kw_per_pu, map: {'7': a}}"
    text = text.replace("connections:", f"connections:\n{wire}", 1)
    (tmp_path / "scenario.yaml").write_text(text)
    held, unused = grid_of(load_scenario(str(tmp_path / "scenario.yaml"))).warnings
    assert "at bus 9" in held
    assert unused == "grid.feeder_kw_per_pu has no feeder_kw beside it at bus 7"


def test_only_the_swing_model_takes_injections(tmp_path: Path) -> None:
    wrong = [{"source": "feeder.kw", "target": "grid.injection_mw", "map": {"9": "source"}}]
    with pytest.raises(WiringError, match=r"kW.*MW|MW.*kW"):
        grid_of(scenario(tmp_path, connections=wrong))


FAST = ("grid.model=ieee13", "time.duration_s=2")  # the smaller feeder


def attacked(folder: Path, placement: Placement, begin_s: float = 0.5) -> RunResult:
    sets = (*FAST, f"attack.steps.0.trigger.at_s={begin_s}")
    found = load_scenario("kundur-feeder", sets, attack="botnet-spread")
    return run(found, out=folder, placement=placement)


def test_a_collapse_leaves_the_feeder_dark_and_the_run_goes_on(tmp_path: Path) -> None:
    result = attacked(tmp_path / "single", "single")
    metrics = result.metrics
    assert result.summary["status"] == "finished"
    assert metrics["collapsed_at_s"] == pytest.approx(0.5, abs=0.05)
    assert metrics["frequency_final_hz"] is None
    assert metrics["tie_mw"] == 0.0
    signals = result.folder / "signals"
    time_s, _, v_pu = read_signal(signals, "grid.v_pu")
    _, _, hz = read_signal(signals, "grid.frequency_hz")
    dead = time_s > 0.55
    assert (v_pu[dead] == 0.0).all()
    assert np.isnan(hz[dead]).all()
    assert np.isfinite(hz[~dead]).all()
    at_s, _, import_kw = read_signal(signals, "feeder.import_kw")
    _, _, v_pu = read_signal(signals, "feeder.v_pu")
    assert (import_kw[at_s > 0.6] == 0.0).all()
    assert (v_pu[at_s > 0.6] == 0.0).all()
    assert (import_kw[at_s < 0.6] > 0.0).all()
    lines = (result.folder / "events.jsonl").read_text("utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    assert [e["time_s"] for e in events if e["event"] == "collapsed"] == [metrics["collapsed_at_s"]]
    page = write_report(result.folder).read_text("utf-8")
    assert "grid: Transmission system" in page
    assert "Frequency of the centre of inertia" in page


def test_placements_record_equal_bytes(tmp_path: Path) -> None:
    folders = [attacked(tmp_path / p, p, 1.9).folder for p in ("single", "shared")]
    first, second = (sorted((folder / "signals").glob("*.parquet")) for folder in folders)
    assert [path.name for path in first] == [path.name for path in second]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(first, second, strict=True))


def test_the_exchange_step_hardly_matters_with_slopes(tmp_path: Path) -> None:
    # A load step of 150 MW at bus 7: the feeders at bus 9 follow its voltage.
    trial = attack(target={"elements": ["load.7"], "plant": "grid"}, action={"kind": "load"})
    trial["steps"][0]["action"]["kw"] = 150e3
    trial["steps"][0]["trigger"]["at_s"] = 0.4
    found_pu, found_hz = [], []
    for step_s in (0.02, 0.2):
        sets = (*FAST, f"time.step_s={step_s}", f"federates.feeder.offset_s={step_s / 2}")
        found = load_scenario("kundur-feeder", (*sets, f"attack={json.dumps(trial)}"))
        signals = run(found, out=tmp_path / str(step_s), placement="single").folder / "signals"
        for port, values in (("grid.v_pu", found_pu), ("grid.coi_hz", found_hz)):
            time_s, _, recorded = read_signal(signals, port)
            values.append(recorded[np.argmin(np.abs(time_s - 1.8))])
    assert found_hz[0][0] < 59.9
    assert found_hz[1] == pytest.approx(found_hz[0], abs=2e-4)
    assert found_pu[1] == pytest.approx(found_pu[0], abs=1e-4)
