"""Wiring: gather indices, mail routes and link rules, and every mistake said by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.core.mail import Link
from controllers.core.ports import Port
from federates.clock import Timing
from federates.core.links import LinkQuality
from federates.core.wiring import FederateWiring, Feed, wire
from federates.errors import WiringError
from federates.scenario.schema import Scenario, scenario_from
from federates.scenario.yaml_source import load_yaml


@dataclass
class Member:
    name: str
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    links_in: tuple[Link, ...] = ()
    links_out: tuple[Link, ...] = ()
    timing: Timing = field(default_factory=lambda: Timing(10))


def _scenario(connections: str, more: str = "") -> Scenario:
    text = f"federates: {{a: {{kind: feeder}}}}\nconnections: [{connections}]\n{more}"
    return scenario_from(load_yaml(Path("s.yaml"), text))


def _wire(connections: str, *members: Member, more: str = "") -> dict[str, FederateWiring]:
    return wire(_scenario(connections, more), members, {m.name: [m.name] for m in members})


def _problems(connections: str, *members: Member, more: str = "") -> list[str]:
    with pytest.raises(WiringError) as caught:
        _wire(connections, *members, more=more)
    return caught.value.problems


def _source(*labels: str, name: str = "src", unit: str = "pu") -> Member:
    return Member(name, outputs=(Port("v_pu", unit, labels),))


def _sink(*labels: str, unit: str = "pu", required: bool = True) -> Member:
    return Member("dst", inputs=(Port("v_in", unit, labels, required=required),))


LINK = "src.v_pu -> dst.v_in"


def _read(feeds: tuple[Feed, ...], published: dict[str, np.ndarray], n: int) -> list[float]:
    out = np.full(n, np.nan)
    for feed in feeds:
        values = published[feed.source]
        assert values.size == feed.source_size
        picked = values if feed.source_index is None else values[feed.source_index]
        out[slice(None) if feed.target_index is None else feed.target_index] = picked
    return out.tolist()


labels = st.lists(st.sampled_from("abcdefgh"), unique=True, min_size=1)


@given(labels, st.data())
def test_every_label_gets_its_own_value_whatever_the_order(
    given_labels: list[str], data: st.DataObject
) -> None:
    wanted = data.draw(st.lists(st.sampled_from(given_labels), unique=True, min_size=1))
    feeds = _wire(LINK, _source(*given_labels), _sink(*wanted))["dst"].feeds["v_in"]
    values = {"src": np.array([float(ord(x)) for x in given_labels])}
    assert _read(feeds, values, len(wanted)) == [float(ord(x)) for x in wanted]


@given(labels, st.data())
def test_a_split_controller_feeds_and_reads_as_one(names: list[str], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(names)))
    parts = [p for p in (names[:cut], names[cut:]) if p]
    members = [
        Member(
            f"c_{i + 1}",
            inputs=(Port("v_pu", "pu", tuple(part)),),
            outputs=(Port("q_set_kvar", "kvar", tuple(part)),),
        )
        for i, part in enumerate(parts)
    ]
    order = data.draw(st.permutations(names))
    grid = Member(
        "grid",
        inputs=(Port("q_set_kvar", "kvar", tuple(order)),),
        outputs=(Port("v_pu", "pu", tuple(names)),),
    )
    groups = {"grid": ["grid"], "c": [m.name for m in members]}
    scenario = _scenario("grid.v_pu -> c.v_pu, c.q_set_kvar -> grid.q_set_kvar")
    wiring = wire(scenario, [grid, *members], groups)
    published = {
        m.name: np.array([float(ord(x)) for x in part])
        for m, part in zip(members, parts, strict=True)
    }
    feeds = wiring["grid"].feeds["q_set_kvar"]
    assert _read(feeds, published, len(order)) == [float(ord(x)) for x in order]
    for member, part in zip(members, parts, strict=True):
        got = _read(
            wiring[member.name].feeds["v_pu"],
            {"grid": np.array([float(ord(x)) for x in names])},
            len(part),
        )
        assert got == [float(ord(x)) for x in part]


def test_a_part_may_have_no_element_of_a_port() -> None:
    grid = Member("grid", (Port("q_set_kvar", "kvar", ("x",)),), (Port("v_pu", "pu", ("x",)),))
    none = Member("c_1")
    empty = Member("c_2", (Port("v_pu", "pu", ()),), (Port("q_set_kvar", "kvar", ()),))
    full = Member("c_3", (Port("v_pu", "pu", ("x",)),), (Port("q_set_kvar", "kvar", ("x",)),))
    groups = {"grid": ["grid"], "c": ["c_1", "c_2", "c_3"]}
    scenario = _scenario("grid.v_pu -> c.v_pu, c.q_set_kvar -> grid.q_set_kvar")
    wiring = wire(scenario, [grid, none, empty, full], groups)
    assert [feed.source for feed in wiring["grid"].feeds["q_set_kvar"]] == ["c_3"]
    assert [feed.source for feed in wiring["c_3"].feeds["v_pu"]] == ["grid"]
    assert not wiring["c_1"].feeds
    with pytest.raises(WiringError, match=r"no input port of 'c' is called 'v_puu'.*'v_pu'"):
        wire(_scenario("grid.v_pu -> c.v_puu"), [grid, none, empty, full], groups)


def test_whole_vectors_in_order_need_no_index() -> None:
    (feed,) = _wire(LINK, _source("a", "b"), _sink("a", "b"))["dst"].feeds["v_in"]
    assert (feed.source_index, feed.target_index) == (None, None)


def test_only_what_somebody_reads_is_published() -> None:
    source = Member("src", outputs=(Port("v_pu", "pu", ("a",)), Port("p_kw", "kW", ("a",))))
    wiring = _wire(LINK, source, _sink("a"))
    assert wiring["src"].published == ("v_pu",)
    assert wiring["dst"].published == ()


def test_measurement_noise_is_keyed_by_the_scenarios_words_not_by_the_instance() -> None:
    scenario = _scenario("{source: src.v_pu, target: dst.v_in, noise: 0.1}")
    for names in (["dst"], ["dst_1", "dst_2"]):
        members = [Member(n, inputs=(Port("v_in", "pu", ("b",)),)) for n in names]
        wiring = wire(scenario, [_source("a", "b"), *members], {"src": ["src"], "dst": names})
        for name in names:
            (feed,) = wiring[name].feeds["v_in"]
            assert feed.noise_streams == ("src.v_pu->dst.v_in:b",)


@pytest.mark.parametrize(
    ("connections", "members", "words"),
    [
        (LINK, [_source("a"), _sink("a", unit="V")],
         ["s.yaml:2: connections[0]: src.v_pu is in pu, dst.v_in expects V"]),
        (LINK, [_source("a"), _sink("a", "b")],
         ["nothing feeds dst.v_in for 1 of 2 labels (b)", "expected a connection", "in pu"]),
        ("", [_source("a"), _sink("a")], ["nothing feeds dst.v_in for 1 of 1 labels (a)"]),
        (LINK, [_source("a"), _sink("x", required=False)],
         ["no label of dst.v_in (x, ...) is given by the source (a, ...)"]),
        (f"{LINK}, {LINK}", [_source("a"), _sink("a")],
         ["connections[1]: dst.v_in 'a' is fed by src.v_pu and by src.v_pu; expected one"]),
        ("src.v_pu -> dest.v_in", [_source("a"), _sink("a", required=False)],
         ["no federate is called 'dest'; expected one of src, dst; did you mean 'dst'?"]),
        ("src.v_p -> dst.v_in", [_source("a"), _sink("a", required=False)],
         ["no output port of 'src' is called 'v_p'; expected one of v_pu; did you mean 'v_pu'?"]),
        ("src.v_pu -> dst.vin", [_source("a"), _sink("a", required=False)],
         ["no input port of 'dst' is called 'vin'", "did you mean 'v_in'?"]),
        ("dst.v_in -> src.v_pu", [_source("a"), _sink("a", required=False)],
         ["no output port of 'dst' is called 'v_in'; expected one of (none)"]),
        (LINK, [_source("a", "a"), _sink("a")], ["src.v_pu: 2 labels 'a'; expected one"]),
        ("", [Member("m", outputs=(Port("x", "pu", ("a",)), Port("x", "kW", ("a",))))],
         ["m: 2 output ports are called 'x'; expected one"]),
        ("", [Member("m", outputs=(Port("../x", "pu", ("a",)),))], ["output port '../x'"]),
        ("", [Member("m", links_out=(Link("a", "b"),), links_in=(Link("b", "a"),))],
         ["m: no federate receives mail over link a>b:state", "did you mean 'b>a:state'?"]),
        ("", [Member("m", links_out=(Link("a", "c"), Link("b", "c")), links_in=(Link("b", "a"),))],
         ["m: no federate receives mail over link a>c:state and 1 more to 'c'"]),
        ("", [Member("m", links_out=(Link("a", "b", width=2),), links_in=(Link("a", "b"),))],
         ["m: link a>b:state sends 2 numbers, m expects 1; options that both have must be equal"]),
        ("", [Member("m", links_in=(Link("a", "b"), Link("a", "b")))],
         ["m: two receivers of mail over link a>b:state"]),
    ],
)  # fmt: skip
def test_mistakes_are_named(connections: str, members: list[Member], words: list[str]) -> None:
    text = "\n".join(_problems(connections, *members))
    for word in words:
        assert word in text


def test_two_producers_of_one_label_are_both_named() -> None:
    first, second = _source("a", "b", name="one"), _source("b", "c", name="two")
    text = _problems(
        "one.v_pu -> dst.v_in, two.v_pu -> dst.v_in", first, second, _sink("a", "b", "c")
    )
    assert "'b' is fed by one.v_pu and by two.v_pu; expected one producer" in text[0]


def test_two_producers_of_different_labels_are_welcome() -> None:
    first, second = _source("a", name="one"), _source("c", name="two")
    wiring = _wire("one.v_pu -> dst.v_in, two.v_pu -> dst.v_in", first, second, _sink("c", "a"))
    published = {"one": np.array([1.0]), "two": np.array([3.0])}
    assert _read(wiring["dst"].feeds["v_in"], published, 2) == [3.0, 1.0]


def test_all_problems_are_listed() -> None:
    problems = _problems(
        "srk.v_pu -> dst.v_in, src.v -> dst.v_in, src.v_pu -> dst.w", _source("a"), _sink("a")
    )
    assert len(problems) == 4  # three wrong connections, and dst.v_in stays unfed


def test_last_matching_link_rule_wins_and_unknown_agents_are_named() -> None:
    links = (Link("pv_1", "pv_2"), Link("pv_2", "pv_1"), Link("pv_1", "head"))
    member = Member("m", links_in=links, links_out=links)
    rules = "links: [{loss: 0.5}, {source: 'pv_*', target: 'pv_*', latency_s: 2}, {target: pv_1}]"
    quality = _wire("", member, more=rules)["m"].link_quality
    assert quality["pv_1>head:state"] == LinkQuality(loss=0.5)
    assert quality["pv_1>pv_2:state"] == LinkQuality(latency_s=2.0)
    assert quality["pv_2>pv_1:state"].perfect
    (problem,) = _problems("", member, more="links: [{source: pv_11}]")
    assert problem.startswith("s.yaml:3: links[0].source: no agent that sends mail matches 'pv_11'")
    assert problem.endswith("did you mean 'pv_1'?")


AB = (Link("a", "b"), Link("b", "c"))
UNMATCHED = {
    "links: [{source: x, loss: 0.1}]": "links[0].source: no agent that sends mail matches 'x'",
    "links: [{target: a}]": "links[0].target: no agent that receives mail matches 'a'",
    "links: [{}, {source: a, target: c}]": "links[1].target: no agent that gets mail from 'a' "
    "matches 'c'; expected a glob over b",
    "record: {ports: [scr.*]}": "record.ports[0]: no output port matches 'scr.*'; expected a glob "
    "over src.*, src.v_pu; did you mean 'src.*'?",
    "record: {ports: [src.v_pu, src.v_up]}": "record.ports[1]: no output port matches 'src.v_up'",
    "record: {labels: ['650.*', '65?.2']}": "record.labels[1]: no label of a recorded port "
    "matches '65?.2'; expected a glob over 650.1",
}


@pytest.mark.parametrize("more", UNMATCHED)
def test_a_glob_that_matches_nothing_is_refused_with_what_there_is(more: str) -> None:
    source = _source("650.1")
    source.links_in = source.links_out = AB
    (problem,) = _problems("", source, more=more)
    assert problem.startswith(f"s.yaml:3: {UNMATCHED[more]}")


@pytest.mark.parametrize("rule", ["{source: pv_1}", "{target: 'pv_*'}"])
def test_a_rule_that_names_agents_is_refused_where_nobody_sends_mail(rule: str) -> None:
    (problem,) = _problems("", _source("a"), more=f"links: [{rule}]")
    assert "expected a glob over (there is none)" in problem


def test_mail_goes_to_the_host_of_the_receiving_agent() -> None:
    ab, ba = Link("a", "b"), Link("b", "a")
    one = Member("one", links_in=(ba,), links_out=(ab,))
    two = Member("two", links_in=(ab,), links_out=(ba,))
    wiring = _wire("", one, two)
    assert (wiring["one"].mail_routes, wiring["two"].mail_routes) == ((("two", 0),), (("one", 0),))


def test_a_foreign_program_gets_whole_topics_only() -> None:
    source, target = _source("a", "b"), _sink("b", "a")
    groups = {"src": ["src"], "dst": ["dst"]}
    with pytest.raises(WiringError, match=r"reads all 2 elements of src\.v_pu; expected all"):
        wire(_scenario(LINK), [source, target], groups, external=["dst"])
    noisy = _scenario("{source: src.v_pu, target: dst.v_in, noise: 0.1}")
    with pytest.raises(WiringError, match="expected a connection without noise"):
        wire(noisy, [source, _sink("a", "b")], groups, external=["dst"])
    wiring = wire(_scenario(LINK), [source, _sink("a", "b")], groups, external=["dst"])
    assert wiring["src"].published == ("v_pu",)
