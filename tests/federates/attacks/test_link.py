"""Link steps of an attack: which links they mean, and what is said when they mean none."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.core.mail import Link
from federates.attacks.link.layer import MailAttack, resolve_link_steps
from federates.errors import WiringError
from federates.scenario.attack_schema import AttackSpec

AGENTS = ("north", "east", "south", "west")
MESH = [Link(a, b) for a in AGENTS for b in AGENTS if a != b]
PLANS = [Link(a, b, "plan", 3) for a, b in (("north", "east"), ("east", "north"))]
NETWORK = MESH + PLANS
DROP = {"kind": "drop"}


def _attack(*steps: dict[str, Any], seed: int = 0) -> AttackSpec:
    """Return an attack of link steps that begin at once, called s0, s1, ..."""
    common = {"layer": "link", "trigger": {"at_s": 0.0}}
    listed = [{"id": f"s{i}"} | common | step for i, step in enumerate(steps)]
    return AttackSpec.model_validate({"id": "test", "seed": seed, "steps": listed})


def _hosted(host_of: dict[str, str]) -> dict[str, list[Link]]:
    """Return the incoming links of each federate when agents are hosted so."""
    links: dict[str, list[Link]] = {name: [] for name in host_of.values()}
    for link in NETWORK:
        links[host_of[link.target]].append(link)
    return links


def _chosen(spec: AttackSpec, host_of: dict[str, str] | None = None) -> list[set[str]]:
    """Return the keys that each step acts on, over all federates."""
    plans, problems = resolve_link_steps(spec, _hosted(host_of or dict.fromkeys(AGENTS, "all")))
    assert problems == []
    out: list[set[str]] = [set() for _ in spec.steps]
    for plan in plans.values():
        for step in plan.steps if plan else ():
            out[step.step] |= set(step.links)
    return out


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        # Without a kind: of every kind.
        ({"links": ["north>east"]}, {"north>east:state", "north>east:plan"}),
        ({"links": ["north>east:plan"]}, {"north>east:plan"}),
        ({"links": ["*:plan"]}, {"north>east:plan", "east>north:plan"}),
        ({"links": ["south>*", "*>south"]}, {x.key for x in MESH if "south" in x.key}),
        ({"agents": ["s*"]}, {x.key for x in MESH if "south" in x.key}),
    ],
)
def test_globs_mean_links_by_their_ends_and_kind(
    target: dict[str, Any], expected: set[str]
) -> None:
    assert _chosen(_attack({"target": target, "action": DROP})) == [expected]


def test_a_partition_cuts_only_what_crosses_it() -> None:
    step = {"target": {"agents": ["north", "east"]}, "action": {"kind": "partition"}}
    inside = {"north", "east"}
    crossing = {x.key for x in NETWORK if (x.source in inside) != (x.target in inside)}
    assert _chosen(_attack(step)) == [crossing]


@given(
    hosts=st.tuples(*[st.sampled_from("xyz")] * 4),
    target=st.sampled_from([{"fraction": 0.3}, {"count": 1}, {"count": 4}, {"fraction": 1.0}]),
    kind=st.sampled_from([{"links": ["*"]}, {"agents": ["*"]}]),
    seed=st.integers(0, 50),
)
def test_the_draw_of_targets_does_not_depend_on_hosting(
    hosts: tuple[str, ...], target: dict[str, Any], kind: dict[str, Any], seed: int
) -> None:
    spec = _attack({"target": kind | target, "action": DROP}, seed=seed)
    host_of = dict(zip(AGENTS, hosts, strict=True))
    assert _chosen(spec, host_of) == _chosen(spec)


def test_fraction_and_count_draw_as_many_as_they_say_and_others_by_another_seed() -> None:
    def draw(size: dict[str, Any], seed: int) -> set[str]:
        spec = _attack({"target": {"links": ["*"]} | size, "action": DROP}, seed=seed)
        return _chosen(spec)[0]

    assert len(draw({"fraction": 0.5}, 1)) == 7  # of 14
    assert len(draw({"count": 3}, 1)) == 3
    assert len(draw({"count": 14}, 1)) == 14
    with pytest.raises(WiringError, match="300 of 14 links; expected at most 14"):
        draw({"count": 300}, 1)
    assert draw({"count": 3}, 1) < draw({"count": 5}, 1)
    assert len({frozenset(draw({"count": 3}, seed)) for seed in range(10)}) > 5


def test_two_agents_drawn_mean_all_links_of_two() -> None:
    spec = _attack({"target": {"agents": ["*"], "count": 2}, "action": {"kind": "partition"}})
    (cut,) = _chosen(spec)
    ends = [set(key.split(":")[0].split(">")) for key in cut if key.endswith("state")]
    # Two of four agents: each talks to the two others, both ways.
    assert len(ends) == 8


def test_one_federate_announces_a_step_and_plans_are_plain_data() -> None:
    host_of = {"north": "b", "east": "c", "south": "a", "west": "a"}
    spec = _attack(
        {"target": {"links": ["*"]}, "action": DROP},
        {"target": {"links": ["*>east:plan"]}, "action": DROP},
        {"target": {"links": ["east>north:*"]}, "action": {"kind": "jam"}},
    )
    plans, problems = resolve_link_steps(spec, _hosted(host_of) | {"feeder": []})
    assert problems == []
    told = {name: plan.announces for name, plan in plans.items()}
    assert told == {"a": (0,), "b": (2,), "c": (1,)}
    copy = pickle.loads(pickle.dumps(plans))
    assert isinstance(copy["a"], MailAttack)
    assert copy == plans


@pytest.mark.parametrize(
    ("step", "text"),
    [
        ({"target": {"links": ["nort>east"]}}, "no link matches 'nort>east'; expected"),
        ({"target": {"links": ["*", "x>*"]}}, "steps[0].target.links[1]: no link matches 'x>*'"),
        ({"target": {"agents": ["sout"]}}, "did you mean 'south'?"),
        ({"target": {"links": ["*"]}, "action": {"kind": "partition"}}, "needs agents as its"),
        ({"target": {"agents": ["*"]}, "action": {"kind": "partition"}}, "nothing to cut"),
        ({"target": {"devices": ["*"]}}, "needs links or agents as its target"),
        (
            {"target": {"links": ["*"]}, "action": {"kind": "impersonate", "agent": "wets"}},
            "steps[0].action.agent: no agent is called 'wets'; expected one of east",
        ),
        (
            {
                "target": {"links": ["east>north:plan"]},
                "action": {"kind": "impersonate", "agent": "west"},
            },
            "'west' writes no mail like that of east>north:plan to 'north'; expected an agent that "
            "does (east), or another target",
        ),
        (
            {
                "target": {"links": ["west>*"]},
                "action": {"kind": "impersonate", "agent": "west"},
            },
            "'west' is the only sender in the target",
        ),
    ],
)
def test_what_cannot_be_meant_is_said_with_its_place(step: dict[str, Any], text: str) -> None:
    spec = _attack({"action": DROP} | step)
    _, problems = resolve_link_steps(spec, _hosted(dict.fromkeys(AGENTS, "all")))
    assert len(problems) == 1
    assert text in problems[0]
    assert "steps[0]" in problems[0]


def test_all_problems_are_found_at_once() -> None:
    spec = _attack(
        {"target": {"links": ["a>b"]}, "action": DROP},
        {"target": {"agents": ["c"]}, "action": DROP},
    )
    _, problems = resolve_link_steps(spec, _hosted(dict.fromkeys(AGENTS, "all")))
    assert [p.split(":")[0] for p in problems] == ["attack test", "attack test"]
    assert len(problems) == 2


def test_a_scenario_without_mail_says_so() -> None:
    spec = _attack({"target": {"links": ["*"]}, "action": DROP})
    plans, problems = resolve_link_steps(spec, {"feeder": []})
    assert plans == {}
    assert "no agent of this scenario writes mail" in problems[0]
