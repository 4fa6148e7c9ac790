"""External programs are watched: what is recorded, what is an event, what ends the run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from controllers.core.mail import FloatArray
from controllers.core.ports import Port
from federates.clock import Timing, to_ns
from federates.core.oedisi import Topic
from federates.core.run_store import RunStore
from federates.core.signals import read_signal
from federates.core.watch import Partner, Watch, make_watch
from federates.errors import PartnerError
from federates.scenario.sections import Record

HORIZON_S = 600.0


class _Bus:
    """A topic that is set by hand."""

    def __init__(self) -> None:
        self.values: FloatArray | None = None
        self.count = 0
        self.left = False
        self.asked = 0
        self.knows_after = 0  # questions that are answered as if the program were there

    def publish(self, *values: float) -> None:
        self.values, self.count = np.array(values), self.count + 1

    def latest(self, source: str, port: str) -> FloatArray | None:
        return self.values

    def updates(self, source: str, port: str) -> int:
        return self.count

    def has_left(self, federate: str) -> bool:
        self.asked += 1
        return self.left and self.asked > self.knows_after


class _Clock:
    """The watch's clock, on which only pauses and looks take time."""

    wall_s = 0.0

    def monotonic(self) -> float:
        return self.wall_s

    def sleep(self, duration_s: float) -> None:
        self.wall_s += duration_s


class _Bench:
    """A program with a period of 60 s and an offset of 30 s, looked at every 60 s."""

    clock = _Clock()

    def __init__(self, folder: Path, limit_s: float | None = None, initial: float = 0.0) -> None:
        self.store = RunStore(folder, Record())
        self.bus, self.said = _Bus(), list[str]()
        port = Port("q", "kvar", ("a", "b"), initial=initial)
        limit_ns = None if limit_s is None else to_ns(limit_s)
        timing = Timing(to_ns(60.0), to_ns(30.0))
        outputs = ((port, Topic("lab/q")),)
        self.partner = Partner("lab", timing, outputs, (), limit_ns, to_ns(HORIZON_S))
        self.watch: Watch = make_watch(self.partner, self.store, self.said.append)

    def look(self, *times_s: float) -> None:
        for time_s in times_s:
            self.clock.sleep(1.0)
            self.watch.look(self.bus, to_ns(time_s))

    def events(self) -> list[dict[str, object]]:
        path = self.store.folder / "events.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


Benches = Callable[..., _Bench]


@pytest.fixture
def benches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Benches]:
    """Return what makes a bench; its recordings are closed at the end."""
    made: list[_Bench] = []
    monkeypatch.setattr("federates.core.watch.time", _Bench.clock)

    def make(**options: float) -> _Bench:
        made.append(_Bench(tmp_path, **options))
        return made[-1]

    yield make
    for bench in made:
        bench.watch.close()


def test_a_value_is_recorded_at_the_programs_own_step(benches: Benches) -> None:
    bench = benches()
    bench.look(0.0)
    for time_s in (60.0, 120.0):
        bench.bus.publish(time_s, 1.0)
        bench.look(time_s, time_s)  # a second look at one time records nothing
    bench.watch.close()
    times, labels, values = read_signal(bench.store.signals, "lab.q")
    assert times.tolist() == [30.0, 90.0]
    assert labels == ("a", "b")
    assert values.tolist() == [[60.0, 1.0], [120.0, 1.0]]
    assert bench.events() == []


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_ends_the_run(benches: Benches, bad: float) -> None:
    bench = benches()
    bench.bus.publish(1.0, bad)
    with pytest.raises(PartnerError, match=r"topic 'lab/q': .* for 'b'") as caught:
        bench.look(60.0)
    assert caught.value.federate == "lab"


def test_nan_is_a_value_where_the_port_starts_with_it(benches: Benches) -> None:
    bench = benches(initial=np.nan)
    bench.bus.publish(1.0, np.nan)
    bench.look(60.0)


