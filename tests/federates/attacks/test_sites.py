"""Who stands where: names that must not meet, moments that must fit, targets that belong together.

Federates are stubs here: only their names, ports and times matter to the plan.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from controllers.core.ports import Port
from federates.attacks.interpose import interpose
from federates.attacks.plan import AttackPlan, SitePlan
from federates.attacks.signal.forge import ForgePlan
from federates.attacks.view import MIN_GAP_NS, FederationView
from federates.clock import Timing, to_ns
from federates.core.wiring import FederateWiring, Feed
from federates.errors import WiringError
from federates.hosts.helics_bus import _EARLY_NS
from federates.scenario.attack_schema import AttackSpec

S = 1_000_000_000


class Stub:
    def __init__(
        self,
        name: str,
        inputs: tuple[Port, ...] = (),
        outputs: tuple[Port, ...] = (),
        timing: Timing | None = None,
    ) -> None:
        self.name, self.inputs, self.outputs = name, inputs, outputs
        self.timing = timing or Timing(10 * S)
        self.links_in: tuple[Any, ...] = ()
        self.links_out: tuple[Any, ...] = ()


def port(name: str, *labels: str) -> Port:
    return Port(name, "kW", labels, 0.0, required=False)


def plan_of(
    federates: list[Stub], feeds: dict[str, dict[str, tuple[str, str]]], *steps: dict[str, Any]
) -> tuple[AttackPlan, dict[str, FederateWiring]]:
    """Wire one port to one port each, `feeds[reader][input] = (producer, output)`, and attack."""
    by_name = {f.name: f for f in federates}
    wirings = {}
    for name in by_name:
        read = {
            into: (Feed(source, out, len(_port(by_name[source], out).labels), None, None),)
            for into, (source, out) in feeds.get(name, {}).items()
        }
        published = {out for fed in feeds.values() for s, out in fed.values() if s == name}
        wirings[name] = FederateWiring(feeds=read, published=tuple(published))
    base = {"layer": "signal", "trigger": {"at_s": 0}, "action": {"kind": "bias", "value": 1}}
    spec = AttackSpec.model_validate(
        {"id": "x", "steps": [{"id": f"s{i}", **base, **step} for i, step in enumerate(steps)]}
    )
    return interpose(spec, federates, {n: n for n in by_name}, wirings, (), 100.0)


def _port(federate: Stub, name: str) -> Port:
    return next(p for p in federate.outputs if p.name == name)


def forge_of(site: SitePlan) -> ForgePlan:
    """Return the part of an attack federate that forges signals."""
    (part,) = (p for p in site.parts if isinstance(p, ForgePlan))
    return part


def origin(
    plan: AttackPlan, wirings: dict[str, FederateWiring], reader: str, into: str
) -> tuple[str, str]:
    """Return whose output an input gets, through the attack federate it now reads."""
    (feed,) = wirings[reader].feeds[into]
    site = plan.sites[feed.source]
    (channel,) = (c for c in forge_of(site).channels if c.out == feed.port)
    if not channel.source:
        return "", ""
    (true,) = site.feeds[channel.source]
    return true.source, true.port


def test_ports_whose_names_run_together_stay_apart() -> None:
    """`a-b.c` and `a.b-c` would both be called a-b-c."""
    federates = [
        Stub("a-b", outputs=(port("c", "x"),)),
        Stub("a", outputs=(port("b-c", "y"),)),
        Stub("r", (port("i", "x"), port("j", "y")), timing=Timing(10 * S, 5 * S)),
    ]
    feeds = {"r": {"i": ("a-b", "c"), "j": ("a", "b-c")}}
    plan, wirings = plan_of(federates, feeds, {"target": {"port": "r.*"}})
    assert origin(plan, wirings, "r", "i") == ("a-b", "c")
    assert origin(plan, wirings, "r", "j") == ("a", "b-c")
    outs = [c.out for s in plan.sites.values() for c in forge_of(s).channels]
    assert len(set(outs)) == len(outs) == 2


def test_an_input_that_nobody_feeds_is_not_taken_for_an_output_of_its_name() -> None:
    federates = [
        Stub("m", (port("p", "u"),), (port("p", "x"),)),
        Stub("r", (port("i", "x"),), timing=Timing(10 * S, 5 * S)),
    ]
    plan, wirings = plan_of(federates, {"r": {"i": ("m", "p")}}, {"target": {"port": "m.p"}})
    assert origin(plan, wirings, "r", "i") == ("m", "p")
    assert origin(plan, wirings, "m", "p") == ("", "")


def test_of_signals_whose_names_run_together_the_right_one_is_watched() -> None:
    federates = [
        Stub("a-b", outputs=(port("c", "x"),)),
        Stub("a", outputs=(port("b-c", "y"),)),
        Stub("r", (port("i", "x"), port("j", "y")), timing=Timing(10 * S, 5 * S)),
    ]
    when = {"when": {"signal": "a.b-c", "above": 1.0}}
    other = {"when": {"signal": "a-b.c", "above": 1.0}}
    plan, _ = plan_of(
        federates,
        {"r": {"i": ("a-b", "c")}},
        {"target": {"port": "r.i"}, "trigger": when, "duration_s": 10.0},
        {"target": {"port": "r.j"}, "trigger": other},
    )
    assert plan.director is not None
    watched = [plan.director.feeds[name] for i in (0, 1) for name in plan.director.watches[i]]
    assert [(f.source, f.port) for (f,) in watched] == [("a", "b-c"), ("a-b", "c")]


def test_a_scenario_may_have_a_federate_called_attack() -> None:
    federates = [
        Stub("attack", outputs=(port("p", "x"),)),
        Stub("r", (port("i", "x"),), timing=Timing(10 * S, 5 * S)),
    ]
    plan, wirings = plan_of(
        federates, {"r": {"i": ("attack", "p")}}, {"target": {"port": "attack.p"}}
    )
    assert plan.names == ("attack_2",)
    assert origin(plan, wirings, "r", "i") == ("attack", "p")


# -- moments -----------------------------------------------------------------------------------


def shortest_lag(first: Timing, then: Timing, horizon_ns: int) -> int:
    """By hand: from each step of one to the next of the other."""
    best = then.period_ns
    for k in range(max(1, first.steps_before(horizon_ns))):
        now = first.offset_ns + k * first.period_ns
        best = min(best, (then.offset_ns - now) % then.period_ns or then.period_ns)
    return best


def test_the_gap_is_that_of_the_steps_that_there_are() -> None:
    draw = random.Random(1)
    for _ in range(500):
        timings = [Timing(draw.randint(1, 60), draw.randint(0, 80)) for _ in range(3)]
        horizon_ns = draw.choice([1, 50, 5000])
        stubs = {f"f{i}": Stub(f"f{i}", timing=t) for i, t in enumerate(timings)}
        view = FederationView(
            stubs, dict.fromkeys(stubs, "f"), {n: FederateWiring() for n in stubs}, horizon_ns
        )
        expected = min(shortest_lag(timings[0], t, horizon_ns) for t in timings)
        assert view.gap_ns(timings[0]) == expected


@pytest.mark.parametrize("period_s", [10.0, 3.333333333, 0.15])
def test_periods_with_a_tiny_common_divisor_leave_room(period_s: float) -> None:
    """10 s and 3.333333333 s: the attacker stands strictly between producer and reader."""
    reader = Timing(to_ns(period_s), 5 * S)
    federates = [
        Stub("a", outputs=(port("p", "x"),)),
        Stub("r", (port("i", "x"),), timing=reader),
    ]
    plan, _ = plan_of(federates, {"r": {"i": ("a", "p")}}, {"target": {"port": "a.p"}})
    at = plan.sites["attack"].timing
    assert at.period_ns == 10 * S
    for k in range(10):
        produced = k * 10 * S
        read = reader.offset_ns + reader.period_ns * max(
            0, (produced - reader.offset_ns) // reader.period_ns + 1
        )
        assert produced + _EARLY_NS < at.offset_ns + produced < read - _EARLY_NS


def test_no_room_is_said() -> None:
    """3 s and 3.000000001 s drift through one another within the run."""
    federates = [
        Stub("a", outputs=(port("p", "x"),), timing=Timing(3 * S)),
        Stub("r", (port("i", "x"),), timing=Timing(3 * S + 1)),
    ]
    with pytest.raises(WiringError) as caught:
        plan_of(federates, {"r": {"i": ("a", "p")}}, {"target": {"port": "a.p"}})
    text = str(caught.value)
    # So does a sixtieth of a second that is typed as 0.016666667.
    typed = Stub("r", (port("i", "x"),), timing=Timing(16_666_667, 5 * S))
    producer = Stub("a", outputs=(port("p", "x"),))
    with pytest.raises(WiringError, match="as close as 100 ns; expected at least 2000 ns"):
        plan_of([producer, typed], {"r": {"i": ("a", "p")}}, {"target": {"port": "a.p"}})
    assert "steps[0].target: nothing can stand between a step of 'a' (every 3 s from 0 s)" in text
    assert "'r' (every 3.000000001 s from 0 s): they come as close as 1 ns" in text
    when = {"when": {"signal": "a.p", "above": 1.0}}
    with pytest.raises(WiringError, match=r"steps\[0\].trigger.when: nothing can stand between"):
        plan_of(
            federates,
            {"r": {"i": ("a", "p")}},
            {"target": {"port": "a.p"}, "trigger": when},
        )


def test_the_smallest_gap_keeps_every_slot_apart_for_helics() -> None:
    assert MIN_GAP_NS // 4 > _EARLY_NS


# -- targets that belong together --------------------------------------------------------------


@pytest.mark.parametrize(
    "action",
    [
        {"kind": "swap"},
        {
            "kind": "adaptive",
            "attacker": "under-threshold",
            "options": {"goal": 1.0, "threshold": 1.0},
        },
    ],
)
def test_targets_that_belong_together_must_pass_together(action: dict[str, Any]) -> None:
    def federates(second: Timing) -> list[Stub]:
        return [
            Stub("a", outputs=(port("p", "x"),)),
            Stub("b", outputs=(port("p", "y"),), timing=second),
            Stub("r", (port("i", "x"), port("j", "y")), timing=Timing(10 * S, 5 * S)),
        ]

    feeds = {"r": {"i": ("a", "p"), "j": ("b", "p")}}
    step = {"target": {"port": "r.*"}, "action": action}
    plan, _ = plan_of(federates(Timing(10 * S)), feeds, step)
    (forging,) = forge_of(plan.sites["attack"]).forging
    assert np.array_equal(forging.elements, [0, 1])
    with pytest.raises(WiringError) as caught:
        plan_of(federates(Timing(10 * S, 2 * S)), feeds, step)
    text = str(caught.value)
    assert f"steps[0].target: '{action['kind']}' needs all its targets at one moment" in text
    assert "a.p every 10 s from 0 s; b.p every 10 s from 2 s" in text
    assert "a step for each timing" in text
    with pytest.raises(WiringError, match=r"r.j, which nobody feeds, before it is read"):
        plan_of(federates(Timing(10 * S)), {"r": {"i": ("a", "p")}}, step)
