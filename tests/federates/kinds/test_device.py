"""The device federate: what a scenario may say, and what the grid sees of a device that fails."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow.parquet as pq
import pytest

from federates.assembly.federation import Assembly
from federates.cli import call
from federates.errors import RunError, ScenarioError
from federates.kinds.device import adapters
from federates.kinds.device.adapters import AdapterGroup, Pulse
from federates.kinds.device.emulators import Emulator, rating_groups
from federates.kinds.device.federate import DeviceFederate
from federates.kinds.device.models import Surroundings
from federates.kinds.device.roles import ROLES
from federates.runs.runner import RunResult, run
from federates.scenario.schema import Scenario, load_scenario
from grid_models.feeder.model import Der
from hil.adapter.snapshot import Snapshot
from hil.devices.errors import NotSafeError
from hil.devices.file import load_device_file, shipped_devices
from hil.devices.points import Quality
from hil.emulators.options import EmulatorOptions
from hil.emulators.process import EmulatorProcess

LIMIT_S = 120.0
KVA, KW = 58.63151862464183, 52.65042979942693  # pv_65_1 of the scenario below
BASE = """
time: {start_s: 43200, duration_s: 60, step_s: 1}
grid:
  model: ieee123
  taps: {rg1: 3}
  ders: [{kind: pv, at: load_phases, total_kw: 3500, kva_per_kw: 1.1136}]
federates:
  feeder: {kind: feeder}
  setter:
    kind: signal
    options: {port: q_set_kvar, unit: kvar, values: [[0, -10], [20, 10]], ders: [pv_65_1, pv_76_1]}
  bench: {kind: device, devices: {pv_65_1: simulated}}
connections:
  - feeder.v_pu -> bench.v_pu
  - setter.q_set_kvar -> bench.q_set_kvar
  - bench.p_kw -> feeder.p_meas_kw
  - bench.q_kvar -> feeder.q_meas_kvar
