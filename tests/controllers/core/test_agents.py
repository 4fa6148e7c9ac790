"""Iterative agents: the hosted run reproduces the plain loop, whatever links and partition do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.core.agents import AgentGroup, AgentHost, Channel, IterativeAgent, Letters
from controllers.core.errors import ControllerError
from controllers.core.mail import Mail
from controllers.core.mail_loop import MailLoop, Post, plain_loop
from controllers.core.ports import Port
from controllers.core.sample_site import sample_site
from controllers.core.waiting import Asynchronous, Barrier, Inbox, Waiting

SITE = sample_site()
Graph = Mapping[str, tuple[str, ...]]


class Averager(IterativeAgent):
    """x_i <- x_i + step * sum_j (x_j - x_i): converges to the mean for step < 1/d_max."""

    def __init__(self, name: str, graph: Graph, start: float, step: float, **kw: Any) -> None:
        super().__init__(name, [Channel(peer) for peer in graph[name]], **kw)
        self.x, self.gain, self.history = start, step, [start]

    def first(self) -> Letters:
        return self.to_all(self.x)

    def compute(self, inbox: Inbox) -> Letters:
        self.x += self.gain * float((inbox.stack() - self.x).sum())
        self.history.append(self.x)
        return self.to_all(self.x)


class Generator(IterativeAgent):
    """Sharing ADMM, local step: min q x^2/2 + rho/2 (x - x_k + gap + u)^2 within limits."""

    def __init__(self, name: str, q: float, limit: float, rho: float, **kw: Any) -> None:
        channels = [Channel("market", "x", 1, "out"), Channel("market", "price", 2, "in")]
        super().__init__(name, channels, **kw)
        self.q, self.limit, self.rho, self.x, self.history = q, limit, rho, 0.0, [0.0]

    def first(self) -> Letters:
        return {}

    def compute(self, inbox: Inbox) -> Letters:
        gap, u = inbox.of("market", "price")
        want = self.rho * (self.x - gap - u) / (self.q + self.rho)
        self.x = float(np.clip(want, -self.limit, self.limit))
        self.history.append(self.x)
        return self.to_all(self.x, "x")


class Market(IterativeAgent):
    """The coordinator, an agent like the others: gap = mean(x) - d/n and its running sum u."""

    def __init__(self, members: Sequence[str], demand: float, **kw: Any) -> None:
        channels = [Channel(m, "x", 1, "in") for m in members]
        channels += [Channel(m, "price", 2, "out") for m in members]
        super().__init__("market", channels, **kw)
        self.share, self.u, self.history = demand / len(members), 0.0, [0.0]

    def first(self) -> Letters:
        return self.to_all([0.0, 0.0], "price")

    def compute(self, inbox: Inbox) -> Letters:
        gap = float(inbox.stack("x").mean()) - self.share
        self.u += gap
        self.history.append(self.u)
        return self.to_all([gap, self.u], "price")


def hosts_of(make: Any, names: Sequence[str], parts: Sequence[int]) -> list[AgentGroup]:
    """Host the agents named in instances: agent i in instance ``parts[i]``."""

    class Group(AgentGroup):
        @classmethod
        def agents(cls, site: Any, **options: Any) -> tuple[str, ...]:
            return tuple(names)

        @classmethod
        def build(cls, site: Any, hosted: Sequence[str], **options: Any) -> list[IterativeAgent]:
            return [make(name) for name in hosted]

    shares = [[n for n, p in zip(names, parts, strict=True) if p == k] for k in sorted(set(parts))]
    return [Group(SITE, share) for share in shares]


def run(hosts: Sequence[AgentGroup], post: Post, steps: int) -> dict[str, Any]:
    loop = MailLoop(hosts, post)
    for _ in range(steps):
        loop.step()
    return {agent.name: agent for host in hosts for agent in host.hosted}


@st.composite
def networks(draw: st.DrawFn) -> tuple[Graph, dict[str, float], list[int]]:
    """A connected graph, start values and a partition."""
    n = draw(st.integers(2, 6))
    edges = {(draw(st.integers(0, i - 1)), i) for i in range(1, n)}
    edges |= set(draw(st.lists(st.sampled_from([(i, j) for j in range(n) for i in range(j)]))))
    graph = {
        f"a{i}": tuple(f"a{j}" for j in range(n) if (i, j) in edges or (j, i) in edges)
        for i in range(n)
    }
    start = {name: draw(st.floats(-10, 10)) for name in graph}
    return graph, start, [draw(st.integers(0, 2)) for _ in graph]


posts = st.builds(
    Post,
    loss=st.floats(0, 0.5),
    max_delay_steps=st.integers(0, 3),
    duplication=st.sampled_from([0.0, 0.3]),
    seed=st.integers(0, 999),
)


@settings(max_examples=40, deadline=None)
@given(networks(), posts, st.integers(1, 3))
def test_barrier_over_bad_links_is_the_plain_loop_bit_for_bit(
    network: tuple[Graph, dict[str, float], list[int]], post: Post, resend_after: int
) -> None:
    graph, start, parts = network

    def make(name: str) -> Averager:
        return Averager(
            name, graph, start[name], 0.9 / len(graph), waiting=Barrier(resend_after=resend_after)
        )

    plain = [make(name) for name in graph]
    plain_loop(plain, 40)
    hosted = run(hosts_of(make, list(graph), parts), post, 40)
    for agent in plain:
        mine = hosted[agent.name].history
        assert mine == agent.history[: len(mine)]
    rounds = [len(a.history) - 1 for a in hosted.values()]
    if not post.loss and not post.max_delay_steps:
        assert rounds == [39] * len(rounds)  # one step opens, every other one computes
    # Half of the mail lost and 1-4 steps of delay each way still leave a round in 40 steps.
    assert min(rounds) >= 1


def test_consensus_reaches_the_mean_over_lossy_delayed_links() -> None:
    """Mean of 1..5 on a ring of 5; step 0.4 < 1/d_max = 0.5; rate |1 - 0.4(2 - 2cos 72)| = 0.447
    and |1 - 0.4(2 - 2cos 144)| = 0.447, so 40 rounds leave 4 * 0.447^40 < 1e-12."""
    names = [f"a{i}" for i in range(5)]
    graph = {names[i]: (names[i - 1], names[(i + 1) % 5]) for i in range(5)}
    hosts = hosts_of(
        lambda n: Averager(n, graph, 1.0 + names.index(n), 0.4), names, [0, 1, 0, 1, 2]
    )
    agents = run(hosts, Post(loss=0.3, max_delay_steps=2, seed=4), 600)
    assert min(len(a.history) for a in agents.values()) > 40
    assert [a.x for a in agents.values()] == pytest.approx([3.0] * 5, abs=1e-12)


Q = {"g1": 1.0, "g2": 2.0, "g3": 4.0, "g4": 5.0}
DEMAND, LIMIT = 10.0, 4.0
# By hand: unlimited x = DEMAND (1/q) / 1.95, g1 would give 5.13 > 4; so g1 = 4 and the other
# three share 6 in proportion 1/2 : 1/4 : 1/5 (sum 0.95).
DISPATCH = {"g1": 4.0, "g2": 6 / 0.95 / 2, "g3": 6 / 0.95 / 4, "g4": 6 / 0.95 / 5}


def dispatch(name: str, waiting: Waiting) -> IterativeAgent:
    if name == "market":
        return Market(list(Q), DEMAND, waiting=waiting)
    return Generator(name, Q[name], LIMIT, 1.0, waiting=waiting)


@pytest.mark.parametrize("parts", [[0, 0, 0, 0, 0], [0, 1, 0, 1, 1], [0, 1, 2, 3, 4]])
@pytest.mark.parametrize("post", [Post(), Post(0.3, 3, 0.2, seed=2), Post(0.5, 1, seed=5)])
def test_sharing_admm_with_barrier_repeats_the_plain_loop(parts: list[int], post: Post) -> None:
    names = ["market", *Q]
    plain = [dispatch(n, Barrier()) for n in names]
    plain_loop(plain, 200)
    hosted = run(hosts_of(lambda n: dispatch(n, Barrier()), names, parts), post, 800)
    for agent in plain:
        mine = hosted[agent.name].history
        shared = min(len(mine), len(agent.history))
        assert shared > 50
        assert mine[:shared] == agent.history[:shared]
    assert {n: hosted[n].x for n in Q} == pytest.approx(DISPATCH, abs=1e-6)


@settings(max_examples=10, deadline=None)
@given(
    st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    st.sampled_from([None, 20]),
    st.integers(0, 99),
    st.lists(st.integers(0, 2), min_size=5, max_size=5),
)
def test_asynchronous_sharing_admm_ends_at_the_same_dispatch(
    fraction: float, max_age: int | None, seed: int, parts: list[int]
) -> None:
    """Free-running to full fraction; request and reply must not be answered or used twice, which
    `Polite*` see to, so the fixed point is the one of the barrier."""
    waiting = Asynchronous(fraction, max_age)

    class PoliteGenerator(Generator):
        def compute(self, inbox: Inbox) -> Letters:
            if not inbox.is_fresh("market", "price"):
                return self.to_all(self.x, "x")
            return super().compute(inbox)

    def make(name: str) -> IterativeAgent:
        if name == "market":
            return SlowMarket(list(Q), DEMAND, waiting=waiting)
        return PoliteGenerator(name, Q[name], LIMIT, 1.0, waiting=waiting)

    post = Post(loss=0.3, max_delay_steps=2, seed=seed)
    hosted = run(hosts_of(make, ["market", *Q], parts), post, 1500)
    assert {n: hosted[n].x for n in Q} == pytest.approx(DISPATCH, abs=1e-6)


GAIN = 0.5


class SlowMarket(Market):
    """Integrates only when somebody's answer is new; with a gain that stale mail tolerates."""

    def compute(self, inbox: Inbox) -> Letters:
        gap = float(inbox.stack("x").mean()) - self.share
        fresh = np.mean([inbox.is_fresh(m, "x") for m in inbox.sources("x")])
        self.u += GAIN * float(fresh) * gap
        return self.to_all([gap, self.u], "price")


