"""Agents of a distributed optimisation in a federation: the answer, and the same bits anywhere."""

from __future__ import annotations

import numpy as np
import pytest

from controllers.core.compliance import check_controller
from controllers.core.errors import ControllerError
from controllers.core.sample_site import sample_site
from controllers.optimisation.controller import Optimisation
from controllers.optimisation.problems.catalog import load_problem

pytestmark = pytest.mark.scenario

SMALL = "federates.units.options.problem=dispatch-10"
STEPS = 150


def test_the_shipped_scenario_finds_the_optimum(ran) -> None:
    """Units stop at a residual of 1e-6, as they do without a federation."""
    found = ran("optimise-dispatch", steps=400, shared=True)
    best = load_problem("dispatch-100", seed=1).reference
    last = found.values("units.x")[-1]
    assert np.abs(last - best.x).max() < 1e-4 * np.abs(best.x).max()
    assert found.result.metrics["optimality_gap"] < 1e-6
    assert found.result.metrics["mail_lost_count"] > 1000


def test_every_placement_and_split_gives_the_same_bits(ran) -> None:
    one = ran("optimise-dispatch", SMALL, steps=STEPS)
    x = one.by_label("x")
    assert len(x) == 10
    for split, placement in (
        ("1", "shared"),
        ("3", "thread"),
        ("2", "process"),
        ("agents", "single"),
    ):
        more = f"federates.units.split={split}"
        other = ran("optimise-dispatch", SMALL, more, placement=placement, steps=STEPS)
        assert other.by_label("x") == x, (split, placement)
        assert other.result.metrics["mail_lost_count"] == one.result.metrics["mail_lost_count"]


def test_quantised_mail_is_part_of_a_scenario(ran) -> None:
    """Of 16 bits per number the agents find the optimum, of 4 bits not."""
    links = "links=[{bits: %d}]"
    gaps = [
        ran("optimise-dispatch", SMALL, links % bits, steps=STEPS).result.metrics["optimality_gap"]
        for bits in (4, 16)
    ]
    assert gaps[0] > 100.0 * gaps[1]
    assert gaps[1] < 1e-3


@pytest.mark.parametrize(
    "options",
    [
        {"problem": "dispatch-9", "algorithm": "admm-async"},
        {"problem": "consensus-ring-9", "algorithm": "extra"},
        {"problem": "case39", "algorithm": "interior-point"},
    ],
)
def test_every_kind_of_algorithm_is_a_controller(options: dict[str, str]) -> None:
    check_controller(Optimisation, **options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"problem": "dispach-9"}, "did you mean 'dispatch-9'"),
        ({"problem": "none.m"}, "there is no case 'none.m'"),
        ({"algorithm": "dul"}, "did you mean 'dual'"),
        (
            {"algorithm": "extra", "problem": "dcopf-case39"},
            "does not solve inequality dispatch problems",
        ),
        ({"algorithm_options": {"stp": 1}}, "did you mean 'step'"),
        ({"algorithm_options": [1]}, "a mapping"),
        ({"rounds": 0}, "at least 1"),
        ({"tolerance": -1.0}, "at least 0"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], says: str) -> None:
    with pytest.raises(ControllerError, match=says):
        Optimisation.agents(sample_site(), **options)