"""


@pytest.fixture
def scenario(tmp_path: Path) -> Callable[..., Scenario]:
    path = tmp_path / "bench.yaml"
    path.write_text(BASE, encoding="utf-8")
    return lambda *overrides: load_scenario(path, overrides)


def build(scenario: Scenario, armed: tuple[str, ...] = ()) -> DeviceFederate:
    federate = Assembly(scenario, armed=armed).build_all()["bench"]
    assert isinstance(federate, DeviceFederate)
    return federate


def signal(result: RunResult, name: str, label: str = "pv_65_1") -> np.ndarray:
    return pq.read_table(result.folder / "signals" / f"{name}.parquet")[label].to_numpy()


# --- what a scenario may say -----------------------------------------------------------------


def test_later_entries_win_and_the_feeder_gives_the_order(scenario) -> None:
    federate = build(
        scenario(
            "federates.bench.devices={'pv_7*': simulated, pv_76_1: emulated, pv_65_1: emulated}"
        )
    )
    pairs = dict(zip(federate.names, federate.kinds_of, strict=True))
    assert pairs["pv_76_1"] == pairs["pv_65_1"] == "emulated"
    assert pairs["pv_70_1"] == "simulated"
    assert federate.names == tuple(
        d.name for d in federate._context.site.feeder.ders if d.name in pairs
    )


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["federates.bench.devices={pv_65_9: simulated}"], ["pv_65_9: no DER is called", "pv_65_"]),
        (["federates.bench.devices={}"], ["bench.devices", "at least one entry"]),
        (
            ["federates.bench.devices={pv_65_1: simulatd}"],
            ["no such device file: 'simulatd'", "sunspec-inverter", "did you mean 'simulated'?"],
        ),
        (
            ["federates.bench.devices={pv_65_1: sunspec-inverter}"],
            ["does not keep its time", "time.real_time"],
        ),
        (
            ["federates.bench.devices={pv_65_1: thermostat}", "time.real_time={factor: 1}"],
            ["no point 'var_set_pct'", "options: {points:"],
        ),
        (
            ["federates.bench.devices={pv_65_1: sunspec-inverter, pv_76_1: sunspec-inverter}",
             "time.real_time={factor: 1}"],
            ["'bench.pv_76_1' and 'bench.pv_65_1' are the same device (127.0.0.1:1502, unit 1)"],
        ),
        (
            ["federates.bench.devices={pv_65_1: 'emulated:froniu'}"],
            ["no such emulator configuration: 'froniu'", "did you mean 'fronius'?"],
        ),
        (
            ["federates.bench.devices={pv_65_1: 'emulated:daikin'}"],
            ["no point 'var_set_pct'", "options: {points:"],
        ),
        (["federates.bench.options={points: {q_kvr: q}}"], ["no port 'q_kvr'", "q_kvar"]),
        (["federates.bench.options={settle_s: 1e6}"], ["settle_s is 1e+06", "43200"]),
        (
            ["grid.ders=[{kind: pv, at: ['65'], kw: 1}, {kind: house, at: ['76'], kw: 7}]",
             "federates.setter.options.ders=['*']", "federates.bench.devices={'*': simulated}"],
            ["several kinds (house, pv)"],
        ),
    ],
)  # fmt: skip
def test_mistakes_are_named_before_anything_starts(scenario, overrides, words) -> None:
    with pytest.raises(ScenarioError) as caught:
        Assembly(scenario(*overrides)).assemble()
    for word in words:
        assert word in str(caught.value)
    assert "federates.bench" in str(caught.value)


def test_a_configuration_beside_the_scenario_brings_its_device_file(
    scenario, tmp_path: Path
) -> None:
    """The emulator speaks Modbus/TCP whatever line the file has; W in the file are W."""
    file = """
    name: lab
    connection: {framing: rtu-over-tcp, unit: 9}
    points:
      p_w: {table: input, address: 0, type: int16, unit: W}
      q_var: {table: input, address: 1, type: int16, unit: var}
      set_var: {table: holding, address: 0, type: int16, unit: var, access: rw, min: -30000,
                max: 30000, safe_value: 0}
    """
    config = """
    name: lab
    device: lab.yaml
    unit: 9
    registers:
      p: {table: input, address: 0, type: int16}
      q: {table: input, address: 1, type: int16}
      q_set: {table: holding, address: 0, type: int16, access: rw}
    physics:
      kind: inverter
      rated_w: 30000
      time_constant_s: 0.1
      commands: [{what: q_var, point: q_set}]
      shows: {p: p_w, q: q_var}
    """
    for name, text in (("lab.yaml", file), ("lab.emulator.yaml", config)):
        (tmp_path / name).write_text(textwrap.dedent(text), encoding="utf-8")
    small = scenario(
        "grid.ders=[{kind: pv, at: ['65.1'], kw: 20, kva: 25}]",
        "federates.setter.options.ders=['*']",
        "federates.bench.devices={'*': 'emulated:lab.emulator.yaml'}",
        "federates.bench.options={points: {q_set_kvar: set_var}}",
    )
    result = run(small, out=tmp_path / "run", placement="single", steps=5)
    values = [pq.read_table(result.folder / f"signals/bench.{n}.parquet")[1][-1].as_py()
              for n in ("q_kvar", "p_kw")]  # fmt: skip
    assert values == [pytest.approx(-10.0, abs=0.1), pytest.approx(20.0, abs=0.1)]


def test_arming_names_devices_of_the_scenario_only(scenario) -> None:
    real = scenario(
        "federates.bench.devices={pv_65_1: sunspec-inverter}", "time.real_time={factor: 1}"
    )
    assert build(real, ("pv_65_1",)).specs["pv_65_1"].name == "pv_65_1"
    with pytest.raises(ScenarioError, match=r"no device is called 'pv_65'.*did you mean 'pv_65_1'"):
        build(real, ("pv_65",))
    with pytest.raises(ScenarioError, match="what a run emulates itself is armed"):
        build(scenario(), ("pv_65_1",))


def test_a_device_elsewhere_is_refused_without_its_name_on_the_command_line(
    scenario, tmp_path: Path
) -> None:
    text = shipped_devices()["sunspec-inverter"].read_text(encoding="utf-8")
    far = text.replace("host: 127.0.0.1", "host: 192.0.2.7")
    (tmp_path / "far.yaml").write_text(far, encoding="utf-8")
    real = scenario("federates.bench.devices={pv_65_1: far.yaml}", "time.real_time={factor: 10}")
    with pytest.raises(RunError, match=r"not on loopback.*expected --arm pv_65_1"):
        run(real, out=tmp_path / "run", steps=5)


def test_emulators_are_grouped_by_rating() -> None:
    def der(name: str, kw: float) -> Der:
        return Der(name, "pv", "1", (1,), kw, kw, 0.0)

    ders = [der("a", 1.0), der("b", 2.0), der("c", 1.0)]
    assert list(rating_groups(ders)) == [[0, 2], [1]]
    homes = [Der(name, "house", "1", (1,), kw, 0.0, -kw) for name, kw in (("d", 4.0), ("e", 9.0))]
    # One process serves all thermostats: twenty homes are of twenty sizes.
    assert list(rating_groups([*ders, *homes])) == [[0, 2], [1], [3, 4]]
    assert list(rating_groups(homes, ["configured", "configured"])) == [[0], [1]]


def test_a_simulated_run_has_no_bench(scenario, tmp_path: Path) -> None:
    """Without a device outside, neither Modbus nor emulators nor audit logs are there."""
    path = scenario()._base_dir / "bench.yaml"
    code = (
        "import sys\nfrom federates.cli import call\n"
        f"assert call(['run', {str(path)!r}, '--steps', '3', '--no-report', '--placement', "
        f"'single', '--out', {str(tmp_path / 'run')!r}]) == 0\n"
        "bad = {'pymodbus', 'hil.adapter.adapter', 'federates.bench'} & set(sys.modules)\n"
        "sys.exit(repr(bad) if bad else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not list((tmp_path / "run").glob("*.audit.jsonl"))


# --- a device that fails ---------------------------------------------------------------------


class EmulatedInverter:
    """An emulated inverter in wall-clock time, and its device file."""

    def __init__(self, folder: Path) -> None:
        self.device = EmulatorProcess(EmulatorOptions(grid_port=0, kw=KW, kva=KVA, phases=1))
        ((_, self.port, _),) = self.device.places.values()
        self._lock = threading.Lock()
        text = shipped_devices()["sunspec-inverter"].read_text(encoding="utf-8")
        text = text.replace("port: 1502", f"port: {self.port}").replace(
            "timeout_s: 0.5", "timeout_s: 0.1, reconnect_max_s: 0.2"
        )
        text = text.replace("poll_s: 1.0", "poll_s: 0.05\nstale_after_s: 0.15\nbad_after_s: 0.6")
        self.file = folder / "inverter.yaml"
        self.file.write_text(text, encoding="utf-8")
        # The registers hold 0 W until the first step; the side channel brings the plant to now.
        self.device.ask()

    def ask(self, **message: object) -> dict[str, object]:
        with self._lock:
            return self.device.ask(**message)


@pytest.fixture(scope="module")
def inverter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedInverter]:
    inverter = EmulatedInverter(tmp_path_factory.mktemp("bench"))
    yield inverter
    inverter.device.close()


def run_with_outage(
    scenario: Scenario, inverter: EmulatedInverter, out: Path, begin=10, end=35
) -> RunResult:
    """Run at 20 times real time; the device is silent from step `begin` to step `end`."""
    state = {"fault": "none"}

    def on_progress(done: int, _total: int) -> None:
        wanted = "silent" if begin <= done < end else "none"
        if state["fault"] != wanted:
            state["fault"] = wanted
            inverter.ask(fault=wanted)

    try:
        return run(scenario, out=out, armed=("pv_65_1",), on_progress=on_progress)
    finally:
        inverter.ask(fault="none")


@pytest.mark.scenario
@pytest.mark.parametrize("policy", ["hold", "model"])
def test_what_the_grid_sees_of_a_silent_device(scenario, inverter, tmp_path, policy: str) -> None:
    """Set-point -10 kvar, +10 from 20 s on; the device is silent from about 10 s to 35 s."""
    real = scenario(
        f"federates.bench.devices={{pv_65_1: {inverter.file}}}",
        f"federates.bench.not_good={policy}",
        "time.real_time={factor: 20}",
    )
    result = run_with_outage(real, inverter, tmp_path / "run")
    quality, q = signal(result, "bench.quality"), signal(result, "bench.q_kvar")
    # How many steps are good depends on the machine; the outage lasts longer than `stale_after_s`.
    assert quality[:10].min() == quality[36:].min() == 0.0
    assert quality[22:34].min() >= 1.0
    seen = {"hold": -10.0, "model": 10.0}[policy]
    # VarSetPct of 0.01 %: 5.9 var; 701.Var and 702.VAMax in 10 var.
    assert q[22:34] == pytest.approx(seen, abs=0.02)
    assert np.abs(q[:22] + 10.0).min() <= 0.02
    assert np.abs(q[36:] - 10.0).min() <= 0.02
    assert result.metrics["devices_not_good_s"] == pytest.approx((quality > 0).sum(), abs=1e-9)
    events = [json.loads(x) for x in (result.folder / "events.jsonl").read_text().splitlines()]
    told = [e["now"] for e in events if e["event"] == "quality"]
    assert {"stale", "good"} <= set(told)
    # The grid never loses its active power. The emulator has full sun, the model the feeder's day.
    assert signal(result, "feeder.p_kw")[6:] == pytest.approx(KW, abs=0.1)


@pytest.mark.scenario
def test_fail_ends_the_run_and_names_the_device(scenario, inverter, tmp_path) -> None:
    real = scenario(
        f"federates.bench.devices={{pv_65_1: {inverter.file}}}",
        "federates.bench.not_good=fail",
        "time.real_time={factor: 20}",
    )
    # The device answers again soon, so that it can be made safe when the run ends.
    back = threading.Timer(2.0, inverter.ask, kwargs={"fault": "none"})
    back.start()
    with pytest.raises(RunError, match="device 'pv_65_1' is stale at time_s=") as caught:
        run_with_outage(real, inverter, tmp_path / "run", end=1000)
    back.join()
    assert caught.value.federate == "bench"


@pytest.mark.scenario
def test_a_device_that_is_not_armed_is_only_read(scenario, inverter, tmp_path) -> None:
    """In a mixed run: some are simulated, one is emulated, one is outside the run."""
    real = scenario(
        "federates.bench.devices={'pv_4*': simulated, pv_76_1: emulated, "
        f"pv_65_1: {inverter.file}}}",
        "time.real_time={factor: 20}",
    )
    result = run(real, out=tmp_path / "run", steps=20)
    assert signal(result, "bench.q_kvar") == pytest.approx(0.0, abs=1e-9)
    assert signal(result, "bench.q_kvar", "pv_76_1")[2:] == pytest.approx(-10.0, abs=0.02)
    assert signal(result, "bench.p_kw")[2:] == pytest.approx(KW, abs=0.02)
    assert signal(result, "bench.p_kw", "pv_48_1")[2:].min() > 1.0
    assert result.metrics["commands_refused_count"] >= 20
    events = (result.folder / "events.jsonl").read_text()
    assert "not armed" in events
    assert events.count("not armed") == 1
    audit = (result.folder / "bench.audit.jsonl").read_text().splitlines()
    assert sum("refused" in line for line in audit) >= 20


def send_and_wait(emulator: Emulator, around: Surroundings) -> None:
    for _ in range(3):
        emulator.send(around)
        emulator.wait()


class FakeAdapter:
    """Takes commands and readings down; nothing is sent."""

    stats: ClassVar[dict[str, float]] = {"lost_polls": 0.0}

    def __init__(self) -> None:
        self.commands: list[tuple[str, str, float]] = []
        self.beats = 0

    def command_all(self, point: str, values: dict[str, float]) -> int:
        self.commands += [(device, point, value) for device, value in values.items()]
        return 0

    def heartbeat(self) -> None:
        self.beats += 1

    def snapshot(self) -> Snapshot:
        pairs = [(device, point) for device in ("pv_1", "pv_2") for point in ("p_w", "q_var")]
        return Snapshot(
            np.array([1500.0, 1500.0, 1500.0, 7.0]),
            np.array([Quality.GOOD] * 3 + [Quality.STALE], np.uint8),
            np.array([0.01, 0.01, 0.01, 3.0]),
            {pair: i for i, pair in enumerate(pairs)},
            0,
        )

    def close(self) -> bool:
        return True


def test_what_was_never_asked_for_is_not_sent_and_what_is_no_number_is() -> None:
    """Unlike a port that never gave a number, NaN and infinity go to the guard, which acts."""
    ders = [Der(name, "pv", "1", (1,), 20.0, 10.0, 0.0) for name in ("pv_1", "pv_2")]
    specs = [load_device_file("sunspec-inverter").at(name=der.name) for der in ders]
    adapter = FakeAdapter()
    role = ROLES["inverter"]
    group = AdapterGroup(ders, specs, role.inputs, role.outputs, adapter, 5.0)  # type: ignore[arg-type]
    never, ever = np.zeros(2, dtype=bool), np.ones(2, dtype=bool)
    asked = {
        "q_set_kvar": (np.array([np.nan, -np.inf]), ever),
        "p_set_kw": (np.array([np.nan, 5.0]), np.array([False, True])),
        "volt_var_ref_pu": (np.full(2, np.nan), never),
    }
    values, quality = group.exchange(Surroundings(np.ones(2), 1.0, 20.0, 1.0), asked)
    sent = {(device, point): value for device, point, value in adapter.commands}
    assert np.isnan(sent["pv_1", "var_set_pct"])
    assert sent["pv_2", "var_set_pct"] == -np.inf
    assert sent["pv_2", "w_limit_pct"] == 50.0
    assert ("pv_1", "w_limit_pct") not in sent
    assert values["p_kw"].tolist() == [1.5, 1.5]
    assert quality.tolist() == [0.0, 1.0]
    adapter.commands.clear()
    asked = {port: (array, never) for port, (array, _) in asked.items()}
    group.exchange(Surroundings(np.ones(2), 1.0, 20.0, 1.0), asked)
    group.close()
    assert adapter.commands == []


class UnsafeAdapter(FakeAdapter):
    """Did not reach one of its devices at the end."""

    def close(self) -> bool:
        return False

    def unsafe(self) -> list[tuple[str, str, float]]:
        return [("pv_1", "w_limit_pct", 50.0)]


def test_a_real_device_that_is_not_safe_at_the_end_fails_the_run(monkeypatch) -> None:
    """An emulated one ends with the run. The exit code: `benchmarks/device_faults.py`."""
    monkeypatch.setattr(adapters, "_UNFINISHED", [])
    der = Der("pv_1", "pv", "1", (1,), 20.0, 10.0, 0.0)
    spec = load_device_file("sunspec-inverter").at(name="pv_1")
    role = ROLES["inverter"]
    parts: Any = ([der], [spec], role.inputs, role.outputs, UnsafeAdapter(), 5.0)
    ended: list[bool] = []
    real = AdapterGroup(*parts, last=[lambda: ended.append(True)])
    with pytest.raises(
        NotSafeError, match=r"pv_1\.w_limit_pct last stood at 50 %, should be 100 %"
    ):
        real.close()
    AdapterGroup(*parts, advance=lambda around: None, last=[lambda: ended.append(True)]).close()
    assert ended == [True, True]


def test_the_pulse_stops_when_steps_stop(until: Callable[..., bool]) -> None:
    """Its clock is the test's: no step for longer than the patience ends the beats."""
    clock, asked = [10.0], [0]

    def now() -> float:
        asked[0] += 1
        return clock[0]

    adapter = FakeAdapter()
    pulse = Pulse(adapter, 0.001, 0.2, lambda: None, now)  # type: ignore[arg-type]
    assert until(lambda: adapter.beats >= 3, LIMIT_S)
    clock[0] = 10.3
    looked = asked[0]
    assert until(lambda: asked[0] >= looked + 2, LIMIT_S)
    silent, looked = adapter.beats, asked[0]
    assert until(lambda: asked[0] >= looked + 5, LIMIT_S)
    assert adapter.beats == silent
    pulse.step()
    assert until(lambda: adapter.beats > silent + 1, LIMIT_S)
    pulse.close()