class Recorder(IterativeAgent):
    """Notes what it is given."""

    def __init__(self, name: str, peers: Sequence[str], **kw: Any) -> None:
        super().__init__(name, [Channel(peer) for peer in peers], **kw)
        self.fresh: list[list[bool]] = []
        self.measured: list[list[float]] = []

    def first(self) -> Letters:
        return self.to_all(0.0)

    def observe(self, time_s: float, measured: Mapping[str, Any]) -> None:
        self.measured.append(measured["v_pu"].tolist())

    def compute(self, inbox: Inbox) -> Letters:
        self.fresh.append([inbox.is_fresh(p) for p in inbox.sources()])
        return self.to_all(float(len(self.fresh)))

    def actuate(self) -> Mapping[str, Any]:
        return {"q_set_kvar": np.array([float(len(self.fresh))])}


def recorder(name: str, peers: Sequence[str] = ("p1", "p2"), **kw: Any) -> Recorder:
    return Recorder(
        name,
        peers,
        inputs=(Port("v_pu", "pu", (f"{name}.1", "shared.1"), initial=1.0),),
        outputs=(Port("q_set_kvar", "kvar", (name,)),),
        **kw,
    )


def mail(*messages: tuple[int, int, float]) -> Mail:
    links, numbers, values = zip(*messages, strict=True)
    return Mail(np.array(links), np.array(numbers), np.array(values, float))


