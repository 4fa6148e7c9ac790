"""Who ran when and saw what, as text; the single host and HELICS must tell the same story."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controllers.core.mail import FloatArray, Link, Mail
from controllers.core.ports import Port
from federates.clock import Timing, to_ns, to_s
from federates.core.federate import Federate, Step
from federates.core.links import LinkQuality
from federates.core.progress import Progress
from federates.core.run_store import RunStore
from federates.core.shell import Shell
from federates.core.wiring import FederateWiring, Feed
from federates.hosts.gate import Guests
from federates.hosts.outcome import Control, Outcome
from federates.hosts.single import run_single
from federates.hosts.thread import run_threads
from federates.scenario.sections import Record

Diary = list[tuple[float, str, str]]


@dataclass(frozen=True)
class Member:
    """A federate of a topology: steps at offset + k * period, reads others, writes to others."""

    name: str
    period_s: float
    offset_s: float
    reads: tuple[str, ...] = ()
    writes_to: tuple[str, ...] = ()


class Witness(Federate):
    """Publishes its own time and notes what it sees; mail carries the time of sending."""

    def __init__(self, member: Member, everybody: Sequence[Member], diary: Diary) -> None:
        self.name = member.name
        self.timing = Timing(to_ns(member.period_s), to_ns(member.offset_s))
        self.inputs = tuple(Port(f"from_{n}", "s", ("t",), initial=-1.0) for n in member.reads)
        self.outputs = (Port("now", "s", ("t",)),)
        self.links_out = tuple(Link(member.name, n) for n in member.writes_to)
        self.links_in = tuple(
            Link(m.name, member.name) for m in everybody if member.name in m.writes_to
        )
        self._diary = diary
        self._round = 0

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> Step:
        seen = [
            f"{port.removeprefix('from_')}@{values[0]:g}"
            if values[0] >= 0
            else f"{port.removeprefix('from_')}@-"
            for port, values in inputs.items()
        ]
        letters = [
            f"mail {self.links_in[i].source}@{v:g}"
            for i, v in zip(mail.link, mail.values, strict=True)
        ]
        self._diary.append((time_s, self.name, " ".join([*seen, *letters])))
        n = len(self.links_out)
        sent = Mail(np.arange(n), np.full(n, self._round), np.full(n, time_s))
        self._round += 1
        return Step({"now": np.array([time_s])}, sent if n else Mail.empty())


def _guests(shells: Mapping[str, Shell]) -> Guests:
    return Guests(tuple(shells), (), (), join_timeout_s=60.0)


Host = Callable[[Mapping[str, Shell], int, Control, Path], Outcome]


def _single(shells: Mapping[str, Shell], horizon: int, control: Control, _: Path) -> Outcome:
    return run_single(shells, horizon, control)


def _threads(
    groups: Sequence[Mapping[str, Shell]],
    shells: Mapping[str, Shell],
    horizon: int,
    control: Control,
    place: Path,
) -> Outcome:
    unpaced = [None] * len(groups)
    return run_threads(groups, [], horizon, control, place, place, _guests(shells), unpaced)


def _thread(shells: Mapping[str, Shell], horizon: int, control: Control, place: Path) -> Outcome:
    groups = [{n: s} for n, s in shells.items()]
    return _threads(groups, shells, horizon, control, place)


def _shared(shells: Mapping[str, Shell], horizon: int, control: Control, place: Path) -> Outcome:
    return _threads([shells], shells, horizon, control, place)


def _halves(shells: Mapping[str, Shell], horizon: int, control: Control, place: Path) -> Outcome:
    (first, shell), *others = shells.items()
    groups = [{first: shell}, dict(others)] if others else [shells]
    return _threads(groups, shells, horizon, control, place)


HOSTS: dict[str, Host] = {
    "single": _single, "thread": _thread, "shared": _shared, "halves": _halves,
}  # fmt: skip


def _tell(
    host: str,
    place: Path,
    members: Sequence[Member],
    horizon_s: float,
    latency_s: float = 0.0,
) -> str:
    diary: Diary = []
    witnesses = {m.name: Witness(m, members, diary) for m in members}
    store = RunStore(place, Record(ports=[]))
    progress = Progress(len(members))
    shells = {}
    for row, m in enumerate(members):
        witness = witnesses[m.name]
        routes = tuple((n, witnesses[n].links_in.index(Link(m.name, n))) for n in m.writes_to)
        wiring = FederateWiring(
            feeds={f"from_{n}": (Feed(n, "now", 1, None, None),) for n in m.reads},
            published=("now",) if any(m.name in other.reads for other in members) else (),
            mail_routes=routes,
            link_quality={link.key: LinkQuality(latency_s=latency_s) for link in witness.links_in},
        )
        shells[m.name] = Shell(witness, wiring, store, 1, progress, row)
    outcome = HOSTS[host](shells, to_ns(horizon_s), Control(progress, 20.0), place)
    assert outcome.failure is None
    return "\n".join(f"{t:g} {name}: {seen}".rstrip() for t, name, seen in sorted(diary))


TOPOLOGIES: dict[str, tuple[list[Member], float, float, str]] = {
    "equal times see the previous step": (
        [Member("a", 1, 0, ("b",)), Member("b", 1, 0, ("a",))], 3, 0,
        """
        0 a: b@-
        0 b: a@-
        1 a: b@0
        1 b: a@0
        2 a: b@1
        2 b: a@1
        """,
    ),
    "an offset sees the current step": (
        [Member("feeder", 1, 0, ("ctrl",)), Member("ctrl", 1, 0.5, ("feeder",))], 3, 0,
        """
        0 feeder: ctrl@-
        0.5 ctrl: feeder@0
        1 feeder: ctrl@0.5
        1.5 ctrl: feeder@1
        2 feeder: ctrl@1.5
        2.5 ctrl: feeder@2
        """,
    ),
    "standing in between adds no delay": (
        [
            Member("a", 1, 0), Member("attacker", 1, 0.25, ("a",)),
            Member("c", 1, 0.5, ("attacker", "a")),
        ], 2, 0,
        """
        0 a:
        0.25 attacker: a@0
        0.5 c: attacker@0.25 a@0
        1 a:
        1.25 attacker: a@1
        1.5 c: attacker@1.25 a@1
        """,
    ),
    "a slow reader sees the newest": (
        [Member("fast", 1, 0), Member("slow", 3, 0.5, ("fast",))], 7, 0,
        """
        0 fast:
        0.5 slow: fast@0
        1 fast:
        2 fast:
        3 fast:
        3.5 slow: fast@3
        4 fast:
        5 fast:
        6 fast:
        6.5 slow: fast@6
        """,
    ),
    "a fast reader keeps the last": (
        [Member("slow", 3, 0), Member("fast", 1, 0, ("slow",))], 5, 0,
        """
        0 fast: slow@-
        0 slow:
        1 fast: slow@0
        2 fast: slow@0
        3 fast: slow@0
        3 slow:
        4 fast: slow@3
        """,
    ),
    "an offset beyond the period only starts late": (
        [Member("a", 1, 0), Member("late", 1, 2.5, ("a",))], 5, 0,
        """
        0 a:
        1 a:
        2 a:
        2.5 late: a@2
        3 a:
        3.5 late: a@3
        4 a:
        4.5 late: a@4
        """,
    ),
    "periods of two and three": (
        [Member("two", 2, 0, ("three",)), Member("three", 3, 1, ("two",))], 9, 0,
        """
        0 two: three@-
        1 three: two@0
        2 two: three@1
        4 three: two@2
        4 two: three@1
        6 two: three@4
        7 three: two@6
        8 two: three@7
        """,
    ),
    "reading oneself sees the previous step": (
        [Member("a", 1, 0, ("a",)), Member("b", 1, 0, ("a",))], 3, 0,
        """
        0 a: a@-
        0 b: a@-
        1 a: a@0
        1 b: a@0
        2 a: a@1
        2 b: a@1
        """,
    ),
    "mail of equal times arrives at the next step, also one's own": (
        [Member("a", 1, 0, (), ("b", "a")), Member("b", 1, 0, (), ("a",))], 3, 0,
        """
        0 a:
        0 b:
        1 a: mail a@0 mail b@0
        1 b: mail a@0
        2 a: mail a@1 mail b@1
        2 b: mail a@1
        """,
    ),
    "mail to an offset arrives in the same step": (
        [Member("a", 1, 0, (), ("b",)), Member("b", 1, 0.5, (), ("a",))], 3, 0,
        """
        0 a:
        0.5 b: mail a@0
        1 a: mail b@0.5
        1.5 b: mail a@1
        2 a: mail b@1.5
        2.5 b: mail a@2
        """,
    ),
    "mail waits for a slow reader, in order": (
        [Member("fast", 1, 0, (), ("slow",)), Member("slow", 3, 0.5)], 4, 0,
        """
        0 fast:
        0.5 slow: mail fast@0
        1 fast:
        2 fast:
        3 fast:
        3.5 slow: mail fast@1 mail fast@2 mail fast@3
        """,
    ),
    "latency delays mail and not values": (
        [Member("a", 1, 0, (), ("b",)), Member("b", 1, 0.5, ("a",))], 4, 1.5,
        """
        0 a:
        0.5 b: a@0
        1 a:
        1.5 b: a@1 mail a@0
        2 a:
        2.5 b: a@2 mail a@1
        3 a:
        3.5 b: a@3 mail a@2
        """,
    ),
}  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("what", TOPOLOGIES)
def test_who_ran_when_and_saw_what(what: str, host: str, tmp_path: Path) -> None:
    members, horizon_s, latency_s, story = TOPOLOGIES[what]
    expected = "\n".join(line.strip() for line in story.strip().splitlines())
    assert _tell(host, tmp_path, members, horizon_s, latency_s) == expected


names = st.sampled_from("abc")


@st.composite
def topologies(draw: st.DrawFn) -> list[Member]:
    everybody = "abc"[: draw(st.integers(2, 3))]
    others = st.lists(st.sampled_from(everybody), unique=True, max_size=3).map(tuple)
    # Tenths have no exact double; they meet only if time is an integer.
    times = st.sampled_from([0.1, 0.2, 0.3, 0.7, 1.0])
    offsets = st.sampled_from([0.0, 0.05, 0.1, 0.3, 1.1])
    return [Member(n, draw(times), draw(offsets), draw(others), draw(others)) for n in everybody]


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(topologies(), st.sampled_from([0.0, 0.15, 0.4]))
def test_any_topology_tells_the_same_story_in_every_host(
    tmp_path: Path, members: list[Member], latency_s: float
) -> None:
    stories = [_tell(host, tmp_path, members, 2.0, latency_s) for host in HOSTS]
    assert len(set(stories)) == 1


@pytest.mark.parametrize("host", ["thread", "shared"])
@pytest.mark.parametrize("period_s", [864_000.1, 604_800.123456789])
def test_helics_grants_what_is_asked_for_a_year_long(
    tmp_path: Path, period_s: float, host: str
) -> None:
    # Seconds as a double are then a few ns apart, and 1e-9 times a tick is not that tick over 1e9.
    story = _tell(host, tmp_path, [Member("a", period_s, 1e-6)], 40 * period_s)
    assert len(story.splitlines()) == 40
    last = to_s(1000 + 39 * to_ns(period_s))
    assert story.splitlines()[-1] == f"{last:g} a:"
