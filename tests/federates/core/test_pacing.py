"""Pacing on a clock of the test's own: deadlines are absolute, each policy does what it says."""

import threading
import time

import numpy as np
import pyarrow.parquet as pq
import pytest

from federates.clock import NS_PER_S, Timing
from federates.core.pacing import Pacer
from federates.errors import RunError, ScenarioError
from federates.runs.runner import run
from federates.scenario.schema import load_scenario

STEP = NS_PER_S


class Clock:
    """A monotonic clock that only waiting and `work` move; waiting ends `late_s` too late."""

    def __init__(self, late_s: float = 0.0) -> None:
        self.now_s = 1000.0
        self.late_s = late_s

    def monotonic_ns(self) -> int:
        return round(self.now_s * 1e9)

    def wait(self, seconds: float) -> bool:
        self.now_s += seconds + self.late_s
        return False

    def is_set(self) -> bool:
        return False


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("federates.core.pacing.time", clock)
    return clock


def begin_times(clock: Clock, pacer: Pacer, work_s: list[float]) -> list[float]:
    began, zero_s = [], clock.now_s
    for k, seconds in enumerate(work_s):
        pacer.wait(k * STEP, clock)  # type: ignore[arg-type]
        began.append(round(clock.now_s - zero_s, 6))
        clock.now_s += seconds
    return began


def test_steps_begin_on_the_schedule_whatever_they_take(clock: Clock) -> None:
    pacer = Pacer(Timing(STEP), 1.0, "skip")
    assert begin_times(clock, pacer, [0.9, 0.1, 0.5, 0.0]) == [0.0, 1.0, 2.0, 3.0]
    assert pacer.summary()["overruns"] == 0


def test_waiting_errors_do_not_add_up(clock: Clock) -> None:
    clock.late_s = 0.01
    pacer = Pacer(Timing(STEP), 1.0, "skip")
    began = begin_times(clock, pacer, [0.0] * 101)
    assert began[-1] == pytest.approx(100.01)
    assert pacer.summary()["lateness_max_ms"] == pytest.approx(10.0)


def test_a_factor_shortens_the_periods(clock: Clock) -> None:
    pacer = Pacer(Timing(STEP), 20.0, "skip")
    assert begin_times(clock, pacer, [0.0] * 4) == [0.0, 0.05, 0.1, 0.15]


def test_skip_gives_up_whole_periods_and_keeps_the_beat(clock: Clock) -> None:
    pacer = Pacer(Timing(STEP), 1.0, "skip")
    # Step 1 takes 2.3 s: step 2, due at 2, begins at 3.3; the missed one is given up, and step 3
    # follows on the old beat at 4, one second later than without the overrun.
    assert begin_times(clock, pacer, [0, 2.3, 0, 0, 0]) == [0.0, 1.0, 3.3, 4.0, 5.0]
    assert (pacer.summary()["overruns"], pacer.summary()["skipped_periods"]) == (1, 1)


def test_catch_up_runs_without_waiting_until_the_schedule_is_met(clock: Clock) -> None:
    pacer = Pacer(Timing(STEP), 1.0, "catch_up")
    assert begin_times(clock, pacer, [0, 2.3, 0, 0, 0]) == [0.0, 1.0, 3.3, 3.3, 4.0]
    assert (pacer.summary()["overruns"], pacer.summary()["skipped_periods"]) == (2, 0)


def test_abort_says_when_and_by_how_much(clock: Clock) -> None:
    pacer = Pacer(Timing(STEP), 1.0, "abort")
    with pytest.raises(ScenarioError, match=r"step at 2 s came 1\.3 s after its deadline"):
        begin_times(clock, pacer, [0, 2.3, 0])


def test_a_stop_ends_the_wait() -> None:
    stop = threading.Event()
    pacer = Pacer(Timing(1000 * STEP), 1.0, "skip")
    pacer.wait(0, stop)
    threading.Timer(0.05, stop.set).start()
    began = time.monotonic()
    pacer.wait(1000 * STEP, stop)
    assert time.monotonic() - began < 900.0, "the wait would have been 1000 s"


SHORT = ["time.duration_s=40", "time.step_s=5"]