def test_emulator_that_ends_is_named(tmp_path: Path) -> None:
    der = Der("pv_1", "pv", "1", (1,), 11.0, 10.0, 0.0)
    emulator = Emulator("inverter", [der], 1, 1.0, tmp_path / "logs" / "e.log")
    around = Surroundings(np.ones(1), 1.0, 20.0, 1.0)
    emulator.send(around)
    assert emulator.wait()["p_kw"] == [10.0]
    emulator.device.process.kill()
    with pytest.raises(RunError, match="the emulator of pv_1"):
        send_and_wait(emulator, around)
    emulator.close()


# --- feederate device ----------------------------------------------------------------------


def test_device_commands(inverter, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    url = f"127.0.0.1:{inverter.port}/1"
    assert call(["device", "check", str(inverter.file)]) == 0
    assert "in order" in capsys.readouterr().out
    assert call(["device", "scan", url]) == 0
    scanned = capsys.readouterr().out
    assert all(model in scanned for model in ("701", "704", "712", "40002", "Feederate"))
    assert call(["device", "read", str(inverter.file), "p_w", "--json"]) == 0
    read = json.loads(capsys.readouterr().out)
    # The file calls a value stale after 0.15 s, which a loaded machine may exceed.
    assert read["p_w"].pop("quality") in ("good", "stale")
    assert read == {"p_w": {"value": 52650.0, "unit": "W"}}
    assert call(["device", "watch", url, "701.W", "--count", "2", "--period", "0.1"]) == 0
    assert capsys.readouterr().out.count("52650") == 2


def test_device_read_shows_units_texts_and_what_is_there(inverter, capsys) -> None:
    url = f"127.0.0.1:{inverter.port}/1"
    assert call(["device", "read", url, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["701.W"]["value"], shown["701.W"]["unit"]) == (52650.0, "W")
    assert shown["701.ConnSt"]["name"] == "CONNECTED"
    assert shown["1.Mn"] == {"value": "Feederate", "unit": "", "quality": "good"}
    assert all(point["value"] is not None for point in shown.values())
    assert call(["device", "read", url, "--json", "--all"]) == 0
    everything = json.loads(capsys.readouterr().out)
    absent = everything.keys() - shown.keys()
    assert "701.TmpCab" in absent
    assert all(everything[name]["value"] in (None, "") for name in absent)
    assert call(["device", "read", url]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[:3] == ["701.W", "52650", "W"] for line in lines)
    assert lines[-1] == f"{len(absent)} points that the device does not implement; --all shows them"
    assert call(["device", "read", url, "701.TmpCab", "1.Mn"]) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()[1:]] == [
        "-",
        "Feederate",
    ]


def test_device_write_needs_arming_a_file_and_its_limits(inverter, capsys) -> None:
    file = str(inverter.file)
    assert call(["device", "write", file, "var_set_pct", "12.5"]) == 2
    assert "expected --arm inverter" in capsys.readouterr().err
    url = f"127.0.0.1:{inverter.port}/1"
    assert call(["device", "write", url, "var_set_pct", "12.5", "--arm", "device"]) == 2
    assert "an address has no limits" in capsys.readouterr().err
    assert call(["device", "write", file, "p_w", "1", "--arm", "inverter"]) == 2
    assert "not in the allow-list" in capsys.readouterr().err
    assert call(["device", "write", file, "var_set_pct", "12.5", "--arm", "inverter"]) == 0
    assert "12.5" in capsys.readouterr().out
    assert call(["device", "write", file, "var_set_pct", "99", "--arm", "inverter"]) == 0
    out = capsys.readouterr().out
    assert "99 is outside -44 to 44" in out
    # Back in its safe state, as the command says.
    assert "inverter is in its safe state: " in out
    assert inverter.ask()["q_kvar"] == [0.0]


def test_device_check_hints_at_what_may_be_a_slip(capsys, tmp_path: Path) -> None:
    file = tmp_path / "manual.yaml"
    file.write_text("name: t\npoints:\n  t_c: {table: holding, address: 40011, type: int16}\n")
    assert call(["device", "check", str(file)]) == 0
    assert f"hint: {file}:3: points.t_c.address: 40011 looks like" in capsys.readouterr().out


def test_device_check_explains_each_mistake(capsys, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("name: x\npoints:\n  p: {tabel: input, address: 0, type: uint16}\n")
    assert call(["device", "check", str(bad)]) == 2
    assert "bad.yaml:3" in (error := capsys.readouterr().err)
    assert "table" in error
    assert call(["device", "check", str(tmp_path / "none.yaml")]) == 2
    assert "no such device file" in capsys.readouterr().err
    assert call(["device", "scan", "127.0.0.1:1/1"]) == 3
    assert capsys.readouterr().err.startswith("error: ")