def test_silence_of_more_than_a_period_is_told_once(benches: Benches) -> None:
    bench = benches()
    bench.bus.publish(1.0, 1.0)
    bench.look(60.0, 90.0)
    assert bench.events() == []
    bench.look(120.0, 180.0)
    (event,) = bench.events()
    assert (event["event"], event["federate"], event["topic"]) == ("topic_silent", "lab", "lab/q")
    assert (event["time_s"], event["last_s"]) == (120.0, 30.0)
    assert len(bench.said) == 1
    assert "federate 'lab': topic 'lab/q' has had no value since 30 s" in bench.said[0]


def test_max_silence_ends_the_run(benches: Benches) -> None:
    bench = benches(limit_s=120.0)
    bench.bus.publish(1.0, 1.0)
    bench.look(60.0, 120.0, 150.0)
    with pytest.raises(PartnerError, match=r"every 120 s \(max_silence_s\)"):
        bench.look(180.0)


def test_a_program_that_leaves_ends_the_run(benches: Benches) -> None:
    bench = benches()
    bench.bus.publish(1.0, 1.0)
    bench.look(60.0)
    bench.bus.left = True
    with pytest.raises(PartnerError, match=r"left the federation before its end.* at 570 s"):
        bench.look(120.0)


@pytest.mark.parametrize("knows_after", [1, 40])
def test_a_leave_that_the_broker_learns_of_late_ends_the_run(
    benches: Benches, knows_after: int
) -> None:
    bench = benches()
    bench.bus.publish(1.0, 1.0)
    bench.look(60.0)
    bench.bus.left, bench.bus.knows_after = True, knows_after
    with pytest.raises(PartnerError, match=r"left the federation before its end: .* since 30 s"):
        bench.look(120.0)
    assert bench.bus.asked == knows_after + 1


def test_a_leave_that_the_broker_learns_of_very_late_ends_the_run(benches: Benches) -> None:
    bench = benches()
    bench.bus.publish(1.0, 1.0)
    bench.look(60.0, 120.0)
    bench.bus.left, bench.bus.knows_after = True, bench.bus.asked + 1
    bench.look(180.0)
    with pytest.raises(PartnerError, match=r"left the federation before its end: .* since 30 s"):
        bench.look(240.0)


def test_a_program_that_is_silent_now_and_then_is_waited_for_once(benches: Benches) -> None:
    bench = benches()
    for time_s in (60.0, 240.0):
        bench.bus.publish(1.0, 1.0)
        began_s = bench.clock.wall_s
        bench.look(time_s, time_s + 60.0, time_s + 120.0)
        waited_s = bench.clock.wall_s - began_s - 3.0
        assert waited_s == pytest.approx(1.0 if time_s == 60.0 else 0.0, abs=0.1)
    assert len(bench.said) == 1
    bench.bus.left = True
    with pytest.raises(PartnerError, match="no value since 210 s"):
        bench.look(420.0)


def test_a_topic_without_any_value_ends_the_run_at_its_end(benches: Benches) -> None:
    bench = benches(limit_s=HORIZON_S)
    bench.look(60.0)
    with pytest.raises(PartnerError, match="topic 'lab/q' has had no value in the whole run"):
        bench.watch.look_last(bench.bus)


def test_a_program_may_leave_after_its_last_step(benches: Benches) -> None:
    bench = benches()
    bench.bus.publish(1.0, 1.0)
    bench.look(600.0)
    bench.bus.left = True
    bench.watch.look_last(bench.bus)


def test_a_program_that_only_reads_is_asked_for(benches: Benches) -> None:
    bench = benches()
    reader = Partner("lab", bench.partner.timing, (), ("feeder/v_pu",), None, to_ns(HORIZON_S))
    watch = make_watch(reader, bench.store, bench.said.append)
    bench.bus.left = True
    watch.look(bench.bus, reader.last_step_ns)  # it may be done
    with pytest.raises(PartnerError, match="left the federation before its end: at time 510 s"):
        watch.look(bench.bus, to_ns(510.0))
