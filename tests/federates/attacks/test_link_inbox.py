"""Attacks on mail at work: what each action does, and the laws that hold for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.core.mail import FloatArray, IntArray, Link, Mail
from federates.attacks.link.action import Batch, LinkDraws, LinkTable
from federates.attacks.link.inbox import AttackedInbox
from federates.attacks.link.layer import resolve_link_steps
from federates.attacks.link.memory import ReplayMail
from federates.core.links import Bundle, LinkInbox, LinkQuality, Outbox
from federates.core.wiring import Feed
from federates.scenario.attack_schema import AttackSpec

S = 1_000_000_000
Row = tuple[float, str, float, float, str]


class Truth:
    """Keeps what a `TruthWriter` would write, with words for numbers."""

    def __init__(self, links_in: Sequence[Link], steps: Sequence[str], rows: list[Row]) -> None:
        self._labels = [f"{link.key}[{i}]" for link in links_in for i in range(link.width)]
        self.count = 0
        self._steps = steps
        self._rows = rows

    def add(
        self,
        time_s: float,
        channel: int,
        element: IntArray,
        true: FloatArray,
        seen: FloatArray,
        step: int,
    ) -> None:
        assert channel == 0
        assert element.shape == true.shape == seen.shape
        for i, x, y in zip(element, true, seen, strict=True):
            self._rows.append((time_s, self._labels[i], float(x), float(y), self._steps[step]))

    def close(self) -> None:
        pass


def _attack(*steps: dict[str, Any], seed: int = 0) -> AttackSpec:
    """Return an attack of link steps s0, s1, ... on all links from the start of the run."""
    common = {"layer": "link", "trigger": {"at_s": 0.0}, "target": {"links": ["*"]}}
    listed = [{"id": f"s{i}"} | common | step for i, step in enumerate(steps)]
    return AttackSpec.model_validate({"id": "test", "seed": seed, "steps": listed})


def _inbox(
    spec: AttackSpec,
    links: Sequence[Link],
    rows: list[Row] | None = None,
    quality: Mapping[str, LinkQuality] | None = None,
    told: list[tuple[str, float, str]] | None = None,
) -> AttackedInbox:
    plans, problems = resolve_link_steps(spec, {"me": links})
    assert problems == []
    plan = replace(plans["me"], reads=(Feed("director", "begin", 1, None, None),))
    truth = Truth(links, plan.schedule.ids, [] if rows is None else rows)
    events = [] if told is None else told
    return AttackedInbox(links, quality or {}, 3, plan, truth, lambda *e: events.append(e))


def _mail(numbers: Mapping[int, Sequence[float]], number: int = 0) -> Mail:
    """Return one message on each link: link index to its numbers."""
    values = np.array([x for each in numbers.values() for x in each], dtype=np.float64)
    return Mail(np.array([*numbers]), np.full(len(numbers), number, dtype=np.int64), values)


def _seen(inbox: LinkInbox, sent: Sequence[Mapping[int, Sequence[float]]]) -> list[list[float]]:
    """Send messages at 0 s, 1 s, ...; return what was delivered at 1 s, 2 s, ..."""
    out = []
    for k, numbers in enumerate(sent):
        inbox.accept(Bundle(k * S, _mail(numbers, k)))
        out.append(inbox.deliver((k + 1) * S).values.tolist())
    return out


ONE = [Link("a", "b")]
RISING = [{0: [float(k)]} for k in range(6)]  # at k seconds the number k


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ({"kind": "tamper", "factor": 2.0, "bias": 1.0}, [1, 3, 5, 7, 9, 11]),
        ({"kind": "tamper", "value": -4.0}, [-4] * 6),
        ({"kind": "impersonate", "value": 0.5}, [0.5] * 6),
        ({"kind": "replay", "lag_s": 2.0}, [0, 1, 0, 1, 2, 3]),
        ({"kind": "replay", "lag_s": 2.5}, [0, 1, 2, 0, 1, 2]),
        ({"kind": "replay", "lag_s": 1e6}, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_numbers_after_an_action(action: dict[str, Any], expected: list[float]) -> None:
    seen = _seen(_inbox(_attack({"action": action}), ONE), RISING)
    assert seen == [[x] for x in expected]


def test_a_step_acts_on_what_is_sent_in_its_window() -> None:
    step = {"trigger": {"at_s": 2.0}, "duration_s": 2.0, "action": {"kind": "tamper", "value": 9.0}}
    assert _seen(_inbox(_attack(step), ONE), RISING) == [[0], [1], [9], [9], [4], [5]]


def test_what_a_step_leaves_stays_in_force_after_its_window() -> None:
    step = {
        "trigger": {"at_s": 2.0},
        "duration_s": 1.0,
        "on_end": "leave",
        "action": {"kind": "tamper", "bias": 10.0},
    }
    assert _seen(_inbox(_attack(step), ONE), RISING) == [[0], [1], [12], [13], [14], [15]]


def test_replay_plays_what_was_heard_before_the_step_began() -> None:
    step = {"trigger": {"at_s": 4.0}, "action": {"kind": "replay", "lag_s": 3.0}}
    assert _seen(_inbox(_attack(step), ONE), RISING) == [[0], [1], [2], [3], [1], [2]]


def test_replay_keeps_no_more_than_its_lag() -> None:
    table = LinkTable(tuple(ONE))
    effect = ReplayMail(kind="replay", lag_s=5.0).begin(table, ["a>b:state"], {})
    for k in range(500):
        batch = Batch(_mail({0: [float(k)]}), k * S, table)
        effect.observe(batch)
    assert len(effect._recent) == 5  # the messages of 495 s to 499 s
    effect.act(batch, np.array([0]), LinkDraws.of(0, "s0", table))
    assert batch.values.tolist() == [494.0]


def test_drop_delivers_nothing_and_counts_it_as_lost() -> None:
    inbox = _inbox(_attack({"action": {"kind": "drop"}}), ONE)
    assert _seen(inbox, RISING) == [[]] * 6
    assert (inbox.delivered, inbox.lost) == (0, 6)


def test_delay_adds_to_the_latency_of_the_link() -> None:
    quality = {"a>b:state": LinkQuality(latency_s=0.5)}
    step = {"action": {"kind": "delay", "delay_s": 1.5}}
    inbox = _inbox(_attack(step), ONE, quality=quality)
    inbox.accept(Bundle(S, _mail({0: [7.0]})))
    assert len(inbox.deliver(3 * S - 1)) == 0
    assert inbox.deliver(3 * S).values.tolist() == [7.0]


def test_impersonation_writes_the_newest_numbers_of_the_other_sender() -> None:
    links = [Link("a", "b", width=2), Link("c", "b", width=2), Link("c", "b", "other", 2)]
    step = {"target": {"links": ["a>b"]}, "action": {"kind": "impersonate", "agent": "c"}}
    sent = [
        {0: [1.0, 2.0]},  # c has not written yet: untouched
        {0: [1.0, 2.0], 1: [3.0, 4.0], 2: [5.0, 6.0]},  # of the same instant
        {0: [1.0, 2.0]},  # c is silent: its last word
    ]
    assert _seen(_inbox(_attack(step), links), sent) == [[1, 2], [3, 4, 3, 4, 5, 6], [3, 4]]


def test_the_order_in_which_federates_get_through_is_nothing_to_an_impersonation() -> None:
    links = [Link("a", "b"), Link("c", "b")]
    step = {"target": {"links": ["a>*"]}, "action": {"kind": "impersonate", "agent": "c"}}
    for order in ((0, 1), (1, 0)):
        inbox = _inbox(_attack(step), links)
        for i in order:
            inbox.accept(Bundle(0, _mail({i: [float(i + 1)]})))
        assert inbox.deliver(S).values.tolist() == [2.0, 2.0]


def test_a_partition_leaves_the_talk_on_each_side_alone() -> None:
    links = [Link(x, y) for x in "abcd" for y in "abcd" if x != y]
    step = {"target": {"agents": ["a", "b"]}, "action": {"kind": "partition"}}
    inbox = _inbox(_attack(step), links)
    inbox.accept(Bundle(0, _mail({i: [0.0] for i in range(len(links))})))
    passed = {links[i].key[:3] for i in inbox.deliver(S).link}
    assert passed == {"a>b", "b>a", "c>d", "d>c"}


def test_jamming_loses_its_share_and_delays_the_rest_uniformly() -> None:
    links = [Link(f"a{i}", "b") for i in range(4000)]
    step = {"action": {"kind": "jam", "loss": 0.25, "delay_s": 4.0}}
    inbox = _inbox(_attack(step), links)
    inbox.accept(Bundle(0, _mail({i: [1.0] for i in range(4000)})))
    shares = []
    for t_s in (0, 1, 2, 3, 4):
        inbox.deliver(t_s * S)
        shares.append(inbox.delivered / 4000)
    # 3/4 pass, evenly over 4 s; standard deviation of a share 0.008 at most; four of them.
    assert shares == pytest.approx([0.0, 0.1875, 0.375, 0.5625, 0.75], abs=0.032)
    assert inbox.delivered + inbox.lost == 4000


def test_probability_is_drawn_for_each_message_by_itself() -> None:
    links = [Link(f"a{i}", "b") for i in range(200)]
    rows: list[Row] = []
    inbox = _inbox(_attack({"action": {"kind": "drop"}, "probability": 0.3}), links, rows)
    kept = np.zeros((100, 200), dtype=bool)
    for k in range(100):
        inbox.accept(Bundle(k * S, _mail({i: [1.0] for i in range(200)})))
        kept[k, inbox.deliver((k + 1) * S).link] = True
    # Binomial with n = 20000, p = 0.3: standard deviation 0.0032 of the rate; four of them.
    assert 1 - kept.mean() == pytest.approx(0.3, abs=0.013)
    assert len(rows) == inbox.lost == (~kept).sum()
    # Neither by link nor by time alone: of 200 or 100 draws, four deviations and some room.
    assert np.abs(kept.mean(axis=0) - 0.7).max() < 0.2
    assert np.abs(kept.mean(axis=1) - 0.7).max() < 0.15


def test_noise_is_drawn_for_each_number() -> None:
    links = [Link(f"a{i}", "b", width=2) for i in range(3000)]
    inbox = _inbox(_attack({"action": {"kind": "tamper", "value": 1.0, "sigma": 0.1}}), links)
    inbox.accept(Bundle(0, _mail({i: [5.0, 6.0] for i in range(3000)})))
    error = inbox.deliver(S).values.reshape(-1, 2) - 1.0
    # Standard deviation of a sample deviation: 0.1 / sqrt(6000) = 0.0013; four of them.
    assert error.std(axis=0) == pytest.approx([0.1, 0.1], abs=0.0053)
    assert np.abs(np.corrcoef(error.T)[0, 1]) < 4 / np.sqrt(3000)


def test_another_seed_or_another_step_meets_other_messages() -> None:
    links = [Link(f"a{i}", "b") for i in range(64)]
    drop = {"action": {"kind": "drop"}, "probability": 0.5}

    def kept(spec: AttackSpec) -> list[int]:
        inbox = _inbox(spec, links)
        inbox.accept(Bundle(0, _mail({i: [1.0] for i in range(64)})))
        found: list[int] = inbox.deliver(S).link.tolist()
        return found

    first = kept(_attack(drop, seed=1))
    assert kept(_attack(drop, seed=1)) == first
    assert kept(_attack(drop, seed=2)) != first
    assert kept(_attack(drop | {"id": "other"}, seed=1)) != first


def test_steps_act_in_their_order_and_each_is_in_the_truth() -> None:
    links = [Link("a", "b", width=2), Link("c", "b")]
    rows: list[Row] = []
    spec = _attack(
        {"target": {"links": ["a>*"]}, "action": {"kind": "tamper", "bias": 1.0}},
        {"action": {"kind": "tamper", "factor": 10.0}},
        {"target": {"links": ["c>*"]}, "action": {"kind": "drop"}},
        {"action": {"kind": "tamper", "value": 0.0}, "trigger": {"at_s": 50.0}},
    )
    assert _seen(_inbox(spec, links, rows), [{0: [1.0, 2.0], 1: [3.0]}]) == [[20.0, 30.0]]
    assert repr(rows) == repr(
        [
            (0.0, "a>b:state[0]", 1.0, 20.0, "s0"),
            (0.0, "a>b:state[1]", 2.0, 30.0, "s0"),
            (0.0, "a>b:state[0]", 1.0, 20.0, "s1"),
            (0.0, "a>b:state[1]", 2.0, 30.0, "s1"),
            (0.0, "c>b:state[0]", 3.0, float("nan"), "s1"),
            (0.0, "c>b:state[0]", 3.0, float("nan"), "s2"),
        ]
    )


def test_what_an_earlier_step_dropped_no_later_step_touches() -> None:
    rows: list[Row] = []
    spec = _attack({"action": {"kind": "drop"}}, {"action": {"kind": "tamper", "bias": 1.0}})
    assert _seen(_inbox(spec, ONE, rows), RISING[:2]) == [[], []]
    assert [row[-1] for row in rows] == ["s0", "s0"]


def test_a_jam_that_lets_a_message_pass_at_once_did_not_touch_it() -> None:
    rows: list[Row] = []
    spec = _attack({"action": {"kind": "jam", "loss": 0.0}})
    assert _seen(_inbox(spec, ONE, rows), RISING) == [[k] for k in range(6)]
    assert rows == []


def test_directed_steps_begin_when_the_director_says_so() -> None:
    wait = {"when": {"signal": "feeder.v_pu", "above": 1.05}}
    tamper = {"kind": "tamper", "value": -1.0}
    spec = _attack({"trigger": wait, "duration_s": 2.0, "action": tamper})
    told: list[tuple[str, float, str]] = []
    inbox = _inbox(spec, ONE, told=told)
    seen = []
    for k in range(6):
        inbox.accept(Bundle(k * S, _mail({0: [float(k)]}, k)))
        # The director decided at 2.5 s that the step begins then.
        begins_s = np.array([np.nan if k < 2 else 2.5])
        inbox.read(lambda *_, begins_s=begins_s: begins_s, (k + 1) * S)
        seen += inbox.deliver((k + 1) * S).values.tolist()
    assert seen == [0, 1, 2, -1, -1, 5]
    assert told == [
        ("attack_began", 2.5, "s0"),
        ("attack_ended", 4.5, "s0"),
    ]


def test_begin_and_end_are_told_once_at_their_own_times() -> None:
    drop = {"action": {"kind": "drop"}}
    spec = _attack(
        drop | {"trigger": {"at_s": 0.1}, "duration_s": 0.2},
        drop | {"trigger": {"after": "s0", "delay_s": 4.0}},
        drop | {"trigger": {"at_s": 2.0}, "duration_s": 1.0, "on_end": "leave"},
    )
    told: list[tuple[str, float, str]] = []
    inbox, at = _inbox(spec, ONE, told=told), {}
    for k in range(7):
        told.clear()
        inbox.read(lambda *_: None, k * S)
        at[k] = list(told)
    assert {k: events for k, events in at.items() if events} == {
        # Both ends of a window lie between two steps of the receiver.
        1: [("attack_began", 0.1, "s0"), ("attack_ended", 0.3, "s0")],
        # What a step leaves behind has no end, and a step without a duration has none.
        2: [("attack_began", 2.0, "s2")],
        5: [("attack_began", 4.3, "s1")],
    }


AGENTS = ("a", "b", "c", "d")
NETWORK = [Link(x, y) for x in AGENTS for y in AGENTS if x != y]
NETWORK += [Link(x, y, "plan", 3) for x, y in ("ab", "ba", "bd")]

ACTIONS: list[dict[str, Any]] = [
    {"action": {"kind": "drop"}},
    {"action": {"kind": "delay", "delay_s": 1.7}},
    {"action": {"kind": "jam", "loss": 0.4, "delay_s": 2.5}},
    {"action": {"kind": "tamper", "factor": -0.5, "bias": 0.1, "sigma": 0.2}},
    {"action": {"kind": "replay", "lag_s": 1.5}},
    {"action": {"kind": "impersonate", "value": 3.0}},
    {
        "action": {"kind": "impersonate", "agent": "c"},
        "target": {"links": ["[ab]>d:state", "d>[ab]:state"]},
    },
    {"action": {"kind": "partition"}, "target": {"agents": ["*"], "count": 2}},
]
# Their magnitude is zero, or they come too late, or never.
NOTHINGS: list[dict[str, Any]] = [
    {"action": {"kind": "tamper"}},
    {"action": {"kind": "tamper", "factor": 1.0, "bias": 0.0, "sigma": 0.0}},
    {"action": {"kind": "jam", "loss": 0.0, "delay_s": 0.0}},
    {"action": {"kind": "drop"}, "probability": 0.0},
    {"action": {"kind": "drop"}, "trigger": {"at_s": 1000.0}},
    {"action": {"kind": "replay", "lag_s": 1000.0}},
    {"action": {"kind": "partition"}, "trigger": {"after": "s0"}, "target": {"agents": ["a"]}},
]
targets = st.sampled_from(
    [
        {"links": ["*"]},
        {"links": ["a>*", "*:plan"]},
        {"links": ["*"], "fraction": 0.4},
        {"agents": ["b", "c"]},
    ]
)


@st.composite
def attacks(draw: st.DrawFn) -> AttackSpec:
    steps = [
        {
            "target": draw(targets),
            "trigger": {"at_s": draw(st.sampled_from([0.0, 2.0, 3.5]))},
            "duration_s": draw(st.sampled_from([1.0, 3.0, 100.0])),
            "probability": draw(st.sampled_from([0.5, 1.0])),
            "on_end": draw(st.sampled_from(["restore", "leave"])),
        }
        | step
        for step in draw(st.lists(st.sampled_from(ACTIONS), min_size=1, max_size=4))
    ]
    return _attack(*steps, seed=draw(st.integers(0, 100)))


qualities = st.sampled_from(
    [
        {},
        {"a>b:state": LinkQuality(latency_s=0.7, noise=0.1), "d>a:state": LinkQuality(loss=0.5)},
        {link.key: LinkQuality(0.3, jitter_s=2.2, loss=0.3, noise=0.1) for link in NETWORK},
    ]
)
Message = tuple[int, int, bytes]


def _traffic(seed: int, n_steps: int = 8) -> list[list[Message]]:
    """Return for every step messages (link, round, numbers); some steps repeat a link."""
    rng = np.random.default_rng(seed)
    out = []
    for k in range(n_steps):
        chosen = rng.integers(0, len(NETWORK), rng.integers(0, 2 * len(NETWORK)))
        out.append(
            [
                (int(i), 100 * k + j, np.round(rng.normal(size=NETWORK[i].width), 1).tobytes())
                for j, i in enumerate(chosen)
            ]
        )
    return out


def _run(
    spec: AttackSpec | None,
    quality: Mapping[str, LinkQuality],
    seed: int,
    host_of: Mapping[str, str],
) -> tuple[dict[str, list[Message]], list[Row]]:
    """Send the same traffic with agents hosted so; return deliveries by link, and the truth."""
    hosts = sorted(set(host_of.values()))
    links_in = {h: [x for x in NETWORK if host_of[x.target] == h] for h in hosts}
    plans = resolve_link_steps(spec, links_in)[0] if spec else {}
    rows: list[Row] = []
    inboxes: dict[str, LinkInbox] = {}
    for h in hosts:
        plan, mine = plans.get(h), links_in[h]
        if plan is None:
            inboxes[h] = LinkInbox(mine, quality, seed)
        else:
            truth = Truth(mine, plan.schedule.ids, rows)
            inboxes[h] = AttackedInbox(mine, quality, seed, plan, truth, lambda *_: None)
    outboxes = {}
    for h in hosts:
        own = [i for i, x in enumerate(NETWORK) if host_of[x.source] == h]
        at = [host_of[NETWORK[i].target] for i in own]
        routes = [(r, links_in[r].index(NETWORK[i])) for r, i in zip(at, own, strict=True)]
        outboxes[h] = own, Outbox([NETWORK[i] for i in own], routes)
    out: dict[str, list[Message]] = {link.key: [] for link in NETWORK}
    for k, messages in enumerate([*_traffic(seed), [], [], []]):
        for h, inbox in inboxes.items():
            mail = inbox.deliver(k * S)
            ends = np.cumsum([links_in[h][i].width for i in mail.link])
            parts = np.split(mail.values, ends[:-1]) if len(mail) else []
            for i, number, values in zip(mail.link, mail.round, parts, strict=True):
                out[links_in[h][i].key].append((k, int(number), values.tobytes()))
        # Hosts later in the alphabet get through first: order between hosts must not matter.
        for h in reversed(hosts):
            own, outbox = outboxes[h]
            mine_now = [(own.index(i), n, v) for i, n, v in messages if i in own]
            for peer, bundle in outbox.bundles(_pack(mine_now), k * S):
                inboxes[peer].accept(Bundle.from_bytes(bundle.to_bytes()))
    return out, sorted(rows, key=repr)


def _pack(messages: Sequence[Message]) -> Mail:
    return Mail(
        np.array([m[0] for m in messages], dtype=np.int64),
        np.array([m[1] for m in messages], dtype=np.int64),
        np.frombuffer(b"".join(m[2] for m in messages)),
    )


TOGETHER = dict.fromkeys(AGENTS, "x")
APART = {agent: agent for agent in AGENTS}


@settings(deadline=None)
@given(attacks(), qualities, st.integers(0, 100), st.tuples(*[st.sampled_from("xyz")] * 4))
def test_hosting_of_agents_changes_neither_delivery_nor_truth(
    spec: AttackSpec, quality: Mapping[str, LinkQuality], seed: int, hosts: tuple[str, ...]
) -> None:
    together, rows = _run(spec, quality, seed, TOGETHER)
    for host_of in (APART, dict(zip(AGENTS, hosts, strict=True))):
        apart, apart_rows = _run(spec, quality, seed, host_of)
        assert apart == together
        assert repr(apart_rows) == repr(rows)


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(NOTHINGS), min_size=1, max_size=4),
    targets,
    qualities,
    st.integers(0, 100),
    st.sampled_from([TOGETHER, APART]),
)
def test_an_attack_that_does_nothing_changes_nothing_to_the_last_bit(
    steps: list[dict[str, Any]],
    target: dict[str, Any],
    quality: Mapping[str, LinkQuality],
    seed: int,
    host_of: Mapping[str, str],
) -> None:
    first = {"action": {"kind": "tamper"}}  # lasts to the end of the run, so nothing comes after
    spec = _attack(first, *({"target": target} | step for step in steps))
    delivered, truth = _run(spec, quality, seed, host_of)
    assert delivered == _run(None, quality, seed, host_of)[0]
    assert truth == []


@settings(deadline=None)
@given(qualities, st.integers(0, 100), st.sampled_from(ACTIONS))
def test_links_that_are_not_attacked_keep_their_fate(
    quality: Mapping[str, LinkQuality], seed: int, step: dict[str, Any]
) -> None:
    if "target" in step:
        step = {"action": {"kind": "drop"}}
    spec = _attack(step | {"target": {"links": ["a>*"]}}, seed=seed)
    attacked, free = (_run(x, quality, seed, TOGETHER)[0] for x in (spec, None))
    others = [link.key for link in NETWORK if link.source != "a"]
    assert {key: attacked[key] for key in others} == {key: free[key] for key in others}


def test_minus_zero_survives_a_tampering_of_nothing() -> None:
    inbox = _inbox(_attack({"action": {"kind": "tamper"}}), ONE)
    inbox.accept(Bundle(0, _mail({0: [-0.0]})))
    assert np.signbit(inbox.deliver(S).values).all()


def test_the_senders_own_array_is_not_written_to() -> None:
    mail = _mail({0: [1.0]})
    inbox = _inbox(_attack({"action": {"kind": "tamper", "value": 2.0}}), ONE)
    inbox.accept(Bundle(0, mail))
    assert inbox.deliver(S).values.tolist() == [2.0]
    assert mail.values.tolist() == [1.0]