def host(waiting: Waiting) -> AgentGroup:
    return hosts_of(lambda n: recorder(n, waiting=waiting), ["me"], [0])[0]


V = {"v_pu": np.array([1.0, 1.0])}


def test_freshness_is_the_consumers_and_max_age_blocks() -> None:
    """fraction 1/2 of two peers = one fresh peer; each message serves at most two rounds."""
    group = host(Asynchronous(fraction=0.5, max_age=2))
    inboxes = [
        Mail.empty(),  # opens
        mail((0, 0, 1.0)),  # p2 not heard yet: waits
        mail((1, 0, 1.0)),  # both fresh: computes
        mail((0, 1, 1.0)),  # p1 fresh, p2 used once: computes
        mail((0, 2, 1.0)),  # p2 used twice: waits
        mail((1, 0, 1.0)),  # p2's old message again: still waits
        mail((1, 1, 1.0)),  # both fresh
        Mail.empty(),  # nobody fresh: waits
    ]
    rounds = []
    for k, inbox in enumerate(inboxes):
        group.step(float(k), V, inbox)
        rounds.append(group.desks[0].rounds)
    assert rounds == [0, 0, 1, 2, 2, 2, 3, 3]
    assert group.hosted[0].fresh == [[True, True], [True, False], [True, True]]  # type: ignore[attr-defined]


def test_barrier_buffers_the_round_ahead_and_repeats_two_messages() -> None:
    group = host(Barrier(resend_after=2))
    sent = [group.step(0.0, V, Mail.empty()).mail]
    sent.append(group.step(1.0, V, mail((0, 1, 1.0), (0, 0, 0.0))).mail)  # p1 ahead; silent
    sent.append(group.step(2.0, V, mail((1, 0, 0.0))).mail)  # round 1
    sent.append(group.step(3.0, V, Mail.empty()).mail)  # waits for p2, silent
    sent.append(group.step(4.0, V, Mail.empty()).mail)  # repeats: p1 (at 1) has 0, p2 may not
    sent.append(group.step(5.0, V, mail((1, 1, 0.0))).mail)  # round 2, p1's from the buffer
    said = [list(zip(m.link.tolist(), m.round.tolist(), strict=True)) for m in sent]
    assert said == [
        [(0, 0), (1, 0)],
        [],
        [(0, 1), (1, 1)],
        [],
        [(0, 1), (1, 0), (1, 1)],
        [(0, 2), (1, 2)],
    ]


