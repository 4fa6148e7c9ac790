"""Algorithms by name: what each does, and the function that builds it for a kind of problem."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from controllers.core.errors import ControllerError
from controllers.optimisation.method import Method, Problem
from grid_models.base.errors import nearest_name


@dataclass(frozen=True)
class Algorithm:
    """An algorithm.

    Attributes
    ----------
    about : One line for lists.
    builders : Kind of problem to ``module:function`` within this package. The function is called
        with the problem, ``tolerance``, ``waiting``, ``hosted`` and the algorithm's options.
    options : Fixed options of a variant.
    """

    about: str
    builders: Mapping[str, str]
    options: Mapping[str, Any] = field(default_factory=dict)


ALGORITHMS: dict[str, Algorithm] = {
    "dual": Algorithm(
        "dual decomposition: a coordinator's price, constant step",
        {"dispatch": "dual:build"},
    ),
    "dual-conservative": Algorithm(
        "dual decomposition with the step q_min / n, known without all costs",
        {"dispatch": "dual:build"},
        {"step": "conservative"},
    ),
    "dual-diminishing": Algorithm(
        "dual decomposition, step falling with the square root of the round",
        {"dispatch": "dual:build"},
        {"step": "diminishing"},
    ),
    "dual-preconditioned": Algorithm(
        "dual decomposition, a step of its own for each row (Jacobi)",
        {"dispatch": "dual:build"},
        {"step": "preconditioned"},
    ),
    "admm": Algorithm(
        "sharing ADMM: members and a coordinator, in parallel",
        {"dispatch": "admm:build"},
    ),
    "admm-preconditioned": Algorithm(
        "sharing ADMM, penalties scaled by each member's curvature",
        {"dispatch": "admm:build"},
        {"penalty": "scaled"},
    ),
    "admm-over-relaxed": Algorithm(
        "sharing ADMM, over-relaxed by 1.6",
        {"dispatch": "admm:build"},
        {"relaxation": 1.6},
    ),
    "admm-async": Algorithm(
        "sharing ADMM, the coordinator waits for a fraction of the members",
        {"dispatch": "admm:build_asynchronous"},
    ),
    "consensus": Algorithm(
        "averaging with neighbours, optimal constant weight",
        {"consensus": "consensus:build"},
    ),
    "consensus-metropolis": Algorithm(
        "averaging with neighbours, Metropolis weights",
        {"consensus": "consensus:build"},
        {"weights": "metropolis"},
    ),
    "consensus-momentum": Algorithm(
        "averaging with neighbours, two-step momentum",
        {"consensus": "consensus:build"},
        {"momentum": True},
    ),
    "interior-point": Algorithm(
        "interior point: regions eliminate their part of Newton steps, a coordinator joins them",
        {"regions": "interior_point:build"},
    ),
}


def names_for(problem: Problem) -> tuple[str, ...]:
    """Return the algorithms that can solve a problem."""
    return tuple(name for name, a in ALGORITHMS.items() if problem.kind in a.builders)


def build(name: str, problem: Problem, **options: Any) -> Method:
    """Return an algorithm at work on a problem.

    Raises ControllerError: There is no such algorithm, it does not solve such problems, or it has
    no such option.
    """
    if name not in ALGORITHMS:
        raise ControllerError(
            f"no algorithm is called '{name}'",
            where="algorithms",
            expected="one of " + ", ".join(names_for(problem)),
            nearest=nearest_name(name, ALGORITHMS),
        )
    algorithm = ALGORITHMS[name]
    if problem.kind not in algorithm.builders:
        raise ControllerError(
            f"algorithm '{name}' does not solve {problem.kind} problems",
            where="algorithms",
            expected="one of " + ", ".join(names_for(problem)),
        )
    module, _, function = algorithm.builders[problem.kind].partition(":")
    make: Callable[..., Method] = getattr(
        import_module(f"controllers.optimisation.algorithms.{module}"), function
    )
    return make(problem, **{**algorithm.options, **options})
