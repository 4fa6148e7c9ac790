"""Heartbeats: a hang is seen from outside, and so is time that stands still."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from federates.core import progress as module
from federates.core.progress import Progress, StallWatch
from federates.hosts.outcome import Control, Failure


class Clock:
    """A monotonic clock that the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1000.0
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now_s)
        monkeypatch.setattr(module.time, "monotonic_ns", lambda: int(self.now_s * 1e9))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_the_longest_step_is_the_one_that_hangs(clock: Clock) -> None:
    progress = Progress(3)
    progress.begin(2)
    clock.now_s += 1.0
    progress.begin(0)
    clock.now_s += 1.5
    assert progress.hung(3.0) is None
    assert progress.hung(2.0) == 2
    progress.end(2)
    assert progress.hung(2.0) is None
    assert [progress.steps(i) for i in range(3)] == [0, 0, 1]


def test_time_that_stands_still_is_noticed_only_when_nobody_computes(clock: Clock) -> None:
    progress = Progress(2)
    watch = StallWatch(progress, 3.0)
    clock.now_s += 100.0
    assert not watch.stalled()  # before the first step others may still be joining
    progress.begin(0)
    progress.end(0)
    assert not watch.stalled()
    progress.begin(1)
    clock.now_s += 100.0
    assert not watch.stalled()  # a step that takes long is a hang of its own federate
    progress.end(1)
    assert not watch.stalled()
    clock.now_s += 2.9
    assert not watch.stalled()
    clock.now_s += 0.2
    assert watch.stalled()


def test_who_hangs_is_named_ours_first(clock: Clock) -> None:
    progress = Progress(2)
    control = Control(progress, 3.0)
    progress.begin(1)
    clock.now_s += 4.0
    hung = control.hung(["feeder", "volt_var"], ["meter", "broker"])
    assert hung == Failure("volt_var", "one step took longer than step_timeout_s = 3 s")
    progress.end(1)
    assert control.hung(["feeder", "volt_var"], ["meter", "broker"]) is None
    clock.now_s += 4.0
    hung = control.hung(["feeder", "volt_var"], ["meter", "broker"])
    assert hung is not None
    assert hung.federate == "meter or broker"


def test_another_process_sees_the_heartbeat(tmp_path: Path) -> None:
    path = tmp_path / "progress"
    progress = Progress(2, path)
    code = (
        "import sys; from pathlib import Path; from federates.core.progress import Progress;"
        "p = Progress(2, Path(sys.argv[1])); p.begin(0); p.end(0); p.begin(1)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, timeout=600)
    assert (progress.steps(0), progress.steps(1)) == (1, 0)
    assert progress.hung(-1.0) == 1


def test_only_the_first_failure_is_kept() -> None:
    control = Control(Progress(1), 3.0)
    assert control.fail(Failure("a", "first"))
    assert not control.fail(Failure("b", "second"))
    assert control.failure == Failure("a", "first")
    assert control.stop.is_set()


def test_a_paused_run_is_no_stall_and_counts_its_pauses(clock: Clock, tmp_path: Path) -> None:
    progress = Progress(1, tmp_path / "table")
    page = Progress(1, tmp_path / "table")  # as the live page opens it
    watch = StallWatch(progress, 10.0)
    progress.begin(0)
    progress.end(0)
    assert not watch.stalled()
    page.pause()
    page.pause()
    for _ in range(5):
        clock.now_s += 20.0
        assert progress.paused
        assert not watch.stalled()
    assert progress.paused_ns() == 100_000_000_000
    page.resume()
    page.resume()
    clock.now_s += 9.0
    assert (progress.paused, progress.paused_ns()) == (False, 100_000_000_000)
    assert not watch.stalled()
    clock.now_s += 2.0
    assert watch.stalled()
