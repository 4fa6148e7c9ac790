"""Physical steps on paper: which elements they touch, and what the grid is told when."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federates.attacks.physical.action import CONNECTED, LOAD_FACTOR, LOAD_KW, THERMOSTAT_K
from federates.attacks.physical.elements import PhysicalElements
from federates.attacks.physical.plan import PhysicalPlan
from federates.attacks.physical.resolve import resolve_physical
from federates.scenario.attack_files import load_attack
from federates.scenario.attack_schema import AttackSpec
from grid_models.catalog import load_feeder
from grid_models.feeder.model import Der

DERS = (
    Der("pv_1", "pv", "671", (1,), 11.0, 10.0),
    Der("pv_2", "pv", "671", (2,), 11.0, 10.0),
    *(Der(f"house_{i}", "house", "634", (1,), 7.0, 0.0, -7.0 * i) for i in (1, 2, 3, 4)),
    Der("tank", "flexible_load", "634", (2,), 4.5, 0.0, -4.5, 2.4),
)
ELEMENTS = PhysicalElements.of(load_feeder("ieee13").with_ders(DERS))
DEVICES = PhysicalElements.of(load_feeder("ieee13").with_ders(DERS), ["house_1", "house_2"])


def step(action: str, elements: str, target: str = "", **keys: object) -> str:
    more = "".join(f", {key}: {value}" for key, value in keys.items())
    target = f", {target}" if target else ""
    return (
        f"  - {{id: s, layer: physical, trigger: {{at_s: 0}}, action: {{kind: {action}}}, "
        f"target: {{elements: [{elements}]{target}}}{more}}}\n"
    )


@pytest.fixture
def spec_of(tmp_path: Path):
    def make(*steps: str, seed: int = 1) -> AttackSpec:
        path = tmp_path / "a.yaml"
        numbered = "".join(s.replace("id: s,", f"id: s{i},") for i, s in enumerate(steps))
        path.write_text(f"id: a\nseed: {seed}\nsteps:\n{numbered}")
        return load_attack(path)

    return make


def planned(spec: AttackSpec, elements: PhysicalElements = ELEMENTS) -> PhysicalPlan:
    plan, problems = resolve_physical(spec, elements)
    assert problems == []
    return plan


def test_elements_are_named_by_what_they_are() -> None:
    kinds = {x.partition(".")[0] for x in ELEMENTS.labels}
    assert kinds == {"load", "der", "line", "switch"}
    assert ELEMENTS.kind["der.tank"] == "flexible_load"
    assert ELEMENTS.nominal_kw["der.house_3"] == 21.0
    assert ELEMENTS.closed["switch.sw1"]


def test_every_action_has_its_port_and_its_elements(spec_of) -> None:
    plan = planned(
        spec_of(
            step("trip", "der.pv_*, switch.*"),
            step("load, kw: 10", "der.*"),
            step("load, factor: 1.5", "load.load_634a"),
            step("thermostat, offset_k: -2", "'*'"),
        )
    )
    assert plan.labels == {
        CONNECTED: ("der.pv_1", "der.pv_2", "switch.sw1"),
        LOAD_KW: (*(f"der.house_{i}" for i in (1, 2, 3, 4)), "der.tank"),
        LOAD_FACTOR: ("load.load_634a",),
        THERMOSTAT_K: tuple(f"der.house_{i}" for i in (1, 2, 3, 4)),
    }
    assert [p.unit for p in plan.ports()] == ["1", "kW", "1", "K"]
    assert (plan.actions[2].labels, plan.actions[2].action.port) == (
        ("load.load_634a",),
        LOAD_FACTOR,
    )
    idle = plan.values(np.full(4, np.nan))
    assert np.isnan(idle[CONNECTED]).all()
    assert not idle[LOAD_KW].any()
    assert not idle[THERMOSTAT_K].any()
    assert idle[LOAD_FACTOR].tolist() == [1.0]


def test_power_is_shared_by_nominal_power(spec_of) -> None:
    plan = planned(spec_of(step("load, kw: 10", "'der.house_*'")))
    assert plan.values(np.zeros(1))[LOAD_KW].tolist() == [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (step("trip", "der.pv_3"), ["elements[0]", "no element is called 'der.pv_3'", "'der.pv_"]),
        (step("trip", "pv_1"), ["no element is called 'pv_1'", "'load.load_634a'", "'switch.sw1'"]),
        (step("close", "der.pv_1"), ["'close' does not apply to der.pv_1", "lines and switches"]),
        (step("load, kw: 1", "der.pv_1"), ["does not apply to der.pv_1", "houses"]),
        (step("load, kw: 1", "line.*"), ["'load' does not apply to line."]),
        (step("thermostat, offset_k: 1", "der.tank"), ["der.tank, a flexible load", "kind house"]),
        (step("trip", "der.pv_*", "count: 3"), ["target.count", "3 of 2", "at most 2"]),
    ],
)
def test_a_target_that_cannot_be_meant_is_named(spec_of, bad: str, said: list[str]) -> None:
    plan, problems = resolve_physical(spec_of(bad), ELEMENTS)
    assert len(problems) == 1
    assert not plan
    for words in ["a.yaml:", *said]:
        assert words in problems[0]


def test_the_demand_of_a_device_is_not_the_feeders_to_alter(spec_of) -> None:
    _, problems = resolve_physical(spec_of(step("load, kw: 1", "der.house_1")), DEVICES)
    assert "der.house_1, a house whose power a device federate gives" in problems[0]
    plan = planned(spec_of(step("load, kw: 1", "'der.house_*'")), DEVICES)
    assert plan.labels[LOAD_KW] == ("der.house_3", "der.house_4")


def test_a_fraction_is_drawn_by_seed_and_does_not_depend_on_what_else_there_is(spec_of) -> None:
    share = spec_of(step("trip", "'der.*'", "fraction: 0.4"))
    drawn = planned(share).actions[0].labels
    assert len(drawn) == 3  # of 7, rounded
    assert planned(share).actions[0].labels == drawn
    other = [
        planned(spec_of(step("trip", "'der.*'", "fraction: 0.4"), seed=s)).actions[0].labels
        for s in range(2, 12)
    ]
    assert len(set(other)) > 3
    fewer = PhysicalElements.of(load_feeder("ieee13").with_ders(DERS[2:]))
    without_pv = set(planned(spec_of(step("trip", "'der.*'", "count: 5")), fewer).actions[0].labels)
    assert {x for x in drawn if "pv" not in x} <= without_pv


def test_a_step_that_nobody_obeys_says_what_is_said_without_it(spec_of) -> None:
    plan = planned(
        spec_of(
            step("trip", "'*'", probability=0),
            step("load, factor: 3", "'*'", probability=0),
        )
    )
    active, idle = plan.values(np.zeros(2)), plan.values(np.full(2, np.nan))
    for port in active:
        assert active[port].tobytes() == idle[port].tobytes()
    assert plan.affected(active, np.zeros(2)) == []


@pytest.mark.parametrize(("probability", "obey"), [(0.0, 0), (0.5, 2), (1.0, 4)])
def test_what_an_attacker_decides_is_done_by_those_that_obey(
    spec_of, probability: float, obey: int
) -> None:
    action = "adaptive, attacker: weakest-nodes"
    plan = planned(spec_of(step(action, "'der.house_*'", probability=probability)))
    decided = {0: np.array([5.0, 6.0, 7.0, 8.0])}
    values = plan.values(np.zeros(1), decided)
    told = values[LOAD_KW]
    assert (told != 0.0).sum() == obey
    assert (told[told != 0.0] == decided[0][told != 0.0]).all()
    affected = plan.affected(values, np.zeros(1), decided)
    assert [row.seen.tolist() for row in affected] == [told[told != 0.0].tolist()] * bool(obey)
    # The same elements obey what the file says and what an attacker decides.
    plan = planned(spec_of(step("load, kw: 10", "'der.house_*'", probability=probability)))
    assert ((plan.values(np.zeros(1))[LOAD_KW] != 0.0) == (told != 0.0)).all()


def test_on_and_off_in_turn_at_once_or_spread(spec_of) -> None:
    target = "'der.house_*'"
    together = planned(spec_of(step("load, kw: 10, on_s: 60, off_s: 30", target)))
    total = [together.values(np.array([t]))[LOAD_KW].sum() for t in (0.0, 59.0, 60.0, 89.0, 90.0)]
    assert total == [10.0, 10.0, 0.0, 0.0, 10.0]
    rich = PhysicalElements.of(load_feeder("ieee123-der-rich"))
    spread = planned(
        spec_of(step("load, kw: 960, on_s: 60, off_s: 30, synchrony: 0", target)), rich
    )
    share = [np.mean(spread.values(np.array([t]))[LOAD_KW] > 0.0) for t in np.arange(0.0, 90.0, 5)]
    assert 0.5 < min(share) <= max(share) < 0.85  # two thirds of 96, whenever one looks


@given(st.floats(0.0, 1e5), st.integers(0, 5))
def test_each_element_is_on_for_its_part_of_every_cycle(elapsed_s: float, n: int) -> None:
    step_ = {
        "id": "s", "layer": "physical", "trigger": {"at_s": 0.0},
        "action": {"kind": "load", "kw": 4.0, "on_s": 20.0, "off_s": 60.0, "synchrony": 0.5},
        "target": {"elements": ["der.house_*"]},
    }  # fmt: skip
    plan = planned(AttackSpec.model_validate({"id": "a", "steps": [step_]}))
    now = plan.values(np.array([elapsed_s]))[LOAD_KW]
    again = plan.values(np.array([elapsed_s + 80.0 * n]))[LOAD_KW]
    # Rounding may move an edge by a little; a value that differs does so at an edge only.
    edge = plan.values(np.array([elapsed_s + 1e-6]))[LOAD_KW] != now
    assert (
        (now == again) | edge | (plan.values(np.array([elapsed_s - 1e-6]))[LOAD_KW] != now)
    ).all()


def test_what_is_left_behind_is_the_state_of_just_before_the_end(spec_of) -> None:
    cycle = "load, kw: 10, on_s: 60, off_s: 60"
    plan = planned(
        spec_of(step(cycle, "'der.house_*'", duration_s=120, on_end="leave")),
    )
    # The clock of a step that leaves its work says its length from then on; there the next
    # cycle would begin.
    assert plan.values(np.array([120.0]))[LOAD_KW].sum() == 0.0
    plan = planned(spec_of(step(cycle, "'der.house_*'", duration_s=60, on_end="leave")))
    assert plan.values(np.array([60.0]))[LOAD_KW].sum() == 10.0


def test_steps_that_meet_add_multiply_or_override(spec_of) -> None:
    plan = planned(
        spec_of(
            step("trip", "switch.sw1"),
            step("close", "switch.sw1"),
            step("load, kw: 2", "load.load_634a"),
            step("load, kw: 3", "load.load_634a"),
            step("load, factor: 2", "load.load_634a"),
            step("load, factor: 1.5", "load.load_634a"),
            step("thermostat, offset_k: 1", "der.house_1"),
            step("thermostat, offset_k: -3", "der.house_1"),
        )
    )
    values = plan.values(np.zeros(8))
    assert [values[p].tolist() for p in (CONNECTED, LOAD_KW, LOAD_FACTOR, THERMOSTAT_K)] == [
        [1.0],
        [5.0],
        [3.0],
        [-2.0],
    ]


def test_the_truth_says_what_would_have_been_and_what_the_grid_is_told(spec_of) -> None:
    plan = planned(
        spec_of(
            step("trip", "'der.pv_*', switch.sw1"),
            step("close", "switch.sw1"),
            step("load, kw: 2", "load.load_634a"),
        )
    )
    elapsed = np.array([0.0, np.nan, 5.0])
    tripped, loaded = plan.affected(plan.values(elapsed), elapsed)
    assert (tripped.port, tripped.step, loaded.port, loaded.step) == (0, 0, 1, 2)
    assert tripped.elements.tolist() == [0, 1, 2]
    assert tripped.true.tolist() == [1.0] * 3
    assert tripped.seen.tolist() == [0.0] * 3
    assert (loaded.true.tolist(), loaded.seen.tolist()) == ([0.0], [2.0])
    # A closed switch that is closed is as it was.
    elapsed = np.array([np.nan, 0.0, np.nan])
    assert plan.affected(plan.values(elapsed), elapsed) == []


@pytest.mark.parametrize(
    ("target", "plants", "words"),
    [
        ("", ["town", "farm"], ["steps[0].target: ", "several plants; expected one of town, farm"]),
        ("plant: farn", ["town", "farm"], ["target.plant: ", "'farn'", "did you mean 'farm'?"]),
        ("plant: town", ["town", "farm"], []),
        ("plant: farm", ["town", "farm"], None),
        ("", ["town"], []),
        ("plant: farm", ["town"], ["no plant is called 'farm'; expected one of town"]),
    ],
)
def test_a_step_says_which_of_several_plants_it_means(
    spec_of, target: str, plants: list[str], words: list[str] | None
) -> None:
    """`words` are those of the problem; None: the step is another plant's."""
    spec = spec_of(step("trip", "der.pv_*", target))
    plan, problems = resolve_physical(spec, ELEMENTS, "town", plants)
    assert len(problems) == bool(words)
    assert all(word in problems[0] for word in words or ())
    assert [a.labels for a in plan.actions] == ([("der.pv_1", "der.pv_2")] if words == [] else [])
    assert all(federate == "town" for federate, _, _ in plan.books())
