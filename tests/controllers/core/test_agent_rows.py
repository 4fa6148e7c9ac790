"""Agents as rows do what `IterativeAgent`s do, step by step, and stop only when all are quiet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.core.agent_rows import AgentRows, Heard, Kind, RowController, Team
from controllers.core.agents import AgentGroup, Channel, IterativeAgent, Letters
from controllers.core.errors import ControllerError
from controllers.core.graph import Graph
from controllers.core.mail import FloatArray, IntArray, Mail
from controllers.core.mail_loop import MailLoop, Post, plain_rows
from controllers.core.sample_site import sample_site
from controllers.core.waiting import Asynchronous, Barrier, Inbox, Waiting

POLICIES: list[Waiting] = [
    Barrier(),
    Barrier(resend_after=3),
    Asynchronous(),
    Asynchronous(fraction=0.0, max_age=4),
    Asynchronous(fraction=1.0, max_age=None, resend_after=2),
]
posts = st.builds(
    Post,
    loss=st.sampled_from([0.0, 0.3]),
    max_delay_steps=st.integers(0, 3),
    duplication=st.sampled_from([0.0, 0.2]),
    seed=st.integers(0, 9),
)


def names_of(n: int) -> tuple[str, ...]:
    return tuple(f"a{i:02d}" for i in range(n))


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """A tree and some edges more."""
    n = draw(st.integers(2, 7))
    parents = [draw(st.integers(0, i - 1)) for i in range(1, n)]
    more = draw(st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=4))
    tree = [(i + 1, parent) for i, parent in enumerate(parents)]
    return Graph(n, np.array(tree + [(i, j) for i, j in more if i != j]))


class AveragerRows(AgentRows):
    """x <- x + (sum of peers - degree x) / 4."""

    def __init__(self, at: IntArray) -> None:
        self.x = at.astype(float) + 1.0
        self.residual = np.ones(len(at))

    def first(self) -> FloatArray:
        return self.x[:, None]

    def compute(self, rows: IntArray, heard: Heard) -> FloatArray:
        x = self.x[rows]
        apart = heard.values[:, 0] - x[heard.row]
        self.x[rows] = x + 0.25 * heard.total(apart[:, None])[:, 0]
        return self.x[rows, None]

    def answer(self) -> Mapping[str, FloatArray]:
        return {"x": self.x}


class Averager(IterativeAgent):
    """The same, as one agent."""

    def __init__(self, name: str, peers: Sequence[str], start: float, waiting: Waiting) -> None:
        super().__init__(name, [Channel(peer) for peer in peers], waiting=waiting)
        self.x = start

    def first(self) -> Letters:
        return self.to_all(self.x)

    def compute(self, inbox: Inbox) -> Letters:
        total = 0.0
        for apart in inbox.stack()[:, 0] - self.x:  # one by one, as the rows add
            total += float(apart)
        self.x += 0.25 * total
        return self.to_all(self.x)


class MemberRows(AgentRows):
    """x <- (x + reply) / 2 where the reply is new; 2 numbers up, 1 down."""

    def __init__(self, at: IntArray) -> None:
        self.x = at.astype(float)
        self.residual = np.zeros(len(at))

    def first(self) -> None:
        return

    def compute(self, rows: IntArray, heard: Heard) -> FloatArray:
        new = rows[heard.fresh]
        self.x[new] = 0.5 * (self.x[new] + heard.values[heard.fresh, 0])
        return np.stack([self.x[rows], 2.0 * self.x[rows]], axis=1)

    def answer(self) -> Mapping[str, FloatArray]:
        return {"x": self.x}


class CentreRows(AgentRows):
    def __init__(self, _: IntArray) -> None:
        self.z = np.ones(1)
        self.residual = np.zeros(1)

    def first(self) -> FloatArray:
        return self.z[:, None]

    def compute(self, rows: IntArray, heard: Heard) -> FloatArray:
        self.z = heard.total()[:, 1] / 7.0
        return self.z[:, None]

    def answer(self) -> Mapping[str, FloatArray]:
        return {"z": self.z}


class Member(IterativeAgent):
    def __init__(self, name: str, start: float, waiting: Waiting) -> None:
        channels = [Channel("z", "state", 2, "out"), Channel("z", "state", 1, "in")]
        super().__init__(name, channels, waiting=waiting)
        self.x = start

    def first(self) -> Letters:
        return {}

    def compute(self, inbox: Inbox) -> Letters:
        if inbox.is_fresh("z"):
            self.x = 0.5 * (self.x + float(inbox.of("z")[0]))
        return self.to_all(np.array([self.x, 2.0 * self.x]))


class Centre(IterativeAgent):
    def __init__(self, members: Sequence[str], waiting: Waiting) -> None:
        channels = [Channel(m, "state", 1, "out") for m in members]
        channels += [Channel(m, "state", 2, "in") for m in members]
        super().__init__("z", channels, waiting=waiting)
        self.x = 1.0

    def first(self) -> Letters:
        return self.to_all(self.x)

    def compute(self, inbox: Inbox) -> Letters:
        total = 0.0
        for value in inbox.stack()[:, 1]:
            total += float(value)
        self.x = total / 7.0
        return self.to_all(self.x)


def group(agents: Callable[[], Sequence[IterativeAgent]], hosted: Sequence[str]) -> AgentGroup:
    """Return some agents as a controller."""

    class Made(AgentGroup):
        @classmethod
        def agents(cls, site: Any, *args: Any, **options: Any) -> tuple[str, ...]:
            return tuple(agent.name for agent in agents())

        @classmethod
        def build(cls, site: Any, hosted: Sequence[str], *args: Any, **options: Any) -> Any:
            made = {agent.name: agent for agent in agents()}
            return [made[name] for name in hosted]

    return Made(sample_site(), hosted)


def states(hosts: Sequence[RowController]) -> dict[str, float]:
    """Return the number of each agent by name."""
    found = {}
    for host in hosts:
        numbers = np.concatenate([next(iter(d.rows.answer().values())) for d in host.desks])
        found.update(zip(host.hosted, numbers.tolist(), strict=True))
    return found


def split(names: Sequence[str], mask: int) -> list[list[str]]:
    """Return the names in two parts, those of the bits of a number first."""
    parts = [[n for i, n in enumerate(names) if (mask >> i) & 1 == k] for k in (1, 0)]
    return [part for part in parts if part]


def assert_same_steps(
    team: Team,
    agents: Callable[[], Sequence[IterativeAgent]],
    waiting: Waiting,
    post: Post,
    mask: int,
) -> None:
    hosts = [RowController(team, part, waiting=waiting) for part in split(team.names, mask)]
    single = group(agents, team.names)
    rows, alone = MailLoop(hosts, post), MailLoop([single], post)
    for _ in range(30):
        rows.step()
        alone.step()
        assert states(hosts) == {agent.name: agent.x for agent in single.hosted}  # type: ignore[attr-defined]


@settings(max_examples=25)
@given(graphs(), st.sampled_from(POLICIES), posts, st.integers(0, 127))
def test_peers_do_what_iterative_agents_do(
    graph: Graph, waiting: Waiting, post: Post, mask: int
) -> None:
    """After every step, whatever the mail suffers and whoever hosts whom."""
    names = names_of(graph.n)
    source, target = graph.arcs

    def agents() -> list[Averager]:
        peers = [[names[j] for j in source[target == i]] for i in range(graph.n)]
        return [Averager(names[i], peers[i], i + 1.0, waiting) for i in range(graph.n)]

    team = Team.peers(names, graph, Kind(graph.n, 1, AveragerRows))
    assert_same_steps(team, agents, waiting, post, mask)


@settings(max_examples=25)
@given(st.integers(1, 6), st.sampled_from(POLICIES), posts, st.integers(0, 127))
def test_a_star_does_what_iterative_agents_do(
    n: int, waiting: Waiting, post: Post, mask: int
) -> None:
    names = names_of(n)

    def agents() -> list[IterativeAgent]:
        members: list[IterativeAgent] = [Member(names[i], float(i), waiting) for i in range(n)]
        return [*members, Centre(names, waiting)]

    team = Team.star((*names, "z"), Kind(n, 2, MemberRows), Kind(1, 1, CentreRows))
    assert_same_steps(team, agents, waiting, post, mask)


class QuietFrom(AgentRows):
    """Each agent is quiet from a round of its own on."""

    def __init__(self, at: IntArray, quiet_from: IntArray) -> None:
        self.quiet_from = quiet_from[at]
        self.rounds = np.zeros(len(at), dtype=np.int64)
        self.residual = np.ones(len(at))

    def first(self) -> FloatArray:
        return np.zeros((len(self.rounds), 1))

    def compute(self, rows: IntArray, heard: Heard) -> FloatArray:
        self.rounds[rows] += 1
        self.residual[rows] = np.where(self.rounds[rows] >= self.quiet_from[rows], 0.1, 10.0)
        return np.zeros((len(rows), 1))

    def answer(self) -> Mapping[str, FloatArray]:
        return {"rounds": self.rounds}


@settings(max_examples=40)
@given(
    graphs(),
    st.lists(st.integers(1, 12), min_size=7, max_size=7),
    st.sampled_from(POLICIES),
    posts,
    st.integers(0, 127),
)
def test_agents_stop_only_when_all_are_quiet(
    graph: Graph, quiet_from: list[int], waiting: Waiting, post: Post, mask: int
) -> None:
    """Nobody stops while somebody is not quiet; all stop soon after, and then nobody writes."""
    begin = np.array(quiet_from[: graph.n])
    kind = Kind(graph.n, 1, lambda at: QuietFrom(at, begin))
    team = Team.peers(names_of(graph.n), graph, kind)
    parts = split(team.names, mask)
    hosts = [RowController(team, part, waiting=waiting, tolerance=1.0) for part in parts]
    loop = MailLoop(hosts, post)
    while not all(host.stopped for host in hosts):
        loop.step()
        assert loop.steps < 2000
        stopped = [stop for host in hosts for stop in host.desks[0].stopped]
        rounds = states(hosts)
        if any(stopped):
            assert all(rounds[name] >= r for name, r in zip(team.names, begin, strict=True))
    if isinstance(waiting, Barrier):
        # Counts rise by 1 a round once all are quiet, and a stop passes one edge a round.
        assert max(rounds.values()) <= begin.max() + 2 * graph.diameter + 2
    written = [sum(len(result.mail) for result in loop.step()) for _ in range(200)]
    assert written[-1] == 0


def test_without_a_tolerance_agents_never_stop() -> None:
    graph = Graph.ring(4)
    kind = Kind(4, 1, lambda at: QuietFrom(at, np.ones(4, dtype=np.int64)))
    host = RowController(Team.peers(names_of(4), graph, kind))
    loop = MailLoop([host])
    for _ in range(50):
        loop.step()
    assert host.rounds == 49
    assert not host.stopped


def test_one_agent_is_a_team() -> None:
    kind = Kind(1, 1, lambda at: QuietFrom(at, np.array([3])))
    host = RowController(Team.peers(["a"], Graph(1, np.empty((0, 2))), kind), tolerance=1.0)
    loop = MailLoop([host])
    for _ in range(10):
        loop.step()
    assert host.stopped
    assert host.rounds == 3
    assert host.links_in == host.links_out == ()


def test_mail_of_a_step_is_one_message_per_link() -> None:
    host = RowController(Team.peers(names_of(3), Graph.ring(3), Kind(3, 1, AveragerRows)))
    mail = host.step(0.0, {}, Mail.empty()).mail
    sent = [host.links_out[k].key for k in mail.link]
    assert sorted(sent) == sorted(
        f"a0{i}>a0{j}:state" for i in range(3) for j in range(3) if i != j
    )
    assert mail.round.tolist() == [0] * 6
    # The number, and how many rounds in a row all are known to be quiet.
    assert mail.values.reshape(-1, 2)[:, 1].tolist() == [0.0] * 6
    assert {link.width for link in host.links_out} == {2}
    assert {link.counters for link in host.links_in} == {1}


def test_agents_that_no_team_has_are_refused() -> None:
    team = Team.peers(names_of(3), Graph.ring(3), Kind(3, 1, AveragerRows))
    with pytest.raises(ControllerError, match="a07"):
        RowController(team, ["a00", "a07"])


def test_a_team_in_which_all_wait_to_be_asked_is_refused_by_the_plain_loop() -> None:
    team = Team.peers(names_of(3), Graph.ring(3), Kind(3, 1, MemberRows))
    with pytest.raises(ControllerError, match="no agent can compute"):
        plain_rows(team, 1)
