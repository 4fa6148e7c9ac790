"""The hardware-in-the-loop scenarios: emulated devices give what simulated ones give.

A simulated device and an emulated one are the same physics; between them are registers. So the
bounds below are resolutions, each from the register map that the emulator serves, and no
tolerances.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from federates.core.sites import GridSite
from federates.runs.runner import RunResult, run
from federates.scenario.schema import load_scenario
from grid_models.feeder.model import Der

pytestmark = pytest.mark.scenario


def signal(result: RunResult, name: str) -> dict[str, np.ndarray]:
    table = pq.read_table(result.folder / "signals" / f"{name}.parquet")
    return {column: table[column].to_numpy() for column in table.column_names}


def differences(a: RunResult, b: RunResult, name: str) -> dict[str, float]:
    one, other = signal(a, name), signal(b, name)
    return {k: float(np.max(np.abs(one[k] - other[k]))) for k in one if k != "time_s"}


def emulators_alive(folder: Path) -> list[str]:
    """Return processes whose standard error is a log of this run."""
    alive = []
    for proc in Path("/proc").iterdir():
        try:
            target = os.readlink(proc / "fd" / "2") if proc.name.isdigit() else ""
        except OSError:
            continue
        if target.startswith(str(folder / "logs")):
            alive.append(proc.name)
    return alive


def watt_resolution(der: Der) -> float:
    """Resolution of 701.W, 701.Var and the ratings in 702: int16 must hold 1.3 times the kVA."""
    return float(10.0 ** max(0, math.ceil(math.log10(1.3e3 * der.kva / 32767.0))))


def bounds_kw(ders: list[Der]) -> dict[str, tuple[float, float]]:
    """Return the largest difference of p and q by device.

    Reading: half a resolution of 701. Rating (702), which a percentage refers to: half a
    resolution. Set-point (704 WMaxLimPct and VarSetPct, 0.01 %): half of that, of the rating.
    """
    out = {}
    for der in ders:
        registers_kw = watt_resolution(der) / 1e3
        out[der.name] = (
            registers_kw + 0.5e-4 * der.p_max_kw + 1e-9,
            registers_kw + 0.5e-4 * der.kva + 1e-9,
        )
    return out


VOLT_VAR = ["federates.bench.devices={pv_65_1: %s, pv_76_1: %s}"]


def volt_var(
    kinds: tuple[str, str], out: Path, extra: list[str], placement="thread", steps: int = 60
) -> RunResult:
    scenario = load_scenario("hil-inverter-voltvar", [VOLT_VAR[0] % kinds, *extra])
    return run(scenario, out=out, steps=steps, placement=placement)


def test_emulated_inverters_follow_simulated_ones_within_their_registers(tmp_path: Path) -> None:
    """Set-points by the clock: nothing feeds back, so the register bounds hold as they stand."""
    extra = [
        "federates.q={kind: signal, options: {port: q_set_kvar, unit: kvar, ders: [pv_65_1, "
        "pv_76_1], values: [[0, 3.337], [60, -17.1234], [150, 21.9999], [240, 0.0041]]}}",
        "federates.p={kind: signal, options: {port: p_set_kw, unit: kW, ders: [pv_65_1, "
        "pv_76_1], values: [[0, 31.2345], [120, 7.7777], [200, 90]]}}",
        "connections=[feeder.v_pu -> bench.v_pu, feeder.v_pu -> volt_var.v_pu, "
        "q.q_set_kvar -> bench.q_set_kvar, p.p_set_kw -> bench.p_set_kw, "
        "bench.p_kw -> feeder.p_meas_kw, bench.q_kvar -> feeder.q_meas_kvar]",
    ]
    emulated = volt_var(("emulated", "emulated"), tmp_path / "emulated", extra)
    simulated = volt_var(("simulated", "simulated"), tmp_path / "simulated", extra)
    scenario = load_scenario("hil-inverter-voltvar")
    ders = [d for d in GridSite(scenario).feeder.ders if d.name in ("pv_65_1", "pv_76_1")]
    bounds = bounds_kw(ders)
    for port, which in (("bench.p_kw", 0), ("bench.q_kvar", 1)):
        for name, worst in differences(emulated, simulated, port).items():
            assert worst <= bounds[name][which], (port, name)
    # The signals did move, and the registers are seen: equal to the last bit would be no proof.
    q = signal(emulated, "bench.q_kvar")["pv_65_1"]
    assert q.max() - q.min() > 30.0
    assert max(differences(emulated, simulated, "bench.q_kvar").values()) > 0.0
    assert all(
        (v == 0.0).all() for k, v in signal(emulated, "bench.quality").items() if k != "time_s"
    )
    assert emulators_alive(emulated.folder) == []


def test_optdist_vc_with_emulated_inverters(tmp_path: Path) -> None:
    """Closed loop: a device's rounding comes back through voltage and 94 other agents.

    OPTDIST-VC contracts, so what comes back is smaller than what went in: twice the open-loop
    bound holds for devices and set-points. Voltage: less than 2 ohm lie between any node and the
    source, so 30 var of each of the two devices are at most 2 * 2 * 30 / 2402**2 = 2.1e-5 pu.
    """
    emulated = volt_var(("emulated", "emulated"), tmp_path / "emulated", [])
    simulated = volt_var(("simulated", "simulated"), tmp_path / "simulated", [])
    mixed = volt_var(("simulated", "emulated"), tmp_path / "mixed", [], placement="single")
    scenario = load_scenario("hil-inverter-voltvar")
    ders = [d for d in GridSite(scenario).feeder.ders if d.name in ("pv_65_1", "pv_76_1")]
    bound = 2.0 * max(q for _, q in bounds_kw(ders).values())
    for other in (emulated, mixed):
        assert max(differences(other, simulated, "bench.q_kvar").values()) <= bound
        assert max(differences(other, simulated, "volt_var.q_set_kvar").values()) <= bound
        assert max(differences(other, simulated, "feeder.v_pu").values()) <= 2.1e-5
    fed = signal(emulated, "feeder.q_kvar")["pv_76_1"]
    measured = signal(emulated, "bench.q_kvar")["pv_76_1"]
    # What the inverter measures at step k is what the feeder solves with at step k + 1.
    assert fed[1:].tolist() == measured[:-1].tolist()
    assert np.abs(measured).max() > 10.0
    assert emulators_alive(mixed.folder) == []


def test_emulated_runs_repeat_to_the_last_byte(tmp_path: Path) -> None:
    runs = [
        volt_var(("emulated", "emulated"), tmp_path / placement, [], placement=placement, steps=20)
        for placement in ("process", "single")
    ]
    q_kvar = signal(runs[0], "bench.q_kvar")["pv_76_1"]
    assert q_kvar.max() > q_kvar.min()
    for file in sorted((runs[0].folder / "signals").iterdir()):
        assert file.read_bytes() == (runs[1].folder / "signals" / file.name).read_bytes()


def test_twenty_thermostats_shed_at_minute_five(tmp_path: Path) -> None:
    """Thesis, hardware test of the resilience chapter: 0.2-0.5 kW less per house, from at once."""
    emulated = run(load_scenario("hil-thermostats-ieee123"), out=tmp_path / "emulated")
    simulated = run(
        load_scenario("hil-thermostats-ieee123", ['federates.houses.devices={"*": simulated}']),
        out=tmp_path / "simulated",
        placement="single",
    )
    # Registers: total_w in 1 W, temp_in_c in 0.1 K; the verb is a code, so nothing else rounds.
    assert max(differences(emulated, simulated, "houses.p_kw").values()) <= 0.5e-3 + 1e-9
    assert max(differences(emulated, simulated, "houses.temp_c").values()) <= 0.05 + 1e-9
    power = signal(emulated, "houses.p_kw")
    time_s = power.pop("time_s")
    mean_kw = np.mean(list(power.values()), axis=0)
    assert len(power) == 20
    before, after = time_s < 300.0, (time_s >= 300.0) & (time_s < 900.0)
    assert 0.2 <= mean_kw[after].mean() - mean_kw[before].mean() <= 0.5
    # The range is that of the window's mean; the first step after the signal already shows it.
    assert mean_kw[30] - mean_kw[29] >= 0.2
    assert mean_kw[after].min() > mean_kw[before].max()
    # The grid sees it one step later, and less losses with it, against the run without a signal.
    calm = run(
        load_scenario(
            "hil-thermostats-ieee123",
            [
                'federates.houses.devices={"*": simulated}',
                "federates.operator.options.values=[[0,0]]",
            ],
        ),
        out=tmp_path / "calm",
        placement="single",
        steps=40,
    )
    imported = [signal(r, "feeder.import_kw")["source"] for r in (calm, emulated)]
    # Against the same step without a signal: houses would have switched on in it as well.
    quiet = signal(calm, "houses.p_kw")
    saved_kw = sum(power[house][30] - quiet[house][30] for house in power)
    assert imported[0][:31] == pytest.approx(imported[1][:31], abs=20 * 0.5e-3 * 1.1)
    assert 1.0 * saved_kw < imported[0][31] - imported[1][31] < 1.1 * saved_kw


def test_emulated_batteries_follow_simulated_ones(tmp_path: Path) -> None:
    extra = [
        "grid.ders=[{kind: battery, at: ['65', '76'], kw: 20, hours: 2}]",
        "federates={feeder: {kind: feeder}, p: {kind: signal, options: {port: p_set_kw, unit: kW, "
        "values: [[0, 3.3333], [100, -12.3456], [200, 40]]}}, "
        "bench: {kind: device, devices: {'*': %s}}}",
        "connections=[p.p_set_kw -> bench.p_set_kw, feeder.v_pu -> bench.v_pu, "
        "bench.p_kw -> feeder.p_meas_kw, bench.q_kvar -> feeder.q_meas_kvar]",
    ]
    results = []
    for kind in ("emulated", "simulated"):
        overrides = [extra[0], extra[1] % kind, extra[2]]
        scenario = load_scenario("hil-inverter-voltvar", overrides)
        results.append(run(scenario, out=tmp_path / kind, steps=60, placement="single"))
    ders = GridSite(load_scenario("hil-inverter-voltvar", [extra[0]])).feeder.ders
    for name, worst in differences(*results, "bench.p_kw").items():
        der = next(d for d in ders if d.name == name)
        assert 0.0 < worst <= watt_resolution(der) / 1e3 + 0.5e-4 * der.p_max_kw + 1e-9
    # 713.SoC in 0.1 %; the rounded power adds 2 W over 5 minutes of 40 kWh, 0.0004 %.
    assert max(differences(*results, "bench.soc_pct").values()) <= 0.05 + 0.001
    p_kw = signal(results[0], "bench.p_kw")
    assert max(v.max() for k, v in p_kw.items() if k != "time_s") == pytest.approx(20.0)


def test_emulators_do_not_outlive_a_run_that_is_killed(tmp_path: Path, feederate: str) -> None:
    command = [feederate, "run", "hil-thermostats-ieee123", "--out", str(tmp_path / "run")]
    run = subprocess.Popen(
        [*command, "--set", "time.real_time.factor=10"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 600.0  # it hangs
        while not (emulators_alive(tmp_path / "run")):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        run.kill()
        run.wait()
    deadline = time.monotonic() + 600.0
    while emulators_alive(tmp_path / "run"):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_one_command_runs_each_scenario(tmp_path: Path, feederate: str) -> None:
    for name in ("hil-thermostats-ieee123", "hil-inverter-voltvar"):
        done = subprocess.run(
            [feederate, "run", name, "--steps", "5", "--out", str(tmp_path / name)],
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "finished: 5 steps" in done.stdout
        assert (tmp_path / name / "report.html").is_file()


@pytest.fixture
def feederate() -> str:
    return str(Path(sys.executable).with_name("feederate"))
