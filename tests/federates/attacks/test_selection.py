"""The share of what matches: one rule for every layer."""

from __future__ import annotations

from typing import Any

import pytest

from federates.attacks.link.layer import resolve_link_steps
from federates.attacks.physical.elements import PhysicalElements
from federates.attacks.physical.resolve import resolve_physical
from federates.attacks.selection import drawn
from federates.errors import WiringError
from federates.scenario.attack_schema import AttackSpec, Target

TARGETS: dict[str, dict[str, Any]] = {
    "signal": {"port": "feeder.v_pu"},
    "link": {"links": ["*"]},
    "physical": {"elements": ["*"]},
    "modbus": {"devices": ["*"]},
}
THINGS = {"signal": "labels", "link": "links", "physical": "elements", "modbus": "devices"}


def _spec(layer: str, **share: Any) -> AttackSpec:
    kind = {"physical": "trip"}.get(layer, "drop")
    step = {
        "id": "s",
        "layer": layer,
        "target": TARGETS[layer] | share,
        "trigger": {"at_s": 0.0},
        "action": {"kind": kind},
    }
    return AttackSpec.model_validate({"id": "a", "seed": 3, "steps": [step]})


def _draw(layer: str, n: int, **share: Any) -> list[str]:
    spec = _spec(layer, **share)
    return drawn([f"n{i}" for i in range(n)], spec.steps[0].target, spec, 0)


def _elements(n: int) -> PhysicalElements:
    names = [f"load.n{i}" for i in range(n)]
    return PhysicalElements(
        tuple(names),
        dict.fromkeys(names, "load"),
        dict.fromkeys(names, 1.0),
        dict.fromkeys(names, True),
        dict.fromkeys(names, "1.1"),
    )


@pytest.mark.parametrize("layer", TARGETS)
@pytest.mark.parametrize(
    ("fraction", "of", "taken"),
    [(0.5, 5, 3), (0.5, 7, 4), (0.5, 6, 3), (0.49, 5, 2), (0.01, 5, 1), (1.0, 5, 5), (0.3, 96, 29)],
)
def test_a_fraction_is_rounded_half_up_and_is_at_least_one(
    layer: str, fraction: float, of: int, taken: int
) -> None:
    names = _draw(layer, of, fraction=fraction)
    assert len(names) == taken
    assert names == sorted(names, key=lambda name: int(name[1:]))  # in their order


def test_elements_of_the_grid_are_counted_like_labels() -> None:
    plan, problems = resolve_physical(_spec("physical", fraction=0.5), _elements(5))
    assert problems == []
    assert len(plan.actions[0].labels) == len(_draw("signal", 5, fraction=0.5)) == 3


@pytest.mark.parametrize("layer", TARGETS)
def test_more_than_there_is_cannot_be_drawn(layer: str) -> None:
    assert len(_draw(layer, 20, count=20)) == 20
    words = rf"target\.count: 1000 of 20 {THINGS[layer]}; expected at most 20"
    with pytest.raises(WiringError, match=words):
        _draw(layer, 20, count=1000)


def test_elements_say_so_among_the_other_problems() -> None:
    _, problems = resolve_physical(_spec("physical", count=6), _elements(5))
    assert [p.partition("target.count: ")[2] for p in problems] == [
        "6 of 5 elements; expected at most 5"
    ]


def test_of_nothing_nothing_is_drawn() -> None:
    """That nothing matches is said elsewhere, and is no matter of the count."""
    assert _draw("link", 0, count=3) == []
    _, problems = resolve_link_steps(_spec("link", count=3), {})
    assert len(problems) == 1
    assert "no agent of this scenario writes mail" in problems[0]


def test_without_a_share_all_are_meant() -> None:
    spec = _spec("signal")
    assert drawn(["b", "a"], Target(port="x.y"), spec, 0) == ["b", "a"]
