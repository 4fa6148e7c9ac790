"""Procedures on the emulator, through the adapter; and devices that do not pass."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from hil.adapter.sunspec import SunSpecMap
from hil.devices.errors import DeviceError, NoReplyError
from hil.devices.file import load_device_file
from hil.devices.spec import ConnectionSpec, DeviceSpec
from hil.emulators.background import Background, background
from hil.emulators.inverter_plant import inverters
from hil.emulators.options import Clock, EmulatorOptions
from hil.type_tests import run as run_module
from hil.type_tests import tables
from hil.type_tests.engine import Check
from hil.type_tests.functions import Ratings
from hil.type_tests.grid import ChannelGrid, GridSimulator, open_grid
from hil.type_tests.procedures import PROCEDURES
from hil.type_tests.run import Outcome, needs, run_procedure

#: How many steps a short run has; ride-through: 8 trips of 4 and 8 disturbances of 3, as the trip
#: at 0.45 pu ends one of 9.
STEPS = {
    "volt-var": 22, "volt-watt": 11, "constant-pf": 28, "constant-q": 32, "limit-active-power": 24,
    "ride-through": 56, "frequency-watt": 18, "priority": 32,
}  # fmt: skip
TIME = EmulatorOptions(grid_port=0, time=Clock.grid, step_s=1.0)

RATINGS = Ratings(10e3, 11136.0, 4900.0, 4900.0, 480.0, "B", "II")


@pytest.fixture(scope="module")
def bench() -> Iterator[Background]:
    """One inverter for all procedures: each leaves it as it was."""
    with background(inverters(1, 10.0, 11.136), TIME) as devices:
        yield devices


@pytest.fixture
def grid(bench: Background) -> Iterator[GridSimulator]:
    grid = open_grid(f"127.0.0.1:{bench.grid_port}")
    yield grid
    grid.close()


def spec_at(port: int, name: str = "sunspec-inverter-1547") -> DeviceSpec:
    return load_device_file(name).at(port=port)


def run(
    name: str, spec: DeviceSpec, grid: GridSimulator, folder: Path, **options: object
) -> Outcome:
    return run_procedure(
        name, spec, grid, armed=[spec.name], audit=folder / "audit.jsonl", watchdog=False,
        **options,  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.mark.parametrize("name", PROCEDURES)
def test_the_emulator_passes(
    name: str, bench: Background, grid: GridSimulator, tmp_path: Path
) -> None:
    outcome = run(name, spec_at(bench.ports[0]), grid, tmp_path)
    assert [r.step.name + ": " + r.why for r in outcome.results if not r.passed] == []
    assert outcome.passed
    assert 0.0 <= outcome.worst["used"] <= 1.0
    assert len(outcome.results) == STEPS[name]
    assert all(r.checks for r in outcome.results if r.step.judge != "stay")
    # The device is as before: nothing is on, full power.
    settings = bench.host.plant.fleet.settings  # type: ignore[attr-defined]
    on = (settings.volt_var_on, settings.volt_watt_on, settings.droop_on, settings.limit_on)
    assert not any(flags.any() for flags in (*on, settings.pf_on, settings.var_on))


@pytest.mark.parametrize(
    ("name", "fault", "what"),
    [("volt-var", "drift:1.0", "q_pu"), ("limit-active-power", "drift:1.0", "p_pu")],
)
def test_a_device_with_wrong_readings_fails(
    name: str, fault: str, what: str, tmp_path: Path
) -> None:
    with background(inverters(1, 10.0, 11.136), TIME) as devices:
        grid = open_grid(f"127.0.0.1:{devices.grid_port}")
        assert isinstance(grid, ChannelGrid)
        grid._ask(fault=fault)
        outcome = run(name, spec_at(devices.ports[0]), grid, tmp_path)
        grid.close()
    assert not outcome.passed
    assert any(what in r.why for r in outcome.results)


def test_a_device_that_trips_too_late_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "FREQUENCY_RIDES", ())
    plant = inverters(1, 10.0, 11.136)
    for model in (709, 710):  # 300 s each
        plant.units[0].bank.put(model, "Ena", 0)
    relay = plant.fleet.relay

    class Slow(type(relay)):  # type: ignore[misc]
        def step(self, dt_s, v_pu, hz):  # type: ignore[no-untyped-def]
            return super().step(0.5 * dt_s, v_pu, hz)

    relay.__class__ = Slow
    with background(plant, TIME) as devices:
        grid = open_grid(f"127.0.0.1:{devices.grid_port}")
        outcome = run("ride-through", spec_at(devices.ports[0]), grid, tmp_path)
        grid.close()
    failed = {r.step.judge for r in outcome.results if not r.passed}
    assert "trip" in failed
    assert all("clearing_s" in r.why for r in outcome.results if r.step.judge == "trip")


def test_a_device_without_momentary_cessation_is_not_of_category_iii(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "FREQUENCY_RIDES", ())
    plant = inverters(1, 10.0, 11.136)
    unit = plant.units[0]
    for model in (707, 708, 709, 710):  # no trips: the disturbances of category III are long
        unit.bank.put(model, "Ena", 0)
    unit._adopt_settings()
    with background(plant, TIME) as devices:
        grid = open_grid(f"127.0.0.1:{devices.grid_port}")
        spec = spec_at(devices.ports[0])
        outcome = run("ride-through", spec, grid, tmp_path, abnormal="III")
        grid.close()
    assert len(outcome.results) == 12
    assert {r.step.judge for r in outcome.results if not r.passed} == {"cease"}


def test_a_trip_setting_outside_the_range_of_its_category_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "FREQUENCY_RIDES", ())
    plant = inverters(1, 10.0, 11.136)
    unit = plant.units[0]
    unit.curves[4].put(unit.bank, 1, [110.0, 125.0], [2.0, 0.16])
    for model in (707, 709, 710):
        unit.bank.put(model, "Ena", 0)
    unit._adopt_settings()
    with background(plant, TIME) as devices:
        grid = open_grid(f"127.0.0.1:{devices.grid_port}")
        outcome = run("ride-through", spec_at(devices.ports[0]), grid, tmp_path)
        grid.close()
    failed = [r for r in outcome.results if not r.passed]
    assert [r.step.v_pu for r in failed] == pytest.approx([1.27])
    assert "limit, set is 1.25" in failed[0].why


def test_a_device_file_without_a_point_is_refused_with_what_is_missing() -> None:
    spec = load_device_file("sunspec-inverter")
    assert 705 in needs("volt-var", spec)
    with pytest.raises(DeviceError) as error:
        needs("volt-watt", spec)
    assert "706.Ena" in str(error.value)
    with pytest.raises(DeviceError) as error:
        needs("frequency-watt", spec)
    assert "curves: 711" in str(error.value)


def test_a_check_of_nan_fails_and_says_how_much_it_uses() -> None:
    assert not Check("p_pu", math.nan, 0.0, 0.5, 1.0).passed
    assert Check("p_pu", 0.75, 0.0, 0.5, 1.0).used == pytest.approx(0.5)
    assert math.isnan(Check("p_pu", 0.75, 0.1).used)


def test_by_the_wall_clock_a_late_reading_does_not_judge_the_response(tmp_path: Path) -> None:
    options = EmulatorOptions(grid_port=0, speed=50.0)  # 0.5 s are over in 10 ms
    with background(inverters(1, 10.0, 11.136), options) as devices:
        grid = open_grid(f"127.0.0.1:{devices.grid_port}")
        outcome = run("volt-watt", spec_at(devices.ports[0]), grid, tmp_path)
        grid.close()
    assert outcome.passed
    late = [r for r in outcome.results if "response time not judged" in r.note]
    assert late
    assert all(len(r.checks) == 1 for r in late)


def test_a_device_that_lacks_a_model_is_refused_with_its_number(
    bench: Background, grid: GridSimulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_module.scan_device

    def older(connection: ConnectionSpec) -> SunSpecMap:
        found = whole(connection)
        found.models = [block for block in found.models if block.model != 711]
        return found

    monkeypatch.setattr(run_module, "scan_device", older)
    spec = spec_at(bench.ports[0])
    with pytest.raises(DeviceError) as error:
        run("frequency-watt", spec, grid, tmp_path)
    assert "SunSpec models 711" in str(error.value)
    assert run("volt-watt", spec, grid, tmp_path).passed  # what needs no 711 is tested


def test_a_limit_of_the_device_file_ends_the_test(
    bench: Background, grid: GridSimulator, tmp_path: Path
) -> None:
    spec = spec_at(bench.ports[0])
    narrow = {n: p.model_copy(update={"max": 50.0}) if n == "w_limit_pct" else p
              for n, p in spec.points.items()}  # fmt: skip
    with pytest.raises(DeviceError, match=r"clamped: w_limit_pct = 66"):
        run("limit-active-power", spec.model_copy(update={"points": narrow}), grid, tmp_path)


def test_what_was_not_made_safe_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with background(inverters(1, 10.0, 11.136), TIME) as devices:
        grid = open_grid(f"127.0.0.1:{devices.grid_port}")
        assert isinstance(grid, ChannelGrid)
        spec = spec_at(devices.ports[0])
        steps = list(PROCEDURES["volt-watt"](run_module.Wishes(RATINGS)))[:1]

        def falls_silent(_result: object) -> None:
            grid._ask(fault="silent")

        close = run_module.Adapter.close
        monkeypatch.setattr(run_module.Adapter, "close", lambda self: close(self, timeout_s=0.5))
        monkeypatch.setitem(PROCEDURES, "volt-watt", lambda _wishes: iter(steps))
        with pytest.raises(NoReplyError, match=r"not safe: inverter\.\w+ last stood at"):
            run("volt-watt", spec, grid, tmp_path, each=falls_silent)
        grid.close()