def test_a_pause_moves_the_schedule(clock: Clock) -> None:
    pacer = Pacer(Timing(STEP), 1.0, "abort")
    assert pacer.wait(0, clock) == 0
    clock.now_s += 100.0  # of these the run was paused for 99.5
    pacer.wait(STEP, clock, held_ns=round(99.5e9))
    assert clock.now_s == pytest.approx(1000.0 + 99.5 + STEP / 1e9)
    assert pacer.overruns == 0


@pytest.mark.scenario
@pytest.mark.parametrize("placement", ["thread", "process", "single"])
def test_a_paced_run_takes_its_time_and_gives_the_same_bytes(placement, tmp_path) -> None:
    """8 steps of 5 s at factor 50: the last one begins 0.7 s after the first."""
    free = run(load_scenario("voltvar-ieee13", SHORT), out=tmp_path / "free", placement="single")
    began = time.monotonic()
    paced = run(
        load_scenario("voltvar-ieee13", [*SHORT, "time.real_time.factor=50"]),
        out=tmp_path / "paced",
        placement=placement,
    )
    assert time.monotonic() - began >= 0.7
    pacing = paced.summary["real_time"]
    assert (pacing["factor"], pacing["overrun"], pacing["steps"]) == (50.0, "skip", 8)
    assert 0.0 <= pacing["lateness_p50_ms"] <= pacing["lateness_p99_ms"]
    assert pacing["lateness_p99_ms"] <= pacing["lateness_max_ms"]
    assert "real_time" not in free.summary
    for file in sorted((free.folder / "signals").iterdir()):
        assert (paced.folder / "signals" / file.name).read_bytes() == file.read_bytes()


HARDWARE = '''
import time

import numpy as np
from federates.core.federate import Federate, Port, Step


class Bench(Federate):
    """Says when each of its steps came; like a bench with devices, it keeps the wall clock."""

    wall_clock = True
    outputs = (Port("came_s", "s", ("bench",), np.nan),)

    def step(self, time_s, inputs, mail):
        return Step({"came_s": np.array([time.monotonic()])})
'''


@pytest.mark.scenario
@pytest.mark.parametrize("placement", ["shared", "thread", "process", "single"])
def test_a_federate_with_hardware_is_paced_whatever_it_is_wired_to(placement, tmp_path) -> None:
    """Nothing leads to it, and it steps four times as often as the plant: 16 steps of 50 ms."""
    (tmp_path / "hardware.py").write_text(HARDWARE, encoding="utf-8")
    (tmp_path / "s.yaml").write_text(
        "time: {duration_s: 40, step_s: 10, real_time: {factor: 50}}\n"
        "grid: {model: ieee13, ders: [{kind: pv, at: ['671'], kw: 1}]}\n"
        "federates:\n"
        "  feeder: {kind: feeder}\n"
        "  bench: {kind: 'hardware:Bench', period_s: 2.5, offset_s: 0}\n",
        encoding="utf-8",
    )
    result = run(load_scenario(tmp_path / "s.yaml"), out=tmp_path / "run", placement=placement)
    file = result.folder / "signals" / "bench.came_s.parquet"
    came_s = pq.read_table(file)["bench"].to_numpy()
    within_a_plant_step_s = came_s[3::4] - came_s[::4]
    assert np.median(within_a_plant_step_s) >= 0.1  # 0.15 s when paced, nothing when not
    assert result.summary["real_time"]["factor"] == 50.0


@pytest.mark.scenario
def test_a_run_that_keeps_its_time_has_no_overrun(tmp_path, clock, monkeypatch) -> None:
    """Four steps on a clock that moves only while the run waits: stepping takes no time."""
    wait = Pacer.wait
    monkeypatch.setattr(Pacer, "wait", lambda p, now, stop, held: wait(p, now, clock, held))
    pace = ["time.real_time.factor=10", "time.real_time.overrun=abort"]
    scenario = load_scenario("voltvar-ieee13", [*SHORT, *pace])
    result = run(scenario, out=tmp_path / "run", steps=4, placement="single")
    assert result.summary["real_time"]["overruns"] == 0
    assert clock.now_s == pytest.approx(1000.0 + 3 * 0.5)


@pytest.mark.scenario
def test_an_overrun_with_abort_ends_the_run_with_its_reason(tmp_path) -> None:
    scenario = load_scenario(
        "voltvar-ieee13",
        [*SHORT, "time.real_time.factor=1e9", "time.real_time.overrun=abort"],
    )
    with pytest.raises(RunError, match="after its deadline"):
        run(scenario, out=tmp_path / "run")