def test_group_shares_measurements_and_holds_the_last_finite_one() -> None:
    pair = hosts_of(lambda n: recorder(n, [p for p in ("a", "b") if p != n]), ["a", "b"], [0, 0])[0]
    assert pair.inputs[0].labels == ("a.1", "shared.1", "b.1")
    assert pair.outputs[0].labels == ("a", "b")
    pair.step(0.0, {"v_pu": np.array([np.nan, 1.02, 1.03])}, Mail.empty())
    done = pair.step(1.0, {"v_pu": np.array([1.01, np.nan, np.inf])}, Mail.empty())
    assert pair.hosted[0].measured == [[1.0, 1.02], [1.01, 1.02]]  # type: ignore[attr-defined]
    assert pair.hosted[1].measured == [[1.03, 1.02], [1.03, 1.02]]  # type: ignore[attr-defined]
    assert done.outputs["q_set_kvar"].tolist() == [0.0, 0.0]


class OneWay(IterativeAgent):
    def first(self) -> Letters:
        return {}

    def compute(self, inbox: Inbox) -> Letters:
        return {}


def test_mistakes_are_named() -> None:
    with pytest.raises(ControllerError, match=r"agent 'g1': mail with 'market' goes one way only"):
        OneWay("g1", [Channel("market", direction="in")])
    with pytest.raises(ControllerError, match="its own peer"):
        recorder("a", ["a"])
    with pytest.raises(ControllerError, match="declared twice"):
        recorder("a", ["b", "b"])
    with pytest.raises(ControllerError, match=r"fraction is 1\.5"):
        Asynchronous(fraction=1.5)
    with pytest.raises(ControllerError, match="no agent can compute"):
        plain_loop([Generator("g1", 1.0, 1.0, 1.0)], 1)

    class Wide(Recorder):
        def first(self) -> Letters:
            return self.to_all([1.0, 2.0])

    class Lost(Recorder):
        def first(self) -> Letters:
            return {("p1", "stat"): np.zeros(1)}

    for kind, text in ((Wide, "has 2 numbers; expected 1"), (Lost, "did you mean 'p1:state'")):
        group = hosts_of(
            lambda n, kind=kind: kind(n, ["p1"], inputs=recorder(n).inputs), ["me"], [0]
        )[0]
        with pytest.raises(ControllerError, match=text):
            group.step(0.0, V, Mail.empty())
    with pytest.raises(ControllerError, match="set by another agent too"):
        hosts_of(
            lambda n: Recorder(n, ["x"], outputs=(Port("q_set_kvar", "kvar", ("one",)),)),
            ["a", "b"],
            [0, 0],
        )
    with pytest.raises(ControllerError, match=r"no agent is called 'aa'.*did you mean 'a'"):
        type(hosts_of(recorder, ["a", "b"], [0, 0])[0])(SITE, ["aa"])


class Turns(IterativeAgent):
    """Two rounds per iteration, with messages of their own kind and width."""

    def __init__(self, name: str, peer: str, opens: bool, **kw: Any) -> None:
        channels = [Channel(peer, "wide", 3), Channel(peer, "narrow")]
        super().__init__(name, channels, turns=("wide", "narrow"), **kw)
        self.peer, self.opens, self.history = peer, opens, [0.1 + opens]

    def first(self) -> Letters:
        return {(self.peer, "wide"): np.full(3, self.history[0])}

    def compute(self, inbox: Inbox) -> Letters:
        wide = len(self.history) % 2 == 1
        heard = inbox.of(self.peer, "wide" if wide else "narrow")
        self.history.append(0.7 * self.history[-1] + 0.3 * float(heard.sum()) / len(heard))
        width = 1 if wide else 3
        return {(self.peer, "narrow" if wide else "wide"): np.full(width, self.history[-1])}


def turns() -> list[Turns]:
    return [Turns("a", "b", True), Turns("b", "a", False)]


@given(st.integers(0, 200), st.floats(0.0, 0.5), st.integers(0, 5))
@settings(max_examples=20)
def test_agents_that_await_kinds_in_turn_repeat_the_plain_loop(
    seed: int, loss: float, delay: int
) -> None:
    plain, far = turns(), turns()
    plain_loop(plain, 12)
    loop = MailLoop([AgentHost([agent]) for agent in far], Post(loss, delay, 0.2, seed))
    for _ in range(3000):
        loop.step()
        if all(len(agent.history) > 12 for agent in far):
            break
    assert [agent.history[:13] for agent in far] == [agent.history for agent in plain]


def test_turns_that_cannot_come_are_refused() -> None:
    with pytest.raises(ControllerError, match=r"waits for a kind.*one of state"):
        OneWay("a", [Channel("b")], turns=("state", "states"))
    channels = [Channel("b"), Channel("b", "x")]
    with pytest.raises(ControllerError, match="waits by turns"):
        OneWay("a", channels, turns=("state", "x"), waiting=Asynchronous())
